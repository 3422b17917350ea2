// Who may die, when, and how: workers, the nursery, the owner, forked copies
// of it; and what is left afterwards.

#include <fcntl.h>
#include <link.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shoal/ipc/forkserver.h"
#include "shoal/ipc/liveness.h"
#include "shoal/ipc/pidfd.h"
#include "shoal/ipc/process.h"
#include "shoal/pool/pool.h"
#include "shoal/shared/value.h"
#include "tests/pool/scene.h"
#include "tests/support/child.h"
#include "tests/support/formatting.h"
#include "tests/support/orphans.h"
#include "tests/support/residue.h"
#include "tests/support/thread.h"

namespace {

using namespace shoal;
using namespace shoal::support;
using namespace std::chrono_literals;
using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

int seven() { return 7; }

// A sanitizer would handle these itself; nobody needs the core.
void crash(int number) {
  const rlimit none = {0, 0};
  setrlimit(RLIMIT_CORE, &none);
  signal(number, SIG_DFL);
  raise(number);
}

double seconds(const std::function<void()>& what) {
  const auto start = std::chrono::steady_clock::now();
  what();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
      .count();
}

// ---- a task that ends its worker ----

struct End {
  const char* name;
  int exitcode;
  void (*how)();
};
void PrintTo(const End& end, std::ostream* out) { *out << end.name; }

class PoolWorkerEnds : public PoolScene,
                       public testing::WithParamInterface<End> {
 protected:
  Pool pool{2};
};

TEST_P(PoolWorkerEnds, CostsThatTaskOnly) {
  auto before = pool.apply_async(&seven);
  before.wait();
  const auto workers = pool.workers();
  auto dies = pool.apply_async(GetParam().how);
  std::vector<AsyncResult<int>> others;
  for (int i = 0; i < 50; ++i)
    others.push_back(pool.apply_async([i] { return i; }));
  std::optional<WorkerDied> died;
  EXPECT_LT(seconds([&] {
              try {
                dies.get(kPatience);
              } catch (const WorkerDied& error) {
                died.emplace(error);
              }
            }),
            1);
  ASSERT_TRUE(died.has_value());
  EXPECT_THAT(workers, Contains(died->pid()));
  EXPECT_EQ(died->exitcode(), GetParam().exitcode);
  EXPECT_EQ(died->task(), 2u);
  EXPECT_THAT(died->what(), HasSubstr(std::to_string(died->pid())));
  EXPECT_THAT(died->what(), HasSubstr("task 2"));
  EXPECT_THAT(died->what(),
              HasSubstr(GetParam().exitcode < 0
                            ? "signal " + std::to_string(-GetParam().exitcode)
                            : "code " + std::to_string(GetParam().exitcode)));
  for (int i = 0; i < 50; ++i)
    EXPECT_EQ(others[static_cast<std::size_t>(i)].get(kPatience), i);
  EXPECT_TRUE(back_to_size(pool));
  EXPECT_THAT(pool.workers(), Not(Contains(died->pid())));
  EXPECT_THROW(dies.get(), WorkerDied) << "again";
  EXPECT_TRUE(dies.ready());
  EXPECT_FALSE(dies.successful());
  EXPECT_EQ(pool.apply(&seven), 7);
  EXPECT_EQ(blocks_of(pool), 0u);
}

INSTANTIATE_TEST_SUITE_P(
    , PoolWorkerEnds,
    testing::Values(End{"Exit3", 3, [] { exit(3); }},
                    End{"Exit0", 0, [] { exit(0); }},
                    End{"QuickExit4", 4, [] { quick_exit(4); }},
                    End{"UnderscoreExit5", 5, [] { _exit(5); }},
                    End{"Abort", -SIGABRT, [] { crash(SIGABRT); }},
                    End{"Segv", -SIGSEGV, [] { crash(SIGSEGV); }},
                    End{"Kill", -SIGKILL, [] { raise(SIGKILL); }},
                    End{"Term", -SIGTERM, [] { raise(SIGTERM); }},
                    End{"PthreadExit", 0, [] { pthread_exit(nullptr); }}),
    [](const auto& info) { return info.param.name; });

class PoolDeath : public PoolScene {};

TEST_F(PoolDeath, OtherChunksOfAMapComplete) {
  Pool pool(2);
  auto map = pool.map_async(
      [](int i) {
        if (i == 5) _exit(9);
        ++marks->ran;
        return i;
      },
      {0, 1, 2, 3, 4, 5, 6, 7}, 1);
  try {
    map.get(kPatience);
    FAIL();
  } catch (const WorkerDied& died) {
    EXPECT_EQ(died.exitcode(), 9);
    EXPECT_EQ(died.task(), 6u);
  }
  EXPECT_EQ(marks->ran, 7);
}

TEST_F(PoolDeath, WithLargeArgumentsAndAHalfMadeResultLeavesNoBlock) {
  Pool pool(2);
  for (int n = 0; n < 30; ++n)
    EXPECT_THROW(pool.apply(
                     [](const std::string& s) {
                       raise(SIGKILL);
                       return s;
                     },
                     std::string(100'000, 'x')),
                 WorkerDied);
  EXPECT_TRUE(back_to_size(pool));
  EXPECT_EQ(blocks_of(pool), 0u);
}

TEST_F(PoolDeath, StormOfTasksThatAllDie) {
  Pool pool(2);
  std::vector<AsyncResult<void>> all;
  for (int i = 0; i < 100; ++i)
    all.push_back(pool.apply_async([] { raise(SIGKILL); }));
  std::set<pid_t> pids;
  for (std::size_t i = 0; i < all.size(); ++i) {
    try {
      all[i].get(kPatience);
      FAIL();
    } catch (const WorkerDied& died) {
      EXPECT_EQ(died.exitcode(), -SIGKILL);
      EXPECT_EQ(died.task(), i + 1);
      pids.insert(died.pid());
    }
  }
  EXPECT_EQ(pids.size(), 100u) << "each by its own worker";
  EXPECT_TRUE(back_to_size(pool));
  for (int i = 0; i < 100; ++i) ASSERT_EQ(pool.apply(&seven), 7);
  EXPECT_EQ(blocks_of(pool), 0u);
}

// CPython hangs here.
TEST_F(PoolDeath, AllIdleWorkersKilled) {
  Pool pool(2);
  for (int round = 0; round < 20; ++round) {
    ASSERT_TRUE(back_to_size(pool));
    const auto before = pool.workers();
    Watch watch(before);
    for (const pid_t pid : before) kill(pid, SIGKILL);
    EXPECT_EQ(pool.apply_async(&seven).get(kPatience), 7);
    EXPECT_TRUE(watch.all_end());
    ASSERT_TRUE(eventually([&] {
      const auto after = pool.workers();
      return std::none_of(before.begin(), before.end(), [&](pid_t pid) {
        return std::count(after.begin(), after.end(), pid) != 0;
      });
    }));
  }
  for (const pid_t pid : pool.workers()) kill(pid, SIGKILL);
  EXPECT_LT(seconds([&] {
              pool.terminate();
              pool.join();
            }),
            2);
}

TEST_F(PoolDeath, IdleWorkersKilledJustBeforeTheEnd) {
  for (int round = 0; round < 20; ++round) {
    Pool pool(3);
    for (const pid_t pid : pool.workers()) kill(pid, SIGKILL);
    if (round % 2 == 0) {
      pool.close();
      EXPECT_TRUE(pool.join(kPatience));
    }
  }
}

TEST_F(PoolDeath, WorkersKilledWhileThePoolCloses) {
  for (int round = 0; round < 10; ++round) {
    marks->ran = 0;
    Pool pool(2);
    std::vector<AsyncResult<int>> all;
    for (int i = 0; i < 5000; ++i)
      all.push_back(pool.apply_async([i] {
        ++marks->ran;
        return i;
      }));
    pool.close();
    std::set<pid_t> killed;
    for (int n = 0; n < 5; ++n)
      for (const pid_t pid : pool.workers())
        if (killed.insert(pid).second) kill(pid, SIGKILL);
    ASSERT_TRUE(pool.join(kPatience));
    int died = 0;
    for (int i = 0; i < 5000; ++i) {
      auto& result = all[static_cast<std::size_t>(i)];
      ASSERT_TRUE(result.ready());
      try {
        EXPECT_EQ(result.get(now), i);
      } catch (const WorkerDied& error) {
        EXPECT_THAT(killed, Contains(error.pid()));
        ++died;
      }
    }
    EXPECT_LE(died, static_cast<int>(killed.size()));
    EXPECT_GE(marks->ran, 5000 - died);
    EXPECT_LE(marks->ran, 5000);
    EXPECT_EQ(blocks_of(pool), 0u);
  }
}

// Killed at any moment, for some seconds: every task completes once.
TEST_F(PoolDeath, RandomKills) {
  Pool pool(3);
  std::atomic<bool> stop{false};
  std::atomic<int> kills{0};
  Thread killer([&] {
    unsigned seed = 7;
    while (!stop) {
      const auto workers = pool.workers();
      if (workers.empty()) continue;
      seed = seed * 1103515245 + 12345;
      const pid_t pid = workers[seed / 65536 % workers.size()];
      // Not one that has not come up: those break the pool, as they should.
      for (std::uint32_t slot = 0; slot < 3; ++slot) {
        const auto& state = memory_of(pool).slot(slot);
        if (state.pid.load() == static_cast<std::uint32_t>(pid) &&
            state.ready.load() != 0) {
          kill(pid, SIGKILL);
          ++kills;
        }
      }
      for (unsigned n = seed / 65536 % 40; n > 0; --n) yield_cpu();
    }
  });
  const auto start = std::chrono::steady_clock::now();
  int values = 0;
  int died = 0;
  while (std::chrono::steady_clock::now() - start < 3s) {
    std::vector<AsyncResult<std::string>> all;
    for (int i = 0; i < 200; ++i)
      all.push_back(pool.apply_async(
          [i](const std::string& s) { return s + std::to_string(i); },
          std::string(static_cast<std::size_t>(i * 10), 's')));
    for (int i = 0; i < 200; ++i) {
      try {
        ASSERT_EQ(all[static_cast<std::size_t>(i)].get(kPatience),
                  std::string(static_cast<std::size_t>(i * 10), 's') +
                      std::to_string(i));
        ++values;
      } catch (const WorkerDied&) {
        ++died;
      }
    }
  }
  stop = true;
  ASSERT_TRUE(killer.ends());
  EXPECT_TRUE(back_to_size(pool));
  EXPECT_EQ(blocks_of(pool), 0u);
  EXPECT_GT(died, 0);
  EXPECT_GT(values, died);
  EXPECT_LE(died, kills);
  RecordProperty("kills", kills);
  RecordProperty("died", died);
}

TEST_F(PoolDeath, ExitRunsNoHandlerOfTheParent) {
  static pid_t parent;
  static Marks* seen;
  parent = getpid();
  seen = marks;
  Child child([&](Child& self) {
    parent = getpid();
    atexit([] { ++seen->of[getpid() == parent ? 1 : 2]; });
    struct Local {
      ~Local() { ++seen->of[getpid() == parent ? 3 : 4]; }
    };
    static Local local;
    Pool pool(2);
    for (int n = 0; n < 3; ++n) {
      try {
        pool.apply([] {
          atexit([] { ++seen->of[5]; });
          exit(3);
        });
        self.expect(false, "no error");
      } catch (const WorkerDied& died) {
        self.expect(died.exitcode() == 3, "exit code");
      }
    }
    pool.close();  // workers that drain end by exit(), too
    pool.join();
    if (self.failures().empty()) exit(0);
  });
  EXPECT_EQ(child.join(), 0) << child.failures();
  EXPECT_EQ(seen->of[1], 1) << "the parent's own";
  EXPECT_EQ(seen->of[2], 0) << "the parent's, in a worker";
  EXPECT_EQ(seen->of[3], 1);
  EXPECT_EQ(seen->of[4], 0);
  EXPECT_EQ(seen->of[5], 3) << "what the task registered";
}

// ---- stopped is not dead ----

TEST_F(PoolDeath, StoppedWorkerDelaysItsOwnTaskOnly) {
  Pool pool(2);
  auto slow = pool.apply_async([] {
    marks->of[0] = getpid();
    return wait_at_gate();
  });
  ASSERT_TRUE(started(1));
  const pid_t stopped = marks->of[0];
  kill(stopped, SIGSTOP);
  marks->gate = 1;
  for (int i = 0; i < 200; ++i) {
    auto result = pool.apply_async(&getpid);
    ASSERT_NE(result.get(kPatience), stopped);
  }
  EXPECT_FALSE(slow.ready());
  EXPECT_FALSE(slow.cancel());
  kill(stopped, SIGCONT);
  EXPECT_EQ(slow.get(kPatience), 1);
  EXPECT_THAT(pool.workers(), Contains(stopped));
}

TEST_F(PoolDeath, StoppedIdleWorkerHidesNoTask) {
  Pool pool(2);
  const pid_t stopped = pool.workers()[0];
  ASSERT_TRUE(falls_asleep(stopped, stopped));
  kill(stopped, SIGSTOP);
  for (int i = 0; i < 50; ++i)
    ASSERT_NE(pool.apply_async(&getpid).get(kPatience), stopped);
  kill(stopped, SIGCONT);
  EXPECT_TRUE(back_to_size(pool));
}

TEST_F(PoolDeath, StoppedWorkersDoNotHoldUpTheEnd) {
  const double took = seconds([] {
    Pool pool(2);
    for (const pid_t pid : pool.workers()) kill(pid, SIGSTOP);
  });
  EXPECT_LT(took, 3);
}

// ---- the end of the pool is bounded ----

TEST_F(PoolDeath, DestructorEndsTasksThatIgnoreIt) {
  std::optional<Pool> pool(2);
  const Watch watch(processes_of(*pool));
  for (int n = 0; n < 2; ++n)
    static_cast<void>(pool->apply_async([] {
      signal(SIGTERM, SIG_IGN);
      ++marks->started;
      for (;;) pause();
    }));
  ASSERT_TRUE(started(2));
  EXPECT_LT(seconds([&] { pool.reset(); }), 3);
  EXPECT_TRUE(watch.all_end());
}

TEST_F(PoolDeath, DestructorEndsRunningTasksAtOnce) {
  std::optional<Pool> pool(2);
  const Watch watch(processes_of(*pool));
  for (int n = 0; n < 2; ++n)
    static_cast<void>(pool->apply_async(&wait_at_gate));
  ASSERT_TRUE(started(2));
  EXPECT_LT(seconds([&] { pool.reset(); }), 0.9) << "not by SIGKILL";
  EXPECT_TRUE(watch.all_end());
}

TEST_F(PoolDeath, TasksMayHandleTheSignal) {
  Pool pool(1);
  auto task = pool.apply_async([] {
    signal(SIGTERM, [](int) {
      marks->of[0] = 1;
      _exit(0);
    });
    return wait_at_gate();
  });
  ASSERT_TRUE(started(1));
  pool.terminate();
  pool.join();
  EXPECT_EQ(marks->of[0], 1);
}

// ---- the nursery ----

TEST_F(PoolDeath, NurseryKilledBreaksThePool) {
  std::optional<Pool> pool(2);
  const Watch watch(processes_of(*pool));
  std::vector<AsyncResult<int>> running;
  for (int n = 0; n < 2; ++n)
    running.push_back(pool->apply_async(&wait_at_gate));
  ASSERT_TRUE(started(2));
  auto queued = pool->apply_async(&seven);
  Thread waiter([&] { EXPECT_THROW(queued.get(kPatience), BrokenPool); });
  ASSERT_TRUE(waiter.falls_asleep());
  const pid_t nursery = nursery_of(*pool);
  kill(nursery, SIGKILL);
  EXPECT_TRUE(waiter.ends());
  for (auto& result : running) {
    EXPECT_THROW(result.get(kPatience), BrokenPool);
    EXPECT_TRUE(result.ready());
    EXPECT_FALSE(result.successful());
  }
  EXPECT_TRUE(watch.all_end());
  try {
    pool->apply_async(&seven).get(kPatience);
    FAIL();
  } catch (const BrokenPool& error) {
    EXPECT_THAT(error.what(), HasSubstr(std::to_string(nursery)));
  }
  EXPECT_THROW(pool->map([](int x) { return x; }, {1, 2}), BrokenPool);
  EXPECT_THAT(pool->workers(), IsEmpty());
  EXPECT_LT(seconds([&] { pool.reset(); }), 1);
}

TEST_F(PoolDeath, NurseryKilledWhileIdle) {
  Pool pool(2);
  const Watch watch(processes_of(pool));
  auto done = pool.apply_async(&seven);
  EXPECT_EQ(done.get(), 7);
  kill(nursery_of(pool), SIGKILL);
  EXPECT_TRUE(watch.all_end());
  EXPECT_EQ(done.get(), 7) << "what is done stays done";
  EXPECT_THROW(pool.apply(&seven), BrokenPool);
  EXPECT_THROW(pool.apply(&seven), BrokenPool);
  pool.close();
  EXPECT_TRUE(pool.join(kPatience));
}

TEST_F(PoolDeath, NurseryKilledBeforeClose) {
  Pool pool(2);
  auto running = pool.apply_async(&wait_at_gate);
  ASSERT_TRUE(started(1));
  const Watch watch(processes_of(pool));
  pool.close();
  kill(nursery_of(pool), SIGKILL);
  EXPECT_TRUE(pool.join(kPatience));
  EXPECT_THROW(running.get(now), BrokenPool);
  EXPECT_TRUE(watch.all_end());
}

// At any moment from its fork until its workers answer.
TEST_F(PoolDeath, NurseryKilledWhileItStarts) {
  const support::Orphans orphans;
  constexpr int kRounds = 60;
  std::mt19937 random(7);
  double whole = 1;
  for (int n = 0; n < 5; ++n)
    whole = std::min(whole, seconds([] { Pool(2).apply(&seven); }));
  std::uniform_real_distribution<double> moment(0, whole);
  int broken = 0;
  for (int round = 0; round < kRounds; ++round) {
    Pool pool(2);
    auto result = pool.apply_async(&seven);
    const double until = round == 0 ? 0 : moment(random);
    const auto start = std::chrono::steady_clock::now();
    while (
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
            .count() < until)
      support::yield_cpu();
    kill(nursery_of(pool), SIGKILL);
    try {
      EXPECT_EQ(result.get(kPatience), 7);
    } catch (const BrokenPool&) {
      ++broken;
    }
    // Workers outlive it by a moment, and answer.
    EXPECT_TRUE(eventually([&] {
      try {
        return pool.apply(&seven) != 7;
      } catch (const BrokenPool&) {
        return true;
      }
    }));
    EXPECT_THAT(pool.workers(), IsEmpty());
  }
  EXPECT_GT(broken, 0);
  EXPECT_TRUE(orphans.all_end());
}

// Every task is in one of the numbers, and none is queued or runs any more.
TEST_F(PoolDeath, NumbersOfAPoolThatHasEnded) {
  const auto start = [](Pool& pool) {
    marks->started = 0;
    for (int n = 0; n < 2; ++n) pool.apply_async(&wait_at_gate);
    EXPECT_TRUE(started(2));
    pool.map_async([](int x) { return x; }, {1, 2, 3}, 1);
    EXPECT_EQ(pool.stats().running, 2u);
    EXPECT_EQ(pool.stats().queued, 3u);
  };
  const auto expect_rest = [](Pool& pool, std::uint64_t failed) {
    const PoolStats stats = pool.stats();
    EXPECT_EQ(stats.queued, 0u);
    EXPECT_EQ(stats.running, 0u);
    EXPECT_EQ(stats.done, 0u);
    EXPECT_EQ(stats.failed, failed);
  };
  Pool terminated(2);
  start(terminated);
  terminated.terminate();
  expect_rest(terminated, 0);
  terminated.join();
  expect_rest(terminated, 0);

  Pool orphaned(2);
  start(orphaned);
  kill(nursery_of(orphaned), SIGKILL);
  EXPECT_TRUE(eventually([&] { return orphaned.stats().running == 0; }));
  expect_rest(orphaned, 5);

  Pool broken({.processes = 2, .on_worker_death = break_pool});
  start(broken);
  auto next = broken.apply_async(&seven);
  kill(broken.workers().at(0), SIGKILL);
  EXPECT_THROW(next.get(kPatience), BrokenPool);
  EXPECT_TRUE(eventually([&] { return broken.stats().failed == 6; }));
  expect_rest(broken, 6);
}

// Who has a result finds no worker at work on it.
TEST_F(PoolDeath, ATaskThatIsDoneDoesNotRun) {
  Pool pool(2);
  for (int n = 0; n < 3000; ++n) {
    pool.apply(&seven);
    ASSERT_EQ(pool.stats().running, 0u) << n;
  }
}

// Workers that die before they can work are not replaced for ever.
TEST_F(PoolDeath, WorkersThatCannotStartBreakThePool) {
  Child child([](Child& self) {
    // All seats but one, which the nursery will have, are taken.
    auto& domain = *liveness::Domain::tree();
    domain.seat();
    std::atomic<bool> done{false};
    std::vector<std::thread> threads;
    for (std::uint32_t taken = domain.seats_taken();
         taken < liveness::kSeats - 1; ++taken)
      threads.emplace_back([&] {
        domain.seat();
        while (!done) done.wait(false);
      });
    self.expect(eventually([&] {
                  return domain.seats_taken() == liveness::kSeats - 1;
                }),
                "all seated");
    // Workers complain; this is about what the parent is told.
    const int null = open("/dev/null", O_WRONLY);
    dup2(null, STDERR_FILENO);
    try {
      Pool pool(2);
      try {
        pool.apply_async(&seven).get(kPatience);
        self.expect(false, "no error");
      } catch (const BrokenPool& error) {
        self.expect(std::string(error.what()).find("before they reach") !=
                        std::string::npos,
                    error.what());
      }
      self.expect(eventually([&] { return pool.workers().empty(); }),
                  "no worker left");
    } catch (const std::exception& error) {
      self.expect(false, error.what());
    }
    done = true;
    done.notify_all();
    for (auto& thread : threads) thread.join();
  });
  EXPECT_EQ(child.join(), 0) << child.failures();
}

// The first task of each pool by fork, for so long, whatever else goes on.
void run_first_tasks(std::chrono::milliseconds time) {
  const auto end = std::chrono::steady_clock::now() + time;
  for (int n = 0; n < 20 || std::chrono::steady_clock::now() < end; ++n) {
    Pool pool(2);
    auto result = pool.apply_async([](int x) { return x + 1; }, n);
    if (!result.wait(20s)) {
      ADD_FAILURE() << "the first task of pool " << n << " hangs";
      break;
    }
    ASSERT_EQ(result.get(), n + 1);
  }
}

// Others are in dl_iterate_phdr() when the nursery or a worker is forked, which
// inherits the loader's lock as it is.
TEST_F(PoolDeath, ForkedWhileAnotherThreadLooksAtTheModules) {
  std::atomic<bool> done{false};
  std::atomic<std::uint64_t> looks{0};
  std::thread other([&] {
    while (!done)
      dl_iterate_phdr(
          [](dl_phdr_info*, std::size_t, void* count) {
            ++*static_cast<std::atomic<std::uint64_t>*>(count);
            return 0;
          },
          &looks);
  });
  run_first_tasks(500ms);
  done = true;
  other.join();
  EXPECT_GT(looks, 0u);
}

// So is shoal itself, where a pool starts by another method.
TEST_F(PoolDeath, ForkedBesideOtherMethods) {
  for (const StartMethod method :
       {StartMethod::spawn, StartMethod::forkserver}) {
    std::atomic<bool> done{false};
    std::thread other([&] {
      while (!done) {
        Pool pool({.processes = 1, .start_method = method});
        EXPECT_EQ(pool.apply([](int x) { return x - 1; }, 8), 7);
      }
    });
    run_first_tasks(1s);
    done = true;
    other.join();
  }
  forkserver::stop();
}

// With a global locale of its own each stream takes a lock of libstdc++.
TEST_F(PoolDeath, ForkedWhileAnotherThreadFormats) {
  Child program([](Child& self) {
    const support::Formatting elsewhere;
    const std::string first(100'000, 'x');
    for (int n = 0; n < 50 && self.failures().empty(); ++n) {
      Pool pool(1);
      auto result =
          pool.apply_async([](std::string text) { return text; }, first);
      self.expect(result.wait(kPatience / 2), "the first result hangs");
    }
  });
  EXPECT_EQ(program.join(3 * kPatience), 0) << program.failures();
}

// The nursery holds a descriptor for each worker.
TEST_F(PoolDeath, NoDescriptorsForAllWorkers) {
  Child child([](Child& self) {
    rlimit all;
    getrlimit(RLIMIT_NOFILE, &all);
    const Pool other(1);
    const auto before = support::residue();
    const int free = dup(STDERR_FILENO);
    close(free);
    rlimit few = all;
    few.rlim_cur = static_cast<rlim_t>(free) + 20;
    setrlimit(RLIMIT_NOFILE, &few);
    try {
      Pool pool(64);
      // One that was forked before may have run it.
      for (;;) pool.apply(&seven);
    } catch (const BrokenPool& error) {
      self.expect(std::string(error.what()).find(strerrordesc_np(EMFILE)) !=
                      std::string::npos,
                  error.what());
    }
    setrlimit(RLIMIT_NOFILE, &all);
    self.expect(support::residue() == before, "nothing left");
    self.expect(Pool(2).apply(&seven) == 7, "with all descriptors");
  });
  EXPECT_EQ(child.join(), 0) << child.failures();
}

// ---- the owner ----

class PoolOwner : public PoolScene {
 protected:
  // A process that makes a pool and then stays; its workers' pids are in
  // marks->of[1...], the nursery's in of[0].
  void with_owner(int workers, void (*task)(),
                  const std::function<void(Child&)>& end) {
    Child owner([&](Child&) {
      Pool pool(workers);
      if (task != nullptr)
        for (int n = 0; n < workers; ++n)
          static_cast<void>(pool.apply_async(task));
      if (task != nullptr && !support::started(workers)) _exit(3);
      const auto pids = pool.workers();
      for (std::size_t i = 0; i < pids.size(); ++i) marks->of[i + 1] = pids[i];
      marks->of[0] = nursery_of(pool);
      marks->ran = 1;
      for (;;) pause();
    });
    ASSERT_TRUE(eventually([] { return marks->ran == 1; }));
    std::vector<pid_t> pids;
    for (std::size_t i = 0; marks->of[i] != 0; ++i)
      pids.push_back(marks->of[i]);
    ASSERT_EQ(pids.size(), static_cast<std::size_t>(workers) + 1);
    const Watch watch(pids);
    EXPECT_TRUE(watch.all_live());
    end(owner);
    EXPECT_TRUE(watch.all_end());
  }
};

TEST_F(PoolOwner, KilledLeavesNoIdleWorker) {
  with_owner(3, nullptr, [](Child& owner) { owner.kill(SIGKILL); });
}

TEST_F(PoolOwner, KilledLeavesNoWorkerThatIsBusyOrIgnoresSignals) {
  with_owner(
      2,
      [] {
        for (const int number : {SIGTERM, SIGHUP, SIGINT, SIGPIPE})
          signal(number, SIG_IGN);
        ++marks->started;
        for (volatile int spin = 0;;) spin = spin + 1;
      },
      [](Child& owner) { owner.kill(SIGKILL); });
}

TEST_F(PoolOwner, KilledWithANurseryThatIsStopped) {
  with_owner(2, nullptr, [](Child& owner) {
    kill(marks->of[0], SIGSTOP);
    owner.kill(SIGKILL);
    EXPECT_EQ(owner.join(), -SIGKILL);
    kill(marks->of[0], SIGCONT);
  });
}

TEST_F(PoolOwner, ThreadThatMadeThePoolMayEnd) {
  std::optional<Pool> pool;
  std::thread([&] { pool.emplace(2); }).join();
  for (int n = 0; n < 20; ++n) EXPECT_EQ(pool->apply(&seven), 7);
  EXPECT_TRUE(back_to_size(*pool));
}

TEST_F(PoolOwner, LeavesByExitWithoutDestroyingIt) {
  Child owner([](Child&) {
    Pool* leaked = new Pool(2);
    const auto pids = leaked->workers();
    for (std::size_t i = 0; i < 2; ++i) marks->of[i] = pids[i];
    marks->of[2] = nursery_of(*leaked);
    marks->ran = 1;
    eventually([] { return marks->gate == 1; });
  });
  ASSERT_TRUE(eventually([] { return marks->ran == 1; }));
  const Watch watch({marks->of[0], marks->of[1], marks->of[2]});
  marks->gate = 1;
  EXPECT_EQ(owner.join(), 0);
  EXPECT_TRUE(watch.all_end());
}

// ---- forked copies of the owner ----

TEST_F(PoolOwner, ForkedChildMayNotUseItAndHasItsOwn) {
  Pool pool(3);
  auto result = pool.apply_async(&wait_at_gate);
  std::vector<AsyncResult<int>> with_callback;
  with_callback.push_back(
      pool.apply_async(Callbacks{[](int) {}, {}}, &wait_at_gate));
  auto done = pool.apply_async(&seven);
  done.wait();
  const auto workers = pool.workers();
  Child child([&](Child& self) {
    const auto refuses = [&](const char* what, auto&& call,
                             const char* whose = "process that made it") {
      try {
        call();
        self.expect(false, what);
      } catch (const std::logic_error& error) {
        self.expect(std::string(error.what()).find(whose) != std::string::npos,
                    what);
      }
    };
    refuses("apply", [&] { pool.apply(&seven); });
    refuses("apply_async", [&] { pool.apply_async(&seven); });
    refuses("map", [&] { pool.map([](int x) { return x; }, {1, 2}); });
    refuses("imap", [&] { pool.imap([](int x) { return x; }, {1, 2}); });
    refuses("workers", [&] { pool.workers(); });
    refuses("close", [&] { pool.close(); });
    refuses("terminate", [&] { pool.terminate(); });
    refuses("join", [&] { pool.join(); });
    refuses("get", [&] { result.get(now); });
    refuses("get of a done one", [&] { done.get(now); });
    refuses("ready", [&] { static_cast<void>(result.ready()); });
    refuses("cancel", [&] { result.cancel(); });
    { AsyncResult<int> dropped = std::move(done); }
    refuses(
        "wait_any", [&] { wait_any(with_callback); },
        "process that made the pool");
    refuses("cancel of one with a callback",
            [&] { with_callback[0].cancel(); });
    Pool own(2);
    self.expect(own.apply(&seven) == 7, "own pool");
    for (const pid_t pid : own.workers())
      self.expect(std::count(workers.begin(), workers.end(), pid) == 0, "pids");
    pool.~Pool();  // does no harm
    new (&pool) Pool(1);
  });
  EXPECT_EQ(child.join(), 0) << child.failures();
  EXPECT_EQ(done.get(), 7);
  marks->gate = 1;
  EXPECT_EQ(result.get(), 1);
  EXPECT_EQ(pool.workers(), workers);
  EXPECT_EQ(pool.apply(&seven), 7);
}

// The kernel ends the workers of one that is killed.
TEST_F(PoolOwner, EndsInTimeWithANurseryThatIsStopped) {
  std::optional<Pool> pool(2);
  const auto workers = pool->workers();
  kill(nursery_of(*pool), SIGSTOP);
  const auto start = std::chrono::steady_clock::now();
  pool.reset();
  EXPECT_LT(std::chrono::steady_clock::now() - start, 3s);
  for (const pid_t worker : workers)
    EXPECT_TRUE(eventually([&] { return kill(worker, 0) != 0; }));
}

// Whatever its other threads have in hands.
TEST_F(PoolOwner, ForkedWhileItCloses) {
  Pool pool(1);
  std::atomic<bool> over{false};
  std::thread other([&] {
    while (!over) pool.close();
  });
  for (int n = 0; n < 30 && !HasFailure(); ++n) {
    Child child([&](Child& self) {
      try {
        pool.imap([](int x) { return x; }, {1, 2});
        self.expect(false, "a stream");
      } catch (const std::logic_error&) {
      }
    });
    EXPECT_EQ(child.join(), 0) << child.failures();
  }
  over = true;
  other.join();
}

TEST_F(PoolOwner, ChildThatLivesOnDoesNotKeepWorkers) {
  std::optional<Pool> pool(2);
  const Watch watch(processes_of(*pool));
  Child child([&](Child&) { eventually([] { return marks->gate == 1; }); });
  pool.reset();
  EXPECT_TRUE(watch.all_end());
  marks->gate = 1;
  EXPECT_EQ(child.join(), 0);
}

TEST_F(PoolOwner, TaskThatForksIsNoSecondWorker) {
  Pool pool(1);
  const pid_t worker = pool.workers()[0];
  for (int n = 0; n < 10; ++n) {
    const int child = pool.apply([] {
      const int pid = fork();
      return pid;  // in both
    });
    EXPECT_GT(child, 0);
  }
  EXPECT_EQ(pool.apply(&getpid), worker);
  EXPECT_EQ(blocks_of(pool), 0u);
}

TEST_F(PoolOwner, PoolInAWorker) {
  Pool pool(2);
  const auto nested = [](int x) {
    Pool inner(2);
    const auto squares = inner.map([](int y) { return y * y; }, {x, x + 1});
    return std::pair(getpid(), squares);
  };
  for (int n = 0; n < 5; ++n) {
    auto one = pool.apply_async(nested, 2);
    auto two = pool.apply_async(nested, 5);
    EXPECT_EQ(one.get(kPatience).second, (std::vector<int>{4, 9}));
    EXPECT_EQ(two.get(kPatience).second, (std::vector<int>{25, 36}));
  }
  // Killed, it takes its inner pool with it.
  auto dies = pool.apply_async([] {
    auto* inner = new Pool(2);
    const auto pids = inner->workers();
    marks->of[0] = pids[0];
    marks->of[1] = pids[1];
    marks->of[2] = nursery_of(*inner);
    marks->of[3] = getpid();
    ++marks->started;
    for (;;) pause();
  });
  ASSERT_TRUE(started(1));
  const Watch watch({marks->of[0], marks->of[1], marks->of[2]});
  kill(marks->of[3], SIGKILL);
  EXPECT_THROW(dies.get(kPatience), WorkerDied);
  EXPECT_TRUE(watch.all_end());
}

TEST_F(PoolOwner, PoolInAProcess) {
  Process process([] {
    Pool pool(2);
    marks->ran =
        static_cast<int>(pool.map([](int x) { return x; }, {1, 2, 3}).size());
  });
  process.start();
  EXPECT_TRUE(process.join(kPatience));
  EXPECT_EQ(process.exitcode(), 0);
  EXPECT_EQ(marks->ran, 3);
}

// ---- signals and foreign waits ----

TEST_F(PoolOwner, WorkersIgnoreInterrupts) {
  Pool pool(2);
  const auto workers = pool.workers();
  for (const pid_t pid : processes_of(pool)) kill(pid, SIGINT);
  for (int n = 0; n < 20; ++n) EXPECT_EQ(pool.apply(&seven), 7);
  EXPECT_EQ(pool.workers(), workers);
}

TEST_F(PoolOwner, ParentsSignalSettingsDoNotMatter) {
  Child child([](Child& self) {
    signal(SIGTERM, SIG_IGN);
    signal(SIGCHLD, SIG_IGN);
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, nullptr);
    const double took = seconds([&] {
      Pool pool(2);
      try {
        pool.apply([] { exit(6); });
      } catch (const WorkerDied& died) {
        self.expect(died.exitcode() == 6, "exit code");
      }
      const auto busy = pool.apply_async([] {
        ++marks->started;
        for (;;) pause();
      });
      self.expect(support::started(1), "started");
    });
    self.expect(took < 0.9, "ended by SIGTERM");
  });
  EXPECT_EQ(child.join(), 0) << child.failures();
}

TEST_F(PoolOwner, ForeignWaitsDoNoHarm) {
  Child child([](Child& self) {
    std::atomic<bool> stop{false};
    Pool pool(2);
    std::thread reaper([&] {
      while (!stop) {
        if (waitpid(-1, nullptr, WNOHANG) < 0) yield_cpu();
      }
    });
    for (int n = 0; n < 20; ++n) {
      try {
        pool.apply([] { _exit(6); });
        self.expect(false, "no error");
      } catch (const WorkerDied& died) {
        self.expect(died.exitcode() == 6, "exit code");
      }
    }
    self.expect(pool.apply(&seven) == 7, "still works");
    pool.close();
    self.expect(pool.join(kPatience), "join");
    stop = true;
    reaper.join();
  });
  EXPECT_EQ(child.join(), 0) << child.failures();
}

// ---- what is printed ----

TEST_F(PoolOwner, OutputAppearsExactlyOnce) {
  const std::filesystem::path path =
      std::filesystem::temp_directory_path() / unique_name("output");
  Child child([&](Child&) {
    const int file = open(path.c_str(), O_CREAT | O_WRONLY | O_APPEND, 0600);
    dup2(file, STDOUT_FILENO);
    printf("of the parent, not written out\n");
    std::cout << "also by the parent\n";
    Pool pool(2);
    pool.map(
        [](int i) {
          printf("stdio %d\n", i);
          std::cout << "stream " << i << '\n';
        },
        {1, 2, 3, 4, 5, 6}, 1);
    try {
      pool.apply([] {
        printf("before exit\n");
        exit(3);
      });
    } catch (const WorkerDied&) {
    }
    pool.close();
    pool.join();
    printf("at the end\n");
  });
  EXPECT_EQ(child.join(), 0) << child.failures();
  std::ifstream file(path);
  std::map<std::string, int> lines;
  for (std::string line; std::getline(file, line);) ++lines[line];
  std::map<std::string, int> expected = {{"of the parent, not written out", 1},
                                         {"also by the parent", 1},
                                         {"before exit", 1},
                                         {"at the end", 1}};
  for (int i = 1; i <= 6; ++i) {
    expected["stdio " + std::to_string(i)] = 1;
    expected["stream " + std::to_string(i)] = 1;
  }
  EXPECT_EQ(lines, expected);
  std::filesystem::remove(path);
}

int times_said = 0;
struct Noisy {
  int number = 1;
  template <class Archive>
  void serialize(Archive& ar) {
    printf("%d says it for time %d\n", getpid(), ++times_said);
    ar(number);
  }
};

// A nursery that was not forked decodes what its workers begin with.
TEST_F(PoolOwner, OutputOfTheInitializersArgumentsAppearsOnce) {
  for (const auto method : {StartMethod::spawn, StartMethod::forkserver}) {
    const std::filesystem::path path =
        std::filesystem::temp_directory_path() / unique_name("output");
    Child child([&](Child& self) {
      const int file = open(path.c_str(), O_CREAT | O_WRONLY | O_APPEND, 0600);
      dup2(file, STDOUT_FILENO);
      Pool pool(
          {.processes = 3, .start_method = method}, [](const Noisy&) {},
          Noisy());
      // Each replaced, so that it writes out what it has.
      for (int n = 0; n < 6; ++n) try {
          pool.apply([] { exit(3); });
        } catch (const WorkerDied&) {
        }
      self.expect(pool.apply(&seven) == 7, "works");
      forkserver::stop();
    });
    EXPECT_EQ(child.join(), 0) << child.failures();
    std::ifstream file(path);
    std::map<std::string, int> lines;
    std::set<std::string> processes;
    for (std::string line; std::getline(file, line);) {
      EXPECT_EQ(++lines[line], 1) << line;
      processes.insert(line.substr(0, line.find(' ')));
    }
    EXPECT_EQ(processes.size(), 2u) << "its owner and its nursery";
    std::filesystem::remove(path);
  }
}

// Also when the pool ends as it does most of the time.
TEST_F(PoolOwner, OutputOfACollectedTaskIsNotLostWithThePool) {
  const std::filesystem::path path =
      std::filesystem::temp_directory_path() / unique_name("output");
  Child child([&](Child&) {
    const int file = open(path.c_str(), O_CREAT | O_WRONLY | O_APPEND, 0600);
    dup2(file, STDOUT_FILENO);
    Pool pool(2);
    pool.apply([] { printf("printed\n"); });
    pool.apply([] { std::cout << "streamed\n"; });
  });
  EXPECT_EQ(child.join(), 0) << child.failures();
  std::ifstream file(path);
  std::set<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.insert(line);
  EXPECT_EQ(lines, (std::set<std::string>{"printed", "streamed"}));
  std::filesystem::remove(path);
}

// ---- nothing is left ----

std::size_t mappings() {
  std::ifstream maps("/proc/self/maps");
  return static_cast<std::size_t>(
      std::count(std::istreambuf_iterator<char>(maps), {}, '\n'));
}

TEST_F(PoolOwner, CyclesLeaveNothing) {
  const char* wanted = getenv("SHOAL_POOL_CYCLES");
  const int cycles = wanted != nullptr ? atoi(wanted) : 50;
  const auto cycle = [](int n) {
    Pool pool(2);
    if (n % 3 != 0) {
      EXPECT_EQ(
          pool.apply([](std::string s) { return s; }, std::string(1000, 'x')),
          std::string(1000, 'x'));
    }
    if (n % 4 == 0) pool.close();
    if (n % 8 == 0) pool.join();
    const auto workers = pool.workers();  // none after join()
    if (n % 7 == 0 && !workers.empty()) kill(workers[0], SIGKILL);
  };
  for (int n = 0; n < 5; ++n) cycle(n);  // what stays for good
  const auto before = residue();
  const std::size_t mapped = mappings();
  for (int n = 0; n < cycles; ++n) ASSERT_NO_FATAL_FAILURE(cycle(n));
  EXPECT_EQ(residue(), before);
  EXPECT_LE(mappings(), mapped + 2);
  // The seats of the killed are free once somebody has looked.
  liveness::Domain::tree()->retire_all();
  EXPECT_LE(liveness::Domain::tree()->seats_taken(), 2u);
}

TEST_F(PoolOwner, SeveralPoolsAtOnce) {
  std::vector<std::unique_ptr<Pool>> pools;
  for (int n = 0; n < 10; ++n) pools.push_back(std::make_unique<Pool>(2));
  std::vector<AsyncResult<int>> all;
  for (int i = 0; i < 500; ++i)
    all.push_back(pools[static_cast<std::size_t>(i % 10)]->apply_async(
        [i] { return i; }));
  for (int i = 0; i < 500; ++i)
    EXPECT_EQ(all[static_cast<std::size_t>(i)].get(), i);
  // In any order.
  pools.erase(pools.begin() + 3);
  pools.erase(pools.begin());
  EXPECT_EQ(pools[5]->apply(&seven), 7);
}

}  // namespace
