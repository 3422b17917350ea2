// Pool beside a bare slot in shared memory and the same pool over pipe(2).
//
// The empty task takes a number and returns it.

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "bench/baselines/ping_pong.h"
#include "bench/baselines/pipe_pool.h"
#include "bench/support/machine.h"
#include "bench/support/report.h"
#include "shoal/ipc/errors.h"
#include "shoal/pool/pool.h"

namespace shoal::bench {
namespace {

constexpr auto kEmpty = [](std::uint64_t number) { return number; };

void require(bool true_, const char* what) {
  if (!true_) throw std::runtime_error(what);
}

// This process on CPU 0 and `pool`'s workers on 1, or on 1, 0, 1 ...
template <class AnyPool>
Pinned pin_apart(const AnyPool& pool) {
  int cpu = 1;
  for (const pid_t worker : pool.workers()) {
    pin(cpu, worker);
    cpu = 1 - cpu;
  }
  return Pinned(0);
}

// ---- one at a time ----

double apply(std::uint64_t count) {
  Pool pool(1);
  const Pinned pinned = pin_apart(pool);
  const auto run = [&](std::uint64_t n) {
    for (std::uint64_t i = 0; i < n; ++i)
      require(pool.apply(kEmpty, i) == i, "another result came back");
  };
  run(count / 10 + 1);
  const double begin = clock_ns();
  run(count);
  return clock_ns() - begin;
}

double apply_over_pipes(std::uint64_t count) {
  PipePool pool(1);
  const Pinned pinned = pin_apart(pool);
  const auto run = [&](std::uint64_t n) {
    for (std::uint64_t i = 0; i < n; ++i) {
      const auto result = pool.apply_async(kEmpty, i);
      require(pool.get<std::uint64_t>(result) == i, "another result came back");
      pool.forget();
    }
  };
  run(count / 10 + 1);
  const double begin = clock_ns();
  run(count);
  return clock_ns() - begin;
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

// ---- many at a time ----

constexpr std::uint64_t kTasks = 10'000;
constexpr int kRounds = 5;

// Median of some rounds after one that warms up; of `round` of kTasks.
template <class Round>
double rounds_of(Round round) {
  std::vector<double> each;
  for (int i = 0; i <= (smoke() ? 1 : kRounds); ++i) {
    const double begin = clock_ns();
    round();
    const double ns = clock_ns() - begin;
    if (i != 0) each.push_back(ns);
  }
  return median(each);
}

// Submitted, collected and let go of.
double batch(int workers) {
  Pool pool(workers);
  const Pinned pinned = pin_apart(pool);
  std::vector<AsyncResult<std::uint64_t>> results;
  results.reserve(kTasks);
  return rounds_of([&] {
    for (std::uint64_t i = 0; i < kTasks; ++i)
      results.push_back(pool.apply_async(kEmpty, i));
    for (std::uint64_t i = 0; i < kTasks; ++i)
      require(results[i].get() == i, "another result came back");
    results.clear();
  });
}

double batch_over_pipes(int workers) {
  PipePool pool(static_cast<std::uint32_t>(workers));
  const Pinned pinned = pin_apart(pool);
  return rounds_of([&] {
    for (std::uint64_t i = 0; i < kTasks; ++i) pool.apply_async(kEmpty, i);
    for (std::uint64_t i = 0; i < kTasks; ++i)
      require(pool.get<std::uint64_t>(i) == i, "another result came back");
    pool.forget();
  });
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

// ---- death, beginning and end ----

// Written by the task that dies; made before any pool, so that its workers
// have it.
std::atomic<double>& time_of_death() {
  static const Shared<std::atomic<double>> time;
  return *time;
}

// From the worker's last instruction but one until get() has thrown.
std::vector<double> kills(std::uint64_t count) {
  constexpr auto kDie = [] {
    time_of_death() = clock_ns();
    raise(SIGKILL);
  };
  time_of_death() = 0;
  Pool pool(2);
  std::vector<double> each;
  for (std::uint64_t i = 0; i < count; ++i) {
    auto result = pool.apply_async(kDie);
    try {
      result.get();
      throw std::logic_error("a dead worker returned");
    } catch (const WorkerDied&) {
      each.push_back(clock_ns() - time_of_death());
    }
    while (pool.workers().size() < 2) usleep(100);
    require(pool.apply(kEmpty, i) == i, "another result came back");
  }
  return each;
}

std::vector<double> starts_and_stops(std::uint64_t count) {
  std::vector<double> each;
  for (std::uint64_t i = 0; i < count; ++i) {
    const double begin = clock_ns();
    { Pool pool(2); }
    each.push_back(clock_ns() - begin);
  }
  return each;
}

std::vector<double> starts_and_first_results(std::uint64_t count) {
  std::vector<double> each;
  for (std::uint64_t i = 0; i < count; ++i) {
    const double begin = clock_ns();
    Pool pool(2);
    require(pool.apply(kEmpty, i) == i, "another result came back");
    each.push_back(clock_ns() - begin);
  }
  return each;
}

std::optional<double> times(double factor, std::optional<double> figure) {
  if (!figure) return std::nullopt;
  return *figure * factor;
}

}  // namespace

void add_benchmarks() {
  const auto rounds = scaled(50'000);
  add("apply/pool", rounds, [=] { return apply(rounds); });
  add("apply/raw_slot", rounds, [=] { return ping_pong<Lines<24>>(rounds); });
  add("apply/raw_line", rounds, [=] { return ping_pong<Slot>(rounds); });
  const auto pipe_rounds = scaled(5'000);
  add("apply/pipe_pool", pipe_rounds,
      [=] { return apply_over_pipes(pipe_rounds); });
  for (const int workers : {1, 2}) {
    const std::string many = "x" + std::to_string(workers) + "/";
    add("apply_async_" + many + "pool", kTasks, [=] { return batch(workers); });
    add("apply_async_" + many + "pipe_pool", kTasks,
        [=] { return batch_over_pipes(workers); });
    add("map_" + many + "pool", kTasks, [=] { return map(workers); });
  }
  time_of_death();
  add_each("kill/pool", [] { return kills(scaled(500)); });
  add_each("start_stop/pool", [] { return starts_and_stops(scaled(500)); });
  add_each("start_first_result/pool",
           [] { return starts_and_first_results(scaled(500)); });
}

void report() {
  std::printf("\nns a task, median (least)\n");
  for (const char* name :
       {"apply/pool", "apply/raw_slot", "apply/raw_line", "apply/pipe_pool",
        "apply_async_x1/pool", "apply_async_x1/pipe_pool",
        "apply_async_x2/pool", "apply_async_x2/pipe_pool", "map_x1/pool",
        "map_x2/pool", "kill/pool", "start_stop/pool",
        "start_first_result/pool"})
    std::printf("%-26s %22s\n", name, figure(name).c_str());
  std::printf("\n");
  at_most("apply round trip, of the raw slot",
          ratio("apply/pool", "apply/raw_slot"), 1.6);
  at_most("10,000 apply_async, a task",
          times(1e-3, median_of("apply_async_x1/pool")), 0.6, " us");
  at_most("10,000 apply_async, of the pool over pipes",
          ratio("apply_async_x1/pool", "apply_async_x1/pipe_pool"), 1);
  at_most("map of 10,000, an item", times(1e-3, median_of("map_x1/pool")), 0.03,
          " us");
  at_most("kill reported by get()", times(1e-6, median_of("kill/pool")), 1,
          " ms");
  at_most("start and stop of two workers",
          times(1e-6, median_of("start_stop/pool")), 1.5, " ms");
}

}  // namespace shoal::bench
