// ThreadPool beside oneTBB and Boost.Asio: 10,000 empty tasks, the submitter on
// CPU 0, the threads on 1, 0.
//
// Each pool lives in a forked process, with which its threads end.

#include <oneapi/tbb/global_control.h>
#include <oneapi/tbb/task_arena.h>
#include <oneapi/tbb/task_group.h>

#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <cstdint>
#include <cstdio>
#include <future>
#include <latch>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bench/pool_parts.h"
#include "bench/support/machine.h"
#include "bench/support/report.h"
#include "shoal/pool/thread_pool.h"

namespace shoal::bench {
namespace {

// As pin_apart(), of threads whose ids are not told: each takes one
// of `workers` tasks, which wait for one another.
template <class Submit>
Pinned pin_threads_apart(int workers, Submit submit) {
  const auto all = std::make_shared<std::latch>(workers + 1);
  for (int n = 0; n < workers; ++n)
    submit([all, n] {
      pin(1 - n % 2);
      all->arrive_and_wait();
    });
  all->arrive_and_wait();
  return Pinned(0);
}

// A task whose result someone waits for.
struct Promised {
  void operator()() const { result.set_value(kEmpty(number)); }
  std::uint64_t number;
  mutable std::promise<std::uint64_t> result;  // oneTBB calls what is const
};

// `wait()` comes before the results are collected.
template <class Submit, class Wait>
double batch_of_promises(Submit submit, Wait wait) {
  std::vector<std::future<std::uint64_t>> results;
  results.reserve(kTasks);
  return rounds_of([&] {
    for (std::uint64_t i = 0; i < kTasks; ++i) {
      Promised task{i, {}};
      results.push_back(task.result.get_future());
      submit(std::move(task));
    }
    wait();
    for (std::uint64_t i = 0; i < kTasks; ++i)
      require(results[i].get() == i, "another result came back");
    results.clear();
  });
}

double batch_by_asio(int workers) {
  boost::asio::thread_pool pool(static_cast<std::size_t>(workers));
  const auto submit = [&](auto&& task) {
    boost::asio::post(pool, std::forward<decltype(task)>(task));
  };
  const Pinned pinned = pin_threads_apart(workers, submit);
  return batch_of_promises(submit, [] {});
}

// An arena of so many workers and the submitter. On two CPUs oneTBB starts one
// worker, unless it is allowed more.
struct Arena {
  explicit Arena(int workers)
      : allowed(tbb::global_control::max_allowed_parallelism,
                static_cast<std::size_t>(workers) + 1),
        arena(workers + 1),
        pinned(pin_threads_apart(workers,
                                 [&](auto task) { arena.enqueue(task); })) {}
  tbb::global_control allowed;
  tbb::task_arena arena;
  Pinned pinned;
};

double batch_by_enqueue(int workers) {
  Arena threads(workers);
  return batch_of_promises(
      [&](Promised&& task) { threads.arena.enqueue(std::move(task)); }, [] {});
}

// Who waits for a group runs its tasks.
double batch_by_group(int workers) {
  Arena threads(workers);
  return threads.arena.execute([] {
    tbb::task_group group;
    return batch_of_promises(
        [&](Promised&& task) { group.run(std::move(task)); },
        [&] { group.wait(); });
  });
}

// Nobody can wait for one task.
double batch_by_bare_group(int workers) {
  Arena threads(workers);
  return threads.arena.execute([] {
    tbb::task_group group;
    std::vector<std::uint64_t> results(kTasks);
    return rounds_of([&] {
      for (std::uint64_t i = 0; i < kTasks; ++i)
        group.run([&results, i] { results[i] = kEmpty(i); });
      group.wait();
      for (std::uint64_t i = 0; i < kTasks; ++i)
        require(std::exchange(results[i], kTasks) == i, "a task was not run");
    });
  });
}

}  // namespace

void add_threads() {
  for (const int workers : {1, 2})
    for (const auto& [peer, run] :
         {std::pair("pool", &batch<ThreadPool>),
          std::pair("tbb_enqueue", &batch_by_enqueue),
          std::pair("tbb_group", &batch_by_group),
          std::pair("tbb_bare_group", &batch_by_bare_group),
          std::pair("asio", &batch_by_asio)})
      add("threads_x" + std::to_string(workers) + '/' + peer, kTasks,
          [workers, run = run] {
            return measured_apart([&] { return std::vector{run(workers)}; })
                .front();
          });
}

void report_threads() {
  for (const std::string row : {"threads_x1", "threads_x2"}) {
    print_peers(row,
                {"pool", "tbb_enqueue", "tbb_group", "tbb_bare_group", "asio"});
    at_most("10,000 by ThreadPool, of oneTBB's better",
            ratio(row + "/pool", best_of(row, {"tbb_enqueue", "tbb_group"})),
            1);
  }
}

}  // namespace shoal::bench
