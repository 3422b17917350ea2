#pragma once
// The locks of an Array (shared/array.h): one of the whole, and one of each of
// its stripes.
//
//   const ArrayLocks::Hold hold = ArrayLocks(object, state).take(deadline);
//
// They are numbered: 0 is the whole's, then come the stripes'. As long as
// nobody has locked a stripe, the first stands for all of them.
//
// Death: a lock outlives its holder; the next one is told.
// Cost:  once somebody has locked a stripe, the whole is 65 locks.

#include <atomic>
#include <cstddef>
#include <stdexcept>
#include <utility>

#include "shoal/ipc/errors.h"
#include "shoal/ipc/liveness.h"
#include "shoal/ipc/object.h"
#include "shoal/ipc/robust_lock.h"
#include "shoal/ipc/timeout.h"
#include "shoal/shared/array_state.h"

namespace shoal {

// A view; what it views is to outlive it, and what is held.
class ArrayLocks {
 public:
  class Hold;

  ArrayLocks(Object& object, ArrayState& state)
      : object_(&object), state_(&state) {}

  // Both throw TimeoutError, std::logic_error.
  Hold take_whole(Deadline deadline) const;
  Hold take_stripe(std::size_t stripe, Deadline deadline) const;

 private:
  static constexpr std::size_t kWhole = 0;
  static constexpr std::size_t kFirstStripe = 1;
  static constexpr std::size_t kCount = kFirstStripe + ArrayState::kStripes;

  RobustLock operator[](std::size_t k) const {
    return RobustLock(
        k == kWhole ? state_->lock : state_->stripes[k - kFirstStripe].lock,
        object_->domain(), object_->spin);
  }
  liveness::Who seat() const { return object_->domain().seat(); }

  Object* object_;
  ArrayState* state_;
};

// Some of them, until its end, by the thread that took them.
class ArrayLocks::Hold {
 public:
  Hold(Hold&& other) noexcept
      : locks_(other.locks_),
        holder_(other.holder_),
        first_(other.first_),
        last_(std::exchange(other.last_, other.first_)) {}
  Hold& operator=(Hold&&) = delete;
  // In another thread than the one that took them: nothing, they stay held.
  ~Hold() {
    if (first_ != last_ && holder_ == locks_.seat()) release(last_);
  }

  // As of Lock, of any of them.
  bool owner_died() const {
    bool died = false;
    for (std::size_t k = first_; k != last_; ++k)
      died = died || locks_[k].owner_died();
    return died;
  }
  void mark_consistent() {
    for (std::size_t k = first_; k != last_; ++k) locks_[k].mark_consistent();
  }

 private:
  friend class ArrayLocks;
  // Takes [first, last).
  Hold(const ArrayLocks& locks, std::size_t first, std::size_t last,
       Deadline deadline)
      : locks_(locks), holder_(locks.seat()), first_(first), last_(first) {
    take_up_to(last, deadline);
  }
  void take_up_to(std::size_t last, Deadline deadline);
  void release(std::size_t until) {
    while (until != first_) locks_[--until].release();
  }

  ArrayLocks locks_;
  liveness::Who holder_;
  std::size_t first_;
  std::size_t last_;
};

// ---- inline ----

inline ArrayLocks::Hold ArrayLocks::take_whole(Deadline deadline) const {
  // SYNC(array.striped)
  if (state_->striped.load(std::memory_order_acquire) != 0) {
    // Else whoever holds the whole could wait for us, and we for them.
    for (std::size_t k = kFirstStripe; k != kCount; ++k)
      if ((*this)[k].is_mine())
        throw std::logic_error(
            "shoal: Array::lock by a thread that holds a stripe of it");
  }
  Hold hold(*this, kWhole, kFirstStripe, deadline);
  // relaxed: written only by holders of what we hold.
  if (state_->striped.load(std::memory_order_relaxed) != 0)
    hold.take_up_to(kCount, deadline);
  return hold;
}

inline ArrayLocks::Hold ArrayLocks::take_stripe(std::size_t stripe,
                                                Deadline deadline) const {
  // SYNC(array.striped)
  if (state_->striped.load(std::memory_order_acquire) == 0) {
    const Hold whole(*this, kWhole, kFirstStripe, deadline);
    // SYNC(array.striped)
    // KILL: told or not; nobody has a stripe before it is.
    state_->striped.store(1, std::memory_order_release);
  }
  const std::size_t k = kFirstStripe + stripe % ArrayState::kStripes;
  return Hold(*this, k, k + 1, deadline);
}

inline void ArrayLocks::Hold::take_up_to(std::size_t last, Deadline deadline) {
  const std::size_t had = last_;
  try {
    for (; last_ != last; ++last_)
      if (!locks_[last_].acquire(deadline.remaining()))
        throw TimeoutError("shoal: Array::lock timed out");
  } catch (...) {
    // In the constructor nobody else would.
    if (had == first_) release(std::exchange(last_, first_));
    throw;
  }
}

}  // namespace shoal
