#include "shoal/ipc/semaphore.h"

#include <stdexcept>
#include <string>

#include "shoal/ipc/controls.h"
#include "shoal/ipc/errors.h"

namespace shoal {
namespace {

using waiting::Side;
using waiting::Status;

void check_value(const char* type, unsigned value, unsigned most) {
  if (value > most)
    throw std::invalid_argument(
        std::string("shoal: ") + type + " of " + std::to_string(value) +
        " units; at most " + std::to_string(most) +
        " (a negative number arrives here as a large one)");
}

void check_released(const char* type, unsigned n) {
  if (n == 0)
    throw std::invalid_argument(std::string("shoal: ") + type +
                                "::release(0); give back at least one unit");
}

}  // namespace

// ---- Semaphore ----

class Semaphore::Sleeper {
 public:
  explicit Sleeper(const Semaphore& semaphore) : semaphore_(semaphore) {}

  waiting::WaitState& wait_state() const { return semaphore_.state_->wait; }
  liveness::Domain& domain() const { return *semaphore_.domain_; }
  waiting::SpinBudget& spin() const { return semaphore_.object_->spin; }
  bool looks_ready(Side) const {
    return semaphore_.state_->value.load(std::memory_order_relaxed) != 0;
  }
  static constexpr bool kNothingToSweep = true;
  void sweep() const {}
  void pass_baton(bool in_vain) const {
    if (semaphore_.get_value() != 0)
      waiting::wake(wait_state(), Side::consumers, domain(),
                    in_vain ? futex::kAll : 1);
  }
  liveness::Who holder_behind(Side) const { return 0; }

 private:
  const Semaphore& semaphore_;
};

Semaphore::Semaphore(std::shared_ptr<Object> object)
    : object_(std::move(object)),
      state_(static_cast<SemaphoreState*>(object_->payload())),
      domain_(&object_->domain()),
      fenced_(domain_->needs_fence()) {}

Spec Semaphore::object_spec() {
  return {.kind = Kind::semaphore,
          .fingerprint = sizeof(SemaphoreState),
          .type_text = "Semaphore",
          .payload_bytes = sizeof(SemaphoreState)};
}

Spec Semaphore::spec(unsigned value) {
  check_value("Semaphore", value, kMost);
  Spec spec = object_spec();
  spec.initialise = [value](void* payload) {
    // relaxed: nobody else sees it yet.
    static_cast<SemaphoreState*>(payload)->value.store(
        value, std::memory_order_relaxed);
  };
  return spec;
}

bool Semaphore::take() const {
  // relaxed: the exchange orders.
  std::uint32_t value = state_->value.load(std::memory_order_relaxed);
  while (value != 0)
    // SYNC(semaphore.value)
    // KILL: a unit less, for good: nobody owns it.
    if (state_->value.compare_exchange_weak(value, value - 1,
                                            std::memory_order_acquire,
                                            std::memory_order_relaxed))
      return true;
  return false;
}

bool Semaphore::acquire(Timeout timeout) const {
  if (take()) return true;
  if (timeout.is_now()) return false;
  Sleeper sleeper(*this);
  return waiting::until(sleeper, Side::consumers, timeout, [&](liveness::Who&) {
           return take() ? Status::ok : Status::blocked;
         }) == Status::ok;
}

void Semaphore::release(unsigned n) const {
  check_released("Semaphore", n);
  domain_->seat();
  const liveness::PassedWake armed(liveness::thread_context.robust,
                                   state_->wait.word);
  // relaxed: the exchange orders.
  std::uint32_t value = state_->value.load(std::memory_order_relaxed);
  do {
    if (value > kMost || n > kMost - value)
      throw std::logic_error(
          "shoal: Semaphore::release(" + std::to_string(n) + ") with " +
          std::to_string(value) + " units free would overflow; at most " +
          std::to_string(kMost) + ". Is it released more often than acquired?");
    // SYNC(semaphore.value): what was done before is visible to whoever
    // acquires.
    // KILL: the units are there; the kernel wakes one, who passes it on.
  } while (!state_->value.compare_exchange_weak(
      value, value + n, std::memory_order_acq_rel, std::memory_order_relaxed));
  asymmetric_fence::light(fenced_);
  waiting::wake(state_->wait, Side::consumers, *domain_, static_cast<int>(n));
}

// ---- BoundedSemaphore ----

class BoundedSemaphore::Sleeper {
 public:
  explicit Sleeper(const BoundedSemaphore& semaphore)
      : semaphore_(semaphore), me_(semaphore.domain_->process_seat()) {}

