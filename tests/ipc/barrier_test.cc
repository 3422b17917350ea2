// Barrier in one process.

#include "shoal/ipc/barrier.h"

#include <atomic>
#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <set>
#include <stdexcept>
#include <vector>

#include "gtest/gtest.h"
#include "shoal/ipc/errors.h"
#include "tests/support/child.h"
#include "tests/support/name.h"
#include "tests/support/thread.h"

namespace {

using shoal::Barrier;
using shoal::BarrierTimeout;
using shoal::BrokenBarrier;
using shoal::now;
using shoal::support::eventually;
using shoal::support::Name;
using shoal::support::Thread;
using namespace std::chrono_literals;

// A thread that waits, and how that ended: its index, or -1 broken.
class Party {
 public:
  explicit Party(const Barrier& barrier,
                 shoal::Timeout timeout = shoal::forever)
      : thread_([this, barrier, timeout] {
          try {
            index_ = barrier.wait(timeout);
          } catch (const BrokenBarrier& error) {
            index_ = -1;
            timed_out_ = dynamic_cast<const BarrierTimeout*>(&error) != nullptr;
          }
        }) {}
  bool falls_asleep() { return thread_.falls_asleep(); }
  int index() {
    EXPECT_TRUE(thread_.ends());
    return index_;
  }
  // Then.
  bool timed_out() const { return timed_out_; }

