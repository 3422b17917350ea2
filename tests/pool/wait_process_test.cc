// shoal::wait() over everything that it takes.

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <numeric>
#include <optional>
#include <stdexcept>
#include <system_error>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/event.h"
#include "shoal/ipc/fd.h"
#include "shoal/ipc/process.h"
#include "shoal/ipc/queue.h"
#include "shoal/ipc/wait.h"
#include "shoal/pool/pool.h"
#include "tests/support/child.h"
#include "tests/support/name.h"
#include "tests/support/thread.h"

namespace {

using shoal::AsyncResult;
using shoal::Event;
using shoal::Fd;
using shoal::now;
using shoal::Pool;
using shoal::Process;
using shoal::Queue;
using shoal::Waitable;
using shoal::support::Child;
using shoal::support::kPatience;
using shoal::support::Name;
using shoal::support::Thread;
using testing::ElementsAre;
using testing::IsEmpty;
using namespace std::chrono_literals;

struct Pipe {
  Pipe() {
    int both[2];
    if (pipe2(both, O_CLOEXEC) != 0)
      throw std::system_error(errno, std::generic_category());
    reader = Fd(both[0]);
    writer = Fd(both[1]);
  }
  void write() const {
    if (::write(writer.get(), "x", 1) != 1) throw std::runtime_error("write");
  }
  Fd reader, writer;
};

TEST(Wait, NothingIsReady) {
  Queue<int> queue(1);
  Event event;
  const Pipe pipe;
  Process process([] { pause(); });
  process.start();
  EXPECT_THAT(shoal::wait({queue, event, pipe.reader.get(), process}, now),
              IsEmpty());
  EXPECT_THAT(shoal::wait({queue, event, pipe.reader.get(), process}, -1s),
              IsEmpty());
  EXPECT_THAT(shoal::wait({queue, event, pipe.reader.get(), process}, 5ms),
              IsEmpty());
  EXPECT_THAT(shoal::wait({queue, event}, 5ms), IsEmpty());
  EXPECT_THAT(shoal::wait({pipe.reader.get()}, 5ms), IsEmpty());
  process.kill();
  EXPECT_THAT(shoal::wait({queue, process}, kPatience), ElementsAre(1));
}

TEST(Wait, AllThatIsReadyInAscendingOrder) {
  Queue<int> queue(1);
  Queue<int> empty(1);
  Event event;
  const Pipe pipe;
  queue.put(1);
  event.set();
  pipe.write();
  EXPECT_THAT(
      shoal::wait({pipe.reader.get(), empty, queue, event, empty, queue}, now),
      ElementsAre(0, 2, 3, 5));
  EXPECT_EQ(queue.qsize(), 1u) << "nothing is taken";
}

TEST(Wait, EndsAreReady) {
  Queue<int> queue(1);
  queue.shutdown();
  Pipe pipe;
  pipe.writer = Fd();
  EXPECT_THAT(shoal::wait({queue, pipe.reader.get()}, now), ElementsAre(0, 1));
}

TEST(Wait, Misuse) {
  EXPECT_THAT(shoal::wait({}, 5ms), IsEmpty());
  EXPECT_THROW(shoal::wait({}), std::invalid_argument);
  Pipe pipe;
  const int closed = pipe.reader.get();
  pipe.reader = Fd();
  EXPECT_THROW(shoal::wait({closed}, now), std::system_error);
  Queue<int> queue(1);
  queue.close();
  EXPECT_THROW(shoal::wait({queue}, now), shoal::Closed);
}

// What wakes one that sleeps for all of them.
class WaitAsleep : public testing::Test {
 protected:
  // Whoever is `index` among all of them becomes ready by `act`.
  void expect_woken(std::size_t index, const std::function<void()>& act) {
    std::vector<std::size_t> ready;
    Thread sleeper([&] {
      ready = shoal::wait(
          {queue, pipe.reader.get(), event, process, *result, named},
          kPatience);
    });
    ASSERT_TRUE(sleeper.falls_asleep());
    act();
    ASSERT_TRUE(sleeper.ends());
    EXPECT_THAT(ready, ElementsAre(index));
  }
  void SetUp() override {
    result.emplace(pool.apply_async(
        [](Event begun, Event go) {
          begun.set();
          go.wait(kPatience);
        },
        begun, go));
    process.start();
  }
  void TearDown() override {
    process.kill();
    go.set();
  }

