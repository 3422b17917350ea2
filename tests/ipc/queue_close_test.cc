// Queue<T>: the end of one handle, and of the queue for everyone.

#include <array>
#include <cstddef>
#include <deque>
#include <optional>
#include <type_traits>
#include <vector>

#include "gtest/gtest.h"
#include "shoal/ipc/queue.h"
#include "tests/support/thread.h"

namespace {

using shoal::Closed;
using shoal::forever;
using shoal::Loan;
using shoal::now;
using shoal::Queue;
using shoal::ShutDown;
using shoal::Taken;
using shoal::support::Thread;

const std::vector<std::size_t> kSizes = {1, 2, 3, 5, 7, 1000};

// ---- close ----

// Every call that a closed or shut down handle refuses.
template <class Expected>
void refuses_puts(Queue<int>& queue) {
  const std::array<int, 2> values{};
  EXPECT_THROW(queue.put(1), Expected);
  EXPECT_THROW(queue.put(1, now), Expected);
  EXPECT_THROW(queue.put_nowait(1), Expected);
  EXPECT_THROW(queue.put_many(values), Expected);
  EXPECT_THROW(queue.loan(), Expected);
}
template <class Expected>
void refuses_gets(Queue<int>& queue) {
  std::array<int, 2> values{};
  EXPECT_THROW(queue.get(), Expected);
  EXPECT_THROW(queue.get(now), Expected);
  EXPECT_THROW(queue.get_nowait(), Expected);
  EXPECT_THROW(queue.try_get(), Expected);
  EXPECT_THROW(queue.get_many(values), Expected);
  EXPECT_THROW(queue.take(), Expected);
}

TEST(QueueClose, LaterCallsThrowClosed) {
  Queue<int> queue(3);
  queue.put(1);
  queue.close();
  refuses_puts<Closed>(queue);
  refuses_gets<Closed>(queue);
  EXPECT_THROW(queue.try_put(1), Closed);
  EXPECT_THROW(queue.shutdown(), Closed);
  EXPECT_THROW(
      try { queue.get(); } catch (const ShutDown&) {
        ADD_FAILURE() << "nobody has shut it down";
      },
      Closed);
  queue.close();
  queue.join_thread();
  queue.cancel_join_thread();
}

TEST(QueueClose, CopiesStayOpen) {
  Queue<int> queue(3);
  Queue<int> copy(queue);
  Queue<int> assigned(1);
  assigned = queue;
  queue.put(1);
  queue.close();
  EXPECT_EQ(copy.get(), 1);
  copy.put(2);
  EXPECT_EQ(assigned.get(), 2);
}

TEST(QueueClose, ValuesStayInTheQueue) {
  Queue<int> queue(3);
  Queue<int> copy(queue);
  queue.put(1);
  queue.close();
  EXPECT_EQ(copy.qsize(), 1u);
  EXPECT_EQ(copy.get(), 1);
}

// Blocks `call` on a handle, closes it, and expects Closed from the call while
// the same call on another handle goes on.
template <class Call>
void close_wakes(Queue<int>& queue, const Call& call) {
  Queue<int> mine(queue);
  Queue<int> other(queue);
  Thread blocked([&] { EXPECT_THROW(call(mine), Closed); });
  Thread bystander([&] { EXPECT_NO_THROW(call(other)); });
  ASSERT_TRUE(blocked.falls_asleep());
  ASSERT_TRUE(bystander.falls_asleep());
  mine.close();
  ASSERT_TRUE(blocked.ends());
  EXPECT_TRUE(bystander.falls_asleep());
  // Room or a value for the one that is left.
  if (queue.full())
    queue.get();
  else
    queue.put(1);
  EXPECT_TRUE(bystander.ends());
}

TEST(QueueClose, WakesBlockedGetsOfThisHandle) {
  Queue<int> queue(1);
  close_wakes(queue, [](Queue<int>& handle) { handle.get(); });
  close_wakes(queue, [](Queue<int>& handle) { handle.try_get(forever); });
  close_wakes(queue, [](Queue<int>& handle) { handle.take(); });
  close_wakes(queue, [](Queue<int>& handle) {
    std::array<int, 3> values;
    handle.get_many(values);
  });
}

TEST(QueueClose, WakesBlockedPutsOfThisHandle) {
  const auto check = [](const auto& call) {
    Queue<int> queue(1);
    queue.put(1);
    close_wakes(queue, call);
  };
  check([](Queue<int>& handle) { handle.put(2); });
  check([](Queue<int>& handle) { handle.loan(); });
  check([](Queue<int>& handle) { handle.put_many(std::array<int, 2>{}); });
  // try_put gives false for full and shut down, but a closed handle throws.
  check([](Queue<int>& handle) { handle.try_put(2, forever); });
}

TEST(QueueClose, WakesAllBlockedCallsOfThisHandle) {
  Queue<int> queue(1);
  std::deque<Thread> getters;
  for (int i = 0; i < 8; ++i)
    getters.emplace_back([&] { EXPECT_THROW(queue.get(), Closed); });
  for (auto& getter : getters) ASSERT_TRUE(getter.falls_asleep());
  queue.close();
  for (auto& getter : getters) EXPECT_TRUE(getter.ends());
}

TEST(QueueClose, LeasesCanStillBeEnded) {
  Queue<int> queue(2);
  Queue<int> copy(queue);
  auto loan = queue.loan();
  queue.close();
  *loan = 4;
  loan.publish();
  auto taken = copy.take();
  copy.close();
  EXPECT_EQ(*taken, 4);
}

// ---- shutdown ----

TEST(QueueShutdown, DrainsThenThrows) {
  for (const std::size_t maxsize : kSizes) {
    Queue<int> queue(maxsize);
    Queue<int> copy(queue);
    for (std::size_t i = 0; i < maxsize; ++i) queue.put(static_cast<int>(i));
    queue.shutdown();
    refuses_puts<ShutDown>(queue);
    refuses_puts<ShutDown>(copy);
    EXPECT_FALSE(queue.try_put(1));
    EXPECT_FALSE(queue.try_put(1, forever)) << "does not wait for room";
    EXPECT_EQ(queue.qsize(), maxsize);
    for (std::size_t i = 0; i < maxsize; ++i)
      EXPECT_EQ(copy.get(), static_cast<int>(i));
    refuses_gets<ShutDown>(queue);
    refuses_gets<ShutDown>(copy);
    EXPECT_THROW(queue.try_get(forever), ShutDown);
    EXPECT_EQ(queue.qsize(), 0u);
    EXPECT_TRUE(queue.empty());
    EXPECT_FALSE(queue.full()) << "maxsize " << maxsize;
  }
}

TEST(QueueShutdown, IsAKindOfClosed) {
  Queue<int> queue(1);
  queue.shutdown();
  EXPECT_THROW(queue.get(), Closed);
  EXPECT_THROW(queue.put(1), Closed);
  static_assert(std::is_base_of_v<Closed, ShutDown>);
}

TEST(QueueShutdown, DrainsByEveryVerb) {
  Queue<int> queue(10);
  for (int i = 0; i < 10; ++i) queue.put(i);
  queue.shutdown();
  EXPECT_EQ(queue.get(), 0);
  EXPECT_EQ(queue.try_get(), 1);
  EXPECT_EQ(*queue.take(), 2);
  std::array<int, 100> values{};
  EXPECT_EQ(queue.get_many(values), 7u);
  EXPECT_EQ(values[6], 9);
  refuses_gets<ShutDown>(queue);
}

TEST(QueueShutdown, ImmediateDiscards) {
  Queue<int> queue(3);
  Queue<int> copy(queue);
  queue.put(1);
  queue.put(2);
  queue.shutdown(true);
  EXPECT_EQ(queue.qsize(), 0u);
  EXPECT_TRUE(queue.empty());
  refuses_gets<ShutDown>(copy);
  refuses_puts<ShutDown>(copy);
}

TEST(QueueShutdown, ImmediateAfterDrainingDiscardsTheRest) {
  Queue<int> queue(3);
  queue.put(1);
  queue.put(2);
  queue.shutdown();
  EXPECT_EQ(queue.get(), 1);
  queue.shutdown(true);
  refuses_gets<ShutDown>(queue);
  queue.shutdown(false);
  refuses_gets<ShutDown>(queue);
}

template <class Call>
void all_wake_with_shut_down(Queue<int>& queue, bool immediate,
                             const Call& call) {
  std::deque<Queue<int>> handles;
  std::deque<Thread> blocked;
  for (int i = 0; i < 6; ++i) {
    Queue<int>& handle = handles.emplace_back(queue);
    blocked.emplace_back([&] { EXPECT_THROW(call(handle), ShutDown); });
  }
  for (auto& thread : blocked) ASSERT_TRUE(thread.falls_asleep());
  queue.shutdown(immediate);
  for (auto& thread : blocked) EXPECT_TRUE(thread.ends());
}

TEST(QueueShutdown, WakesAllGetters) {
  for (const bool immediate : {false, true}) {
    const auto check = [&](const auto& call) {
      Queue<int> queue(2);
      all_wake_with_shut_down(queue, immediate, call);
    };
    check([](Queue<int>& handle) { handle.get(); });
    check([](Queue<int>& handle) { handle.try_get(forever); });
    check([](Queue<int>& handle) { handle.take(); });
    check([](Queue<int>& handle) {
      std::array<int, 2> values;
      handle.get_many(values);
    });
  }
}

TEST(QueueShutdown, WakesAllPutters) {
  for (const bool immediate : {false, true}) {
    const auto check = [&](const auto& call) {
      Queue<int> queue(1);
      queue.put(1);
      all_wake_with_shut_down(queue, immediate, call);
      EXPECT_EQ(queue.qsize(), immediate ? 0u : 1u);
    };
    check([](Queue<int>& handle) { handle.put(2); });
    check([](Queue<int>& handle) { handle.loan(); });
    check([](Queue<int>& handle) { handle.put_many(std::array<int, 2>{}); });
    check([](Queue<int>& handle) {
      if (!handle.try_put(2, forever)) throw ShutDown("as if");
    });
  }
}

TEST(QueueShutdown, LoanOfBeforeIsDelivered) {
  Queue<int> queue(3);
  auto loan = queue.loan();
  queue.shutdown();
  Thread getter([&] {
    EXPECT_EQ(queue.get(), 3);
    EXPECT_THROW(queue.get(), ShutDown);
  });
  EXPECT_TRUE(getter.falls_asleep()) << "the value may still come";
  *loan = 3;
  loan.publish();
  EXPECT_TRUE(getter.ends());
}

TEST(QueueShutdown, DroppedLoanOfBeforeIsNotWaitedFor) {
  Queue<int> queue(3);
  std::optional<Loan<int>> loan(queue.loan());
  queue.shutdown();
  Thread getter([&] { EXPECT_THROW(queue.get(), ShutDown); });
  EXPECT_TRUE(getter.falls_asleep());
  loan.reset();
  EXPECT_TRUE(getter.ends());
}

TEST(QueueShutdown, ValueInOtherHandsIsWaitedFor) {
  Queue<int> queue(3);
  queue.put(1);
  std::optional<Taken<int>> taken(queue.take());
  queue.shutdown();
  Thread getter([&] { EXPECT_THROW(queue.get(), ShutDown); });
  EXPECT_TRUE(getter.falls_asleep()) << "the value may come back";
  taken.reset();
  EXPECT_TRUE(getter.ends());
}

TEST(QueueShutdown, ImmediateDoesNotWaitForLeases) {
  Queue<int> queue(3);
  queue.put(1);
  auto taken = queue.take();
  auto loan = queue.loan();
  queue.shutdown(true);
  refuses_gets<ShutDown>(queue);
  EXPECT_EQ(*taken, 1);
  loan.publish();
  refuses_gets<ShutDown>(queue);
}

}  // namespace
