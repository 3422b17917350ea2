// SIGSTOP at random to users of locks, semaphores, conditions, events and
// barriers: they delay others by what they hold only, nobody takes them for
// dead, and no wake is lost.

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <vector>

#include "gtest/gtest.h"
#include "shoal/ipc/sync.h"
#include "shoal/ipc/waiting.h"
#include "tests/support/child.h"
#include "tests/support/stopper.h"

namespace {

using shoal::Barrier;
using shoal::BoundedSemaphore;
using shoal::Condition;
using shoal::Event;
using shoal::Lock;
using shoal::RLock;
using shoal::Semaphore;
using shoal::support::Child;
using shoal::support::eventually;
using shoal::support::kPatience;
using shoal::support::Shared;
using shoal::support::stop_at_random;
using namespace std::chrono_literals;

// Two processes that do the same until the end.
class Workers {
 public:
  template <class Work>
  explicit Workers(const Work& work)
      : children_{Child([&](Child& self) {
                    while (!*end_) work(self);
                  }),
                  Child([&](Child& self) {
                    while (!*end_) work(self);
                  })} {}
  std::vector<pid_t> pids() const {
    return {children_[0].pid(), children_[1].pid()};
  }
  void finish() {
    *end_ = true;
    for (Child& child : children_)
      EXPECT_EQ(child.join(), 0) << child.failures();
  }

 private:
  Shared<std::atomic<bool>> end_;
  std::array<Child, 2> children_;
};

template <class L>
class LockStop : public testing::Test {};
using Locks = testing::Types<Lock, RLock>;
TYPED_TEST_SUITE(LockStop, Locks);

TYPED_TEST(LockStop, ExcludesAndIsNotInherited) {
  TypeParam lock;
  struct Guarded {
    std::uint64_t first, second;  // alike, but for who holds the lock
    std::atomic<std::uint64_t> rounds;
  };
  Shared<Guarded> guarded;
  const auto add = [&] {
    const bool whole = guarded->first == guarded->second && !lock.owner_died();
    ++guarded->first;
    for (int i = 0; i < 50; ++i) shoal::waiting::pause();
    ++guarded->second;
    lock.release();
    ++guarded->rounds;
    return whole;
  };
  Workers workers([&](Child& self) {
    lock.acquire();
    self.expect(add(), "two had it, or one counts as dead");
  });
  int refused = 0;
  EXPECT_TRUE(stop_at_random(workers.pids(), [&] {
    if (!lock.acquire(1ms)) {
      ++refused;
      return;
    }
    EXPECT_TRUE(add());
  }));
  workers.finish();
  EXPECT_TRUE(lock.acquire(kPatience));
  EXPECT_FALSE(lock.owner_died());
  EXPECT_EQ(guarded->first, guarded->rounds);
  EXPECT_GT(refused, 0) << "nobody was stopped with the lock";
  lock.release();
}

template <class S>
class SemaphoreStop : public testing::Test {};
using Semaphores = testing::Types<Semaphore, BoundedSemaphore>;
TYPED_TEST_SUITE(SemaphoreStop, Semaphores);

TYPED_TEST(SemaphoreStop, NoMoreUnitsThanThereAre) {
  TypeParam semaphore(1);
  Shared<std::atomic<int>> in_use;
  const auto use = [&] {
    const bool alone = in_use->fetch_add(1) == 0;
    for (int i = 0; i < 50; ++i) shoal::waiting::pause();
    --*in_use;
    semaphore.release();
    return alone;
  };
  Workers workers([&](Child& self) {
    semaphore.acquire();
    self.expect(use(), "two had the one unit");
  });
  int refused = 0;
  EXPECT_TRUE(stop_at_random(workers.pids(), [&] {
    if (!semaphore.acquire(1ms)) {
      ++refused;
      return;
    }
    EXPECT_TRUE(use());
  }));
  workers.finish();
  EXPECT_EQ(semaphore.get_value(), 1u);
  EXPECT_GT(refused, 0) << "nobody was stopped with the unit";
}

TEST(ConditionStop, EveryJobIsDoneOnce) {
  Condition condition;
  Shared<int> jobs;
  Shared<std::atomic<int>> done;
  Workers workers([&](Child& self) {
    const std::lock_guard guard(condition);
    if (!condition.wait_for([&] { return *jobs > 0; }, 20ms)) return;
    self.expect(!condition.owner_died(), "nobody has died");
    --*jobs;
    ++*done;
  });
  int added = 0;
  EXPECT_TRUE(stop_at_random(workers.pids(), [&] {
    if (!condition.acquire(1ms)) return;
    EXPECT_FALSE(condition.owner_died());
    if (*jobs < 4) {
      ++*jobs;
      ++added;
      condition.notify();
    }
    condition.release();
  }));
  EXPECT_TRUE(eventually([&] { return *done == added; }));
  workers.finish();
  EXPECT_EQ(*jobs, 0);
  EXPECT_GT(added, 50);
}

// There and back, one at a time.
TEST(EventStop, EverySetIsSeen) {
  Event there;
  Event back;
  Shared<std::atomic<int>> turns;
  Shared<std::atomic<bool>> end;
  Child worker([&](Child&) {
    while (!*end) {
      there.wait();
      there.clear();
      ++*turns;
      back.set();
    }
  });
  int turn = 0;
  const auto play = [&] {
    ++turn;
    there.set();
    while (!back.wait(1ms)) {
    }
    back.clear();
    EXPECT_EQ(*turns, turn);
  };
  EXPECT_TRUE(stop_at_random({worker.pid()}, play));
  *end = true;
  play();
  EXPECT_EQ(worker.join(), 0);
  EXPECT_GT(turn, 50);
}

TEST(BarrierStop, StaysWhole) {
  Barrier barrier(3);
  Shared<std::atomic<bool>> end;
  Shared<std::array<std::atomic<int>, 2>> turns;
  const auto work = [&](int who) {
    return [&, who](Child&) {
      for (bool last = false; !last;) {
        ++(*turns)[who];
        barrier.wait();
        last = *end;
        barrier.wait();
      }
    };
  };
  Child one(work(0)), two(work(1));
  int turn = 0;
  const auto play = [&](bool last) {
    ++turn;
    // Before the first wait, so that both see it after that.
    *end = last;
    barrier.wait();
    EXPECT_EQ((*turns)[0], turn);
    EXPECT_EQ((*turns)[1], turn);
    barrier.wait();
  };
  EXPECT_TRUE(stop_at_random({one.pid(), two.pid()}, [&] {
    play(false);
    EXPECT_FALSE(barrier.broken());
  }));
  play(true);
  EXPECT_EQ(one.join(), 0) << one.failures();
  EXPECT_EQ(two.join(), 0) << two.failures();
  EXPECT_GT(turn, 20);
}

}  // namespace
