// What a Pool is made with: start methods, an initializer, workers that are
// replaced after so many tasks or for a death, deadlines, affinity, and the
// numbers that it tells of itself.

#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <exception>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "gtest/gtest.h"
#include "shoal/ipc/forkserver.h"
#include "shoal/ipc/pipe.h"
#include "shoal/ipc/process.h"
#include "shoal/ipc/queue.h"
#include "shoal/pool/pool.h"
#include "shoal/shared/array.h"
#include "shoal/shared/value.h"
#include "tests/support/child.h"
#include "tests/support/name.h"

namespace {

using namespace shoal;
using namespace shoal::support;
using namespace std::chrono_literals;

class PoolOptionsTest : public testing::TestWithParam<StartMethod> {
 protected:
  static PoolOptions options(int processes) {
    return {.processes = processes, .start_method = GetParam()};
  }
  // Its server lives as long as this process else.
  void TearDown() override { forkserver::stop(); }
};
INSTANTIATE_TEST_SUITE_P(Methods, PoolOptionsTest,
                         testing::Values(StartMethod::fork, StartMethod::spawn,
                                         StartMethod::forkserver),
                         [](const testing::TestParamInfo<StartMethod>& info)
                             -> std::string {
                           switch (info.param) {
                             case StartMethod::fork:
                               return "Fork";
                             case StartMethod::spawn:
                               return "Spawn";
                             case StartMethod::forkserver:
                               return "Forkserver";
                           }
                           return "?";
                         });

// The text that a BrokenPool has nested in it, with the type before it.
std::string nested_in(const std::exception& error) {
  try {
    std::rethrow_if_nested(error);
  } catch (const std::domain_error& nested) {
    return std::string("domain_error: ") + nested.what();
  } catch (...) {
    return "something else";
  }
  return "nothing";
}

// ---- where workers come from ----

TEST_P(PoolOptionsTest, RunsTasks) {
  Pool pool(options(2));
  EXPECT_EQ(pool.apply([](int x, const std::string& s) { return s.size() + x; },
                       3, "four"),
            7u);
  std::vector<int> numbers(1000);
  std::iota(numbers.begin(), numbers.end(), 0);
  const auto squares = pool.map([](int x) { return x * x; }, numbers);
  for (int x : numbers) ASSERT_EQ(squares[x], x * x);
  const std::string large(5 << 20, 'x');
  EXPECT_EQ(pool.apply([](const std::string& s) { return s + 'y'; }, large),
            large + 'y');
  EXPECT_EQ(pool.workers().size(), 2u);
  pool.close();
  EXPECT_TRUE(pool.join(10s));
}

// Made before and after it: a worker that was started anew has neither.
// Their parent is who has made the pool, whoever has forked them.
TEST_P(PoolOptionsTest, WorkersKnowWhoTheyAre) {
  Pool pool(options(1));
  EXPECT_EQ(pool.apply([] { return current_process().name; }), "PoolWorker-1");
  EXPECT_EQ(pool.apply([] { return current_process().pid; }),
            pool.workers().at(0));
  EXPECT_EQ(pool.apply([] { return parent_process().value().pid; }), getpid());
  EXPECT_EQ(pool.apply([] { return parent_process().value().name; }),
            current_process().name);
  EXPECT_TRUE(pool.apply([] { return parent_process().value().is_alive(); }));
  EXPECT_FALSE(parent_process().has_value()) << "the test's own";
}

// A process that a worker makes is what one of its owner's would be.
TEST_P(PoolOptionsTest, ProcessesOfWorkersAreAsTheirOwners) {
  Value<int> daemons(0);
  Process owner(
      ProcessOptions{.daemon = true},
      [](Value<int> count, StartMethod method) {
        Pool pool({.processes = 1, .start_method = method});
        count.fetch_add(
            pool.apply([] { return Process([] {}).daemon() ? 1 : 10; }));
        forkserver::stop();
      },
      daemons, GetParam());
  owner.start();
  owner.join();
  EXPECT_EQ(daemons.get(), 1);
}

TEST_P(PoolOptionsTest, HandlesTravel) {
  const Value<int> before(1);
  Pool pool(options(2));
  const Value<int> after(2);
  Array<int> array(1000);
  Queue<std::string> queue(4);
  pool.apply(
      [](Value<int> a, Value<int> b, Array<int> all, Queue<std::string> q) {
        a.fetch_add(10);
        b.fetch_add(10);
        std::ranges::fill(all, 7);
        q.put("here");
      },
      before, after, array, queue);
  EXPECT_EQ(before.get(), 11);
  EXPECT_EQ(after.get(), 12);
  EXPECT_EQ(std::ranges::count(array, 7), 1000);
  EXPECT_EQ(queue.get(10s), "here");
}

TEST_P(PoolOptionsTest, InitializerThatEndsTheWorkerIsNamed) {
  Pool pool(options(1), [] { _exit(9); });
  try {
    pool.apply([] {});
    FAIL() << "it ran";
  } catch (const BrokenPool& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("exited with code 9"), std::string::npos) << text;
    EXPECT_NE(text.find("initializer"), std::string::npos) << text;
  }
}

