// Semaphore and BoundedSemaphore in one process.

#include "shoal/ipc/semaphore.h"

#include <chrono>
#include <memory>
#include <random>
#include <stdexcept>
#include <vector>

#include "gtest/gtest.h"
#include "tests/support/thread.h"

namespace {

using shoal::BoundedSemaphore;
using shoal::monotonic_now;
using shoal::now;
using shoal::Semaphore;
using shoal::support::Thread;
using namespace std::chrono_literals;

template <class T>
class AnySemaphore : public testing::Test {};
using Kinds = testing::Types<Semaphore, BoundedSemaphore>;
TYPED_TEST_SUITE(AnySemaphore, Kinds);

TYPED_TEST(AnySemaphore, HasOneUnitByDefault) {
  const TypeParam semaphore;
  EXPECT_EQ(semaphore.get_value(), 1u);
  EXPECT_TRUE(semaphore.acquire());
  EXPECT_EQ(semaphore.get_value(), 0u);
  EXPECT_FALSE(semaphore.acquire(now));
  EXPECT_FALSE(semaphore.acquire(-1s));
  semaphore.release();
  EXPECT_EQ(semaphore.get_value(), 1u);
}

TYPED_TEST(AnySemaphore, AgainstANumber) {
  std::mt19937 random(11);
  constexpr bool kBounded = std::is_same_v<TypeParam, BoundedSemaphore>;
  for (const unsigned units : {0u, 1u, 2u, 7u, 100u}) {
    const TypeParam semaphore(units);
    unsigned model = units;
    for (int i = 0; i < 5000; ++i) {
      const auto n = static_cast<unsigned>(random() % 3 + 1);
      if (random() % 3 != 0) {
        ASSERT_EQ(semaphore.acquire(now), model != 0);
        if (model != 0) --model;
      } else if (kBounded && model + n > units) {
        ASSERT_THROW(semaphore.release(n), std::logic_error);
      } else {
        semaphore.release(n);
        model += n;
      }
      ASSERT_EQ(semaphore.get_value(), model);
    }
  }
}

TYPED_TEST(AnySemaphore, RefusesWhatItCannotHold) {
  EXPECT_THROW(TypeParam(static_cast<unsigned>(-1)), std::invalid_argument);
  EXPECT_THROW(TypeParam(TypeParam::kMost + 1), std::invalid_argument);
  TypeParam semaphore(2);
  EXPECT_THROW(semaphore.release(0), std::invalid_argument);
  EXPECT_EQ(semaphore.get_value(), 2u);
}

TYPED_TEST(AnySemaphore, CopiesAreTheSame) {
  TypeParam semaphore(3);
  TypeParam copy(semaphore);
  copy.acquire();
  EXPECT_EQ(semaphore.get_value(), 2u);
  TypeParam other;
  other = semaphore;
  other.acquire();
  EXPECT_EQ(copy.get_value(), 1u);
}

TYPED_TEST(AnySemaphore, ReleaseWakesAsManyAsItGives) {
  TypeParam semaphore(3);
  for (int i = 0; i < 3; ++i) semaphore.acquire();
  int published = 0;
  std::vector<std::unique_ptr<Thread>> waiters;
  for (int i = 0; i < 3; ++i)
    waiters.push_back(std::make_unique<Thread>([&] {
      EXPECT_TRUE(semaphore.acquire());
      EXPECT_EQ(published, 7) << "what came before release() is visible";
    }));
  for (auto& waiter : waiters) ASSERT_TRUE(waiter->falls_asleep());
  published = 7;
  semaphore.release(3);
  for (auto& waiter : waiters) EXPECT_TRUE(waiter->ends());
  EXPECT_EQ(semaphore.get_value(), 0u);
}

TYPED_TEST(AnySemaphore, TimeoutIsNeitherEarlyNorAbsurdlyLate) {
  TypeParam semaphore(0);
  const std::int64_t start = monotonic_now();
  EXPECT_FALSE(semaphore.acquire(40ms));
  const std::chrono::nanoseconds took(monotonic_now() - start);
  EXPECT_GE(took, 40ms);
  EXPECT_LT(took, 10s);
}

// To hand over between threads; a Lock refuses that.
TYPED_TEST(AnySemaphore, AnotherThreadMayRelease) {
  TypeParam semaphore;
  Thread taker([&] { semaphore.acquire(); });
  ASSERT_TRUE(taker.ends());
  EXPECT_EQ(semaphore.get_value(), 0u) << "it outlives the thread";
  semaphore.release();
  EXPECT_EQ(semaphore.get_value(), 1u);
}

TEST(Semaphore, OverflowIsAnErrorAndGivesNothing) {
  Semaphore semaphore(Semaphore::kMost - 1);
  EXPECT_THROW(semaphore.release(2), std::logic_error);
  EXPECT_THROW(semaphore.release(static_cast<unsigned>(-1)), std::logic_error);
  EXPECT_EQ(semaphore.get_value(), Semaphore::kMost - 1);
  semaphore.release();
  EXPECT_EQ(semaphore.get_value(), Semaphore::kMost);
  EXPECT_THROW(semaphore.release(), std::logic_error);
  EXPECT_TRUE(semaphore.acquire(now));
}

TEST(BoundedSemaphore, OverReleaseIsAnErrorAndGivesNothing) {
  BoundedSemaphore semaphore(2);
  EXPECT_THROW(semaphore.release(), std::logic_error);
  semaphore.acquire();
  EXPECT_THROW(semaphore.release(2), std::logic_error);
  EXPECT_EQ(semaphore.get_value(), 1u);
  semaphore.release();
  EXPECT_THROW(semaphore.release(), std::logic_error);
  EXPECT_EQ(semaphore.get_value(), 2u);
}

}  // namespace
