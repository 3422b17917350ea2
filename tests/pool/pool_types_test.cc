// One suite for Pool, under each start method, and ThreadPool: what Python's
// Pool promises (notes/multiprocessing.md 1.9, and what of its section 2 a
// thread survives as well).

#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <exception>
#include <functional>
#include <iterator>
#include <list>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <random>
#include <set>
#include <span>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <type_traits>
#include <typeinfo>
#include <utility>
#include <variant>
#include <vector>

#include "gtest/gtest.h"
#include "shoal/ipc/forkserver.h"
#include "shoal/ipc/pipe.h"
#include "shoal/ipc/queue.h"
#include "shoal/pool/pool.h"
#include "shoal/pool/thread_pool.h"
#include "shoal/shared/array.h"
#include "shoal/shared/value.h"
#include "tests/support/child.h"

namespace {

using namespace shoal;
using namespace shoal::support;
using namespace std::chrono_literals;

template <class P, StartMethod kMethod>
struct Kind {
  using Type = P;
  static PoolOptions options(int processes) {
    return {.processes = processes, .start_method = kMethod};
  }
};
using Forked = Kind<Pool, StartMethod::fork>;
using Spawned = Kind<Pool, StartMethod::spawn>;
using Forkservers = Kind<Pool, StartMethod::forkserver>;
using Threads = Kind<ThreadPool, StartMethod::fork>;

struct KindNames {
  template <class K>
  static std::string GetName(int) {
    if (std::is_same_v<K, Forked>) return "Fork";
    if (std::is_same_v<K, Spawned>) return "Spawn";
    if (std::is_same_v<K, Forkservers>) return "Forkserver";
    return "Threads";
  }
};

template <class K>
class PoolTypes : public testing::Test {
 protected:
  using Type = typename K::Type;
  static constexpr bool kThreads = std::is_same_v<K, Threads>;
  void TearDown() override { forkserver::stop(); }

  Type pool_{K::options(2)};
};
using Kinds = testing::Types<Forked, Spawned, Forkservers, Threads>;
TYPED_TEST_SUITE(PoolTypes, Kinds, KindNames);

// Whenever it comes: nothing of the map has run, or all of it does.
TYPED_TEST(PoolTypes, MapIsCancelledWholeOrNotAtAll) {
  constexpr int kRounds = 300;
  std::mt19937 random(1);
  std::uniform_int_distribution<int> moments(0, 8);
  const std::vector<int> items = {1, 2, 3, 4};
  Value<int> ran(0);
  int cancels = 0;
  int rounds = 0;
  const auto both_seen = [&] { return cancels != 0 && cancels != rounds; };
  for (; rounds < kRounds || (rounds < 100 * kRounds && !both_seen());
       ++rounds) {
    ran = 0;
    auto result = this->pool_.map_async(partial(
                                            [](Value<int> count, int item) {
                                              count.fetch_add(1);
                                              return item;
                                            },
                                            ran),
                                        items, 1);
    for (int n = moments(random); n > 0; --n) yield_cpu();
    const bool cancelled = result.cancel();
    cancels += cancelled;
    if (cancelled)
      EXPECT_THROW(result.get(), Cancelled);
    else
      EXPECT_EQ(result.get(), items);
    ASSERT_EQ(ran.get(), cancelled ? 0 : 4) << rounds;
  }
  EXPECT_TRUE(both_seen()) << cancels;
}

TYPED_TEST(PoolTypes, MapThatHasEndedIsNotCancelled) {
  const auto f = [](int item) { return item; };
  auto done = this->pool_.map_async(f, std::vector{1, 2}, 1);
  done.wait();
  EXPECT_FALSE(done.cancel());
  EXPECT_EQ(done.get(), (std::vector{1, 2}));
  EXPECT_FALSE(this->pool_.map_async(f, std::vector<int>()).cancel());
}

// A task that a test holds back by handles, which every kind of worker has.
struct Gate {
  Value<int> open{0};
  Value<int> started{0};

