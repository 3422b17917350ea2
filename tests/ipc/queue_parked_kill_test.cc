// SIGKILL at every instruction of those who wake, and of those who are woken,
// while others sleep without a timeout.

#include <array>
#include <memory>
#include <optional>
#include <string_view>

#include "gtest/gtest.h"
#include "tests/ipc/queue_scene.h"

namespace {

using namespace shoal::support;
using shoal::Queue;
using shoal::ShutDown;

using OwnPartner = std::unique_ptr<Partner>;
OwnPartner getter(const Queue<Item>& queue) {
  return OwnPartner(new Partner(Partner::getter(queue)));
}
OwnPartner putter(const Queue<Item>& queue, Item item) {
  return OwnPartner(new Partner(Partner::putter(queue, item)));
}

class QueueParkedKill : public testing::Test {
 protected:
  void SetUp() override {
    use_one_processor();
    shoal::waiting::set_slices(false);
  }

  // The getter has what was there to get, else it is alive to the next value.
  // Returns what it got before that.
  static std::optional<Item> finish(Round& round, Scene& scene,
                                    Partner& getter) {
    std::optional<Item> got;
    if (getter.ends([&] { return scene.has_item(); })) {
      got = getter.item();
    } else {
      round.expect(scene.drain().empty(), "LOST: a value, and a getter asleep");
      scene.queue.put_nowait(8);
      round.expect(getter.ends(), "LOST: the getter never wakes again");
      round.expect(getter.item() == 8, "another value than was put");
    }
    round.expect(getter.state() == Partner::State::done, "getter failed");
    return got;
  }

