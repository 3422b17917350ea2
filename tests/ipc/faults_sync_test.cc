// Locks, semaphores, conditions, events and barriers whose system calls are
// refused, anonymous and named.

#include <chrono>

#include "shoal/ipc/segment.h"
#include "shoal/ipc/sync.h"
#include "tests/ipc/faults_scene.h"
#include "tests/support/name.h"

namespace {

using shoal::Access;
using shoal::Barrier;
using shoal::BoundedSemaphore;
using shoal::Condition;
using shoal::Event;
using shoal::Lock;
using shoal::RLock;
using shoal::Semaphore;
using shoal::support::error_name;
using shoal::support::Faults;
using shoal::support::kErrors;
using shoal::support::Name;
using shoal::support::require;
using namespace std::chrono_literals;

// Each uses its thing alone, and waits in vain where that takes another path.

void use(const Lock& lock) {
  require(lock.acquire(), "not acquired");
  lock.release();
}

void use(const RLock& lock) {
  require(lock.acquire() && lock.acquire(), "not acquired");
  lock.release();
  lock.release();
}

template <class S>
void use_units(const S& semaphore) {
  require(semaphore.acquire(), "no unit");
  require(!semaphore.acquire(1ms), "a unit too many");
  semaphore.release();
}
void use(const Semaphore& semaphore) { use_units(semaphore); }
void use(const BoundedSemaphore& semaphore) { use_units(semaphore); }

void use(const Condition& condition) {
  require(condition.acquire(), "not acquired");
  bool notified = true;
  try {
    notified = condition.wait(1ms);
    condition.notify();
  } catch (...) {
    condition.release();
    throw;
  }
  condition.release();
  require(!notified, "notified by nobody");
}

void use(const Event& event) {
  event.clear();
  require(!event.wait(1ms), "set by nobody");
  event.set();
  require(event.wait(), "not set");
}

void use(const Barrier& barrier) {
  require(barrier.wait() == 0, "not the only party");
}

template <class T, class... A>
struct Thing {
  static void anonymous(A... arguments) { use(T(arguments...)); }
  static void named(std::string_view name, A... arguments) {
    shoal::unlink(name);
    {
      const T made = T::create(name, arguments...);
      use(made);
      use(T::open(name));
      use(T::open_or_create(name, arguments...));
    }
    shoal::unlink(name);
    use(T::open_or_create(name, arguments...));
    shoal::unlink(name);
  }
};

class FaultsSync : public Faults {
 protected:
  template <class T, class... A>
  static void both_kinds(A... arguments) {
    expect_typed([&] { Thing<T, A...>::anonymous(arguments...); }, 3);
    const Name name("faults");
    expect_typed([&] { Thing<T, A...>::named(name, arguments...); }, 3);
  }
};

TEST_P(FaultsSync, Lock) { both_kinds<Lock>(); }
TEST_P(FaultsSync, RLock) { both_kinds<RLock>(); }
TEST_P(FaultsSync, Semaphore) { both_kinds<Semaphore>(1u); }
TEST_P(FaultsSync, BoundedSemaphore) { both_kinds<BoundedSemaphore>(1u); }
TEST_P(FaultsSync, Condition) { both_kinds<Condition>(); }
TEST_P(FaultsSync, Event) { both_kinds<Event>(); }
TEST_P(FaultsSync, Barrier) { both_kinds<Barrier>(1); }

INSTANTIATE_TEST_SUITE_P(Errors, FaultsSync, kErrors, error_name);

}  // namespace
