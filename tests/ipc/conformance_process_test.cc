// What multiprocessing says of Process and its start methods, where no other
// test asks for it; docs/conformance.md names the test for each sentence.

#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <chrono>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shoal/ipc/forkserver.h"
#include "shoal/ipc/pidfd.h"
#include "shoal/ipc/process.h"
#include "shoal/ipc/queue.h"
#include "shoal/ipc/sync.h"
#include "shoal/ipc/wait.h"
#include "tests/ipc/process_scene.h"
#include "tests/support/child.h"

namespace shoal {
namespace {

using namespace std::chrono_literals;
using support::await;
using support::Child;
using support::eventually;
using support::Flag;
using support::kPatience;
using support::Meeting;
using support::run_by;
using support::sleep_for_ever;
using support::started;
using testing::ElementsAre;
using testing::IsEmpty;

class ConformanceProcess
    : public support::WithForkserver<testing::TestWithParam<StartMethod>> {
 protected:
  static StartMethod method() { return GetParam(); }
};
INSTANTIATE_TEST_SUITE_P(, ConformanceProcess,
                         testing::Values(StartMethod::fork,
                                         StartMethod::forkserver,
                                         StartMethod::spawn),
                         testing::PrintToStringParamName());

TEST_P(ConformanceProcess, OnlyWhoMadeItStartsIt) {
  Process process({.start_method = method()}, [] { exit(5); });
  Child forked([&](Child& self) {
    try {
      process.start();
      self.expect(false, "started what its parent made");
    } catch (const std::logic_error&) {
    }
  });
  EXPECT_EQ(forked.join(), 0) << forked.failures();
  process.start();
  EXPECT_TRUE(process.join(kPatience));
  EXPECT_EQ(process.exitcode(), 5);
}

struct Ended {
  Flag at_exit, unwound, orphan, ready;
};

struct Unwound {
  Ended& ended;
  ~Unwound() { ++ended.unwound; }
};

void be_terminated(std::string path) {
  static const Meeting<Ended>* seen = nullptr;
  const Meeting<Ended> ended(path);
  seen = &ended;
  atexit([] { ++(*seen)->at_exit; });
  const Unwound frame{*ended};
  Process child(
      ProcessOptions{.start_method = StartMethod::fork},
      [](std::string below) {
        Meeting<Ended>(below)->orphan = getpid();
        sleep_for_ever();
      },
      path);
  child.start();
  await(ended->orphan);
  ended->ready = 1;
  sleep_for_ever();
}

// No exit handlers, no destructors; what it had started lives on.
TEST_P(ConformanceProcess, TerminateRunsNothingAndLeavesOrphans) {
  const Meeting<Ended> ended;
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  Process process = started(method(), &be_terminated, ended.path());
  await(ended->ready);
  const Pidfd orphan = Pidfd::open(ended->orphan);
  process.terminate();
  EXPECT_TRUE(process.join(kPatience));
  EXPECT_EQ(process.exitcode(), -SIGTERM);
  EXPECT_EQ(ended->at_exit, 0);
  EXPECT_EQ(ended->unwound, 0);
  EXPECT_FALSE(orphan.wait(now));
  orphan.signal(SIGKILL);
  EXPECT_TRUE(orphan.wait(kPatience));
  // The orphan, and a forkserver that began while we took in all orphans.
  forkserver::stop();
  while (waitpid(-1, nullptr, 0) > 0) {
  }
  prctl(PR_SET_CHILD_SUBREAPER, 0);
}

TEST_P(ConformanceProcess, ASentinelGoesIntoWait) {
  Process lives = started(method(), &sleep_for_ever);
  Process ends = started(method(), &sleep_for_ever);
  EXPECT_THAT(wait({lives.sentinel(), ends.sentinel()}, now), IsEmpty());
  ends.kill();
  EXPECT_THAT(wait({lives.sentinel(), ends.sentinel()}, kPatience),
              ElementsAre(1));
  lives.kill();
}

TEST_P(ConformanceProcess, ARelativeIsJoinedForNegativeTimeAtOnce) {
  Process child = started(method(), &sleep_for_ever);
  const auto active = active_children();
  EXPECT_EQ(active.size(), 1u);
  for (const auto& info : active) EXPECT_FALSE(info.join(-1000h));
  EXPECT_FALSE(child.join(-1000h));
  child.kill();
  EXPECT_TRUE(child.join(kPatience));
  for (const auto& info : active)
    EXPECT_TRUE(info.join(-1000h)) << "it has ended";
  EXPECT_EQ(run_by(method(), [] { exit(parent_process()->join(-1000h)); }), 0);
}

// Row j. The item is in shared memory when put() returns.
TEST_P(ConformanceProcess, PutsAMegabyteAndIsJoinedBeforeAnybodyReads) {
  Queue<std::string> queue;
  const auto status = run_by(
      method(),
      [](Queue<std::string> out) {
        out.put(std::string(1 << 20, 'm'));
        out.cancel_join_thread();  // nothing is lost by it
      },
      queue);
  ASSERT_EQ(status, 0);
  EXPECT_EQ(queue.get_nowait(), std::string(1 << 20, 'm'));
  EXPECT_TRUE(queue.empty());
}

// multiprocessing: RuntimeError for a fork's semaphore in a spawned child.
TEST_P(ConformanceProcess, TakesEverySynchronisationObjectAsAnArgument) {
  Lock lock;
  RLock rlock;
  Semaphore semaphore(0);
  BoundedSemaphore bounded(1);
  Condition condition;
  Event event;
  Barrier barrier(2);
  Process process(
      ProcessOptions{.start_method = method()},
      [](Lock lock, RLock rlock, Semaphore semaphore, BoundedSemaphore bounded,
         Condition condition, Event event, Barrier barrier) {
        if (lock.acquire(now) || rlock.acquire(now)) exit(10);
        if (bounded.acquire(now)) exit(11);
        {
          const std::lock_guard guard(condition);
          condition.notify();
        }
        semaphore.release();
        event.wait(kPatience);
        exit(barrier.wait(kPatience) == 1 ? 0 : 12);
      },
      lock, rlock, semaphore, bounded, condition, event, barrier);
  lock.acquire();
  rlock.acquire();
  bounded.acquire();
  {
    const std::lock_guard guard(condition);
    process.start();
    EXPECT_TRUE(condition.wait(kPatience));
  }
  EXPECT_TRUE(semaphore.acquire(kPatience));
  // The child goes on once this thread has come, and so is the second.
  Process setter(
      ProcessOptions{.start_method = method()},
      [](Barrier barrier, Event event) {
        if (eventually([&] { return barrier.n_waiting() == 1; })) event.set();
      },
      barrier, event);
  setter.start();
  EXPECT_EQ(barrier.wait(kPatience), 0);
  EXPECT_TRUE(process.join(kPatience));
  EXPECT_EQ(process.exitcode(), 0);
  EXPECT_TRUE(setter.join(kPatience));
  lock.release();
  rlock.release();
  bounded.release();
}

struct Late {
  Semaphore semaphore;
  Event event;
};

// multiprocessing: "only be shared between processes through inheritance".
TEST_P(ConformanceProcess, IsSentSynchronisationObjectsThatAreYoungerThanIt) {
  Queue<Late> queue;
  Process process = started(
      method(),
      [](Queue<Late> in) {
        Late late = in.get(kPatience);
        if (!late.semaphore.acquire(kPatience)) exit(1);
        late.event.set();
      },
      queue);
  Late late{Semaphore(0), Event()};
  queue.put(late);
  EXPECT_FALSE(late.event.wait(10ms));
  late.semaphore.release();
  EXPECT_TRUE(late.event.wait(kPatience));
  EXPECT_TRUE(process.join(kPatience));
  EXPECT_EQ(process.exitcode(), 0);
}

}  // namespace
}  // namespace shoal
