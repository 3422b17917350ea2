// What many seats cost: nothing, for as long as nobody dies. To run alone.

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <deque>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/queue.h"
#include "tests/support/child.h"
#include "tests/support/name.h"

namespace {

using namespace shoal::support;
using shoal::Queue;

constexpr int kRepetitions = 15;
constexpr int kCalls = 20000;
constexpr double kMostRatio = 1.5;

shoal::liveness::Domain& domain_of(const Queue<int>& queue) {
  return shoal::HandleAccess::object(queue)->domain();
}

// Threads that have taken a seat each and sleep.
class Sitting {
 public:
  Sitting(const Queue<int>& queue, int count) {
    for (int i = 0; i < count; ++i)
      threads_.emplace_back([&] {
        domain_of(queue).seat();
        ++seated_;
        may_end_.wait(false);
      });
    EXPECT_TRUE(eventually([&] { return seated_ == count; }));
  }
  ~Sitting() {
    may_end_ = true;
    may_end_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

 private:
  std::atomic<int> seated_{0};
  std::atomic<bool> may_end_{false};
  std::deque<std::thread> threads_;
};

// Processor time of this thread, which others on the machine don't change.
double nanoseconds_a_call(const std::function<void()>& calls) {
  const auto now = [] {
    timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) * 1e9 +
           static_cast<double>(time.tv_nsec);
  };
  calls();
  const double start = now();
  calls();
  return (now() - start) / kCalls;
}

struct Costs {
  double success, empty, full;
};

Costs measure(int seats) {
  const Name name("cost");  // a domain of its own
  auto queue = Queue<int>::create(name, 64);
  const Sitting others(queue, seats - 1);
  domain_of(queue).seat();
  EXPECT_EQ(domain_of(queue).seats_taken(), static_cast<unsigned>(seats));
  Costs costs;
  costs.success = nanoseconds_a_call([&] {
    for (int i = 0; i < kCalls; ++i) (void)(queue.try_put(i), queue.try_get());
  });
  costs.empty = nanoseconds_a_call([&] {
    for (int i = 0; i < kCalls; ++i) (void)queue.try_get();
  });
  while (queue.try_put(1)) {
  }
  costs.full = nanoseconds_a_call([&] {
    for (int i = 0; i < kCalls; ++i) (void)queue.try_put(i);
  });
  return costs;
}

TEST(SeatsCost, IsFlatFrom2To200) {
  std::array<std::vector<Costs>, 2> measured;
  for (int i = 0; i < kRepetitions; ++i) {
    measured[0].push_back(measure(2));
    measured[1].push_back(measure(200));
  }
  // What others on the machine do only adds.
  const auto least = [&](int which, double Costs::*field) {
    return (*std::ranges::min_element(measured[which], {}, field)).*field;
  };
  const std::pair<const char*, double Costs::*> kinds[] = {
      {"put and get", &Costs::success},
      {"empty", &Costs::empty},
      {"full", &Costs::full}};
  for (const auto& [what, field] : kinds) {
    const double few = least(0, field);
    const double many = least(1, field);
    printf("[   COST   ] %s: %.1f ns with 2 seats, %.1f ns with 200: %.2f\n",
           what, few, many, many / few);
    EXPECT_LE(many / few, kMostRatio) << what;
  }
}

// All but one are taken by three processes, which are killed; then all can be
// taken again.
TEST(SeatsCost, AllCanBeTakenAgainAfterDeath) {
  constexpr int kProcesses = 3;
  constexpr int kEach =
      static_cast<int>(shoal::liveness::kSeats - 1) / kProcesses;
  const Name name("all");
  auto queue = Queue<int>::create(name, 4);
  domain_of(queue).seat();
  for (int again = 0; again < 2; ++again) {
    Shared<std::atomic<int>> seated;
    std::deque<Child> children;
    for (int i = 0; i < kProcesses; ++i)
      children.emplace_back([&](Child& self) {
        auto own = Queue<int>::open(name);
        const Sitting others(own, kEach);
        *seated += kEach;
        if (*seated == kProcesses * kEach) {
          // No seat for the main thread.
          try {
            domain_of(own).seat();
            self.expect(false, "a seat beyond the last");
          } catch (const shoal::NoSpace&) {
          }
          *seated += 1;
        }
        for (;;) pause();
      });
    EXPECT_TRUE(eventually([&] { return *seated == kProcesses * kEach + 1; }));
    EXPECT_EQ(domain_of(queue).seats_taken(), shoal::liveness::kSeats);
    EXPECT_TRUE(queue.try_put(again));
    for (Child& child : children) {
      child.kill();
      EXPECT_EQ(child.join(), -SIGKILL) << child.failures();
    }
    EXPECT_EQ(queue.try_get(), again);
  }
  domain_of(queue).retire_all();
  EXPECT_EQ(domain_of(queue).seats_taken(), 1u);
}

}  // namespace
