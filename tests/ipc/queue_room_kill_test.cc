// SIGKILL at every instruction of those whom somebody who waits for room for a
// payload has to wait for: it gets the room, or learns of the end.

#include <atomic>
#include <memory>
#include <optional>
#include <string>

#include "gtest/gtest.h"
#include "tests/ipc/payload_scene.h"
#include "tests/ipc/queue_scene.h"

namespace {

using namespace shoal::support;
using shoal::Queue;
using shoal::QueueOptions;

using OwnPartner = std::unique_ptr<Partner>;

constexpr std::size_t kBytes = 300;

class RoomScene {
 public:
  // Ours is the first seat. One message is there, and has all the room.
  RoomScene() {
    local_of(queue).domain().seat();
    queue.put(text(1, kBytes));
  }

  Queue<std::string> queue{QueueOptions{.maxsize = 4, .max_bytes = 600}};

  Victim::Body join() {
    return [this] { local_of(queue).domain().seat(); };
  }
  OwnPartner putter() {
    return OwnPartner(new Partner([this] {
      queue.put(text(2, kBytes));
      return Item{2};
    }));
  }
  // As the cells are: looking at the queue would heal what is to be found.
  bool has_message() {
    bool has = false;
    local_of(queue).rings().each(
        [&](auto& ring, std::uint32_t) { has = has || ring.anything_left(); });
    return has;
  }
  void expect_whole(Round& round) {
    round.expect(blocks_in_use(queue) == 0, "a block is in use");
    round.expect_none(seats_free());
  }
  // Delivered again, and got by us; or gone, and its room is free.
  void expect_put(Round& round, Partner& putter) {
    putter.settle();
    const bool again = !putter.done() && has_message();
    round.outcome(again ? 'R' : 'C');
    if (again) round.expect(get() == 1, "not delivered again");
    round.expect(putter.ends(), "LOST: who waits for room sleeps on");
    round.expect(get() == 2, "lost");
    expect_whole(round);
  }
  std::optional<std::uint64_t> get() {
    const auto got = queue.try_get(std::chrono::milliseconds(500));
    return got ? number_in(*got) : std::nullopt;
  }
};

class QueueRoomKill : public testing::Test {
 protected:
  void SetUp() override {
    use_one_processor();
    shoal::waiting::set_slices(false);
  }
};

TEST_F(QueueRoomKill, Get) {
  kill_at_every_step("RC", [](Round& round) {
    RoomScene scene;
    Victim victim([&] { scene.queue.get(); }, scene.join());
    victim.await_prepared();
    const OwnPartner putter = scene.putter();
    round.expect(!putter->done(), "there was room");
    round.step(victim);
    round.kill(victim);
    scene.expect_put(round, *putter);
  });
}

// It sits down when the putter sleeps already.
TEST_F(QueueRoomKill, GetByOneWhoCameLater) {
  kill_at_every_step("RC", [](Round& round) {
    RoomScene scene;
    Shared<std::atomic<bool>> asleep;
    Victim victim([&] { scene.queue.get(); },
                  [&] {
                    eventually([&] { return asleep->load(); });
                    scene.join()();
                  });
    const OwnPartner putter = scene.putter();
    round.expect(!putter->done(), "there was room");
    *asleep = true;
    round.step(victim);
    round.kill(victim);
    scene.expect_put(round, *putter);
  });
}

// It has the room that the message had, and dies before it has put its own.
TEST_F(QueueRoomKill, PutThatHasTheRoom) {
  kill_at_every_step("AP", [](Round& round) {
    RoomScene scene;
    round.expect(scene.get() == 1, "lost");
    const std::string message = text(3, kBytes);
    Victim victim([&] { scene.queue.put(message); }, scene.join());
    round.step(victim);
    const OwnPartner putter = scene.putter();
    round.kill(victim);
    putter->settle();
    const bool there = !putter->done() && scene.has_message();
    round.outcome(there ? 'P' : 'A');
    if (there) round.expect(scene.get() == 3, "lost: what was put");
    round.expect(putter->ends(), "LOST: who waits for room sleeps on");
    round.expect(scene.get() == 2, "lost");
    scene.expect_whole(round);
  });
}

TEST_F(QueueRoomKill, Shutdown) {
  kill_at_every_step("OS", [](Round& round) {
    RoomScene scene;
    Victim victim([&] { scene.queue.shutdown(); }, scene.join());
    victim.await_prepared();
    const OwnPartner putter = scene.putter();
    round.expect(!putter->done(), "there was room");
    round.step(victim);
    round.kill(victim);
    const bool open =
        local_of(scene.queue).rings().closed() == shoal::cells::kOpen;
    round.outcome(open ? 'O' : 'S');
    if (open) round.expect(scene.get() == 1, "lost");
    round.expect(putter->ends(), "LOST: who waits for room sleeps on");
    round.expect(open == (putter->state() == Partner::State::done),
                 "not shut down");
  });
}

}  // namespace
