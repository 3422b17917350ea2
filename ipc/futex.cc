#include "shoal/ipc/futex.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>

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
  if (outcome >= 0) return Result::woken;
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

Result wait(const Word& word, std::uint32_t expected, Deadline deadline,
            std::uint32_t bits) {
  timespec time;
  return result_of(syscall(SYS_futex, address(word), FUTEX_WAIT_BITSET,
                           expected, absolute(deadline, time), nullptr, bits));
}

Result wait_either(const Word& first, std::uint32_t first_expected,
                   const Word& second, std::uint32_t second_expected,
                   Deadline deadline) {
  const WaitvEntry entries[2] = {
      {first_expected, reinterpret_cast<std::uint64_t>(&first), kFutex32, 0},
      {second_expected, reinterpret_cast<std::uint64_t>(&second), kFutex32, 0}};
  timespec time;
  const long outcome = syscall(kSysFutexWaitv, entries, 2, 0,
                               absolute(deadline, time), CLOCK_MONOTONIC);
  // EPERM: a seccomp profile that does not know the call.
  if (outcome >= 0 || (errno != ENOSYS && errno != EPERM))
    return result_of(outcome);
  const Deadline slice = Timeout(std::chrono::nanoseconds(kFallbackSlice));
  return wait(first, first_expected,
              slice.nanoseconds() < deadline.nanoseconds() ? slice : deadline);
}

int wake(const Word& word, int count, std::uint32_t bits) {
  const long woken = syscall(SYS_futex, address(word), FUTEX_WAKE_BITSET, count,
                             nullptr, nullptr, bits);
  return static_cast<int>(std::max(woken, 0L));
}

int move_one(const Word& from, const Word& to) {
  const long moved = syscall(SYS_futex, address(from), FUTEX_REQUEUE, 0,
                             reinterpret_cast<timespec*>(1L), address(to), 0);
  return static_cast<int>(std::max(moved, 0L));
}

}  // namespace shoal::futex
