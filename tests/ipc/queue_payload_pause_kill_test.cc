// A process held still at every instruction of putting and getting what lies in
// blocks, of dropping the oldest, and of making a queue grow: its block and its
// cell are its own, others go on, and all is there once after it was let go.

#include <algorithm>
#include <string>

#include "gtest/gtest.h"
#include "tests/ipc/growing_scene.h"
#include "tests/ipc/pause_scene.h"
#include "tests/ipc/payload_kill_scene.h"

namespace {

using namespace shoal::support;
using shoal::OnFull;
using shoal::Queue;

bool before(const Items& items, Item first, Item second) {
  return std::ranges::find(items, first) < std::ranges::find(items, second);
}

class QueuePayloadPause : public testing::Test {
 protected:
  using Operation = std::function<void(Queue<std::string>&)>;
  void SetUp() override { use_one_processor(); }

  // A process dies with a block that no cell refers to.
  static void somebody_dies_with_a_block(Queue<std::string>& queue) {
    somebody_dies([&] {
      auto& local = local_of(queue);
      if (store_of(queue).allocate(kBytes, local.domain().seat(), 1 << 20) == 0)
        throw shoal::Error("no block");
    });
  }
  static Item number(Round& round, const std::string& got) {
    const auto number = number_in(got);
    round.expect(number.has_value() && got.size() == kBytes, "torn");
    return number.value_or(0);
  }
  // One value out of a queue, if one is there, and 8 into it.
  static Items overtake(Round& round, Queue<std::string>& queue) {
    Items items;
    if (const auto got = queue.try_get(brief()))
      items.push_back(number(round, *got));
    round.expect(queue.try_put(text(8, kBytes), brief()), "put refused");
    return items;
  }

  static void pause_in_put(std::uint64_t queued, const Operation& put,
                           SweepOptions options = {}) {
    kill_at_every_step(
        "AP",
        [&](Round& round) {
          PayloadScene scene(queued);
          Victim victim([&] { put(scene.queue); }, scene.join());
          round.step(victim);
          somebody_dies_with_a_block(scene.queue);
          const bool there = scene.queue.qsize() > queued;
          round.outcome(there ? 'P' : 'A');
          Items items = overtake(round, scene.queue);
          round.expect(victim.resume(), "stuck after it was let go");
          for (const Item item : scene.drain(round)) items.push_back(item);
          Items all = {7, 8};
          for (Item i = 1; i <= queued; ++i) all.push_back(i);
          round.expect_none(exactly(items, all, {}));
          round.expect(queued < 2 || before(items, 1, 2), "order");
          scene.drain(round);
          round.kill(victim);
          scene.expect_whole(round);
        },
        options);
  }
};

TEST_F(QueuePayloadPause, Put) {
  const std::string message = text(7, kBytes);
  for (const std::uint64_t queued : {0, 2})
    pause_in_put(queued, [&](auto& queue) { queue.put(message); });
}

TEST_F(QueuePayloadPause, Get) {
  kill_at_every_step("AP", [](Round& round) {
    PayloadScene scene(3);
    Shared<std::atomic<Item>> taken;
    std::string got;
    Victim victim([&] { got = scene.queue.get(); },
                  [&] {
                    got.reserve(2 * kBytes);
                    scene.join()();
                  },
                  [&] { *taken = number_in(got).value_or(666); });
    round.step(victim);
    somebody_dies_with_a_block(scene.queue);
    round.outcome(scene.queue.qsize() < 3 ? 'P' : 'A');
    Items items = overtake(round, scene.queue);
    round.expect(victim.resume(), "stuck after it was let go");
    eventually([&] { return *taken != 0; });
    for (const Item item : scene.drain(round)) items.push_back(item);
    items.push_back(*taken);
    round.expect_none(exactly(items, {1, 2, 3, 8}, {}));
    round.kill(victim);
    scene.expect_whole(round);
  });
}

// Both the one that stands still and the survivor drop one for what they put.
TEST_F(QueuePayloadPause, DropOldest) {
  const std::string message = text(7, kBytes);
  kill_at_every_step("S", [&](Round& round) {
    PayloadScene scene(4, true, {.maxsize = 4, .on_full = OnFull::drop_oldest});
    Victim victim([&] { scene.queue.put(message); }, scene.join());
    round.step(victim);
    somebody_dies_with_a_block(scene.queue);
    const bool put = scene.queue.try_put(text(8, kBytes), brief());
    round.outcome('S');
    round.expect(victim.resume(), "stuck after it was let go");
    const Items items = scene.drain(round);
    round.expect_none(exactly(items, {7}, {2, 3, 4, 8}));
    round.expect(!put || std::ranges::count(items, 8) == 1,
                 "LOST: what it put");
    round.expect(items.size() >= 3, "dropped more than had to be: " +
                                        std::to_string(items.size()) + " left" +
                                        (put ? ", put" : ", not put"));
    round.kill(victim);
    scene.expect_whole(round);
  });
}

// ---- growth ----

class QueueGrowthPause : public testing::Test {
 protected:
  void SetUp() override { use_one_processor(); }
};

TEST_F(QueueGrowthPause, PutThatGrows) {
  kill_at_every_step("AP", [](Round& round) {
    GrowingScene scene(kFirst);
    Victim victim([&] { scene.queue.put(7); }, scene.join());
    round.step(victim);
    somebody_dies([&] { (void)domain_of(scene.queue).process_seat(); });
    round.outcome(scene.queue.qsize() > kFirst ? 'P' : 'A');
    round.expect(scene.queue.try_put(8, brief()), "put refused");
    Items items;
    if (const auto item = scene.queue.try_get(brief())) items.push_back(*item);
    round.expect(items == Items{1}, "does not get the oldest");
    round.expect(victim.resume(), "stuck after it was let go");
    for (const Item item : scene.drain()) items.push_back(item);
    round.expect_none(exactly(items, {1, 2, 3, 4, 7, 8}, {}));
    items.resize(kFirst);
    round.expect(std::ranges::is_sorted(items), "order");
    round.kill(victim);
    round.expect_none(scene.whole());
  });
}

TEST_F(QueueGrowthPause, GetThatPasses) {
  kill_at_every_step("AP", [](Round& round) {
    GrowingScene scene(kFirst + 2);
    for (Item i = 1; i <= kFirst; ++i) scene.queue.get_nowait();
    Shared<std::atomic<Item>> taken;
    Victim victim([&] { *taken = scene.queue.get(); }, scene.join());
    round.step(victim);
    somebody_dies();
    round.outcome(*taken == 0 ? 'A' : 'P');
    round.expect(scene.queue.try_put(8, brief()), "put refused");
    Items items;
    if (const auto item = scene.queue.try_get(brief())) items.push_back(*item);
    round.expect(items.size() == 1, "finds none beside the one that is taken");
    round.expect(victim.resume(), "stuck after it was let go");
    for (const Item item : scene.drain()) items.push_back(item);
    items.push_back(*taken);
    round.expect_none(exactly(items, {kFirst + 1, kFirst + 2, 8}, {}));
    round.kill(victim);
    round.expect_none(scene.whole());
  });
}

}  // namespace
