#include "shoal/pool/pool.h"

#include <stdexcept>

namespace shoal {

void Pool::throw_without_core() {
  throw std::logic_error(
      "shoal: a Pool belongs to the process that made it, and is no use inside "
      "its own workers; make one here");
}

Pool::~Pool() {
  try {
    core().terminate();
    core().join(forever);
  } catch (const std::logic_error&) {
    // A copy that a fork made: the pool is the parent's.
  }
}

}  // namespace shoal
