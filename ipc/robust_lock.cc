#include "shoal/ipc/robust_lock.h"

#include <stdexcept>

namespace shoal {

bool RobustLock::acquire_slowly(Timeout timeout) const {
  liveness::Who blocker = 0;
  if (attempt(blocker) == waiting::Status::ok) return true;
  if (timeout.is_now()) return false;
  if (timeout.is_forever() && is_mine())
    throw std::logic_error(
        "shoal: this thread holds the lock already and would wait for itself; "
        "use RLock");
  return waiting::until(*this, waiting::Side::consumers, timeout,
                        [this](liveness::Who& blocker) {
                          return attempt(blocker);
                        }) == waiting::Status::ok;
}

bool RobustLock::locked() const {
  const liveness::Who holder =
      // SYNC(lock.owner)
      state_->owner.load(std::memory_order_acquire) & liveness::kWhoMask;
  return holder != 0 && !domain_->dead(holder);
}

void RobustLock::mark_consistent() const {
  // relaxed: read back by holders, who acquire the word.
  state_->owner.store(domain_->seat(), std::memory_order_relaxed);
}

void RobustLock::pass_baton(bool in_vain) const {
  if (!locked())
    waiting::wake(state_->wait, waiting::Side::consumers, *domain_,
                  in_vain ? futex::kAll : 1);
}

}  // namespace shoal
