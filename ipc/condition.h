#pragma once
// Condition: an RLock, and waiting with it released until somebody who has it
// says that something has changed.
//
//   std::unique_lock guard(changed);
//   changed.wait_for([&] { return !jobs.empty(); });
//   ...
//   std::lock_guard guard(changed);
//   jobs.add(7);
//   changed.notify();
//
// Sharing:  handles copy cheaply, a copy is the same condition. Only who holds
//           the lock may wait and notify.
// Ordering: that of the lock.
// Death:    a notify whose waiter dies before its wait() has the lock again
//           goes to another that waited then; who notifies waits for nobody.
//           If one that hands a notify on dies, too, two may have it. The lock
//           is as robust as RLock.
// Cost:     notify() one CAS and one system call for each that sleeps; one that
//           is notified wakes one more, who watches over it, if others wait.
// Layout:   docs/layout.md#condition

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <type_traits>

#include "shoal/ipc/lock.h"

namespace shoal {

// One who waits, or a notify that has not come back from its wait().
//   bits 0..1    0 empty, 1 waiting, 2 notified
//   bits 2..35   whose: the seat of the thread
//   bits 36..63  waiting: its number. notified: the next number at that time;
//                who has a lower one has waited then, and may have this notify
//                when its owner is dead
// Empty becomes waiting, and waiting becomes notified, by who holds the lock;
// all else by anybody.
using ConditionSlot = std::atomic<std::uint64_t>;

struct ConditionState {
  static constexpr std::uint32_t kSlots = liveness::kSeats;
  static constexpr std::size_t kName = 208;

  LockState lock;                      // unless lock_id names another
  waiting::WaitState wait;             // for deaths and watching, not to notify
  std::atomic<std::uint32_t> high;     // slots ever used; by the lock's holder
  std::atomic<std::uint32_t> numbers;  // given so far; by the lock's holder
  std::atomic<std::uint64_t> notifier;  // the seat of who is notifying, or 0
  std::uint64_t lock_id;                // of the RLock given, or 0
  std::array<char, kName> lock_name;    // if that has one
  alignas(64) std::array<ConditionSlot, kSlots> slots;
};
static_assert(std::is_standard_layout_v<ConditionState>);
static_assert(offsetof(ConditionState, lock) == 0);
static_assert(offsetof(ConditionState, wait) == 24);
static_assert(offsetof(ConditionState, notifier) == 40);
static_assert(offsetof(ConditionState, slots) == 320);
static_assert(ConditionSlot::is_always_lock_free);

class Condition : public LockHandle {
 public:
  // With an RLock of its own, or that one: a named condition needs a named
  // RLock (std::invalid_argument).
  Condition() : Condition(Object::create(object_spec())) {}
  Condition(const RLock& lock)  // NOLINT: as api.md has it
      : Condition(Object::create(spec(lock, false))) {}
  static Condition create(std::string_view name, Access access = {}) {
    return Condition(Object::create(name, object_spec(), access));
  }
  static Condition create(std::string_view name, const RLock& lock,
                          Access access = {}) {
    return Condition(Object::create(name, spec(lock, true), access));
  }
  static Condition open(std::string_view name, Access access = {}) {
    return Condition(Object::open(name, object_spec(), access));
  }
  static Condition open_or_create(std::string_view name, Access access = {}) {
    return Condition(Object::open_or_create(name, object_spec(), access));
  }
  static Condition open_or_create(std::string_view name, const RLock& lock,
                                  Access access = {}) {
    return Condition(Object::open_or_create(name, spec(lock, true), access));
  }

  // All four: std::logic_error unless the calling thread holds the lock.
  //
  // Releases the lock, however often it was acquired, waits, and acquires it
  // as often again, however long that takes. False when the timeout ends before
  // a notify. Throws NoSpace when 1,024 threads wait.
  bool wait(Timeout timeout = forever) const;
  // Waits until predicate() holds; what it said last.
  template <class Predicate>
  bool wait_for(Predicate predicate, Timeout timeout = forever) const {
    const Deadline deadline(timeout);
    for (;;) {
      if (predicate()) return true;
      if (deadline.passed()) return false;
      wait(deadline.remaining());
    }
  }
  // The n that have waited longest, or all if there are fewer.
  // std::invalid_argument for a negative n.
  void notify(int n = 1) const;
  void notify_all() const;

 private:
  friend struct HandleAccess;
  class Waiter;
  class Slots;

  explicit Condition(const std::shared_ptr<Object>& object);
  Condition(const std::shared_ptr<Object>& object,
            std::shared_ptr<Object> home);
  static Spec object_spec();
  static Spec spec(const RLock& lock, bool named);
  void tell(std::uint32_t n) const;
  Slots slots() const;

  std::shared_ptr<Object> home_;  // of the lock
  ConditionState* state_;
};

template <>
struct HandleTraits<Condition> : ObjectHandleTraits<Condition> {};

}  // namespace shoal
