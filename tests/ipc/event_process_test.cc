// Event between processes.

#include <signal.h>
#include <stdlib.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <deque>
#include <random>
#include <thread>

#include "gtest/gtest.h"
#include "shoal/ipc/event.h"
#include "tests/support/child.h"
#include "tests/support/name.h"
#include "tests/support/thread.h"

namespace {

using shoal::Event;
using shoal::now;
using shoal::support::Child;
using shoal::support::eventually;
using shoal::support::falls_asleep;
using shoal::support::Name;
using shoal::support::Shared;
using namespace std::chrono_literals;

TEST(EventProcess, LetsGoOtherProcesses) {
  Event event;
  std::deque<Child> waiters;
  for (int i = 0; i < 4; ++i)
    waiters.emplace_back(
        [&](Child& self) { self.expect(event.wait(), "set"); });
  for (auto& waiter : waiters)
    ASSERT_TRUE(falls_asleep(waiter.pid(), waiter.pid()));
  Child setter([&](Child&) { event.set(); });
  for (auto& waiter : waiters) EXPECT_EQ(waiter.join(), 0) << waiter.failures();
  EXPECT_EQ(setter.join(), 0);
  EXPECT_TRUE(event.is_set());
}

// Row h of notes/multiprocessing.md: set() hangs there.
TEST(EventProcess, ADeadWaiterIsNotWaitedFor) {
  Event event;
  Child dead([&](Child&) { event.wait(); });
  Child living([&](Child& self) { self.expect(event.wait(), "set"); });
  ASSERT_TRUE(falls_asleep(dead.pid(), dead.pid()));
  ASSERT_TRUE(falls_asleep(living.pid(), living.pid()));
  dead.kill();
  ASSERT_EQ(dead.join(), -SIGKILL);
  const std::int64_t start = shoal::monotonic_now();
  event.set();
  EXPECT_LT(std::chrono::nanoseconds(shoal::monotonic_now() - start), 1s);
  EXPECT_EQ(living.join(), 0) << living.failures();
}

TEST(EventProcess, AStoppedWaiterIsLetGoLater) {
  Event event;
  Child waiter([&](Child& self) { self.expect(event.wait(), "was set"); });
  ASSERT_TRUE(falls_asleep(waiter.pid(), waiter.pid()));
  waiter.kill(SIGSTOP);
  int status = 0;
  ASSERT_EQ(waitpid(waiter.pid(), &status, WUNTRACED), waiter.pid());
  event.set();
  event.clear();
  std::this_thread::sleep_for(300ms);  // longer than any slice of a wait
  waiter.kill(SIGCONT);
  EXPECT_EQ(waiter.join(), 0) << waiter.failures();
}

const Event* handled = nullptr;

// Handlers that set, in the midst of malloc, of waits and of set itself, while
// another process waits for each of them.
TEST(EventProcess, HandlersSetAnywhere) {
  Event ping;
  Event pong;
  Event local;
  Shared<std::atomic<bool>> end;
  Child worker([&](Child&) {
    handled = &ping;
    struct sigaction action = {};
    action.sa_handler = [](int) { handled->set(); };
    sigaction(SIGALRM, &action, nullptr);
    const itimerval often = {{0, 50}, {0, 50}};
    setitimer(ITIMER_REAL, &often, nullptr);
    while (!*end) {
      free(malloc(1 + 1000 * static_cast<std::size_t>(local.is_set())));
      local.set();
      local.clear();
      pong.wait(20us);
      pong.clear();
    }
    const itimerval never = {};
    setitimer(ITIMER_REAL, &never, nullptr);
  });
  for (int i = 0; i < 1000; ++i) {
    ASSERT_TRUE(ping.wait(30s));
    ping.clear();
    pong.set();
  }
  *end = true;
  EXPECT_EQ(worker.join(), 0) << worker.failures();
}

// Setters are killed at any moment: whoever waits sees the event set, or a
// later setter.
TEST(EventProcess, RandomKills) {
  Event event;
  std::mt19937 random(5);
  std::deque<Child> waiters;
  Shared<std::atomic<std::uint64_t>> seen;
  Shared<std::atomic<bool>> end;
  for (int i = 0; i < 2; ++i)
    waiters.emplace_back([&](Child& self) {
      while (!*end) {
        self.expect(event.wait(20s), "LOST: nobody told of a set()");
        ++*seen;
      }
    });
  for (int kills = 0; kills < 100; ++kills) {
    const std::uint64_t before = *seen;
    Child setter([&](Child&) {
      for (;;) {
        event.set();
        event.clear();
      }
    });
    ASSERT_TRUE(eventually([&] { return *seen > before + random() % 50; }));
    setter.kill();
    ASSERT_EQ(setter.join(), -SIGKILL);
    event.clear();
  }
  *end = true;
  event.set();
  for (auto& waiter : waiters) EXPECT_EQ(waiter.join(), 0) << waiter.failures();
}

TEST(EventProcess, UnrelatedOpenersOfOneName) {
  const Name name("event");
  Child creator([&](Child& self) {
    auto event = Event::open_or_create(name);
    self.expect(event.wait(30s), "set by another process");
  });
  Child setter([&](Child&) { Event::open_or_create(name).set(); });
  EXPECT_EQ(creator.join(), 0) << creator.failures();
  EXPECT_EQ(setter.join(), 0) << setter.failures();
  EXPECT_TRUE(Event::open(name).is_set()) << "its users are gone, it is not";
}

}  // namespace