  const Name name{"wait"};
  Event begun, go;
  Queue<int> queue{4};
  Event event;
  const Pipe pipe;
  Queue<int> named = Queue<int>::create(name, 4);
  Process process{[] { pause(); }};
  Pool pool{1};
  std::optional<AsyncResult<void>> result;
};

TEST_F(WaitAsleep, ByAQueue) {
  expect_woken(0, [&] { queue.put(1); });
  queue.get();
  expect_woken(0, [&] { queue.put(1); });
}
TEST_F(WaitAsleep, ByADescriptor) {
  expect_woken(1, [&] { pipe.write(); });
}
TEST_F(WaitAsleep, ByAnEvent) {
  expect_woken(2, [&] { event.set(); });
}
TEST_F(WaitAsleep, ByAProcess) {
  expect_woken(3, [&] { process.kill(); });
}
TEST_F(WaitAsleep, ByAResult) {
  expect_woken(4, [&] { go.set(); });
}
TEST_F(WaitAsleep, ByAResultOfAWorkerThatIsKilled) {
  ASSERT_TRUE(begun.wait(kPatience));  // else the next worker runs it
  expect_woken(4, [&] { kill(pool.workers().front(), SIGKILL); });
}
TEST_F(WaitAsleep, ByANamedQueue) {
  expect_woken(5, [&] { named.put(1); });
}
TEST_F(WaitAsleep, ByAnotherProcess) {
  expect_woken(0, [&] {
    Child child([&](Child&) { queue.put(1); });
    EXPECT_EQ(child.join(), 0);
  });
}

// One that gets and one that waits for several sleep for the same queue.
// A death that nobody else hears of, while it sleeps: of the second of two that
// have taken values.
TEST(Wait, WokenByTheDeathOfWhoHasTaken) {
  Queue<int> queue(4);
  Queue<int> ready(4);
  const auto take = [&](Child&) {
    const auto taken = queue.take();
    ready.put(*taken);
    for (;;) pause();
  };
  queue.put(1);
  queue.put(2);
  Child first(take);
  ready.get(kPatience);
  Child second(take);
  ready.get(kPatience);
  std::optional<std::vector<std::size_t>> found;
  Thread waiter([&] { found = shoal::wait({queue}, kPatience); });
  ASSERT_TRUE(waiter.falls_asleep());
  second.kill();
  ASSERT_TRUE(waiter.ends());
  EXPECT_THAT(*found, ElementsAre(0));
  EXPECT_EQ(queue.get(now), 2);
}

TEST(Wait, BesideAGetter) {
  Queue<int> queue(4);
  Queue<int> other(4);
  for (int round = 0; round < 20; ++round) {
    int got = 0;
    Thread getter([&] { got = queue.get(kPatience); });
    ASSERT_TRUE(getter.falls_asleep());
    Thread waiter([&] { shoal::wait({queue, other}, kPatience); });
    ASSERT_TRUE(waiter.falls_asleep());
    queue.put(7);
    ASSERT_TRUE(getter.ends());
    EXPECT_EQ(got, 7);
    other.put(1);
    ASSERT_TRUE(waiter.ends());
    other.get();
  }
}

TEST(Wait, AThousandMixed) {
  rlimit files{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &files), 0);
  if (files.rlim_cur < 4096) GTEST_SKIP() << "too few descriptors here";
  std::deque<Queue<int>> queues;
  std::deque<Event> events;
  std::deque<Pipe> pipes;
  std::deque<AsyncResult<void>> results;
  Event go;
  Pool pool(1);
  std::vector<Waitable> all;
  for (int n = 0; n < 250; ++n) {
    all.emplace_back(queues.emplace_back(1));
    all.emplace_back(events.emplace_back());
    all.emplace_back(pipes.emplace_back().reader.get());
    results.push_back(pool.apply_async([](Event e) { e.wait(kPatience); }, go));
    all.emplace_back(results.back());
  }
  EXPECT_THAT(shoal::wait(all, 1ms), IsEmpty());
  rusage before{}, after{};
  getrusage(RUSAGE_SELF, &before);
  EXPECT_THAT(shoal::wait(all, 300ms), IsEmpty());
  getrusage(RUSAGE_SELF, &after);
  const auto used = [](const rusage& r) {
    return (r.ru_utime.tv_sec + r.ru_stime.tv_sec) * 1'000'000 +
           r.ru_utime.tv_usec + r.ru_stime.tv_usec;
  };
  EXPECT_LT(used(after) - used(before), 60'000) << "of 300 ms";
  for (const std::size_t index : {0u, 497u, 998u}) {
    std::vector<std::size_t> ready;
    Thread sleeper([&] { ready = shoal::wait(all, kPatience); });
    ASSERT_TRUE(sleeper.falls_asleep());
    if (index % 4 == 0) queues[index / 4].put(1);
    if (index % 4 == 1) events[index / 4].set();
    if (index % 4 == 2) pipes[index / 4].write();
    ASSERT_TRUE(sleeper.ends());
    EXPECT_THAT(ready, testing::Contains(index));
    if (index % 4 == 0) queues[index / 4].get();
    if (index % 4 == 1) events[index / 4].clear();
  }
  go.set();
}

}  // namespace
