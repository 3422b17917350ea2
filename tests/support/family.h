#pragma once
// A process and all that it starts and they start, traced, so that one of them
// can be killed before each of its system calls.
//
//   for (std::size_t k = 0;; ++k) {
//     const FamilyEnd end = kill_in_family(2, k, [] { work(); });
//     if (!end.killed) break;                // it makes fewer calls
//     EXPECT_TRUE(end.all_ended);
//   }
//
// The processes are numbered as they come: 0 is a fork of the caller that runs
// `body` and ends by _exit(0), or 1 after an exception. Those without a parent
// come to the caller. For operations that run through libraries, loaders and
// other programs, where a kill at every instruction (step.h) would take hours.

#include <sys/types.h>

#include <atomic>
#include <cstddef>
#include <functional>

#include "shoal/ipc/timeout.h"

namespace shoal::support {

struct FamilyEnd {
  bool killed = false;     // the member died of our SIGKILL, before call k
  bool refused = false;    // the member's call k
  bool all_ended = false;  // by itself, each of them, in time
  int status = 0;          // of number 0: its exit code, -N for signal N
  std::size_t members = 0;
};

FamilyEnd kill_in_family(std::size_t member, std::size_t k,
                         const std::function<void()>& body);

// Instead, the member's k-th call of those that may be refused with `error`
// (refusable.h) is not made, and returns it. Calls count as long as the body
// has not set `enough`.
FamilyEnd refuse_in_family(
    std::size_t member, std::size_t k, int error,
    const std::function<void(std::atomic<bool>& enough)>& body);

}  // namespace shoal::support