  static int pass(Value<int> open, Value<int> started, int x) {
    started.fetch_add(1);
    if (!eventually([&] { return open.get() != 0; })) throw Error("no gate");
    return x;
  }
  bool has_started(int tasks) const {
    return eventually([&] { return started.get() >= tasks; });
  }
  void let_go() { open.set(1); }
};

int twice(int x) { return 2 * x; }
void halve(int& x) { x /= 2; }
int add(int x, int y) { return x + y; }
int fails_if_odd(int x) {
  if (x % 2 != 0) throw std::out_of_range("odd " + std::to_string(x));
  return x;
}
struct Point {
  int x, y;
  int sum() const { return x + y; }
  void move() { ++x; }
};
struct Tree {
  int value;
  std::vector<std::unique_ptr<Tree>> children;
};
struct Scale {
  int by;
  int operator()(int x) const { return by * x; }
};

// ---- verbs ----

TYPED_TEST(PoolTypes, Apply) {
  auto& pool = this->pool_;
  EXPECT_EQ(pool.apply(twice, 4), 8);
  EXPECT_EQ(pool.apply(&add, 4, 5), 9);
  EXPECT_EQ(pool.apply([](auto x) { return x + 1; }, 4), 5);
  EXPECT_EQ(pool.apply([](const std::string& s) { return s + "!"; }, "text"),
            "text!");
  int k = 10;
  EXPECT_EQ(pool.apply([k](int x) { return k * x; }, 3), 30);
  EXPECT_EQ(pool.apply(&Point::sum, Point{1, 2}), 3);
  EXPECT_EQ(pool.apply(Scale{7}, 6), 42);
  EXPECT_EQ(pool.apply(shoal::partial(add, 1), 2), 3);
  pool.apply([] {});
  auto later = pool.apply_async(twice, 5);
  EXPECT_EQ(later.get(10s), 10);
  EXPECT_EQ(later.get(10s), 10);
  EXPECT_EQ(pool.submit(twice, 6).get(10s), 12);
}

TYPED_TEST(PoolTypes, Map) {
  auto& pool = this->pool_;
  std::vector<int> numbers(997);
  std::iota(numbers.begin(), numbers.end(), 0);
  for (const std::ptrdiff_t chunk : {0, 1, 10, 5000}) {
    const auto all = pool.map(twice, numbers, chunk);
    ASSERT_EQ(all.size(), numbers.size());
    for (int n = 0; n < 997; ++n) ASSERT_EQ(all[n], 2 * n);
  }
  EXPECT_EQ(pool.map(twice, {1, 2, 3}), (std::vector{2, 4, 6}));
  EXPECT_EQ(pool.map(twice, std::list{4, 5}), (std::vector{8, 10}));
  EXPECT_EQ(
      pool.map([](const std::string& s) { return s.size(); }, {"a", "bcd"}),
      (std::vector<std::size_t>{1, 3}));
  std::istringstream text("7 8 9");
  struct Words {
    std::istringstream& from;
    auto begin() { return std::istream_iterator<int>(from); }
    static auto end() { return std::istream_iterator<int>(); }
  } words{text};
  EXPECT_EQ(pool.map(twice, words), (std::vector{14, 16, 18}));
  EXPECT_TRUE(pool.map(twice, std::vector<int>()).empty());
  EXPECT_TRUE(pool.map_async(twice, std::vector<int>()).ready());
  EXPECT_EQ(pool.map([](bool b) { return !b; }, std::vector{true, false}),
            (std::vector{false, true}));
  EXPECT_EQ(pool.map_async(twice, {5}).get(10s), std::vector{10});
  EXPECT_THROW(pool.map(twice, numbers, -1), std::invalid_argument);
}

// Trivially copyable, and yet not sent as it lies in memory.
struct Percent {
  int value = 0;
  template <class Archive>
  void serialize(Archive& archive) {
    int percent = value * 100;
    archive(percent);
    value = percent / 100;
  }
  bool operator==(const Percent&) const = default;
};
struct Padded {
  bool set;
  std::optional<double> number;
  Percent percent;
  bool operator==(const Padded&) const = default;
};
struct Bytes {
  char letter;
  std::array<int, 3> numbers;
  bool operator==(const Bytes&) const = default;
};
struct None {
  bool operator==(const None&) const = default;
};

TYPED_TEST(PoolTypes, ItemsOfAnyType) {
  auto& pool = this->pool_;
  const auto expect_back = [&](const auto&... items) {
    using Item = std::common_type_t<decltype(items)...>;
    const std::vector<Item> all{items...};
    const auto same = [](const Item& item) { return item; };
    EXPECT_EQ(pool.map(same, all), all) << typeid(Item).name();
    EXPECT_EQ(pool.map(same, all, 1), all) << typeid(Item).name();
    std::vector<Item> streamed;
    for (const Item& item : pool.imap(same, all, 2)) streamed.push_back(item);
    EXPECT_EQ(streamed, all) << typeid(Item).name();
    std::vector<std::tuple<Item, int>> pairs;
    for (const Item& item : all) pairs.emplace_back(item, 1);
    EXPECT_EQ(pool.starmap([](const Item& item, int) { return item; }, pairs),
              all)
        << typeid(Item).name();
  };
  expect_back(1.5, 2.5, -1.0);
  expect_back(Percent{1}, Percent{2}, Percent{3});
  expect_back(Padded{true, 1.5, {3}}, Padded{false, {}, {4}});
  expect_back(Bytes{'a', {1, 2, 3}}, Bytes{'b', {4, 5, 6}});
  expect_back(None{}, None{}, None{});
  expect_back(std::optional(1), std::optional<int>(), std::optional(3));
  expect_back(std::variant<int, double>(1), std::variant<int, double>(2.5));
  expect_back(std::array{Percent{1}, Percent{2}},
              std::array{Percent{3}, Percent{4}});
  expect_back(std::pair(1, Percent{2}), std::pair(3, Percent{4}));
  expect_back(std::string("one"), std::string());
  expect_back(std::chrono::seconds(1), std::chrono::seconds(2));
}

TYPED_TEST(PoolTypes, Starmap) {
  auto& pool = this->pool_;
  EXPECT_EQ(pool.starmap(add, {std::tuple(1, 2), std::tuple(3, 4)}),
            (std::vector{3, 7}));
  EXPECT_EQ(pool.starmap(add, std::vector{std::pair(5, 6)}), std::vector{11});
  EXPECT_EQ(
      pool.starmap_async(add, std::map<int, int>{{1, 10}, {2, 20}}).get(10s),
      (std::vector{11, 22}));
}

TYPED_TEST(PoolTypes, Imap) {
  auto& pool = this->pool_;
  int n = 0;
  for (const int found : pool.imap(twice, std::vector{0, 1, 2, 3, 4}))
    EXPECT_EQ(found, 2 * n++);
  EXPECT_EQ(n, 5);
  std::set<int> all;
  for (const int found : pool.imap_unordered(twice, {1, 2, 3}, 2))
    all.insert(found);
  EXPECT_EQ(all, (std::set{2, 4, 6}));
  // An item that fails costs itself only.
  auto stream = pool.imap(fails_if_odd, {0, 1, 2}, 3);
  EXPECT_EQ(stream.next(10s), 0);
  EXPECT_THROW(stream.next(10s), std::out_of_range);
  EXPECT_EQ(stream.next(10s), 2);
  EXPECT_EQ(stream.next(10s), std::nullopt);
}

// The chunk that failed first, in order, after all have ended.
TYPED_TEST(PoolTypes, MapThrowsAfterAllChunks) {
  const Value<int> ran(0);
  try {
    this->pool_.starmap(
        [](Value<int> count, int x) {
          count.fetch_add(1);
          return fails_if_odd(x);
        },
        std::vector<std::tuple<Value<int>, int>>{
            {ran, 0}, {ran, 3}, {ran, 2}, {ran, 5}, {ran, 4}, {ran, 6}},
        1);
    FAIL() << "no error";
  } catch (const std::out_of_range& error) {
    EXPECT_STREQ(error.what(), "odd 3");
  }
  EXPECT_EQ(ran.get(), 6);
  // What is left of a failing chunk is skipped.
  const Value<int> second(0);
  EXPECT_THROW(this->pool_.starmap(
                   [](Value<int> count, int x) {
                     count.fetch_add(1);
                     return fails_if_odd(x);
                   },
                   std::vector<std::tuple<Value<int>, int>>{
                       {second, 0}, {second, 3}, {second, 2}, {second, 5}},
                   4),
               std::out_of_range);
  EXPECT_EQ(second.get(), 2);
}

// ---- results ----

TYPED_TEST(PoolTypes, ResultsOfAnyType) {
  auto& pool = this->pool_;
  auto pointer = pool.apply_async([] { return std::make_unique<int>(5); });
  EXPECT_EQ(*pointer.get(10s), 5);
  EXPECT_THROW(pointer.get(10s), NotReady);
  for (auto& one :
       pool.map([](int x) { return std::make_unique<int>(x); }, {1, 1}))
    EXPECT_EQ(*one, 1);
  // What holds something that only moves.
  const auto map = pool.apply([] {
    std::map<int, std::unique_ptr<int>> made;
    made[3] = std::make_unique<int>(4);
    return made;
  });
  EXPECT_EQ(*map.at(3), 4);
  const Tree tree = pool.apply([] {
    Tree made{1, {}};
    made.children.push_back(std::make_unique<Tree>(Tree{2, {}}));
    return made;
  });
  EXPECT_EQ(tree.children.at(0)->value, 2);
  const std::string large(8 << 20, 'x');
  EXPECT_EQ(pool.apply([](std::string s) { return s; }, large), large);
  pool.map([](int) {}, {1, 2, 3});
}

TYPED_TEST(PoolTypes, AsyncResult) {
  Gate gate;
  auto held = this->pool_.apply_async(&Gate::pass, gate.open, gate.started, 3);
  ASSERT_TRUE(gate.has_started(1));
  EXPECT_FALSE(held.ready());
  EXPECT_FALSE(held.wait(1ms));
  EXPECT_THROW(held.get(1ms), TimeoutError);
  EXPECT_THROW(held.successful(), NotReady);
  EXPECT_EQ(held.try_get(), std::nullopt);
  EXPECT_FALSE(held.cancel());
  gate.let_go();
  EXPECT_TRUE(held.wait(10s));
  EXPECT_TRUE(held.successful());
  EXPECT_EQ(held.try_get(), 3);
  auto fails = this->pool_.apply_async(fails_if_odd, 1);
  EXPECT_TRUE(fails.wait(10s));
  EXPECT_FALSE(fails.successful());
  EXPECT_THROW(fails.get(), std::out_of_range);
  EXPECT_THROW(fails.get(), std::out_of_range);
}

TYPED_TEST(PoolTypes, CancelWhatHasNotBegun) {
  Gate gate;
  std::vector<AsyncResult<int>> held;
  for (int n = 0; n < 2; ++n)
    held.push_back(
        this->pool_.apply_async(&Gate::pass, gate.open, gate.started, n));
  ASSERT_TRUE(gate.has_started(2));
  auto waits = this->pool_.apply_async(twice, 1);
  auto map = this->pool_.map_async(twice, {1, 2, 3});
  EXPECT_TRUE(waits.cancel());
  EXPECT_FALSE(waits.cancel());
  EXPECT_TRUE(map.cancel());
  EXPECT_THROW(waits.get(0s), Cancelled);
  EXPECT_THROW(map.get(0s), Cancelled);
  gate.let_go();
  for (auto& result : held) result.get(10s);
}

TYPED_TEST(PoolTypes, ProgressCountsTasks) {
  using Count = std::pair<std::size_t, std::size_t>;
  Gate open, shut;
  open.let_go();
  using Item = std::tuple<Value<int>, Value<int>, int>;
  const std::vector<Item> items{{open.open, open.started, 1},
                                {shut.open, shut.started, 2},
                                {shut.open, shut.started, 3}};
  auto map = this->pool_.starmap_async(&Gate::pass, items, 1);
  ASSERT_TRUE(shut.has_started(2));
  EXPECT_TRUE(eventually([&] { return map.progress() == Count(1, 3); }));
  auto call = this->pool_.apply_async(twice, 1);
  auto called_back = this->pool_.map_async(
      shoal::Callbacks{[](const std::vector<int>&) {}, {}}, twice, {1, 2}, 1);
  EXPECT_EQ(call.progress(), Count(0, 1));
  EXPECT_EQ(called_back.progress(), Count(0, 2));
  shut.let_go();
  EXPECT_EQ(map.get(10s), (std::vector{1, 2, 3}));
  EXPECT_EQ(call.get(10s), 2);
  called_back.get(10s);
  EXPECT_EQ(map.progress(), Count(3, 3));
  EXPECT_EQ(call.progress(), Count(1, 1));
  EXPECT_EQ(called_back.progress(), Count(2, 2));
  EXPECT_EQ(this->pool_.map_async(twice, std::vector<int>()).progress(),
            Count(0, 0));
}

TYPED_TEST(PoolTypes, ResultsOutliveThePool) {
  std::optional<AsyncResult<int>> result;
  {
    typename TypeParam::Type pool(TypeParam::options(1));
    result.emplace(pool.apply_async(twice, 2));
    result->wait(10s);
  }
  EXPECT_EQ(result->get(0s), 4);
}

TYPED_TEST(PoolTypes, ManyThreadsShareIt) {
  std::atomic<int> sum{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 10; ++t)
    threads.emplace_back([&] {
      for (int n = 0; n < 50; ++n) sum += this->pool_.apply(twice, n);
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(sum, 10 * 49 * 50);
}

// ---- callbacks, waiting for many ----

TYPED_TEST(PoolTypes, Callbacks) {
  std::vector<int> found;
  std::string text;
  const auto collect = [&](int n) {
    EXPECT_EQ(getpid(), ::getpid());
    found.push_back(n);
  };
  std::vector<AsyncResult<int>> results;
  for (int n = 0; n < 20; ++n)
    results.push_back(
        this->pool_.apply_async(shoal::Callbacks{collect, {}}, twice, n));
  for (auto& result : results) result.get(10s);
  EXPECT_EQ(found.size(), 20u);
  auto fails = this->pool_.map_async(
      shoal::Callbacks{.error_callback =
                           [&](std::exception_ptr error) {
                             try {
                               std::rethrow_exception(error);
                             } catch (const std::out_of_range& e) {
                               text = e.what();
                             }
                           }},
      fails_if_odd, {2, 3});
  EXPECT_THROW(fails.get(10s), std::out_of_range);
  EXPECT_EQ(text, "odd 3");
  auto throws = this->pool_.apply_async(
      shoal::Callbacks{[](int) { throw std::domain_error("callback"); }, {}},
      twice, 1);
  EXPECT_THROW(throws.get(10s), std::domain_error);
  EXPECT_THROW(
      this->pool_.apply_async(shoal::Callbacks{[](long) {}, {}}, twice, 1),
      std::invalid_argument);
  bool empty = false;
  this->pool_
      .map_async(
          shoal::Callbacks{
              [&](const std::vector<int>& all) { empty = all.empty(); }, {}},
          twice, std::vector<int>())
      .get(10s);
  EXPECT_TRUE(empty);
}

TYPED_TEST(PoolTypes, WaitAnyAndAsCompleted) {
  Gate gate;
  std::vector<AsyncResult<int>> results;
  results.push_back(
      this->pool_.apply_async(&Gate::pass, gate.open, gate.started, 0));
  ASSERT_TRUE(gate.has_started(1));
  EXPECT_THROW(wait_any(results, 1ms), TimeoutError);
  for (int n = 1; n < 10; ++n)
    results.push_back(this->pool_.apply_async(twice, n));
  EXPECT_NE(wait_any(results, 10s), 0u);
  EXPECT_EQ(wait_any(std::span(results).subspan(9), 10s), 0u);
  for (auto& result : as_completed(std::span(results).subspan(9), 10s))
    EXPECT_EQ(result.get(), 18);
  std::set<int> seen;
  for (auto& result : as_completed(results, 10s)) {
    seen.insert(result.get());
    if (seen.size() == 9) gate.let_go();
  }
  EXPECT_EQ(seen.size(), 10u);
}

// ---- life ----

TYPED_TEST(PoolTypes, CloseAndJoin) {
  auto& pool = this->pool_;
  EXPECT_THROW(pool.join(), NotRunning);
  std::vector<AsyncResult<int>> results;
  for (int n = 0; n < 100; ++n) results.push_back(pool.apply_async(twice, n));
  pool.close();
  pool.close();
  EXPECT_THROW(pool.apply(twice, 1), NotRunning);
  EXPECT_THROW(pool.map(twice, {1}), NotRunning);
  EXPECT_THROW(pool.imap(twice, {1}), NotRunning);
  EXPECT_TRUE(pool.join(10s));
  EXPECT_TRUE(pool.join());
  for (int n = 0; n < 100; ++n) EXPECT_EQ(results[n].get(0s), 2 * n);
  EXPECT_TRUE(pool.workers().empty());
}

TYPED_TEST(PoolTypes, JoinTimesOut) {
  Gate gate;
  auto held = this->pool_.apply_async(&Gate::pass, gate.open, gate.started, 1);
  this->pool_.close();
  EXPECT_FALSE(this->pool_.join(10ms));
  gate.let_go();
  EXPECT_TRUE(this->pool_.join(10s));
  EXPECT_EQ(held.get(0s), 1);
}

TYPED_TEST(PoolTypes, TerminateCancelsWhatWaits) {
  Gate gate;
  std::vector<AsyncResult<int>> results;
  for (int n = 0; n < 6; ++n)
    results.push_back(
        this->pool_.apply_async(&Gate::pass, gate.open, gate.started, n));
  ASSERT_TRUE(gate.has_started(2));
  std::thread opens;
  // A thread's task is waited for.
  if (TestFixture::kThreads)
    opens = std::thread([&] {
      eventually([&] { return results.back().ready(); });
      gate.let_go();
    });
  this->pool_.terminate();
  if (opens.joinable()) opens.join();
  int cancelled = 0;
  for (auto& result : results) {
    ASSERT_TRUE(result.ready());
    try {
      result.get(0s);
    } catch (const Cancelled&) {
      ++cancelled;
    }
  }
  EXPECT_EQ(cancelled, TestFixture::kThreads ? 4 : 6);
  EXPECT_THROW(this->pool_.apply(twice, 1), NotRunning);
  EXPECT_TRUE(this->pool_.join(10s));
}

TYPED_TEST(PoolTypes, WorkersAndStats) {
  auto& pool = this->pool_;
  EXPECT_EQ(pool.workers().size(), 2u);
  pool.map(twice, {1, 2, 3, 4}, 1);
  EXPECT_THROW(pool.apply(fails_if_odd, 1), std::out_of_range);
  ASSERT_TRUE(eventually([&] { return pool.stats().running == 0; }));
  const PoolStats stats = pool.stats();
  EXPECT_EQ(stats.done, 4u);
  EXPECT_EQ(stats.failed, 1u);
  EXPECT_EQ(stats.queued, 0u);
  EXPECT_EQ(stats.busy.size(), 2u);
}

TYPED_TEST(PoolTypes, BadNumbersOfWorkers) {
  EXPECT_THROW(typename TypeParam::Type(TypeParam::options(0)),
               std::invalid_argument);
  EXPECT_THROW(typename TypeParam::Type(TypeParam::options(-3)),
               std::invalid_argument);
}

// ---- the initializer ----

thread_local int prepared = 0;

TYPED_TEST(PoolTypes, InitializerRunsWhereTasksRun) {
  const Value<int> times(0);
  typename TypeParam::Type pool(
      TypeParam::options(2),
      [](int number, Value<int> count) {
        prepared = number;
        count.fetch_add(1);
      },
      42, times);
  for (int n = 0; n < 20; ++n)
    EXPECT_EQ(pool.apply([] { return prepared; }), 42);
  EXPECT_TRUE(eventually([&] { return times.get() == 2; }));
  EXPECT_EQ(prepared, 0);
}

TYPED_TEST(PoolTypes, InitializerThatThrows) {
  typename TypeParam::Type pool(TypeParam::options(2),
                                [] { throw std::domain_error("no database"); });
  for (int n = 0; n < 3; ++n) {
    try {
      pool.apply([] {});
      FAIL() << "it ran";
    } catch (const BrokenPool& error) {
      EXPECT_NE(std::string(error.what()).find("no database"),
                std::string::npos);
      EXPECT_THROW(std::rethrow_if_nested(error), std::domain_error);
    }
  }
  EXPECT_THROW(pool.map(twice, {1}), BrokenPool);
  EXPECT_THROW(pool.imap(twice, {1}), BrokenPool);
}

// ---- what is no call ----

TYPED_TEST(PoolTypes, NullPointerToAFunction) {
  int (*const none)(int) = nullptr;
  EXPECT_THROW(this->pool_.apply(none, 1), std::invalid_argument);
  EXPECT_THROW(this->pool_.apply_async(none, 1), std::invalid_argument);
  EXPECT_THROW(this->pool_.map(none, {1, 2}), std::invalid_argument);
  auto stream = this->pool_.imap(none, {1, 2});
  EXPECT_THROW(stream.next(), std::invalid_argument);
}

TYPED_TEST(PoolTypes, MovedFromResultIsNotCancelled) {
  auto result = this->pool_.apply_async(twice, 2);
  auto moved = std::move(result);
  // NOLINTNEXTLINE(bugprone-use-after-move): what is tested
  EXPECT_THROW(result.cancel(), std::logic_error);
  EXPECT_EQ(moved.get(kPatience), 4);
}

// ---- handles ----

// As a Process takes it: by value, by reference, and to have.
TYPED_TEST(PoolTypes, WhatCannotBeCopiedIsHandedOver) {
  const auto send = [this](auto f) {
    auto [kept, given] = Pipe();
    this->pool_.apply(f, std::move(given), 7);
    return kept.template recv<int>(kPatience);
  };
  EXPECT_EQ(send([](Connection end, int n) { end.send(n); }), 7);
  EXPECT_EQ(send([](Connection&& end, int n) { end.send(n); }), 7);
  EXPECT_EQ(send([](Connection& end, int n) { end.send(n); }), 7);
}

int length_of(const std::unique_ptr<std::string>& text) {
  return static_cast<int>(text->size());
}

// A container that is given away gives its elements away.
TYPED_TEST(PoolTypes, ItemsThatCannotBeCopied) {
  const auto fill = [](auto container) {
    for (const char* text : {"a", "bc", "def"})
      container.push_back(std::make_unique<std::string>(text));
    return container;
  };
  const auto vector = [&] {
    return fill(std::vector<std::unique_ptr<std::string>>());
  };
  const auto list = [&] {
    return fill(std::list<std::unique_ptr<std::string>>());
  };
  const std::vector lengths = {1, 2, 3};
  EXPECT_EQ(this->pool_.map(&length_of, vector()), lengths);
  EXPECT_EQ(this->pool_.map(&length_of, list(), 2), lengths);
  EXPECT_EQ(this->pool_.map_async(&length_of, list()).get(), lengths);
  std::vector<int> streamed;
  for (const int length : this->pool_.imap(&length_of, vector(), 2))
    streamed.push_back(length);
  for (const int length : this->pool_.imap(&length_of, list()))
    streamed.push_back(length);
  EXPECT_EQ(streamed, (std::vector{1, 2, 3, 1, 2, 3}));
  std::vector<std::tuple<std::unique_ptr<std::string>, int>> tuples;
  tuples.emplace_back(std::make_unique<std::string>("four"), 1);
  EXPECT_EQ(this->pool_.starmap([](const std::unique_ptr<std::string>& text,
                                   int more) { return length_of(text) + more; },
                                std::move(tuples)),
            std::vector{5});
}

// What refers to another's elements, and is no view to the library.
template <class T>
struct Slice {
  std::vector<T>& of;
  auto begin() const { return of.begin(); }
  auto end() const { return of.end(); }
};

// Its iterator returns a reference to what it holds itself.
class Stashing {
 public:
  class Iterator {
   public:
    using value_type = std::string;
    using difference_type = std::ptrdiff_t;
    using reference = const std::string&;
    using pointer = const std::string*;
    using iterator_category = std::forward_iterator_tag;
    Iterator() = default;
    explicit Iterator(std::size_t length) : text_(length, 'x') {}
    const std::string& operator*() const { return text_; }
    Iterator& operator++() {
      text_ += 'x';
      return *this;
    }
    Iterator operator++(int) {
      Iterator before = *this;
      ++*this;
      return before;
    }
    bool operator==(const Iterator&) const = default;

   private:
    std::string text_;
  };
  static Iterator begin() { return Iterator(1); }
  static Iterator end() { return Iterator(40); }
};

TYPED_TEST(PoolTypes, ItemsStayWithWhoKeepsThem) {
  std::vector<std::string> texts = {"a", std::string(50, 'b')};
  const auto kept = texts;
  const auto length = [](const std::string& text) { return text.size(); };
  const std::vector<std::size_t> lengths = {1, 50};
  EXPECT_EQ(this->pool_.map(length, Slice<std::string>{texts}), lengths);
  std::vector<std::size_t> streamed;
  for (const auto n : this->pool_.imap(length, Slice<std::string>{texts}))
    streamed.push_back(n);
  EXPECT_EQ(streamed, lengths);
  EXPECT_EQ(texts, kept);
  EXPECT_EQ(this->pool_.map(length, std::list(texts.begin(), texts.end())),
            lengths);
  const auto counted = this->pool_.map(length, Stashing(), 3);
  ASSERT_EQ(counted.size(), 39u);
  for (std::size_t n = 0; n < counted.size(); ++n) EXPECT_EQ(counted[n], n + 1);
}

TYPED_TEST(PoolTypes, HandlesAsArguments) {
  Array<double> array(1 << 16);
  Queue<int> queue(4);
  const Value<int> value(1);
  const double sum = this->pool_.apply(
      [](Array<double> all, Queue<int> q, Value<int> v) {
        std::ranges::fill(all, 0.5);
        q.put(7);
        v.set(9);
        return std::accumulate(all.begin(), all.end(), 0.0);
      },
      array, queue, value);
  EXPECT_EQ(sum, 0.5 * (1 << 16));
  EXPECT_EQ(array[100], 0.5);
  EXPECT_EQ(queue.get(10s), 7);
  EXPECT_EQ(value.get(), 9);
}

// ---- in place ----

TYPED_TEST(PoolTypes, ForEach) {
  auto& pool = this->pool_;
  Array<double> made_after(10'000);
  for (const std::ptrdiff_t chunk : {0, 1000, 1'000'000}) {
    made_after.fill(3);
    pool.for_each(
        made_after, [](double& x) { x *= 2; }, chunk);
    EXPECT_EQ(std::ranges::count(made_after, 6.0), 10'000);
  }
  Array<int> field(Shape(20, 30));
  pool.for_each(field.row(3), [](int& x) { x += 1; });
  pool.for_each(field.slice(5, 7), [](int& x) { x += 10; });
  pool.for_each(field.column(2), [](int& x) { x += 100; });
  pool.for_each(field.span(), [](int& x) { x += 1000; });
  for (std::size_t i = 0; i < 20; ++i)
    for (std::size_t j = 0; j < 30; ++j)
      ASSERT_EQ(field(i, j), 1000 + (i == 3 ? 1 : 0) +
                                 (i == 5 || i == 6 ? 10 : 0) +
                                 (j == 2 ? 100 : 0));
  pool.for_each(Array<int>(0), [](int&) {});
  pool.for_each(field.row(19), &halve);
  pool.for_each(field.row(19), halve);
  EXPECT_EQ(field(19, 0), 250);
  pool.for_each(field.row(19), [](int& x) { x = 1000; });
  field(19, 2) = 1100;
  Array<Point> points(3);
  pool.for_each(points, &Point::move);
  EXPECT_EQ(points[2].x, 1);
  EXPECT_THROW(pool.for_each(field,
                             [](int& x) {
                               if (x == 1001) throw std::out_of_range("one");
                             }),
               std::out_of_range);
  EXPECT_THROW(pool.for_each(
                   field, [](int&) {}, -1),
               std::invalid_argument);
  pool.close();
  EXPECT_THROW(pool.for_each(field, [](int&) {}), NotRunning);
}

TEST(PoolForEach, OtherMemoryIsRefused) {
  Pool pool(1);
  std::vector<int> local(10);
  EXPECT_THROW(pool.for_each(std::span(local), [](int&) {}),
               std::invalid_argument);
}

// A pool inside a worker.
TYPED_TEST(PoolTypes, PoolsInsideTasks) {
  EXPECT_EQ(this->pool_.apply(
                [](int x) {
                  ThreadPool threads(2);
                  Pool inner(2);
                  return inner.apply(twice, x) + threads.apply(twice, x);
                },
                5),
            20);
}

}  // namespace
