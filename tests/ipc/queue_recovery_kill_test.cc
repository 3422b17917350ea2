// SIGKILL at every instruction of those who recover what others, who died
// before, have left behind: the sweep can be killed, too.

#include <memory>
#include <string_view>

#include "gtest/gtest.h"
#include "tests/ipc/queue_scene.h"

namespace {

using namespace shoal::support;
using shoal::Queue;
using shoal::ShutDown;

class QueueRecoveryKill : public testing::Test {
 protected:
  void SetUp() override {
    use_one_processor();
    shoal::waiting::set_slices(false);
  }

  using Setting = std::function<void(Queue<Item>&)>;
  using Operation = std::function<void(Queue<Item>&)>;

  // The values 1 to `queued` are there, then `setting` happens; `must` are
  // there exactly once in the end, the first of `may` gone or not.
  static void sweep(std::string_view sane, Items queued, const Setting& setting,
                    const Operation& operation, const Items& must, Item may,
                    std::string_view letters) {
    kill_at_every_step(sane, [&](Round& round) {
      Scene scene(queued, 6);
      // The victim sits down first: it must not meet the dead by joining.
      Victim victim([&] { operation(scene.queue); }, scene.join());
      victim.await_prepared();
      setting(scene.queue);
      round.step(victim);
      round.kill(victim);
      const Items items = scene.drain();
      round.expect_none(exactly(items, must, {may}));
      const bool there = std::ranges::count(items, may) != 0;
      round.outcome(letters[there ? 0 : 1]);
      round.expect_none(scene.whole());
    });
  }

  static void get(Queue<Item>& queue) { (void)queue.get(); }
  static void try_get(Queue<Item>& queue) { (void)queue.try_get(); }
};

// ---- claims of dead producers: tombstones ----

TEST_F(QueueRecoveryKill, GetMeetsDeadPutsAtHead) {
  sweep(
      "RC", {},
      [](Queue<Item>& queue) {
        die_with_claims(queue, 2, 0);
        queue.put_nowait(1);
        queue.put_nowait(2);
      },
      get, {2}, 1, "RC");
}

TEST_F(QueueRecoveryKill, PutMeetsDeadPutsAllAround) {
  sweep(
      "AP", {}, [](Queue<Item>& queue) { die_with_claims(queue, 4, 0); },
      [](Queue<Item>& queue) { queue.put(7); }, {}, 7, "PA");
}

// The next cell holds a value that comes back; later ones are free.
TEST_F(QueueRecoveryKill, PutPassesWhatIsDeliveredAgain) {
  sweep(
      "AP", {1, 2, 3, 4},
      [](Queue<Item>& queue) {
        die_with_claims(queue, 0, 1);
        for (const Item item : {2, 3, 4}) EXPECT_EQ(queue.get_nowait(), item);
      },
      [](Queue<Item>& queue) { queue.put(7); }, {1}, 7, "PA");
}

TEST_F(QueueRecoveryKill, PutPassesTwoThatAreDeliveredAgain) {
  sweep(
      "AP", {1, 2, 3, 4},
      [](Queue<Item>& queue) {
        die_with_claims(queue, 0, 2);
        for (const Item item : {3, 4}) EXPECT_EQ(queue.get_nowait(), item);
      },
      [](Queue<Item>& queue) { queue.put(7); }, {1, 2}, 7, "PA");
}

TEST_F(QueueRecoveryKill, TryGetMeetsDeadPutsOnly) {
  sweep(
      "A", {}, [](Queue<Item>& queue) { die_with_claims(queue, 3, 0); },
      try_get, {}, 7, "PA");
}

// ---- claims of dead consumers: delivered again ----

TEST_F(QueueRecoveryKill, GetWhereAllIsTakenByTheDead) {
  sweep(
      "RC", {1, 2}, [](Queue<Item>& queue) { die_with_claims(queue, 0, 2); },
      get, {2}, 1, "RC");
}

TEST_F(QueueRecoveryKill, TryGetWhereAllIsTakenByTheDead) {
  sweep(
      "RC", {1, 2}, [](Queue<Item>& queue) { die_with_claims(queue, 0, 2); },
      try_get, {2}, 1, "RC");
}

TEST_F(QueueRecoveryKill, GetWhereAFullRingIsTakenByTheDead) {
  sweep(
      "RC", {1, 2, 3, 4},
      [](Queue<Item>& queue) { die_with_claims(queue, 0, 4); }, get, {2, 3, 4},
      1, "RC");
}

// The oldest value is in a dead one's hands, at the tail's cell.
void take_the_rest(Queue<Item>& queue) {
  die_with_claims(queue, 0, 1);
  auto cells = cells_of(queue);
  Item item;
  shoal::liveness::Who blocker = 0;
  for (int i = 0; i < 2; ++i) (void)cells.try_get(item, blocker);
}

TEST_F(QueueRecoveryKill, TryPutMeetsDeadGetAtTail) {
  sweep(
      "AP", {1, 2, 3, 4}, take_the_rest,
      [](Queue<Item>& queue) { (void)queue.try_put(7); }, {1, 4}, 7, "PA");
}

// It puts the value back where it was, finds the ring full and sleeps; a get
// makes room.
TEST_F(QueueRecoveryKill, PutMeetsDeadGetAtTail) {
  kill_at_every_step("AP", [&](Round& round) {
    Scene scene({1, 2, 3, 4}, 6);
    Victim victim([&] { scene.queue.put(7); }, scene.join());
    victim.await_prepared();
    die_with_claims(scene.queue, 0, 1);
    Items items;
    round.step(victim, [&] { items.push_back(scene.queue.get_nowait()); });
    round.kill(victim);
    for (const Item item : scene.drain()) items.push_back(item);
    round.expect_none(exactly(items, {1, 2, 3, 4}, {7}));
    round.outcome(items.size() == 5 ? 'P' : 'A');
    round.expect_none(scene.whole());
  });
}

// ---- the ends of a queue that was shut down ----

TEST_F(QueueRecoveryKill, GetDrainsWhatTheDeadHadTaken) {
  kill_at_every_step("RC", [](Round& round) {
    Scene scene({1, 2});
    Victim victim([&] { (void)scene.queue.get(); }, scene.join());
    victim.await_prepared();
    die_with_claims(scene.queue, 0, 2);
    scene.queue.shutdown();
    round.step(victim);
    round.kill(victim);
    Items items;
    try {
      for (;;) items.push_back(scene.queue.get());
    } catch (const ShutDown&) {
    }
    round.expect_none(exactly(items, {2}, {1}));
    round.outcome(items.size() == 2 ? 'R' : 'C');
    round.expect_none(seats_free());
  });
}

// It makes the end marker; the unwinder is not ours.
TEST_F(QueueRecoveryKill, GetAtTheEnd) {
  kill_at_every_step("E",
                     [](Round& round) {
                       Scene scene;
                       scene.queue.shutdown();
                       Victim victim(
                           [&] {
                             try {
                               (void)scene.queue.get();
                             } catch (const ShutDown&) {
                             }
                           },
                           scene.join());
                       round.step(victim);
                       round.kill(victim);
                       bool ended = false;
                       try {
                         (void)scene.queue.get();
                       } catch (const ShutDown&) {
                         ended = true;
                       }
                       round.expect(ended, "a value from nowhere");
                       round.expect(!scene.queue.try_put(9),
                                    "put after shutdown");
                       round.outcome('E');
                       round.expect_none(seats_free());
                     },
                     {.most = 600, .end = Stop::at_step});
}

}  // namespace
