// Ends that are not the usual ones: of a pool when no seat is left, of verbs
// that throw half-way, of tasks that end just at their deadline.

#include <sched.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <iostream>
#include <optional>
#include <stdexcept>
#include <streambuf>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/forkserver.h"
#include "shoal/ipc/liveness.h"
#include "shoal/ipc/pipe.h"
#include "shoal/ipc/queue.h"
#include "shoal/pool/pool.h"
#include "shoal/pool/thread_pool.h"
#include "shoal/shared/array.h"
#include "tests/pool/scene.h"
#include "tests/support/child.h"
#include "tests/support/thread.h"

namespace {

using namespace shoal;
using namespace shoal::support;
using namespace std::chrono_literals;

// ---- no seat ----

// All seats are taken as long as it lives.
class AllSeats {
 public:
  AllSeats() {
    domain_.seat();
    const std::uint32_t free = liveness::kSeats - domain_.seats_taken();
    for (std::uint32_t i = 0; i < free; ++i)
      threads_.emplace_back([this] {
        domain_.seat();
        ++seated_;
        done_.wait(false);
      });
    EXPECT_TRUE(eventually([&] { return seated_ == free; }));
  }
  ~AllSeats() {
    done_ = true;
    done_.notify_all();
  }

 private:
  const Queue<int> queue_;  // of the tree's domain
  liveness::Domain& domain_ = *liveness::Domain::tree();
  std::atomic<std::uint32_t> seated_{0};
  std::atomic<bool> done_{false};
  std::deque<Thread> threads_;
};

class PoolWithoutSeat : public PoolScene {
 protected:
  // In a thread that has none and gets none.
  void in_a_thread(const std::function<void()>& body) {
    const AllSeats all;
    Thread thread([&] {
      EXPECT_THROW(liveness::Domain::tree()->seat(), NoSpace);
      EXPECT_NO_THROW(body());
    });
    EXPECT_TRUE(thread.ends());
  }
  Pool pool{1};
  AsyncResult<int> first = pool.apply_async([] { return 7; });
};

TEST_F(PoolWithoutSeat, Close) {
  EXPECT_EQ(first.get(), 7);
  in_a_thread([&] { pool.close(); });
  EXPECT_TRUE(pool.join(kPatience));
}

TEST_F(PoolWithoutSeat, Terminate) {
  auto held = pool.apply_async(&wait_at_gate);
  ASSERT_TRUE(started(1));
  auto queued = pool.apply_async(&wait_at_gate);
  in_a_thread([&] {
    pool.terminate();
    EXPECT_THROW(queued.get(now), Cancelled);
  });
  EXPECT_THROW(held.get(now), Cancelled);
  EXPECT_TRUE(pool.join(kPatience));
}

TEST_F(PoolWithoutSeat, EndOfTheLastStream) {
  std::optional stream =
      pool.imap([](int x) { return x; }, std::vector<int>(100, 5));
  EXPECT_EQ(stream->next(), 5);
  pool.close();
  in_a_thread([&] { stream.reset(); });
  EXPECT_TRUE(pool.join(kPatience));
}

// ---- verbs that throw half-way ----

constexpr std::size_t kMany = 300'000;

// The first element closes the pool, long before the last one is submitted.
TEST(ThreadPoolEnd, ForEachThatThrowsHasNoElementInHand) {
  ThreadPool pool(2);
  std::vector<int> elements(kMany);
  std::atomic<int> within{0};
  std::atomic<bool> thrown{false};
  try {
    pool.for_each(
        elements,
        [&](int&) {
          ++within;
          pool.close();
          eventually([&] { return thrown.load(); }, 200ms);
          --within;
        },
        1);
    FAIL() << "all were submitted";
  } catch (const NotRunning&) {
    thrown = true;
    EXPECT_EQ(within, 0);
  }
  EXPECT_TRUE(pool.join(kPatience));
  const PoolStats stats = pool.stats();
  EXPECT_EQ(stats.queued, 0u);
  EXPECT_LE(stats.done, 2u);
}

// With callbacks nobody hears of what was not submitted but by the exception.
TEST(ThreadPoolEnd, MapAsyncThatThrowsCallsNothingBack) {
  ThreadPool pool(1);
  std::atomic<int> called{0};
  const std::vector<int> items(kMany);
  EXPECT_THROW(pool.map_async(
                   Callbacks{[&](const std::vector<int>&) { ++called; },
                             [&](std::exception_ptr) { ++called; }},
                   [&](int) {
                     pool.close();
                     return 0;
                   },
                   items, 1),
               NotRunning);
  EXPECT_TRUE(pool.join(kPatience));
  EXPECT_EQ(called, 0);
}

class PoolEnd : public PoolScene {};

TEST_F(PoolEnd, ForEachThatThrowsChangesNothingAnyMore) {
  Pool pool(2);
  const Array<int> elements(kMany);
  std::thread closer([&] {
    started(1);
    pool.close();
  });
  EXPECT_THROW(pool.for_each(
                   elements,
                   [](int& element) {
                     element = 1;
                     if (++marks->started <= 2)
                       eventually([] { return marks->gate != 0; }, 200ms);
                   },
                   1),
               NotRunning);
  const auto changed = [&] { return std::ranges::count(elements.span(), 1); };
  const auto then = changed();
  marks->gate = 1;
  closer.join();
  EXPECT_TRUE(pool.join(kPatience));
  EXPECT_EQ(changed(), then);
  EXPECT_GE(then, 1);
}

// ---- deadlines ----

// Who is killed for its task's deadline has not completed the task: as many
// workers as tasks.
TEST_F(PoolEnd, DeadlineSparesAWorkerThatHasCompletedItsTask) {
  constexpr auto kDeadline = 2ms;
  Pool pool({.processes = 2, .task_deadline = kDeadline});
  std::uint64_t died = 0;
  int completed = 0;
  const Deadline end(Timeout(3s));
  for (int n = 0; !end.passed(); ++n) {
    std::vector<AsyncResult<void>> results;
    for (int i = 0; i < 2; ++i)
      results.push_back(pool.apply_async(
          [](int microseconds) {
            const auto until = std::chrono::steady_clock::now() +
                               std::chrono::microseconds(microseconds);
            while (std::chrono::steady_clock::now() < until) {
            }
          },
          1900 + (n * 37 + i * 11) % 300));
    for (auto& result : results) {
      try {
        result.get();
        ++completed;
      } catch (const WorkerDied&) {
        ++died;
      }
    }
  }
  ASSERT_TRUE(back_to_size(pool));
  EXPECT_TRUE(eventually([&] { return pool.stats().replaced == died; }))
      << pool.stats().replaced << " workers, " << died << " tasks";
  EXPECT_GT(died, 0u);
  EXPECT_GT(completed, 0);
}

// ---- handles of tasks that no worker will run ----

int use(Connection end) {
  end.send(7);
  return 7;
}

// Who waits at the other end does not look at the pool.
TEST_F(PoolEnd, AnEndInATaskIsClosedWhenTheNurseryIsKilled) {
  Pool pool(1);
  auto held = pool.apply_async(&wait_at_gate);
  ASSERT_TRUE(started(1));
  auto [here, there] = Pipe();
  auto queued = pool.apply_async(&use, std::move(there));
  kill(nursery_of(pool), SIGKILL);
  EXPECT_THROW(here.recv<int>(20s), EndOfFile);
  EXPECT_THROW(queued.get(20s), BrokenPool);
}

TEST_F(PoolEnd, AnEndInATaskIsClosedWhenThePoolBreaks) {
  Pool pool({.processes = 1, .on_worker_death = break_pool});
  auto held = pool.apply_async([] {
    wait_at_gate();
    raise(SIGKILL);
  });
  ASSERT_TRUE(started(1));
  auto [here, there] = Pipe();
  pool.apply_async(&use, std::move(there));
  marks->gate = 1;
  EXPECT_THROW(here.recv<int>(20s), EndOfFile);
  EXPECT_THROW(held.get(20s), WorkerDied);
}

// Also of one whose nursery has only just been forked.
TEST_F(PoolEnd, AnEndInTheFirstTaskIsClosedWhenTheNurseryIsKilled) {
  for (int round = 0; round < 20; ++round) {
    Pool pool({.processes = 1, .start_method = StartMethod::fork});
    auto [here, there] = Pipe();
    std::thread killer([&, round] {
      for (int n = 0; n < 40 * round; ++n) sched_yield();
      kill(nursery_of(pool), SIGKILL);
    });
    try {
      pool.apply_async(&use, std::move(there));
      EXPECT_EQ(here.recv<int>(20s), 7);
    } catch (const EndOfFile&) {  // or PeerDied
    } catch (const BrokenPool&) {
    }
    killer.join();
  }
}

// ---- what the owner has blocked ----

TEST_F(PoolEnd, WorkersBlockNoSignal) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  for (const StartMethod method :
       {StartMethod::fork, StartMethod::forkserver, StartMethod::spawn}) {
    Pool pool({.processes = 1, .start_method = method});
    EXPECT_EQ(pool.apply([] {
      sigset_t blocked;
      pthread_sigmask(SIG_SETMASK, nullptr, &blocked);
      int count = 0;
      for (int number = 1; number < 32; ++number)
        count += sigismember(&blocked, number) == 1;
      return count;
    }),
              0);
    const auto start = std::chrono::steady_clock::now();
    pool.terminate();
    pool.join();
    EXPECT_LT(std::chrono::steady_clock::now() - start, 900ms);
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  forkserver::stop();
}

// ---- rings ----

// Who comes later begins where there is something to take.
TEST_F(PoolEnd, NewWorkersPassOverDrainedRings) {
  Pool pool({.processes = 1, .maxtasksperchild = 1});
  auto held = pool.apply_async(&wait_at_gate);
  ASSERT_TRUE(started(1));
  pool::PoolState& state = memory_of(pool).state();
  while (state.ring != 3)
    EXPECT_TRUE(pool.apply_async([] { return 1; }).cancel());
  EXPECT_EQ(state.first_ring, 0u);
  marks->gate = 1;
  for (int n = 0; n < 5; ++n) EXPECT_EQ(pool.apply([] { return 8; }), 8);
  EXPECT_EQ(state.first_ring, 3u);
  EXPECT_GE(pool.stats().replaced, 4u);
}

// ---- what a task's output throws ----

// Throws at the next flush, when it is told to.
class Unwritable : public std::streambuf {
 public:
  static inline bool refuses = false;

 protected:
  int sync() override {
    if (refuses) throw std::runtime_error("no room on the device");
    return 0;
  }
};

TEST_F(PoolEnd, AnErrorThatFindsNoRoomLeavesNoBlock) {
  Pool pool(1, [] { std::cout.rdbuf(new Unwritable); });
  EXPECT_EQ(pool.apply([] { return 1; }), 1);
  for (int n = 0; n < 3; ++n) {
    auto result = pool.apply_async([] {
      Unwritable::refuses = true;
      throw std::runtime_error(std::string(1000, 'x'));
    });
    EXPECT_THROW(result.get(), NoSpace);
    pool.apply_async([] { Unwritable::refuses = false; }).wait();
  }
  EXPECT_EQ(blocks_of(pool), 0u);
}

}  // namespace
