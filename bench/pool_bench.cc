// Pool beside what it cannot be faster than, the same pool over pipe(2) and
// AF_UNIX, a fork for each task, and Python's pools of processes.
//
// The empty task takes a number and returns it.

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <numeric>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "bench/baselines/fork_per_task.h"
#include "bench/baselines/ping_pong.h"
#include "bench/baselines/python.h"
#include "bench/baselines/python_pool.h"
#include "bench/baselines/raw_futex.h"
#include "bench/baselines/stream_pool.h"
#include "bench/pool_parts.h"
#include "bench/support/machine.h"
#include "bench/support/report.h"
#include "shoal/pool/pool.h"

namespace shoal::bench {
namespace {

// ---- one at a time ----

// After some that warm up.
template <class Once>
double one_by_one(std::uint64_t count, Once once) {
  const auto run = [&](std::uint64_t n) {
    for (std::uint64_t i = 0; i < n; ++i)
      require(once(i) == i, "another result came back");
  };
  run(count / 10 + 1);
  const double begin = clock_ns();
  run(count);
  return clock_ns() - begin;
}

// One that nobody else waits for.
template <class F, class... As>
auto apply(StreamPool& pool, const F& f, const As&... args) {
  const std::size_t number = pool.apply_async(f, args...);
  const auto result = pool.get<std::invoke_result_t<F, As...>>(number);
  pool.forget();
  return result;
}

double apply_by_pool(std::uint64_t count) {
  Pool pool(1);
  const Pinned pinned = pin_apart(pool);
  return one_by_one(count,
                    [&](std::uint64_t i) { return pool.apply(kEmpty, i); });
}

double apply_over(Over over, std::uint64_t count) {
  StreamPool pool(over, 1);
  const Pinned pinned = pin_apart(pool);
  return one_by_one(count,
                    [&](std::uint64_t i) { return apply(pool, kEmpty, i); });
}

// A question and an answer between two processes that do nothing else.
template <class State>
double ping_pong(std::uint64_t rounds) {
  const Shared<State> state;
  const std::uint64_t warm_up = rounds / 10 + 1;
  return run_together({{0,
                        [&](const Start& start) {
                          ask(*state, 0, warm_up);
                          start();
                          ask(*state, warm_up, rounds);
                        }},
                       {1, [&](const Start& start) {
                          answer(*state, 0, warm_up);
                          start();
                          answer(*state, warm_up, rounds);
                        }}});
}

// ---- one at a time, both asleep ----

// When the worker was awake and when it let go of its result.
struct Awake {
  double from;
  double to;
};
// So long that who waits for the result is asleep.
constexpr auto kStayAwake = [] {
  const double from = clock_ns();
  double to = from;
  while (to - from < 1 * kMilli) to = clock_ns();
  return Awake{from, to};
};

// There and back, without the time in between, of `ask`, which returns an
// Awake of one that was asleep.
template <class Ask>
std::vector<double> asleep(std::uint64_t count, Ask ask) {
  std::vector<double> each;
  for (std::uint64_t i = 0; i < count; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    const double begin = clock_ns();
    const Awake awake = ask();
    each.push_back(clock_ns() - begin - (awake.to - awake.from));
  }
  return each;
}

std::vector<double> asleep_in_pool(std::uint64_t count) {
  Pool pool(1);
  const Pinned pinned = pin_apart(pool);
  return asleep(count, [&] { return pool.apply(kStayAwake); });
}

std::vector<double> asleep_over(Over over, std::uint64_t count) {
  StreamPool pool(over, 1);
  const Pinned pinned = pin_apart(pool);
  return asleep(count, [&] { return apply(pool, kStayAwake); });
}

std::vector<double> asleep_in_futex(std::uint64_t count) {
  const Shared<std::array<double, 64>> each;
  count = std::min<std::uint64_t>(count, each->size());
  RawFutex channel;
  std::byte bytes[sizeof(Awake)] = {};
  run_together({{0,
                 [&](const Start& start) {
                   start();
                   const auto all = asleep(count, [&] {
                     channel.send(0, bytes, sizeof bytes);
                     channel.receive(0, bytes, sizeof bytes);
                     return std::bit_cast<Awake>(bytes);
                   });
                   std::copy(all.begin(), all.end(), each->begin());
                 }},
                {1, [&](const Start& start) {
                   start();
                   for (std::uint64_t i = 0; i < count; ++i) {
                     channel.receive(1, bytes, sizeof bytes);
                     const Awake awake = kStayAwake();
                     std::memcpy(bytes, &awake, sizeof awake);
                     channel.send(1, bytes, sizeof bytes);
                   }
                 }}});
  return {each->begin(), each->begin() + static_cast<std::ptrdiff_t>(count)};
}

// ---- many at a time ----

double batch_over(Over over, int workers) {
  StreamPool pool(over, workers);
  const Pinned pinned = pin_apart(pool);
  return rounds_of([&] {
    for (std::uint64_t i = 0; i < kTasks; ++i) pool.apply_async(kEmpty, i);
    for (std::uint64_t i = 0; i < kTasks; ++i)
      require(pool.get<std::uint64_t>(i) == i, "another result came back");
    pool.forget();
  });
}

// Not pinned: the kernel places what is forked.
double forks(std::uint64_t count, int at_once) {
  ForkPerTask tasks;
  const double begin = clock_ns();
  tasks.run(count, static_cast<std::size_t>(at_once), kEmpty,
            [](std::uint64_t n, std::uint64_t result) {
              require(result == n, "another result came back");
            });
  return clock_ns() - begin;
}

double map(int workers) {
  Pool pool(workers);
  const Pinned pinned = pin_apart(pool);
  std::vector<std::uint64_t> numbers(kTasks);
  std::iota(numbers.begin(), numbers.end(), 0);
  return rounds_of([&] {
    require(pool.map(kEmpty, numbers) == numbers, "another result came back");
  });
}

constexpr std::pair<const char*, Over> kStreamPools[] = {
    {"pipe_pool", Over::pipe}, {"unix_pool", Over::unix_socket}};
constexpr std::pair<const char*, const char*> kPythonPools[] = {
    {"Pool.py", "Pool"}, {"Executor.py", "ProcessPoolExecutor"}};

void add_one_by_one() {
  const std::string row = "apply/";
  const std::uint64_t rounds = scaled(50'000);
  add(row + "pool", rounds, [=] { return apply_by_pool(rounds); });
  add(row + "raw_slot", rounds, [=] { return ping_pong<Lines<24>>(rounds); });
  add(row + "raw_line", rounds, [=] { return ping_pong<Slot>(rounds); });
  const std::uint64_t fewer = scaled(5'000);
  for (const auto& [peer, over] : kStreamPools)
    add(row + peer, fewer, [=, o = over] { return apply_over(o, fewer); });
  const std::uint64_t few = scaled(1'000);
  add(row + "fork", few, [=] { return forks(few, 1); });
  if (!has_python()) return;
  for (const auto& [peer, kind] : kPythonPools)
    add(row + peer, few,
        [=, k = kind] { return python_pool(k, "apply", 1, few); });
}

void add_parked() {
  const std::string row = "parked/";
  const std::uint64_t rounds = smoke() ? 3 : 50;
  add_each(row + "pool", [=] { return asleep_in_pool(rounds); });
  add_each(row + "raw_futex", [=] { return asleep_in_futex(rounds); });
  for (const auto& [peer, over] : kStreamPools)
    add_each(row + peer, [=, o = over] { return asleep_over(o, rounds); });
}

void add_many(int workers) {
  const std::string suffix = "_x" + std::to_string(workers) + '/';
  const std::string row = "apply_async" + suffix;
  add(row + "pool", kTasks, [=] { return batch<Pool>(workers); });
  add("map" + suffix + "pool", kTasks, [=] { return map(workers); });
  for (const auto& [peer, over] : kStreamPools)
    add(row + peer, kTasks, [=, o = over] { return batch_over(o, workers); });
  const std::uint64_t few = scaled(1'000);
  add(row + "fork", few, [=] { return forks(few, workers); });
  if (!has_python()) return;
  const std::uint64_t tasks = scaled(kTasks);
  for (const auto& [peer, kind] : kPythonPools) {
    add(row + peer, tasks,
        [=, k = kind] { return python_pool(k, "batch", workers, tasks); });
    add("map" + suffix + peer, tasks,
        [=, k = kind] { return python_pool(k, "map", workers, tasks); });
  }
}

}  // namespace

void add_benchmarks() {
  add_one_by_one();
  add_parked();
  for (const int workers : {1, 2}) add_many(workers);
  add_threads();
  add_arrays();
  add_lives();
}

void report() {
  std::printf("\nns a task, median (least)\n");
  const std::vector<const char*> others = {"pipe_pool", "unix_pool", "fork",
                                           "Pool.py", "Executor.py"};
  std::vector<const char*> all = {"pool", "raw_slot", "raw_line", "raw_futex"};
  all.insert(all.end(), others.begin(), others.end());
  for (const char* row : {"apply", "parked", "apply_async_x1", "apply_async_x2",
                          "map_x1", "map_x2"})
    print_peers(row, all);
  at_most("apply round trip, of the raw slot",
          ratio("apply/pool", "apply/raw_slot"), 1.4);
  at_most("the same, both asleep, of a raw futex",
          ratio("parked/pool", "parked/raw_futex"), 1.1);
  for (const std::string workers : {"x1", "x2"}) {
    const std::string batch = "apply_async_" + workers;
    at_most("10,000 apply_async, " + workers + ", a task",
            median_in(kMicro, batch + "/pool"), 0.4, " us");
    at_most("the same, of the best pool of processes",
            ratio(batch + "/pool", best_of(batch, others)), 1);
    at_most("map of 10,000, " + workers + ", an item",
            median_in(kMicro, "map_" + workers + "/pool"), 0.02, " us");
  }
  report_threads();
  report_arrays();
  report_lives();
  if (!has_python())
    std::printf("python3 is not here: its pools were left out\n");
  std::printf("mpi4py.futures was left out: it needs MPI, which is not here\n");
}

}  // namespace shoal::bench
