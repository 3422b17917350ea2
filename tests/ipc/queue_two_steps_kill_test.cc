// Two at once: one is about to fall asleep, it has looked and the system call
// is next, while another is killed at every instruction of an operation that
// should have woken it.

#include <optional>
#include <string_view>

#include "gtest/gtest.h"
#include "tests/ipc/queue_scene.h"

namespace {

using namespace shoal::support;
using shoal::Queue;

class QueueTwoStepsKill : public testing::Test {
 protected:
  void SetUp() override {
    use_one_processor();
    shoal::waiting::set_slices(false);
  }
};

Item get(Queue<Item>& queue) { return queue.get(); }

TEST_F(QueueTwoStepsKill, PutWhileAGetterFallsAsleep) {
  const Route route = Sleeper::route({}, get);
  kill_at_every_step("AP", [&](Round& round) {
    Scene scene;
    Sleeper sleeper(scene, get);
    Victim victim([&] { scene.queue.put(7); }, scene.join());
    victim.await_prepared();
    round.expect(sleeper.step(route), "not about to sleep");
    round.step(victim);
    round.kill(victim);
    sleeper.let_go();
    const bool got = sleeper.ends([&] { return scene.has_item(); });
    round.outcome(got ? 'P' : 'A');
    sleeper.kill();
    round.expect(scene.drain().empty(), "LOST: a value, and a getter asleep");
    round.expect_none(scene.whole());
  });
}

TEST_F(QueueTwoStepsKill, GetWhileAPutterFallsAsleep) {
  const auto put = [](Queue<Item>& queue) {
    queue.put(50);
    return Item{50};
  };
  const Route route = Sleeper::route({1, 2, 3, 4}, put);
  kill_at_every_step("RC", [&](Round& round) {
    Scene scene({1, 2, 3, 4});
    Sleeper sleeper(scene, put);
    Victim victim([&] { (void)scene.queue.get(); }, scene.join());
    victim.await_prepared();
    round.expect(sleeper.step(route), "not about to sleep");
    round.step(victim);
    round.kill(victim);
    sleeper.let_go();
    Items items;
    while (!sleeper.ends([&] { return scene.has_room(); })) {
      round.expect(!scene.has_room(), "LOST: room, and a putter asleep");
      const auto item = scene.queue.try_get();
      if (!item) break;
      items.push_back(*item);
    }
    sleeper.kill();
    for (const Item item : scene.drain()) items.push_back(item);
    round.expect_none(exactly(items, {2, 3, 4, 50}, {1}));
    round.outcome(items.size() == 5 ? 'R' : 'C');
    round.expect_none(scene.whole());
  });
}

// The getter looks while another has the only value in its hands, which then
// dies with it.
TEST_F(QueueTwoStepsKill, GetterFallsAsleepBehindAnother) {
  kill_at_every_step("RC", [](Round& round) {
    Scene scene({7});
    Victim victim([&] { (void)scene.queue.get(); }, scene.join());
    victim.await_prepared();
    Sleeper sleeper(scene, get);
    round.step(victim);
    const bool would_sleep = sleeper.step();
    round.kill(victim);
    if (would_sleep) sleeper.let_go();
    const bool got = sleeper.ends([&] { return scene.has_item(); });
    round.outcome(got ? 'R' : 'C');
    sleeper.kill();
    round.expect(scene.drain().empty(), "LOST: a value, and a getter asleep");
    round.expect_none(scene.whole());
  });
}

TEST_F(QueueTwoStepsKill, ShutdownWhileAGetterFallsAsleep) {
  const auto get_until_shutdown = [](Queue<Item>& queue) {
    try {
      return queue.get();
    } catch (const shoal::ShutDown&) {
      return Item{};
    }
  };
  const Route route = Sleeper::route({}, get_until_shutdown);
  kill_at_every_step("OS", [&](Round& round) {
    Scene scene;
    Sleeper sleeper(scene, get_until_shutdown);
    Victim victim([&] { scene.queue.shutdown(); }, scene.join());
    victim.await_prepared();
    round.expect(sleeper.step(route), "not about to sleep");
    round.step(victim);
    round.kill(victim);
    sleeper.let_go();
    round.outcome(scene.is_open() ? 'O' : 'S');
    if (scene.is_open()) scene.queue.shutdown();
    round.expect(sleeper.ends([] { return true; }),
                 "LOST: a sleeper missed the shutdown");
    sleeper.kill();
    round.expect_none(seats_free());
  });
}

}  // namespace
