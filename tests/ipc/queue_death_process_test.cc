// Queue<T> when a process dies or is stopped.

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "shoal/ipc/asymmetric_fence.h"
#include "shoal/ipc/liveness.h"
#include "shoal/ipc/queue.h"
#include "tests/ipc/block.h"
#include "tests/support/child.h"
#include "tests/support/name.h"
#include "tests/support/reexec.h"
#include "tests/support/thread.h"

namespace {

using shoal::Empty;
using shoal::Full;
using shoal::now;
using shoal::Queue;
using shoal::ShutDown;
using shoal::support::Block;
using shoal::support::Child;
using shoal::support::eventually;
using shoal::support::exec_tests;
using shoal::support::falls_asleep;
using shoal::support::given;
using shoal::support::Name;
using shoal::support::Shared;
using shoal::support::Tally;
using shoal::support::Thread;
using namespace std::chrono_literals;

bool stop(Child& child) {
  child.kill(SIGSTOP);
  int status = 0;
  return waitpid(child.pid(), &status, WUNTRACED) == child.pid() &&
         WIFSTOPPED(status);
}

// ---- death ----

// Row g.
TEST(QueueDeath, OfOneBlockedInGetHarmsNobody) {
  Queue<int> queue(2);
  for (int i = 0; i < 20; ++i) {
    Child child([&](Child&) { queue.get(); });
    ASSERT_TRUE(falls_asleep(child.pid(), child.pid()));
    child.kill();
    ASSERT_EQ(child.join(), -SIGKILL);
    queue.put(i);
    EXPECT_EQ(queue.get(10s), i);
    EXPECT_TRUE(queue.empty());
  }
}

TEST(QueueDeath, OfOneBlockedInGetHarmsNoOtherSleeper) {
  Queue<int> queue(2);
  for (int i = 0; i < 20; ++i) {
    Child victim([&](Child&) { queue.get(); });
    ASSERT_TRUE(falls_asleep(victim.pid(), victim.pid()));
    Thread getter([&] { EXPECT_EQ(queue.get(), i); });
    ASSERT_TRUE(getter.falls_asleep());
    victim.kill();  // perhaps the one that this put wakes
    queue.put(i);
    EXPECT_TRUE(getter.ends());
    EXPECT_EQ(victim.join(), -SIGKILL);
  }
}

TEST(QueueDeath, OfOneBlockedInPutHarmsNobody) {
  Queue<int> queue(1);
  for (int i = 0; i < 20; ++i) {
    queue.put(i);
    Child child([&](Child&) { queue.put(-1); });
    ASSERT_TRUE(falls_asleep(child.pid(), child.pid()));
    child.kill();
    ASSERT_EQ(child.join(), -SIGKILL);
    EXPECT_EQ(queue.get(10s), i);
    EXPECT_TRUE(queue.empty());
  }
}

TEST(QueueDeath, AValueThatWasTakenIsDeliveredAgain) {
  for (const int signal : {SIGKILL, SIGSEGV, 0}) {
    SCOPED_TRACE(signal);
    Queue<int> queue(3);
    Queue<int> ready(1);
    queue.put(1);
    queue.put(2);
    Child child([&](Child&) {
      ::signal(SIGSEGV, SIG_DFL);  // not a sanitizer's
      auto taken = queue.take();
      ready.put(*taken);
      if (signal == 0) _exit(0);
      raise(signal);
    });
    EXPECT_EQ(ready.get(), 1);
    ASSERT_EQ(child.join(), -signal);
    const int first = queue.get(10s);
    const int second = queue.get(10s);
    EXPECT_EQ(first + second, 3) << first << ' ' << second;
    EXPECT_TRUE(queue.empty());
    queue.put(3);
    queue.put(4);
    queue.put(5);
    EXPECT_TRUE(queue.full()) << "the cell is back, too";
    for (const int expected : {3, 4, 5}) EXPECT_EQ(queue.get(now), expected);
  }
}

// It keeps its cell; those that were consumed after it can be filled, though
// the next in the row is its own.
TEST(QueueDeath, WhatComesBackLeavesTheRestFree) {
  constexpr int kSize = 5;
  for (int held = 1; held < kSize; ++held) {
    SCOPED_TRACE(held);
    Queue<int> queue(kSize);
    Queue<int> ready(1);
    for (int i = 0; i < kSize; ++i) queue.put(i);
    Child child([&](Child&) {
      std::vector<shoal::Taken<int>> taken;
      for (int i = 0; i < held; ++i) taken.push_back(queue.take());
      ready.put(1);
      Queue<int>(1).get();
    });
    ready.get();
    for (int i = held; i < kSize; ++i) ASSERT_EQ(queue.get(now), i);
    child.kill();
    child.join();
    std::multiset<int> expected;
    for (int i = 0; i < held; ++i) expected.insert(i);
    for (int i = held; i < kSize; ++i) {
      EXPECT_FALSE(queue.full()) << i;
      ASSERT_TRUE(queue.try_put(10 + i)) << i;
      expected.insert(10 + i);
    }
    EXPECT_TRUE(queue.full());
    EXPECT_EQ(queue.qsize(), std::size_t{kSize});
    EXPECT_FALSE(queue.try_put(99));
    std::multiset<int> items;
    for (int i = 0; i < kSize; ++i) items.insert(queue.get(now));
    EXPECT_EQ(items, expected);
    EXPECT_TRUE(queue.empty());
  }
}

TEST(QueueDeath, AParkedPutterIsWokenThoughWhatComesBackIsNext) {
  Queue<int> queue(2);
  Queue<int> ready(1);
  queue.put(0);
  queue.put(1);
  Child child([&](Child&) {
    auto taken = queue.take();
    ready.put(1);
    Queue<int>(1).get();
  });
  ready.get();
  ASSERT_EQ(queue.get(now), 1);
  Thread putter([&] { queue.put(2); });
  ASSERT_TRUE(putter.falls_asleep()) << "its place is still taken";
  child.kill();
  EXPECT_TRUE(putter.ends());
  EXPECT_EQ(queue.get(now) + queue.get(now), 2);
}

TEST(QueueDeath, AParkedGetterIsWokenByAValueThatComesBack) {
  for (const bool thread_is_gone : {false, true}) {
    SCOPED_TRACE(thread_is_gone);
    Queue<int> queue(3);
    Queue<int> ready(1);
    queue.put(17);
    Child child([&](Child&) {
      if (thread_is_gone) {
        // The process holds it, not the thread.
        std::optional<shoal::Taken<int>> taken;
        std::thread([&] { taken.emplace(queue.take()); }).join();
        ready.put(**taken);
        Queue<int>(1).get();
      }
      auto taken = queue.take();
      ready.put(*taken);
      Queue<int>(1).get();
    });
    ASSERT_EQ(ready.get(), 17);
    EXPECT_THROW(queue.get(300ms), Empty) << "held by a living process";
    Thread getter([&] { EXPECT_EQ(queue.get(), 17); });
    ASSERT_TRUE(getter.falls_asleep());
    child.kill();
    EXPECT_TRUE(getter.ends());
    ASSERT_EQ(child.join(), -SIGKILL);
  }
}

TEST(QueueDeath, AParkedPutterIsWokenByTheEndOfALoan) {
  Queue<int> queue(1);
  Queue<int> ready(1);
  Child child([&](Child&) {
    auto loan = queue.loan();
    *loan = 1;
    ready.put(1);
    Queue<int>(1).get();
  });
  ready.get();
  EXPECT_THROW(queue.put(2, 300ms), Full) << "held by a living process";
  Thread putter([&] { queue.put(2); });
  ASSERT_TRUE(putter.falls_asleep());
  child.kill();
  EXPECT_TRUE(putter.ends());
  EXPECT_EQ(queue.get(10s), 2) << "the loan never was";
  EXPECT_TRUE(queue.empty());
}

TEST(QueueDeath, WhatLiesBehindALoanIsFree) {
  Queue<int> queue(3);
  Queue<int> ready(1);
  Child child([&](Child&) {
    auto loan = queue.loan();
    ready.put(1);
    Queue<int>(1).get();
  });
  ready.get();
  queue.put(2);
  EXPECT_FALSE(queue.try_get().has_value());
  Thread getter([&] { EXPECT_EQ(queue.get(), 2); });
  ASSERT_TRUE(getter.falls_asleep());
  child.kill();
  EXPECT_TRUE(getter.ends());
}

// The same, when the cells around the loan have been left twice since.
TEST(QueueDeath, WhatLiesALapBehindALoanIsFree) {
  Queue<int> queue(3);
  Queue<int> ready(1);
  std::optional<shoal::Loan<int>> first(queue.loan());
  Child child([&](Child&) {
    auto loan = queue.loan();
    ready.put(1);
    Queue<int>(1).get();
  });
  ready.get();
  queue.put(3);
  first.reset();
  { auto next_lap = queue.loan(); }
  Thread getter([&] { EXPECT_EQ(queue.get(), 3); });
  ASSERT_TRUE(getter.falls_asleep());
  child.kill();
  EXPECT_TRUE(getter.ends());
  if (!getter.ended()) queue.shutdown(true);  // or the test would hang, too
}

TEST(QueueDeath, AThreadThatEndsKeepsItsProcessesLease) {
  Queue<int> queue(2);
  Queue<int> ready(1);
  Queue<int> end(1);
  queue.put(1);
  Child child([&](Child& self) {
    std::optional<shoal::Taken<int>> taken;
    std::thread([&] { taken.emplace(queue.take()); }).join();
    ready.put(1);
    end.get();
    self.expect(**taken == 1, "still there");
    taken.reset();
    ready.put(2);
  });
  ready.get();
  // Several looks, each with time for the secondary proof.
  for (int i = 0; i < 3; ++i) EXPECT_THROW(queue.get(150ms), Empty);
  end.put(1);
  ready.get();
  EXPECT_EQ(child.join(), 0) << child.failures();
  EXPECT_TRUE(queue.empty()) << "released, not delivered again";
}

// ---- stopped ----

// Sends through children that are stopped at any moment: nothing is lost,
// doubled or torn, and the others go on unless they are behind it.
class Stopping {
 public:
  static constexpr std::uint32_t kMost = 1 << 20;
  static constexpr int kStops = 60;
  static constexpr std::uint32_t kBetweenStops = kMost / (kStops + 1);

