// SIGKILL at every instruction of those who make a queue grow, pass from one
// ring to the next, or bring back what the dead held in a ring that others have
// passed.

#include <optional>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/ipc/growing_scene.h"

namespace {

using namespace shoal::support;
using shoal::Queue;

// 1 to `last` and what follows.
Items numbers(Item last, const Items& more = {}) {
  Items items;
  for (Item i = 1; i <= last; ++i) items.push_back(i);
  items.insert(items.end(), more.begin(), more.end());
  return items;
}

class QueueGrowthKill : public testing::Test {
 protected:
  void SetUp() override {
    use_one_processor();
    shoal::waiting::set_slices(false);
    GrowingScene scene(kFirst);
    ASSERT_EQ(rings_of(scene.queue), 1u);
    scene.queue.put_nowait(3);
    ASSERT_EQ(rings_of(scene.queue), 2u);
    while (scene.queue.try_put(0)) {
    }
    ASSERT_EQ(scene.queue.qsize(), kFirst + kSecond);
  }
};

TEST_F(QueueGrowthKill, PutThatGrows) {
  kill_at_every_step("AP", [&](Round& round) {
    GrowingScene scene(kFirst);
    Victim victim([&] { scene.queue.put(7); }, scene.join());
    round.step(victim);
    round.kill(victim);
    const Items items = scene.drain();
    round.expect_none(exactly(items, numbers(kFirst), {7}));
    round.expect(std::is_sorted(items.begin(), items.end()), "order");
    round.outcome(items.size() == kFirst ? 'A' : 'P');
    round.expect_none(scene.whole());
  });
}

// Somebody puts before anybody drains.
TEST_F(QueueGrowthKill, PutAfterAPutThatGrew) {
  kill_at_every_step("AP", [&](Round& round) {
    GrowingScene scene(kFirst);
    Victim victim([&] { scene.queue.put(7); }, scene.join());
    round.step(victim);
    round.kill(victim);
    scene.queue.put_nowait(8);
    const Items items = scene.drain();
    round.expect_none(exactly(items, numbers(kFirst, {8}), {7}));
    round.expect(std::is_sorted(items.begin(), items.end()), "order");
    round.outcome(items.size() == kFirst + 1 ? 'A' : 'P');
    round.expect_none(scene.whole());
  });
}

TEST_F(QueueGrowthKill, GetThatPasses) {
  kill_at_every_step("RC", [&](Round& round) {
    GrowingScene scene(kFirst + 2);
    for (Item i = 1; i <= kFirst; ++i) scene.queue.get_nowait();
    Victim victim([&] { (void)scene.queue.get(); }, scene.join());
    round.step(victim);
    round.kill(victim);
    const Items items = scene.drain();
    round.expect_none(exactly(items, {kFirst + 2}, {kFirst + 1}));
    round.outcome(items.size() == 2 ? 'R' : 'C');
    round.expect_none(scene.whole());
  });
}

// An own process that takes the first value and dies with it, when others have
// passed its ring.
void die_behind(Queue<Item>& queue, const std::function<void()>& meanwhile) {
  Shared<std::atomic<int>> taken;
  Child holder([&](Child&) {
    const auto value = queue.take();
    *taken = 1;
    pause();
  });
  eventually([&] { return *taken == 1; });
  meanwhile();
  holder.kill();
  holder.join();
}

TEST_F(QueueGrowthKill, GetThatFindsWhatCameBackInAPassedRing) {
  kill_at_every_step("RC", [&](Round& round) {
    GrowingScene scene(kFirst + 2);
    Victim victim([&] { (void)scene.queue.try_get(); }, scene.join());
    victim.await_prepared();
    die_behind(scene.queue, [&] {
      for (Item i = 2; i <= kFirst + 1; ++i)
        round.expect(scene.queue.get_nowait() == i, "passes");
    });
    round.step(victim);
    round.kill(victim);
    const Items items = scene.drain();
    round.expect_none(exactly(items, {}, {1, kFirst + 2}));
    round.expect(!items.empty(), "two are gone");
    round.outcome(items.size() == 2 ? 'R' : 'C');
    round.expect_none(scene.whole());
  });
}

TEST_F(QueueGrowthKill, SweepOfAPassedRing) {
  kill_at_every_step("S", [&](Round& round) {
    GrowingScene scene(kFirst + 2);
    Victim victim([&] { (void)scene.queue.qsize(); }, scene.join());
    victim.await_prepared();
    die_behind(scene.queue, [&] {
      for (Item i = 2; i <= kFirst + 1; ++i)
        round.expect(scene.queue.get_nowait() == i, "passes");
    });
    round.step(victim);
    round.kill(victim);
    round.expect_none(exactly(scene.drain(), {1, kFirst + 2}, {}));
    round.outcome('S');
    round.expect_none(scene.whole());
  });
}

// 1 is leased, and the rest of the first ring is through: its end would be
// where the lease is.
void fill_around_a_lease(Round& round, Queue<Item>& queue) {
  for (Item i = 2; i <= kFirst; ++i) {
    queue.put_nowait(i);
    round.expect(queue.get_nowait() == i, "the other places");
  }
  queue.put_nowait(8);
  queue.put_nowait(9);
  round.expect(rings_of(queue) == 2, "grown");
}

TEST_F(QueueGrowthKill, GetThatPassesALease) {
  kill_at_every_step("RC", [&](Round& round) {
    GrowingScene scene(1);
    {
      const auto held = scene.queue.take();
      fill_around_a_lease(round, scene.queue);
      Victim victim([&] { (void)scene.queue.get(); }, scene.join());
      round.step(victim);
      round.kill(victim);
      const Items items = scene.drain();
      round.expect_none(exactly(items, {9}, {8}));
      round.outcome(items.size() == 2 ? 'R' : 'C');
    }
    round.expect_none(scene.whole(true));
  });
}

TEST_F(QueueGrowthKill, LeaseThatEndsInAPassedRing) {
  kill_at_every_step("RC", [&](Round& round) {
    GrowingScene scene(1);
    std::optional<shoal::Taken<Item>> held;
    Victim victim([&] { held.reset(); },
                  [&] {
                    scene.join()();
                    held.emplace(scene.queue.take());
                  });
    victim.await_prepared();
    fill_around_a_lease(round, scene.queue);
    Items items = scene.drain();
    round.expect_none(exactly(items, {8, 9}, {}));
    round.step(victim);
    round.kill(victim);
    items = scene.drain();
    round.expect_none(exactly(items, {}, {1}));
    round.outcome(items.empty() ? 'C' : 'R');
    round.expect_none(scene.whole());
  });
}

TEST_F(QueueGrowthKill, Shutdown) {
  kill_at_every_step("OC", [&](Round& round) {
    GrowingScene scene(kFirst + 2);
    Victim victim([&] { scene.queue.shutdown(); }, scene.join());
    round.step(victim);
    round.kill(victim);
    const bool open = scene.queue.try_put(kFirst + 3);
    Items items;
    bool ended = false;
    try {
      while (const auto item = scene.queue.try_get()) items.push_back(*item);
    } catch (const shoal::ShutDown&) {
      ended = true;
    }
    round.expect_none(exactly(items, numbers(kFirst + 2 + open), {}));
    round.expect(ended != open, "closed for puts is closed for gets");
    round.outcome(open ? 'O' : 'C');
  });
}

}  // namespace
