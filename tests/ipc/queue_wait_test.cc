// Queue<T>: how long its calls wait, and what wakes them.

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <optional>

#include "gmock/gmock.h"
#include "shoal/ipc/queue.h"
#include "tests/support/child.h"
#include "tests/support/thread.h"

namespace {

using shoal::Empty;
using shoal::Full;
using shoal::monotonic_now;
using shoal::now;
using shoal::Queue;
using shoal::Taken;
using shoal::Timeout;
using shoal::support::Thread;
using testing::AllOf;
using testing::HasSubstr;
using namespace std::chrono_literals;

// ---- timeouts ----

constexpr auto kShort = 40ms;
// Generous: other tests run beside this one.
constexpr auto kAbsurd = 10s;

// `call` must end with `Expected` after kShort.
template <class Expected, class Call>
void ends_in_time(Call&& call) {
  const std::int64_t start = monotonic_now();
  EXPECT_THROW(call(Timeout(kShort)), Expected);
  const std::chrono::nanoseconds took(monotonic_now() - start);
  EXPECT_GE(took, kShort);
  EXPECT_LT(took, kAbsurd);
}

// `call` must end with `Expected` at once: any wait for these would be for
// ever, or for 1,000 hours.
template <class Expected, class Call>
void ends_at_once(Call&& call) {
  for (const Timeout timeout : {now, Timeout(-1ns), Timeout(-1000h),
                                Timeout(std::chrono::nanoseconds::min())})
    EXPECT_THROW(call(timeout), Expected);
}

TEST(QueueTimeout, WhileFull) {
  Queue<int> queue(2);
  queue.put(1);
  queue.put(2);
  const auto check = [](auto&& call) {
    ends_in_time<Full>(call);
    ends_at_once<Full>(call);
  };
  const std::array<int, 3> values{};
  check([&](Timeout t) { queue.put(3, t); });
  check([&](Timeout t) { queue.put_many(values, t); });
  check([&](Timeout t) { queue.loan(t); });
  check([&](Timeout t) {
    if (!queue.try_put(3, t)) throw Full("as if");
  });
  EXPECT_THROW(queue.put_nowait(3), Full);
  EXPECT_EQ(queue.qsize(), 2u);
  EXPECT_EQ(queue.get(), 1);
  EXPECT_EQ(queue.get(), 2);
}

TEST(QueueTimeout, WhileEmpty) {
  Queue<int> queue(2);
  const auto check = [](auto&& call) {
    ends_in_time<Empty>(call);
    ends_at_once<Empty>(call);
  };
  std::array<int, 3> values{};
  check([&](Timeout t) { queue.get(t); });
  check([&](Timeout t) { queue.get_many(values, t); });
  check([&](Timeout t) { queue.take(t); });
  check([&](Timeout t) {
    if (!queue.try_get(t)) throw Empty("as if");
  });
  EXPECT_THROW(queue.get_nowait(), Empty);
  queue.put(5);
  EXPECT_EQ(queue.get(now), 5) << "the queue is none the worse";
}

TEST(QueueTimeout, TextsSayWhat) {
  Queue<int> queue(3);
  EXPECT_THROW(
      try { queue.get(now); } catch (const Empty& error) {
        EXPECT_THAT(error.what(), HasSubstr("empty"));
        throw;
      },
      shoal::Error);
  queue.put_many(std::array<int, 3>{});
  EXPECT_THROW(
      try { queue.put(1, now); } catch (const Full& error) {
        EXPECT_THAT(error.what(), AllOf(HasSubstr("full"), HasSubstr("3")));
        throw;
      },
      shoal::Error);
}

TEST(QueueTimeout, ReachedWhileBehindALoan) {
  Queue<int> queue(4);
  auto open = queue.loan();
  queue.put(2);
  Thread other([&] { ends_in_time<Empty>([&](Timeout t) { queue.get(t); }); });
  ASSERT_TRUE(other.ends());
}

void ignore(int) {}

TEST(QueueTimeout, SignalsNeitherEndNorStretchAWait) {
  struct sigaction action {};
  struct sigaction before {};
  action.sa_handler = ignore;  // and no SA_RESTART
  sigaction(SIGUSR1, &action, &before);
  Queue<int> queue(1);
  pthread_t self{};
  std::atomic<bool> known{false};
  Thread getter([&] {
    self = pthread_self();
    known.store(true, std::memory_order_release);
    const std::int64_t start = monotonic_now();
    EXPECT_THROW(queue.get(200ms), Empty);
    EXPECT_GE(monotonic_now() - start, 200'000'000);
    EXPECT_LT(monotonic_now() - start, Timeout(kAbsurd).nanoseconds());
  });
  ASSERT_TRUE(shoal::support::eventually(
      [&] { return known.load(std::memory_order_acquire); }));
  int sent = 0;
  while (!getter.ended() && sent < 100'000) {
    if (shoal::support::asleep(getpid(), getter.id()))
      sent += pthread_kill(self, SIGUSR1) == 0;
    shoal::support::yield_cpu();
  }
  EXPECT_GT(sent, 0);
  ASSERT_TRUE(getter.ends());
  sigaction(SIGUSR1, &before, nullptr);
}

// ---- blocked calls ----

TEST(QueueBlocked, GetIsWokenByPut) {
  Queue<int> queue(1);
  Thread getter([&] { EXPECT_EQ(queue.get(), 11); });
  ASSERT_TRUE(getter.falls_asleep());
  queue.put(11);
  EXPECT_TRUE(getter.ends());
}

TEST(QueueBlocked, PutIsWokenByGet) {
  Queue<int> queue(1);
  queue.put(1);
  Thread putter([&] { queue.put(2); });
  ASSERT_TRUE(putter.falls_asleep());
  EXPECT_EQ(queue.get(), 1);
  EXPECT_TRUE(putter.ends());
  EXPECT_EQ(queue.get(), 2);
}

TEST(QueueBlocked, TakeIsWokenByPublish) {
  Queue<int> queue(1);
  Thread taker([&] { EXPECT_EQ(*queue.take(), 5); });
  ASSERT_TRUE(taker.falls_asleep());
  auto loan = queue.loan();
  *loan = 5;
  loan.publish();
  EXPECT_TRUE(taker.ends());
}

TEST(QueueBlocked, LoanIsWokenByTheEndOfTaken) {
  Queue<int> queue(1);
  queue.put(1);
  std::optional<Taken<int>> taken(queue.take());
  Thread lender([&] {
    auto loan = queue.loan();
    *loan = 2;
    loan.publish();
  });
  ASSERT_TRUE(lender.falls_asleep());
  taken.reset();
  EXPECT_TRUE(lender.ends());
  EXPECT_EQ(queue.get(), 2);
}

TEST(QueueBlocked, ManyGettersGetOneEach) {
  Queue<int> queue(8);
  std::atomic<int> sum{0};
  std::deque<Thread> getters;
  for (int i = 0; i < 8; ++i) getters.emplace_back([&] { sum += queue.get(); });
  for (auto& getter : getters) ASSERT_TRUE(getter.falls_asleep());
  for (int i = 0; i < 8; ++i) queue.put(1 << i);
  for (auto& getter : getters) ASSERT_TRUE(getter.ends());
  EXPECT_EQ(sum.load(), 255);
}

TEST(QueueBlocked, PutManyWakesAsManyAsItBrings) {
  Queue<int> queue(8);
  std::atomic<int> sum{0};
  std::deque<Thread> getters;
  for (int i = 0; i < 4; ++i) getters.emplace_back([&] { sum += queue.get(); });
  for (auto& getter : getters) ASSERT_TRUE(getter.falls_asleep());
  EXPECT_EQ(queue.put_many(std::array<int, 4>{1, 2, 4, 8}), 4u);
  for (auto& getter : getters) ASSERT_TRUE(getter.ends());
  EXPECT_EQ(sum.load(), 15);
}

}  // namespace
