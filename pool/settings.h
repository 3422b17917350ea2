#pragma once
// PoolOptions as the numbers that a nursery and its workers go by.

#include "shoal/pool/options.h"
#include "shoal/pool/pool_state.h"

namespace shoal::pool {

// Throws std::invalid_argument, which names the option, its value and what it
// may be; NoSpace. They speak of a ThreadPool if it is one of `threads`.
Settings settings_of(const PoolOptions& options, bool threads = false);

}  // namespace shoal::pool
