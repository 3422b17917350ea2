// A queue that grows, in one process.

#include <deque>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "shoal/ipc/queue.h"
#include "tests/ipc/payload_scene.h"
#include "tests/support/thread.h"

namespace {

using namespace shoal::support;
using shoal::Queue;
using shoal::QueueOptions;
using namespace std::chrono_literals;

// Rings of 24, 48 and no more values.
constexpr QueueOptions kSmall{.max_bytes = 1024 + 2048};

TEST(QueueGrowth, HoldsWhatIsPutInOrder) {
  Queue<std::uint64_t> queue;
  constexpr std::uint64_t kMany = 100000;
  for (std::uint64_t i = 0; i < kMany; ++i) queue.put(i);
  EXPECT_EQ(queue.maxsize(), 0u);
  EXPECT_EQ(queue.qsize(), kMany);
  EXPECT_FALSE(queue.full());
  EXPECT_GT(rings_of(queue), 5u);
  for (std::uint64_t i = 0; i < kMany; ++i) ASSERT_EQ(queue.get_nowait(), i);
  EXPECT_TRUE(queue.empty());
  EXPECT_FALSE(queue.try_get().has_value());
  EXPECT_THROW(queue.get_nowait(), shoal::Empty);
}

TEST(QueueGrowth, StringsToo) {
  Queue<std::string> queue;
  for (std::uint64_t i = 0; i < 20000; ++i) queue.put(text(i, 10 + i % 200));
  for (std::uint64_t i = 0; i < 20000; ++i)
    ASSERT_EQ(queue.get_nowait(), text(i, 10 + i % 200));
  EXPECT_TRUE(queue.empty());
  EXPECT_EQ(blocks_in_use(queue), 0u);
}

// A freed payload lets it grow; who waits for a cell is told.
TEST(QueueGrowth, APayloadThatGoesMakesRoomForCells) {
  Queue<std::string> queue({.max_bytes = 65536});
  queue.put(std::string(20000, 'x'));
  while (queue.try_put("small")) {
  }
  ASSERT_TRUE(queue.full());
  Thread putter([&] { queue.put("one more", 10s); });
  ASSERT_TRUE(putter.falls_asleep());
  EXPECT_EQ(queue.get().size(), 20000u);
  EXPECT_TRUE(putter.ends());
}

TEST(QueueGrowth, StaysAtWhatItNeeds) {
  Queue<int> queue(kSmall);
  for (int lap = 0; lap < 100; ++lap) {
    for (int i = 0; i < 20; ++i) queue.put(i);
    for (int i = 0; i < 20; ++i) ASSERT_EQ(queue.get(), i);
  }
  EXPECT_EQ(rings_of(queue), 1u);
}

TEST(QueueGrowth, IsFullAtMaxBytes) {
  Queue<std::uint64_t> queue(kSmall);
  std::uint64_t put = 0;
  while (queue.try_put(put)) ++put;
  EXPECT_GT(put, 64u);
  EXPECT_LT(put, 3072u / 16);
  EXPECT_TRUE(queue.full());
  EXPECT_EQ(queue.qsize(), put);
  EXPECT_THROW(queue.put(0, 1ms), shoal::Full);
  for (std::uint64_t i = 0; i < put; ++i) ASSERT_EQ(queue.get_nowait(), i);
  EXPECT_FALSE(queue.full());
  // From now on one ring goes round.
  std::uint64_t again = 0;
  while (queue.try_put(again)) ++again;
  EXPECT_GT(again, 32u);
  for (std::uint64_t i = 0; i < again; ++i) ASSERT_EQ(queue.get_nowait(), i);
}

TEST(QueueGrowth, CellsAndPayloadsTogetherStayBelowMaxBytes) {
  constexpr std::size_t kMost = 1 << 20;
  Queue<std::string> queue(QueueOptions{.max_bytes = kMost});
  std::size_t bytes = 0;
  std::uint64_t put = 0;
  while (queue.try_put(text(put, 392))) ++put, bytes += 400 + 64;
  EXPECT_LE(bytes, kMost);
  EXPECT_GT(bytes, kMost / 2);
  for (std::uint64_t i = 0; i < put; ++i) ASSERT_EQ(queue.get(), text(i, 392));
  EXPECT_THROW(queue.put(std::string(kMost, 'x')), shoal::MessageTooLong);
}

TEST(QueueGrowth, ATinyLimitHoldsOne) {
  Queue<std::uint64_t> queue(QueueOptions{.max_bytes = 1});
  EXPECT_EQ(queue.maxsize(), 0u);
  EXPECT_TRUE(queue.try_put(1));
  EXPECT_FALSE(queue.try_put(2));
  EXPECT_TRUE(queue.full());
  EXPECT_EQ(queue.get(), 1u);
}

TEST(QueueGrowth, OrderAgainstADeque) {
  for (unsigned seed = 0; seed < 30; ++seed) {
    Queue<std::uint64_t> queue(kSmall);
    std::deque<std::uint64_t> model;
    std::mt19937 random(seed);
    std::uint64_t next = 0;
    for (int i = 0; i < 3000; ++i) {
      if (random() % 100 < (i / 300 % 2 == 0 ? 60u : 40u)) {
        if (queue.try_put(next)) model.push_back(next);
        ++next;
      } else {
        const auto value = queue.try_get();
        ASSERT_EQ(value.has_value(), !model.empty());
        if (!value) continue;
        ASSERT_EQ(*value, model.front());
        model.pop_front();
      }
      ASSERT_EQ(queue.qsize(), model.size());
    }
  }
}

TEST(QueueGrowth, ManyAtOnceAcrossRings) {
  Queue<int> queue;
  std::vector<int> values(5000);
  for (int i = 0; i < 5000; ++i) values[static_cast<std::size_t>(i)] = i;
  for (std::span<const int> rest(values); !rest.empty();)
    rest = rest.subspan(queue.put_many(rest));
  EXPECT_EQ(queue.qsize(), 5000u);
  std::vector<int> got(5000);
  for (std::span<int> rest(got); !rest.empty();)
    rest = rest.subspan(queue.get_many(rest));
  EXPECT_EQ(got, values);
}

// ---- leases ----

TEST(QueueGrowth, ATakenValueInAnOlderRingHoldsNobodyUp) {
  Queue<std::uint64_t> queue(kSmall);
  std::uint64_t next = 0;
  queue.put(next++);
  std::vector<shoal::Taken<std::uint64_t>> held;
  held.push_back(queue.take());
  // Many laps with one value held, in one thread.
  for (std::uint64_t i = 1; i < 500; ++i) {
    queue.put(i);
    ASSERT_EQ(queue.get_nowait(), i);
  }
  EXPECT_EQ(*held.front(), 0u);
  for (std::uint64_t i = 500; i < 540; ++i) queue.put(i);
  held.push_back(queue.take());
  EXPECT_EQ(*held.back(), 500u);
  held.clear();
  for (std::uint64_t i = 501; i < 540; ++i) ASSERT_EQ(queue.get_nowait(), i);
  EXPECT_TRUE(queue.empty());
}

TEST(QueueGrowth, ShutdownWaitsForWhatIsHeldInAnOlderRing) {
  Queue<std::uint64_t> queue(kSmall);
  for (std::uint64_t i = 0; i < 40; ++i) queue.put(i);
  // Not moved, so that it stays this thread's.
  std::unique_ptr<shoal::Taken<std::uint64_t>> taken(
      new shoal::Taken(queue.take()));
  Queue<std::uint64_t> copy = queue;
  queue.shutdown();
  for (std::uint64_t i = 1; i < 40; ++i) ASSERT_EQ(queue.get(), i);
  EXPECT_THROW(queue.get(), std::logic_error) << "its own";
  Thread waits([&] { EXPECT_THROW(copy.get(), shoal::ShutDown); });
  ASSERT_TRUE(waits.falls_asleep());
  taken.reset();
  ASSERT_TRUE(waits.ends());
  EXPECT_THROW(queue.put(1), shoal::ShutDown);
}

TEST(QueueGrowth, LoansGrowItToo) {
  Queue<std::uint64_t> queue(kSmall);
  for (std::uint64_t i = 0; i < 40; ++i) {
    auto loan = queue.loan();
    *loan = i;
    loan.publish();
  }
  for (std::uint64_t i = 0; i < 40; ++i) {
    const auto taken = queue.take();
    ASSERT_EQ(*taken, i);
  }
}

// ---- the end ----

TEST(QueueGrowth, ShutdownDrainsAllRings) {
  Queue<std::uint64_t> queue(kSmall);
  for (std::uint64_t i = 0; i < 50; ++i) queue.put(i);
  queue.shutdown();
  EXPECT_FALSE(queue.try_put(1));
  for (std::uint64_t i = 0; i < 50; ++i) ASSERT_EQ(queue.get(), i);
  EXPECT_THROW(queue.get(), shoal::ShutDown);
  EXPECT_THROW((void)queue.try_get(), shoal::ShutDown);
}

TEST(QueueGrowth, ImmediateShutdownDiscardsAllRings) {
  Queue<std::uint64_t> queue(kSmall);
  for (std::uint64_t i = 0; i < 50; ++i) queue.put(i);
  queue.shutdown(true);
  EXPECT_EQ(queue.qsize(), 0u);
  EXPECT_THROW(queue.get(), shoal::ShutDown);
  EXPECT_THROW(queue.put(1), shoal::ShutDown);
}

TEST(QueueGrowth, ShutdownWakesASleeperThatHasPassedARing) {
  Queue<std::uint64_t> queue(kSmall);
  for (std::uint64_t i = 0; i < 40; ++i) queue.put(i);
  for (std::uint64_t i = 0; i < 40; ++i) queue.get();
  Thread getter([&] { EXPECT_THROW(queue.get(), shoal::ShutDown); });
  ASSERT_TRUE(getter.falls_asleep());
  queue.shutdown();
  ASSERT_TRUE(getter.ends());
}

TEST(QueueGrowth, APutWakesASleeperInALaterRing) {
  Queue<std::uint64_t> queue(kSmall);
  for (std::uint64_t i = 0; i < 40; ++i) queue.put(i);
  for (std::uint64_t i = 0; i < 40; ++i) queue.get();
  Thread getter([&] { EXPECT_EQ(queue.get(), 7u); });
  ASSERT_TRUE(getter.falls_asleep());
  queue.put(7);
  ASSERT_TRUE(getter.ends());
}

TEST(QueueGrowth, OldestGoesAtMaxBytes) {
  Queue<std::uint64_t> queue(
      QueueOptions{.max_bytes = 3072, .on_full = shoal::OnFull::drop_oldest});
  for (std::uint64_t i = 0; i < 1000; ++i) queue.put(i);
  const std::size_t held = queue.qsize();
  EXPECT_EQ(queue.dropped() + held, 1000u);
  for (std::uint64_t i = 1000 - held; i < 1000; ++i)
    ASSERT_EQ(queue.get_nowait(), i);
}

}  // namespace