  Status attempt() const {
    return semaphore_.take(me_) ? Status::ok : Status::blocked;
  }
  waiting::WaitState& wait_state() const { return semaphore_.state_->wait; }
  liveness::Domain& domain() const { return *semaphore_.domain_; }
  waiting::SpinBudget& spin() const { return semaphore_.object_->spin; }
  bool looks_ready(Side) const {
    const std::uint32_t hint =
        semaphore_.state_->hint.load(std::memory_order_relaxed);
    return hint < semaphore_.count_ &&
           semaphore_.units_[hint].load(std::memory_order_relaxed) == 0;
  }
  static constexpr bool kNothingToSweep = true;
  void sweep() const {}
  void pass_baton(bool in_vain) const {
    for (std::uint32_t i = 0; i < semaphore_.count_; ++i) {
      // SYNC(semaphore.unit)
      const auto unit = semaphore_.units_[i].load(std::memory_order_acquire);
      if (unit != 0 && !semaphore_.dead(unit)) continue;
      waiting::wake(wait_state(), Side::consumers, domain(),
                    in_vain ? futex::kAll : 1);
      return;
    }
  }
  // The kernel is told to wake us for each of the holders; the one that is
  // named is looked at more closely, first of all one whose seat is held by no
  // thread any more, of which the kernel will not tell.
  liveness::Who holder_behind(Side) {
    liveness::Who named = 0;
    liveness::Who last = 0;
    bool unheld = false;
    for (std::uint32_t n = 0; n < semaphore_.count_; ++n) {
      const std::uint32_t i = (turn_ + n) % semaphore_.count_;
      // SYNC(semaphore.unit)
      const liveness::Who holder =
          semaphore_.units_[i].load(std::memory_order_acquire) &
          liveness::kWhoMask;
      if (holder == 0 || holder == me_ || holder == last) continue;
      last = holder;
      std::uint32_t alive;
      domain().life_word(holder, alive);
      if (!unheld && (named == 0 || (alive & FUTEX_TID_MASK) == 0)) {
        named = holder;
        unheld = (alive & FUTEX_TID_MASK) == 0;
      }
    }
    ++turn_;
    return named;
  }

