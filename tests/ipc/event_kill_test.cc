// SIGKILL at every instruction of setting an event, by threads with and
// without a seat, and of those who wait: who slept is let go if it is set.

#include <errno.h>

#include <memory>

#include "gtest/gtest.h"
#include "shoal/ipc/event.h"
#include "tests/ipc/queue_scene.h"

namespace {

using namespace shoal::support;
using shoal::Event;
using shoal::now;

using OwnPartner = std::unique_ptr<Partner>;

OwnPartner waiter(const Event& event) {
  return OwnPartner(new Partner([event] {
    event.wait();
    return Item{1};
  }));
}

class EventKill : public testing::Test {
 protected:
  void SetUp() override {
    use_one_processor();
    shoal::waiting::set_slices(false);
  }

  // Those who sleep are let go if it was set, and by the next set() otherwise.
  static void finish(Round& round, Event& event,
                     std::initializer_list<Partner*> asleep) {
    round.outcome(event.is_set() ? 'S' : 'U');
    if (!event.is_set()) event.set();
    for (Partner* one : asleep)
      round.expect(one->ends(), "LOST: a waiter sleeps on");
    event.clear();
    round.expect(!event.wait(now), "cleared");
    round.expect_none(seats_free());
  }
  // Ours is the first.
  static void sit(const Event& event) {
    shoal::HandleAccess::object(event)->domain().seat();
  }
};

Victim::Body join(const Event& event) {
  return [event] { event.wait(std::chrono::nanoseconds(1)); };
}

TEST_F(EventKill, SetWithTwoAsleep) {
  kill_at_every_step("US", [](Round& round) {
    Event event;
    sit(event);
    Victim victim([&] { event.set(); }, join(event));
    victim.await_prepared();
    const OwnPartner one = waiter(event);
    const OwnPartner two = waiter(event);
    round.step(victim);
    round.kill(victim);
    finish(round, event, {one.get(), two.get()});
  });
}

// As in the handler of a thread that never used shoal.
TEST_F(EventKill, SetWithoutASeat) {
  kill_at_every_step("US", [](Round& round) {
    Event event;
    sit(event);
    Victim victim([&] { event.set(); });
    victim.await_prepared();
    const OwnPartner one = waiter(event);
    const OwnPartner two = waiter(event);
    round.step(victim);
    round.kill(victim);
    finish(round, event, {one.get(), two.get()});
  });
}

// The event looks as if nothing had happened, but those who slept are let go
// once set() has happened.
TEST_F(EventKill, SetAndClear) {
  kill_at_every_step("USU", [](Round& round) {
    Event event;
    sit(event);
    Victim victim([&] { event.set(), event.clear(); });
    victim.await_prepared();
    const OwnPartner one = waiter(event);
    const OwnPartner two = waiter(event);
    round.step(victim);
    round.kill(victim);
    const bool was_set = static_cast<shoal::EventState*>(
                             shoal::HandleAccess::object(event)->payload())
                             ->word >= 2;
    if (was_set) {
      round.expect(one->ends(), "LOST: the first sleeps on");
      round.expect(two->ends(), "LOST: the second sleeps on");
    }
    finish(round, event, {one.get(), two.get()});
  });
}

// The setter dies when a sleeper has looked and is about to sleep.
TEST_F(EventKill, SetWithOneAboutToSleep) {
  kill_at_every_step("US", [](Round& round) {
    Event event;
    sit(event);
    Victim sleeper([&] { event.wait(); }, join(event));
    Victim setter([&] { event.set(); });
    setter.await_prepared();
    round.expect(sleeper.go_to_sleep(), "does not come to sleep");
    round.step(setter);
    round.kill(setter);
    round.outcome(event.is_set() ? 'S' : 'U');
    sleeper.let_go();
    if (!event.is_set()) event.set();
    round.expect(eventually([&] { return sleeper.done(); },
                            std::chrono::milliseconds(500)),
                 "LOST: the waiter sleeps on");
    sleeper.kill();
    round.expect_none(seats_free());
  });
}

TEST_F(EventKill, WaiterOnItsWayToSleep) {
  kill_at_every_step("U",
                     [](Round& round) {
                       Event event;
                       sit(event);
                       const OwnPartner other = waiter(event);
                       Victim victim([&] { event.wait(); }, join(event));
                       round.step(victim);
                       round.kill(victim);
                       finish(round, event, {other.get()});
                     },
                     {.end = Stop::asleep});
}

// How many instructions a setter runs until its store has happened.
std::size_t steps_to_store() {
  std::size_t before = 0;
  std::size_t after = 400;
  while (after - before > 1) {
    const std::size_t middle = (before + after) / 2;
    Event event;
    Victim setter([&] { event.set(); });
    Route route;
    setter.rehearse(route, middle, false);
    setter.kill();
    (event.is_set() ? after : before) = middle;
  }
  return after;
}

// The setter has died right after its store, so that the kernel wakes one, and
// this one dies on its way.
TEST_F(EventKill, WokenWaiterOfADeadSetter) {
  const std::size_t steps = steps_to_store();
  kill_at_every_step("S",
                     [&](Round& round) {
                       Event event;
                       sit(event);
                       OwnPartner other;
                       Victim victim([&] { event.wait(); }, join(event));
                       round.step(victim, [&] {
                         other = waiter(event);
                         Victim setter([&] { event.set(); });
                         Route route;
                         setter.rehearse(route, steps, false);
                         round.expect(setter.kill(),
                                      "the setter ended by itself");
                       });
                       round.kill(victim);
                       finish(round, event, {other.get()});
                     },
                     {.after_sleep = true, .strays = 40});
}

}  // namespace
