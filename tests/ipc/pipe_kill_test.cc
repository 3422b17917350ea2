// SIGKILL at every instruction of what a Pipe's end does: its messages are
// there whole or not at all, and the other end learns what has happened, also
// when it sleeps without a timeout.

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <thread>
#include <utility>

#include "gtest/gtest.h"
#include "shoal/ipc/event.h"
#include "tests/ipc/pipe_scene.h"

namespace {

using namespace shoal::support;
using shoal::Connection;
using shoal::Frame;
using shoal::View;

class PipeKill : public testing::Test {
 protected:
  void SetUp() override {
    use_one_processor();
    shoal::waiting::set_slices(false);
  }

 private:
  std::pair<Connection, Connection> other_ = shoal::Pipe();  // keeps the domain
};

// 7 is there or not, and nothing else.
char found(Round& round, const Items& items) {
  round.expect_none(exactly(items, {}, {7}));
  return items.empty() ? 'A' : 'P';
}

// ---- sending ----

TEST_F(PipeKill, Send) {
  kill_at_every_step("AP", [](Round& round) {
    PipeScene scene;
    Victim victim([&] { scene.theirs.send(Item{7}); }, scene.claim());
    round.step(victim);
    round.kill(victim);
    round.outcome(found(round, scene.drain(round)));
  });
}

// The type is known already.
TEST_F(PipeKill, SendAgain) {
  kill_at_every_step("AP", [](Round& round) {
    PipeScene scene;
    Victim victim([&] { scene.theirs.send(Item{7}); },
                  [&] { scene.theirs.send(Item{3}); });
    round.step(victim);
    round.kill(victim);
    Items items = scene.drain(round);
    round.expect(!items.empty() && items[0] == 3, "lost: what was sent before");
    if (!items.empty()) items.erase(items.begin());
    round.outcome(found(round, items));
  });
}

// prepare(): of the victim.
using Prepare = std::function<Victim::Body(PipeScene&)>;

void kill_sender_before_a_sleeper(const Prepare& prepare) {
  kill_at_every_step("AP", [&](Round& round) {
    PipeScene scene;
    Victim victim([&] { scene.theirs.send(Item{7}); }, prepare(scene));
    victim.await_prepared();
    const auto asleep = receiver(scene.mine);
    round.step(victim);
    round.kill(victim);
    round.expect(asleep->ends(), "LOST: the receiver sleeps on");
    round.expect(asleep->item() == 7 || asleep->item() == kDied, "phantom");
    round.outcome(asleep->item() == 7 ? 'P' : 'A');
  });
}

// What the victim has not received goes with it, and so does the Pipe.
void kill_receiver_before_a_sleeper(const Prepare& prepare) {
  kill_at_every_step("D", [&](Round& round) {
    PipeScene scene;
    Victim victim([&] { scene.theirs.recv<Item>(); }, prepare(scene));
    victim.await_prepared();
    const auto asleep = sender(scene.mine);
    round.step(victim);
    round.kill(victim);
    round.expect(asleep->ends(), "LOST: the sender sleeps on");
    round.outcome(asleep->item() == kBroken ? 'D' : '?');
  });
}

TEST_F(PipeKill, SendWithReceiverAsleep) {
  kill_sender_before_a_sleeper([](PipeScene& scene) { return scene.claim(); });
}

// Threads of the victim sleep in shoal: their seats, and the words that they
// sleep on, die with it, before or after the thread that was about to wake.
Victim::Body and_sleep(Victim::Body claim, shoal::Event& never) {
  return [claim = std::move(claim), &never] {
    claim();
    for (int i = 0; i < 2; ++i) {
      std::atomic<pid_t> sleeper{0};
      std::thread([&never, &sleeper] {
        sleeper = gettid();
        never.wait();
      }).detach();
      eventually([&] { return sleeper != 0 && sleeps_on_futex(sleeper); });
    }
  };
}

TEST_F(PipeKill, SendBesideThreadsThatSleep) {
  shoal::Event never;
  kill_sender_before_a_sleeper(
      [&](PipeScene& scene) { return and_sleep(scene.claim(), never); });
}

TEST_F(PipeKill, RecvBesideThreadsThatSleep) {
  shoal::Event never;
  kill_receiver_before_a_sleeper(
      [&](PipeScene& scene) { return and_sleep(scene.claim(), never); });
}

// A block with pages is there.
Victim::Body send_one_long(PipeScene& scene) {
  return [&scene] { scene.theirs.send_bytes(long_message(3)); };
}

TEST_F(PipeKill, SendLong) {
  kill_at_every_step("AP", [](Round& round) {
    PipeScene scene;
    const auto message = long_message(7);
    Victim victim([&] { scene.theirs.send_bytes(message); },
                  send_one_long(scene));
    round.expect(receive_one(scene.mine) == 3, "the first one");
    round.step(victim);
    round.kill(victim);
    round.outcome(found(round, scene.drain(round)));
  });
}

TEST_F(PipeKill, SendLongWithReceiverAsleep) {
  kill_at_every_step("AP", [](Round& round) {
    PipeScene scene;
    const auto message = long_message(7);
    Victim victim([&] { scene.theirs.send_bytes(message); },
                  send_one_long(scene));
    victim.await_prepared();
    Shared<std::atomic<Item>> first;
    const auto asleep = std::make_unique<Partner>([&] {
      *first = receive_one(scene.mine);
      return receive_one(scene.mine);
    });
    round.step(victim);
    round.kill(victim);
    round.expect(asleep->ends(), "LOST: the receiver sleeps on");
    round.expect(*first == 3, "the first one");
    round.expect(asleep->item() == 7 || asleep->item() == kDied, "phantom");
    round.outcome(asleep->item() == 7 ? 'P' : 'A');
  });
}

TEST_F(PipeKill, ReserveAndCommit) {
  for (const std::size_t n : {sizeof(Item), kLong})
    kill_at_every_step("AP", [n](Round& round) {
      PipeScene scene;
      const auto message = long_message(7);
      Victim victim(
          [&] {
            Frame frame = scene.theirs.reserve(n);
            if (n == sizeof(Item))
              frame.bytes()[0] = std::byte{7};
            else
              std::copy(message.begin(), message.end(), frame.bytes().begin());
            frame.commit();
          },
          send_one_long(scene));
      round.expect(receive_one(scene.mine) == 3, "the first one");
      round.step(victim);
      round.kill(victim);
      round.outcome(found(round, scene.drain(round)));
    });
}

// ---- receiving ----

TEST_F(PipeKill, RecvWithSenderAsleep) {
  kill_receiver_before_a_sleeper(
      [](PipeScene& scene) { return scene.claim(); });
}

TEST_F(PipeKill, RecvLong) {
  kill_at_every_step(
      "D",
      [](Round& round) {
        PipeScene scene;
        for (unsigned i = 0; i < 4; ++i) scene.mine.send_bytes(long_message(i));
        Victim victim([&] { scene.theirs.recv_bytes(); }, scene.claim());
        victim.await_prepared();
        const auto asleep = std::make_unique<Partner>([&scene]() -> Item {
          try {
            for (;;) scene.mine.send_bytes(long_message());
          } catch (const shoal::BrokenPipe&) {
            return kBroken;
          }
        });
        round.step(victim);
        round.kill(victim);
        round.expect(asleep->ends(), "LOST: the sender sleeps on");
        round.outcome(asleep->item() == kBroken ? 'D' : '?');
      },
      {.strays = 30});
}

TEST_F(PipeKill, PeekAndRelease) {
  for (const bool aside : {false, true})
    kill_at_every_step("D", [aside](Round& round) {
      PipeScene scene;
      aside ? scene.mine.send_bytes(long_message(7)) : scene.mine.send(Item{7});
      Victim victim([&] { const View view = scene.theirs.peek(); },
                    scene.claim());
      round.step(victim);
      round.kill(victim);
      round.expect(scene.drain(round).empty(), "phantom");
      round.outcome('D');
    });
}

// On its way to sleep, and from there to the message.
TEST_F(PipeKill, RecvThatSleeps) {
  kill_at_every_step("D",
                     [](Round& round) {
                       PipeScene scene;
                       Victim victim([&] { scene.theirs.recv<Item>(); },
                                     scene.claim());
                       round.step(victim);
                       round.kill(victim);
                       round.expect(scene.drain(round).empty(), "phantom");
                       round.outcome('D');
                     },
                     {.end = Stop::asleep, .strays = 20});
}

TEST_F(PipeKill, WokenReceiver) {
  kill_at_every_step("D",
                     [](Round& round) {
                       PipeScene scene;
                       Victim victim([&] { scene.theirs.recv<Item>(); },
                                     scene.claim());
                       round.step(victim, [&] { scene.mine.send(Item{7}); });
                       round.kill(victim);
                       round.expect(scene.drain(round).empty(), "phantom");
                       round.outcome('D');
                     },
                     {.after_sleep = true});
}

// ---- closing ----

TEST_F(PipeKill, CloseWithBothAsleep) {
  kill_at_every_step("DE", [](Round& round) {
    PipeScene scene;
    Victim victim([&] { scene.theirs.close(); }, scene.claim());
    victim.await_prepared();
    Shared<std::atomic<Item>> sent;
    const auto asleep = std::make_unique<Partner>([&] {
      // Two threads of one process: its receiver and its sender.
      std::thread other([&] {
        try {
          for (;;) scene.mine.send(Item{1});
        } catch (const shoal::BrokenPipe&) {
          *sent = kBroken;
        }
      });
      const Item item = receive_one(scene.mine);
      other.join();
      return item;
    });
    round.step(victim);
    round.kill(victim);
    round.expect(asleep->ends(), "LOST: one of them sleeps on");
    round.expect(*sent == kBroken, "the sender");
    round.outcome(asleep->item() == kEnded  ? 'E'
                  : asleep->item() == kDied ? 'D'
                                            : '?');
  });
}

}  // namespace
