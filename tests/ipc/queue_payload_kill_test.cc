// SIGKILL at every instruction of puts and gets whose messages lie in blocks,
// and of those who free what the dead had in hands: afterwards every message is
// there once or was never, whole, and no block is in use that no cell refers
// to.

#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/ipc/payload_kill_scene.h"

namespace {

using namespace shoal::support;
using shoal::OnFull;
using shoal::Queue;
using shoal::payload::Parcel;

class QueuePayloadKill : public testing::Test {
 protected:
  using Operation = std::function<void(Queue<std::string>&)>;
  void SetUp() override {
    use_one_processor();
    shoal::waiting::set_slices(false);
  }
  static Items numbers(std::uint64_t first, std::uint64_t last) {
    Items items;
    for (; first <= last; ++first) items.push_back(first);
    return items;
  }

  static void kill_in_put(std::uint64_t queued, bool warm,
                          const Operation& operation,
                          shoal::support::SweepOptions options = {}) {
    kill_at_every_step(
        "AP",
        [&](Round& round) {
          PayloadScene scene(queued, warm);
          Victim victim([&] { operation(scene.queue); }, scene.join());
          round.step(victim);
          round.kill(victim);
          const Items items = scene.drain(round);
          round.expect_none(exactly(items, numbers(1, queued), {7}));
          round.outcome(items.size() == queued ? 'A' : 'P');
          scene.expect_whole(round);
        },
        options);
  }
  static void kill_in_get(std::uint64_t queued, const Operation& operation) {
    kill_at_every_step("RC", [&](Round& round) {
      PayloadScene scene(queued);
      Victim victim([&] { operation(scene.queue); }, scene.join());
      round.step(victim);
      round.kill(victim);
      const Items items = scene.drain(round);
      round.expect_none(exactly(items, numbers(2, queued), {1}));
      round.outcome(items.size() == queued ? 'R' : 'C');
      scene.expect_whole(round);
    });
  }
};

TEST_F(QueuePayloadKill, Put) {
  const std::string message = text(7, kBytes);
  kill_in_put(2, true, [&](auto& queue) { queue.put(message); });
}

// The extent gets its pages.
TEST_F(QueuePayloadKill, FirstPut) {
  const std::string message = text(7, kBytes);
  kill_in_put(0, false, [&](auto& queue) { queue.put(message); });
}

TEST_F(QueuePayloadKill, PutIntoTheFull) {
  const std::string message = text(7, kBytes);
  kill_at_every_step("A", [&](Round& round) {
    PayloadScene scene(4);
    Victim victim([&] { (void)scene.queue.try_put(message); }, scene.join());
    round.step(victim);
    round.kill(victim);
    round.expect_none(exactly(scene.drain(round), {1, 2, 3, 4}, {}));
    round.outcome('A');
    scene.expect_whole(round);
  });
}

TEST_F(QueuePayloadKill, Get) {
  kill_in_get(2, [](auto& queue) { (void)queue.get(); });
}

TEST_F(QueuePayloadKill, DropOldest) {
  const std::string message = text(7, kBytes);
  kill_at_every_step("RAP", [&](Round& round) {
    PayloadScene scene(4, true, {.maxsize = 4, .on_full = OnFull::drop_oldest});
    Victim victim([&] { scene.queue.put(message); }, scene.join());
    round.step(victim);
    round.kill(victim);
    const Items items = scene.drain(round);
    round.expect_none(exactly(items, {2, 3, 4}, {1, 7}));
    const bool oldest = std::ranges::count(items, 1) != 0;
    const bool put = std::ranges::count(items, 7) != 0;
    round.expect(!(oldest && put), "more than fit");
    round.outcome(oldest ? 'R' : put ? 'P' : 'A');
    scene.expect_whole(round);
  });
}

// ---- the sweep can be killed, too ----

// An own process that dies with blocks in all states: two of messages that are
// in cells, one of a message that it was about to put, one that it has taken
// and not committed, one that it has taken.
void die_with_blocks(Queue<std::string>& queue) {
  Child child([&](Child& self) {
    queue.put(text(3, kBytes));
    queue.put(text(4, kBytes));
    auto& store = store_of(queue);
    auto& rings = local_of(queue).rings();
    const shoal::liveness::Who me = local_of(queue).domain().seat();
    self.expect(store.allocate(kBytes, me, 1 << 20) != 0, "a block");
    shoal::liveness::Who blocker = 0;
    const auto take = [&](bool commit) {
      typename std::remove_reference_t<decltype(rings.first())>::Claim claim;
      self.expect(rings.first().claim_for_get(me, claim, blocker) ==
                      shoal::waiting::Status::ok,
                  "claimed");
      Parcel parcel;
      std::memcpy(&parcel, claim.cell->data, sizeof parcel);
      self.expect(store.hold(parcel.block, me), "held");
      if (commit) rings.first().finish_get(claim);
    };
    take(true);
    take(false);
    if (self.failures().empty()) raise(SIGKILL);
  });
  if (child.join() != -SIGKILL)
    throw shoal::Error("no blocks: " + child.failures());
}

TEST_F(QueuePayloadKill, SweepBySomebodyWhoLooksForAMessage) {
  kill_at_every_step("RC", [&](Round& round) {
    PayloadScene scene(2);  // 1, 2
    Victim victim([&] { (void)scene.queue.try_get(); }, scene.join());
    victim.await_prepared();
    die_with_blocks(scene.queue);  // 1 is gone, 2 comes back, 3 and 4 are there
    round.step(victim);
    round.kill(victim);
    const Items items = scene.drain(round);
    // The first that is found depends on when 2 comes back.
    round.expect_none(exactly(items, {4}, {2, 3}));
    round.expect(items.size() >= 2, "more than one was taken");
    round.outcome(items.size() == 3 ? 'R' : 'C');
    scene.expect_whole(round);
  });
}

TEST_F(QueuePayloadKill, SweepAlone) {
  kill_at_every_step("S", [&](Round& round) {
    PayloadScene scene(2);
    Victim victim([&] { (void)blocks_in_use(scene.queue); }, scene.join());
    victim.await_prepared();
    die_with_blocks(scene.queue);
    round.step(victim);
    round.kill(victim);
    round.expect(blocks_in_use(scene.queue) == 3, "blocks of 2, 3 and 4");
    round.expect_none(exactly(scene.drain(round), {2, 3, 4}, {}));
    round.outcome('S');
    scene.expect_whole(round);
  });
}

}  // namespace
