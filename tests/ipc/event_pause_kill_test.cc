// A process held still at every instruction of setting and waiting for an
// event: all are let go by what has happened, also when it stands still.

#include <memory>

#include "gtest/gtest.h"
#include "shoal/ipc/event.h"
#include "tests/ipc/pause_scene.h"
#include "tests/ipc/queue_scene.h"

namespace {

using namespace shoal::support;
using shoal::Event;
using shoal::now;

std::unique_ptr<Partner> waiter(const Event& event) {
  return std::make_unique<Partner>([event] {
    event.wait();
    return Item{1};
  });
}

class EventPause : public testing::Test {
 protected:
  void SetUp() override { use_one_processor(); }

  // Ours is the first.
  static void sit(const Event& event) {
    shoal::HandleAccess::object(event)->domain().seat();
  }
  static Victim::Body join(const Event& event) {
    return [event] { event.wait(std::chrono::nanoseconds(1)); };
  }
  static void expect_whole(Round& round, const Event& event) {
    event.clear();
    round.expect(!event.wait(now), "cleared, and set");
    const auto asleep = waiter(event);
    round.expect(!asleep->done(), "let go by nobody");
    event.set();
    round.expect(asleep->ends(), "LOST: a waiter, afterwards");
  }
};

TEST_F(EventPause, SetWithTwoAsleep) {
  for (const bool seated : {true, false})
    kill_at_every_step("US", [&](Round& round) {
      Event event;
      sit(event);
      Victim victim([&] { event.set(); },
                    seated ? join(event) : Victim::Body());
      victim.await_prepared();
      const auto one = waiter(event);
      const auto two = waiter(event);
      round.step(victim);
      somebody_dies([&] { (void)event.is_set(); });
      const bool set = event.is_set();
      round.expect(event.wait(brief()) == set, "set, and not set");
      round.outcome(set ? 'S' : 'U');
      round.expect(set || (!one->done() && !two->done()), "let go by nobody");
      round.expect(victim.resume(), "stuck after it was let go");
      round.expect(event.is_set(), "LOST: what it set");
      round.expect(one->ends() && two->ends(), "LOST: a waiter sleeps on");
      expect_whole(round, event);
      round.kill(victim);
      round.expect_none(seats_free());
    });
}

// Somebody else sets it meanwhile: nobody waits for the one that stands still.
TEST_F(EventPause, SetBesideASetter) {
  kill_at_every_step("S", [](Round& round) {
    Event event;
    sit(event);
    Victim victim([&] { event.set(); });
    victim.await_prepared();
    const auto asleep = waiter(event);
    round.step(victim);
    event.set();
    round.expect(asleep->ends(), "waits for one that stands still");
    round.outcome('S');
    event.clear();
    round.expect(victim.resume(), "stuck after it was let go");
    expect_whole(round, event);
    round.kill(victim);
    round.expect_none(seats_free());
  });
}

// It may have come too late for a set() that was cleared, and not for the next.
TEST_F(EventPause, WaiterOnItsWayToSleep) {
  kill_at_every_step("S",
                     [](Round& round) {
                       Event event;
                       sit(event);
                       Victim victim([&] { event.wait(); }, join(event));
                       round.step(victim);
                       somebody_dies();
                       round.expect(!event.wait(brief()), "set by nobody");
                       event.set();
                       event.clear();
                       victim.let_go();
                       event.set();
                       round.outcome('S');
                       round.expect(eventually([&] { return victim.done(); }),
                                    "LOST: it sleeps on");
                       expect_whole(round, event);
                       round.kill(victim);
                       round.expect_none(seats_free());
                     },
                     {.end = Stop::asleep, .stride = 5});
}

// Those who sleep beside it are let go, too.
TEST_F(EventPause, WokenWaiter) {
  kill_at_every_step("S",
                     [](Round& round) {
                       Event event;
                       sit(event);
                       std::unique_ptr<Partner> other;
                       Victim victim([&] { event.wait(); }, join(event));
                       round.step(victim, [&] {
                         other = waiter(event);
                         event.set();
                       });
                       round.expect(other->ends(), "LOST: the other sleeps on");
                       event.clear();
                       round.expect(!event.wait(brief()), "set by nobody");
                       round.outcome('S');
                       round.expect(victim.resume(), "LOST: it sleeps on");
                       expect_whole(round, event);
                       round.kill(victim);
                       round.expect_none(seats_free());
                     },
                     {.after_sleep = true, .strays = 40});
}

}  // namespace
