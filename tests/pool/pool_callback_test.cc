// Callbacks, and waiting for many results: wait_any, as_completed.

#include <signal.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "shoal/ipc/event.h"
#include "shoal/ipc/wait.h"
#include "shoal/pool/pool.h"
#include "tests/pool/scene.h"

namespace {

using namespace shoal;
using namespace shoal::support;
using namespace std::chrono_literals;

class PoolCallback : public PoolScene {
 protected:
  Pool pool_{2};
};

int twice(int x) { return 2 * x; }
int fails(int x) { throw std::domain_error("no " + std::to_string(x)); }

std::string text_of(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const std::domain_error& found) {
    return std::string("domain_error ") + found.what();
  } catch (const std::exception& found) {
    return found.what();
  }
}

TEST_F(PoolCallback, RunsHereBeforeTheResultIsReady) {
  int found = 0;
  pid_t where = 0;
  bool ready = true;
  std::optional<AsyncResult<int>> result;
  std::mutex mutex;
  {
    const std::lock_guard lock(mutex);
    result.emplace(pool_.apply_async(Callbacks{[&](int n) {
                                                 const std::lock_guard inner(
                                                     mutex);
                                                 found = n;
                                                 where = getpid();
                                                 ready = result->ready();
                                               },
                                               {}},
                                     twice, 21));
  }
  EXPECT_EQ(result->get(10s), 42);
  EXPECT_EQ(result->get(10s), 42);
  EXPECT_TRUE(result->successful());
  EXPECT_EQ(found, 42);
  EXPECT_EQ(where, getpid());
  EXPECT_FALSE(ready);
}

TEST_F(PoolCallback, OfErrors) {
  std::string text;
  bool called = false;
  auto result = pool_.apply_async(
      Callbacks{[&](const int&) { called = true; },
                [&](std::exception_ptr error) { text = text_of(error); }},
      fails, 3);
  EXPECT_THROW(result.get(10s), std::domain_error);
  EXPECT_FALSE(result.successful());
  EXPECT_EQ(text, "domain_error no 3");
  EXPECT_FALSE(called);
  // Also of a death.
  auto dies = pool_.apply_async(
      Callbacks{.error_callback =
                    [&](std::exception_ptr error) { text = text_of(error); }},
      [] { raise(SIGKILL); });
  EXPECT_THROW(dies.get(10s), WorkerDied);
  EXPECT_NE(text.find("signal 9"), std::string::npos) << text;
}

TEST_F(PoolCallback, OfMaps) {
  std::vector<int> found;
  auto result = pool_.map_async(
      Callbacks{[&](const std::vector<int>& all) { found = all; }, {}}, twice,
      {1, 2, 3});
  EXPECT_EQ(result.get(10s), (std::vector{2, 4, 6}));
  EXPECT_EQ(found, (std::vector{2, 4, 6}));
  // Of an empty one, too.
  int called = 0;
  pool_
      .map_async(Callbacks{[&](std::vector<int>) { ++called; }, {}}, twice,
                 std::vector<int>())
      .get(10s);
  EXPECT_EQ(called, 1);
  pool_
      .starmap_async(
          Callbacks{[&] { ++called; }, {}}, [](int, const std::string&) {},
          std::vector{std::pair(1, std::string("x"))})
      .get(10s);
  EXPECT_EQ(called, 2);
}

TEST_F(PoolCallback, OfVoidAndMoveOnly) {
  int called = 0;
  pool_.apply_async(Callbacks{[&] { ++called; }, {}}, [] {}).get(10s);
  EXPECT_EQ(called, 1);
  auto result = pool_.apply_async(
      Callbacks{[&](const std::unique_ptr<int>& p) { called = *p; }, {}},
      [] { return std::make_unique<int>(5); });
  EXPECT_EQ(*result.get(10s), 5);
  EXPECT_EQ(called, 5);
  EXPECT_THROW(result.get(10s), NotReady);
}

TEST_F(PoolCallback, OfAnotherTypeIsRefused) {
  try {
    pool_.apply_async(Callbacks{[](long) {}, {}}, twice, 1);
    FAIL() << "taken";
  } catch (const std::invalid_argument& error) {
    EXPECT_STREQ(error.what(),
                 "shoal: the callback takes long, the result is int; let it "
                 "take that by value or const&");
  }
  EXPECT_THROW(pool_.apply_async(Callbacks{[] {}, {}}, twice, 1),
               std::invalid_argument);
  EXPECT_THROW(pool_.map_async(Callbacks{[](int) {}, {}}, twice, {1}),
               std::invalid_argument);
}

