// A Pipe's end held still at every instruction of what it does: the other end
// waits no longer than it wants to, is not told of a death, and all messages
// come once and in order after it was let go.

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>

#include "gtest/gtest.h"
#include "tests/ipc/pause_scene.h"
#include "tests/ipc/pipe_scene.h"

namespace {

using namespace shoal::support;
using shoal::Connection;
using shoal::Frame;
using shoal::Timeout;
using shoal::TimeoutError;
using shoal::View;

// Sends back what it receives, up to and with kLast.
constexpr Item kLast = 99;
Victim::Body echo(PipeScene& scene) {
  return [&scene] {
    Item item;
    do scene.theirs.send(item = receive_one(scene.theirs));
    while (item < kLast);
  };
}

class PipePause : public testing::Test {
 protected:
  using Operation = std::function<void(Connection&)>;
  void SetUp() override { use_one_processor(); }

  // All that comes before the timeout of one ends: the victim stands still, and
  // is not gone.
  static Items receive_all(Connection& from, Timeout timeout) {
    Items items;
    try {
      for (;;) items.push_back(receive_one(from, timeout));
    } catch (const TimeoutError&) {
      return items;
    }
  }
  // Up to where there is no room, which is not waited for for long.
  static Item send_all(Round& round, const std::function<void(Item)>& send) {
    Item item = 10;
    try {
      for (; item < 2000; ++item) send(item);
      round.expect(false, "there is always room");
    } catch (const TimeoutError&) {
    }
    return item;
  }
  // Unless it strayed to its end.
  static void expect_still(Round& round, PipeScene& scene) {
    const bool something = scene.mine.poll(brief());
    if (round.stop() != Stop::finished)
      round.expect(!something, "something from it, or the end");
  }
  // Works in both directions, and the death of the other end is seen.
  static void expect_whole(Round& round, PipeScene& scene, Victim& victim) {
    for (Item item = kLast - 3; item <= kLast; ++item) {
      scene.mine.send(item, kPatience);
      round.expect(receive_one(scene.mine, kPatience) == item, "no echo");
    }
    round.kill(victim);
    round.expect(scene.drain(round).empty(), "phantom");
  }

  // `send` sends 7; the victim has sent `before`.
  static void pause_in_sending(const Operation& send, SweepOptions options = {},
                               bool aside = true) {
    kill_at_every_step(
        "AP",
        [&](Round& round) {
          PipeScene scene;
          Victim victim([&] { send(scene.theirs); },
                        [&] {
                          // A block with pages is there.
                          if (aside) scene.theirs.send_bytes(long_message(3));
                          scene.claim()();
                        },
                        echo(scene));
          if (aside)
            round.expect(receive_one(scene.mine) == 3, "the first one");
          round.step(victim);
          somebody_dies();
          Items items = receive_all(scene.mine, brief());
          round.outcome(items.empty() ? 'A' : 'P');
          scene.mine.send(Item{8}, brief());  // the other direction is free
          round.expect(victim.resume(), "stuck after it was let go");
          if (items.empty())
            items.push_back(receive_one(scene.mine, kPatience));
          items.push_back(receive_one(scene.mine, kPatience));
          round.expect(items == Items{7, 8}, "lost, twice or out of order");
          round.expect(receive_all(scene.mine, shoal::now).empty(), "phantom");
          expect_whole(round, scene, victim);
        },
        options);
  }

  // `receive` receives 7; 8 is behind it, and what the survivor sends.
  static void pause_in_receiving(
      const std::function<Item(Connection&)>& receive, bool aside,
      SweepOptions options = {}) {
    kill_at_every_step(
        "AP",
        [&](Round& round) {
          PipeScene scene;
          const auto send = [&](Item item) {
            if (aside)
              scene.mine.send_bytes(
                  long_message(static_cast<unsigned>(item % 90)), 0,
                  shoal::npos, brief());
            else
              scene.mine.send(item % 90, brief());
          };
          send(7);
          send(8);
          Shared<std::atomic<Item>> got;
          Victim victim([&] { *got = receive(scene.theirs); }, scene.claim(),
                        echo(scene));
          round.step(victim);
          somebody_dies();
          const Item end = send_all(round, send);
          expect_still(round, scene);
          round.outcome(*got == 0 ? 'A' : 'P');
          round.expect(victim.resume(), "stuck after it was let go");
          round.expect(*got == 7, "received another one");
          round.expect(receive_one(scene.mine, kPatience) == 8, "the second");
          for (Item item = 10; item < end; ++item)
            round.expect(receive_one(scene.mine, kPatience) == item % 90,
                         "lost, or out of order");
          expect_whole(round, scene, victim);
        },
        options);
  }

