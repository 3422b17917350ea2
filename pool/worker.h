#pragma once
// The process that runs a pool's tasks, one after the other.

#include <cstdint>

#include "shoal/ipc/process.h"
#include "shoal/pool/pool_state.h"

namespace shoal::pool {

// Until no task will come, or it has run as many as it may. `initializer`, if
// there is one, runs first.
void run_worker(Memory& memory, std::uint32_t slot, detail::Body* initializer);

}  // namespace shoal::pool