TEST_P(PoolOptionsTest, ForEachOfAReadOnlyArrayIsRefused) {
  const support::Name name("read_only");
  const auto array = Array<int>::create(name, {1, 2, 3});
  Pool pool(options(1));
  const auto twice = [](int& x) { x *= 2; };
  auto seen = Array<int>::open(name, {.read_only = true});
  EXPECT_THROW(pool.for_each(seen, twice), std::logic_error);
  EXPECT_THROW(pool.for_each(std::span(seen.data(), 2), twice),
               std::logic_error);
  pool.for_each(array, twice);
  EXPECT_EQ(array[2], 6);
}

TEST_P(PoolOptionsTest, AKilledWorkerIsReplaced) {
  Pool pool(options(2));
  auto dies = pool.apply_async([] { raise(SIGKILL); });
  try {
    dies.get(10s);
    FAIL() << "survived";
  } catch (const WorkerDied& error) {
    EXPECT_EQ(error.exitcode(), -SIGKILL);
  }
  // The dead one may still stand among workers() until the nursery has seen it.
  EXPECT_TRUE(eventually([&] { return pool.stats().replaced == 1; }));
  EXPECT_EQ(pool.workers().size(), 2u);
  EXPECT_EQ(pool.apply([](int x) { return x + 1; }, 1), 2);
}

TEST_P(PoolOptionsTest, TerminateIsBounded) {
  Pool pool(options(2));
  auto sleeps = pool.apply_async([] { pause(); });
  ASSERT_TRUE(eventually([&] { return pool.stats().running == 1; }));
  const auto workers = pool.workers();
  pool.terminate();
  EXPECT_THROW(sleeps.get(0s), Cancelled);
  EXPECT_TRUE(pool.join(10s));
  for (const pid_t pid : workers) EXPECT_EQ(kill(pid, 0), -1);
}

// ---- the initializer ----

int prepared = 0;
void prepare(int number, Value<int> times) {
  prepared = number;
  times.fetch_add(1);
}

TEST_P(PoolOptionsTest, InitializerRunsOnceInEachWorker) {
  const Value<int> times(0);
  PoolOptions chosen = options(3);
  chosen.maxtasksperchild = 2;
  Pool pool(chosen, &prepare, 42, times);
  for (int n = 0; n < 20; ++n)
    ASSERT_EQ(pool.apply([] { return prepared; }), 42);
  // Also in each replacement.
  EXPECT_TRUE(eventually([&] {
    return static_cast<std::uint64_t>(times.get()) == 3 + pool.stats().replaced;
  }));
  EXPECT_GE(pool.stats().replaced, 7u);
  EXPECT_EQ(prepared, 0);
}

TEST_P(PoolOptionsTest, InitializerThatThrowsBreaksThePool) {
  const Value<int> times(0);
  Pool pool(
      options(2),
      [](Value<int> counted) {
        counted.fetch_add(1);
        throw std::domain_error("no database");
      },
      times);
  for (int n = 0; n < 3; ++n) {
    try {
      pool.apply([] {});
      FAIL() << "it ran";
    } catch (const BrokenPool& error) {
      EXPECT_NE(std::string_view(error.what()).find("no database"),
                std::string_view::npos)
          << error.what();
      EXPECT_EQ(nested_in(error), "domain_error: no database");
    }
  }
  EXPECT_LE(times.get(), 2);  // no respawn storm
  pool.terminate();
  EXPECT_TRUE(pool.join(10s));
}

