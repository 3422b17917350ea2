// SIGKILL at every instruction of waiting at a barrier, completing a round,
// breaking and resetting: those who live are let go, or told.

#include <memory>

#include "gtest/gtest.h"
#include "shoal/ipc/barrier.h"
#include "shoal/ipc/errors.h"
#include "tests/ipc/queue_scene.h"

namespace {

using namespace shoal::support;
using shoal::Barrier;
using shoal::BrokenBarrier;

using OwnPartner = std::unique_ptr<Partner>;

constexpr Item kBroken = 100;

// Waits once: its index, or kBroken.
OwnPartner party(const Barrier& barrier) {
  return OwnPartner(new Partner([barrier]() -> Item {
    try {
      return static_cast<Item>(barrier.wait());
    } catch (const BrokenBarrier&) {
      return kBroken;
    }
  }));
}

class BarrierKill : public testing::Test {
 protected:
  void SetUp() override {
    use_one_processor();
    shoal::waiting::set_slices(false);
  }

  // Ours is the first.
  static void sit(const Barrier& barrier) { (void)barrier.broken(); }
  static Victim::Body join(const Barrier& barrier) {
    return [barrier] { (void)barrier.broken(); };
  }
  // All were let go by an index, or all by BrokenBarrier.
  static char ends(Round& round, std::initializer_list<Partner*> parties) {
    int completed = 0;
    int broken = 0;
    for (Partner* one : parties) {
      round.expect(one->ends(), "LOST: a party sleeps on");
      ++(one->item() == kBroken ? broken : completed);
    }
    round.expect(completed == 0 || broken == 0, "some were let go, not all");
    return broken != 0 ? 'B' : 'C';
  }
  static void expect_whole(Round& round, Barrier& barrier) {
    barrier.reset();
    round.expect(!barrier.broken(), "broken after reset");
    round.expect_none(seats_free());
    const OwnPartner one = party(barrier);
    const OwnPartner two = party(barrier);
    round.expect(barrier.wait() == 2, "not the last");
    round.expect(one->ends() && two->ends(), "LOST: a party, afterwards");
    round.expect(one->item() + two->item() == 1, "indices");
  }
};

// The third of three. It dies before it has come (and the others wait on, for
// another), after (it breaks), or when it has completed the round.
TEST_F(BarrierKill, TheLast) {
  kill_at_every_step("ABC", [](Round& round) {
    Barrier barrier(3);
    sit(barrier);
    Victim victim([&] { barrier.wait(); }, join(barrier));
    victim.await_prepared();
    const OwnPartner one = party(barrier);
    const OwnPartner two = party(barrier);
    round.step(victim);
    round.kill(victim);
    one->settle();
    two->settle();
    const bool absent = !one->done() && !two->done() && !barrier.broken();
    if (absent) barrier.abort();
    const char how = ends(round, {one.get(), two.get()});
    round.outcome(absent ? 'A' : how);
    if (!absent) round.expect(barrier.broken(), "a party has died");
    expect_whole(round, barrier);
  });
}

TEST_F(BarrierKill, TheLastWithAnAction) {
  kill_at_every_step("ABC", [](Round& round) {
    Shared<std::atomic<int>> actions;
    Barrier barrier(3, [&] { ++*actions; });
    sit(barrier);
    Victim victim([&] { barrier.wait(); }, join(barrier));
    victim.await_prepared();
    const OwnPartner one = party(barrier);
    const OwnPartner two = party(barrier);
    round.step(victim);
    round.kill(victim);
    one->settle();
    two->settle();
    const bool absent = !one->done() && !two->done() && !barrier.broken();
    if (absent) barrier.abort();
    const char how = ends(round, {one.get(), two.get()});
    round.outcome(absent ? 'A' : how);
    round.expect(how != 'C' || *actions == 1, "let go without the action");
    expect_whole(round, barrier);
  });
}

// The second of three dies on its way to sleep: the first is told once it had
// come.
TEST_F(BarrierKill, OnItsWayToSleep) {
  kill_at_every_step("AB",
                     [](Round& round) {
                       Barrier barrier(3);
                       sit(barrier);
                       Victim victim([&] { barrier.wait(); }, join(barrier));
                       victim.await_prepared();
                       const OwnPartner one = party(barrier);
                       round.step(victim);
                       round.kill(victim);
                       one->settle();
                       const bool absent = !one->done() && !barrier.broken();
                       round.outcome(absent ? 'A' : 'B');
                       if (absent) barrier.abort();
                       round.expect(ends(round, {one.get()}) == 'B',
                                    "let go by two");
                       expect_whole(round, barrier);
                     },
                     {.end = Stop::asleep});
}

// The one that is woken first is killed on its way: the other is let go, too.
TEST_F(BarrierKill, WokenByTheLast) {
  kill_at_every_step("C",
                     [](Round& round) {
                       Barrier barrier(3);
                       sit(barrier);
                       OwnPartner other;
                       OwnPartner last;
                       Victim victim([&] { barrier.wait(); }, join(barrier));
                       round.step(victim, [&] {
                         other = party(barrier);
                         last = party(barrier);
                       });
                       round.kill(victim);
                       round.outcome(ends(round, {other.get(), last.get()}));
                       expect_whole(round, barrier);
                     },
                     {.after_sleep = true, .strays = 40});
}

// A party of the last round has died while two sleep; the one that is woken by
// that dies, too, at any instruction of breaking it.
TEST_F(BarrierKill, WokenByADeath) {
  kill_at_every_step(
      "B",
      [](Round& round) {
        Barrier barrier(3);
        sit(barrier);
        OwnPartner other;
        Victim dead([&] {}, [&] { barrier.wait(); });
        OwnPartner was;
        Victim victim(
            [&] {
              try {
                barrier.wait();
              } catch (const BrokenBarrier&) {
              }
            },
            [&] { barrier.wait(); });
        barrier.wait();
        dead.await_prepared();
        victim.await_prepared();
        round.step(victim, [&] {
          other = party(barrier);
          dead.kill();
        });
        round.kill(victim);
        round.outcome(ends(round, {other.get()}));
        expect_whole(round, barrier);
      },
      // Up to the throw; the unwinder is not ours.
      {.most = 700, .end = Stop::at_step, .after_sleep = true, .strays = 60});
}

TEST_F(BarrierKill, Abort) {
  kill_at_every_step("AB", [](Round& round) {
    Barrier barrier(3);
    sit(barrier);
    Victim victim([&] { barrier.abort(); }, join(barrier));
    victim.await_prepared();
    const OwnPartner one = party(barrier);
    const OwnPartner two = party(barrier);
    round.step(victim);
    round.kill(victim);
    const bool broken = barrier.broken();
    round.outcome(broken ? 'B' : 'A');
    if (!broken) barrier.abort();
    round.expect(ends(round, {one.get(), two.get()}) == 'B', "not broken");
    expect_whole(round, barrier);
  });
}

TEST_F(BarrierKill, Reset) {
  kill_at_every_step("AB", [](Round& round) {
    Barrier barrier(3);
    sit(barrier);
    Victim victim([&] { barrier.reset(); }, join(barrier));
    victim.await_prepared();
    const OwnPartner one = party(barrier);
    const OwnPartner two = party(barrier);
    round.step(victim);
    round.kill(victim);
    const bool ejected = barrier.n_waiting() == 0;
    round.outcome(ejected ? 'B' : 'A');
    if (!ejected) barrier.reset();
    round.expect(ends(round, {one.get(), two.get()}) == 'B', "not ejected");
    expect_whole(round, barrier);
  });
}

}  // namespace
