// What Pool runs: every kind of callable, argument and result.

#include "shoal/pool/pool.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <deque>
#include <functional>
#include <limits>
#include <list>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/lock.h"
#include "shoal/ipc/queue.h"
#include "shoal/ipc/waiting.h"
#include "shoal/shared/array.h"
#include "shoal/shared/value.h"
#include "tests/pool/scene.h"

namespace {

using namespace shoal;
using namespace shoal::support;
using namespace std::chrono_literals;
using testing::Contains;
using testing::ElementsAre;

class PoolCall : public PoolScene {
 protected:
  Pool pool{2};
};
using PoolCallable = PoolCall;
using PoolArgument = PoolCall;
using PoolResult = PoolCall;

// ---- callables ----

int add(int a, int b) { return a + b; }
int twice(int a) noexcept { return 2 * a; }
static std::string shout(const std::string& text) { return text + "!"; }
template <class T>
T negated(T value) {
  return -value;
}

struct Account {
  std::string owner;
  int balance = 0;

  int with(int more) const { return balance + more; }
  int deposit(int more) { return balance += more; }
  std::string name() && { return std::move(owner); }
  static int fee() { return 3; }
};

struct Greet {
  std::string greeting;
  std::vector<std::string> titles;
  std::string operator()(const std::string& name) const {
    return greeting + " " + titles.at(1) + " " + name;
  }
};

struct Point {
  int x;
  int y;
  bool operator==(const Point&) const = default;
};

TEST_F(PoolCallable, FunctionAndPointerToOne) {
  EXPECT_EQ(pool.apply(add, 2, 3), 5);
  EXPECT_EQ(pool.apply(&add, 2, 3), 5);
  int (*pointer)(int, int) = add;
  EXPECT_EQ(pool.apply(pointer, 2, 3), 5);
  int (&reference)(int, int) = add;
  EXPECT_EQ(pool.apply(reference, 2, 3), 5);
  int (*const unchangeable)(int) noexcept = twice;
  EXPECT_EQ(pool.apply(unchangeable, 4), 8);
  EXPECT_EQ(pool.apply(shout, "hi"), "hi!");
  EXPECT_EQ(pool.apply(negated<double>, 1.5), -1.5);
  EXPECT_EQ(pool.apply(&getpid) == getpid(), false);
}

TEST_F(PoolCallable, TwoFunctionsOfOneType) {
  int (*const functions[])(int, int) = {add,
                                        +[](int a, int b) { return a * b; }};
  EXPECT_EQ(pool.apply(functions[0], 3, 4), 7);
  EXPECT_EQ(pool.apply(functions[1], 3, 4), 12);
  EXPECT_EQ(pool.apply(functions[0], 3, 4), 7);
}

TEST_F(PoolCallable, Members) {
  const Account account{"Ada", 10};
  EXPECT_EQ(pool.apply(&Account::with, account, 5), 15);
  EXPECT_EQ(pool.apply(&Account::deposit, account, 5), 15);
  EXPECT_EQ(account.balance, 10);
  EXPECT_EQ(pool.apply(&Account::name, account), "Ada");
  EXPECT_EQ(pool.apply(&Account::owner, account), "Ada");
  EXPECT_EQ(pool.apply(&Account::balance, account), 10);
  EXPECT_EQ(pool.apply(&Account::fee), 3);
}

TEST_F(PoolCallable, Lambdas) {
  EXPECT_EQ(pool.apply([] { return 7; }), 7);
  EXPECT_EQ(pool.apply([](auto a, auto b) { return a + b; }, 1, 2.5), 3.5);
  const auto count = [](auto... args) { return sizeof...(args); };
  EXPECT_EQ(pool.apply(count, 1, "two", 3.0), 3u);
  int k = 40;
  EXPECT_EQ(pool.apply([k](int x) { return k + x; }, 2), 42);
  const Point p{1, 2};
  const double d = 0.5;
  EXPECT_EQ(pool.apply([p, d] { return p.x + p.y + d; }), 3.5);
  int n = 5;
  const auto next = [n]() mutable { return ++n; };
  EXPECT_EQ(pool.apply(next), 6);
  EXPECT_EQ(pool.apply(next), 6) << "each call has its own copy";
  // One after the other, each with other captures: nothing is left behind.
  for (int i = 0; i < 20; ++i) EXPECT_EQ(pool.apply([i] { return i; }), i);
}

TEST_F(PoolCallable, FunctionObjects) {
  const Greet greet{"Good day", {"Mr", "Dr"}};
  EXPECT_EQ(pool.apply(greet, "Who"), "Good day Dr Who");
  EXPECT_EQ(pool.apply(Greet{"Hi", {"", "-"}}, std::string(100, 'w')),
            "Hi - " + std::string(100, 'w'));
  EXPECT_EQ(pool.apply(std::plus<>{}, 3, 4), 7);
  EXPECT_EQ(pool.apply(std::less<std::string>{}, "a", "b"), true);
}

TEST_F(PoolCallable, OverloadsGoThroughALambda) {
  const auto absolute = [](auto x) { return std::abs(x); };
  EXPECT_EQ(pool.apply(absolute, -3), 3);
  EXPECT_EQ(pool.apply(absolute, -2.5), 2.5);
}

// What must not compile, as far as the call's own checks say.
struct NotAMessage {
  int* pointer;
  void operator()() const {}
};
using FunctionOfInt = std::function<int(int)>;

TEST(PoolCallableRefused, WhatPointsIntoThisProcess) {
  int here = 0;
  const std::string text = "text";
  const auto by_reference = [&here] { return here; };
  const auto with_string = [text] { return text; };
  const auto by_value = [here] { return here; };
  EXPECT_FALSE(call::kCallableTravels<decltype(by_reference)>);
  EXPECT_FALSE(
      call::kCallableTravels<std::remove_const_t<decltype(by_reference)>>);
  EXPECT_FALSE(
      call::kCallableTravels<std::remove_const_t<decltype(with_string)>>);
  EXPECT_TRUE(call::kCallableTravels<std::remove_const_t<decltype(by_value)>>);
  EXPECT_FALSE(call::kCallableTravels<FunctionOfInt>);
  EXPECT_FALSE(call::kCallableTravels<NotAMessage>);
  EXPECT_TRUE(call::kCallableTravels<Greet>);
}

TEST(PoolCallableRefused, ReferenceParametersThatAreNoHandles) {
  EXPECT_FALSE((call::kInvocable<void (*)(int&), int>));
  EXPECT_FALSE((call::kInvocable<void (*)(std::string&), std::string>));
  EXPECT_TRUE((call::kInvocable<void (*)(const int&), int>));
  EXPECT_TRUE((call::kInvocable<void (*)(std::string &&), std::string>));
  EXPECT_TRUE((call::kInvocable<void (*)(Queue<int>&), Queue<int>>));
  EXPECT_TRUE((call::kInvocable<void (*)(Queue<int>), Queue<int>>));
  EXPECT_FALSE((call::kInvocable<void (*)(int), std::string>));
}

// ---- arguments ----

TEST_F(PoolArgument, LiteralTravelsAsString) {
  const auto is_string = [](const auto& x) {
    return std::is_same_v<std::remove_cvref_t<decltype(x)>, std::string>;
  };
  EXPECT_TRUE(pool.apply(is_string, "literal"));
  EXPECT_TRUE(pool.apply(is_string, std::string("string")));
  EXPECT_FALSE(pool.apply(is_string, 7));
  EXPECT_EQ(pool.apply([](std::string s) { return s; }, ""), "");
  EXPECT_EQ(
      pool.apply([](std::string a, int b) { return a.size() + b; }, "four", 1),
      5u);
}

TEST_F(PoolArgument, ArrivesAsItWas) {
  const std::map<std::string, std::vector<std::pair<int, std::string>>> map = {
      {"one", {{1, "a"}, {2, "b"}}}, {"none", {}}};
  EXPECT_EQ(pool.apply([](decltype(map) m) { return m; }, map), map);
  const std::vector<Account> accounts = {{"A", 1}, {"B", 2}};
  EXPECT_EQ(pool.apply(
                [](const std::vector<Account>& as) {
                  return as.at(0).owner + as.at(1).owner;
                },
                accounts),
            "AB");
  const std::variant<int, std::string> variant = "text";
  EXPECT_EQ(
      pool.apply([](std::variant<int, std::string> v) { return v; }, variant),
      variant);
  const auto echo = [](auto value) { return value; };
  EXPECT_EQ(pool.apply(echo, std::optional<Point>()), std::nullopt);
  EXPECT_EQ(pool.apply(echo, std::optional(Point{1, 2})), (Point{1, 2}));
  EXPECT_EQ(pool.apply(echo, std::array<int, 3>{1, 2, 3}),
            (std::array<int, 3>{1, 2, 3}));
  EXPECT_EQ(pool.apply(echo, std::list<std::string>{"a", "b"}),
            (std::list<std::string>{"a", "b"}));
  EXPECT_EQ(pool.apply(echo, std::deque<char>{'a'}), std::deque<char>{'a'});
  EXPECT_EQ(pool.apply(echo, std::set<int>{3, 1}), (std::set<int>{1, 3}));
  EXPECT_EQ(pool.apply(echo, std::chrono::milliseconds(5)),
            std::chrono::milliseconds(5));
  EXPECT_EQ(pool.apply(echo, std::vector<bool>{true, false, true}),
            (std::vector<bool>{true, false, true}));
  EXPECT_EQ(pool.apply(echo, std::u16string(u"wide")), u"wide");
  EXPECT_EQ(pool.apply(echo, std::numeric_limits<std::int64_t>::min()),
            std::numeric_limits<std::int64_t>::min());
  EXPECT_TRUE(std::isnan(pool.apply(echo, std::nan(""))));
}

TEST_F(PoolArgument, IsCopiedBeforeTheCallReturns) {
  std::vector<int> numbers(1000, 1);
  auto held = pool.apply_async(&wait_at_gate);
  auto held_too = pool.apply_async(&wait_at_gate);
  auto sum = pool.apply_async(
      [](const std::vector<int>& v) {
        return std::accumulate(v.begin(), v.end(), 0);
      },
      numbers);
  std::fill(numbers.begin(), numbers.end(), 9);
  numbers.clear();
  marks->gate = 1;
  EXPECT_EQ(sum.get(), 1000);
}

TEST_F(PoolArgument, MoveOnlyOnesAreMovedIn) {
  EXPECT_EQ(pool.apply([](std::unique_ptr<int> p) { return *p; },
                       std::make_unique<int>(4)),
            4);
  const auto pointer = std::make_unique<std::string>("kept");
  EXPECT_EQ(pool.apply([](const std::unique_ptr<std::string>& p) { return *p; },
                       pointer),
            "kept");
  EXPECT_EQ(*pointer, "kept");
  std::vector<std::unique_ptr<int>> several;
  several.push_back(std::make_unique<int>(1));
  several.push_back(nullptr);
  EXPECT_EQ(pool.apply(
                [](std::vector<std::unique_ptr<int>> v) {
                  return v.size() == 2 && *v[0] == 1 && v[1] == nullptr;
                },
                std::move(several)),
            true);
}

TEST_F(PoolArgument, OfEverySize) {
  // Around what fits the record, each block's end, and a megabyte.
  std::vector<std::size_t> sizes(80);
  std::iota(sizes.begin(), sizes.end(), 0);
  for (std::size_t power = 128; power <= 1 << 20; power *= 2)
    for (std::size_t near = power - 25; near < power + 2; ++near)
      if (near % 3 == 0 || near + 9 > power) sizes.push_back(near);
  for (const std::size_t size : sizes) {
    std::string text(size, 'x');
    for (std::size_t i = 0; i < size; i += 97)
      text[i] = static_cast<char>('a' + i % 26);
    ASSERT_EQ(pool.apply([](std::string s) { return s; }, text), text) << size;
  }
  EXPECT_EQ(blocks_of(pool), 0u);
}

TEST_F(PoolArgument, ManyOfThem) {
  const auto sum = [](auto... all) { return (all + ...); };
  EXPECT_EQ(pool.apply(sum, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12), 78);
  EXPECT_EQ(pool.apply(
                [](std::string a, std::vector<int> b, double c, char d) {
                  return a + std::to_string(b.size()) +
                         std::to_string(c).substr(0, 3) + d;
                },
                "a", std::vector<int>(3), 2.5, 'd'),
            "a32.5d");
}

// ---- handles as arguments: made before the pool ----

class PoolHandle : public PoolScene {
 protected:
  Queue<int> queue{16};
  Value<long> value{0};
  Array<int> array{10};
  Lock lock;
  Pool pool{2};
};

TEST_F(PoolHandle, QueueByReferenceAndByValue) {
  pool.apply([](Queue<int>& q) { q.put(1); }, queue);
  pool.apply([](Queue<int> q) { q.put(2); }, queue);
  EXPECT_EQ(pool.apply([](const Queue<int>& q) { return q.qsize(); }, queue),
            2u);
  pool.apply([](Queue<int>& in, Queue<int>& out) { out.put(in.get() + 10); },
             queue, queue);
  EXPECT_EQ(queue.get(), 2);
  EXPECT_EQ(queue.get(), 11);
  EXPECT_TRUE(queue.empty());
}

TEST_F(PoolHandle, BetweenTwoTasks) {
  auto consumer = pool.apply_async(
      [](Queue<int>& q) {
        int sum = 0;
        for (int i = 0; i < 100; ++i) sum += q.get(kPatience);
        return sum;
      },
      queue);
  auto producer = pool.apply_async(
      [](Queue<int>& q) {
        for (int i = 0; i < 100; ++i) q.put(i, kPatience);
      },
      queue);
  producer.get();
  EXPECT_EQ(consumer.get(), 4950);
}

TEST_F(PoolHandle, ValueArrayAndLock) {
  std::vector<AsyncResult<void>> all;
  for (int i = 0; i < 100; ++i)
    all.push_back(pool.apply_async(
        [](Value<long>& v, Array<int>& a, Lock& l, int n) {
          v.fetch_add(n);
          const std::lock_guard guard(l);
          a[1] = a[1] + 1;
          a[static_cast<std::size_t>(2 + n % 8)] = n;
        },
        value, array, lock, i));
  for (auto& result : all) result.get();
  EXPECT_EQ(value.get(), 4950);
  EXPECT_EQ(array[1], 100);
  EXPECT_FALSE(lock.locked());
  // Of those that write to it, whichever came last.
  for (int i = 0; i < 8; ++i)
    EXPECT_EQ(array[static_cast<std::size_t>(2 + i)] % 8, i);
}

TEST_F(PoolHandle, InsideOtherMessages) {
  struct Job {
    std::string name;
    Queue<int> answers;
    std::vector<Value<long>> totals;
  };
  pool.apply(
      [](const Job& job) {
        auto answers = job.answers;
        answers.put(static_cast<int>(job.name.size()));
        auto total = job.totals.at(1);
        total.fetch_add(5);
      },
      Job{"four", queue, {value, value}});
  EXPECT_EQ(queue.get(), 4);
  EXPECT_EQ(value.get(), 5);
}

TEST_F(PoolHandle, ComesBackAsTheSameObject) {
  Queue<int> same = pool.apply([](Queue<int> q) { return q; }, queue);
  same.put(3);
  EXPECT_EQ(queue.get(), 3);
}

// What a task did is seen by whoever has its result.
TEST_F(PoolHandle, PlainStoresAreSeenByWhoeverHasTheResult) {
  for (int round = 1; round <= 300; ++round) {
    pool.apply(
        [](Array<int> a, int n) {
          for (int& x : a) x = n;
        },
        array, round);
    for (const int x : array) ASSERT_EQ(x, round);
  }
}

// ---- results ----

TEST_F(PoolResult, Void) {
  static_assert(std::is_void_v<decltype(pool.apply([] { ++marks->ran; }))>);
  pool.apply([] { ++marks->ran; });
  EXPECT_EQ(marks->ran, 1);
  auto result = pool.apply_async([] { ++marks->ran; });
  result.get();
  result.get();
  EXPECT_EQ(marks->ran, 2);
}

TEST_F(PoolResult, TupleOfTheIssue) {
  const auto f = [](const std::string& a, int b) {
    return std::tuple<std::string, std::string, std::vector<int>>(
        a + std::to_string(b), "tea test", {2222, 5, 356});
  };
  const auto [text, tea, numbers] = pool.apply(f, "hello,world", 1);
  EXPECT_EQ(text, "hello,world1");
  EXPECT_EQ(tea, "tea test");
  EXPECT_THAT(numbers, ElementsAre(2222, 5, 356));
}

TEST_F(PoolResult, OfEveryKind) {
  EXPECT_EQ(pool.apply([] { return true; }), true);
  EXPECT_EQ(pool.apply([] { return std::string(); }), "");
  EXPECT_EQ(pool.apply([] { return 'c'; }), 'c');
  EXPECT_EQ(pool.apply([] {
    return std::string(
        "long enough for a block "
        "of its own in the arena");
  }),
            "long enough for a block of its own in the arena");
  EXPECT_EQ(pool.apply([] {
    return std::vector<bool>{true, false};
  }),
            (std::vector<bool>{true, false}));
  EXPECT_EQ(pool.apply([] { return std::vector<std::string>(); }).size(), 0u);
  EXPECT_EQ(pool.apply([] { return std::make_pair(1, std::string("two")); }),
            std::make_pair(1, std::string("two")));
  struct Empty {};
  static_assert(
      std::is_same_v<decltype(pool.apply([] { return Empty(); })), Empty>);
  pool.apply([] { return Empty(); });
  const auto nested = pool.apply([] {
    return std::map<int, std::vector<std::optional<std::string>>>{
        {1, {"a", std::nullopt}}, {2, {}}};
  });
  EXPECT_EQ(nested.at(1).at(0), "a");
  EXPECT_EQ(nested.at(1).at(1), std::nullopt);
  EXPECT_EQ(nested.at(2).size(), 0u);
  EXPECT_EQ(pool.apply([] { return Account{"Eve", 7}; }).owner, "Eve");
}

TEST_F(PoolResult, ReferencesAndConstDecay) {
  static const std::string kText = "static";
  static_assert(std::is_same_v<decltype(pool.apply([]() -> const std::string& {
                                 return kText;
                               })),
                               std::string>);
  EXPECT_EQ(pool.apply([]() -> const std::string& { return kText; }), "static");
}

TEST_F(PoolResult, Megabyte) {
  const auto bytes = pool.apply(
      [](std::size_t n) {
        std::vector<std::uint32_t> numbers(n);
        std::iota(numbers.begin(), numbers.end(), 0u);
        return numbers;
      },
      std::size_t{1} << 18);
  ASSERT_EQ(bytes.size(), std::size_t{1} << 18);
  for (std::size_t i = 0; i < bytes.size(); ++i) ASSERT_EQ(bytes[i], i);
}

TEST_F(PoolResult, MoveOnlyIsHandedOutOnce) {
  auto result = pool.apply_async([] { return std::make_unique<int>(5); });
  EXPECT_EQ(*result.get(), 5);
  EXPECT_THROW(result.get(), NotReady);
  EXPECT_THROW(result.get(), NotReady);
  EXPECT_TRUE(result.ready());
  EXPECT_TRUE(result.successful());
  EXPECT_EQ(pool.apply([] { return std::unique_ptr<int>(); }), nullptr);
  auto several =
      pool.map_async([](int x) { return std::make_unique<int>(x); }, {1, 2, 3});
  const auto pointers = several.get();
  ASSERT_EQ(pointers.size(), 3u);
  EXPECT_EQ(*pointers[2], 3);
}

TEST_F(PoolResult, GetMayBeRepeated) {
  auto result = pool.apply_async([] { return std::vector<int>(5000, 3); });
  const auto first = result.get();
  EXPECT_EQ(first.size(), 5000u);
  for (int n = 0; n < 3; ++n) EXPECT_EQ(result.get(), first);
}

TEST_F(PoolResult, ComesFromAWorker) {
  const auto workers = pool.workers();
  EXPECT_EQ(workers.size(), 2u);
  EXPECT_NE(workers[0], workers[1]);
  for (int n = 0; n < 20; ++n) {
    const pid_t pid = pool.apply(&getpid);
    EXPECT_NE(pid, getpid());
    EXPECT_THAT(workers, Contains(pid));
  }
}

// Both must take a task for either to end.
TEST_F(PoolResult, WorkersRunAtTheSameTime) {
  const auto meet = [] {
    ++marks->started;
    return eventually([] { return marks->started == 2; });
  };
  auto one = pool.submit(meet);
  auto two = pool.submit(meet);
  EXPECT_TRUE(one.get());
  EXPECT_TRUE(two.get());
}

TEST_F(PoolResult, TasksStartInTheOrderOfTheirSubmission) {
  Pool single(1);
  std::vector<AsyncResult<int>> all;
  for (int i = 0; i < 10'000; ++i)
    all.push_back(single.apply_async([] { return marks->ran++; }));
  for (int i = 0; i < 10'000; ++i)
    ASSERT_EQ(all[static_cast<std::size_t>(i)].get(), i);
}

// A few at a time, now and then none, so that their records are used again.
TEST_F(PoolResult, TasksStartInThatOrderWhenFewAreOpen) {
  Pool single(1);
  std::deque<AsyncResult<int>> open;
  int got = 0;
  for (int i = 0; i < 30'000; ++i) {
    open.push_back(single.apply_async([] { return marks->ran++; }));
    while (open.size() > static_cast<std::size_t>(i / 10 % 4)) {
      ASSERT_EQ(open.front().get(), got++);
      open.pop_front();
    }
  }
}

// A submission that comes too late: the ring is closed. `meanwhile` is called
// with the task's record between its claim word and that refusal.
void submit_to_closed_ring(
    Pool& pool, const std::function<void(task::TaskState&)>& meanwhile) {
  pool::Memory& memory = memory_of(pool);
  task::TaskState& task = memory.task(0);
  memory.ring(0).close(cells::kDraining);
  // Its worker leaves.
  ASSERT_TRUE(eventually([&] { return pool.workers().empty(); }));
  std::atomic<bool> held{false};
  const std::jthread claimer([&] {
    const std::lock_guard refusal_waits(mutex_of(pool));
    held = true;
    const std::uint64_t alone = task::claim_word(1, task::ClaimState::alone);
    EXPECT_TRUE(eventually([&] { return task.claim == alone; }));
    meanwhile(task);
    memory.state().command = pool::Command::close;
  });
  ASSERT_TRUE(eventually([&] { return held.load(); }));
  pool.apply([] {});
}

TEST_F(PoolResult, LateSubmissionThatAWorkerHasAlreadyIsRun) {
  Pool single(1);
  pool::Memory& memory = memory_of(single);
  EXPECT_NO_THROW(submit_to_closed_ring(single, [&](task::TaskState& task) {
    ASSERT_TRUE(task::claim(task, 1, 0, task::ClaimState::alone));
    task.result = 0;
    task.result_bytes = 0;
    ASSERT_TRUE(task::complete(task, 1, task::Outcome::value));
    memory.wake_waiters(0);
  }));
}

TEST_F(PoolResult, LateSubmissionThatNobodyHasIsRefused) {
  Pool single(1);
  EXPECT_THROW(submit_to_closed_ring(single, [](task::TaskState&) {}),
               NotRunning);
  EXPECT_EQ(single.stats().queued, 0u);
  EXPECT_FALSE(
      task::claim(memory_of(single).task(0), 1, 0, task::ClaimState::alone))
      << "a worker that comes later";
}

// As join() does with what is open when the workers have left.
TEST_F(PoolResult, LateSubmissionIsRefusedAlsoWhenThePoolHasEnded) {
  Pool single(1);
  EXPECT_THROW(submit_to_closed_ring(single,
                                     [](task::TaskState& task) {
                                       task::withdraw_completed(task);
                                       ASSERT_TRUE(task::complete(
                                           task, 1, task::Outcome::broken));
                                     }),
               NotRunning);
}

// Whoever of the two is first at a chunk.
TEST_F(PoolResult, CancelledMapsAreNotQueued) {
  int cancelled = 0;
  for (int round = 0; round < 3000; ++round) {
    auto result = pool.map_async(&twice, {1, 2, 3, 4, 5, 6}, 1);
    for (int turn = 0; turn < round % 300; ++turn) waiting::pause();
    cancelled += result.cancel();
  }
  EXPECT_GT(cancelled, 0);
  EXPECT_TRUE(eventually([&] {
    const PoolStats stats = pool.stats();
    return stats.queued == 0 && stats.running == 0;
  })) << pool.stats().queued;
}

// Measured, and not written.
struct Unwritable {
  template <class Archive>
  void serialize(Archive& archive) {
    if (++passes == 2) throw std::runtime_error("not written");
    archive(passes);
  }
  int passes = 0;  // -10 and it is written, too
};

TEST_F(PoolResult, WhatIsGivenUpBeforeItsSubmissionIsNotQueued) {
  for (int i = 0; i < 5; ++i)
    EXPECT_THROW(pool.apply([](const Unwritable&) {}, Unwritable{}),
                 std::runtime_error);
  EXPECT_EQ(pool.stats().queued, 0u);
}

TEST_F(PoolResult, MapThatCannotBeSubmittedToTheEndIsNotBegun) {
  Pool single(1);
  auto held = single.apply_async(&wait_at_gate);
  ASSERT_TRUE(started(1));
  const std::vector<Unwritable> items = {{-10}, {-10}, {-10}, {0}, {-10}};
  EXPECT_THROW(single.map([](const Unwritable&) { ++marks->ran; }, items, 1),
               std::runtime_error);
  marks->gate = 1;
  EXPECT_EQ(held.get(), 1);
  EXPECT_EQ(single.apply([] { return marks->ran.load(); }), 0);
  EXPECT_EQ(single.stats().queued, 0u);
}

// What close() makes NotRunning has not run, whoever has looked at its record.
TEST_F(PoolResult, ApplyBesideCloseRunsOrThrows) {
  for (int round = 0; round < 100; ++round) {
    marks->ran = 0;
    Pool pool(1);
    std::atomic<int> values{0};
    std::thread closer([&] {
      eventually([&] { return values > round * 7; });
      pool.close();
    });
    try {
      for (;;) {
        pool.apply([] { ++marks->ran; });
        ++values;
      }
    } catch (const NotRunning&) {
    }
    closer.join();
    ASSERT_TRUE(pool.join(20s));
    ASSERT_EQ(marks->ran, values) << round;
    ASSERT_EQ(pool.stats().done, static_cast<std::uint64_t>(values)) << round;
    ASSERT_EQ(pool.stats().queued, 0u) << round;
  }
}

}  // namespace