TEST(PoolOptions, InitializerMustTravelToAnotherProgram) {
  int local = 0;
  // A fork takes any.
  {
    const Pool pool(1, [&local] { ++local; });
  }
  EXPECT_THROW(
      Pool(PoolOptions{.processes = 1, .start_method = StartMethod::spawn},
           [&local] { ++local; }),
      std::invalid_argument);
}

// ---- replacement ----

TEST_P(PoolOptionsTest, MaxTasksPerChild) {
  PoolOptions chosen = options(2);
  chosen.maxtasksperchild = 3;
  Pool pool(chosen);
  std::vector<AsyncResult<pid_t>> results;
  for (int n = 0; n < 30; ++n)
    results.push_back(pool.apply_async([] { return getpid(); }));
  pool.close();
  EXPECT_TRUE(pool.join(20s));
  std::map<pid_t, int> tasks;
  for (auto& result : results) ++tasks[result.get()];
  for (const auto& [pid, count] : tasks) EXPECT_LE(count, 3);
  EXPECT_GE(tasks.size(), 10u);
}

// A chunk is one task.
TEST(PoolOptions, MaxTasksPerChildCountsChunks) {
  Pool pool({.processes = 1, .maxtasksperchild = 1});
  const std::vector<int> items(12);
  const auto pids = pool.map([](int) { return getpid(); }, items, 4);
  EXPECT_EQ(std::set(pids.begin(), pids.end()).size(), 3u);
}

TEST_P(PoolOptionsTest, RetryUntilItLives) {
  PoolOptions chosen = options(2);
  chosen.on_worker_death = retry(3);
  Pool pool(chosen);
  const auto dies_twice = [](int x) {
    if (this_task::attempt() < 2) raise(SIGKILL);
    return static_cast<int>(100 * this_task::attempt()) + x;
  };
  EXPECT_EQ(pool.apply(dies_twice, 7), 207);
  EXPECT_EQ(pool.stats().retried, 2u);
  EXPECT_EQ(pool.apply([] { return this_task::attempt(); }), 0u);
  const auto all = pool.map(dies_twice, std::vector{1, 2, 3, 4});
  EXPECT_EQ(all, (std::vector{201, 202, 203, 204}));
}

// The dead worker had the Value already, and took none of its descriptors.
TEST_P(PoolOptionsTest, RetryKeepsHandles) {
  PoolOptions chosen = options(1);
  chosen.on_worker_death = retry(2);
  Pool pool(chosen);
  Value<int> value(0);
  pool.apply(
      [](Value<int> given) {
        static std::optional<Value<int>> kept;
        kept.emplace(given);
      },
      value);
  pool.apply(
      [](Value<int> given) {
        if (given.fetch_add(1) < 2) raise(SIGKILL);
      },
      value);
  EXPECT_EQ(value.get(), 3);
}

// An end of a Pipe goes with the worker that has it.
TEST_P(PoolOptionsTest, WhatCannotBeRetriedIsWorkerDied) {
  PoolOptions chosen = options(1);
  chosen.on_worker_death = retry(2);
  Pool pool(chosen);
  auto [kept, given] = Pipe();
  try {
    pool.apply(
        [](Connection& end) {
          end.send(getpid());
          _exit(3);
        },
        std::move(given));
    FAIL() << "survived";
  } catch (const WorkerDied& error) {
    EXPECT_EQ(error.pid(), kept.recv<pid_t>(10s));
    EXPECT_EQ(error.exitcode(), 3);
  }
  EXPECT_EQ(pool.stats().failed, 1u);
  EXPECT_EQ(pool.apply([] { return 5; }), 5);
}

