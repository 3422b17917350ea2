// AsyncResult: waiting, cancelling, errors, and what the life of the pool
// means for it.

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shoal/ipc/queue.h"
#include "shoal/pool/async_result.h"
#include "shoal/pool/pool.h"
#include "shoal/shared/value.h"
#include "tests/pool/scene.h"
#include "tests/support/thread.h"

namespace {

using namespace shoal;
using namespace shoal::support;
using namespace std::chrono_literals;
using testing::Contains;
using testing::HasSubstr;

class PoolResult : public PoolScene {
 protected:
  // Both workers are busy until the gate opens.
  void hold_workers() {
    for (int n = 0; n < 2; ++n)
      held_.push_back(pool.apply_async(&wait_at_gate));
    ASSERT_TRUE(started(2));
  }
  Pool pool{2};

 private:
  std::vector<AsyncResult<int>> held_;
};
using PoolCancel = PoolResult;
using PoolThreads = PoolResult;
using PoolError = PoolResult;
using PoolDropped = PoolResult;

int seven() { return 7; }

// ---- waiting ----

TEST_F(PoolResult, TimesOutAndThenHasItsValue) {
  auto result = pool.apply_async(&wait_at_gate);
  ASSERT_TRUE(started(1));
  EXPECT_FALSE(result.ready());
  EXPECT_FALSE(result.wait(now));
  EXPECT_FALSE(result.wait(-5s));
  EXPECT_FALSE(result.wait(2ms));
  EXPECT_THROW(result.get(now), TimeoutError);
  const auto start = std::chrono::steady_clock::now();
  EXPECT_THROW(result.get(30ms), TimeoutError);
  EXPECT_GE(std::chrono::steady_clock::now() - start, 30ms);
  EXPECT_EQ(result.try_get(), std::nullopt);
  EXPECT_THROW(result.successful(), NotReady);
  marks->gate = 1;
  EXPECT_EQ(result.get(kPatience), 1);
  EXPECT_TRUE(result.ready());
  EXPECT_TRUE(result.successful());
  EXPECT_TRUE(result.wait(now));
  EXPECT_EQ(result.get(now), 1);
  EXPECT_EQ(result.try_get(), 1);
}

TEST_F(PoolResult, SleeperIsWoken) {
  for (int round = 0; round < 20; ++round) {
    marks->gate = 0;
    auto result = pool.apply_async(&wait_at_gate);
    std::atomic<int> got{0};
    Thread waiter([&] { got = result.get(); });
    ASSERT_TRUE(waiter.falls_asleep());
    marks->gate = 1;
    ASSERT_TRUE(waiter.ends());
    EXPECT_EQ(got, round + 1);
  }
}

TEST_F(PoolResult, MovesAndOutlivesItsFirstPlace) {
  std::optional<AsyncResult<std::string>> result(
      pool.apply_async([] { return std::string(1000, 'x'); }));
  AsyncResult<std::string> moved = std::move(*result);
  result.reset();
  EXPECT_EQ(moved.get().size(), 1000u);
  moved = pool.apply_async([] { return std::string("other"); });
  EXPECT_EQ(moved.get(), "other");
  auto& self = moved;
  moved = std::move(self);
  EXPECT_EQ(moved.get(), "other");
  AsyncResult<std::string> last = std::move(moved);
  EXPECT_THROW(moved.get(), std::logic_error);
  EXPECT_THROW(moved.wait(now), std::logic_error);
  EXPECT_EQ(last.get(), "other");
  EXPECT_TRUE(eventually([&] { return records_of(pool) <= 2; }));
}

// ---- threads ----

TEST_F(PoolThreads, ManyWaitForOne) {
  auto result = pool.apply_async([] {
    wait_at_gate();
    return std::vector<int>(1000, 5);
  });
  std::atomic<int> right{0};
  std::vector<std::unique_ptr<Thread>> threads;
  for (int t = 0; t < 16; ++t)
    threads.push_back(std::make_unique<Thread>([&] {
      right += result.get() == std::vector<int>(1000, 5) && result.ready();
    }));
  for (auto& thread : threads) ASSERT_TRUE(thread->falls_asleep());
  marks->gate = 1;
  for (auto& thread : threads) ASSERT_TRUE(thread->ends());
  EXPECT_EQ(right, 16);
}

// More waiters than there are flags for sleepers.
TEST_F(PoolThreads, ManyWaitForMany) {
  constexpr int kWaiters = 70;
  hold_workers();
  std::vector<AsyncResult<int>> results;
  for (int i = 0; i < kWaiters; ++i)
    results.push_back(pool.apply_async([i] { return i; }));
  std::atomic<int> right{0};
  std::vector<std::unique_ptr<Thread>> threads;
  for (int i = 0; i < kWaiters; ++i)
    threads.push_back(std::make_unique<Thread>(
        [&, i] { right += results[static_cast<std::size_t>(i)].get() == i; }));
  for (auto& thread : threads) ASSERT_TRUE(thread->falls_asleep());
  marks->gate = 1;
  for (auto& thread : threads) ASSERT_TRUE(thread->ends());
  EXPECT_EQ(right, kWaiters);
}

// Another task of the same residue completes between the last look at ours and
// the sleep, and another waiter has set the flag again: the sleep is over.
TEST_F(PoolThreads, FlagSetAgainByAnotherWaiter) {
  pool::Memory& memory = memory_of(pool);
  const std::uint32_t bit = pool::Memory::bit_of(7);
  const std::int64_t start = monotonic_now();
  for (int n = 0; n < 20; ++n)  // else 100 ms each
    core_of(pool).sleep(bit, Deadline::never(), [&] {
      memory.wake_bits(bit);
      memory.state().sleepers.fetch_or(bit);
      return false;
    });
  EXPECT_LT(monotonic_now() - start, std::chrono::nanoseconds(1s).count());
}

TEST_F(PoolThreads, ManySubmit) {
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t)
    threads.emplace_back([&, t] {
      for (int n = 0; n < 300; ++n) {
        const auto size = static_cast<std::size_t>(n);
        auto later = pool.apply_async(
            [](std::string s, int k) { return s + std::to_string(k); },
            std::string(size, 'a'), t);
        const auto squares =
            pool.map([](int x) { return x * x; }, {n, n + 1, n + 2}, 1);
        wrong += squares !=
                 std::vector<int>{n * n, (n + 1) * (n + 1), (n + 2) * (n + 2)};
        wrong += later.get() != std::string(size, 'a') + std::to_string(t);
      }
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(blocks_of(pool), 0u);
}

TEST_F(PoolThreads, SubmitWhileAnotherCloses) {
  std::atomic<int> accepted{0};
  std::atomic<int> completed{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      try {
        for (;;) {
          auto result = pool.apply_async(&seven);
          ++accepted;
          completed += result.get() == 7;
        }
      } catch (const NotRunning&) {
      }
    });
  eventually([&] { return completed > 200; });
  pool.close();
  for (auto& thread : threads) thread.join();
  EXPECT_TRUE(pool.join(kPatience));
  EXPECT_EQ(completed, accepted);
}

TEST_F(PoolThreads, WaitersSeeTheEndOfThePool) {
  hold_workers();
  auto pending = pool.apply_async(&seven);
  std::atomic<int> cancelled{0};
  std::vector<std::unique_ptr<Thread>> threads;
  for (int t = 0; t < 8; ++t)
    threads.push_back(std::make_unique<Thread>([&] {
      try {
        pending.get();
      } catch (const Cancelled&) {
        ++cancelled;
      }
    }));
  for (auto& thread : threads) ASSERT_TRUE(thread->falls_asleep());
  pool.terminate();
  for (auto& thread : threads) ASSERT_TRUE(thread->ends());
  EXPECT_EQ(cancelled, 8);
}

// ---- cancel ----

TEST_F(PoolCancel, PendingTaskNeverRuns) {
  hold_workers();
  auto result = pool.apply_async([] { ++marks->ran; });
  auto after = pool.apply_async(&seven);
  EXPECT_TRUE(result.cancel());
  EXPECT_TRUE(result.ready());
  EXPECT_FALSE(result.successful());
  EXPECT_THROW(result.get(), Cancelled);
  EXPECT_THROW(result.get(), Cancelled);
  marks->gate = 1;
  EXPECT_EQ(after.get(), 7);
  EXPECT_EQ(marks->ran, 0);
}

TEST_F(PoolCancel, RunningTaskGoesOn) {
  auto result = pool.apply_async(&wait_at_gate);
  ASSERT_TRUE(started(1));
  EXPECT_FALSE(result.cancel());
  EXPECT_FALSE(result.ready());
  marks->gate = 1;
  EXPECT_EQ(result.get(), 1);
  EXPECT_FALSE(result.cancel());
  EXPECT_EQ(result.get(), 1);
}

TEST_F(PoolCancel, MapBeforeItHasStarted) {
  hold_workers();
  auto result = pool.map_async([](int) { ++marks->ran; }, {1, 2, 3}, 1);
  EXPECT_TRUE(result.cancel());
  EXPECT_THROW(result.get(), Cancelled);
  marks->gate = 1;
  EXPECT_EQ(pool.apply(&seven), 7);
  EXPECT_EQ(marks->ran, 0);
}

TEST_F(PoolCancel, MapThatHasStartedGoesOnWhole) {
  auto result = pool.map_async(
      [](int) {
        wait_at_gate();
        ++marks->ran;
      },
      {1, 2, 3, 4, 5, 6}, 1);
  ASSERT_TRUE(started(2));
  EXPECT_FALSE(result.cancel());
  marks->gate = 1;
  EXPECT_NO_THROW(result.get());
  EXPECT_EQ(marks->ran, 6);
}

// The one who wins decides what the result is.
TEST_F(PoolCancel, AgainstTheWorkerThatTakesIt) {
  int cancelled = 0;
  int ran = 0;
  // On a busy machine it takes longer until a worker wins.
  for (int round = 0; round < 3000 || ran == 0; ++round) {
    auto result = pool.apply_async([](int n) { return ++marks->ran + n; }, 5);
    for (int i = round % 100 * (1 + round / 3000); i > 0; --i) waiting::pause();
    const int before = marks->ran;
    if (result.cancel()) {
      ++cancelled;
      EXPECT_THROW(result.get(), Cancelled);
      EXPECT_EQ(marks->ran, before);
    } else {
      ++ran;
      const int got = result.get();
      EXPECT_EQ(got, marks->ran + 5);
    }
  }
  EXPECT_EQ(marks->ran, ran);
  EXPECT_GT(ran, 0);
  RecordProperty("cancelled", cancelled);
}

// ---- results that nobody collects ----

TEST_F(PoolDropped, LeaveNothingBehind) {
  const auto work = [](std::string s) { return s + s; };
  hold_workers();
  for (int n = 0; n < 2000; ++n)
    static_cast<void>(pool.apply_async(work, std::string(300, 'x')));
  marks->gate = 1;
  EXPECT_EQ(pool.apply(&seven), 7);
  const std::uint32_t records = records_of(pool);
  EXPECT_LE(records, 2010u);
  // Later submissions use up what was left; many more need no more.
  for (int n = 0; n < 20'000; ++n)
    static_cast<void>(pool.apply_async(work, std::string(300, 'x')));
  EXPECT_EQ(pool.apply(&seven), 7);
  for (int n = 0; n < 20'000; ++n) pool.apply(&seven);
  EXPECT_EQ(blocks_of(pool), 0u);
}

TEST_F(PoolDropped, BlocksGoWithTheResult) {
  {
    auto result = pool.apply_async([](std::string s) { return s; },
                                   std::string(10'000, 'x'));
    EXPECT_TRUE(result.wait(kPatience));
    EXPECT_EQ(blocks_of(pool), 1u) << "the arguments are gone, the result not";
    EXPECT_EQ(result.get().size(), 10'000u);
    EXPECT_EQ(blocks_of(pool), 1u);
  }
  EXPECT_EQ(blocks_of(pool), 0u);
}

TEST_F(PoolDropped, RecordsAreUsedAgain) {
  for (int n = 0; n < 10'000; ++n) EXPECT_EQ(pool.apply(&seven), 7);
  EXPECT_LE(records_of(pool), 4u);
}

// ---- errors of tasks ----

TEST_F(PoolError, StandardTypesAreKept) {
  EXPECT_THROW(pool.apply([] { throw std::runtime_error("x"); }),
               std::runtime_error);
  EXPECT_THROW(pool.apply([] { throw std::out_of_range("x"); }),
               std::out_of_range);
  EXPECT_THROW(pool.apply([] { throw std::bad_alloc(); }), std::bad_alloc);
  EXPECT_THROW(pool.apply([] { (void)std::vector<int>().at(1); }),
               std::out_of_range);
  EXPECT_THROW(pool.apply([] { throw Full("mine"); }), Full);
  EXPECT_THROW(pool.apply([] { (void)std::filesystem::file_size("/none"); }),
               std::filesystem::filesystem_error);
  try {
    pool.apply(
        [](const std::string& s) -> int {
          throw std::system_error(ENOTDIR, std::generic_category(), s);
        },
        "walk");
    FAIL();
  } catch (const std::system_error& error) {
    EXPECT_EQ(error.code(), std::errc::not_a_directory);
    EXPECT_THAT(error.what(), HasSubstr("walk"));
  }
  EXPECT_EQ(pool.apply(&seven), 7);
}

struct OwnError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

TEST_F(PoolError, OtherTypesAreRemoteErrorsThatSayWhatAndWhere) {
  try {
    pool.apply([] { throw OwnError("broken"); });
    FAIL();
  } catch (const RemoteError& error) {
    EXPECT_THAT(error.type_name(), HasSubstr("OwnError"));
    EXPECT_EQ(error.message(), "broken");
    EXPECT_THAT(pool.workers(), Contains(error.pid()));
  }
  try {
    pool.apply([] { throw 42; });
    FAIL();
  } catch (const RemoteError& error) {
    EXPECT_EQ(error.type_name(), "int");
  }
  EXPECT_THROW(pool.apply([] { throw "text"; }), RemoteError);
}

TEST_F(PoolError, HugeTextArrivesWhole) {
  try {
    pool.apply([] { throw std::runtime_error(std::string(5'000'000, 'e')); });
    FAIL();
  } catch (const std::runtime_error& error) {
    EXPECT_EQ(std::string(error.what()), std::string(5'000'000, 'e'));
  }
  EXPECT_EQ(blocks_of(pool), 0u);
}

TEST_F(PoolError, MayBeThrownAgainAndAgain) {
  auto result = pool.apply_async([]() -> int { throw std::range_error("r"); });
  for (int n = 0; n < 3; ++n) EXPECT_THROW(result.get(), std::range_error);
  EXPECT_TRUE(result.ready());
  EXPECT_FALSE(result.successful());
  EXPECT_THROW(result.try_get(), std::range_error);
}

TEST_F(PoolError, CostsNoWorker) {
  const auto before = pool.workers();
  for (int n = 0; n < 200; ++n)
    EXPECT_THROW(pool.apply([] { throw OwnError("again"); }), RemoteError);
  EXPECT_EQ(pool.workers(), before);
  EXPECT_EQ(blocks_of(pool), 0u);
}

TEST_F(PoolError, ResultThatIsAnObjectOfTheWorker) {
  auto result = pool.apply_async([] {
    Queue<int> made_there(4);
    made_there.put(7);
    return made_there;
  });
  Queue<int> got = result.get(kPatience);
  EXPECT_EQ(got.get(), 7);
  EXPECT_TRUE(result.successful());
  EXPECT_EQ(pool.apply(&seven), 7);
}

TEST_F(PoolError, ArgumentThatCannotBeEncodedLeavesNothing) {
  const std::uint32_t records = records_of(pool);
  for (int n = 0; n < 100; ++n)
    EXPECT_THROW(pool.apply([](std::string, const shoal::Fd&) {},
                            std::string(500, 'x'), shoal::Fd()),
                 std::invalid_argument);
  EXPECT_EQ(blocks_of(pool), 0u);
  EXPECT_LE(records_of(pool), records + 1);
  EXPECT_EQ(pool.apply(&seven), 7);
}

TEST_F(PoolError, ObjectsMadeAfterThePoolReachItsWorkers) {
  Queue<int> queue(4);
  Value<int> value(1);
  pool.apply([](Queue<int>& q, const Value<int>& v) { q.put(v.get()); }, queue,
             value);
  EXPECT_EQ(queue.get(), 1);
  pool.apply_async([](Value<int> v) { v.fetch_add(1); }, value).get();
  pool.map([](Value<int> v) { v.fetch_add(1); },
           std::vector<Value<int>>{value, value});
  pool.starmap([](int n, Value<int> v) { v.fetch_add(n); },
               std::vector<std::tuple<int, Value<int>>>{{10, value}});
  EXPECT_EQ(value.get(), 14);
}

struct Node {
  std::vector<Node> children;
  std::optional<Value<int>> value;
};
struct Leaf {
  std::vector<Leaf> children;
  std::string text;
};
static_assert(pool::MayHoldHandles<Node>);
static_assert(pool::MayHoldHandles<std::vector<std::pair<int, Queue<int>>>>);
static_assert(!pool::MayHoldHandles<Leaf>);
static_assert(!pool::MayHoldHandles<void>);

// An object that a worker made arrives once, however often it is asked for.
TEST_F(PoolError, ResultsWithHandlesCanBeGotAgain) {
  auto one = pool.apply_async([] { return Value<int>(7); });
  for (int n = 0; n < 3; ++n) EXPECT_EQ(one.get().get(), 7);
  one.get().set(8);
  EXPECT_EQ(one.get().get(), 8);
  auto moved = std::move(one);
  EXPECT_EQ(moved.get().get(), 8);

  auto all = pool.map_async([](int n) { return std::pair(n, Value<int>(n)); },
                            {1, 2, 3});
  std::vector<std::thread> threads;
  std::atomic<int> sum = 0;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (const auto& [n, value] : all.get()) sum += n * value.get();
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(sum, 4 * (1 + 4 + 9));
}

// ---- the pool's life ----

class PoolLife : public PoolScene {};

// Every verb says which call has ended the pool.
void expect_not_running(Pool& pool, const std::string& since) {
  const auto refuses = [&](const std::string& verb, auto&& call) {
    try {
      call();
      ADD_FAILURE() << verb;
    } catch (const NotRunning& error) {
      EXPECT_THAT(error.what(), HasSubstr("Pool::" + verb + " after " + since));
    }
  };
  const std::vector<int> items = {1};
  const std::vector<std::pair<int, int>> pairs = {{1, 2}};
  const auto f = [](int x) { return x; };
  refuses("apply", [&] { pool.apply(f, 1); });
  refuses("apply_async", [&] { pool.apply_async(f, 1); });
  refuses("submit", [&] { pool.submit(f, 1); });
  refuses("map", [&] { pool.map(f, items); });
  refuses("map", [&] { pool.map(f, std::vector<int>()); });
  refuses("map", [&] { pool.map(f, {1, 2}); });
  refuses("map_async", [&] { pool.map_async(f, items); });
  refuses("starmap", [&] { pool.starmap(std::plus<>{}, pairs); });
  refuses("starmap_async", [&] { pool.starmap_async(std::plus<>{}, pairs); });
}

TEST_F(PoolLife, CloseLetsAllComplete) {
  Pool pool(2);
  std::vector<AsyncResult<int>> all;
  for (int i = 0; i < 10'000; ++i)
    all.push_back(pool.apply_async([i] { return i; }));
  pool.close();
  expect_not_running(pool, "close()");
  pool.close();
  EXPECT_TRUE(pool.join());
  EXPECT_TRUE(pool.join());
  EXPECT_TRUE(pool.join(now));
  EXPECT_TRUE(pool.workers().empty());
  for (int i = 0; i < 10'000; ++i)
    ASSERT_EQ(all[static_cast<std::size_t>(i)].get(now), i);
}

TEST_F(PoolLife, JoinTimesOutWhileATaskRuns) {
  Pool pool(2);
  auto result = pool.apply_async(&wait_at_gate);
  ASSERT_TRUE(started(1));
  pool.close();
  EXPECT_FALSE(pool.join(now));
  EXPECT_FALSE(pool.join(20ms));
  EXPECT_FALSE(result.ready());
  marks->gate = 1;
  EXPECT_TRUE(pool.join(kPatience));
  EXPECT_EQ(result.get(now), 1);
}

TEST_F(PoolLife, TerminateCancelsAllBeforeItReturns) {
  Pool pool(2);
  std::vector<AsyncResult<int>> running;
  for (int n = 0; n < 2; ++n)
    running.push_back(pool.apply_async(&wait_at_gate));
  ASSERT_TRUE(started(2));
  std::vector<AsyncResult<void>> queued;
  for (int n = 0; n < 5000; ++n)
    queued.push_back(pool.apply_async([] { ++marks->ran; }));
  auto map = pool.map_async([](int x) { return x; }, {1, 2, 3});
  pool.terminate();
  for (auto& result : running) {
    EXPECT_TRUE(result.ready());
    EXPECT_THROW(result.get(now), Cancelled);
  }
  for (auto& result : queued) ASSERT_THROW(result.get(now), Cancelled);
  EXPECT_THROW(map.get(now), Cancelled);
  expect_not_running(pool, "terminate()");
  pool.terminate();
  pool.close();
  expect_not_running(pool, "terminate()");
  EXPECT_TRUE(pool.join());
  EXPECT_TRUE(pool.join());
  EXPECT_EQ(marks->ran, 0);
}

// What is cancelled does not run any more, but for what was running.
TEST_F(PoolLife, TerminateKeepsWorkersFromWhatIsQueued) {
  constexpr int kWorkers = 2;
  for (int round = 0; round < 10; ++round) {
    marks->ran = 0;
    Pool pool(kWorkers);
    std::vector<AsyncResult<int>> all;
    for (int n = 0; n < 20'000; ++n)
      all.push_back(pool.apply_async([] { return ++marks->ran; }));
    pool.terminate();
    EXPECT_TRUE(pool.join(kPatience));
    int values = 0;
    for (auto& result : all) values += result.successful();
    ASSERT_LE(marks->ran, values + kWorkers);
  }
}

TEST_F(PoolLife, TerminateAfterClose) {
  Pool pool(2);
  auto result = pool.apply_async(&wait_at_gate);
  ASSERT_TRUE(started(1));
  pool.close();
  pool.terminate();
  EXPECT_THROW(result.get(now), Cancelled);
  EXPECT_TRUE(pool.join(kPatience));
}

TEST_F(PoolLife, CompletedResultsSurviveTerminate) {
  Pool pool(1);
  auto result = pool.apply_async([] { return std::string(500, 'r'); });
  EXPECT_TRUE(result.wait(kPatience));
  pool.terminate();
  EXPECT_EQ(result.get(now), std::string(500, 'r'));
  pool.join();
  EXPECT_EQ(result.get(now), std::string(500, 'r'));
}

TEST_F(PoolLife, ResultsOutliveThePool) {
  std::optional<AsyncResult<std::string>> done;
  std::optional<AsyncResult<int>> running;
  std::optional<AsyncResult<int>> queued;
  {
    Pool pool(1);
    done.emplace(pool.apply_async([] { return std::string(5000, 'd'); }));
    EXPECT_TRUE(done->wait(kPatience));
    running.emplace(pool.apply_async(&wait_at_gate));
    queued.emplace(pool.apply_async(&seven));
    ASSERT_TRUE(started(1));
  }
  EXPECT_EQ(done->get(), std::string(5000, 'd'));
  EXPECT_TRUE(running->ready());
  EXPECT_THROW(running->get(), Cancelled);
  EXPECT_THROW(queued->get(), Cancelled);
}

TEST_F(PoolLife, JoinBeforeCloseIsRefused) {
  Pool pool(1);
  EXPECT_THROW(pool.join(), NotRunning);
  EXPECT_THROW(pool.join(now), NotRunning);
  EXPECT_EQ(pool.apply(&seven), 7) << "still running";
}

TEST_F(PoolLife, SizeIsChecked) {
  EXPECT_THROW(Pool(0), std::invalid_argument);
  EXPECT_THROW(Pool(-1), std::invalid_argument);
  EXPECT_THROW(Pool{std::numeric_limits<int>::min()}, std::invalid_argument);
  EXPECT_THROW(Pool(1001), NoSpace);
  EXPECT_EQ(Pool(5).workers().size(), 5u);
  EXPECT_EQ(Pool().workers().size(), static_cast<std::size_t>(cpu_count()));
}

TEST_F(PoolLife, NothingSubmittedAtAll) {
  { Pool pool(3); }
  Pool pool(3);
  pool.close();
  EXPECT_TRUE(pool.join(kPatience));
}

// Submitting never waits for a worker.
TEST_F(PoolLife, AMillionTasksAreAcceptedWhileAllWorkersAreBusy) {
  constexpr int kTasks = 1'000'000;
  Pool pool(2);
  auto held = pool.apply_async(&wait_at_gate);
  auto held_too = pool.apply_async(&wait_at_gate);
  ASSERT_TRUE(started(2));
  std::vector<AsyncResult<int>> all;
  all.reserve(kTasks);
  for (int i = 0; i < kTasks; ++i)
    all.push_back(pool.apply_async([](int x) { return x + 1; }, i));
  EXPECT_FALSE(all.front().ready());
  marks->gate = 1;
  for (int i = 0; i < kTasks; ++i)
    ASSERT_EQ(all[static_cast<std::size_t>(i)].get(), i + 1);
}

}  // namespace
