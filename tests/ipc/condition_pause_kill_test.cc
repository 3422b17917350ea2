// A process held still at every instruction of notifying, and of waiting and
// being notified: its notify is neither lost nor handed on, and it keeps the
// lock as long as it has it.

#include <memory>

#include "gtest/gtest.h"
#include "shoal/ipc/condition.h"
#include "tests/ipc/pause_scene.h"
#include "tests/ipc/queue_scene.h"

namespace {

using namespace shoal::support;
using shoal::Condition;
using shoal::now;

// Waits once: whether it was notified.
std::unique_ptr<Partner> waiter(const Condition& condition) {
  return std::make_unique<Partner>([condition] {
    condition.acquire();
    const bool notified = condition.wait();
    const bool died = condition.owner_died();
    condition.release();
    return Item{notified && !died};
  });
}

class ConditionPause : public testing::Test {
 protected:
  void SetUp() override { use_one_processor(); }

  // Ours is the first.
  static void sit(const Condition& condition) {
    condition.acquire();
    condition.release();
  }
  // A victim has its seat, and the lock.
  static Victim::Body join(const Condition& condition) {
    return [condition] {
      condition.acquire();
      condition.wait(std::chrono::nanoseconds(1));
    };
  }
  // Whether the lock is to be had while the victim stands still; it is kept.
  static bool acquire(Round& round, const Condition& condition) {
    somebody_dies([&] { (void)condition.locked(); });
    const bool got = condition.acquire(brief());
    round.expect(condition.locked(), "held by nobody");
    round.expect(!condition.owner_died(), "a stopped holder counts as dead");
    return got;
  }
  static void notify(Round& round, const Condition& condition) {
    round.expect(condition.acquire(kPatience), "LOST: the lock");
    round.expect(!condition.owner_died(), "nobody has died");
    condition.notify();
    condition.release();
  }
  static void expect_told(Round& round, Partner& one) {
    round.expect(one.ends(), "LOST: a notify");
    round.expect(one.item() == 1, "not notified, or told of a death");
  }
  // Nobody is left waiting, and a wait and a notify work as ever.
  static void expect_whole(Round& round, const Condition& condition) {
    const auto one = waiter(condition);
    round.expect(condition.acquire(kPatience), "LOST: the lock");
    round.expect(!condition.wait(now), "a notify that nobody gave");
    condition.release();
    notify(round, condition);
    expect_told(round, *one);
  }
};

TEST_F(ConditionPause, NotifyOneOfTwo) {
  kill_at_every_step("H", [](Round& round) {
    Condition condition;
    sit(condition);
    const auto first = waiter(condition);
    const auto second = waiter(condition);
    Victim victim([&] { condition.notify(); }, join(condition),
                  [&] { condition.release(); });
    victim.await_prepared();
    round.step(victim);
    const bool held =
        round.stop() == Stop::finished || !acquire(round, condition);
    round.outcome(held ? 'H' : 'F');
    round.expect(!first->done() || round.stop() == Stop::finished,
                 "back without the lock");
    round.expect(victim.resume(), "stuck after it was let go");
    expect_told(round, *first);
    round.expect(!second->done(), "notified twice");
    notify(round, condition);
    expect_told(round, *second);
    expect_whole(round, condition);
    round.kill(victim);
  });
}

TEST_F(ConditionPause, NotifyAllAndRelease) {
  kill_at_every_step(
      "HF",
      [](Round& round) {
        Condition condition;
        sit(condition);
        const auto first = waiter(condition);
        const auto second = waiter(condition);
        Victim victim([&] { condition.notify_all(), condition.release(); },
                      join(condition));
        victim.await_prepared();
        round.step(victim);
        const bool got = acquire(round, condition);
        round.outcome(got ? 'F' : 'H');
        if (got) condition.release();
        round.expect(victim.resume(), "stuck after it was let go");
        expect_told(round, *first);
        expect_told(round, *second);
        expect_whole(round, condition);
        round.kill(victim);
      },
      // Those who wake may ask for the lock at any moment.
      {.strays = 25});
}

// It is notified while it stands still, or when it has gone on; one that comes
// later is not.
TEST_F(ConditionPause, WaiterOnItsWayToSleep) {
  kill_at_every_step(
      "HF",
      [](Round& round) {
        Condition condition;
        sit(condition);
        Shared<std::atomic<int>> told;
        Victim victim([&] { *told = condition.wait() ? 1 : 2; },
                      join(condition), [&] { condition.release(); });
        round.step(victim);
        const bool got = acquire(round, condition);
        round.outcome(got ? 'F' : 'H');
        if (got) {
          condition.notify();
          condition.release();
        }
        const auto later = waiter(condition);
        if (got) {
          round.expect(victim.resume(), "LOST: its notify");
        } else {
          victim.let_go();
          eventually([&] { return sleeps_on_futex(victim.pid()); });
          eventually([&] { return sleeps_on_futex(later->pid()); });
          notify(round, condition);
          round.expect(eventually([&] { return victim.done(); }),
                       "LOST: its notify");
        }
        round.expect(*told == 1, "not notified");
        round.expect(!later->done(), "two have one notify");
        notify(round, condition);
        expect_told(round, *later);
        expect_whole(round, condition);
        round.kill(victim);
      },
      {.end = Stop::asleep, .stride = 5});
}

// It keeps its notify, whoever waits beside it.
TEST_F(ConditionPause, NotifiedWaiter) {
  kill_at_every_step(
      "FH",
      [](Round& round) {
        Condition condition;
        sit(condition);
        std::unique_ptr<Partner> other;
        Shared<std::atomic<int>> told;
        Victim victim([&] { *told = condition.wait() ? 1 : 2; },
                      join(condition), [&] { condition.release(); });
        round.step(victim, [&] {
          other = waiter(condition);
          notify(round, condition);
        });
        const bool got =
            round.stop() != Stop::finished && acquire(round, condition);
        round.outcome(got ? 'F' : 'H');
        if (got) {
          // Its timeout ends: nobody has notified it.
          round.expect(!condition.wait(brief()), "its notify was handed on");
          condition.release();
        }
        round.expect(!other->done(), "its notify was handed on");
        round.expect(victim.resume(), "LOST: it sleeps on");
        round.expect(*told == 1, "LOST: its notify");
        round.expect(!other->done(), "two have one notify");
        notify(round, condition);
        expect_told(round, *other);
        expect_whole(round, condition);
        round.kill(victim);
      },
      {.after_sleep = true, .strays = 40});
}

}  // namespace