 private:
  std::pair<Connection, Connection> other_ = shoal::Pipe();  // keeps the domain
};

TEST_F(PipePause, Send) {
  pause_in_sending([](Connection& end) { end.send(Item{7}); }, {}, false);
}

TEST_F(PipePause, SendBytesAside) {
  const auto message = long_message(7);
  pause_in_sending([&](Connection& end) { end.send_bytes(message); });
}

// Most of the steps are turns of one repeated instruction.
TEST_F(PipePause, SendBytesLongerThanTheRing) {
  const auto message = long_message(7, kRing + 500);
  pause_in_sending([&](Connection& end) { end.send_bytes(message); },
                   {.strays = 30, .stride = 41});
}

TEST_F(PipePause, ReserveAndCommit) {
  for (const std::size_t n : {sizeof(Item), kLong}) {
    const auto message = long_message(7, kLong);
    pause_in_sending([&](Connection& end) {
      Frame frame = end.reserve(n);
      if (n == sizeof(Item))
        frame.bytes()[0] = std::byte{7};
      else
        std::copy(message.begin(), message.end(), frame.bytes().begin());
      frame.commit();
    });
  }
}

TEST_F(PipePause, Recv) {
  pause_in_receiving([](Connection& end) { return end.recv<Item>(); }, false,
                     {.stride = 3});
}

TEST_F(PipePause, RecvBytesAside) {
  const auto message = long_message(7);
  pause_in_receiving(
      [&](Connection& end) -> Item {
        const auto bytes = end.recv_bytes();
        const bool same =
            bytes.size() == message.size() &&
            std::memcmp(bytes.data(), message.data(), bytes.size()) == 0;
        return same ? 7 : 666;
      },
      true, {.strays = 30, .stride = 5});
}

TEST_F(PipePause, PeekAndRelease) {
  for (const bool aside : {false, true})
    pause_in_receiving(
        [](Connection& end) {
          const View view = end.peek();
          return static_cast<Item>(view.bytes()[0]);
        },
        aside, {.strays = 30, .stride = 3});
}

// ---- with a partner that sleeps without a timeout ----

// In two pieces: the receiver sleeps behind each of them. The end becomes the
// victim's own on the way, too.
TEST_F(PipePause, SendBytesInPiecesToOneAsleep) {
  const auto message = long_message(7, (64 << 10) + 3000);
  kill_at_every_step(
      "AP",
      [&](Round& round) {
        PipeScene scene;
        Victim victim([&] { scene.theirs.send_bytes(message); });
        victim.await_prepared();
        const auto asleep = receiver(scene.mine);
        round.step(victim);
        somebody_dies();
        asleep->settle();
        round.outcome(asleep->done() ? 'P' : 'A');
        round.expect(victim.resume(), "stuck after it was let go");
        round.expect(asleep->ends(), "LOST: the receiver sleeps on");
        round.expect(asleep->item() == 7, "not the message");
        round.kill(victim);
      },
      {.most = 300000, .around_system_calls = true, .strays = 30});
}

// On its way to sleep; the message comes while it stands still.
TEST_F(PipePause, RecvThatSleeps) {
  kill_at_every_step("S",
                     [](Round& round) {
                       PipeScene scene;
                       Shared<std::atomic<Item>> got;
                       Victim victim([&] { *got = scene.theirs.recv<Item>(); },
                                     scene.claim(), echo(scene));
                       round.step(victim);
                       somebody_dies();
                       round.expect(!scene.mine.poll(brief()),
                                    "something, or the end");
                       scene.mine.send(Item{7}, brief());
                       round.expect(victim.resume(), "LOST: it sleeps on");
                       round.expect(*got == 7, "not the message");
                       round.outcome('S');
                       expect_whole(round, scene, victim);
                     },
                     {.end = Stop::asleep, .strays = 20, .stride = 9});
}

TEST_F(PipePause, WokenReceiver) {
  kill_at_every_step(
      "AP",
      [](Round& round) {
        PipeScene scene;
        Shared<std::atomic<Item>> got;
        Victim victim([&] { *got = scene.theirs.recv<Item>(); }, scene.claim(),
                      echo(scene));
        round.step(victim, [&] { scene.mine.send(Item{7}); });
        somebody_dies();
        round.outcome(*got == 0 ? 'A' : 'P');
        scene.mine.send(Item{8}, brief());
        expect_still(round, scene);
        round.expect(victim.resume(), "stuck after it was let go");
        round.expect(*got == 7, "not the message");
        round.expect(receive_one(scene.mine, kPatience) == 8, "the next");
        expect_whole(round, scene, victim);
      },
      {.after_sleep = true, .stride = 3});
}

}  // namespace
