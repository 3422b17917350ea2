// A pool's beginning and end, from a small process and from one that holds
// 1 GiB; and the death of a worker.

#include <sched.h>
#include <signal.h>
#include <sys/types.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "bench/baselines/python.h"
#include "bench/baselines/python_pool.h"
#include "bench/baselines/raw_lives.h"
#include "bench/pool_parts.h"
#include "bench/support/machine.h"
#include "bench/support/report.h"
#include "shoal/ipc/barrier.h"
#include "shoal/ipc/errors.h"
#include "shoal/pool/pool.h"

namespace shoal::bench {
namespace {

constexpr int kWorkers = 2;

// ---- beginning and end ----

// The constructor does not wait for the workers, and none need be forked when
// the destructor is faster.
void make_destroy(StartMethod method) {
  const Pool pool({.processes = kWorkers, .start_method = method});
}

// Both workers have been forked in between.
void start_stop(StartMethod method) {
  Pool pool({.processes = kWorkers, .start_method = method});
  require(pool.workers().size() == kWorkers, "a worker is missing");
}

// Each worker has run a task in between.
void start_work_stop(StartMethod method) {
  const Barrier all(kWorkers);
  Pool pool({.processes = kWorkers, .start_method = method});
  std::vector<AsyncResult<void>> results;
  for (int n = 0; n < kWorkers; ++n)
    results.push_back(pool.apply_async([](Barrier met) { met.wait(); }, all));
  for (auto& result : results) result.get();
}

// ---- death ----

// Written by the task that dies; made before any pool, so that its workers
// have it.
std::atomic<double>& time_of_death() {
  static const Shared<std::atomic<double>> time;
  return *time;
}

// From the only worker's last instruction but one until get() has thrown, or
// until the next worker has answered and is one of workers().
std::vector<double> deaths(std::uint64_t count, bool until_back) {
  constexpr auto kDie = [] {
    time_of_death() = clock_ns();
    raise(SIGKILL);
  };
  Pool pool(1);
  std::vector<double> each;
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::vector<pid_t> before = pool.workers();
    auto result = pool.apply_async(kDie);
    try {
      result.get();
      throw std::logic_error("a dead worker returned");
    } catch (const WorkerDied&) {
    }
    const double reported = clock_ns();
    require(pool.apply(kEmpty, i) == i, "another result came back");
    while (pool.workers().empty()) sched_yield();  // it may answer first
    const double back = clock_ns();
    each.push_back((until_back ? back : reported) - time_of_death());
    require(pool.workers() != before, "the dead worker is listed");
  }
  return each;
}

std::vector<double> raw_deaths(std::uint64_t count) {
  std::vector<double> each;
  for (std::uint64_t i = 0; i < count; ++i) {
    RawLives::death([] { time_of_death() = clock_ns(); });
    each.push_back(clock_ns() - time_of_death());
  }
  return each;
}

constexpr const char* kMethods[] = {"fork", "forkserver", "spawn"};

}  // namespace

void add_lives() {
  const std::size_t large = scaled(std::uint64_t{1} << 30);
  const std::pair<const char*, void (*)(StartMethod)> spans[] = {
      {"make_destroy", &make_destroy},
      {"start_stop", &start_stop},
      {"start_work_stop", &start_work_stop}};
  for (const auto& [span, once] : spans)
    for (const std::size_t held : {std::size_t{0}, large})
      for (const StartMethod method :
           {StartMethod::fork, StartMethod::forkserver, StartMethod::spawn}) {
        // A fork of 1 GiB takes tens of milliseconds.
        const bool slow = held != 0 && method == StartMethod::fork;
        const std::uint64_t count = scaled(slow ? 5 : 100);
        add_each(std::string(span) + (held == 0 ? "/" : "_1GiB/") +
                     kMethods[static_cast<int>(method)],
                 [=, once = once] {
                   return measured_apart([&] {
                     const Held memory(held);
                     return times_of(count, [&] { once(method); });
                   });
                 });
      }
  add_each("start_stop/raw_forks", [] {
    return measured_apart([] {
      return times_of(scaled(100), [] { RawLives::nested(kWorkers); });
    });
  });
  if (has_python()) {
    const std::uint64_t count = scaled(10);
    add("start_stop/Pool.py", count,
        [=] { return python_pool("Pool", "start", kWorkers, count); });
  }
  time_of_death();
  add_each("kill/reported", [] { return deaths(scaled(300), false); });
  add_each("kill/raw_wait", [] { return raw_deaths(scaled(300)); });
  add_each("kill/back", [] { return deaths(scaled(300), true); });
}

void report_lives() {
  for (const char* row :
       {"make_destroy", "make_destroy_1GiB", "start_stop", "start_stop_1GiB",
        "start_work_stop", "start_work_stop_1GiB"})
    print_peers(row, {"fork", "raw_forks", "forkserver", "spawn", "Pool.py"});
  print_peers("kill", {"reported", "raw_wait", "back"});
  at_most("start and stop of two workers, by fork",
          median_in(kMilli, "start_stop/fork"), 1, " ms");
  for (const std::string method : {"forkserver", "spawn"}) {
    at_most("the same, by " + method, median_in(kMilli, "start_stop/" + method),
            3, " ms");
    at_most("the same, by " + method + ", from 1 GiB",
            median_in(kMilli, "start_stop_1GiB/" + method), 3, " ms");
  }
  at_most("constructor and destructor alone, by fork",
          median_in(kMilli, "make_destroy/fork"), 1, " ms");
  at_most("kill reported by get()", median_in(kMilli, "kill/reported"), 1,
          " ms");
  at_most("another worker answers after a kill", median_in(kMilli, "kill/back"),
          5, " ms");
}

}  // namespace shoal::bench
