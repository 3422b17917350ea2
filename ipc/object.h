#pragma once
// An object in shared memory as a process sees it: payload, header, domain.
//
//   auto object = Object::create({.kind = Kind::queue, .payload_bytes = n});
//   auto* state = static_cast<RingState*>(object->payload());
//
// A segment holds the payload first and the header behind it, so that a named
// Array can be a NumPy file; a named segment ends with a domain of its own.
// Zeroed memory is a valid payload of every kind, or `initialise` makes it one
// before anybody else can see the segment.
//
// Death:  creation leaves nothing behind, or the whole object (segment.h).
// Layout: docs/layout.md#header

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "shoal/ipc/fork_mutex.h"
#include "shoal/ipc/liveness.h"
#include "shoal/ipc/segment.h"
#include "shoal/ipc/waiting.h"

namespace shoal {

enum class Kind : std::uint32_t {
  queue = 1,
  lock = 2,
  rlock = 3,
  value = 4,
  array = 5,
  pool = 6,
  event = 7,
  semaphore = 8,
  bounded_semaphore = 9,
  condition = 10,
  barrier = 11,
  pipe = 12,
};

struct HeaderState {
  static constexpr std::uint64_t kMagic = 0x0031304C414F4853;  // "SHOAL01\0"
  static constexpr std::uint32_t kAbiVersion = 2;
  static constexpr std::size_t kTypeText = 3072;

  std::uint64_t magic;
  std::uint32_t abi_version;
  Kind kind;
  std::uint64_t fingerprint;  // of the state structures of this kind
  std::uint64_t type_hash;
  std::uint64_t total_bytes;
  std::uint64_t payload_offset;
  std::uint64_t payload_bytes;
  std::uint64_t tail_bytes;     // behind the payload, in whole pages
  std::uint64_t domain_offset;  // 0: a process tree's domain, with this id
  std::uint64_t domain_id;      // 0: its own domain
  std::uint64_t id;             // random; names the object in messages
  std::uint64_t alignment;      // of the payload's mapping, at this offset
  std::uint64_t aligned_at;
  std::array<std::uint64_t, 8> options;  // as the kind means them
  std::array<char, kTypeText> type_text;
};
static_assert(std::is_standard_layout_v<HeaderState>);
static_assert(sizeof(HeaderState) <= segment::kPage);
static_assert(offsetof(HeaderState, options) == 104);

inline constexpr std::size_t kMostAlignment = std::size_t{1} << 30;

// What an object is to be, or is expected to be.
struct Spec {
  Kind kind;
  std::uint64_t fingerprint = 0;
  std::uint64_t type_hash = 0;
  std::string type_text = {};
  std::array<std::uint64_t, 8> options = {};
  std::size_t payload_bytes = 0;
  // Behind the payload, without pages and not mapped: for what grows. See
  // Object::tail().
  std::size_t tail_bytes = 0;
  bool reserve = true;
  bool populate = true;
  // Of the payload's mapping, in every process.
  segment::Alignment alignment = {};
  // Called on the payload's mapping before it has pages: where they are to lie.
  std::function<void(void* payload, std::size_t bytes)> place = {};
  // Called on the mapped payload before the object is visible to anybody.
  std::function<void(void* payload)> initialise = {};
};

class Object {
 public:
  // Throws NoSpace, std::system_error.
  static std::shared_ptr<Object> create(const Spec& spec);
  // Throws std::system_error EEXIST as well.
  static std::shared_ptr<Object> create(std::string_view name, const Spec& spec,
                                        Access access);
  // `spec` says kind and type; its options are not compared. Throws
  // std::system_error ENOENT, TypeMismatch, Corrupt.
  static std::shared_ptr<Object> open(std::string_view name, const Spec& spec,
                                      Access access);
  static std::shared_ptr<Object> open_or_create(std::string_view name,
                                                const Spec& spec,
                                                Access access);
  // One that came as descriptors: of its segment and, unless it is named, of
  // its domain, whose id is given; `from_starter`: that of the process which
  // has started this one, and becomes this one's own. Throws TypeMismatch,
  // Corrupt, std::system_error.
  static std::shared_ptr<Object> adopt(segment::File file, const Spec& spec,
                                       std::optional<segment::File> domain,
                                       std::uint64_t domain_id,
                                       bool from_starter);
  // One that this process has mapped, by its id; nullptr if there is none.
  static std::shared_ptr<Object> find(std::uint64_t id);
  // One in whose payload that address lies.
  static std::shared_ptr<Object> find_at(const void* address);
  // Objects made from now on have a serial number of at least this.
  static std::uint64_t next_serial();

