#include "shoal/pool/completion.h"

#include <stdexcept>

namespace shoal::pool {

constinit thread_local const Completion::Bringing*
    Completion::Bringing::innermost_ = nullptr;

void Completion::throw_waits_for_itself() {
  throw std::logic_error(
      "shoal: a task waits for a result that is ready only when this task has "
      "ended");
}

bool Completion::wait(Deadline deadline) {
  if (ready()) return true;
  require_own();
  if (is_brought_here() && !deadline.passed()) throw_waits_for_itself();
  if (completed_here() && !deadline.passed())
    throw std::logic_error(
        "shoal: a callback waits for a result with callbacks of the same pool, "
        "which would be called after it");
  // Only who would wait for ever has the time to run it.
  if (deadline.is_never() && assist()) return true;
  if (waiting::SpinBudget* const spin = this->spin();
      spin != nullptr && !deadline.passed() &&
      waiting::spin_until(*spin, deadline, [this](int) { return ready(); }))
    return true;
  for (;;) {
    // acquire: SYNC(completion.state)
    const std::uint32_t state =
        state_.fetch_or(kSleepers, std::memory_order_acquire) | kSleepers;
    if ((state & kDone) != 0) return true;
    if (deadline.passed()) return false;
    futex::wait(state_, state, deadline);
  }
}

void Completion::require_own() const {
  if (depth_ != liveness::fork_depth())
    throw std::logic_error(
        "shoal: a result belongs to the process that made the pool; no thread "
        "will complete it here");
}

void Completion::announce() {
  if (!ready()) require_own();
  // seq_cst: the race closed is announce/look against complete/look.
  state_.fetch_or(kBell, std::memory_order_seq_cst);
}

void Completion::complete() noexcept {
  // Whoever finds it done may let go of it: nothing of it is touched later but
  // by address.
  liveness::Domain& bell = domain();
  // SYNC(completion.state); seq_cst: as in announce().
  const std::uint32_t before =
      state_.exchange(kDone, std::memory_order_seq_cst);
  if ((before & kSleepers) != 0) futex::wake(state_, futex::kAll);
  if ((before & kBell) != 0) bell.ring_bell();
}

}  // namespace shoal::pool