TEST_P(PoolOptionsTest, RetryHasAnEnd) {
  PoolOptions chosen = options(1);
  chosen.on_worker_death = retry(2);
  const Value<int> runs(0);
  Pool pool(chosen);
  EXPECT_THROW(pool.apply(
                   [](Value<int> counted) {
                     counted.fetch_add(1);
                     _exit(3);
                   },
                   runs),
               WorkerDied);
  EXPECT_EQ(runs.get(), 3);
  // An exception is a result.
  EXPECT_THROW(pool.apply([]() -> int { throw std::domain_error("no"); }),
               std::domain_error);
  const PoolStats stats = pool.stats();
  EXPECT_EQ(stats.retried, 2u);
  EXPECT_EQ(stats.failed, 2u);
}

// The last task of a closed pool, whose other worker has gone.
TEST(PoolOptions, RetryWhileThePoolDrains) {
  Pool pool({.processes = 2, .on_worker_death = retry(5)});
  auto result = pool.apply_async([] {
    if (this_task::attempt() < 5) raise(SIGKILL);
    return 5;
  });
  pool.close();
  EXPECT_TRUE(pool.join(10s));
  EXPECT_EQ(result.get(0s), 5);
}

TEST_P(PoolOptionsTest, BreakPool) {
  PoolOptions chosen = options(2);
  chosen.on_worker_death = break_pool;
  Pool pool(chosen);
  auto innocent = pool.apply_async([] { pause(); });
  auto dies = pool.apply_async([] { _exit(9); });
  EXPECT_THROW(dies.get(10s), WorkerDied);
  try {
    innocent.get(10s);
    FAIL() << "it ran";
  } catch (const BrokenPool& error) {
    EXPECT_NE(std::string_view(error.what()).find("code 9"),
              std::string_view::npos)
        << error.what();
  }
  EXPECT_THROW(pool.apply([] {}), BrokenPool);
  EXPECT_TRUE(eventually([&] { return pool.workers().empty(); }));
}

TEST_P(PoolOptionsTest, TaskDeadline) {
  PoolOptions chosen = options(2);
  chosen.task_deadline = 100ms;
  chosen.on_worker_death = retry(3);
  Pool pool(chosen);
  std::vector<AsyncResult<int>> quick;
  auto endless = pool.apply_async([] { pause(); });
  for (int n = 0; n < 100; ++n)
    quick.push_back(pool.apply_async([](int x) { return x; }, n));
  try {
    endless.get(10s);
    FAIL() << "it ended";
  } catch (const WorkerDied& error) {
    EXPECT_EQ(error.exitcode(), -SIGKILL);
    EXPECT_NE(std::string_view(error.what()).find("task_deadline"),
              std::string_view::npos);
  }
  for (int n = 0; n < 100; ++n) EXPECT_EQ(quick[n].get(10s), n);
  EXPECT_EQ(pool.stats().retried, 0u);
  EXPECT_TRUE(eventually([&] { return pool.workers().size() == 2; }));
}

// Tasks that end just before the deadline lose nobody else's. It is a long one,
// for which no short task waits for a processor.
TEST(PoolOptions, TaskDeadlineHitsOnlyTheOverdue) {
  Pool pool({.processes = 2, .task_deadline = 150ms});
  std::vector<AsyncResult<int>> results;
  for (int n = 0; n < 60; ++n)
    results.push_back(pool.apply_async(
        [](int x) {
          const auto until = std::chrono::steady_clock::now() +
                             (x % 2 == 0 ? 149500us : 100us);
          while (std::chrono::steady_clock::now() < until) {
          }
          return x;
        },
        n));
  for (int n = 0; n < 60; ++n) {
    if (n % 2 == 0) {
      try {
        EXPECT_EQ(results[n].get(20s), n);
      } catch (const WorkerDied&) {
        // It was held up beyond its time.
      }
    } else {
      EXPECT_EQ(results[n].get(20s), n);
    }
  }
}

// ---- the rest ----

TEST(PoolOptions, Affinity) {
  cpu_set_t allowed;
  ASSERT_EQ(sched_getaffinity(0, sizeof allowed, &allowed), 0);
  std::vector<int> cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
    if (CPU_ISSET(cpu, &allowed)) cpus.push_back(cpu);
  Pool pool({.processes = 3, .affinity = cpus});
  for (int n = 0; n < 20; ++n) {
    const auto mine = pool.apply([] {
      std::vector<int> found;
      cpu_set_t set;
      sched_getaffinity(0, sizeof set, &set);
      for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
        if (CPU_ISSET(cpu, &set)) found.push_back(cpu);
      return found;
    });
    ASSERT_EQ(mine.size(), 1u);
    EXPECT_EQ(std::ranges::count(cpus, mine[0]), 1);
  }
}

