#include "shoal/pool/pool.h"

#include <stdexcept>

namespace shoal {

Pool::~Pool() {
  try {
    core().terminate();
    core().join(forever);
  } catch (const std::logic_error&) {
    // A copy that a fork made: the pool is the parent's.
  } catch (...) {
    core_->kill();  // no seat, no memory: the kernel ends what is left
  }
}

}  // namespace shoal
