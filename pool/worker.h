#pragma once
// What a worker process does: take a task, run it, complete it, until the
// rings are drained.

#include <cstdint>

#include "shoal/pool/pool_state.h"

namespace shoal::pool {

// Returns when all rings are drained and the pool was closed. In the worker's
// own process; `slot` is its place in the pool.
void run_worker(Memory& memory, std::uint32_t slot);

}  // namespace shoal::pool