TEST(PoolOptions, WorkersIgnoreCtrlCIfAsked) {
  const auto interrupt = [](Pool& pool) {
    auto result = pool.apply_async([] {
      raise(SIGINT);
      return 1;
    });
    return result.get(10s);
  };
  Pool deaf({.processes = 1});
  EXPECT_EQ(interrupt(deaf), 1);
  Pool open({.processes = 1, .ignore_sigint = false});
  try {
    interrupt(open);
    FAIL() << "ignored";
  } catch (const WorkerDied& error) {
    EXPECT_EQ(error.exitcode(), -SIGINT);
  }
}

TEST(PoolOptions, BadOnesAreNamed) {
  const auto text = [](const PoolOptions& options) -> std::string {
    try {
      const Pool pool(options);
    } catch (const std::invalid_argument& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_NE(text({.processes = 0}).find("0 processes"), std::string::npos);
  EXPECT_NE(text({.maxtasksperchild = -1}).find("maxtasksperchild -1"),
            std::string::npos);
  EXPECT_NE(text({.task_deadline = 0s}).find("task_deadline"),
            std::string::npos);
  EXPECT_NE(text({.affinity = {4321}}).find("CPU 4321"), std::string::npos);
  EXPECT_THROW(retry(-1), std::invalid_argument);
}

TEST(PoolOptions, Stats) {
  Pool pool(2);
  const PoolStats before = pool.stats();
  EXPECT_EQ(before.queued + before.running + before.done + before.failed, 0u);
  Value<int> gate(0);
  std::vector<AsyncResult<void>> held;
  for (int n = 0; n < 5; ++n)
    held.push_back(pool.apply_async(
        [](Value<int> open) {
          if (!eventually([&] { return open.get() != 0; })) _exit(1);
        },
        gate));
  ASSERT_TRUE(eventually([&] { return pool.stats().running == 2; }));
  EXPECT_EQ(pool.stats().queued, 3u);
  EXPECT_TRUE(held.back().cancel());
  EXPECT_EQ(pool.stats().queued, 2u);
  gate.set(1);
  for (int n = 0; n < 4; ++n) held[n].get(10s);
  EXPECT_THROW(pool.apply([]() -> int { throw std::domain_error("no"); }),
               std::domain_error);
  EXPECT_THROW(pool.apply([] { raise(SIGKILL); }), WorkerDied);
  ASSERT_TRUE(eventually([&] { return pool.stats().replaced == 1; }));
  ASSERT_TRUE(eventually([&] { return pool.stats().running == 0; }));
  const PoolStats after = pool.stats();
  EXPECT_EQ(after.done, 4u);
  EXPECT_EQ(after.failed, 2u);
  EXPECT_EQ(after.queued, 0u);
  ASSERT_EQ(after.busy.size(), 2u);
}

// No worker is busy.
bool comes_to_rest(Pool& pool) {
  return eventually([&] {
    const auto before = pool.stats().busy;
    const auto after = pool.stats().busy;
    return before == after;
  });
}

// Busy is who runs a task; who waits for one is not.
TEST(PoolOptions, BusyTime) {
  Pool pool(1);
  const auto begin = std::chrono::steady_clock::now();
  pool.apply([] {
    const auto until = std::chrono::steady_clock::now() + 100ms;
    while (std::chrono::steady_clock::now() < until) {
    }
  });
  const auto busy = pool.stats().busy.at(0);
  const auto passed = std::chrono::steady_clock::now() - begin;
  EXPECT_GE(busy, 99ms);
  EXPECT_LE(busy, passed + 20ms);
  EXPECT_TRUE(comes_to_rest(pool));
}

// Two that race for each task: who is late is as idle as before.
TEST(PoolOptions, BusyTimeOfTheLateWorker) {
  Pool pool(2);
  for (int burst = 0; burst < 100; ++burst) {
    for (int i = 0; i < 2000; ++i) pool.apply([] {});
    ASSERT_TRUE(comes_to_rest(pool)) << burst;
  }
}

}  // namespace
