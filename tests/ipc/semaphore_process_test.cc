// Semaphore and BoundedSemaphore between processes, and what the dead leave.

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <deque>
#include <optional>
#include <random>
#include <stdexcept>
#include <thread>

#include "gtest/gtest.h"
#include "shoal/ipc/semaphore.h"
#include "tests/support/child.h"
#include "tests/support/name.h"
#include "tests/support/thread.h"

namespace {

using shoal::BoundedSemaphore;
using shoal::now;
using shoal::Semaphore;
using shoal::support::Child;
using shoal::support::eventually;
using shoal::support::falls_asleep;
using shoal::support::Name;
using shoal::support::Shared;
using shoal::support::Thread;
using namespace std::chrono_literals;

template <class T>
class AnySemaphore : public testing::Test {};
using Kinds = testing::Types<Semaphore, BoundedSemaphore>;
TYPED_TEST_SUITE(AnySemaphore, Kinds);

TYPED_TEST(AnySemaphore, NeverMoreThanItsUnits) {
  TypeParam semaphore(2);
  Shared<std::atomic<int>> inside;
  std::deque<Child> children;
  for (int i = 0; i < 4; ++i)
    children.emplace_back([&](Child& self) {
      for (int n = 0; n < 3000; ++n) {
        self.expect(semaphore.acquire(), "acquired");
        self.expect(++*inside <= 2, "two at most");
        --*inside;
        semaphore.release();
      }
    });
  for (auto& child : children) EXPECT_EQ(child.join(), 0) << child.failures();
  EXPECT_EQ(semaphore.get_value(), 2u);
}

TYPED_TEST(AnySemaphore, ADeadWaiterTakesNothing) {
  TypeParam semaphore;
  semaphore.acquire();
  Child dead([&](Child&) { semaphore.acquire(); });
  Child living(
      [&](Child& self) { self.expect(semaphore.acquire(), "got it"); });
  ASSERT_TRUE(falls_asleep(dead.pid(), dead.pid()));
  ASSERT_TRUE(falls_asleep(living.pid(), living.pid()));
  dead.kill();
  ASSERT_EQ(dead.join(), -SIGKILL);
  semaphore.release();
  EXPECT_EQ(living.join(), 0) << living.failures();
}

TYPED_TEST(AnySemaphore, UnrelatedOpenersOfOneName) {
  const Name name("semaphore");
  Child taker([&](Child& self) {
    auto semaphore = TypeParam::open_or_create(name, 1);
    semaphore.acquire();
    self.expect(semaphore.acquire(30s), "released by another process");
    semaphore.release();
  });
  ASSERT_TRUE(falls_asleep(taker.pid(), taker.pid()));
  auto semaphore = TypeParam::open(name);
  EXPECT_EQ(semaphore.get_value(), 0u);
  // It holds none; that of another that lives may be given back, as in Python.
  semaphore.release();
  EXPECT_EQ(taker.join(), 0) << taker.failures();
}

TEST(Semaphore, UnitsOfTheDeadAreLost) {
  Semaphore semaphore(2);
  Child child([&](Child&) {
    semaphore.acquire();
    raise(SIGKILL);
  });
  ASSERT_EQ(child.join(), -SIGKILL);
  EXPECT_EQ(semaphore.get_value(), 1u);
}

// ---- BoundedSemaphore: the units of the dead ----

enum class End { killed, exited };

// A process that holds `units` until it is told to end.
class Holder {
 public:
  Holder(const BoundedSemaphore& semaphore, int units)
      : child_([this, semaphore, units](Child&) {
          for (int i = 0; i < units; ++i) semaphore.acquire();
          *held_ = true;
          for (;;) pause();
        }) {
    eventually([this] { return held_->load(); });
  }
  Child& child() { return child_; }
  void kill() {
    child_.kill();
    EXPECT_EQ(child_.join(), -SIGKILL);
  }

