#include "shoal/ipc/condition.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

#include "shoal/ipc/controls.h"
#include "shoal/ipc/errors.h"

namespace shoal {
namespace {

using liveness::Who;
using waiting::Side;
using waiting::Status;

constexpr std::string_view kPrefix = "/dev/shm/shoal.";

// A slot's word, taken apart.
constexpr std::uint64_t kStateMask = 3;
constexpr std::uint64_t kWaiting = 1;
constexpr std::uint64_t kNotified = 2;
constexpr unsigned kWhoShift = 2;
constexpr unsigned kNumberShift = 36;
constexpr std::uint32_t kNumberMask = (1u << 28) - 1;

constexpr std::uint64_t make_word(std::uint64_t state, Who who,
                                  std::uint32_t number) {
  return state | who << kWhoShift |
         std::uint64_t{number & kNumberMask} << kNumberShift;
}
constexpr bool is(std::uint64_t state, std::uint64_t word) {
  return (word & kStateMask) == state;
}
constexpr Who who_of(std::uint64_t word) {
  return word >> kWhoShift & liveness::kWhoMask;
}
constexpr std::uint32_t number_of(std::uint64_t word) {
  return static_cast<std::uint32_t>(word >> kNumberShift);
}
// Numbers go round; all that are compared are near each other.
constexpr bool before(std::uint32_t a, std::uint32_t b) {
  return a != b && ((b - a) & kNumberMask) < (kNumberMask >> 1);
}

}  // namespace

// What all that look at the slots do, with and without the lock.
class Condition::Slots {
 public:
  Slots(ConditionState& state, liveness::Domain& domain)
      : state_(state), domain_(domain), fenced_(domain.needs_fence()) {}

  ConditionSlot& operator[](std::uint32_t i) const { return state_.slots[i]; }
  std::uint32_t count() const {
    // SYNC(condition.high)
    return std::min(state_.high.load(std::memory_order_acquire),
                    ConditionState::kSlots);
  }
  // SYNC(condition.slot)
  std::uint64_t load(std::uint32_t i) const {
    return state_.slots[i].load(std::memory_order_acquire);
  }
  bool replace(std::uint32_t i, std::uint64_t& word, std::uint64_t by) const {
    // SYNC(condition.slot)
    return state_.slots[i].compare_exchange_strong(
        word, by, std::memory_order_acq_rel, std::memory_order_acquire);
  }
  bool dead(std::uint64_t word) const {
    return controls::kSweep && domain_.dead(who_of(word));
  }

  // By the holder of the lock. Our slot; kSlots: none is free.
  std::uint32_t enter(Who me, std::uint64_t& waiting) const {
    // relaxed: only who holds the lock writes it.
    const std::uint32_t number =
        state_.numbers.load(std::memory_order_relaxed) & kNumberMask;
    waiting = make_word(kWaiting, me, number);
    for (std::uint32_t i = 0; i < ConditionState::kSlots; ++i) {
      if (i >= state_.high.load(std::memory_order_relaxed))
        // SYNC(condition.high)
        state_.high.store(i + 1, std::memory_order_release);
      std::uint64_t word = load(i);
      if (is(kWaiting, word) && dead(word)) replace(i, word, word = 0);
      // KILL: a dead one waits; it is passed over and its slot is free.
      if (word == 0 && replace(i, word, waiting)) {
        state_.numbers.store(number + 1, std::memory_order_relaxed);
        return i;
      }
    }
    return ConditionState::kSlots;
  }

  // A notify to the one that has waited longest, of those who came before
  // `number` if `only_before` says so; they were few then, or numbers that went
  // round would hide them. False: nobody waits.
  bool notify_oldest(std::uint32_t number, bool only_before) const {
    for (;;) {
      std::uint32_t oldest = ConditionState::kSlots;
      std::uint64_t found = 0;
      for (std::uint32_t i = 0, n = count(); i < n; ++i) {
        std::uint64_t word = load(i);
        if (!is(kWaiting, word)) continue;
        if (only_before && !before(number_of(word), number)) continue;
        if (dead(word)) {
          // KILL: free.
          replace(i, word, 0);
          continue;
        }
        if (found != 0 && before(number_of(found), number_of(word))) continue;
        oldest = i;
        found = word;
      }
      if (found == 0) return false;
      // KILL: notified; the kernel wakes one, who wakes all that are notified.
      if (!replace(oldest, found, make_word(kNotified, who_of(found), number)))
        continue;  // its timeout was first, or another notify
      wake(oldest);
      return true;
    }
  }

