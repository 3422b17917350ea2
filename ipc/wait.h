#pragma once
// wait(): until one of many things is ready.
//
//   const shoal::Waitable all[] = {orders, control, worker, listening_socket};
//   for (std::size_t i : shoal::wait(all, 1s)) ...
//
// Things:   lvalues of Connection, Queue, Event, Process, AsyncResult, and
//           descriptors; thousands of them, in any mixture. What has ended is
//           ready: end of file, shutdown.
// Sharing:  any thread; several may wait for the same things.
// Death:    whose death makes a thing ready wakes as its wake would.
// Cost:     one look at each thing when one is ready. To sleep: one look more,
//           one membarrier, one system call, and for descriptors beside
//           objects a helper thread for the time of the call. No CPU while it
//           sleeps.

#include <cstddef>
#include <initializer_list>
#include <span>
#include <vector>

#include "shoal/ipc/timeout.h"
#include "shoal/ipc/waitable.h"

namespace shoal {

// Indices of what is ready, ascending; none when the timeout ends first.
// Throws std::invalid_argument for nothing to wait for without a timeout,
// std::system_error EBADF for a descriptor that is not open, and what asking
// one of the things throws (a handle that is closed, also meanwhile: Closed).
std::vector<std::size_t> wait(std::span<const Waitable> things,
                              Timeout timeout = forever);
inline std::vector<std::size_t> wait(std::initializer_list<Waitable> things,
                                     Timeout timeout = forever) {
  return wait(std::span(things.begin(), things.size()), timeout);
}

}  // namespace shoal
