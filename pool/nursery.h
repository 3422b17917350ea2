#pragma once
// The nursery: the process that forks, watches, reaps and replaces a pool's
// workers. It has one thread, so that forking from it is safe whatever the
// owner does, and ends with its owner; its workers end with it.
//
// Death:  a dead worker's task is completed as died, its blocks are freed, its
//         claims in the rings are swept. Killed itself, its workers get
//         SIGKILL from the kernel, and the owner finds its seat dead.

#include <memory>

#include "shoal/ipc/pidfd.h"
#include "shoal/pool/pool_state.h"

namespace shoal::pool {

// Runs in the forked process until the pool has ended. `owner` is the process
// that made the pool; `bell` becomes readable when it gives a command.
void run_nursery(Memory& memory, std::shared_ptr<const Pidfd> owner, int bell);

}  // namespace shoal::pool
