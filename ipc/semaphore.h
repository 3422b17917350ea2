#pragma once
// Semaphore: units that anybody takes and anybody gives back.
// BoundedSemaphore: never more units than at the start, and those that a dead
// process held come back.
//
//   shoal::BoundedSemaphore licences(3);
//   if (licences.acquire(10s)) { use(); licences.release(); }
//
// Sharing:  handles copy cheaply, a copy is the same semaphore. A unit belongs
//           to nobody, or, of a BoundedSemaphore, to a process: any thread of
//           it gives it back.
// Ordering: what happened before release() is visible to whoever gets the unit.
// Death:    Semaphore: units that the dead held are lost. BoundedSemaphore:
//           they are free, and whoever sleeps behind them is woken.
// Cost:     uncontended, one CAS each. A BoundedSemaphore looks for a unit from
//           where the last one was; with all taken it looks at each.
// Layout:   docs/layout.md#semaphore

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <type_traits>
#include <utility>

#include "shoal/ipc/handle.h"
#include "shoal/ipc/object.h"
#include "shoal/ipc/timeout.h"
#include "shoal/ipc/waiting.h"

namespace shoal {

struct SemaphoreState {
  std::atomic<std::uint32_t> value;  // by whoever acquires or releases
  waiting::WaitState wait;
};
static_assert(std::is_standard_layout_v<SemaphoreState>);
static_assert(sizeof(SemaphoreState) == 12);

class Semaphore {
 public:
  static constexpr unsigned kMost = 0x7FFFFFFF;

  // std::invalid_argument beyond kMost (a negative number).
  explicit Semaphore(unsigned value = 1)
      : Semaphore(Object::create(spec(value))) {}
  static Semaphore create(std::string_view name, unsigned value = 1,
                          Access access = {}) {
    return Semaphore(Object::create(name, spec(value), access));
  }
  static Semaphore open(std::string_view name, Access access = {}) {
    return Semaphore(Object::open(name, object_spec(), access));
  }
  static Semaphore open_or_create(std::string_view name, unsigned value = 1,
                                  Access access = {}) {
    return Semaphore(Object::open_or_create(name, spec(value), access));
  }
  // A move copies: what was moved from stays a handle.
  Semaphore(const Semaphore&) = default;
  Semaphore& operator=(const Semaphore&) = default;

  // False when the timeout ends first.
  bool acquire(Timeout timeout = forever) const;
  // std::logic_error when there would be more than kMost units, and then none
  // is given; std::invalid_argument for n == 0.
  void release(unsigned n = 1) const;
  unsigned get_value() const {
    // SYNC(semaphore.value)
    return state_->value.load(std::memory_order_acquire);
  }

 private:
  friend struct HandleAccess;
  class Sleeper;

  explicit Semaphore(std::shared_ptr<Object> object);
  static Spec object_spec();
  static Spec spec(unsigned value);
  bool take() const;

  std::shared_ptr<Object> object_;
  SemaphoreState* state_;
  liveness::Domain* domain_;
  bool fenced_;
};

// Followed by its units, one word each: bits 0..33 the seat of the process that
// holds it, 0: free.
struct BoundedSemaphoreState {
  using Unit = std::atomic<std::uint64_t>;

  std::uint32_t units;
  std::atomic<std::uint32_t> hint;  // where a free unit may be; anybody
  waiting::WaitState wait;
};
static_assert(std::is_standard_layout_v<BoundedSemaphoreState>);
static_assert(sizeof(BoundedSemaphoreState) == 16);
static_assert(BoundedSemaphoreState::Unit::is_always_lock_free);

class BoundedSemaphore {
 public:
  static constexpr unsigned kMost = 1u << 20;

  // std::invalid_argument beyond kMost (each unit has a word of its own).
  explicit BoundedSemaphore(unsigned value = 1)
      : BoundedSemaphore(Object::create(spec(value))) {}
  static BoundedSemaphore create(std::string_view name, unsigned value = 1,
                                 Access access = {}) {
    return BoundedSemaphore(Object::create(name, spec(value), access));
  }
  static BoundedSemaphore open(std::string_view name, Access access = {}) {
    return BoundedSemaphore(Object::open(name, object_spec(), access));
  }
  static BoundedSemaphore open_or_create(std::string_view name,
                                         unsigned value = 1,
                                         Access access = {}) {
    return BoundedSemaphore(Object::open_or_create(name, spec(value), access));
  }
  BoundedSemaphore(const BoundedSemaphore&) = default;
  BoundedSemaphore& operator=(const BoundedSemaphore&) = default;

  bool acquire(Timeout timeout = forever) const;
  // Units of this process, then of others that live. std::logic_error when
  // fewer than n are taken, and then none is given back, unless others release
  // meanwhile; std::invalid_argument for n == 0.
  void release(unsigned n = 1) const;
  // Free units; those of the dead are.
  unsigned get_value() const;

 private:
  friend struct HandleAccess;
  class Sleeper;

  explicit BoundedSemaphore(std::shared_ptr<Object> object);
  static Spec object_spec();
  static Spec spec(unsigned value);

  bool dead(std::uint64_t unit) const;
  bool take(liveness::Who me) const;
  bool give_back(liveness::Who me) const;
  [[noreturn]] void throw_surplus(unsigned n) const;

  std::shared_ptr<Object> object_;
  BoundedSemaphoreState* state_;
  BoundedSemaphoreState::Unit* units_;
  std::uint32_t count_;  // as it was when it was checked
  liveness::Domain* domain_;
  bool fenced_;
};

template <>
struct HandleTraits<Semaphore> : ObjectHandleTraits<Semaphore> {};
template <>
struct HandleTraits<BoundedSemaphore> : ObjectHandleTraits<BoundedSemaphore> {};

}  // namespace shoal
