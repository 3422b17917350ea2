#pragma once
// A clock that costs next to nothing to read, and has a rate of its own.
//
//   const std::uint64_t begin = ticks();
//   ... ticks() - begin > kTicksAMillisecond / 2
//
// On x86-64 the time stamp counter, which runs at 2 to 5 GHz; elsewhere
// nanoseconds.

#include <cstdint>

#if defined(__x86_64__)
#include <x86intrin.h>
#else
#include "shoal/ipc/timeout.h"
#endif

namespace shoal {

#if defined(__x86_64__)
// Roughly.
inline constexpr std::uint64_t kTicksAMillisecond = 3'000'000;
inline std::uint64_t ticks() { return __rdtsc(); }
#else
inline constexpr std::uint64_t kTicksAMillisecond = 1'000'000;
inline std::uint64_t ticks() {
  return static_cast<std::uint64_t>(monotonic_now());
}
#endif

}  // namespace shoal
