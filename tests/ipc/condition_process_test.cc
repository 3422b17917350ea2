// Condition between processes, and what the dead leave.

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <deque>
#include <mutex>
#include <optional>
#include <random>
#include <thread>

#include "gtest/gtest.h"
#include "shoal/ipc/condition.h"
#include "tests/support/child.h"
#include "tests/support/name.h"
#include "tests/support/thread.h"

namespace {

using shoal::Condition;
using shoal::RLock;
using shoal::support::Child;
using shoal::support::eventually;
using shoal::support::falls_asleep;
using shoal::support::Name;
using shoal::support::Shared;
using shoal::support::Thread;
using namespace std::chrono_literals;

using Guard = std::lock_guard<const Condition>;

void notify(const Condition& condition, int n = 1) {
  const Guard guard(condition);
  condition.notify(n);
}

// A process that waits once.
class Waiter {
 public:
  explicit Waiter(const Condition& condition)
      : child_([condition](Child& self) {
          const Guard guard(condition);
          self.expect(condition.wait(), "notified");
        }) {
    EXPECT_TRUE(falls_asleep(child_.pid(), child_.pid()));
  }
  Child& child() { return child_; }
  void expect_back() { EXPECT_EQ(child_.join(), 0) << child_.failures(); }
  void kill() {
    child_.kill();
    EXPECT_EQ(child_.join(), -SIGKILL);
  }
  bool back() { return child_.join(shoal::now).has_value(); }

 private:
  Child child_;
};

TEST(ConditionProcess, NotifiesOtherProcesses) {
  Condition condition;
  std::deque<Waiter> waiters;
  for (int i = 0; i < 3; ++i) waiters.emplace_back(condition);
  notify(condition, 2);
  waiters[0].expect_back();
  waiters[1].expect_back();
  EXPECT_FALSE(waiters[2].back());
  notify(condition);
  waiters[2].expect_back();
}

TEST(ConditionProcess, ANotifyIsNotSwallowedByOneWhoDiedWaiting) {
  Condition condition;
  std::deque<Waiter> waiters;
  for (int i = 0; i < 3; ++i) waiters.emplace_back(condition);
  waiters[0].kill();
  notify(condition);
  waiters[1].expect_back();
  EXPECT_FALSE(waiters[2].back());
  notify(condition);
  waiters[2].expect_back();
}

// It was notified, and could not come back before it died.
TEST(ConditionProcess, ANotifyIsHandedOnByTheDead) {
  Condition condition;
  std::deque<Waiter> waiters;
  for (int i = 0; i < 3; ++i) waiters.emplace_back(condition);
  {
    const Guard guard(condition);
    condition.notify();
    // It sleeps behind the lock that we hold.
    ASSERT_TRUE(
        falls_asleep(waiters[0].child().pid(), waiters[0].child().pid()));
    waiters[0].kill();
  }
  waiters[1].expect_back();
  EXPECT_FALSE(waiters[2].back());
  notify(condition);
  waiters[2].expect_back();
}

TEST(ConditionProcess, WhoComesLaterDoesNotInheritIt) {
  Condition condition;
  Waiter first(condition);
  std::optional<Waiter> later;
  {
    const Guard guard(condition);
    condition.notify();
    first.child().kill(SIGSTOP);
    ASSERT_TRUE(eventually([&] {
      int status = 0;
      return waitpid(first.child().pid(), &status, WUNTRACED | WNOHANG) > 0;
    }));
  }
  later.emplace(condition);
  first.kill();
  EXPECT_FALSE(later->back());
  notify(condition);
  later->expect_back();
}

TEST(ConditionProcess, AHolderThatDiesHandsOnTheLock) {
  Condition condition;
  Waiter waiter(condition);
  Child holder([&](Child&) {
    condition.acquire();
    condition.notify();
    raise(SIGKILL);
  });
  EXPECT_EQ(holder.join(), -SIGKILL);
  waiter.expect_back();
  const Guard guard(condition);
  EXPECT_TRUE(condition.owner_died());
  condition.mark_consistent();
}

TEST(ConditionProcess, AStoppedWaiterKeepsItsNotify) {
  Condition condition;
  std::deque<Waiter> waiters;
  for (int i = 0; i < 2; ++i) waiters.emplace_back(condition);
  waiters[0].child().kill(SIGSTOP);
  int status = 0;
  ASSERT_EQ(waitpid(waiters[0].child().pid(), &status, WUNTRACED),
            waiters[0].child().pid());
  notify(condition);
  std::this_thread::sleep_for(300ms);  // longer than any slice of a wait
  EXPECT_FALSE(waiters[1].back()) << "stopped is not dead";
  waiters[0].child().kill(SIGCONT);
  waiters[0].expect_back();
  notify(condition);
  waiters[1].expect_back();
}

TEST(ConditionProcess, UnrelatedOpenersOfOneName) {
  const Name lock_name("rlock");
  const Name name("condition");
  Shared<int> value;
  Child waiter([&](Child& self) {
    auto condition =
        Condition::open_or_create(name, RLock::open_or_create(lock_name));
    const Guard guard(condition);
    self.expect(condition.wait_for([&] { return *value == 7; }, 30s), "told");
  });
  ASSERT_TRUE(falls_asleep(waiter.pid(), waiter.pid()));
  Child notifier([&](Child&) {
    auto condition = Condition::open(name);
    const Guard guard(condition);
    *value = 7;
    condition.notify();
  });
  EXPECT_EQ(waiter.join(), 0) << waiter.failures();
  EXPECT_EQ(notifier.join(), 0) << notifier.failures();
}

// Waiters are killed at any moment: a notify brings somebody back, unless the
// one that it had brought back died with the lock, and then the next holder is
// told.
TEST(ConditionProcess, RandomKills) {
  Condition condition;
  Shared<std::atomic<int>> tokens;
  const auto work = [&](Child&) {
    for (;;) {
      const Guard guard(condition);
      if (condition.owner_died()) condition.mark_consistent();
      condition.wait_for([&] { return *tokens != 0; });
      --*tokens;
    }
  };
  std::mt19937 random(9);
  std::array<std::optional<Child>, 4> children;
  for (int kills = 0; kills < 150; ++kills) {
    for (auto& child : children)
      if (!child) child.emplace(work);
    auto& victim = children[random() % children.size()];
    const auto pause = std::chrono::microseconds(random() % 300);
    std::thread killer([&] {
      std::this_thread::sleep_for(pause);
      victim->kill();
    });
    for (int i = 0; i < 5; ++i) {
      const Guard guard(condition);
      if (condition.owner_died()) {
        condition.mark_consistent();
        condition.notify(*tokens);
      }
      ++*tokens;
      condition.notify();
    }
    killer.join();
    ASSERT_EQ(victim->join(), -SIGKILL);
    victim.reset();
    ASSERT_TRUE(eventually([&] {
      if (*tokens == 0) return true;
      const Guard guard(condition);
      if (condition.owner_died()) {
        condition.mark_consistent();
        condition.notify(*tokens);
      }
      return false;
    })) << "LOST: a notify, after "
        << kills << " kills";
  }
}

}  // namespace