  Stopping() {
    for (int c = 0; c < 2; ++c)
      consumers_.emplace_back([this](Child& self) { consume(self); });
    for (int p = 0; p < 2; ++p)
      producers_.emplace_back([this](Child&) {
        while (!done_->load())
          if (next_->load() < allowed_->load())
            queue_.put(Block::of(next_->fetch_add(1)));
          else
            shoal::support::yield_cpu();
      });
  }

  void run(std::deque<Child>& victims) {
    std::mt19937 random(5);
    for (int i = 0; i < kStops; ++i) {
      allowed_->store(next_->load() + kBetweenStops / 2);
      ASSERT_TRUE(get_on(static_cast<std::uint32_t>(random() % 40)))
          << "after " << i << " stops";
      Child& victim = victims[random() % victims.size()];
      ASSERT_TRUE(stop(victim)) << i;
      // The others get on, or come up behind it.
      const std::uint32_t before = tally_->total.load();
      eventually([&] { return tally_->total.load() > before + 10; }, 5ms);
      victim.kill(SIGCONT);
    }
    done_->store(true);
    for (auto& child : producers_)
      ASSERT_EQ(child.join(), 0) << child.failures();
    queue_.shutdown();
    for (auto& child : consumers_)
      ASSERT_EQ(child.join(), 0) << child.failures();
    ASSERT_LT(next_->load(), kMost);
    EXPECT_EQ(tally_->times(1), next_->load());
    EXPECT_EQ(tally_->times(0), kMost - next_->load());
  }

