// Event under many threads.

#include <atomic>
#include <deque>

#include "gtest/gtest.h"
#include "shoal/ipc/event.h"
#include "shoal/ipc/waiting.h"
#include "tests/support/thread.h"

namespace {

using shoal::Event;
using shoal::support::Thread;
using namespace std::chrono_literals;

constexpr int kThreads = 3;
constexpr int kRounds = 2000;

// Nobody looks by himself: a wake that is lost hangs.
class EventStress : public testing::Test {
 protected:
  void SetUp() override { shoal::waiting::set_slices(false); }
  void TearDown() override { shoal::waiting::set_slices(true); }
};

// A token goes round: each waits for its own event and sets the next.
TEST_F(EventStress, RoundAndRound) {
  std::deque<Event> events(kThreads);
  int visits = 0;  // plain: TSan sees whether set() orders
  std::deque<Thread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      Event mine = events[t];
      Event next = events[(t + 1) % kThreads];
      for (int i = 0; i < kRounds; ++i) {
        ASSERT_TRUE(mine.wait());
        mine.clear();
        ++visits;
        next.set();
      }
    });
  events[0].set();
  for (auto& thread : threads) ASSERT_TRUE(thread.ends());
  EXPECT_EQ(visits, kThreads * kRounds);
}

// Two set and clear as fast as they can; who waits is always let go.
TEST_F(EventStress, SetAndClearAtOnce) {
  Event event;
  std::atomic<int> waiting{kThreads};
  std::deque<Thread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < kRounds; ++i) EXPECT_TRUE(event.wait());
      --waiting;
    });
  for (int t = 0; t < 2; ++t)
    threads.emplace_back([&] {
      while (waiting != 0) {
        event.set();
        event.clear();
      }
    });
  for (auto& thread : threads) ASSERT_TRUE(thread.ends());
}

TEST_F(EventStress, TimeoutsLoseNoWake) {
  Event event;
  std::deque<Thread> threads;
  std::atomic<int> done{0};
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < kRounds / 4; ++i) {
        if (t == 0)
          EXPECT_TRUE(event.wait());
        else
          event.wait(std::chrono::microseconds(i % 100));
      }
      ++done;
    });
  threads.emplace_back([&] {
    while (done != kThreads) {
      event.set();
      event.clear();
    }
  });
  for (auto& thread : threads) ASSERT_TRUE(thread.ends());
}

}  // namespace
