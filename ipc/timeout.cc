#include "shoal/ipc/timeout.h"

#include <time.h>

namespace shoal {

std::int64_t monotonic_now() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

std::int64_t Deadline::instant(Timeout timeout) {
  if (timeout.is_forever()) return kNever;
  if (timeout.is_now()) return 0;
  const std::int64_t start = monotonic_now();
  if (timeout.nanoseconds() >= kNever - start) return kNever;
  return start + timeout.nanoseconds();
}

Timeout Deadline::remaining() const {
  if (is_never()) return forever;
  if (nanoseconds_ == 0) return now;
  return std::chrono::nanoseconds(nanoseconds_ - monotonic_now());
}

}  // namespace shoal
