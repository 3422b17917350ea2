#pragma once
// pool_bench by parts: round trips, batches and maps are in pool_bench.cc.

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "bench/support/machine.h"
#include "bench/support/report.h"
#include "shoal/pool/async_result.h"

namespace shoal::bench {

// 64 MiB as an argument, and back.
void add_arrays();
void report_arrays();
// Beginning, end, and death.
void add_lives();
void report_lives();
// ThreadPool beside other pools of threads.
void add_threads();
void report_threads();

// The empty task.
inline constexpr auto kEmpty = [](std::uint64_t number) { return number; };

inline void require(bool true_, const char* what) {
  if (!true_) throw std::runtime_error(what);
}

// This thread on CPU 0 and `pool`'s workers on 1, or on 1, 0, 1 ...
template <class AnyPool>
Pinned pin_apart(const AnyPool& pool) {
  int cpu = 1;
  for (const pid_t worker : pool.workers()) {
    pin(cpu, worker);
    cpu = 1 - cpu;
  }
  return Pinned(0);
}

inline constexpr std::uint64_t kTasks = 10'000;

// Median of some rounds after one that warms up; of `round` of kTasks.
template <class Round>
double rounds_of(Round round) {
  constexpr int kRounds = 5;
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
template <class AnyPool>
double batch(int workers) {
  AnyPool pool(workers);
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

// Of each of `count` calls, after one that warms up.
template <class Once>
std::vector<double> times_of(std::uint64_t count, Once once) {
  std::vector<double> each;
  for (std::uint64_t i = 0; i <= count; ++i) {
    const double begin = clock_ns();
    once();
    if (i != 0) each.push_back(clock_ns() - begin);
  }
  return each;
}

inline constexpr double kMicro = 1e3;
inline constexpr double kMilli = 1e6;
inline std::optional<double> median_in(double ns, const std::string& name) {
  const auto figure = median_of(name);
  if (!figure) return std::nullopt;
  return *figure / ns;
}

}  // namespace shoal::bench