  // The putter has used what room there was, else it uses the next.
  // Returns what was taken out to give it room, and all that is left.
  static Items finish_and_drain(Round& round, Scene& scene, Partner& putter) {
    Items items;
    if (!putter.ends([&] { return scene.has_room(); })) {
      // A dead putter's cell counts until the getters have passed it.
      round.expect(!scene.has_room(), "LOST: room, and a putter asleep");
      if (const auto item = scene.queue.try_get()) items.push_back(*item);
      round.expect(putter.ends(), "LOST: the putter never wakes again");
    }
    for (const Item item : scene.drain()) items.push_back(item);
    return items;
  }
};

// ---- the waker is killed ----

TEST_F(QueueParkedKill, PutWithGetterAsleep) {
  kill_at_every_step("AP", [](Round& round) {
    Scene scene;
    const OwnPartner asleep = getter(scene.queue);
    Victim victim([&] { scene.queue.put(7); }, scene.join());
    round.step(victim);
    round.kill(victim);
    const auto got = finish(round, scene, *asleep);
    round.expect(!got || got == 7, "phantom");
    round.outcome(got ? 'P' : 'A');
    round.expect_none(exactly(scene.drain(), {}, {}));
    round.expect_none(scene.whole());
  });
}

TEST_F(QueueParkedKill, GetWithPutterAsleep) {
  kill_at_every_step("RC", [](Round& round) {
    Scene scene({1, 2, 3, 4}, 7);
    const OwnPartner asleep = putter(scene.queue, 50);
    Victim victim([&] { (void)scene.queue.get(); }, scene.join());
    round.step(victim);
    round.kill(victim);
    const Items items = finish_and_drain(round, scene, *asleep);
    round.expect_none(exactly(items, {2, 3, 4, 50}, {1}));
    round.outcome(items.size() == 5 ? 'R' : 'C');
    round.expect_none(scene.whole());
  });
}

TEST_F(QueueParkedKill, PutManyWithTwoGettersAsleep) {
  kill_at_every_step("012", [](Round& round) {
    Scene scene;
    const std::array<Item, 2> values = {7, 7};
    const OwnPartner one = getter(scene.queue);
    const OwnPartner two = getter(scene.queue);
    Victim victim([&] { scene.queue.put_many(values); }, scene.join());
    round.step(victim);
    round.kill(victim);
    const auto any = [&] { return scene.has_item(); };
    const int got = (one->ends(any) ? 1 : 0) + (two->ends(any) ? 1 : 0);
    round.outcome(static_cast<char>('0' + got));
    round.expect(scene.drain().empty(), "LOST: a value, and a getter asleep");
    for (int i = got; i < 2; ++i) scene.queue.put_nowait(8);
    round.expect(one->ends() && two->ends(), "LOST: a getter never wakes");
    round.expect_none(exactly(scene.drain(), {}, {}));
    round.expect_none(scene.whole());
  });
}

TEST_F(QueueParkedKill, GetManyWithTwoPuttersAsleep) {
  kill_at_every_step("012", [](Round& round) {
    Scene scene({1, 2, 3, 4}, 7);
    const OwnPartner one = putter(scene.queue, 50);
    const OwnPartner two = putter(scene.queue, 51);
    Victim victim(
        [&] {
          std::array<Item, 2> values;
          scene.queue.get_many(values);
        },
        scene.join());
    round.step(victim);
    round.kill(victim);
    Items items;
    const auto room = [&] { return scene.has_room(); };
    for (Partner* putter : {one.get(), two.get(), one.get(), two.get()}) {
      if (putter->ends(room)) continue;
      round.expect(!scene.has_room(), "LOST: room, and a putter asleep");
      if (const auto item = scene.queue.try_get()) items.push_back(*item);
    }
    round.expect(one->ends() && two->ends(), "LOST: a putter never wakes");
    for (const Item item : scene.drain()) items.push_back(item);
    round.expect_none(exactly(items, {3, 4, 50, 51}, {1, 2}));
    round.outcome(static_cast<char>('0' + 6 - items.size()));
    round.expect_none(scene.whole());
  });
}

// The wake has gone to a getter that is stopped, and another takes the value.
template <class Getter>
void kill_the_thief(Round& round, Scene& scene, Victim& thief, Getter& robbed) {
  round.step(thief);
  robbed.let_go();
  // It finds nothing and sleeps again, or the value if nobody has it yet.
  robbed.settle();
  round.kill(thief);
  if (robbed.ends([&] { return scene.has_item(); })) {
    round.outcome('R');
  } else {
    round.outcome('C');
    round.expect(scene.drain().empty(), "LOST: a value, and a getter asleep");
    scene.queue.put_nowait(8);
    round.expect(robbed.ends(), "LOST: the getter never wakes again");
  }
  round.expect(robbed.item() == (round.outcome() == 'R' ? 7 : 8),
               "another value than was put");
  round.expect_none(exactly(scene.drain(), {}, {}));
}

TEST_F(QueueParkedKill, GetStealsFromStoppedGetter) {
  kill_at_every_step("RC", [](Round& round) {
    Scene scene;
    domain_of(scene.queue).seat();  // ours is the first
    Victim thief([&] { (void)scene.queue.get(); }, scene.join());
    thief.await_prepared();
    const OwnPartner robbed = getter(scene.queue);
    robbed->stop();
    round.expect(!robbed->done(), "not stopped");
    scene.queue.put_nowait(7);
    kill_the_thief(round, scene, thief, *robbed);
    round.expect_none(scene.whole());
  });
}

TEST_F(QueueParkedKill, GetStealsFromWokenAndStoppedGetter) {
  const auto get = [](Queue<Item>& queue) { return queue.get(); };
  const Route route = Sleeper::route({}, get);
  kill_at_every_step("RC", [&](Round& round) {
    Scene scene;
    domain_of(scene.queue).seat();  // ours is the first
    Victim thief([&] { (void)scene.queue.get(); }, scene.join());
    thief.await_prepared();
    Sleeper robbed(scene, get);
    const bool stopped = robbed.step(route) && robbed.wake_and_stop([&] {
      scene.queue.put_nowait(7);
    });
    round.expect(stopped, "not stopped");
    kill_the_thief(round, scene, thief, robbed);
    robbed.kill();
    round.expect_none(scene.whole());
  });
}

// ---- the sleeper is killed ----

TEST_F(QueueParkedKill, GetterOnItsWayToSleep) {
  kill_at_every_step(
      "S",
      [](Round& round) {
        Scene scene;
        const OwnPartner other = getter(scene.queue);
        Victim victim([&] { (void)scene.queue.get(); }, scene.join());
        round.step(victim);
        round.kill(victim);
        scene.queue.put_nowait(7);
        round.expect(finish(round, scene, *other) == 7, "not delivered");
        round.outcome('S');
        round.expect_none(scene.whole());
      },
      {.end = Stop::asleep});
}

TEST_F(QueueParkedKill, PutterOnItsWayToSleep) {
  kill_at_every_step(
      "S",
      [](Round& round) {
        Scene scene({1, 2, 3, 4});
        const OwnPartner other = putter(scene.queue, 50);
        Victim victim([&] { scene.queue.put(7); }, scene.join());
        round.step(victim);
        round.kill(victim);
        const auto item = scene.queue.try_get();
        round.expect(item == 1, "out of order");
        round.expect_none(
            exactly(finish_and_drain(round, scene, *other), {2, 3, 4, 50}, {}));
        round.outcome('S');
        round.expect_none(scene.whole());
      },
      {.end = Stop::asleep});
}

// Two sleep, one is woken, and killed on its way.
TEST_F(QueueParkedKill, WokenGetter) {
  kill_at_every_step("RC",
                     [](Round& round) {
                       Scene scene;
                       OwnPartner other;
                       Victim victim([&] { (void)scene.queue.get(); },
                                     scene.join());
                       round.step(victim, [&] {
                         other = getter(scene.queue);
                         scene.queue.put_nowait(7);
                       });
                       round.kill(victim);
                       round.outcome(finish(round, scene, *other) ? 'R' : 'C');
                       round.expect_none(exactly(scene.drain(), {}, {}));
                       round.expect_none(scene.whole());
                     },
                     {.after_sleep = true});
}

TEST_F(QueueParkedKill, WokenPutter) {
  kill_at_every_step("AP",
                     [](Round& round) {
                       Scene scene({1, 2, 3, 4}, 7);
                       OwnPartner other;
                       Victim victim([&] { scene.queue.put(7); }, scene.join());
                       round.step(victim, [&] {
                         other = putter(scene.queue, 50);
                         (void)scene.queue.get_nowait();
                       });
                       round.kill(victim);
                       const Items items =
                           finish_and_drain(round, scene, *other);
                       round.expect_none(exactly(items, {2, 3, 4, 50}, {7}));
                       round.outcome(items.size() == 4 ? 'A' : 'P');
                       round.expect_none(scene.whole());
                     },
                     {.after_sleep = true});
}

// ---- shutting down ----

struct Closing {
  bool immediate;
  bool putters;
};

class QueueShutdownKill : public QueueParkedKill,
                          public testing::WithParamInterface<Closing> {
 protected:
  static Items items() {
    return GetParam().putters ? Items{1, 2, 3, 4} : Items{};
  }
  static OwnPartner sleeper(const Queue<Item>& queue) {
    return GetParam().putters ? putter(queue, 50) : getter(queue);
  }
  static void expect_shut_down(Round& round, Partner& sleeper) {
    round.expect(sleeper.ends(), "LOST: a sleeper missed the shutdown");
    round.expect(sleeper.state() == Partner::State::shut_down,
                 "not ended by ShutDown");
  }
  // Those who come later: what is queued, then ShutDown.
  static void expect_drained(Round& round, Queue<Item>& queue, bool immediate) {
    Items got;
    try {
      for (int misses = 0; misses < 8;)
        if (const auto item = queue.try_get())
          got.push_back(*item);
        else
          ++misses;
      round.expect(false, "no ShutDown at the end");
    } catch (const ShutDown&) {
    }
    round.expect(immediate || got == items(), "not drained");
    round.expect(!queue.try_put(9), "put after shutdown");
    round.expect_none(seats_free());
  }
};

TEST_P(QueueShutdownKill, TwoAsleep) {
  const bool immediate = GetParam().immediate;
  kill_at_every_step("OS", [&](Round& round) {
    Scene scene(items());
    const OwnPartner one = sleeper(scene.queue);
    const OwnPartner two = sleeper(scene.queue);
    Victim victim([&] { scene.queue.shutdown(immediate); }, scene.join());
    round.step(victim);
    round.kill(victim);
    round.outcome(scene.is_open() ? 'O' : 'S');
    if (scene.is_open()) scene.queue.shutdown(immediate);
    expect_shut_down(round, *one);
    expect_shut_down(round, *two);
    expect_drained(round, scene.queue, immediate);
  });
}

// The one that the shutdown wakes first is killed on its way.
TEST_P(QueueShutdownKill, Woken) {
  kill_at_every_step(
      "S",
      [&](Round& round) {
        Scene scene(items());
        OwnPartner other;
        Victim victim(
            [&] {
              try {
                if (GetParam().putters)
                  scene.queue.put(7);
                else
                  (void)scene.queue.get();
              } catch (const ShutDown&) {
              }
            },
            scene.join());
        round.step(victim, [&] {
          other = sleeper(scene.queue);
          scene.queue.shutdown(GetParam().immediate);
        });
        round.kill(victim);
        expect_shut_down(round, *other);
        expect_drained(round, scene.queue, GetParam().immediate);
        round.outcome('S');
      },
      // Up to the throw; the unwinder is not ours.
      {.most = 1000, .end = Stop::at_step, .after_sleep = true, .strays = 40});
}

INSTANTIATE_TEST_SUITE_P(
    , QueueShutdownKill,
    testing::Values(Closing{false, false}, Closing{true, false},
                    Closing{false, true}, Closing{true, true}),
    [](const testing::TestParamInfo<Closing>& info) {
      return std::string(info.param.immediate ? "Immediate" : "Draining") +
             (info.param.putters ? "Putters" : "Getters");
    });

}  // namespace