 private:
  int index_ = -2;
  bool timed_out_ = false;
  Thread thread_;
};

TEST(Barrier, OfOneDoesNotBlock) {
  int actions = 0;
  const Barrier barrier(1, [&] { ++actions; });
  for (int i = 0; i < 100; ++i) EXPECT_EQ(barrier.wait(), 0);
  EXPECT_EQ(actions, 100);
  EXPECT_EQ(barrier.parties(), 1);
  EXPECT_EQ(barrier.n_waiting(), 0);
  EXPECT_FALSE(barrier.broken());
}

TEST(Barrier, RefusesImpossibleNumbers) {
  EXPECT_THROW(Barrier(0), std::invalid_argument);
  EXPECT_THROW(Barrier(-1), std::invalid_argument);
  EXPECT_THROW(Barrier(Barrier::kMostParties + 1), std::invalid_argument);
  EXPECT_EQ(Barrier(Barrier::kMostParties).parties(), Barrier::kMostParties);
}

TEST(Barrier, IndicesAreInOrderOfArrivalRoundAfterRound) {
  Barrier barrier(4);
  for (int round = 0; round < 50; ++round) {
    std::deque<Party> parties;
    for (int i = 0; i < 3; ++i) {
      parties.emplace_back(barrier);
      ASSERT_TRUE(parties.back().falls_asleep());
      EXPECT_EQ(barrier.n_waiting(), i + 1);
    }
    EXPECT_EQ(barrier.wait(), 3);
    for (int i = 0; i < 3; ++i) EXPECT_EQ(parties[i].index(), i);
    EXPECT_EQ(barrier.n_waiting(), 0);
  }
}

TEST(Barrier, TheLastRunsTheActionBeforeAnyIsLetGo) {
  bool done = false;
  Barrier barrier(2, [&] { done = true; });
  Thread other([&] {
    EXPECT_EQ(barrier.wait(), 0);
    EXPECT_TRUE(done);
  });
  ASSERT_TRUE(other.falls_asleep());
  EXPECT_FALSE(done);
  EXPECT_EQ(barrier.wait(), 1);
  EXPECT_TRUE(other.ends());
}

TEST(Barrier, AnActionThatThrowsBreaksItAndComesOut) {
  Barrier barrier(2, [] { throw 7; });
  Party other(barrier);
  ASSERT_TRUE(other.falls_asleep());
  EXPECT_THROW(barrier.wait(), int);
  EXPECT_EQ(other.index(), -1);
  EXPECT_TRUE(barrier.broken());
  EXPECT_THROW(barrier.wait(), BrokenBarrier);
}

TEST(Barrier, WaitFromWithinItsActionIsAnError) {
  std::function<void()> action;
  Barrier barrier(1, [&] { action(); });
  action = [&] { barrier.wait(); };
  EXPECT_THROW(barrier.wait(), std::logic_error);
  EXPECT_TRUE(barrier.broken());
}

TEST(Barrier, ATimeoutBreaksItForAll) {
  Barrier barrier(3);
  Party other(barrier);
  ASSERT_TRUE(other.falls_asleep());
  // Whose timeout it was gets both, and any handler of either sees it.
  EXPECT_THROW(barrier.wait(20ms), BarrierTimeout);
  EXPECT_EQ(other.index(), -1);
  EXPECT_FALSE(other.timed_out());
  EXPECT_TRUE(barrier.broken());
  EXPECT_EQ(barrier.n_waiting(), 0);
  EXPECT_THROW(barrier.wait(), BrokenBarrier);
  EXPECT_THROW(barrier.wait(now), BrokenBarrier);
}

TEST(Barrier, ATimeoutIsATimeoutErrorAndABrokenBarrier) {
  for (const shoal::Timeout timeout :
       {shoal::Timeout(now), shoal::Timeout(1ms)}) {
    Barrier barrier(2);
    EXPECT_THROW(barrier.wait(timeout), shoal::TimeoutError);
    barrier.reset();
    EXPECT_THROW(barrier.wait(timeout), BrokenBarrier);
    barrier.reset();
    EXPECT_THROW(barrier.wait(timeout), shoal::Error);
    barrier.reset();
    EXPECT_THROW(barrier.wait(timeout), std::runtime_error);
  }
}

TEST(Barrier, TheTimeoutGivenAtTheStartIsTheDefault) {
  Barrier barrier(2, {}, 20ms);
  EXPECT_THROW(barrier.wait(), BrokenBarrier);
  barrier.reset();
  Party other(barrier, shoal::forever);
  ASSERT_TRUE(other.falls_asleep());
  EXPECT_EQ(barrier.wait(), 1);
  EXPECT_EQ(other.index(), 0);
}

TEST(Barrier, AbortBreaksItUntilReset) {
  Barrier barrier(2);
  Party other(barrier);
  ASSERT_TRUE(other.falls_asleep());
  barrier.abort();
  EXPECT_EQ(other.index(), -1);
  EXPECT_TRUE(barrier.broken());
  barrier.abort();
  barrier.reset();
  EXPECT_FALSE(barrier.broken());
  Party again(barrier);
  ASSERT_TRUE(again.falls_asleep());
  EXPECT_EQ(barrier.wait(), 1);
  EXPECT_EQ(again.index(), 0);
}

TEST(Barrier, ResetEjectsWhoWaitsAndIsUsableAtOnce) {
  Barrier barrier(3);
  for (int round = 0; round < 5; ++round) {
    Party one(barrier);
    Party two(barrier);
    ASSERT_TRUE(one.falls_asleep());
    ASSERT_TRUE(two.falls_asleep());
    barrier.reset();
    Party next[] = {Party(barrier), Party(barrier)};
    EXPECT_EQ(one.index(), -1);
    EXPECT_EQ(two.index(), -1);
    EXPECT_FALSE(barrier.broken());
    const int index = barrier.wait();
    const std::set<int> all{index, next[0].index(), next[1].index()};
    EXPECT_EQ(all, (std::set<int>{0, 1, 2}));
  }
}

// A worker that ends normally after its last round is no dead party.
TEST(Barrier, ThreadsThatEndNormallyBreakNothing) {
  Barrier barrier(3);
  for (int round = 0; round < 30; ++round) {
    std::deque<Party> workers;
    workers.emplace_back(barrier);
    workers.emplace_back(barrier);
    const int index = barrier.wait();
    EXPECT_EQ(index + workers[0].index() + workers[1].index(), 3);
  }  // they have ended
  EXPECT_FALSE(barrier.broken());
}

// While this thread waits already for the next round.
TEST(Barrier, AThreadThatEndsWhileOthersWaitBreaksNothing) {
  Barrier barrier(2);
  std::atomic<bool> end{false};
  Thread first([&] {
    barrier.wait();
    eventually([&] { return end.load(); });
  });
  barrier.wait();
  Party waiting(barrier);
  ASSERT_TRUE(waiting.falls_asleep());
  end = true;
  ASSERT_TRUE(first.ends());
  EXPECT_FALSE(barrier.broken());
  EXPECT_EQ(barrier.wait(), 1);
  EXPECT_EQ(waiting.index(), 0);
}

// More come than fit: they are of later rounds.
TEST(Barrier, MoreThreadsThanParties) {
  int rounds = 0;
  Barrier barrier(2, [&] { ++rounds; });
  std::deque<Thread> threads;
  std::atomic<int> firsts{0};
  std::atomic<int> lasts{0};
  for (int t = 0; t < 6; ++t)
    threads.emplace_back([&] {
      try {
        for (;;) ++(barrier.wait() == 0 ? firsts : lasts);
      } catch (const BrokenBarrier&) {
      }
    });
  EXPECT_TRUE(eventually([&] { return lasts >= 300; }));
  barrier.abort();
  for (auto& thread : threads) ASSERT_TRUE(thread.ends());
  // The abort may have come between the action and the end of that round.
  EXPECT_EQ(firsts, lasts);
  EXPECT_LE(rounds - lasts, 1);
}

TEST(Barrier, ANamedOneSaysThatItsActionIsMissing) {
  const Name name("barrier");
  int actions = 0;
  auto barrier = Barrier::create(name, 1, [&] { ++actions; });
  // In this process the action is known.
  EXPECT_EQ(Barrier::open(name).wait(), 0);
  EXPECT_EQ(actions, 1);
  shoal::support::Child child([&](shoal::support::Child& self) {
    barrier = Barrier(1);  // the last handle here
    try {
      Barrier::open(name).wait();
      self.expect(false, "waited without the action");
    } catch (const std::logic_error&) {
    }
    int mine = 0;
    self.expect(Barrier::open(name, [&] { ++mine; }).wait() == 0, "its own");
    self.expect(mine == 1, "ran");
  });
  EXPECT_EQ(child.join(), 0) << child.failures();
}

}  // namespace
