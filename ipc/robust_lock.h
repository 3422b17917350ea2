#pragma once
// The lock word inside Lock, RLock, Value and Array: names its holder, and
// outlives it.
//
// Death:  the claim is one CAS that says whose it is, so that a dead holder is
//         known as dead; the next to come takes over and is told.
// Cost:   uncontended, one CAS to acquire and one store to release.
// Layout: docs/layout.md#lock

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "shoal/ipc/liveness.h"
#include "shoal/ipc/timeout.h"
#include "shoal/ipc/waiting.h"

namespace shoal {

// LockState::owner
//   bits 0..33  seat of the holding thread, 0 when free
//   bit  63     a holder has died and nobody has called mark_consistent
// Zeroed memory is a free lock.
struct LockState {
  std::atomic<std::uint64_t> owner;  // by whoever acquires, and the holder
  waiting::WaitState wait;
  std::uint32_t depth;  // of recursion; the holder only
};
static_assert(std::is_standard_layout_v<LockState> && sizeof(LockState) == 24);

// A process-local view. All of it may be used by several threads at once.
class RobustLock {
 public:
  RobustLock(LockState& state, liveness::Domain& domain,
             waiting::SpinBudget& spin)
      : state_(&state),
        domain_(&domain),
        spin_(&spin),
        fenced_(domain.needs_fence()) {}

  // False when the timeout ends. Throws std::logic_error when the calling
  // thread holds it and would wait for itself for ever.
  bool acquire(Timeout timeout) const {
    return __builtin_expect(take_if_free(), 1) || acquire_slowly(timeout);
  }
  // By the straight path, without calls: false also when there is more to look
  // at than a free word and a thread that sits.
  bool take_if_free() const;
  // The same: false unless it is known at a glance that it is this thread's.
  bool release_if_mine() const;
  // By the holder only; the caller has checked is_mine().
  void release() const;

  bool is_mine() const {
    // relaxed: if it is this thread's, this thread has written it.
    return (state_->owner.load(std::memory_order_relaxed) &
            liveness::kWhoMask) == domain_->seat();
  }
  bool locked() const;
  bool owner_died() const {
    return (state_->owner.load(std::memory_order_relaxed) & kDied) != 0;
  }
  void mark_consistent() const;
  LockState& state() const { return *state_; }

  // ---- what waiting needs (waiting::until) ----

  waiting::WaitState& wait_state() const { return state_->wait; }
  liveness::Domain& domain() const { return *domain_; }
  waiting::SpinBudget& spin() const { return *spin_; }
  static constexpr bool kNothingToSweep = true;
  void sweep() const {}
  void pass_baton(bool in_vain) const;
  liveness::Who holder_behind(waiting::Side) const { return 0; }
  bool looks_ready(waiting::Side) const {
    return (state_->owner.load(std::memory_order_relaxed) &
            liveness::kWhoMask) == 0;
  }

 private:
  static constexpr std::uint64_t kDied = std::uint64_t{1} << 63;

  waiting::Status attempt(liveness::Who& blocker) const;
  bool acquire_slowly(Timeout timeout) const;

  LockState* state_;
  liveness::Domain* domain_;
  waiting::SpinBudget* spin_;
  bool fenced_;
};

inline bool RobustLock::take_if_free() const {
  liveness::Who me;
  if (__builtin_expect(!domain_->sits(me), 0)) return false;
  const auto armed = liveness::StraightWake::arm(state_->wait.word);
  std::uint64_t word = 0;
  // SYNC(lock.owner): what the last holder did is visible.
  // KILL: we hold it dead; the next to come takes over.
  const bool taken = state_->owner.compare_exchange_strong(
      word, me, std::memory_order_acquire, std::memory_order_relaxed);
  armed.disarm();
  return taken;
}

inline bool RobustLock::release_if_mine() const {
  liveness::Who me;
  // relaxed: if it is this thread's, this thread has written it.
  const std::uint64_t word = state_->owner.load(std::memory_order_relaxed);
  if (__builtin_expect(!domain_->sits(me) || (word & liveness::kWhoMask) != me,
                       0))
    return false;
  const auto armed = liveness::StraightWake::arm(state_->wait.word);
  // SYNC(lock.owner)
  // KILL: free; the kernel wakes a sleeper.
  state_->owner.store(word & kDied, std::memory_order_release);
  asymmetric_fence::light(fenced_);
  // relaxed: ordered after the publication by the asymmetric fence.
  if (__builtin_expect(state_->wait.word.load(std::memory_order_relaxed) != 0,
                       0))
    return waiting::wake_and_disarm(state_->wait, waiting::Side::consumers,
                                    *domain_, armed);
  armed.disarm();
  return true;
}

inline waiting::Status RobustLock::attempt(liveness::Who& blocker) const {
  const liveness::Who me = domain_->seat();
  const liveness::PassedWake armed(liveness::thread_context.robust,
                                   state_->wait.word);
  std::uint64_t word = 0;
  for (;;) {
    const liveness::Who holder = word & liveness::kWhoMask;
    std::uint64_t mine = me | (word & kDied);
    if (holder != 0) {
      if (!controls::kSweep || !domain_->dead(holder)) {
        blocker = holder;
        return waiting::Status::blocked;
      }
      mine |= kDied;
    }
    // SYNC(lock.owner): what the last holder did is visible.
    // KILL: we hold it dead; the next to come takes over.
    if (state_->owner.compare_exchange_strong(
            word, mine, std::memory_order_acquire, std::memory_order_acquire))
      return waiting::Status::ok;
  }
}

inline void RobustLock::release() const {
  const liveness::PassedWake armed(liveness::thread_context.robust,
                                   state_->wait.word);
  // SYNC(lock.owner)
  // KILL: free; the kernel wakes a sleeper.
  state_->owner.store(state_->owner.load(std::memory_order_relaxed) & kDied,
                      std::memory_order_release);
  asymmetric_fence::light(fenced_);
  waiting::wake(state_->wait, waiting::Side::consumers, *domain_);
}

}  // namespace shoal