  ~Object();
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;

  void* payload() const { return payload_; }
  // [offset, offset + bytes) of the tail, which this call maps; multiples of a
  // page. With `reserve` it gets pages first: NoSpace, and then nothing was
  // mapped. Throws Corrupt for a range beyond the tail, std::system_error.
  std::shared_ptr<void> tail(std::size_t offset, std::size_t bytes,
                             bool reserve) const;
  // The same, mapped twice behind each other.
  std::shared_ptr<void> tail_twice(std::size_t offset, std::size_t bytes,
                                   bool reserve) const;
  std::size_t tail_bytes() const { return header_.tail_bytes; }
  // Pages for that range, as with `reserve`; nothing is mapped.
  void reserve_tail(std::size_t offset, std::size_t bytes) const;
  // Gives the pages of the range back; it reads as zeros from now on.
  void discard_tail(std::size_t offset, std::size_t bytes) const;
  // As it was when it was checked.
  const HeaderState& header() const { return header_; }
  // Throws std::logic_error when the mapping is read-only.
  liveness::Domain& domain() const {
    if (!domain_) throw_read_only();
    return *domain_;
  }
  bool read_only() const { return !domain_; }
  // What domain() throws then.
  [[noreturn]] void throw_read_only() const;
  const std::string& name() const { return name_; }
  // Of its segment; for passing it on.
  int descriptor() const { return file_.descriptor(); }
  std::uint64_t serial() const { return serial_; }

  // ---- what this process keeps for all its handles ----

  waiting::SpinBudget spin;

  // Made by the first who asks; goes before the rest of the object.
  struct Local {
    virtual ~Local() = default;
  };
  template <class Make>  // Make: () -> std::unique_ptr<Local>
  Local& local(Make&& make) {
    // SYNC(object.local): whoever sees it sees it whole.
    Local* known = local_.load(std::memory_order_acquire);
    if (known != nullptr) return *known;
    std::unique_ptr<Local> made = make();
    if (!local_.compare_exchange_strong(known, made.get(),
                                        std::memory_order_acq_rel))
      return *known;  // another thread was faster
    return *made.release();
  }

  // Cells leased to threads of this process, for the check that nobody waits
  // for itself.
  void add_lease(std::uint64_t cell);
  void move_lease(std::uint64_t cell);  // no thread's any more
  void remove_lease(std::uint64_t cell);
  bool leased_by_this_thread(std::uint64_t cell);
  bool leased_by_this_thread();  // any

 private:
  struct Lease {
    std::uint64_t cell;
    pid_t thread;
  };

  Object(std::string name, segment::File file, std::shared_ptr<void> mapping,
         const HeaderState& header, liveness::DomainUse domain);

  static std::shared_ptr<Object> build(segment::File file, const Spec& spec,
                                       bool named);
  static std::shared_ptr<Object> attach(
      segment::File file, const Spec& spec, bool read_only,
      const std::function<liveness::DomainUse()>& tree = {});
  static std::shared_ptr<Object> add(std::shared_ptr<Object> object);
  std::size_t tail_start(std::size_t offset, std::size_t bytes) const;

  std::string name_;
  segment::File file_;
  std::shared_ptr<void> mapping_;
  HeaderState header_;
  void* payload_;
  liveness::DomainUse domain_;
  std::uint64_t serial_;
  std::vector<Lease>& leases();  // under leases_mutex_
  std::atomic<Local*> local_{nullptr};

  ForkMutex leases_mutex_;
  std::uint64_t leases_depth_ = liveness::fork_depth();
  std::unique_ptr<std::vector<Lease>> leases_;

 public:
  // What the handles of a kind keep here in this process, as they like. The
  // last member: it goes while the object is mapped and its domain in use.
  ForkMutex companion_mutex;
  std::shared_ptr<void> companion;
};

// Picks the Access out of create(name, args...), wherever it stands.
template <class... Args>
Access access_of(const Args&... args) {
  Access access;
  (
      [&] {
        if constexpr (std::is_same_v<Args, Access>) access = args;
      }(),
      ...);
  return access;
}

}  // namespace shoal
