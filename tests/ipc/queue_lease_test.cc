// Loan<T> and Taken<T>: values of a queue written and read in place.

#include <unistd.h>

#include <array>
#include <atomic>
#include <memory>
#include <optional>
#include <stdexcept>
#include <type_traits>
#include <utility>

#include "gtest/gtest.h"
#include "shoal/ipc/queue.h"
#include "tests/support/child.h"
#include "tests/support/thread.h"

namespace {

using shoal::Empty;
using shoal::Full;
using shoal::Loan;
using shoal::now;
using shoal::Queue;
using shoal::ShutDown;
using shoal::Taken;
using shoal::support::Child;
using shoal::support::Thread;
using namespace std::chrono_literals;

struct Order {
  int id;
  double price;
  char symbol[8];
};

TEST(QueueLoan, IsDeliveredWhenPublished) {
  Queue<Order> orders(2);
  auto loan = orders.loan();
  loan->id = 3;
  (*loan).price = 1.5;
  EXPECT_EQ(orders.qsize(), 0u);
  EXPECT_FALSE(orders.try_get().has_value());
  loan.publish();
  EXPECT_EQ(orders.qsize(), 1u);
  EXPECT_EQ(orders.get().price, 1.5);
}

TEST(QueueLoan, DroppedNeverHappened) {
  Queue<int> queue(2);
  for (int lap = 0; lap < 5; ++lap) {
    {
      auto loan = queue.loan();
      *loan = 99;
    }
    EXPECT_TRUE(queue.empty());
    EXPECT_FALSE(queue.full());
    queue.put(lap);
    EXPECT_EQ(queue.get(), lap);
  }
}

TEST(QueueLoan, DroppedBetweenValuesIsSkipped) {
  Queue<int> queue(3);
  queue.put(1);
  std::optional<Loan<int>> loan(queue.loan());
  queue.put(3);
  EXPECT_EQ(queue.get(), 1);
  EXPECT_FALSE(queue.try_get().has_value()) << "3 is behind the loan";
  loan.reset();
  EXPECT_EQ(queue.get(), 3);
}

// A cell that two loans in a row have left, a whole lap ahead of an older one.
TEST(QueueLoan, DroppedALapAheadHidesNothing) {
  Queue<int> queue(3);
  std::optional<Loan<int>> first(queue.loan());
  auto second = queue.loan();
  queue.put(3);
  first.reset();
  { auto next_lap = queue.loan(); }
  EXPECT_EQ(queue.qsize(), 1u);
  EXPECT_FALSE(queue.try_get().has_value()) << "3 is behind the second loan";
  *second = 2;
  second.publish();
  EXPECT_EQ(queue.qsize(), 2u);
  EXPECT_EQ(queue.try_get(), 2);
  EXPECT_EQ(queue.try_get(), 3);
  EXPECT_TRUE(queue.empty());
}

TEST(QueueLoan, PublishedTwiceIsALogicError) {
  Queue<int> queue(2);
  auto loan = queue.loan();
  loan.publish();
  EXPECT_THROW(loan.publish(), std::logic_error);
  EXPECT_EQ(queue.qsize(), 1u);
}

TEST(QueueLoan, MovedFromIsALogicError) {
  Queue<int> queue(2);
  auto loan = queue.loan();
  auto other = std::move(loan);
  EXPECT_THROW(loan.publish(), std::logic_error);
  *other = 4;
  other.publish();
  EXPECT_EQ(queue.get(), 4);
}

TEST(QueueLoan, MoveAssignmentDropsWhatWasHeld) {
  Queue<int> queue(3);
  auto first = queue.loan();
  auto second = queue.loan();
  *second = 2;
  first = std::move(second);
  EXPECT_EQ(*first, 2);
  first.publish();
  EXPECT_EQ(queue.get(), 2);
  EXPECT_TRUE(queue.empty());
}

TEST(QueueLoan, PublishedByAnotherThread) {
  Queue<int> queue(2);
  auto loan = queue.loan();
  Thread other([moved = std::make_shared<Loan<int>>(std::move(loan))] {
    **moved = 21;
    moved->publish();
  });
  EXPECT_EQ(queue.get(10s), 21);
  EXPECT_TRUE(other.ends());
}

TEST(QueueLoan, ItsCallerMayWaitForItElsewhere) {
  // The loan has gone to another thread: waiting for it is no deadlock.
  Queue<int> queue(2);
  std::optional<Loan<int>> handed_over(queue.loan());
  std::atomic<bool> may_publish{false};
  Thread other([&] {
    Loan<int> mine(std::move(*handed_over));
    may_publish.wait(false);
    *mine = 22;
    mine.publish();
  });
  Thread opener([&, main = gettid()] {
    shoal::support::eventually([&] {
      return may_publish.load() || shoal::support::asleep(getpid(), main);
    });
    may_publish.store(true);
    may_publish.notify_all();
  });
  EXPECT_NO_THROW(EXPECT_EQ(queue.get(), 22));
  may_publish.store(true);
  may_publish.notify_all();
}

TEST(QueueLoan, OutlivesTheThreadThatMadeIt) {
  Queue<int> queue(2);
  std::optional<Loan<int>> loan;
  Thread maker([&] { loan.emplace(queue.loan()); });
  ASSERT_TRUE(maker.ends());
  EXPECT_THROW(queue.get(10ms), Empty) << "still somebody's";
  **loan = 23;
  loan->publish();
  EXPECT_EQ(queue.get(), 23);
}

TEST(QueueLoan, OutlivesTheHandle) {
  std::optional<Loan<int>> loan;
  std::optional<Queue<int>> queue(std::in_place, 2);
  loan.emplace(queue->loan());
  queue.reset();
  **loan = 1;
  loan->publish();
}

TEST(QueueLoan, OwnLeaseIsALogicErrorNotADeadlock) {
  Queue<int> queue(1);
  {
    auto loan = queue.loan();
    std::array<int, 1> values{};
    EXPECT_THROW(queue.get(), std::logic_error);
    EXPECT_THROW(queue.take(), std::logic_error);
    EXPECT_THROW(queue.get_many(values), std::logic_error);
    EXPECT_THROW(queue.get(now), Empty);
    EXPECT_THROW(queue.get(5ms), Empty) << "another thread might publish it";
    EXPECT_THROW(queue.put(1), std::logic_error) << "no room but the loan's";
    EXPECT_THROW(queue.put(1, 5ms), Full);
    EXPECT_THROW(queue.loan(5ms), Full);
    loan.publish();
  }
  EXPECT_EQ(queue.get(), 0);
}

TEST(QueueTaken, OwnLeaseIsALogicErrorNotADeadlock) {
  Queue<int> queue(2);
  queue.put(1);
  queue.put(2);
  {
    auto taken = queue.take();
    const std::array<int, 1> values{};
    EXPECT_THROW(queue.put(3), std::logic_error);
    EXPECT_THROW(queue.loan(), std::logic_error);
    EXPECT_THROW(queue.put_many(values), std::logic_error);
    EXPECT_THROW(queue.put(3, now), Full);
    EXPECT_THROW(queue.put(3, 5ms), Full);
    EXPECT_FALSE(queue.try_put(3));
    EXPECT_EQ(queue.get(), 2) << "gets pass it by";
  }
  queue.put(3);
  EXPECT_EQ(queue.get(), 3);
}

TEST(QueueTaken, OwnLeaseAfterShutdownIsALogicErrorNotADeadlock) {
  Child child([](Child& self) {
    Queue<int> queue(3);
    queue.put(1);
    auto taken = queue.take();
    queue.shutdown();
    try {
      queue.get();
      self.expect(false, "got something");
    } catch (const ShutDown&) {
    } catch (const std::logic_error&) {
    }
  });
  EXPECT_EQ(child.join(5s), 0) << child.failures();
}

TEST(QueueTaken, IsReadInPlaceAndReleasedByItsDestructor) {
  Queue<Order> orders(1);
  orders.put({.id = 5, .price = 0.5, .symbol = ""});
  {
    auto taken = orders.take();
    static_assert(std::is_same_v<decltype(*taken), const Order&>);
    EXPECT_EQ(taken->id, 5);
    EXPECT_EQ((*taken).price, 0.5);
    EXPECT_EQ(orders.qsize(), 0u) << "nobody else gets it";
    EXPECT_TRUE(orders.full()) << "its cell is in use";
    EXPECT_FALSE(orders.try_put({}));
  }
  EXPECT_TRUE(orders.empty());
  EXPECT_FALSE(orders.full());
  EXPECT_TRUE(orders.try_put({}));
}

TEST(QueueTaken, MovesAndReleasesOnce) {
  Queue<int> queue(2);
  queue.put(1);
  queue.put(2);
  std::optional<Taken<int>> first(queue.take());
  std::optional<Taken<int>> moved(std::move(*first));
  first.reset();
  EXPECT_FALSE(queue.try_put(3)) << "the cell has moved, not returned";
  moved.reset();
  EXPECT_TRUE(queue.try_put(3));
}

TEST(QueueTaken, MoveAssignmentReleasesWhatWasHeld) {
  Queue<int> queue(2);
  queue.put(1);
  queue.put(2);
  auto first = queue.take();
  auto second = queue.take();
  first = std::move(second);
  EXPECT_EQ(*first, 2);
  EXPECT_TRUE(queue.try_put(3)) << "the cell of 1 has returned";
  EXPECT_FALSE(queue.try_put(4)) << "the cell of 2 has not";
}

TEST(QueueTaken, OutlivesTheThreadThatTookIt) {
  Queue<int> queue(1);
  queue.put(31);
  std::optional<Taken<int>> taken;
  Thread taker([&] { taken.emplace(queue.take()); });
  ASSERT_TRUE(taker.ends());
  EXPECT_EQ(**taken, 31);
  EXPECT_FALSE(queue.try_get().has_value()) << "not delivered again";
  EXPECT_THROW(queue.put(32, 10ms), Full);
  taken.reset();
  queue.put(32);
  EXPECT_EQ(queue.get(), 32);
}

TEST(QueueTaken, ManyThreadsComeAndGoWithOneLeaseEach) {
  Queue<int> queue(4);
  for (int i = 0; i < 50; ++i) {
    queue.put(i);
    std::optional<Taken<int>> taken;
    Thread taker([&] { taken.emplace(queue.take()); });
    ASSERT_TRUE(taker.ends());
    ASSERT_EQ(**taken, i);
  }
}

TEST(QueueTaken, ReleasedByAnotherThread) {
  Queue<int> queue(1);
  queue.put(1);
  auto taken = queue.take();
  Thread putter([&] { queue.put(2); });
  ASSERT_TRUE(putter.falls_asleep());
  Thread releaser([moved = std::make_shared<std::optional<Taken<int>>>(
                       std::move(taken))] { moved->reset(); });
  EXPECT_TRUE(putter.ends());
}

}  // namespace
