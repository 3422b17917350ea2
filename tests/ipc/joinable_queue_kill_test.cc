// SIGKILL at every instruction of taking from a JoinableQueue and of reporting:
// what the dead had taken is done, what they were about to take is delivered
// again, and who joins sleeps until all is done, and no longer.

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "gtest/gtest.h"
#include "shoal/ipc/joinable_queue.h"
#include "tests/ipc/joinable_scene.h"

namespace {

using namespace shoal::support;

class JoinableQueueKill : public testing::Test {
 protected:
  void SetUp() override {
    use_one_processor();
    shoal::waiting::set_slices(false);
  }
};

// ---- a taker, and nobody who joins ----

// Delivered again; or taken, and done.
TEST_F(JoinableQueueKill, GetAndTaskDone) {
  kill_at_every_step("RC", [](Round& round) {
    JoinScene scene(1);
    Victim victim([&] { scene.queue.get(), scene.queue.task_done(); },
                  scene.join());
    round.step(victim);
    round.kill(victim);
    const Item values = scene.finish();
    round.expect(values <= 1, "delivered twice");
    round.outcome(values == 1 ? 'R' : 'C');
    scene.expect_whole(round);
  });
}

TEST_F(JoinableQueueKill, TakeAndTaskDone) {
  kill_at_every_step("RC",
                     [](Round& round) {
                       JoinScene scene(1);
                       Victim victim(
                           [&] {
                             (void)*scene.queue.take();
                             scene.queue.task_done();
                           },
                           scene.join());
                       round.step(victim);
                       round.kill(victim);
                       const Item values = scene.finish();
                       round.expect(values <= 1, "delivered twice");
                       round.outcome(values == 1 ? 'R' : 'C');
                       scene.expect_whole(round);
                     },
                     {.strays = 15});
}

// ---- a taker, and one who joins ----

TEST_F(JoinableQueueKill, GetWithJoinerAsleep) {
  kill_at_every_step("RC", [](Round& round) {
    JoinScene scene(1);
    Victim victim([&] { scene.queue.get(); }, scene.join());
    victim.await_prepared();
    const OwnPartner joiner = scene.joiner();
    round.step(victim);
    round.kill(victim);
    scene.expect_joined(round, *joiner);
  });
}

// It sleeps before anybody else has used the queue, or has a seat.
TEST_F(JoinableQueueKill, GetByOneWhoCameAfterTheJoiner) {
  kill_at_every_step("RC", [](Round& round) {
    JoinScene scene(1);
    const OwnPartner joiner = scene.joiner();
    Victim victim([&] { scene.queue.get(); });
    round.step(victim);
    round.kill(victim);
    scene.expect_joined(round, *joiner);
  });
}

TEST_F(JoinableQueueKill, TakeWithJoinerAsleep) {
  kill_at_every_step("RC",
                     [](Round& round) {
                       JoinScene scene(1);
                       Victim victim([&] { (void)*scene.queue.take(); },
                                     scene.join());
                       victim.await_prepared();
                       const OwnPartner joiner = scene.joiner();
                       round.step(victim);
                       round.kill(victim);
                       scene.expect_joined(round, *joiner);
                     },
                     {.strays = 15});
}

// Another value is ours.
TEST_F(JoinableQueueKill, GetBesideOneThatIsNotDone) {
  kill_at_every_step("RC", [](Round& round) {
    JoinScene scene(2);
    scene.queue.get();
    Victim victim([&] { scene.queue.get(); }, scene.join());
    victim.await_prepared();
    const OwnPartner joiner = scene.joiner();
    round.step(victim);
    round.kill(victim);
    joiner->settle();
    round.expect(!joiner->done(), "joined beside a value that we have");
    scene.queue.task_done();
    scene.expect_joined(round, *joiner);
  });
}

TEST_F(JoinableQueueKill, TaskDoneWithTwoJoinersAsleep) {
  kill_at_every_step("D", [](Round& round) {
    JoinScene scene(1);
    Victim victim([&] { scene.queue.task_done(); }, scene.take(1));
    victim.await_prepared();
    const OwnPartner one = scene.joiner();
    const OwnPartner two = scene.joiner();
    round.step(victim);
    round.kill(victim);
    round.expect(one->ends(), "LOST: the first sleeps on");
    round.expect(two->ends(), "LOST: the second sleeps on");
    round.outcome('D');
    scene.expect_whole(round);
  });
}

// The thread that took first has ended, and with it the hold on the process's
// seat; another has taken since.
TEST_F(JoinableQueueKill, AProcessWhoseFirstTakerHasEnded) {
  JoinScene scene(2);
  Shared<std::atomic<int>> step;
  Child worker([&](Child&) {
    std::thread([&] {
      scene.queue.get();
      scene.queue.task_done();
    }).join();
    *step = 1;
    eventually([&] { return *step == 2; });
    std::thread([&] {
      scene.queue.get();
      *step = 3;
      for (;;) pause();
    }).join();
  });
  ASSERT_TRUE(eventually([&] { return *step == 1; }));
  const OwnPartner joiner = scene.joiner();
  *step = 2;
  ASSERT_TRUE(eventually([&] { return *step == 3; }));
  joiner->settle();
  EXPECT_FALSE(joiner->done());
  worker.kill();
  EXPECT_EQ(worker.join(), -SIGKILL);
  EXPECT_TRUE(joiner->ends()) << "LOST: who joins sleeps on";
}

}  // namespace
