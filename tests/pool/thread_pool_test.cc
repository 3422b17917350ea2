// What is ThreadPool's alone: any callable, the very exception, waiters that
// help, and threads that race.

#include "shoal/pool/thread_pool.h"

#include <malloc.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <numeric>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "shoal/ipc/event.h"
#include "shoal/ipc/wait.h"
#include "tests/support/boost_races.h"  // IWYU pragma: keep
#include "tests/support/child.h"

namespace {

using namespace shoal;
using namespace shoal::support;
using namespace std::chrono_literals;

// A task that stays until it is let go.
struct Gate {
  std::atomic<int> open{0};
  std::atomic<int> started{0};
  auto task() {
    return [this] {
      ++started;
      return eventually([this] { return open != 0; });
    };
  }
};

TEST(ThreadPool, AnyCallableAndArguments) {
  ThreadPool pool(2);
  int local = 0;
  pool.apply([&local] { local = 5; });
  EXPECT_EQ(local, 5);
  auto owned = std::make_unique<int>(7);
  EXPECT_EQ(pool.apply([p = std::move(owned)] { return *p; }), 7);
  EXPECT_EQ(pool.apply([](std::unique_ptr<int> p) { return *p; },
                       std::make_unique<int>(8)),
            8);
  const std::function<int(int)> f = [&](int x) { return x + local; };
  EXPECT_EQ(pool.map(f, {1, 2}), (std::vector{6, 7}));
  EXPECT_EQ(pool.apply([](const int* p) { return *p; }, &local), 5);
}

TEST(ThreadPool, TheVeryException) {
  struct Special {
    int* what;
  };
  int here = 0;
  ThreadPool pool(1);
  auto result = pool.apply_async([&]() -> int { throw Special{&here}; });
  try {
    result.get();
    FAIL() << "no error";
  } catch (const Special& error) {
    EXPECT_EQ(error.what, &here);
  }
  EXPECT_EQ(pool.apply([] { return 1; }), 1);
}

TEST(ThreadPool, WorkersAreItsThreads) {
  ThreadPool pool(2);
  ASSERT_TRUE(eventually([&] { return pool.workers().size() == 2; }));
  const auto ids = pool.workers();
  auto result = pool.apply_async([] { return gettid(); });
  EXPECT_TRUE(result.wait(10s));  // with a timeout nobody helps
  EXPECT_EQ(std::ranges::count(ids, result.get()), 1);
}

// It would wait for ever, and so would who waits for it.
TEST(ThreadPool, ATaskThatWaitsForItselfIsToldSo) {
  ThreadPool pool(1);
  for (const bool for_ever : {true, false}) {
    std::optional<AsyncResult<int>> own;
    std::atomic<bool> made{false};
    own.emplace(pool.apply_async([&] {
      if (!eventually([&] { return made.load(); })) return 0;
      return for_ever ? own->get() : own->get(20s);
    }));
    made = true;
    EXPECT_THROW(own->get(), std::logic_error);
  }
  // A look is none.
  std::optional<AsyncResult<int>> own;
  std::atomic<bool> made{false};
  own.emplace(pool.apply_async([&] {
    if (!eventually([&] { return made.load(); })) return 0;
    return own->wait(now) || own->try_get() ? 0 : 7;
  }));
  made = true;
  EXPECT_EQ(own->get(), 7);
}

TEST(ThreadPool, AChunkThatWaitsForItsMapIsToldSo) {
  ThreadPool pool(2);
  std::optional<AsyncResult<std::vector<int>>> own;
  std::atomic<bool> made{false};
  own.emplace(pool.map_async(
      [&](int n) {
        if (!eventually([&] { return made.load(); })) return 0;
        return n == 3 ? own->get().at(0) : n;
      },
      std::vector{1, 2, 3, 4}, 1));
  made = true;
  EXPECT_THROW(own->get(), std::logic_error);
}

TEST(ThreadPool, ATaskThatWaitsForItselfAmongNoneElseIsToldSo) {
  ThreadPool pool(1);
  for (const bool any : {true, false}) {
    std::vector<AsyncResult<int>> own;
    std::atomic<bool> made{false};
    own.push_back(pool.apply_async([&] {
      if (!eventually([&] { return made.load(); })) return 0;
      if (any) return static_cast<int>(wait_any(own));
      for (auto& result : as_completed(own)) result.get();
      return 0;
    }));
    made = true;
    EXPECT_THROW(own.front().get(), std::logic_error);
  }
}

// The waiter runs what it waits for, which waits for the waiter.
TEST(ThreadPool, TwoTasksThatWaitForEachOtherInOneThreadAreToldSo) {
  ThreadPool pool(1);
  Gate gate;
  std::optional<AsyncResult<int>> first, second;
  first.emplace(pool.apply_async([&] {
    const bool opened = gate.task()();
    return opened ? second->get() : 0;
  }));
  // Else this thread could run it, and the other one what it waits for.
  ASSERT_TRUE(eventually([&] { return gate.started == 1; }));
  second.emplace(pool.apply_async([&] { return first->get(); }));
  gate.open = 1;
  EXPECT_THROW(first->get(), std::logic_error);
  EXPECT_THROW(second->get(), std::logic_error);
}

// A waiter runs what nobody has begun; one with a timeout does not.
TEST(ThreadPool, AWaiterHelps) {
  ThreadPool pool(1);
  Gate gate;
  auto held = pool.apply_async(gate.task());
  ASSERT_TRUE(eventually([&] { return gate.started == 1; }));
  auto result = pool.apply_async([] { return gettid(); });
  EXPECT_FALSE(result.wait(10ms));
  EXPECT_EQ(result.get(), gettid());
  const auto all = pool.map([](int x) { return x + 1; }, {1, 2, 3});
  EXPECT_EQ(all, (std::vector{2, 3, 4}));
  EXPECT_EQ(pool.stats().done, 4u);  // with that map's three chunks
  gate.open = 1;
}

// In bursts that its ring does and does not hold.
TEST(ThreadPool, OneThreadRunsThemInOrder) {
  ThreadPool pool(1);
  std::vector<int> ran;
  std::vector<AsyncResult<void>> results;
  int submitted = 0;
  for (int burst = 1; burst < 4000; burst = 2 * burst + 1) {
    for (int round = 0; round < 40; ++round) {
      for (int n = 0; n < burst; ++n)
        results.push_back(
            pool.apply_async([&ran, n = submitted++] { ran.push_back(n); }));
      ASSERT_TRUE(results.back().wait(10s));  // with a timeout nobody helps
    }
    results.clear();
  }
  ASSERT_EQ(ran.size(), static_cast<std::size_t>(submitted));
  EXPECT_TRUE(std::ranges::is_sorted(ran));
}

// More than its ring holds, while the threads look for the next.
TEST(ThreadPool, TerminateFindsAllThatWait) {
  for (int round = 0; round < 20; ++round) {
    ThreadPool pool(3);
    Gate gate;
    std::vector<AsyncResult<bool>> held;
    for (int n = 0; n < 3; ++n) held.push_back(pool.apply_async(gate.task()));
    ASSERT_TRUE(eventually([&] { return gate.started == 3; }));
    std::atomic<int> ran{0};
    std::vector<AsyncResult<void>> results;
    for (int n = 0; n < 3000; ++n)
      results.push_back(pool.apply_async([&] { ++ran; }));
    std::thread opener([&] { gate.open = 1; });
    pool.terminate();
    opener.join();
    int done = 0;
    for (auto& result : results) {
      ASSERT_TRUE(result.ready());
      done += result.successful();
    }
    EXPECT_EQ(done, ran);
    const PoolStats stats = pool.stats();
    EXPECT_EQ(stats.done, 3u + static_cast<unsigned>(done));
    EXPECT_EQ(stats.queued, 0u);
  }
}

// Tasks that wait for tasks of the same pool, deeper than it has threads.
TEST(ThreadPool, TasksWaitForTasks) {
  ThreadPool pool(2);
  std::function<int(int)> sum = [&](int n) -> int {
    if (n == 0) return 0;
    auto rest = pool.apply_async(sum, n - 1);
    return n + rest.get();
  };
  EXPECT_EQ(pool.apply(sum, 50), 1275);
}

TEST(ThreadPool, AnInitializedOneIsNotHelped) {
  static thread_local int own = 0;
  ThreadPool pool(1, [] { own = 3; });
  for (int n = 0; n < 50; ++n) EXPECT_EQ(pool.apply([] { return own; }), 3);
}

TEST(ThreadPool, OptionsAreRefusedByItsName) {
  const auto refusal = [](const PoolOptions& options) -> std::string {
    try {
      ThreadPool pool(options);
      return "none";
    } catch (const std::invalid_argument& error) {
      return error.what();
    }
  };
  for (const PoolOptions& options :
       {PoolOptions{.processes = 1, .task_deadline = 1s},
        PoolOptions{.processes = 1, .task_deadline = now},
        PoolOptions{.processes = 1, .maxtasksperchild = -1},
        PoolOptions{.processes = 1, .affinity = {-1}},
        PoolOptions{.processes = 0}})
    EXPECT_EQ(refusal(options).find("shoal: ThreadPool "), 0u)
        << refusal(options);
}

TEST(ThreadPool, CallbacksOneAtATime) {
  ThreadPool pool(4);
  int unguarded = 0;
  std::set<std::thread::id> where;
  std::vector<AsyncResult<int>> results;
  for (int n = 0; n < 500; ++n)
    results.push_back(pool.apply_async(
        Callbacks{[&](int x) {
                    unguarded += x;
                    where.insert(std::this_thread::get_id());
                  },
                  {}},
        [](int x) { return x; }, n));
  pool.close();
  EXPECT_TRUE(pool.join(10s));
  EXPECT_EQ(unguarded, 500 * 499 / 2);
  EXPECT_EQ(where.size(), 1u);
}

TEST(ThreadPool, CallbacksThatSubmit) {
  ThreadPool pool(1);
  int depth = 0;
  Event over;
  std::function<void()> next = [&] {
    pool.apply_async(
        Callbacks{[&](int n) {
                    depth = n;
                    n < 1000 ? next() : static_cast<void>(over.set());
                  },
                  {}},
        [](int n) { return n + 1; }, depth);
  };
  next();
  EXPECT_TRUE(over.wait(30s));
  pool.close();
  EXPECT_TRUE(pool.join(10s));  // the last callback has let go of `over`
  EXPECT_EQ(depth, 1000);
}

TEST(ThreadPool, JoinInATaskIsRefused) {
  ThreadPool pool(1);
  auto result = pool.apply_async([&] {
    pool.close();
    pool.join();
  });
  EXPECT_TRUE(result.wait(10s));
  EXPECT_THROW(result.get(), std::logic_error);
}

// What has ended otherwise is not cancelled.
TEST(ThreadPool, AbandonedMapIsNotCancelled) {
  const auto f = [](int item) { return item; };
  std::atomic<bool> submitted{false};
  ThreadPool broken(1, [&] {
    eventually([&] { return submitted.load(); });
    throw std::runtime_error("no");
  });
  auto map = broken.map_async(f, std::vector{1, 2}, 1);
  submitted = true;
  EXPECT_TRUE(map.wait(10s));
  EXPECT_FALSE(map.cancel());
  EXPECT_THROW(map.get(), BrokenPool);

  Gate gate;
  ThreadPool pool(1);
  auto running = pool.apply_async(gate.task());
  eventually([&] { return gate.started == 1; });
  auto queued = pool.map_async(f, std::vector{1, 2}, 1);
  std::thread ends([&] { pool.terminate(); });
  EXPECT_TRUE(eventually([&] { return queued.ready(); }));
  EXPECT_FALSE(queued.cancel());
  EXPECT_THROW(queued.get(), Cancelled);
  gate.open = 1;
  ends.join();
}

TEST(ThreadPool, TerminateInATask) {
  ThreadPool pool(2);
  auto result = pool.apply_async([&] { pool.terminate(); });
  EXPECT_TRUE(result.wait(10s));
  result.get();
  EXPECT_TRUE(pool.join(10s));
}

// As terminate() in a task cannot, the destructor waits for the others.
TEST(ThreadPool, DestructorWaitsThoughATaskHasTerminated) {
  Gate gate;
  std::atomic<bool> ended{false};
  std::thread opens([&] {
    eventually([&] { return gate.started == 2; });
    gate.open = 1;
  });
  {
    ThreadPool pool(2);
    pool.apply_async([&] {
      gate.task()();
      ended = true;
    });
    auto ends = pool.apply_async([&] {
      eventually([&] { return gate.started == 1; });
      pool.terminate();
      ++gate.started;
    });
    EXPECT_TRUE(ends.wait(10s));
  }
  EXPECT_TRUE(ended);
  opens.join();
}

// join() waits for a task that a waiter runs, too.
TEST(ThreadPool, JoinWaitsForHelpers) {
  ThreadPool pool(1);
  Gate first, second;
  auto held = pool.apply_async(first.task());
  ASSERT_TRUE(eventually([&] { return first.started == 1; }));
  auto helped = pool.apply_async(second.task());
  std::thread helper([&] { EXPECT_TRUE(helped.get()); });
  ASSERT_TRUE(eventually([&] { return second.started == 1; }));
  first.open = 1;
  held.get();
  pool.close();
  EXPECT_FALSE(pool.join(50ms));
  second.open = 1;
  EXPECT_TRUE(pool.join(10s));
  helper.join();
}

// Also by as_completed, wait_any and imap_unordered.
TEST(ThreadPool, TasksWaitForManyTasks) {
  ThreadPool pool(1);
  EXPECT_EQ(pool.apply_async([&] {
                  std::vector<AsyncResult<int>> all;
                  for (int n = 0; n < 3; ++n)
                    all.push_back(pool.apply_async([](int x) { return x; }, n));
                  int sum = 0;
                  for (auto& one : as_completed(all)) sum += one.get();
                  for (const int n :
                       pool.imap_unordered([](int x) { return x; }, {4, 5}))
                    sum += n;
                  return sum;
                })
                .get(10s),
            12);
}

TEST(ThreadPool, AForksCopyDoesNothing) {
#if defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "its runtime makes no thread where one was forked away";
#endif
  ThreadPool pool(2);
  Gate gate;
  auto held = pool.apply_async(gate.task());
  auto other = pool.apply_async(gate.task());
  ASSERT_TRUE(eventually([&] { return gate.started == 2; }));
  Shared<std::atomic<int>> runs;
  std::vector<AsyncResult<int>> waiting;
  waiting.push_back(pool.apply_async([&] { return ++*runs; }));
  waiting.push_back(
      pool.apply_async(Callbacks{[](int) {}, {}}, [&] { return ++*runs; }));
  Child child([&](Child& self) {
    ThreadPool mine(1);
    self.expect(mine.apply([] { return 3; }) == 3, "one of its own");
    try {
      held.get(10s);
      self.expect(false, "it is there");
    } catch (const std::logic_error&) {
    }
    const auto refused = [](const auto& call) {
      try {
        call();
      } catch (const std::logic_error&) {
        return true;
      }
      return false;
    };
    self.expect(refused([&] { pool.apply_async([] {}); }), "submitted");
    self.expect(refused([&] { pool.close(); }), "closed");
    self.expect(refused([&] { pool.terminate(); }), "terminated");
    self.expect(refused([&] { pool.join(); }), "joined");
    self.expect(refused([&] { wait_any(waiting); }), "waited for");
    for (auto& result : waiting)
      self.expect(refused([&] { result.cancel(); }), "cancelled");
    pool.~ThreadPool();  // ends, and the child by _exit
  });
  EXPECT_EQ(child.join(), 0) << child.failures();
  EXPECT_EQ(*runs, 0);
  gate.open = 1;
  EXPECT_TRUE(held.get());
  EXPECT_TRUE(other.get());
  for (auto& result : waiting) result.get();
  EXPECT_EQ(*runs, 2);
}

TEST(ThreadPool, SaysWhichThreadItCannotHave) {
  if (kAddressSanitizer) GTEST_SKIP() << "no address space to limit";
#if defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "no address space to limit";
#endif
  Child program([](Child& self) {
    // What else needs address space has it before, or needs none.
    mallopt(M_ARENA_MAX, 1);
    const ThreadPool another(1);
    constexpr rlimit kLittle{std::uint64_t{256} << 20, RLIM_INFINITY};
    setrlimit(RLIMIT_AS, &kLittle);
    try {
      ThreadPool pool(500);  // with stacks of 8 MiB
      self.expect(false, "it has them");
    } catch (const std::system_error& error) {
      const std::string text = error.what();
      self.expect(error.code() == std::errc::resource_unavailable_try_again &&
                      text.find("pthread_create") != text.npos &&
                      text.find("of 500 of a ThreadPool") != text.npos,
                  text);
    }
    self.expect(ThreadPool(2).apply([] { return 3; }) == 3, "a smaller one");
  });
  EXPECT_EQ(program.join(), 0) << program.failures();
}

// What ends with a thread of the pool may still use the pool, also while that
// is being joined.
TEST(ThreadPool, ClosedByAThreadThatEnds) {
  Child program([](Child& self) {
    ThreadPool pool(1);
    struct AtEnd {
      ~AtEnd() {
        const Deadline end(200ms);
        while (used != nullptr && !end.passed()) used->close();
      }
      ThreadPool* used = nullptr;
    };
    // Not by this thread, which would help.
    self.expect(pool.apply_async([&] {
                      thread_local AtEnd at_end;
                      at_end.used = &pool;
                    })
                    .wait(kPatience / 2),
                "run");
    pool.close();
    self.expect(pool.join(kPatience / 2), "joined");
  });
  EXPECT_EQ(program.join(), 0) << program.failures();
}

// Submitters, closers and cancellers at once: each task runs once, or is
// cancelled, or was refused; none hangs.
TEST(ThreadPool, ClosingRaces) {
  for (int round = 0; round < 300; ++round) {
    ThreadPool pool(2);
    std::atomic<int> ran{0};
    std::atomic<int> accepted{0};
    std::atomic<int> cancelled{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 3; ++t)
      threads.emplace_back([&, t] {
        std::vector<AsyncResult<void>> mine;
        try {
          for (int n = 0; n < 200; ++n) {
            mine.push_back(pool.apply_async([&] { ++ran; }));
            ++accepted;
            if (n % 7 == t && mine.back().cancel()) ++cancelled;
          }
        } catch (const NotRunning&) {
        }
        for (auto& result : mine) EXPECT_TRUE(result.wait(10s));
      });
    if (round % 2 == 0)
      pool.close();
    else
      while (ran < round % 30) std::this_thread::yield();
    if (round % 2 != 0) pool.close();
    // Also while others are on their way to being refused.
    const bool at_once = round % 3 != 0;
    EXPECT_TRUE(!at_once || pool.join(10s));
    for (std::thread& thread : threads) thread.join();
    EXPECT_TRUE(at_once || pool.join(10s));
    EXPECT_EQ(ran + cancelled, accepted);
  }
}

TEST(ThreadPool, ManySleepAndWake) {
  ThreadPool pool(4);
  std::atomic<int> ran{0};
  for (int round = 0; round < 200; ++round) {
    std::vector<AsyncResult<void>> results;
    for (int n = 0; n < 1 + round % 9; ++n)
      results.push_back(pool.apply_async([&] { ++ran; }));
    for (auto& result : results) ASSERT_TRUE(result.wait(10s));
    if (round % 20 == 0) std::this_thread::sleep_for(1ms);  // they sleep
  }
}

TEST(ThreadPool, WaitsBesideOtherThings) {
  ThreadPool pool(1);
  Event event;
  Gate gate;
  auto held = pool.apply_async(gate.task());
  EXPECT_TRUE(shoal::wait({event, held}, 10ms).empty());
  gate.open = 1;
  EXPECT_EQ(shoal::wait({event, held}, 10s), (std::vector<std::size_t>{1}));
}

}  // namespace
