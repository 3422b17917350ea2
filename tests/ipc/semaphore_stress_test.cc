// Semaphore and BoundedSemaphore under many threads.

#include <array>
#include <atomic>
#include <deque>

#include "gtest/gtest.h"
#include "shoal/ipc/semaphore.h"
#include "shoal/ipc/waiting.h"
#include "tests/support/thread.h"

namespace {

using shoal::BoundedSemaphore;
using shoal::Semaphore;
using shoal::support::Thread;

constexpr int kThreads = 4;
constexpr int kRounds = 3000;

// Nobody looks by himself: a wake that is lost hangs.
template <class T>
class SemaphoreStress : public testing::Test {
 protected:
  void SetUp() override { shoal::waiting::set_slices(false); }
  void TearDown() override { shoal::waiting::set_slices(true); }
};
using Kinds = testing::Types<Semaphore, BoundedSemaphore>;
TYPED_TEST_SUITE(SemaphoreStress, Kinds);

TYPED_TEST(SemaphoreStress, OfOneUnitExcludes) {
  TypeParam semaphore;
  std::uint64_t count = 0;  // plain: TSan sees every way past it
  std::deque<Thread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < kRounds; ++i) {
        ASSERT_TRUE(semaphore.acquire());
        ++count;
        semaphore.release();
      }
    });
  for (auto& thread : threads) ASSERT_TRUE(thread.ends());
  EXPECT_EQ(count, std::uint64_t{kThreads} * kRounds);
  EXPECT_EQ(semaphore.get_value(), 1u);
}

TYPED_TEST(SemaphoreStress, NeverMoreThanItsUnits) {
  constexpr int kUnits = 2;
  TypeParam semaphore(kUnits);
  std::atomic<int> inside{0};
  std::deque<Thread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < kRounds; ++i) {
        const auto timeout = std::chrono::microseconds(i % 50);
        if (!semaphore.acquire(t % 2 == 0 ? shoal::forever : timeout)) continue;
        EXPECT_LE(++inside, kUnits);
        --inside;
        semaphore.release();
      }
    });
  for (auto& thread : threads) ASSERT_TRUE(thread.ends());
  EXPECT_EQ(semaphore.get_value(), unsigned{kUnits});
}

// All units go from givers to takers, some of them several at a time.
TEST(Semaphores, ManyGivenAtOnceReachAll) {
  shoal::waiting::set_slices(false);
  Semaphore semaphore(0);
  std::deque<Thread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < kRounds; ++i) ASSERT_TRUE(semaphore.acquire());
    });
  for (int given = 0; given < kThreads * kRounds; given += 6)
    semaphore.release(6);
  for (auto& thread : threads) ASSERT_TRUE(thread.ends());
  EXPECT_EQ(semaphore.get_value(), 0u);
  shoal::waiting::set_slices(true);
}

}  // namespace
