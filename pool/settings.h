#pragma once
// PoolOptions as the numbers that a nursery and its workers go by.

#include "shoal/pool/options.h"
#include "shoal/pool/pool_state.h"

namespace shoal::pool {

enum class WorkersAre { processes, threads };

// Throws std::invalid_argument, which names the pool, the option, its value and
// what it may be; NoSpace.
Settings settings_of(const PoolOptions& options, WorkersAre workers);

}  // namespace shoal::pool
