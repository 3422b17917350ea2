// Event in one process.

#include "shoal/ipc/event.h"

#include <errno.h>
#include <signal.h>

#include <chrono>
#include <memory>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "tests/support/thread.h"

namespace {

using shoal::Event;
using shoal::forever;
using shoal::monotonic_now;
using shoal::now;
using shoal::support::Thread;
using namespace std::chrono_literals;

constexpr auto kShort = 40ms;
constexpr auto kAbsurd = 10s;

TEST(Event, AgainstAFlag) {
  std::mt19937 random(7);
  Event event;
  bool model = false;
  for (int i = 0; i < 20000; ++i) {
    switch (random() % 4) {
      case 0:
        event.set();
        model = true;
        break;
      case 1:
        event.clear();
        model = false;
        break;
      case 2:
        ASSERT_EQ(event.wait(now), model);
        break;
      default:
        ASSERT_EQ(event.wait(-1s), model);
    }
    ASSERT_EQ(event.is_set(), model);
  }
}

TEST(Event, SetEventDoesNotBlock) {
  const Event event;  // a constant handle is a handle
  event.set();
  EXPECT_TRUE(event.wait());
  EXPECT_TRUE(event.wait(forever)) << "waiting does not clear it";
}

TEST(Event, CopiesAreTheSame) {
  Event event;
  Event copy(event);
  copy.set();
  EXPECT_TRUE(event.is_set());
  Event other;
  other = event;
  other.clear();
  EXPECT_FALSE(copy.is_set());
}

TEST(Event, SetWakesAll) {
  Event event;
  int published = 0;
  std::vector<std::unique_ptr<Thread>> waiters;
  for (int i = 0; i < 5; ++i)
    waiters.push_back(std::make_unique<Thread>([&] {
      EXPECT_TRUE(event.wait());
      EXPECT_EQ(published, 7) << "what came before set() is visible";
    }));
  for (auto& waiter : waiters) ASSERT_TRUE(waiter->falls_asleep());
  published = 7;
  event.set();
  for (auto& waiter : waiters) EXPECT_TRUE(waiter->ends());
}

// Python would answer False here, and sleep on.
TEST(Event, SetAndClearAtOnceLetsGoThoseWhoWaited) {
  Event event;
  for (int round = 0; round < 20; ++round) {
    Thread first([&] { EXPECT_TRUE(event.wait()); });
    Thread second([&] { EXPECT_TRUE(event.wait(30s)); });
    ASSERT_TRUE(first.falls_asleep());
    ASSERT_TRUE(second.falls_asleep());
    event.set();
    event.clear();
    EXPECT_TRUE(first.ends());
    EXPECT_TRUE(second.ends());
    EXPECT_FALSE(event.wait(now)) << "but nobody who comes later";
  }
}

TEST(Event, TimeoutIsNeitherEarlyNorAbsurdlyLate) {
  Event event;
  const std::int64_t start = monotonic_now();
  EXPECT_FALSE(event.wait(kShort));
  const std::chrono::nanoseconds took(monotonic_now() - start);
  EXPECT_GE(took, kShort);
  EXPECT_LT(took, kAbsurd);
}

// ---- in signal handlers ----

const Event* handled = nullptr;
void set_it(int) { handled->set(); }

class OnSignal {
 public:
  explicit OnSignal(const Event& event) {
    handled = &event;
    struct sigaction action = {};
    action.sa_handler = set_it;
    sigaction(SIGUSR1, &action, &before_);
  }
  ~OnSignal() { sigaction(SIGUSR1, &before_, nullptr); }

 private:
  struct sigaction before_;
};

TEST(Event, AHandlerEndsTheWaitThatItInterrupts) {
  Event event;
  const OnSignal on_signal(event);
  Thread waiter([&] { EXPECT_TRUE(event.wait()); });
  ASSERT_TRUE(waiter.falls_asleep());
  ASSERT_EQ(tgkill(getpid(), waiter.id(), SIGUSR1), 0);
  EXPECT_TRUE(waiter.ends());
}

TEST(Event, AHandlerInterruptsWaitSetAndClearAnywhere) {
  Event event;
  const OnSignal on_signal(event);
  std::atomic<bool> end{false};
  std::atomic<int> rounds{0};
  Thread worker([&] {
    for (; !end; ++rounds) {
      event.clear();
      EXPECT_TRUE(event.wait()) << "only the handler sets it";
    }
  });
  for (int i = 0; i < 3000; ++i)
    ASSERT_EQ(tgkill(getpid(), worker.id(), SIGUSR1), 0);
  end = true;
  while (!worker.ended()) tgkill(getpid(), worker.id(), SIGUSR1);
  EXPECT_GT(rounds, 0);
}

TEST(Event, SetKeepsErrnoAndThePendingWakeOfWhatItInterrupts) {
  Event event;
  auto* robust = shoal::liveness::find_robust_list();
  ASSERT_NE(robust, nullptr);
  Thread sleeper([&] { event.wait(); });
  ASSERT_TRUE(sleeper.falls_asleep());
  robust_list pending;
  robust->list_op_pending = &pending;
  errno = 1234;
  event.set();
  EXPECT_EQ(errno, 1234);
  EXPECT_EQ(robust->list_op_pending, &pending);
  robust->list_op_pending = nullptr;
  EXPECT_TRUE(sleeper.ends());
}

TEST(Event, SetByAThreadThatNeverUsedShoalTakesNoSeat) {
  Event event;
  Thread waiter([&] { EXPECT_TRUE(event.wait()); });
  ASSERT_TRUE(waiter.falls_asleep());
  auto& domain = shoal::HandleAccess::object(event)->domain();
  const auto taken = domain.seats_taken();
  Thread setter([&] {
    event.clear();
    EXPECT_FALSE(event.is_set());
    event.set();
    EXPECT_LE(domain.seats_taken(), taken) << "the setter has no seat";
  });
  EXPECT_TRUE(setter.ends());
  EXPECT_TRUE(waiter.ends());
}

}  // namespace
