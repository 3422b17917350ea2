// Timeout and Deadline.

#include "shoal/ipc/timeout.h"

#include <time.h>

#include <chrono>
#include <cstdint>
#include <limits>
#include <ratio>
#include <type_traits>

#include "gtest/gtest.h"

namespace {

using shoal::Deadline;
using shoal::forever;
using shoal::monotonic_now;
using shoal::now;
using shoal::Timeout;
using namespace std::chrono_literals;

template <class Rep, class Period = std::ratio<1>>
using Duration = std::chrono::duration<Rep, Period>;

std::int64_t kernel_time(clockid_t clock) {
  timespec time;
  clock_gettime(clock, &time);
  return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

static_assert(std::is_convertible_v<std::chrono::milliseconds, Timeout>);
static_assert(std::is_convertible_v<std::chrono::hours, Timeout>);
static_assert(std::is_convertible_v<Duration<double>, Timeout>);
static_assert(std::is_convertible_v<Duration<float, std::milli>, Timeout>);
static_assert(std::is_convertible_v<Duration<unsigned char>, Timeout>);
static_assert(!std::is_convertible_v<int, Timeout>, "int has no unit");
static_assert(!std::is_convertible_v<double, Timeout>);
static_assert(!std::is_default_constructible_v<Timeout>);
static_assert(Timeout(2ms).nanoseconds() == 2'000'000, "is constexpr");

TEST(Timeout, HoldsDurationsOfAnyUnit) {
  EXPECT_EQ(Timeout(1ns).nanoseconds(), 1);
  EXPECT_EQ(Timeout(7us).nanoseconds(), 7'000);
  EXPECT_EQ(Timeout(50ms).nanoseconds(), 50'000'000);
  EXPECT_EQ(Timeout(3s).nanoseconds(), 3'000'000'000);
  EXPECT_EQ(Timeout(2min).nanoseconds(), 120'000'000'000);
  EXPECT_EQ(Timeout(1h).nanoseconds(), 3'600'000'000'000);
  EXPECT_EQ(Timeout(1.5s).nanoseconds(), 1'500'000'000);
  EXPECT_EQ(Timeout(0.25ms).nanoseconds(), 250'000);
  EXPECT_EQ((Timeout(Duration<int, std::ratio<1, 3>>(9)).nanoseconds()),
            3'000'000'000);
  EXPECT_FALSE(Timeout(1ns).is_now());
  EXPECT_FALSE(Timeout(1ns).is_forever());
}

TEST(Timeout, NowIsZero) {
  EXPECT_TRUE(now.is_now());
  EXPECT_FALSE(now.is_forever());
  EXPECT_EQ(now.nanoseconds(), 0);
  EXPECT_TRUE(Timeout(0s).is_now());
  EXPECT_TRUE(Timeout(-0.0s).is_now());
}

TEST(Timeout, NegativeIsNow) {
  for (const Timeout timeout :
       {Timeout(-1ns), Timeout(-1ms), Timeout(-1h), Timeout(-1.5s),
        Timeout(std::chrono::nanoseconds::min()),
        Timeout(std::chrono::hours::min()),
        Timeout(Duration<double>(-std::numeric_limits<double>::infinity()))}) {
    EXPECT_TRUE(timeout.is_now());
    EXPECT_EQ(timeout.nanoseconds(), 0);
  }
}

TEST(Timeout, NotANumberIsNow) {
  EXPECT_TRUE(
      Timeout(Duration<double>(std::numeric_limits<double>::quiet_NaN()))
          .is_now());
}

TEST(Timeout, ForeverIsNoDuration) {
  EXPECT_TRUE(forever.is_forever());
  EXPECT_FALSE(forever.is_now());
}

TEST(Timeout, BeyondSixtyThreeBitsIsForever) {
  for (const Timeout timeout :
       {Timeout(std::chrono::seconds::max()),
        Timeout(std::chrono::hours::max()),
        Timeout(std::chrono::nanoseconds::max()), Timeout(1e30s),
        Timeout(Duration<double>(std::numeric_limits<double>::infinity())),
        Timeout(
            Duration<std::uint64_t>(std::numeric_limits<std::uint64_t>::max())),
        Timeout(std::chrono::hours(24 * 366 * 293))})
    EXPECT_TRUE(timeout.is_forever()) << timeout.nanoseconds();
}

TEST(Timeout, ALongLifeIsNotForever) {
  const auto years = std::chrono::hours(24 * 365 * 250);
  EXPECT_FALSE(Timeout(years).is_forever());
  EXPECT_EQ(Timeout(years).nanoseconds(),
            std::chrono::nanoseconds(years).count());
}

TEST(Timeout, UnsignedDurationsAreNotNegative) {
  EXPECT_EQ(Timeout(Duration<std::uint32_t>(4'000'000'000u)).nanoseconds(),
            4'000'000'000'000'000'000);
}

TEST(Deadline, MonotonicNowIsTheKernelsMonotonicClock) {
  const std::int64_t before = kernel_time(CLOCK_MONOTONIC);
  const std::int64_t seen = monotonic_now();
  const std::int64_t after = kernel_time(CLOCK_MONOTONIC);
  EXPECT_LE(before, seen);
  EXPECT_LE(seen, after);
}

TEST(Deadline, IsOneInstant) {
  const std::int64_t before = monotonic_now();
  const Deadline deadline(50ms);
  const std::int64_t after = monotonic_now();
  EXPECT_GE(deadline.nanoseconds(), before + 50'000'000);
  EXPECT_LE(deadline.nanoseconds(), after + 50'000'000);
}

TEST(Deadline, PassesAtItsInstantAndNotBefore) {
  const Deadline deadline(20ms);
  for (;;) {
    const std::int64_t before = monotonic_now();
    const bool passed = deadline.passed();
    const std::int64_t after = monotonic_now();
    if (passed) {
      EXPECT_GE(after, deadline.nanoseconds());
      break;
    }
    EXPECT_LT(before, deadline.nanoseconds());
    ASSERT_LT(before, deadline.nanoseconds() + 1'000'000'000);
  }
  EXPECT_TRUE(deadline.passed()) << "and stays so";
}

TEST(Deadline, OfNowHasPassedWhenItIsMade) {
  for (const Timeout timeout : {now, Timeout(-1s), Timeout(0ns)}) {
    const Deadline deadline(timeout);
    EXPECT_TRUE(deadline.passed());
    EXPECT_EQ(deadline.nanoseconds(), 0);
    EXPECT_FALSE(deadline.is_never());
    EXPECT_TRUE(deadline.remaining().is_now());
  }
}

TEST(Deadline, OfForeverNeverPasses) {
  for (const Deadline deadline : {Deadline(forever), Deadline::never()}) {
    EXPECT_TRUE(deadline.is_never());
    EXPECT_FALSE(deadline.passed());
    EXPECT_TRUE(deadline.remaining().is_forever());
  }
}

TEST(Deadline, NearTheEndOfTimeDoesNotWrap) {
  for (const auto seconds : {9'199'999'999, 9'100'000'000, 8'000'000'000}) {
    const Deadline deadline{std::chrono::seconds(seconds)};
    EXPECT_GT(deadline.nanoseconds(), monotonic_now());
    EXPECT_FALSE(deadline.passed());
  }
}

TEST(Deadline, RemainingShrinksToNow) {
  const Deadline deadline(10ms);
  std::int64_t last = Timeout(10ms).nanoseconds();
  while (!deadline.passed()) {
    const std::int64_t left = deadline.remaining().nanoseconds();
    ASSERT_LE(left, last);
    last = left;
  }
  EXPECT_TRUE(deadline.remaining().is_now());
  EXPECT_EQ(deadline.remaining().nanoseconds(), 0);
  EXPECT_GT(Deadline(1h).remaining().nanoseconds(),
            Timeout(59min).nanoseconds());
}

}  // namespace
