// Condition in one process.

#include "shoal/ipc/condition.h"

#include <chrono>
#include <deque>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <vector>

#include "gtest/gtest.h"
#include "tests/support/name.h"
#include "tests/support/thread.h"

namespace {

using shoal::Condition;
using shoal::monotonic_now;
using shoal::now;
using shoal::RLock;
using shoal::support::Name;
using shoal::support::Thread;
using namespace std::chrono_literals;

using Guard = std::lock_guard<const Condition>;

template <class C>
bool free_for_others(const C& condition) {
  bool got = false;
  Thread other([&] {
    got = condition.acquire(now);
    if (got) condition.release();
  });
  EXPECT_TRUE(other.ends());
  return got;
}

// Threads that wait, in this order.
class Waiters {
 public:
  Waiters(const Condition& condition, int count) : woken_(count) {
    for (int i = 0; i < count; ++i) {
      threads_.push_back(std::make_unique<Thread>([this, condition, i] {
        const Guard guard(condition);
        EXPECT_TRUE(condition.wait());
        woken_[i] = true;
      }));
      EXPECT_TRUE(threads_.back()->falls_asleep());
    }
  }
  // Exactly the first `count` have come back.
  void expect_woken(const Condition& condition, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) EXPECT_TRUE(threads_[i]->ends());
    const Guard guard(condition);
    for (std::size_t i = count; i < woken_.size(); ++i)
      EXPECT_FALSE(woken_[i]) << i;
  }

 private:
  std::deque<bool> woken_;
  std::vector<std::unique_ptr<Thread>> threads_;
};

TEST(Condition, IsAnRLock) {
  Condition condition;
  EXPECT_FALSE(condition.locked());
  {
    const std::lock_guard guard(condition);
    EXPECT_TRUE(condition.locked());
    EXPECT_TRUE(condition.acquire());
    EXPECT_FALSE(free_for_others(condition));
    condition.release();
    EXPECT_FALSE(free_for_others(condition));
  }
  EXPECT_TRUE(free_for_others(condition));
  std::unique_lock lock(condition, std::defer_lock);
  EXPECT_TRUE(lock.try_lock_for(1s));
  EXPECT_FALSE(condition.owner_died());
}

TEST(Condition, OnlyTheHolderWaitsAndNotifies) {
  Condition condition;
  EXPECT_THROW(condition.wait(now), std::logic_error);
  EXPECT_THROW(condition.wait_for([] { return false; }), std::logic_error);
  EXPECT_THROW(condition.notify(), std::logic_error);
  EXPECT_THROW(condition.notify_all(), std::logic_error);
  EXPECT_THROW(condition.release(), std::logic_error);
  const Guard guard(condition);
  EXPECT_THROW(condition.notify(-1), std::invalid_argument);
  condition.notify();
  condition.notify(7);
  condition.notify_all();
  Thread other([&] {
    EXPECT_THROW(condition.wait(now), std::logic_error);
    EXPECT_THROW(condition.notify(), std::logic_error);
  });
  EXPECT_TRUE(other.ends());
}

TEST(Condition, NotifyIsNotRemembered) {
  Condition condition;
  const Guard guard(condition);
  condition.notify_all();
  EXPECT_FALSE(condition.wait(20ms));
  EXPECT_FALSE(condition.wait(now));
  EXPECT_FALSE(condition.wait(-1s));
}

TEST(Condition, TimeoutIsNeitherEarlyNorAbsurdlyLate) {
  Condition condition;
  const Guard guard(condition);
  const std::int64_t start = monotonic_now();
  EXPECT_FALSE(condition.wait(40ms));
  const std::chrono::nanoseconds took(monotonic_now() - start);
  EXPECT_GE(took, 40ms);
  EXPECT_LT(took, 10s);
}

TEST(Condition, WaitUnwindsAllOfTheRecursionAndRestoresIt) {
  Condition condition;
  for (int i = 0; i < 5; ++i) condition.acquire();
  Thread notifier([&] {
    const Guard guard(condition);
    condition.notify();
  });
  EXPECT_TRUE(condition.wait());
  EXPECT_TRUE(notifier.ends());
  EXPECT_FALSE(condition.wait(1ms)) << "and after a timeout";
  for (int i = 0; i < 5; ++i) {
    EXPECT_FALSE(free_for_others(condition));
    condition.release();
  }
  EXPECT_THROW(condition.release(), std::logic_error);
  EXPECT_TRUE(free_for_others(condition));
}

TEST(Condition, NotifyWakesTheOldest) {
  Condition condition;
  Waiters waiters(condition, 5);
  const auto notify = [&](int n) {
    const Guard guard(condition);
    condition.notify(n);
  };
  notify(0);
  waiters.expect_woken(condition, 0);
  notify(1);
  waiters.expect_woken(condition, 1);
  notify(2);
  waiters.expect_woken(condition, 3);
  notify(100);
  waiters.expect_woken(condition, 5);
}

