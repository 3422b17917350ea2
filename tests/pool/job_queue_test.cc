#include "shoal/pool/job_queue.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <random>
#include <thread>
#include <vector>

#include "tests/support/boost_races.h"  // IWYU pragma: keep

namespace shoal::pool {

// Its calls in parts, between which others come.
class JobQueueSteps {
 public:
  template <class Job>
  static Job* look(JobQueue<Job>& queue) {
    Job* job = nullptr;
    return queue.pop_from_ring(job) ? job : nullptr;
  }
  template <class Job>
  static bool refill(JobQueue<Job>& queue) {
    return queue.refill();
  }
  // The first step of a push that finds room.
  template <class Job>
  static std::uint64_t claim(JobQueue<Job>& queue) {
    std::uint64_t position = 0;
    EXPECT_TRUE(queue.claim(position));
    return position;
  }
  template <class Job>
  static void publish(JobQueue<Job>& queue, std::uint64_t position, Job* job) {
    queue.publish(position, job);
  }
};

namespace {

using namespace std::chrono_literals;
using Queue = JobQueue<const int>;
constexpr std::size_t kCells = Queue::kCells;

// As std::deque, through the ring, the overflow, and both; several laps.
TEST(JobQueue, IsFirstInFirstOut) {
  std::vector<int> jobs(8 * kCells);
  for (const std::size_t burst : {std::size_t{1}, std::size_t{7}, kCells - 1,
                                  kCells, kCells + 1, 3 * kCells}) {
    Queue queue;
    std::deque<const int*> model;
    std::mt19937 random(static_cast<unsigned>(burst));
    std::size_t next = 0, popped = 0;
    while (popped < 20 * kCells) {
      for (std::size_t n = random() % (burst + 1); n > 0; --n) {
        model.push_back(&jobs[next++ % jobs.size()]);
        queue.push(model.back());
      }
      ASSERT_EQ(queue.empty(), model.empty());
      // More than there are, now and then: it is empty in between.
      for (std::size_t n = random() % (burst + 2); n > 0; --n) {
        const int* const job = queue.pop();
        ASSERT_EQ(job, model.empty() ? nullptr : model.front())
            << burst << ' ' << popped;
        if (job == nullptr) break;
        model.pop_front();
        ++popped;
      }
      ASSERT_EQ(queue.empty(), model.empty());
    }
  }
}

// What is full for one who pushes becomes free behind it.
TEST(JobQueue, ComesBackToItsRing) {
  Queue queue;
  std::vector<int> jobs(kCells + 100);
  for (int round = 0; round < 5; ++round) {
    for (const int& job : jobs) queue.push(&job);
    for (const int& job : jobs) ASSERT_EQ(queue.pop(), &job);
    ASSERT_EQ(queue.pop(), nullptr);
    ASSERT_TRUE(queue.empty());
    queue.push(&jobs[0]);
    ASSERT_EQ(JobQueueSteps::look(queue), &jobs[0]) << "in the ring";
  }
}

// A consumer has found the ring empty; before it looks at what overflowed, the
// ring fills.
TEST(JobQueue, WhatOverflowedDoesNotOvertake) {
  Queue queue;
  std::vector<int> jobs(kCells + 1);
  ASSERT_EQ(JobQueueSteps::look(queue), nullptr);
  for (const int& job : jobs) queue.push(&job);
  EXPECT_FALSE(JobQueueSteps::refill(queue));
  for (const int& job : jobs) ASSERT_EQ(queue.pop(), &job);
  EXPECT_TRUE(queue.empty());
}

// One that only stands in the middle of its push holds back the rest, and is
// not taken for the end.
TEST(JobQueue, WaitsForAPushThatStands) {
  Queue queue;
  std::vector<int> jobs(kCells + 1);
  const std::uint64_t stands = JobQueueSteps::claim(queue);
  for (std::size_t n = 1; n < jobs.size(); ++n) queue.push(&jobs[n]);
  EXPECT_EQ(queue.pop(), nullptr);
  EXPECT_FALSE(queue.empty());
  JobQueueSteps::publish(queue, stands, static_cast<const int*>(&jobs[0]));
  for (const int& job : jobs) ASSERT_EQ(queue.pop(), &job);
  EXPECT_TRUE(queue.empty());
  const std::uint64_t last = JobQueueSteps::claim(queue);
  EXPECT_EQ(queue.pop(), nullptr);
  EXPECT_FALSE(queue.empty());
  JobQueueSteps::publish(queue, last, static_cast<const int*>(&jobs[0]));
  EXPECT_EQ(queue.pop(), &jobs[0]);
}

// However the two threads take turns.
TEST(JobQueue, IsInOrderBetweenTwoThreads) {
  constexpr std::size_t kJobs = 2'000'000;
  std::vector<int> some(3 * kCells);
  Queue queue;
  std::atomic<bool> done{false};
  std::jthread producer([&] {
    std::mt19937 random(7);
    for (std::size_t n = 0; n < kJobs; ++n) {
      queue.push(&some[n % some.size()]);
      if (random() % (2 * kCells) == 0) std::this_thread::yield();
    }
    done = true;
  });
  const auto give_up = std::chrono::steady_clock::now() + 60s;
  std::size_t popped = 0;
  std::mt19937 random(8);
  while (popped < kJobs && std::chrono::steady_clock::now() < give_up) {
    for (std::size_t n = random() % (2 * kCells); n > 0; --n) {
      const int* const job = queue.pop();
      if (job == nullptr) break;
      ASSERT_EQ(job, &some[popped % some.size()]) << popped;
      ++popped;
    }
    std::this_thread::yield();
  }
  EXPECT_EQ(popped, kJobs);
  EXPECT_TRUE(done);
  EXPECT_TRUE(queue.empty());
}

// All of them, once, and those of each producer in order as each consumer sees
// them.
TEST(JobQueue, AmongThreads) {
  constexpr std::size_t kThreads = 3, kEach = 40'000;
  std::vector<int> jobs(kThreads * kEach);
  std::vector<std::atomic<int>> times(jobs.size());
  std::atomic<std::size_t> popped{0}, out_of_order{0};
  Queue queue;
  {
    std::vector<std::jthread> threads;
    for (std::size_t producer = 0; producer < kThreads; ++producer) {
      threads.emplace_back([&, producer] {
        for (std::size_t n = 0; n < kEach; ++n) {
          jobs[producer * kEach + n] = 1;  // TSan looks at the hand-over
          queue.push(&jobs[producer * kEach + n]);
        }
      });
      threads.emplace_back([&] {
        std::vector<std::size_t> seen(kThreads, 0);  // next of each at least
        while (popped != jobs.size()) {
          const int* const job = queue.pop();
          if (job == nullptr) {
            std::this_thread::yield();
            continue;
          }
          const auto at = static_cast<std::size_t>(job - jobs.data());
          times[at] += *job;
          std::size_t& least = seen[at / kEach];
          out_of_order += at % kEach < least;
          least = at % kEach + 1;
          ++popped;
        }
      });
    }
  }
  EXPECT_EQ(out_of_order, 0u);
  EXPECT_TRUE(queue.empty());
  for (std::size_t n = 0; n < times.size(); ++n) ASSERT_EQ(times[n], 1) << n;
}

}  // namespace
}  // namespace shoal::pool
