#pragma once
// Switches for the negative controls of the kill tests. A control build takes
// one piece of the recovery out; the kill tests must then fail. A program is
// never built with either (.bazelrc has the two, .ci/control runs them).

namespace shoal::controls {

#ifdef SHOAL_WITHOUT_PASSED_WAKE
inline constexpr bool kPassedWake = false;
#else
inline constexpr bool kPassedWake = true;
#endif

#ifdef SHOAL_WITHOUT_SWEEP
inline constexpr bool kSweep = false;
#else
inline constexpr bool kSweep = true;
#endif

}  // namespace shoal::controls
