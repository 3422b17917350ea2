// Barrier under many threads.

#include <sched.h>

#include <array>
#include <atomic>
#include <deque>

#include "gtest/gtest.h"
#include "shoal/ipc/barrier.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/waiting.h"
#include "tests/support/thread.h"

namespace {

using shoal::Barrier;
using shoal::BrokenBarrier;
using shoal::support::Thread;

constexpr int kThreads = 4;
constexpr int kRounds = 1000;

// Nobody looks by himself: a wake that is lost hangs.
class BarrierStress : public testing::Test {
 protected:
  void SetUp() override { shoal::waiting::set_slices(false); }
  void TearDown() override { shoal::waiting::set_slices(true); }
};

// Each writes its part, all read all: plain, so that TSan sees what is ordered.
TEST_F(BarrierStress, AllSeeWhatAllDid) {
  std::array<int, kThreads> parts{};
  int rounds = 0;
  Barrier written(kThreads, [&] { ++rounds; });
  Barrier read(kThreads);
  std::deque<Thread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      for (int i = 1; i <= kRounds; ++i) {
        parts[t] = i;
        written.wait();
        for (const int part : parts) ASSERT_EQ(part, i);
        ASSERT_EQ(rounds, i);
        read.wait();
      }
    });
  for (auto& thread : threads) ASSERT_TRUE(thread.ends());
}

// Somebody resets all the time. Everyone gets an index or BrokenBarrier, and of
// a round either all get an index or none. (Who slept through sixteen resets
// would not hear of his round: so many come only at the end.)
TEST_F(BarrierStress, Resets) {
  Barrier barrier(kThreads);
  std::array<std::atomic<int>, kThreads> got{};
  std::array<std::atomic<int>, kThreads> returned{};  // by thread
  std::atomic<bool> end{false};
  std::deque<Thread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      while (!end) {
        try {
          if (++got[static_cast<std::size_t>(barrier.wait())] == kRounds / 4)
            end = true;
        } catch (const BrokenBarrier&) {
        }
        ++returned[static_cast<std::size_t>(t)];
      }
    });
  std::array<int, kThreads> seen{};
  for (int resets = 0; !end; ++resets) {
    barrier.reset();
    if (resets % 4 != 0) continue;
    for (std::size_t t = 0; t < kThreads; ++t) {
      while (!end && returned[t] == seen[t]) sched_yield();
      seen[t] = returned[t];
    }
  }
  // Who came to another round has nobody to wait with any more.
  for (auto& thread : threads)
    while (!thread.ended()) barrier.reset();
  for (const auto& count : got) {
    EXPECT_LE(count, got[kThreads - 1]);
    EXPECT_GE(count, got[kThreads - 1] - 1);
  }
}

}  // namespace
