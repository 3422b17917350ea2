// What multiprocessing says of its synchronisation objects, where no other test
// asks for it; docs/conformance.md names the test for each sentence.

#include <array>
#include <atomic>
#include <chrono>
#include <deque>
#include <mutex>
#include <stdexcept>

#include "gtest/gtest.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/sync.h"
#include "tests/support/child.h"
#include "tests/support/thread.h"

namespace {

using namespace shoal;
using namespace std::chrono_literals;
using support::Child;
using support::falls_asleep;
using support::kPatience;
using support::Shared;

TEST(ConformanceTimeout, NegativeIsNowForConditionsAndBarriers) {
  // In threads that end the test program if the call waits.
  support::Thread condition([] {
    Condition changed;
    const std::lock_guard guard(changed);
    EXPECT_FALSE(changed.wait(-1000h));
    EXPECT_FALSE(changed.wait_for([] { return false; }, -1000h));
    EXPECT_TRUE(changed.wait_for([] { return true; }, -1000h));
  });
  EXPECT_TRUE(condition.ends());
  support::Thread barrier([] {
    Barrier two(2);
    EXPECT_THROW(two.wait(-1000h), BrokenBarrier);
    EXPECT_TRUE(two.broken());
    EXPECT_EQ(Barrier(1).wait(-1000h), 0) << "all have come";
    Barrier by_default(2, {}, -1000h);
    EXPECT_THROW(by_default.wait(), BrokenBarrier);
  });
  EXPECT_TRUE(barrier.ends());
}

// What came true without a notify counts when the time is up.
TEST(ConformanceCondition, WaitForGivesWhatThePredicateSaidLast) {
  Condition changed;
  const std::lock_guard guard(changed);
  int asked = 0;
  EXPECT_TRUE(changed.wait_for([&] { return ++asked == 2; }, 20ms));
  EXPECT_EQ(asked, 2);
  asked = 0;
  EXPECT_FALSE(changed.wait_for([&] { return ++asked == 3; }, 20ms));
  EXPECT_EQ(asked, 2) << "once more after the timeout";
  asked = 0;
  EXPECT_FALSE(changed.wait_for([&] { return ++asked == 2; }, now));
  EXPECT_EQ(asked, 1);
}

// Held several times here, notified by a process that needs the lock for it.
TEST(ConformanceCondition, WaitLetsGoOfAllForOtherProcesses) {
  Condition changed;
  for (int i = 0; i < 3; ++i) changed.acquire();
  Child notifier([&](Child& self) {
    self.expect(changed.acquire(kPatience), "was let go of");
    changed.notify();
    changed.release();
  });
  EXPECT_TRUE(changed.wait(kPatience));
  EXPECT_EQ(notifier.join(), 0) << notifier.failures();
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(changed.locked());
    changed.release();
  }
  EXPECT_FALSE(changed.locked());
}

// multiprocessing's check is "racy by design". Both try at the same moment, as
// near as a machine with two cores comes to it. They meet as often as there is
// time for: where others want the processors, each meeting costs a time slice.
TEST(ConformanceSemaphore, OneUnitIsGivenBackOnceHoweverManyTry) {
  constexpr int kRounds = 20000;
  constexpr int kThreads = 2;
  const auto enough = std::chrono::steady_clock::now() + 3s;
  BoundedSemaphore semaphore(2);
  std::atomic<int> come{0};
  std::atomic<int> rounds{0};
  std::atomic<int> refused{0};
  std::atomic<bool> go_on{true};
  const auto meet = [&](int meeting) {
    ++come;
    for (int spins = 1; come < meeting * kThreads; ++spins)
      if (spins % 1000 == 0) support::yield_cpu();
  };
  const auto try_it = [&](bool takes) {
    for (int i = 0; go_on; ++i) {
      meet(2 * i + 1);
      if (takes) {
        semaphore.acquire(now);
        go_on = ++rounds < kRounds && std::chrono::steady_clock::now() < enough;
      }
      meet(2 * i + 2);
      try {
        semaphore.release();
      } catch (const std::logic_error&) {
        ++refused;
      }
    }
  };
  support::Thread other([&] { try_it(false); });
  support::Thread taker([&] { try_it(true); });
  ASSERT_TRUE(taker.ends());
  ASSERT_TRUE(other.ends());
  EXPECT_EQ(refused, rounds);
  EXPECT_EQ(semaphore.get_value(), 2u);
}

struct Round {
  std::array<std::atomic<int>, 4> had;  // how often each index was given
  std::atomic<int> actions, early;
};

TEST(ConformanceBarrier, EachProcessHasItsOwnIndexAndComesAfterTheAction) {
  constexpr int kRounds = 200;
  const Shared<Round> seen;
  Barrier barrier(4, [&] { ++seen->actions; });
  std::deque<Child> parties;
  for (int n = 0; n < 4; ++n)
    parties.emplace_back([&](Child&) {
      for (int i = 1; i <= kRounds; ++i) {
        ++seen->had.at(static_cast<std::size_t>(barrier.wait()));
        if (seen->actions < i) ++seen->early;
      }
    });
  for (auto& party : parties) EXPECT_EQ(party.join(), 0) << party.failures();
  for (const auto& had : seen->had) EXPECT_EQ(had, kRounds);
  EXPECT_EQ(seen->actions, kRounds);
  EXPECT_EQ(seen->early, 0);
}

TEST(ConformanceBarrier, WhatItsActionThrowsBreaksItForOtherProcesses) {
  Barrier barrier(2, [] { throw std::out_of_range("of the action"); });
  Child other([&](Child& self) {
    try {
      barrier.wait();
      self.expect(false, "let go");
    } catch (const BrokenBarrier&) {
    }
  });
  ASSERT_TRUE(falls_asleep(other.pid(), other.pid()));
  EXPECT_THROW(barrier.wait(), std::out_of_range);
  EXPECT_EQ(other.join(), 0) << other.failures();
  EXPECT_TRUE(barrier.broken());
  barrier.reset();
  EXPECT_FALSE(barrier.broken());
}

}  // namespace
