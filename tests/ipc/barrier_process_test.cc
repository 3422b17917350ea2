// Barrier between processes, and what its dead do to it.

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <deque>
#include <optional>
#include <random>
#include <thread>

#include "gtest/gtest.h"
#include "shoal/ipc/barrier.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/process.h"
#include "tests/support/child.h"
#include "tests/support/name.h"
#include "tests/support/thread.h"

namespace {

using shoal::Barrier;
using shoal::BrokenBarrier;
using shoal::Process;
using shoal::support::Child;
using shoal::support::eventually;
using shoal::support::falls_asleep;
using shoal::support::Name;
using shoal::support::Shared;
using shoal::support::Thread;
using namespace std::chrono_literals;

bool breaks(const Barrier& barrier) {
  try {
    barrier.wait(30s);
    return false;
  } catch (const BrokenBarrier&) {
    return true;
  }
}

void kill(Child& child) {
  child.kill();
  EXPECT_EQ(child.join(), -SIGKILL);
}

TEST(BarrierProcess, RoundAfterRound) {
  constexpr int kRounds = 500;
  Shared<std::atomic<int>> arrived;
  Shared<std::atomic<int>> actions;
  Barrier barrier(4, [&] { ++*actions; });
  std::deque<Child> children;
  const auto work = [&](Child& self) {
    for (int i = 1; i <= kRounds; ++i) {
      ++*arrived;
      barrier.wait();
      self.expect(*arrived >= 4 * i, "all had come");
      self.expect(*actions >= i, "the action has run");
    }
  };
  for (int i = 0; i < 4; ++i) children.emplace_back(work);
  for (auto& child : children) EXPECT_EQ(child.join(), 0) << child.failures();
  EXPECT_EQ(*actions, kRounds);
}

// ---- who dies ----

TEST(BarrierProcess, APartyThatDiesWaitingBreaksIt) {
  Barrier barrier(3);
  Child dead([&](Child&) { barrier.wait(); });
  Thread living([&] { EXPECT_TRUE(breaks(barrier)); });
  ASSERT_TRUE(falls_asleep(dead.pid(), dead.pid()));
  ASSERT_TRUE(living.falls_asleep());
  kill(dead);
  EXPECT_TRUE(living.ends());
  EXPECT_TRUE(barrier.broken());
  EXPECT_TRUE(breaks(barrier)) << "until reset";
  barrier.reset();
  EXPECT_FALSE(barrier.broken());
}

TEST(BarrierProcess, TheOnlyOneThatWaitedAndDiedBreaksIt) {
  Barrier barrier(2);
  Child dead([&](Child&) { barrier.wait(); });
  ASSERT_TRUE(falls_asleep(dead.pid(), dead.pid()));
  EXPECT_EQ(barrier.n_waiting(), 1);
  kill(dead);
  EXPECT_TRUE(barrier.broken());
  EXPECT_TRUE(breaks(barrier));
}

// After its round, before or while the others wait for the next.
TEST(BarrierProcess, APartyThatDiesAfterHavingWaitedBreaksIt) {
  for (const bool before : {true, false}) {
    SCOPED_TRACE(before);
    Barrier barrier(3);
    Child dead([&](Child&) {
      barrier.wait();
      for (;;) pause();
    });
    Thread other([&] {
      barrier.wait();
      EXPECT_TRUE(breaks(barrier));
    });
    barrier.wait();
    if (before) {
      kill(dead);
      EXPECT_TRUE(breaks(barrier));
    } else {
      Thread third([&] {
        ASSERT_TRUE(other.falls_asleep());
        kill(dead);
      });
      EXPECT_TRUE(breaks(barrier));
    }
    EXPECT_TRUE(other.ends());
  }
}

TEST(BarrierProcess, WhoIsNoPartyAnyMoreBreaksNothing) {
  Barrier barrier(2);
  Child old([&](Child&) {
    barrier.wait();
    for (;;) pause();
  });
  barrier.wait();
  // Two rounds without it.
  for (int i = 0; i < 2; ++i) {
    Thread other([&] { barrier.wait(); });
    barrier.wait();
    EXPECT_TRUE(other.ends());
  }
  kill(old);
  EXPECT_FALSE(barrier.broken());
  Thread other([&] { barrier.wait(); });
  barrier.wait();
  EXPECT_TRUE(other.ends());
}

TEST(BarrierProcess, WhoDiesInTheActionBreaksIt) {
  Shared<std::atomic<bool>> acting;
  Barrier barrier(3, [&] {
    *acting = true;
    for (;;) pause();
  });
  Thread one([&] { EXPECT_TRUE(breaks(barrier)); });
  Thread two([&] { EXPECT_TRUE(breaks(barrier)); });
  ASSERT_TRUE(one.falls_asleep());
  ASSERT_TRUE(two.falls_asleep());
  Child last([&](Child&) { barrier.wait(); });
  ASSERT_TRUE(eventually([&] { return acting->load(); }));
  kill(last);
  EXPECT_TRUE(one.ends());
  EXPECT_TRUE(two.ends());
}

// ---- who ends normally ----

TEST(BarrierProcess, ProcessesThatEndNormallyBreakNothing) {
  Barrier barrier(2);
  for (int i = 0; i < 4; ++i) {
    Process process([barrier, i] {
      barrier.wait();
      if (i % 2 == 1) std::exit(0);
    });
    process.start();
    barrier.wait();
    process.join();
    EXPECT_EQ(process.exitcode(), 0);
    EXPECT_FALSE(barrier.broken());
  }
}

TEST(BarrierProcess, WhoLetsGoOfTheLastHandleBreaksNothing) {
  const Name name("barrier");
  auto barrier = Barrier::create(name, 2);
  Shared<std::atomic<bool>> gone;
  Child child([&](Child&) {
    Barrier::open(name).wait();
    *gone = true;
    for (;;) pause();
  });
  // The child has the parent's handle, too, by fork: not one of its own.
  barrier.wait();
  ASSERT_TRUE(eventually([&] { return gone->load(); }));
  kill(child);
  EXPECT_TRUE(barrier.broken()) << "it still had a handle";
}

TEST(BarrierProcess, WhoOnlyOpenedItAndLetGoBreaksNothing) {
  const Name name("barrier");
  Shared<std::atomic<bool>> gone;
  Shared<std::atomic<bool>> go;
  Child child([&](Child&) {
    eventually([&] { return go->load(); });
    Barrier::open(name).wait();
    *gone = true;
    for (;;) pause();
  });
  auto barrier = Barrier::create(name, 2);
  *go = true;
  barrier.wait();
  ASSERT_TRUE(eventually([&] { return gone->load(); }));
  kill(child);
  EXPECT_FALSE(barrier.broken());
}

TEST(BarrierProcess, AForkedChildIsNotTheParty) {
  Barrier barrier(1);
  barrier.wait();
  Child child([&](Child&) {});
  EXPECT_EQ(child.join(), 0);
  EXPECT_FALSE(barrier.broken());
}

TEST(BarrierProcess, AStoppedPartyIsNotADeadOne) {
  Barrier barrier(3);
  Child stopped([&](Child&) { barrier.wait(); });
  ASSERT_TRUE(falls_asleep(stopped.pid(), stopped.pid()));
  stopped.kill(SIGSTOP);
  int status = 0;
  ASSERT_EQ(waitpid(stopped.pid(), &status, WUNTRACED), stopped.pid());
  Thread other([&] { EXPECT_EQ(barrier.wait(), 1); });
  ASSERT_TRUE(other.falls_asleep());
  std::this_thread::sleep_for(300ms);  // longer than any slice of a wait
  EXPECT_FALSE(barrier.broken());
  EXPECT_EQ(barrier.wait(), 2);
  EXPECT_TRUE(other.ends());
  stopped.kill(SIGCONT);
  EXPECT_EQ(stopped.join(), 0) << stopped.failures();
}

// Each kill breaks it, for everybody, and nothing else does.
TEST(BarrierProcess, RandomKills) {
  Barrier barrier(3);
  Shared<std::atomic<std::uint64_t>> rounds;
  std::mt19937 random(4);
  for (int kills = 0; kills < 60; ++kills) {
    std::deque<Child> children;
    for (int i = 0; i < 3; ++i)
      children.emplace_back([&](Child& self) {
        try {
          for (;;) {
            barrier.wait(20s);
            ++*rounds;
          }
        } catch (const BrokenBarrier&) {
          self.expect(barrier.broken(), "for all");
        }
      });
    const std::uint64_t enough = *rounds + 3 + random() % 100;
    ASSERT_TRUE(eventually([&] { return *rounds > enough; }));
    EXPECT_FALSE(barrier.broken());
    kill(children[random() % 3]);
    for (auto& child : children) {
      const auto status = child.join();
      EXPECT_TRUE(status == 0 || status == -SIGKILL) << child.failures();
    }
    EXPECT_TRUE(barrier.broken());
    barrier.reset();
  }
}

}  // namespace
