// SIGKILL at every instruction of waiting, being notified and notifying: a
// notify reaches one that lives, and the lock is never lost.

#include <signal.h>

#include <memory>
#include <mutex>

#include "gtest/gtest.h"
#include "shoal/ipc/condition.h"
#include "tests/ipc/queue_scene.h"

namespace {

using namespace shoal::support;
using shoal::Condition;
using shoal::now;
using std::chrono::milliseconds;

using OwnPartner = std::unique_ptr<Partner>;

// Waits once, and comes back with the lock.
OwnPartner waiter(const Condition& condition) {
  return OwnPartner(new Partner([condition] {
    condition.acquire();
    if (condition.owner_died()) condition.mark_consistent();
    const bool notified = condition.wait();
    if (condition.owner_died()) condition.mark_consistent();
    condition.release();
    return Item{notified};
  }));
}

class ConditionKill : public testing::Test {
 protected:
  void SetUp() override {
    use_one_processor();
    shoal::waiting::set_slices(false);
  }

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
  // How many of those who slept have been notified. Those are on their way.
  static int notified(const Condition& condition, int slept) {
    const auto& state = *static_cast<const shoal::ConditionState*>(
        shoal::HandleAccess::object(condition)->payload());
    for (const auto& slot : state.slots) slept -= (slot.load() & 3) == 1;
    return slept;
  }
  static bool acquire(Round& round, const Condition& condition) {
    const bool got = condition.acquire(milliseconds(500));
    round.expect(got, "LOST: the lock");
    const bool died = condition.owner_died();
    if (died) condition.mark_consistent();
    return died;
  }
  static void notify(Round& round, const Condition& condition, int n) {
    acquire(round, condition);
    condition.notify(n);
    condition.release();
  }
  // Nobody is left waiting, and a wait and a notify work as ever.
  static void expect_whole(Round& round, const Condition& condition) {
    round.expect_none(seats_free());
    const OwnPartner one = waiter(condition);
    acquire(round, condition);
    round.expect(!condition.wait(now), "a notify that nobody gave");
    condition.notify();
    condition.release();
    round.expect(one->ends(), "LOST: a notify, afterwards");
  }
};

// 0, 1 or 2 have been notified, oldest first; who had not is notified later.
TEST_F(ConditionKill, NotifyTwoOfThree) {
  kill_at_every_step("012", [](Round& round) {
    Condition condition;
    sit(condition);
    OwnPartner asleep[] = {waiter(condition), waiter(condition),
                           waiter(condition)};
    Victim victim([&] { condition.notify(2); }, join(condition));
    victim.await_prepared();
    round.step(victim);
    round.kill(victim);
    const int told = notified(condition, 3);
    round.outcome(static_cast<char>('0' + told));
    for (int i = 0; i < told; ++i)
      round.expect(asleep[i]->ends(), "LOST: who was notified sleeps on");
    if (told < 3) round.expect(!asleep[told]->done(), "one more was notified");
    notify(round, condition, 3);
    for (const auto& one : asleep)
      round.expect(one->ends(), "LOST: who waits sleeps on");
    expect_whole(round, condition);
  });
}

TEST_F(ConditionKill, NotifyAll) {
  kill_at_every_step(
      "012",
      [](Round& round) {
        Condition condition;
        sit(condition);
        OwnPartner asleep[] = {waiter(condition), waiter(condition)};
        Victim victim([&] { condition.notify_all(), condition.release(); },
                      join(condition));
        victim.await_prepared();
        round.step(victim);
        round.kill(victim);
        const int told = notified(condition, 2);
        round.outcome(static_cast<char>('0' + told));
        for (int i = 0; i < told; ++i)
          round.expect(asleep[i]->ends(), "LOST: who was notified sleeps on");
        notify(round, condition, 2);
        for (const auto& one : asleep)
          round.expect(one->ends(), "LOST: who waits sleeps on");
        expect_whole(round, condition);
      },
      // Those who wake may ask for the lock at any moment.
      {.strays = 25});
}

// It dies on its way to sleep; the notify is for the other.
TEST_F(ConditionKill, WaiterOnItsWayToSleep) {
  kill_at_every_step("S",
                     [](Round& round) {
                       Condition condition;
                       sit(condition);
                       const OwnPartner other = waiter(condition);
                       Victim victim([&] { condition.wait(); },
                                     join(condition));
                       round.step(victim);
                       round.kill(victim);
                       // The other is the oldest, but the dead one may have
                       // been before it in having the lock.
                       notify(round, condition, 1);
                       round.expect(other->ends(), "LOST: the notify");
                       round.outcome('S');
                       expect_whole(round, condition);
                     },
                     {.end = Stop::asleep});
}

// The oldest is notified and dies on its way back: another gets the notify,
// until its wait() has the lock again and gives its place up.
TEST_F(ConditionKill, NotifiedWaiter) {
  kill_at_every_step("RL",
                     [](Round& round) {
                       Condition condition;
                       sit(condition);
                       OwnPartner other;
                       Victim victim([&] { condition.wait(); },
                                     join(condition));
                       round.step(victim, [&] {
                         other = waiter(condition);
                         notify(round, condition, 1);
                       });
                       round.kill(victim);
                       other->settle();
                       // Delivered, and it died with the lock.
                       const bool lost = !other->ends();
                       round.outcome(lost ? 'L' : 'R');
                       if (lost) {
                         round.expect(acquire(round, condition),
                                      "LOST: a notify, and nobody is told");
                         condition.notify();
                         condition.release();
                         round.expect(other->ends(), "LOST: the next one, too");
                       }
                       expect_whole(round, condition);
                     },
                     {.after_sleep = true, .strays = 40});
}

// The same while the notifier still holds the lock.
TEST_F(ConditionKill, NotifiedWaiterBehindTheLock) {
  kill_at_every_step("R",
                     [](Round& round) {
                       Condition condition;
                       sit(condition);
                       OwnPartner other;
                       Victim victim([&] { condition.wait(); },
                                     join(condition));
                       round.step(victim, [&] {
                         other = waiter(condition);
                         acquire(round, condition);
                         condition.notify();
                       });
                       round.kill(victim);
                       condition.release();
                       round.expect(other->ends(), "LOST: the notify");
                       round.outcome('R');
                       expect_whole(round, condition);
                     },
                     {.end = Stop::asleep, .after_sleep = true, .strays = 40});
}

// Its timeout ends, and it dies on its way back; the other waits on.
TEST_F(ConditionKill, TimedOutWaiter) {
  kill_at_every_step("T", [](Round& round) {
    Condition condition;
    sit(condition);
    Victim victim([&] { condition.wait(now), condition.release(); },
                  join(condition));
    victim.await_prepared();
    round.step(victim);
    round.kill(victim);
    acquire(round, condition);
    condition.release();
    round.outcome('T');
    expect_whole(round, condition);
  });
}

// Two deaths: the one that was notified behind the lock, and then the one that
// hands the notify on. The third has it.
TEST_F(ConditionKill, WhoHandsOn) {
  kill_at_every_step(
      "R",
      [](Round& round) {
        Condition condition;
        sit(condition);
        OwnPartner first;
        OwnPartner third;
        first = waiter(condition);
        Victim victim([&] { condition.wait(); }, join(condition));
        round.step(victim, [&] {
          third = waiter(condition);
          acquire(round, condition);
          condition.notify();
          first->settle();  // behind the lock
          kill(first->pid(), SIGKILL);
        });
        round.kill(victim);
        condition.release();
        // The victim may have had the notify, and the lock with it.
        const bool lost = !third->ends();
        if (lost) {
          round.expect(acquire(round, condition),
                       "LOST: a notify, and nobody is told");
          condition.notify();
          condition.release();
          round.expect(third->ends(), "LOST: the next one, too");
        }
        round.outcome('R');
        expect_whole(round, condition);
      },
      {.most = 900, .end = Stop::at_step, .after_sleep = true, .strays = 60});
}

}  // namespace
