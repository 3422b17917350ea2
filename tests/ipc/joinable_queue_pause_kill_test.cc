// A process held still at every instruction of taking a value, reporting it as
// done, and joining: what it has taken is not done before it says so, and who
// joins is let go once all is.

#include <memory>
#include <stdexcept>

#include "gtest/gtest.h"
#include "shoal/ipc/joinable_queue.h"
#include "tests/ipc/pause_scene.h"
#include "tests/ipc/queue_scene.h"

namespace {

using namespace shoal::support;
using shoal::JoinableQueue;
using shoal::now;

class JoinablePause : public testing::Test {
 protected:
  void SetUp() override { use_one_processor(); }

  static Victim::Body join_seats(const JoinableQueue<Item>& queue) {
    return [&queue] {
      domain_of(queue).seat();
      domain_of(queue).process_seat();
    };
  }
  // What a process that died had taken is done.
  static void somebody_dies_with_one(JoinableQueue<Item>& queue) {
    queue.put(50, brief());
    somebody_dies([&] {
      while (queue.get(kPatience) != 50) throw shoal::Error("another one");
    });
  }
  static void expect_whole(Round& round, JoinableQueue<Item>& queue) {
    try {
      queue.task_done();
      round.expect(false, "more was taken than is done");
    } catch (const std::logic_error&) {
    }
    round.expect(queue.join(now), "not all is done");
    for (Item i = 0; i < 3; ++i) queue.put(i);
    for (Item i = 0; i < 3; ++i) {
      round.expect(queue.get(kPatience) == i, "order");
      round.expect(!queue.join(now), "joined too early");
      queue.task_done();
    }
    round.expect(queue.join(kPatience), "joined, afterwards");
  }
};

TEST_F(JoinablePause, Get) {
  kill_at_every_step("AP", [](Round& round) {
    JoinableQueue<Item> queue(4);
    queue.put(1);
    Shared<std::atomic<Item>> taken;
    Signal signal;
    Victim victim([&] { *taken = queue.get(); }, join_seats(queue),
                  [&] { signal.await(), queue.task_done(); });
    round.step(victim);
    somebody_dies();
    round.outcome(*taken == 0 ? 'A' : 'P');
    round.expect(!queue.join(brief()), "joined before all was done");
    round.expect(victim.resume(), "stuck after it was let go");
    round.expect(*taken == 1, "delivered to another");
    somebody_dies_with_one(queue);
    round.expect(!queue.join(brief()), "joined before all was done");
    signal.give();
    round.expect(queue.join(kPatience), "LOST: what was done");
    expect_whole(round, queue);
    round.kill(victim);
  });
}

TEST_F(JoinablePause, TaskDone) {
  kill_at_every_step("LD", [](Round& round) {
    JoinableQueue<Item> queue(4);
    queue.put(1);
    Victim victim([&] { queue.task_done(); },
                  [&] { join_seats(queue)(), (void)queue.get(); });
    victim.await_prepared();
    const auto joiner = std::make_unique<Partner>([&] {
      queue.join();
      return Item{1};
    });
    round.step(victim);
    somebody_dies_with_one(queue);
    const bool done = queue.join(brief());
    round.outcome(done ? 'D' : 'L');
    round.expect(done || !joiner->done(), "joined before all was done");
    round.expect(victim.resume(), "stuck after it was let go");
    round.expect(joiner->ends(), "LOST: who joins sleeps on");
    expect_whole(round, queue);
    round.kill(victim);
  });
}

// The last one is reported as done while it is on its way to sleep.
TEST_F(JoinablePause, JoinOnItsWayToSleep) {
  kill_at_every_step(
      "S",
      [](Round& round) {
        JoinableQueue<Item> queue(4);
        queue.put(1);
        queue.put(2);
        Shared<std::atomic<int>> joined;
        Victim victim([&] { *joined = queue.join() ? 1 : 2; },
                      join_seats(queue));
        round.step(victim);
        queue.get();
        queue.task_done();
        round.expect(!queue.join(brief()), "joined before all was done");
        somebody_dies();
        queue.get();
        queue.task_done();
        round.expect(queue.join(now), "waits for one that only looks");
        round.outcome('S');
        round.expect(victim.resume(), "LOST: it sleeps on");
        round.expect(*joined == 1, "not joined");
        expect_whole(round, queue);
        round.kill(victim);
      },
      {.end = Stop::asleep, .strays = 20, .stride = 7});
}

// Let go, and held still: more is put meanwhile, and waited for by others.
TEST_F(JoinablePause, WokenJoiner) {
  kill_at_every_step(
      "S",
      [](Round& round) {
        JoinableQueue<Item> queue(4);
        queue.put(1);
        queue.get();
        std::unique_ptr<Partner> other;
        Victim victim([&] { queue.join(); }, join_seats(queue));
        round.step(victim, [&] {
          other = std::make_unique<Partner>([&] {
            queue.join();
            return Item{1};
          });
          queue.task_done();
        });
        round.expect(other->ends(), "LOST: the other sleeps on");
        queue.put(2);
        round.expect(!queue.join(brief()), "joined before all was done");
        queue.get();
        queue.task_done();
        round.expect(queue.join(now), "waits for one that only looks");
        round.outcome('S');
        round.expect(victim.resume(), "LOST: it sleeps on");
        expect_whole(round, queue);
        round.kill(victim);
      },
      {.after_sleep = true, .strays = 40, .stride = 97});
}

}  // namespace