TEST(Condition, NotifyAllWakesAllThatWait) {
  Condition condition;
  Waiters waiters(condition, 8);
  {
    const Guard guard(condition);
    condition.notify_all();
  }
  waiters.expect_woken(condition, 8);
}

// Each notify is for one more, whether the last one is back or not.
TEST(Condition, TwoNotifiesWakeTwo) {
  Condition condition;
  Waiters waiters(condition, 3);
  {
    const Guard guard(condition);
    condition.notify();
    condition.notify();
  }
  waiters.expect_woken(condition, 2);
  {
    const Guard guard(condition);
    condition.notify();
  }
  waiters.expect_woken(condition, 3);
}

TEST(Condition, NotifyDoesNotWaitForTheNotified) {
  Condition condition;
  Waiters waiters(condition, 2);
  const Guard guard(condition);  // so that they cannot come back
  condition.notify_all();
  EXPECT_FALSE(condition.wait(1ms)) << "it was not meant for who comes later";
}

TEST(Condition, WaitForEndsWithThePredicate) {
  Condition condition;
  bool ready = false;
  int asked = 0;
  Thread waiter([&] {
    const Guard guard(condition);
    EXPECT_TRUE(condition.wait_for([&] { return ++asked, ready; }));
  });
  ASSERT_TRUE(waiter.falls_asleep());
  {
    const Guard guard(condition);
    EXPECT_EQ(asked, 1);
    condition.notify();
  }
  while (true) {
    const Guard guard(condition);
    if (asked == 2) break;
  }
  ASSERT_TRUE(waiter.falls_asleep());
  {
    const Guard guard(condition);
    ready = true;
    condition.notify();
  }
  EXPECT_TRUE(waiter.ends());
  const Guard guard(condition);
  EXPECT_TRUE(condition.wait_for([] { return true; }, now));
  EXPECT_FALSE(condition.wait_for([] { return false; }, now));
  EXPECT_FALSE(condition.wait_for([] { return false; }, 20ms));
}

TEST(Condition, APredicateThatThrowsLeavesTheLockHeld) {
  Condition condition;
  const Guard guard(condition);
  EXPECT_THROW(condition.wait_for([]() -> bool { throw 7; }), int);
  EXPECT_FALSE(free_for_others(condition));
}

// ---- with an RLock that is given ----

TEST(Condition, UsesTheRLockThatIsGiven) {
  RLock lock;
  Condition full(lock);
  Condition empty(lock);
  lock.acquire();
  EXPECT_FALSE(free_for_others(full));
  EXPECT_FALSE(free_for_others(empty));
  full.acquire();
  EXPECT_FALSE(full.wait(1ms)) << "who holds the RLock holds the condition";
  full.release();
  lock.release();
  Waiters on_full(full, 1);
  Waiters on_empty(empty, 1);
  {
    const std::lock_guard guard(lock);
    full.notify_all();
  }
  on_full.expect_woken(full, 1);
  on_empty.expect_woken(empty, 0);
  {
    const std::lock_guard guard(lock);
    empty.notify_all();
  }
  on_empty.expect_woken(empty, 1);
}

TEST(Condition, ANamedOneFindsItsNamedRLock) {
  const Name lock_name("rlock");
  const Name name("condition");
  {
    auto lock = RLock::create(lock_name);
    Condition::create(name, lock);
  }
  auto condition = Condition::open(name);
  auto lock = RLock::open(lock_name);
  lock.acquire();
  EXPECT_FALSE(free_for_others(condition));
  EXPECT_FALSE(condition.wait(1ms));
  lock.release();
  Waiters waiters(condition, 1);
  {
    const std::lock_guard guard(lock);
    condition.notify();
  }
  waiters.expect_woken(condition, 1);
  // An anonymous condition over a named RLock, in another domain, too.
  Condition local(lock);
  Waiters others(local, 2);
  {
    const std::lock_guard guard(lock);
    local.notify_all();
  }
  others.expect_woken(local, 2);
}

TEST(Condition, ANamedOneRefusesAnAnonymousRLock) {
  const Name name("condition");
  RLock lock;
  EXPECT_THROW(Condition::create(name, lock), std::invalid_argument);
}

TEST(Condition, ANamedOneSaysWhenItsRLockIsGone) {
  const Name lock_name("rlock");
  const Name name("condition");
  {
    auto lock = RLock::create(lock_name);
    Condition::create(name, lock);
  }
  shoal::unlink(lock_name);
  EXPECT_THROW(Condition::open(name), std::system_error);
  RLock::create(lock_name);
  EXPECT_THROW(Condition::open(name), shoal::Corrupt) << "another RLock";
}

}  // namespace