TEST_F(PoolCallback, MayOwnWhatOnlyMovesAndMayBeNone) {
  int found = 0;
  pool_
      .apply_async(
          Callbacks{
              [&, p = std::make_unique<int>(1)](int n) { found = n + *p; }, {}},
          twice, 4)
      .get(10s);
  EXPECT_EQ(found, 9);
  const std::function<void(int)> none;
  EXPECT_EQ(pool_.apply_async(Callbacks{none, {}}, twice, 4).get(10s), 8);
  void (*const null)(int) = nullptr;
  EXPECT_EQ(pool_.apply_async(Callbacks{null, {}}, twice, 4).get(10s), 8);
}

// They go with what they hold before the result is ready, or a callback that
// holds the pool's owner would keep it.
TEST_F(PoolCallback, AreLetGoOfBeforeTheResultIsReady) {
  const auto held = std::make_shared<int>(1);
  auto result = pool_.apply_async(Callbacks{[held](int) {}, {}}, twice, 4);
  result.get(10s);
  EXPECT_EQ(held.use_count(), 1);
}

TEST_F(PoolCallback, CannotWaitForAnotherOfItsPool) {
  auto other = pool_.apply_async(Callbacks{[](int) {}, {}}, wait_at_gate);
  auto result =
      pool_.apply_async(Callbacks{[&](int) { other.get(); }, {}}, twice, 1);
  EXPECT_THROW(result.get(10s), std::logic_error);
  marks->gate = 1;
  EXPECT_EQ(other.get(10s), 1);
}

TEST_F(PoolCallback, ThatThrowsIsTheResult) {
  auto result = pool_.apply_async(
      Callbacks{[](int n) { throw std::domain_error(std::to_string(n)); }, {}},
      twice, 4);
  try {
    result.get(10s);
    FAIL() << "no error";
  } catch (const std::domain_error& error) {
    EXPECT_STREQ(error.what(), "8");
  }
  auto other = pool_.apply_async(
      Callbacks{.error_callback =
                    [](std::exception_ptr) { throw std::length_error("x"); }},
      fails, 1);
  EXPECT_THROW(other.get(10s), std::length_error);
  EXPECT_EQ(pool_.apply(twice, 1), 2);  // the pool goes on
}

// The error of a callback is told to the error callback, too: who has one
// hears of everything.
TEST_F(PoolCallback, OneAtATime) {
  std::atomic<int> inside{0};
  std::atomic<int> most{0};
  int sum = 0;
  std::vector<AsyncResult<int>> results;
  for (int n = 0; n < 500; ++n)
    results.push_back(pool_.apply_async(Callbacks{[&](int x) {
                                                    if (++inside > most)
                                                      most = inside.load();
                                                    sum += x;
                                                    --inside;
                                                  },
                                                  {}},
                                        twice, n));
  for (auto& result : results) result.get(10s);
  EXPECT_EQ(most, 1);
  EXPECT_EQ(sum, 500 * 499);
}

