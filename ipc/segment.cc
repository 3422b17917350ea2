#include "shoal/ipc/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <limits>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "shoal/ipc/blocked_signals.h"
#include "shoal/ipc/descriptor.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/file_text.h"
#include "shoal/ipc/timeout.h"

namespace shoal {
namespace {

constexpr std::string_view kDirectory = "/dev/shm";
constexpr std::string_view kPrefix = "/dev/shm/shoal.";
constexpr std::uint64_t kSmall = 1 << 20;

std::string path_of(std::string_view name) {
  return std::string(kPrefix) + std::string(name);
}

std::optional<std::uint64_t> read_number(const std::string& path) {
  const std::string text = text_of_file(path);
  std::uint64_t number;
  if (std::from_chars(text.data(), text.data() + text.size(), number).ec ==
      std::errc())
    return number;
  return std::nullopt;  // "max", or no such file
}

std::uint64_t meminfo_available() {
  const auto kilobytes = number_in_file("/proc/meminfo", "MemAvailable:");
  return kilobytes ? *kilobytes * 1024
                   : std::numeric_limits<std::uint64_t>::max();
}

std::uint64_t left_of(const std::string& limit_path,
                      const std::string& used_path) {
  const auto limit = read_number(limit_path);
  const auto used = read_number(used_path);
  if (!limit || !used) return std::numeric_limits<std::uint64_t>::max();
  return *limit > *used ? *limit - *used : 0;
}

// What this process's cgroup and those above it leave, of either version.
std::uint64_t left_in_cgroups() {
  std::uint64_t left = std::numeric_limits<std::uint64_t>::max();
  // <id>:<controllers>:<path>
  for (const std::string& line : lines_of_file("/proc/self/cgroup")) {
    const auto first = line.find(':');
    const auto second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool v2 = controllers.empty();
    if (!v2 && controllers.find("memory") == std::string::npos) continue;
    const std::string root = v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory";
    std::string path = line.substr(second + 1);
    for (;;) {
      const std::string group = root + (path == "/" ? "" : path) + '/';
      left = std::min(
          left, v2 ? left_of(group + "memory.max", group + "memory.current")
                   : left_of(group + "memory.limit_in_bytes",
                             group + "memory.usage_in_bytes"));
      if (path.size() <= 1) break;
      path.erase(std::max<std::size_t>(path.rfind('/'), 1));
      if (path.empty()) path = "/";
    }
  }
  return left;
}

constexpr char kFreeMemory[] =
    "free memory, raise the cgroup's limit, or ask for less";

[[noreturn]] void throw_no_space(const std::string& what, std::uint64_t wanted,
                                 std::uint64_t available,
                                 const std::string& remedy) {
  throw NoSpace(what + ": no space: wanted " + std::to_string(wanted) +
                    " bytes, available " + std::to_string(available) + "; " +
                    remedy,
                wanted, available);
}

}  // namespace

bool unlink(std::string_view name) {
  segment::check_name(name);
  const std::string path = path_of(name);
  if (::unlink(path.c_str()) == 0) return true;
  if (errno == ENOENT) return false;
  throw_system_error(errno, "unlink", path);
}

std::uint64_t available_memory() {
  return std::min(meminfo_available(), left_in_cgroups());
}

namespace segment {
namespace {

// What a message may show of it: up to a NUL it would be cut.
std::string printable(std::string_view text) {
  std::string shown;
  for (const unsigned char c : text) {
    char code[] = "\\x00";
    if (c < ' ')
      snprintf(code, sizeof code, "\\x%02x", c);
    else
      snprintf(code, sizeof code, "%c", c);
    shown += code;
  }
  return shown;
}

}  // namespace

void check_name(std::string_view name) {
  const bool good = !name.empty() && name.size() <= 200 &&
                    std::all_of(name.begin(), name.end(), [](unsigned char c) {
                      return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
                             (c >= '0' && c <= '9') || c == '.' || c == '_' ||
                             c == '-';
                    });
  if (good) return;
  throw std::invalid_argument(
      "shoal: bad object name \"" + printable(name) +
      "\": use 1 to 200 characters of A-Z a-z 0-9 . _ -");
}

void check_available(const std::string& what, std::uint64_t bytes) {
  if (bytes < kSmall) return;
  const std::uint64_t available = available_memory();
  if (bytes <= available) return;
  throw_no_space(what, bytes, available, kFreeMemory);
}

namespace {

// Of a call that takes an inode or an entry of /dev/shm.
[[noreturn]] void throw_refused(int error, const char* call,
                                const std::string& path, std::size_t bytes) {
  if (error == ENOSPC)
    throw_no_space(path, bytes, 0,
                   "unlink objects, or enlarge the file system (mount -o "
                   "remount,size=...,nr_inodes=... /dev/shm)");
  throw_system_error(error, call, path, bytes);
}

void set_size(int descriptor, const std::string& what, std::size_t bytes) {
  // Or the kernel would send SIGXFSZ.
  rlimit limit{};
  if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && bytes > limit.rlim_cur)
    throw_no_space(what, bytes, limit.rlim_cur,
                   "raise the limit of a file's size (ulimit -f), or ask for "
                   "less");
  if (ftruncate(descriptor, static_cast<off_t>(bytes)) != 0)
    throw_refused(errno, "ftruncate", what, bytes);
}

}  // namespace

File File::anonymous(const std::string& what, std::size_t bytes) {
  const int descriptor = above_stdio(
      memfd_create(("shoal." + what).c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (descriptor < 0) throw_system_error(errno, "memfd_create", what, bytes);
  File file(descriptor, what, bytes);
  set_size(descriptor, what, bytes);
  return file;
}

File File::named(std::string_view name, std::size_t bytes, Access access) {
  check_name(name);
  const int descriptor = above_stdio(
      ::open(kDirectory.data(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (descriptor < 0)
    throw_refused(errno, "open(O_TMPFILE)", path_of(name), bytes);
  File file(descriptor, path_of(name), bytes);
  set_size(descriptor, file.what_, bytes);
  if (fchmod(descriptor, access.mode) != 0)
    throw_system_error(errno, "fchmod", file.what_);
  return file;
}

std::optional<File> File::open(std::string_view name, Access access) {
  check_name(name);
  const std::string path = path_of(name);
  const int flags = (access.read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC |
                    O_NOFOLLOW | O_NONBLOCK;
  // A keeper (keeper_serve.cc) has a lease on it while it asks whether anybody
  // uses it: for two system calls.
  int descriptor;
  const Deadline deadline(std::chrono::seconds(10));
  while ((descriptor = above_stdio(::open(path.c_str(), flags))) < 0 &&
         errno == EWOULDBLOCK && !deadline.passed())
    sched_yield();
  if (descriptor < 0) {
    if (errno == ENOENT) return std::nullopt;
    throw_system_error(errno, "open", path);
  }
  struct stat status;
  if (fstat(descriptor, &status) != 0) {
    const int error = errno;
    ::close(descriptor);
    throw_system_error(error, "fstat", path);
  }
  File file(descriptor, path, static_cast<std::size_t>(status.st_size));
  if (!S_ISREG(status.st_mode))
    throw Corrupt(path + " is not a regular file; remove it");
  return file;
}

File File::adopt(int descriptor, const std::string& what) {
  File file(descriptor, what, 0);
  struct stat status;
  if (fstat(descriptor, &status) != 0) throw_system_error(errno, "fstat", what);
  if (!S_ISREG(status.st_mode))
    throw Corrupt(what + ": what came in its place is no memory");
  file.size_ = static_cast<std::size_t>(status.st_size);
  return file;
}

File::File(File&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)),
      what_(std::move(other.what_)),
      size_(other.size_) {}

bool File::read_only() const {
  return (fcntl(descriptor_, F_GETFL) & O_ACCMODE) == O_RDONLY;
}

File::~File() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void File::reserve(std::size_t offset, std::size_t bytes) const {
  check_available(what_, bytes);
  int error;
  do {
    error = posix_fallocate(descriptor_, static_cast<off_t>(offset),
                            static_cast<off_t>(bytes));
  } while (error == EINTR);
  if (error == 0) return;
  if (error != ENOSPC && error != ENOMEM)
    throw_system_error(error, "posix_fallocate", what_, bytes);
  // What has no name lies in no file system that anybody can see.
  if (error == ENOMEM || !what_.starts_with(kPrefix))
    throw_no_space(what_, bytes, available_memory(), kFreeMemory);
  struct statfs status;
  const std::uint64_t available =
      fstatfs(descriptor_, &status) == 0
          ? static_cast<std::uint64_t>(status.f_bavail) *
                static_cast<std::uint64_t>(status.f_bsize)
          : 0;
  throw_no_space(what_, bytes, available,
                 "unlink objects, enlarge the file system (mount -o "
                 "remount,size=... /dev/shm), or ask for less");
}

void File::discard(std::size_t offset, std::size_t bytes) const {
  int outcome;
  do {
    outcome = fallocate(descriptor_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                        static_cast<off_t>(offset), static_cast<off_t>(bytes));
  } while (outcome != 0 && errno == EINTR);
  if (outcome != 0)
    throw_system_error(errno, "fallocate(PUNCH_HOLE)", what_, bytes);
}

void File::seal() const {
  if (fcntl(descriptor_, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0)
    throw_system_error(errno, "fcntl(F_ADD_SEALS)", what_);
}

bool File::publish() const {
  const std::string self = "/proc/self/fd/" + std::to_string(descriptor_);
  // KILL: before this call nothing is left behind, after it the whole object.
  if (linkat(AT_FDCWD, self.c_str(), AT_FDCWD, what_.c_str(),
             AT_SYMLINK_FOLLOW) == 0)
    return true;
  if (errno == EEXIST) return false;
  throw_refused(errno, "linkat", what_, size_);
}

std::shared_ptr<void> File::map(std::size_t offset, std::size_t bytes,
                                bool read_only, bool populate,
                                Alignment alignment) const {
  void* place = nullptr;
  if (alignment.bytes > kPage) {
    // Room for it wherever it begins; what is left over goes.
    const std::size_t room = bytes + alignment.bytes;
    void* const found =
        mmap(nullptr, room, PROT_NONE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (found == MAP_FAILED) throw_system_error(errno, "mmap", what_, room);
    auto* const first = static_cast<char*>(found);
    const std::size_t off =
        (reinterpret_cast<std::uintptr_t>(first) + alignment.at) %
        alignment.bytes;
    const std::size_t skip = off == 0 ? 0 : alignment.bytes - off;
    place = first + skip;
    if (skip != 0) munmap(first, skip);
    const std::size_t end = skip + round_to_page(bytes);
    if (end < room) munmap(first + end, room - end);
  }
  void* start =
      mmap(place, bytes, read_only ? PROT_READ : PROT_READ | PROT_WRITE,
           MAP_SHARED | MAP_NORESERVE | (populate ? MAP_POPULATE : 0) |
               (place != nullptr ? MAP_FIXED : 0),
           descriptor_, static_cast<off_t>(offset));
  if (start == MAP_FAILED) {
    const int error = errno;
    if (place != nullptr) munmap(place, bytes);
    throw_system_error(error, "mmap", what_, bytes);
  }
  return std::shared_ptr<void>(start, [bytes](void* p) { munmap(p, bytes); });
}

namespace {

// False: not by this kernel, or there is no room.
bool populate(char* start, std::size_t bytes) {
  constexpr std::size_t kAtOnce = std::size_t{64} << 20;
  for (std::size_t done = 0; done < bytes;) {
    const std::size_t n = std::min(kAtOnce, bytes - done);
    if (madvise(start + done, n, MADV_POPULATE_WRITE) == 0)
      done += n;
    else if (errno != EINTR && errno != EAGAIN)
      return false;
  }
  return true;
}

}  // namespace

void reserve_mapping(const std::string& what, void* start, std::size_t bytes) {
  check_available(what, bytes);
  const auto address = reinterpret_cast<std::uintptr_t>(start);
  const std::size_t before = address % kPage;
  if (!populate(static_cast<char*>(start) - before,
                round_to_page(before + bytes)) &&
      errno != EINVAL)
    throw_no_space(what, bytes, available_memory(), kFreeMemory);
}

void File::reserve_mapped(std::size_t offset, std::size_t bytes,
                          void* start) const {
  constexpr std::size_t kPart = std::size_t{32} << 20;  // worth a thread
  constexpr std::size_t kMostThreads = 16;
  auto* const first = static_cast<char*>(start);
  cpu_set_t cpus;
  const std::size_t most =
      sched_getaffinity(0, sizeof cpus, &cpus) == 0
          ? std::min(kMostThreads, static_cast<std::size_t>(CPU_COUNT(&cpus)))
          : 1;
  const std::size_t threads = std::clamp(bytes / kPart, std::size_t{1}, most);
  const std::size_t part = round_to_page((bytes + threads - 1) / threads);
  std::vector<std::thread> helpers;
  helpers.reserve(threads);
  std::atomic<bool> had{true};
  const auto take = [&](std::size_t k) {
    const std::size_t from = std::min(bytes, k * part);
    const std::size_t n = std::min(part, bytes - from);
    if (n != 0 && !populate(first + from, n)) had = false;
  };
  {
    const BlockedSignals inherited;
    try {
      for (std::size_t k = 1; k < threads; ++k) helpers.emplace_back(take, k);
    } catch (const std::system_error&) {
      // No thread to be had: we take it all.
    }
  }
  for (std::size_t k = helpers.size() + 1; k < threads; ++k) take(k);
  take(0);
  for (std::thread& helper : helpers) helper.join();
  // It says what is missing, and serves where the kernel is old.
  if (!had) reserve(offset, bytes);
}

std::shared_ptr<void> File::map_twice(std::size_t offset,
                                      std::size_t bytes) const {
  void* start = mmap(nullptr, 2 * bytes, PROT_NONE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (start == MAP_FAILED) throw_system_error(errno, "mmap", what_, 2 * bytes);
  std::shared_ptr<void> both(start, [bytes](void* p) { munmap(p, 2 * bytes); });
  for (const std::size_t at : {std::size_t{0}, bytes})
    if (mmap(static_cast<char*>(start) + at, bytes, PROT_READ | PROT_WRITE,
             MAP_SHARED | MAP_FIXED | MAP_NORESERVE | MAP_POPULATE, descriptor_,
             static_cast<off_t>(offset)) == MAP_FAILED)
      throw_system_error(errno, "mmap", what_, bytes);
  return both;
}

std::shared_ptr<void> map_private_to_tree(std::size_t bytes) {
  void* start = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (start == MAP_FAILED)
    throw_system_error(errno, "mmap(MAP_SHARED)", "", bytes);
  return std::shared_ptr<void>(start, [bytes](void* p) { munmap(p, bytes); });
}

std::uint64_t random_id() {
  std::uint64_t id = 0;
  while (id == 0)
    if (getrandom(&id, sizeof id, 0) != sizeof id && errno != EINTR)
      throw_system_error(errno, "getrandom");
  return id;
}

}  // namespace segment
}  // namespace shoal
