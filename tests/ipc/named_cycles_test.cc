// Named objects that two threads make and destroy in turn: nothing is left of
// them, and the kernel still sees who dies (its list of held mutexes passes
// through memory that is unmapped with every object).

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <thread>

#include "gtest/gtest.h"
#include "shoal/ipc/lock.h"
#include "shoal/ipc/queue.h"
#include "tests/support/child.h"
#include "tests/support/residue.h"

namespace {

using namespace shoal::support;
using shoal::Lock;
using shoal::Queue;
using namespace std::chrono_literals;

constexpr int kCycles = 1000;

std::ptrdiff_t descriptors() {
  return std::distance(std::filesystem::directory_iterator("/proc/self/fd"),
                       std::filesystem::directory_iterator());
}

// Of shared objects; what the C library maps is its own.
std::ptrdiff_t mappings() {
  std::ifstream file("/proc/self/maps");
  std::ptrdiff_t count = 0;
  for (std::string line; std::getline(file, line);)
    count += line.find("/dev/shm/") != std::string::npos;
  return count;
}

// One makes and fills the queue, the other empties and destroys it; then the
// other way round.
class Cycles {
 public:
  void run(int side, Child& self) {
    for (int i = 0; i < kCycles; ++i) {
      if (i % 2 == side) {
        name_ = unique_name("cycle");
        queue_.emplace(Queue<int>::create(name_, 4));
        queue_->put(i);
        hand_over(2 * i + 1);
        await(2 * i + 2);
      } else {
        await(2 * i + 1);
        self.expect(queue_->get() == i, "the value of this cycle");
        self.expect(shoal::unlink(name_), "its name");
        queue_.reset();
        if (i == kCycles / 10) {
          descriptors_ = descriptors();
          mappings_ = mappings();
        }
        if (i == kCycles - 1) {
          self.expect(descriptors() <= descriptors_, "descriptors are left");
          // A seat of the other's is given back when it next takes one.
          self.expect(mappings() <= mappings_ + 2, "mappings are left");
        }
        hand_over(2 * i + 2);
      }
    }
  }

 private:
  void hand_over(int turn) { turn_.store(turn), turn_.notify_all(); }
  void await(int turn) {
    for (int now; (now = turn_.load()) < turn;) turn_.wait(now);
  }

  std::atomic<int> turn_{0};
  std::string name_;
  std::optional<Queue<int>> queue_;
  std::ptrdiff_t descriptors_ = 0;
  std::ptrdiff_t mappings_ = 0;
};

TEST(NamedCycles, OfTwoThreadsInTurnLeaveNothing) {
  Lock first;
  Lock second;
  Queue<int> values(4);
  values.put(1);
  values.put(2);
  Shared<std::atomic<int>> held;
  Child child([&](Child& self) {
    Cycles cycles;
    const auto live = [&](int side, Lock& lock) {
      const auto taken = values.take();  // the elder of its claims
      cycles.run(side, self);
      lock.acquire();
      ++*held;
      if (!self.failures().empty()) _exit(1);
      for (;;) pause();
    };
    std::thread other([&] { live(1, second); });
    live(0, first);
    other.join();
  });
  EXPECT_TRUE(eventually([&] { return *held == 2; })) << child.failures();
  child.kill();
  EXPECT_EQ(child.join(), -SIGKILL) << child.failures();
  for (Lock* lock : {&first, &second}) {
    EXPECT_TRUE(lock->acquire(1s));
    EXPECT_TRUE(lock->owner_died());
    lock->mark_consistent();
    lock->release();
  }
  EXPECT_EQ(values.get(1s), 1);
  EXPECT_EQ(values.get(1s), 2);
}

}  // namespace
