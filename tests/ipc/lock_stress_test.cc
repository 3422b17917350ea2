// Lock and RLock under many threads.

#include <sched.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <mutex>
#include <random>

#include "gtest/gtest.h"
#include "shoal/ipc/lock.h"
#include "tests/support/child.h"
#include "tests/support/name.h"
#include "tests/support/thread.h"

namespace {

using shoal::Lock;
using shoal::RLock;
using shoal::support::Name;
using shoal::support::Thread;
using namespace std::chrono_literals;

template <class T>
class AnyLock : public testing::Test {};
using Kinds = testing::Types<Lock, RLock>;
TYPED_TEST_SUITE(AnyLock, Kinds);

// Plain, so that TSan sees every way past the lock, and so do lost updates.
struct Guarded {
  std::uint64_t count = 0;
  std::uint64_t twice = 0;

  void add() {
    EXPECT_EQ(twice, 2 * count);
    ++count;
    if (count % 16 == 0) sched_yield();  // with the lock held
    twice += 2;
  }
};

constexpr int kThreads = 4;
constexpr int kRounds = 3000;

TYPED_TEST(AnyLock, OneAtATime) {
  TypeParam lock;
  Guarded guarded;
  std::deque<Thread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&] {
      TypeParam mine(lock);
      for (int i = 0; i < kRounds; ++i) {
        const std::lock_guard guard(mine);
        guarded.add();
      }
    });
  for (auto& thread : threads) ASSERT_TRUE(thread.ends());
  EXPECT_EQ(guarded.count, std::uint64_t{kThreads} * kRounds);
  EXPECT_FALSE(lock.locked());
  EXPECT_FALSE(lock.owner_died());
}

TYPED_TEST(AnyLock, TimeoutsLoseNoWake) {
  TypeParam lock;
  Guarded guarded;
  std::atomic<std::uint64_t> won{0};
  std::deque<Thread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      std::mt19937 random(static_cast<unsigned>(t));
      for (int i = 0; i < kRounds; ++i) {
        // The even ones wait for ever: a wake lost on others would hang them.
        const auto timeout = std::chrono::microseconds(random() % 100);
        if (!lock.acquire(t % 2 == 0 ? shoal::forever : timeout)) continue;
        guarded.add();
        ++won;
        lock.release();
      }
    });
  for (auto& thread : threads) ASSERT_TRUE(thread.ends());
  EXPECT_EQ(guarded.count, won.load());
}

TYPED_TEST(AnyLock, TwoHandlesOfOneName) {
  const Name name("two-handles");
  auto first = TypeParam::create(name);
  auto second = TypeParam::open(name);
  Guarded guarded;
  std::deque<Thread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < kRounds; ++i) {
        const std::lock_guard guard(t % 2 == 0 ? first : second);
        guarded.add();
      }
    });
  for (auto& thread : threads) ASSERT_TRUE(thread.ends());
  EXPECT_EQ(guarded.count, std::uint64_t{kThreads} * kRounds);
}

TEST(RLock, RecursionUnderContention) {
  RLock lock;
  Guarded guarded;
  std::deque<Thread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      std::mt19937 random(static_cast<unsigned>(t));
      for (int i = 0; i < kRounds; ++i) {
        const unsigned depth = random() % 4 + 1;
        for (unsigned d = 0; d < depth; ++d) lock.acquire();
        guarded.add();
        for (unsigned d = 0; d < depth; ++d) lock.release();
      }
    });
  for (auto& thread : threads) ASSERT_TRUE(thread.ends());
  EXPECT_EQ(guarded.count, std::uint64_t{kThreads} * kRounds);
  EXPECT_FALSE(lock.locked());
}

// Each holds it to its end; the next has it from the dead, and is told.
TYPED_TEST(AnyLock, TwoHundredThreadsEndWithIt) {
  TypeParam lock;
  std::atomic<int> told{0};
  std::deque<Thread> threads;
  for (int t = 0; t < 200; ++t)
    threads.emplace_back([&] {
      EXPECT_TRUE(lock.acquire());
      told += lock.owner_died();
      if (lock.owner_died()) lock.mark_consistent();
    });
  for (auto& thread : threads) ASSERT_TRUE(thread.ends());
  EXPECT_EQ(told.load(), 199) << "all but the first";
  EXPECT_TRUE(lock.acquire(10s));
  EXPECT_TRUE(lock.owner_died());
  lock.release();
}

TYPED_TEST(AnyLock, SomeReleaseAndSomeEndWithIt) {
  TypeParam lock;
  int guarded = 0;
  std::atomic<int> died{0};
  std::atomic<int> told{0};
  for (int wave = 0; wave < 20; ++wave) {
    std::deque<Thread> threads;
    for (int t = 0; t < 10; ++t)
      threads.emplace_back([&, t] {
        lock.acquire();
        ++guarded;
        if (lock.owner_died()) {
          ++told;
          lock.mark_consistent();
        }
        if (t % 3 == 0)
          ++died;
        else
          lock.release();
      });
    threads.clear();
  }
  lock.acquire();
  told += lock.owner_died();
  lock.release();
  EXPECT_EQ(guarded, 200);
  EXPECT_EQ(told.load(), died.load());
}

TYPED_TEST(AnyLock, ScopedLockInAnyOrderDoesNotDeadlock) {
  TypeParam a;
  TypeParam b;
  TypeParam c;
  Guarded guarded;
  std::deque<Thread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < kRounds / 10; ++i) {
        if (t % 2 == 0) {
          const std::scoped_lock guard(a, b, c);
          guarded.add();
        } else {
          const std::scoped_lock guard(c, a, b);
          guarded.add();
        }
      }
    });
  for (auto& thread : threads) ASSERT_TRUE(thread.ends());
  EXPECT_EQ(guarded.count, std::uint64_t{kThreads} * (kRounds / 10));
}

}  // namespace