// From within callbacks: submit, close, terminate, join.
TEST_F(PoolCallback, ChainsThatSubmit) {
  int depth = 0;
  Event over;
  std::function<void()> next = [&] {
    pool_.apply_async(
        Callbacks{[&](int n) {
                    depth = n;
                    if (n < 10'000)
                      next();
                    else
                      over.set();
                  },
                  {}},
        [](int n) { return n + 1; }, depth);
  };
  next();
  EXPECT_TRUE(over.wait(60s));
  pool_.close();
  EXPECT_TRUE(pool_.join(10s));  // the last callback has let go of `over`
  EXPECT_EQ(depth, 10'000);
}

TEST_F(PoolCallback, JoinWaitsForThem) {
  std::atomic<int> called{0};
  for (int n = 0; n < 100; ++n)
    pool_.apply_async(Callbacks{[&](int) { ++called; }, {}}, twice, n);
  pool_.close();
  EXPECT_TRUE(pool_.join(10s));
  EXPECT_EQ(called, 100);
}

TEST_F(PoolCallback, TerminateTellsThem) {
  std::vector<AsyncResult<int>> results;
  std::atomic<int> cancelled{0};
  for (int n = 0; n < 5; ++n)
    results.push_back(
        pool_.apply_async(Callbacks{.error_callback =
                                        [&](std::exception_ptr error) {
                                          try {
                                            std::rethrow_exception(error);
                                          } catch (const Cancelled&) {
                                            ++cancelled;
                                          }
                                        }},
                          wait_at_gate));
  ASSERT_TRUE(started(2));
  pool_.terminate();
  for (auto& result : results) {
    EXPECT_TRUE(result.ready());
    EXPECT_THROW(result.get(0s), Cancelled);
  }
  EXPECT_EQ(cancelled, 5);
}

TEST_F(PoolCallback, MayEndThePool) {
  Event over;
  pool_.apply_async(Callbacks{[&](int) {
                                pool_.terminate();
                                pool_.join();
                                over.set();
                              },
                              {}},
                    twice, 1);
  EXPECT_TRUE(over.wait(10s));
  EXPECT_TRUE(pool_.join(10s));  // the callback has let go of `over`
  EXPECT_THROW(pool_.apply(twice, 1), NotRunning);
}

TEST_F(PoolCallback, ACancelledOneIsTold) {
  std::vector<AsyncResult<int>> held;
  for (int n = 0; n < 2; ++n) held.push_back(pool_.apply_async(wait_at_gate));
  ASSERT_TRUE(started(2));
  std::string text;
  auto result = pool_.apply_async(
      Callbacks{.error_callback =
                    [&](std::exception_ptr error) { text = text_of(error); }},
      twice, 1);
  EXPECT_FALSE(result.ready());
  EXPECT_TRUE(result.cancel());
  EXPECT_THROW(result.get(10s), Cancelled);
  EXPECT_NE(text.find("cancelled"), std::string::npos) << text;
  marks->gate = 1;
}

TEST_F(PoolCallback, FromManyThreads) {
  std::atomic<int> sum{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t)
    threads.emplace_back([&] {
      for (int n = 0; n < 100; ++n)
        pool_.apply_async(Callbacks{[&](int x) { sum += x; }, {}}, twice, n);
    });
  for (std::thread& thread : threads) thread.join();
  pool_.close();
  pool_.join();
  EXPECT_EQ(sum, 8 * 9900);
}

// ---- waiting for many ----

TEST_F(PoolCallback, WaitAny) {
  std::vector<AsyncResult<int>> results;
  EXPECT_THROW(wait_any(results), std::invalid_argument);
  results.push_back(pool_.apply_async(wait_at_gate));
  ASSERT_TRUE(started(1));
  EXPECT_THROW(wait_any(results, 10ms), TimeoutError);
  EXPECT_THROW(wait_any(results, 0s), TimeoutError);
  results.push_back(pool_.apply_async(twice, 4));
  EXPECT_EQ(wait_any(results), 1u);
  EXPECT_EQ(results[1].get(), 8);
  // One with callbacks among them; an array; a span.
  // The other worker is taken, too.
  Pool other(1);
  std::array more{other.apply_async(wait_at_gate),
                  pool_.apply_async(Callbacks{[](int) {}, {}}, twice, 5)};
  EXPECT_EQ(wait_any(more, 10s), 1u);
  const std::span view(more);
  EXPECT_EQ(wait_any(view, 10s), 1u);
  marks->gate = 1;
}

TEST_F(PoolCallback, AsCompleted) {
  std::vector<AsyncResult<int>> results;
  results.push_back(pool_.apply_async(wait_at_gate));
  ASSERT_TRUE(started(1));
  for (int n = 1; n < 20; ++n)
    results.push_back(n == 7 ? pool_.apply_async(fails, 7)
                             : pool_.apply_async(twice, n));
  std::set<std::size_t> seen;
  for (AsyncResult<int>& result : as_completed(results, 20s)) {
    const auto index = static_cast<std::size_t>(&result - results.data());
    EXPECT_TRUE(seen.insert(index).second);
    EXPECT_TRUE(result.ready());
    if (index == 7)
      EXPECT_THROW(result.get(), std::domain_error);
    else if (index != 0)
      EXPECT_EQ(result.get(), static_cast<int>(2 * index));
    else
      EXPECT_EQ(seen.size(), 20u);  // the one that was held comes last
    if (seen.size() == 19) marks->gate = 1;
  }
  EXPECT_EQ(seen.size(), 20u);
  std::vector<AsyncResult<int>> none;
  for ([[maybe_unused]] auto& result : as_completed(none)) FAIL();
}

TEST_F(PoolCallback, AsCompletedTimesOut) {
  std::vector<AsyncResult<int>> results;
  results.push_back(pool_.apply_async(twice, 1));
  results.push_back(pool_.apply_async(wait_at_gate));
  int seen = 0;
  EXPECT_THROW(for ([[maybe_unused]] auto& result
                    : as_completed(results, 200ms))++ seen,
               TimeoutError);
  EXPECT_EQ(seen, 1);
  marks->gate = 1;
}

// In a fork nobody completes it; the pool there is a copy that does nothing.
TEST_F(PoolCallback, AForkHasNone) {
  auto result = pool_.apply_async(Callbacks{[](int) {}, {}}, wait_at_gate);
  ASSERT_TRUE(started(1));
  Child child([&](Child& self) {
    try {
      result.get(10s);
      self.expect(false, "it is there");
    } catch (const std::logic_error&) {
    }
  });
  EXPECT_EQ(child.join(), 0) << child.failures();
  marks->gate = 1;
  result.get(10s);
}

// shoal::wait takes one with callbacks like any other.
TEST_F(PoolCallback, WaitsBesideOtherThings) {
  Event event;
  auto held = pool_.apply_async(Callbacks{[](int) {}, {}}, wait_at_gate);
  EXPECT_TRUE(shoal::wait({event, held}, 10ms).empty());
  marks->gate = 1;
  EXPECT_EQ(shoal::wait({event, held}, 10s), (std::vector<std::size_t>{1}));
}

}  // namespace