 private:
  const BoundedSemaphore& semaphore_;
  const liveness::Who me_;
  std::uint32_t turn_ = 0;
};

BoundedSemaphore::BoundedSemaphore(std::shared_ptr<Object> object)
    : object_(std::move(object)),
      state_(static_cast<BoundedSemaphoreState*>(object_->payload())),
      units_(reinterpret_cast<BoundedSemaphoreState::Unit*>(state_ + 1)),
      count_(state_->units),
      domain_(&object_->domain()),
      fenced_(domain_->needs_fence()) {
  const std::uint64_t room =
      object_->header().payload_bytes < sizeof(BoundedSemaphoreState)
          ? 0
          : (object_->header().payload_bytes - sizeof(BoundedSemaphoreState)) /
                sizeof(BoundedSemaphoreState::Unit);
  if (count_ > room)
    throw Corrupt(object_->name() + ": a BoundedSemaphore of " +
                  std::to_string(count_) + " units in a segment for " +
                  std::to_string(room) + "; unlink it");
}

Spec BoundedSemaphore::object_spec() {
  return {.kind = Kind::bounded_semaphore,
          .fingerprint = sizeof(BoundedSemaphoreState),
          .type_text = "BoundedSemaphore",
          .payload_bytes = sizeof(BoundedSemaphoreState)};
}

Spec BoundedSemaphore::spec(unsigned value) {
  check_value("BoundedSemaphore", value, kMost);
  Spec spec = object_spec();
  spec.payload_bytes += value * sizeof(BoundedSemaphoreState::Unit);
  spec.initialise = [value](void* payload) {
    static_cast<BoundedSemaphoreState*>(payload)->units = value;
  };
  return spec;
}

bool BoundedSemaphore::dead(std::uint64_t unit) const {
  return controls::kSweep && domain_->dead(unit & liveness::kWhoMask);
}

// From the hint upwards: it stands behind the last one that was taken, and at
// the last one that was given back.
bool BoundedSemaphore::take(liveness::Who me) const {
  // relaxed: any start is good.
  std::uint32_t i = state_->hint.load(std::memory_order_relaxed);
  for (std::uint32_t n = 0; n < count_; ++n, ++i) {
    if (i >= count_) i = 0;
    // relaxed: the exchange orders.
    std::uint64_t unit = units_[i].load(std::memory_order_relaxed);
    while (unit == 0 || dead(unit)) {
      // SYNC(semaphore.unit)
      // KILL: ours, and we are dead: free.
      if (units_[i].compare_exchange_strong(unit, me, std::memory_order_acquire,
                                            std::memory_order_relaxed)) {
        state_->hint.store(i + 1, std::memory_order_relaxed);
        return true;
      }
    }
  }
  return false;
}

bool BoundedSemaphore::acquire(Timeout timeout) const {
  if (take(domain_->process_seat())) return true;
  if (timeout.is_now()) return false;
  Sleeper sleeper(*this);
  return waiting::until(sleeper, Side::consumers, timeout, [&](liveness::Who&) {
           return sleeper.attempt();
         }) == Status::ok;
}

// From the hint downwards. True when a unit of ours, or, where we have none, of
// another process that lives, was given back.
bool BoundedSemaphore::give_back(liveness::Who me) const {
  for (;;) {
    // relaxed: any start is good.
    std::uint32_t i = state_->hint.load(std::memory_order_relaxed);
    std::uint32_t found = count_;
    std::uint64_t unit = 0;
    for (std::uint32_t n = 0; n < count_; ++n) {
      i = i - 1 < count_ ? i - 1 : count_ - 1;
      // relaxed: the exchange orders.
      const std::uint64_t word = units_[i].load(std::memory_order_relaxed);
      if (word == 0 || (word != me && (found != count_ || dead(word))))
        continue;
      found = i;
      unit = word;
      if (word == me) break;
    }
    if (found == count_) return false;
    // SYNC(semaphore.unit): what was done before is visible to whoever
    // acquires it.
    // KILL: free; the kernel wakes one, who passes it on.
    if (units_[found].compare_exchange_strong(
            unit, 0, std::memory_order_acq_rel, std::memory_order_relaxed)) {
      state_->hint.store(found, std::memory_order_relaxed);
      return true;
    }
    // Another thread of ours was first, or it was taken from the dead.
  }
}

void BoundedSemaphore::throw_surplus(unsigned n) const {
  throw std::logic_error(
      "shoal: BoundedSemaphore::release(" + std::to_string(n) + ") with " +
      std::to_string(get_value()) + " of " + std::to_string(count_) +
      " units free; release only what was acquired");
}

void BoundedSemaphore::release(unsigned n) const {
  check_released("BoundedSemaphore", n);
  const liveness::Who me = domain_->process_seat();
  const liveness::PassedWake armed(liveness::thread_context.robust,
                                   state_->wait.word);
  if (n > 1 && n > count_ - get_value()) throw_surplus(n);
  for (unsigned given = 0; given < n; ++given) {
    if (!give_back(me)) throw_surplus(n - given);
    asymmetric_fence::light(fenced_);
    waiting::wake(state_->wait, Side::consumers, *domain_);
  }
}

unsigned BoundedSemaphore::get_value() const {
  unsigned value = 0;
  for (std::uint32_t i = 0; i < count_; ++i) {
    // SYNC(semaphore.unit)
    const std::uint64_t unit = units_[i].load(std::memory_order_acquire);
    value += unit == 0 || domain_->dead(unit & liveness::kWhoMask);
  }
  return value;
}

}  // namespace shoal
