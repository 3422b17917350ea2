// SIGKILL at every instruction of those whom somebody who joins a JoinableQueue
// has to wait for although they have taken nothing, and of who joins.

#include <functional>
#include <optional>
#include <string_view>

#include "gtest/gtest.h"
#include "shoal/ipc/joinable_queue.h"
#include "tests/ipc/joinable_scene.h"

namespace {

using namespace shoal::support;
using shoal::JoinableQueue;
using shoal::now;

class JoinableQueueJoinKill : public testing::Test {
 protected:
  void SetUp() override {
    use_one_processor();
    shoal::waiting::set_slices(false);
  }
};

// ---- who puts ----

// The joiner comes when the victim is half-way, and has nothing else to wait
// for.
void kill_half_way(std::string_view sane, Item values,
                   const std::function<void(JoinableQueue<Item>&)>& operation) {
  kill_at_every_step(
      sane,
      [&](Round& round) {
        JoinScene scene(values);
        Victim victim([&] { operation(scene.queue); }, scene.join());
        round.step(victim);
        const OwnPartner joiner = scene.joiner();
        round.kill(victim);
        const bool there = scene.has_value();
        round.outcome(there ? 'P' : 'A');
        if (there) round.expect(scene.finish() == 1, "not delivered again");
        round.expect(joiner->ends(), "LOST: who joins sleeps on");
        scene.expect_whole(round);
      },
      {.strays = 15});
}

TEST_F(JoinableQueueJoinKill, JoinerThatMeetsAPut) {
  kill_half_way("AP", 0, [](JoinableQueue<Item>& queue) { queue.put(1); });
}

TEST_F(JoinableQueueJoinKill, JoinerThatMeetsALoan) {
  kill_half_way("AP", 0,
                [](JoinableQueue<Item>& queue) { queue.loan().publish(); });
}

TEST_F(JoinableQueueJoinKill, JoinerThatMeetsAGet) {
  kill_half_way("PA", 1, [](JoinableQueue<Item>& queue) { queue.get(); });
}

TEST_F(JoinableQueueJoinKill, LoanDroppedWithJoinerAsleep) {
  kill_at_every_step("D", [](Round& round) {
    JoinScene scene(0);
    std::optional<shoal::Loan<Item>> loan;
    Victim victim([&] { loan.reset(); },
                  [&] { loan.emplace(scene.queue.loan()); });
    victim.await_prepared();
    const OwnPartner joiner = scene.joiner();
    round.expect(!joiner->done(), "joined beside a loan");
    round.step(victim);
    round.kill(victim);
    round.outcome('D');
    round.expect(joiner->ends(), "LOST: who joins sleeps on");
    scene.expect_whole(round);
  });
}

// ---- what is discarded ----

// It drops the only value, and dies before it has put its own: at that moment
// all is done.
TEST_F(JoinableQueueJoinKill, PutThatDropsTheOldest) {
  kill_at_every_step(
      "RCR",
      [](Round& round) {
        JoinScene scene(1,
                        {.maxsize = 1, .on_full = shoal::OnFull::drop_oldest});
        Victim victim([&] { scene.queue.put(2); }, scene.join());
        victim.await_prepared();
        const OwnPartner joiner = scene.joiner();
        round.step(victim);
        round.kill(victim);
        const bool left = scene.has_value();
        round.outcome(left ? 'R' : 'C');
        if (left) round.expect(scene.finish() == 1, "not delivered again");
        round.expect(joiner->ends(), "LOST: who joins sleeps on");
        scene.expect_whole(round);
      },
      {.strays = 15});
}

TEST_F(JoinableQueueJoinKill, Shutdown) {
  kill_at_every_step("OS", [](Round& round) {
    JoinScene scene(1);
    Victim victim([&] { scene.queue.shutdown(true); }, scene.join());
    victim.await_prepared();
    const OwnPartner joiner = scene.joiner();
    round.step(victim);
    round.kill(victim);
    const bool open = cells_of(scene.queue).closed() == shoal::cells::kOpen;
    round.outcome(open ? 'O' : 'S');
    if (open) round.expect(scene.finish() == 1, "lost");
    round.expect(joiner->ends(), "LOST: who joins sleeps on");
    round.expect(scene.queue.join(now), "discarded, and not done");
  });
}

// ---- who joins ----

TEST_F(JoinableQueueJoinKill, JoinerOnItsWayToSleep) {
  kill_at_every_step(
      "S",
      [](Round& round) {
        JoinScene scene(1);
        const OwnPartner other = scene.joiner();
        Victim victim([&] { scene.queue.join(); },
                      [&] { scene.queue.join(std::chrono::nanoseconds(1)); });
        round.step(victim);
        round.kill(victim);
        round.expect(scene.finish() == 1, "lost");
        round.expect(other->ends(), "LOST: the other sleeps on");
        round.outcome('S');
        scene.expect_whole(round);
      },
      {.end = Stop::asleep});
}

TEST_F(JoinableQueueJoinKill, WokenJoiner) {
  kill_at_every_step(
      "S",
      [](Round& round) {
        JoinScene scene(1);
        OwnPartner other;
        Victim victim([&] { scene.queue.join(); },
                      [&] { scene.queue.join(std::chrono::nanoseconds(1)); });
        round.step(victim, [&] {
          other = scene.joiner();
          scene.queue.get();
          scene.queue.task_done();
        });
        round.kill(victim);
        round.expect(other->ends(), "LOST: the other sleeps on");
        round.outcome('S');
        scene.expect_whole(round);
      },
      // Who wakes it may be at work still.
      {.after_sleep = true, .strays = 25});
}

}  // namespace
