#include "shoal/pool/pool.h"

namespace shoal {

Pool::~Pool() {
  try {
    core_->terminate();
    core_->join(forever);
  } catch (const std::logic_error&) {
    // A copy that a fork made: the pool is the parent's.
  }
}

}  // namespace shoal
