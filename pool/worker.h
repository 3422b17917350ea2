#pragma once
// The process that runs a pool's tasks, one after the other.

#include <sys/types.h>

#include <cstdint>

#include "shoal/ipc/process.h"
#include "shoal/pool/pool_state.h"

namespace shoal::pool {

// In a process whose parent is the nursery, with the pid `parent`: it ends when
// that does. To be repeated where the process may have changed its credentials.
void follow_parent(pid_t parent);

// Until no task will come, or it has run as many as it may. `initializer`, if
// there is one, runs first.
void run_worker(Memory& memory, std::uint32_t slot, detail::Body* initializer);

}  // namespace shoal::pool