 private:
  Shared<std::atomic<bool>> held_;
  Child child_;
};

TEST(BoundedSemaphore, UnitsOfTheDeadComeBack) {
  BoundedSemaphore semaphore(3);
  Holder holder(semaphore, 2);
  EXPECT_EQ(semaphore.get_value(), 1u);
  holder.kill();
  EXPECT_EQ(semaphore.get_value(), 3u);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(semaphore.acquire(now));
  EXPECT_FALSE(semaphore.acquire(now));
  semaphore.release(3);
  EXPECT_THROW(semaphore.release(), std::logic_error);
}

TEST(BoundedSemaphore, ADeadProcessHoldsNothingToRelease) {
  BoundedSemaphore semaphore(1);
  Holder holder(semaphore, 1);
  holder.kill();
  EXPECT_THROW(semaphore.release(), std::logic_error);
  EXPECT_EQ(semaphore.get_value(), 1u);
}

TEST(BoundedSemaphore, ADeathWakesWhoSleepsBehind) {
  BoundedSemaphore semaphore(3);
  // One of several holders dies, whichever it is.
  for (int which = 0; which < 3; ++which) {
    std::deque<Holder> holders;
    for (int i = 0; i < 3; ++i) holders.emplace_back(semaphore, 1);
    Thread thread([&] { EXPECT_TRUE(semaphore.acquire()); });
    Child process(
        [&](Child& self) { self.expect(semaphore.acquire(), "acquired"); });
    ASSERT_TRUE(thread.falls_asleep());
    ASSERT_TRUE(falls_asleep(process.pid(), process.pid()));
    holders[which].kill();
    // The one that gets it gives it to the other: by release or by its end.
    ASSERT_TRUE(eventually(
        [&] { return thread.ended() || process.join(now).has_value(); }));
    if (!process.join(now).has_value()) semaphore.release();
    EXPECT_TRUE(thread.ends());
    EXPECT_EQ(process.join(), 0) << process.failures();
    while (semaphore.get_value() < 2) semaphore.release();
    for (int i = 0; i < 3; ++i)
      if (i != which) holders[i].kill();
    while (semaphore.get_value() < 3) semaphore.release();
  }
}

TEST(BoundedSemaphore, AllUnitsOfOneDeathReachAllSleepers) {
  BoundedSemaphore semaphore(4);
  Holder holder(semaphore, 4);
  std::deque<Thread> sleepers;
  for (int i = 0; i < 4; ++i)
    sleepers.emplace_back([&] { EXPECT_TRUE(semaphore.acquire()); });
  for (auto& sleeper : sleepers) ASSERT_TRUE(sleeper.falls_asleep());
  holder.kill();
  for (auto& sleeper : sleepers) EXPECT_TRUE(sleeper.ends());
  EXPECT_EQ(semaphore.get_value(), 0u);
}

// The units are the process's, not the thread's.
TEST(BoundedSemaphore, AThreadThatEndsKeepsTheUnits) {
  BoundedSemaphore semaphore(2);
  Shared<std::atomic<int>> step;
  Child child([&](Child& self) {
    std::thread([&] { semaphore.acquire(), semaphore.acquire(); }).join();
    *step = 1;
    eventually([&] { return *step == 2; });
    std::thread([&] { semaphore.release(); }).join();
    self.expect(semaphore.get_value() == 1, "given back by another thread");
    *step = 3;
    for (;;) pause();
  });
  ASSERT_TRUE(eventually([&] { return *step == 1; }));
  EXPECT_EQ(semaphore.get_value(), 0u);
  EXPECT_FALSE(semaphore.acquire(300ms)) << "the process lives";
  *step = 2;
  ASSERT_TRUE(eventually([&] { return *step == 3; }));
  EXPECT_TRUE(semaphore.acquire(now));
  Thread sleeper([&] { EXPECT_TRUE(semaphore.acquire()); });
  ASSERT_TRUE(sleeper.falls_asleep());
  child.kill();
  EXPECT_EQ(child.join(), -SIGKILL);
  EXPECT_TRUE(sleeper.ends());
}

TEST(BoundedSemaphore, ReleasePrefersItsOwn) {
  BoundedSemaphore semaphore(2);
  Holder holder(semaphore, 1);
  semaphore.acquire();
  semaphore.release();
  EXPECT_EQ(semaphore.get_value(), 1u);
  holder.kill();
  EXPECT_EQ(semaphore.get_value(), 2u) << "the one that came back was ours";
}

TEST(BoundedSemaphore, AStoppedHolderIsNotADeadOne) {
  BoundedSemaphore semaphore(1);
  Holder holder(semaphore, 1);
  holder.child().kill(SIGSTOP);
  int status = 0;
  ASSERT_EQ(waitpid(holder.child().pid(), &status, WUNTRACED),
            holder.child().pid());
  EXPECT_FALSE(semaphore.acquire(400ms)) << "longer than any slice of a wait";
  EXPECT_EQ(semaphore.get_value(), 0u);
  holder.child().kill(SIGCONT);
  holder.kill();
  EXPECT_TRUE(semaphore.acquire(10s));
}

TEST(BoundedSemaphore, AForkedChildHoldsNothing) {
  BoundedSemaphore semaphore(1);
  semaphore.acquire();
  Child child([&](Child& self) {
    self.expect(semaphore.get_value() == 0, "held by the parent");
    self.expect(!semaphore.acquire(20ms), "not to be had");
  });
  EXPECT_EQ(child.join(), 0) << child.failures();
  EXPECT_EQ(semaphore.get_value(), 0u) << "the child's end changes nothing";
  semaphore.release();
}

TEST(BoundedSemaphore, RandomKills) {
  constexpr unsigned kUnits = 3;
  BoundedSemaphore semaphore(kUnits);
  Shared<std::atomic<std::uint64_t>> rounds;
  const auto work = [&](Child&) {
    for (;;) {
      semaphore.acquire();
      ++*rounds;
      semaphore.release();
    }
  };
  std::mt19937 random(3);
  std::array<std::optional<Child>, 4> children;
  for (int kills = 0; kills < 100; ++kills) {
    for (auto& child : children)
      if (!child) child.emplace(work);
    const std::uint64_t before = *rounds;
    ASSERT_TRUE(eventually([&] { return *rounds > before + random() % 50; }));
    auto& victim = children[random() % children.size()];
    victim->kill();
    ASSERT_EQ(victim->join(), -SIGKILL);
    victim.reset();
  }
  for (auto& child : children) child.reset();
  EXPECT_EQ(semaphore.get_value(), kUnits);
  for (unsigned i = 0; i < kUnits; ++i) EXPECT_TRUE(semaphore.acquire(10s));
}

}  // namespace
