#pragma once
// Pages that processes share: anonymous (a memfd) or named
// (/dev/shm/shoal.<name>), sized once, reserved in steps, published whole.
//
//   Segment s = Segment::anonymous("queue", bytes);
//   s.reserve(0, bytes);                 // NoSpace now, not SIGBUS later
//
// Death:    a segment killed during its making leaves nothing: a memfd has no
//           name, and a named one gets its name by linkat as the last step.
// Layout:   none of its own; ipc/object.h puts a header into it.

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace shoal {

// Who may open a named object, and how this handle maps it.
struct Access {
  mode_t mode = 0600;
  bool read_only = false;
};

// Removes the name; objects that are mapped live on. False: no such name.
// Throws std::invalid_argument (bad name), std::system_error.
bool unlink(std::string_view name);

// Memory that a process may still take here: the least of MemAvailable and
// what the cgroup leaves, in bytes.
std::uint64_t available_memory();

namespace segment {

inline constexpr std::size_t kPage = 4096;
constexpr std::size_t round_to_page(std::size_t bytes) {
  return (bytes + kPage - 1) & ~(kPage - 1);
}

// Throws std::invalid_argument unless 1-200 characters of A-Z a-z 0-9 . _ -
void check_name(std::string_view name);

// What of a mapping is to be aligned: the byte at `at`, to a multiple of
// `bytes`, a power of two. `at` is a multiple of a page, or of `bytes`.
struct Alignment {
  std::size_t bytes = 1;
  std::size_t at = 0;
};

// A file of shared pages, before and while it is mapped.
class File {
 public:
  // `what` names it in /proc/<pid>/maps and in errors.
  static File anonymous(const std::string& what, std::size_t bytes);
  // Not visible under `name` until publish().
  static File named(std::string_view name, std::size_t bytes, Access access);
  // Takes a descriptor that came from elsewhere. Throws std::system_error.
  static File adopt(int descriptor, const std::string& what);
  // std::nullopt: no such name. Throws std::system_error.
  static std::optional<File> open(std::string_view name, Access access);

  File(File&& other) noexcept;
  File& operator=(File&&) = delete;
  ~File();

  // Backs [offset, offset + bytes) with pages; throws NoSpace.
  void reserve(std::size_t offset, std::size_t bytes) const;
  // Gives pages back, as if never touched.
  void discard(std::size_t offset, std::size_t bytes) const;
  // No one can change the size any more (memfd only). Further seals stay
  // possible: the keeper learns by one whether anybody has it mapped.
  void seal() const;
  // Gives a named file its name: false when the name exists.
  bool publish() const;

  // Maps the range; unmapped when the last copy of the pointer goes.
  std::shared_ptr<void> map(std::size_t offset, std::size_t bytes,
                            bool read_only, bool populate,
                            Alignment alignment = {}) const;
  // As reserve(), of a range that is mapped at `start`, whose pages are then
  // also in the page table; a long one by several threads at once. The caller
  // has called check_available().
  void reserve_mapped(std::size_t offset, std::size_t bytes, void* start) const;
  // Maps the range twice, behind each other, so that what crosses its end lies
  // in one piece; its pages are there.
  std::shared_ptr<void> map_twice(std::size_t offset, std::size_t bytes) const;
  std::size_t size() const { return size_; }
  int descriptor() const { return descriptor_; }
  bool read_only() const;  // as it was opened
  const std::string& what() const { return what_; }

 private:
  File(int descriptor, std::string what, std::size_t size)
      : descriptor_(descriptor), what_(std::move(what)), size_(size) {}

  int descriptor_;
  std::string what_;  // "queue" or "/dev/shm/shoal.orders"
  std::size_t size_;
};

// Memory shared with children of this process only, zeroed, no descriptor.
std::shared_ptr<void> map_private_to_tree(std::size_t bytes);

// Never 0.
std::uint64_t random_id();

// Throws NoSpace when less than `bytes` are available; small requests are not
// checked, since reading the limits costs more than they could take.
void check_available(const std::string& what, std::uint64_t bytes);
// The pages of a shared mapping, by one who may have no descriptor of it;
// throws NoSpace. (Before Linux 5.14 they come when they are touched.)
void reserve_mapping(const std::string& what, void* start, std::size_t bytes);

}  // namespace segment
}  // namespace shoal
