#include "shoal/ipc/futex.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>

namespace shoal::futex {
namespace {

// The uapi structure; libc headers of Debian 12 lack it.
struct WaitvEntry {
  std::uint64_t value;
  std::uint64_t address;
  std::uint32_t flags;
  std::uint32_t reserved;
};
constexpr long kSysFutexWaitv = 449;
constexpr std::uint32_t kFutex32 = 2;
constexpr std::int64_t kFallbackSlice = 20'000'000;

void* address(const Word& word) {
  return const_cast<void*>(static_cast<const void*>(&word));
}

const timespec* absolute(Deadline deadline, timespec& storage) {
  if (deadline.is_never()) return nullptr;
  storage.tv_sec = deadline.nanoseconds() / 1'000'000'000;
  storage.tv_nsec = deadline.nanoseconds() % 1'000'000'000;
  return &storage;
}

Result result_of(long outcome) {
  if (outcome >= 0) return outcome == 0 ? Result::woken : Result::elsewhere;
  switch (errno) {
    case EAGAIN:
      return Result::changed;
    case ETIMEDOUT:
      return Result::timed_out;
    default:
      return Result::interrupted;
  }
}

}  // namespace

Result wait(const Word& word, std::uint32_t expected, Deadline deadline) {
  timespec time;
  // The variant with a set of bits, for its absolute deadline.
  return result_of(syscall(SYS_futex, address(word), FUTEX_WAIT_BITSET,
                           expected, absolute(deadline, time), nullptr,
                           FUTEX_BITSET_MATCH_ANY));
}

Result wait_any(std::span<const Expected> words, Deadline deadline) {
  std::array<WaitvEntry, kMostWords> entries;
  const std::size_t count = std::min(words.size(), kMostWords);
  for (std::size_t i = 0; i < count; ++i)
    entries[i] = {words[i].value,
                  reinterpret_cast<std::uint64_t>(words[i].word), kFutex32, 0};
  timespec time;
  const long outcome = syscall(kSysFutexWaitv, entries.data(), count, 0,
                               absolute(deadline, time), CLOCK_MONOTONIC);
  // EPERM: a seccomp profile that does not know the call.
  if (outcome >= 0 || (errno != ENOSYS && errno != EPERM))
    return result_of(outcome);
  const Deadline slice = Timeout(std::chrono::nanoseconds(kFallbackSlice));
  return wait(*words[0].word, words[0].value,
              slice.nanoseconds() < deadline.nanoseconds() ? slice : deadline);
}

int wake(const Word& word, int count) {
  const long woken =
      syscall(SYS_futex, address(word), FUTEX_WAKE, count, nullptr, nullptr, 0);
  return static_cast<int>(std::max(woken, 0L));
}

int move_one(const Word& from, const Word& to) {
  const long moved = syscall(SYS_futex, address(from), FUTEX_REQUEUE, 0,
                             reinterpret_cast<timespec*>(1L), address(to), 0);
  return static_cast<int>(std::max(moved, 0L));
}

}  // namespace shoal::futex