  // Hands on what was meant for waiters that died before they were back. One
  // word at any time says whose a notify is, but for the moment between its
  // new owner's and its old one's: who dies there leaves it to two.
  void hand_on(Who me) const {
    bool handed = false;
    for (std::uint32_t i = 0, n = count(); i < n; ++i) {
      std::uint64_t word = load(i);
      if (!is(kNotified, word) || !dead(word)) continue;
      const std::uint64_t mine = make_word(kNotified, me, number_of(word));
      // KILL: it is the notify of a dead one still.
      if (!replace(i, word, mine)) continue;
      handed = true;
      notify_oldest(number_of(word), true);
      // SYNC(condition.slot)
      // KILL: done.
      (*this)[i].store(0, std::memory_order_release);
    }
    if (handed) wake_notified();
  }

  // The waker of some of them may have died.
  void wake_notified() const {
    for (std::uint32_t i = 0, n = count(); i < n; ++i)
      if (is(kNotified, load(i))) futex::wake(futex::low_half((*this)[i]), 1);
  }

  // Who leaves with a notify, or will no longer watch over those who have one,
  // wakes one to watch.
  void leave_watch(Who me) const {
    bool waiting = false;
    bool notified = false;
    for (std::uint32_t i = 0, n = count(); i < n; ++i) {
      const std::uint64_t word = load(i);
      waiting |= is(kWaiting, word) && who_of(word) != me;
      notified |= is(kNotified, word);
    }
    if (!waiting || !notified) return;
    asymmetric_fence::light(fenced_);
    waiting::wake(state_.wait, Side::consumers, domain_);
  }

  bool anybody_waits() const {
    for (std::uint32_t i = 0, n = count(); i < n; ++i)
      if (is(kWaiting, load(i))) return true;
    return false;
  }

 private:
  // The owner of that slot, and nobody else.
  void wake(std::uint32_t i) const {
    asymmetric_fence::light(fenced_);
    // relaxed: ordered after the slot by the fence.
    if ((state_.wait.word.load(std::memory_order_relaxed) &
         flag_of(Side::consumers)) != 0)
      futex::wake(futex::low_half((*this)[i]), 1);
  }

  ConditionState& state_;
  liveness::Domain& domain_;
  const bool fenced_;
};

// One who waits, without the lock. It sleeps on its own slot, by which it is
// notified, and on the word of all, by which it hears of deaths and is called
// to watch: somebody who sleeps has the kernel tell him when one dies that was
// notified and is not back.
class Condition::Waiter {
 public:
  Waiter(const Condition& condition, Who me, std::uint32_t slot,
         std::uint64_t waiting)
      : condition_(condition),
        slots_(condition.slots()),
        me_(me),
        slot_(slot),
        waiting_(waiting) {}

  Status attempt() const {
    return slots_.load(slot_) == waiting_ ? Status::blocked : Status::ok;
  }
  waiting::WaitState& wait_state() const { return condition_.state_->wait; }
  liveness::Domain& domain() const { return condition_.object_->domain(); }
  waiting::SpinBudget& spin() const { return condition_.object_->spin; }
  bool looks_ready(Side) const {
    return slots_[slot_].load(std::memory_order_relaxed) != waiting_;
  }
  void watch(liveness::Watch& watch) const {
    watch.add(futex::low_half(slots_[slot_]),
              static_cast<std::uint32_t>(waiting_));
  }
  void sweep() const {
    if constexpr (!controls::kSweep) return;
    slots_.hand_on(me_);
  }
  void pass_baton(bool) const {
    // SYNC(condition.notifier)
    Who notifier = condition_.state_->notifier.load(std::memory_order_acquire);
    if (notifier == 0 || !slots_.dead(notifier << kWhoShift)) return;
    slots_.wake_notified();
    // relaxed: it only spares others the same.
    condition_.state_->notifier.compare_exchange_strong(
        notifier, 0, std::memory_order_relaxed);
  }
  Who holder_behind(Side) {
    Who named = 0;
    const std::uint32_t n = slots_.count();
    for (std::uint32_t i = 0; i < n; ++i) {
      const std::uint64_t word = slots_.load((turn_ + i) % n);
      if (!is(kNotified, word) || who_of(word) == me_) continue;
      std::uint32_t alive;
      domain().life_word(who_of(word), alive);
      if (named == 0) named = who_of(word);
    }
    ++turn_;
    return named;
  }

  // After the timeout. False: it was notified before.
  bool withdraw() const {
    std::uint64_t word = waiting_;
    return slots_.replace(slot_, word, 0);
  }