  std::deque<Child>& consumers() { return consumers_; }
  std::deque<Child>& producers() { return producers_; }

 private:
  void consume(Child& self) {
    try {
      for (;;) {
        const Block block = queue_.get();
        self.expect(block.whole(), "torn");
        if (block.number() < kMost) tally_->add(block.number());
      }
    } catch (const ShutDown&) {
    }
  }
  bool get_on(std::uint32_t blocks) {
    const std::uint32_t target = tally_->total.load() + blocks;
    return eventually([&] { return tally_->total.load() >= target; });
  }

  Queue<Block> queue_{5};
  Shared<Tally<kMost>> tally_;
  Shared<std::atomic<std::uint32_t>> next_;
  Shared<std::atomic<std::uint32_t>> allowed_;  // next_ waits for it
  Shared<std::atomic<bool>> done_;
  std::deque<Child> consumers_;
  std::deque<Child> producers_;
};

TEST(QueueStopped, Consumers) {
  Stopping stopping;
  stopping.run(stopping.consumers());
}

TEST(QueueStopped, Producers) {
  Stopping stopping;
  stopping.run(stopping.producers());
}

TEST(QueueStopped, AStoppedHolderIsNotADeadOne) {
  Queue<int> queue(2);
  Queue<int> ready(1);
  Queue<int> end(1);
  queue.put(1);
  Child child([&](Child& self) {
    auto taken = queue.take();
    ready.put(1);
    end.get();
    self.expect(*taken == 1, "untouched");
  });
  ready.get();
  ASSERT_TRUE(stop(child));
  EXPECT_THROW(queue.get(300ms), Empty) << "longer than any slice of a wait";
  child.kill(SIGCONT);
  end.put(1);
  EXPECT_EQ(child.join(), 0) << child.failures();
  EXPECT_TRUE(queue.empty());
}

// ---- on their own ----
class DISABLED_QueueDeathElsewhere : public testing::Test {};

TEST_F(DISABLED_QueueDeathElsewhere, TakeAndWait) {
  auto queue = Queue<int>::open(given("QUEUE"));
  auto ready = Queue<int>::open(given("READY"));
  auto taken = queue.take();
  ready.put(*taken);
  ready.put(0);  // is full: for ever
}

TEST(QueueDeathElsewhere, AStrangersDeathBringsItsValueBack) {
  const Name name("stranger");
  const Name ready_name("ready");
  auto queue = Queue<int>::create(name, 3);
  auto ready = Queue<int>::create(ready_name, 1);
  queue.put(41);
  Child stranger([&](Child&) {
    exec_tests("DISABLED_QueueDeathElsewhere.TakeAndWait",
               {"QUEUE=" + name.text(), "READY=" + ready_name.text()});
  });
  ASSERT_TRUE(eventually([&] { return ready.full(); }));
  ASSERT_TRUE(falls_asleep(stranger.pid(), stranger.pid()));
  Thread getter([&] { EXPECT_EQ(queue.get(), 41); });
  ASSERT_TRUE(getter.falls_asleep());
  stranger.kill();
  EXPECT_TRUE(getter.ends());
  EXPECT_EQ(stranger.join(), -SIGKILL);
  EXPECT_EQ(ready.get(now), 41);
}

// ---- without what the kernel may lack ----

class DISABLED_QueueFallback : public testing::Test {};

TEST_F(DISABLED_QueueFallback, IsInEffect) {
  using shoal::asymmetric_fence::default_mode;
  using shoal::asymmetric_fence::Mode;
  if (const char* barrier = getenv("SHOAL_BARRIER")) {
    EXPECT_EQ(default_mode(), Mode::fence) << barrier;
  }
  if (const char* passed = getenv("SHOAL_PASSED_WAKE")) {
    EXPECT_FALSE(shoal::liveness::kernel_passes_wakes()) << passed;
  }
}

// All of the above again, in another environment.
void run_again_with(const std::vector<std::string>& environment) {
  Child again([&](Child&) {
    exec_tests("DISABLED_QueueFallback.*:QueueDeath*:QueueStopped.*",
               environment);
  });
  EXPECT_EQ(again.join(120s), 0);
}

TEST(QueueFallback, FencesInPlaceOfMembarrier) {
  run_again_with({"SHOAL_BARRIER=fence"});
}

TEST(QueueFallback, NoWakePassedOnByTheKernel) {
  run_again_with({"SHOAL_PASSED_WAKE=0"});
}

TEST(QueueFallback, Neither) {
  run_again_with({"SHOAL_BARRIER=fence", "SHOAL_PASSED_WAKE=0"});
}

}  // namespace
