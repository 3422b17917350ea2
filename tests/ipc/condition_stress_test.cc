// Condition under many threads.

#include <atomic>
#include <deque>
#include <mutex>
#include <optional>

#include "gtest/gtest.h"
#include "shoal/ipc/condition.h"
#include "shoal/ipc/waiting.h"
#include "tests/support/thread.h"

namespace {

using shoal::Condition;
using shoal::RLock;
using shoal::support::Thread;

using Guard = std::lock_guard<const RLock>;

// Nobody looks by himself: a notify that is lost hangs.
class ConditionStress : public testing::Test {
 protected:
  void SetUp() override { shoal::waiting::set_slices(false); }
  void TearDown() override { shoal::waiting::set_slices(true); }
};

constexpr int kRounds = 2000;

// A queue as in every textbook: one notify for each change, no more.
class TextbookQueue {
 public:
  void put(int value) {
    const Guard guard(lock_);
    not_full_.wait_for([&] { return values_.size() < 3; });
    values_.push_back(value);
    not_empty_.notify();
  }
  int get() {
    const Guard guard(lock_);
    not_empty_.wait_for([&] { return !values_.empty(); });
    const int value = values_.front();
    values_.pop_front();
    not_full_.notify();
    return value;
  }

 private:
  RLock lock_;
  Condition not_full_{lock_};
  Condition not_empty_{lock_};
  std::deque<int> values_;
};

TEST_F(ConditionStress, TextbookQueue) {
  TextbookQueue queue;
  std::atomic<long> sum{0};
  std::deque<Thread> threads;
  for (int t = 0; t < 2; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < kRounds; ++i) queue.put(i);
    });
    threads.emplace_back([&] {
      for (int i = 0; i < kRounds; ++i) sum += queue.get();
    });
  }
  for (auto& thread : threads) ASSERT_TRUE(thread.ends());
  EXPECT_EQ(sum, 2L * kRounds * (kRounds - 1) / 2);
}

// Every notify lets exactly one go: as many come back as were notified.
TEST_F(ConditionStress, AsManyComeBackAsWereNotified) {
  Condition condition;
  int waiting = 0;
  int back = 0;
  bool end = false;
  std::deque<Thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      const std::lock_guard guard(condition);
      while (!end) {
        ++waiting;
        const bool notified = condition.wait(
            t == 0 ? shoal::Timeout(std::chrono::microseconds(back % 200))
                   : shoal::forever);
        if (notified)
          ++back;
        else
          --waiting;
      }
    });
  int notified = 0;
  for (int i = 0; i < kRounds; ++i) {
    const std::lock_guard guard(condition);
    // Those who were notified and are not back don't wait any more; those
    // whose timeout has ended meanwhile may have withdrawn.
    condition.notify(i % 3);
    notified += i % 3;
    EXPECT_LE(back, notified);
  }
  {
    const std::lock_guard guard(condition);
    end = true;
  }
  for (auto& thread : threads)
    while (!thread.ended()) {
      const std::lock_guard guard(condition);
      condition.notify_all();
    }
}

// Two take turns: the strictest use, where a single lost notify hangs.
TEST_F(ConditionStress, PingPong) {
  Condition condition;
  int turn = 0;
  std::deque<Thread> threads;
  for (int t = 0; t < 3; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < kRounds; ++i) {
        const std::lock_guard guard(condition);
        condition.wait_for([&] { return turn % 3 == t; });
        ++turn;
        condition.notify_all();
      }
    });
  for (auto& thread : threads) ASSERT_TRUE(thread.ends());
  EXPECT_EQ(turn, 3 * kRounds);
}

}  // namespace