 private:
  const Condition& condition_;
  const Slots slots_;
  const Who me_;
  const std::uint32_t slot_;
  const std::uint64_t waiting_;
  std::uint32_t turn_ = 0;
};

namespace {

Spec condition_spec() {
  return {.kind = Kind::condition,
          .fingerprint = sizeof(ConditionState),
          .type_text = "Condition",
          .payload_bytes = sizeof(ConditionState)};
}

// The object that begins with the lock.
std::shared_ptr<Object> find_lock(const std::shared_ptr<Object>& object,
                                  const Spec& spec) {
  const auto& state = *static_cast<const ConditionState*>(object->payload());
  if (state.lock_id == 0) return object;
  auto lock = Object::find(state.lock_id);
  if (lock == nullptr) {
    const auto& text = state.lock_name;
    const std::string name(text.begin(),
                           std::find(text.begin(), text.end(), '\0'));
    if (name.empty())
      throw Error(object->name() +
                  ": this process cannot reach the RLock that the condition "
                  "was made with: it was made after this process was forked");
    lock = Object::open(name, spec, {});
  }
  if (lock->header().id != state.lock_id || lock->header().kind != Kind::rlock)
    throw Corrupt(object->name() + ": the RLock that it was made with, " +
                  lock->name() +
                  ", has been replaced; unlink the condition as well");
  return lock;
}

}  // namespace

Condition::Condition(const std::shared_ptr<Object>& object)
    : Condition(object, find_lock(object, LockHandle::spec(Kind::rlock))) {}

Condition::Condition(const std::shared_ptr<Object>& object,
                     std::shared_ptr<Object> home)
    : LockHandle(object, *home),
      home_(std::move(home)),
      state_(static_cast<ConditionState*>(object->payload())) {}

Spec Condition::object_spec() { return condition_spec(); }

Spec Condition::spec(const RLock& lock, bool named) {
  const auto& object = HandleAccess::object(lock);
  const bool lock_named = object->header().domain_offset != 0;
  if (named && !lock_named)
    throw std::invalid_argument(
        "shoal: a named Condition with an anonymous RLock, which other "
        "programs could not open; give it a name, or let the Condition have "
        "its own");
  const std::string name =
      lock_named ? object->name().substr(kPrefix.size()) : std::string();
  Spec spec = condition_spec();
  spec.initialise = [id = object->header().id, name](void* payload) {
    auto& state = *static_cast<ConditionState*>(payload);
    state.lock_id = id;
    name.copy(state.lock_name.data(), ConditionState::kName - 1);
  };
  return spec;
}

Condition::Slots Condition::slots() const {
  return {*state_, object_->domain()};
}

bool Condition::wait(Timeout timeout) const {
  require_mine("wait");
  const Deadline deadline(timeout);
  const Who me = object_->domain().seat();
  // Until we are back: whoever is called to watch, and dies, has the next one
  // called.
  const liveness::PassedWake armed(liveness::thread_context.robust,
                                   state_->wait.word);
  const Slots slots = this->slots();
  std::uint64_t waiting;
  const std::uint32_t slot = slots.enter(me, waiting);
  if (slot == ConditionState::kSlots)
    throw NoSpace(object_->name() + ": " +
                      std::to_string(ConditionState::kSlots) +
                      " threads wait already; no more can",
                  1, 0);
  const std::uint32_t depth = std::exchange(lock_.state().depth, 0);
  lock_.release();
  Waiter waiter(*this, me, slot, waiting);
  const auto attempt = [&](liveness::Who&) { return waiter.attempt(); };
  const bool notified =
      (!timeout.is_now() && waiting::until(waiter, Side::consumers, deadline,
                                           attempt) == Status::ok) ||
      !waiter.withdraw();
  slots.leave_watch(me);
  lock_.acquire(forever);
  lock_.state().depth = depth;
  if (notified)
    // SYNC(condition.slot)
    // KILL: the notify has reached us, who hold the lock dead.
    slots[slot].store(0, std::memory_order_release);
  return notified;
}

void Condition::notify(int n) const {
  if (n < 0)
    throw std::invalid_argument("shoal: Condition::notify(" +
                                std::to_string(n) +
                                "); it wakes 0 or more of those who wait");
  require_mine("notify");
  tell(static_cast<std::uint32_t>(n));
}

void Condition::notify_all() const {
  require_mine("notify_all");
  tell(ConditionState::kSlots);
}

void Condition::tell(std::uint32_t n) const {
  liveness::Domain& domain = object_->domain();
  const Who me = domain.seat();
  const liveness::PassedWake armed(liveness::thread_context.robust,
                                   state_->wait.word);
  const Slots slots = this->slots();
  if constexpr (controls::kSweep) slots.hand_on(me);
  // SYNC(condition.notifier)
  // KILL: the one that the kernel wakes sees that we died and wakes those who
  // are notified.
  state_->notifier.store(me, std::memory_order_release);
  // relaxed: only who holds the lock writes it.
  const std::uint32_t limit =
      state_->numbers.load(std::memory_order_relaxed) & kNumberMask;
  while (n-- != 0 && slots.notify_oldest(limit, false)) {
  }
  // SYNC(condition.notifier)
  state_->notifier.store(0, std::memory_order_release);
  // A flag that nobody stands behind would cost each notify a system call. Who
  // was notified and is about to sleep finds the word changed.
  // relaxed: only spares time.
  if ((state_->wait.word.load(std::memory_order_relaxed) &
       flag_of(Side::consumers)) != 0 &&
      !slots.anybody_waits())
    waiting::take_away(state_->wait, flag_of(Side::consumers));
}

}  // namespace shoal
