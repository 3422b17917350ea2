// SIGKILL of a pool's nursery anywhere: nobody who waits for a result hangs,
// the pool can be ended, and no process is left.

#include <signal.h>
#include <stdio.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/event.h"
#include "shoal/ipc/timeout.h"
#include "shoal/ipc/waiting.h"
#include "shoal/pool/pool.h"
#include "tests/pool/process_trace.h"
#include "tests/pool/scene.h"
#include "tests/support/orphans.h"
#include "tests/support/process_sweep.h"
#include "tests/support/sample.h"
#include "tests/support/step.h"
#include "tests/support/thread.h"

namespace {

using namespace shoal;
using namespace shoal::support;
using namespace std::chrono_literals;

constexpr auto kBound = 20s;  // more than anything takes here

// What has become of a task.
enum class End : char {
  value = 'V',
  died = 'D',
  cancelled = 'C',
  broken = 'B',
  late = 'L',  // none
};
End end_of(AsyncResult<int>& result) {
  try {
    result.get(kBound);
    return End::value;
  } catch (const WorkerDied&) {
    return End::died;
  } catch (const Cancelled&) {
    return End::cancelled;
  } catch (const BrokenPool&) {
    return End::broken;
  } catch (const TimeoutError&) {
    return End::late;
  }
}

int wait_for(Event& gate) {
  ++marks->started;
  gate.wait();
  return 1;
}

// ---- at every instruction ----

struct Scenario {
  PoolOptions options = {.processes = 1};
  // Gives the nursery, which sleeps, its work.
  std::function<void(Pool&)> wake;
  // Its work ends with a new worker; else with its own end.
  bool replaces = false;
  // Of the task that runs, and of the one that waits for it, as far as they may
  // end at all.
  std::string_view running_ends;
  std::string_view queued_ends;
};

class PoolNurseryKill : public PoolScene {
 protected:
  void SetUp() override {
    use_one_processor();
    waiting::set_slices(false);
  }

  void kill_at_every_step(const Scenario& scenario);

  Event gate_;  // of the task that runs

 private:
  // Empty, or what is wrong.
  std::string round(const Scenario& scenario, std::optional<std::size_t> k);
  std::string look(Pool& pool, bool by_terminate);
  std::vector<std::size_t> kill_points() const;

  const Orphans orphans_;
  Route route_;
  std::vector<std::size_t> changes_;  // of what is shared
  bool arrived_ = false;
  std::map<char, int> running_, queued_;
};

// What tells the owner and the workers how things stand.
std::vector<std::uint64_t> shared_state(Pool& pool) {
  pool::Memory& memory = memory_of(pool);
  const pool::PoolState& all = memory.state();
  std::vector<std::uint64_t> state = {
      static_cast<std::uint64_t>(all.broken.load()),
      all.died,
      all.retried,
      all.replaced,
      all.sleepers,
      memory.arena().blocks_in_use()};
  for (std::uint32_t i = 0; i < all.settings.workers; ++i) {
    const pool::SlotState& slot = memory.slot(i);
    state.insert(state.end(), {slot.pid, slot.ready, slot.current, slot.retry});
  }
  for (std::uint32_t i = 0; i < records_of(pool); ++i)
    state.push_back(memory.task(i).done);
  return state;
}

bool replaced(Pool& pool, pid_t worker) {
  const auto& slot = memory_of(pool).slot(0);
  const auto pid = static_cast<pid_t>(slot.pid.load());
  return pid != 0 && pid != worker && slot.ready.load() != 0;
}

// The nursery is dead, or has ended.
std::string PoolNurseryKill::look(Pool& pool, bool by_terminate) {
  try {
    auto next = pool.apply_async(&wait_for, gate_);
    const End end = end_of(next);
    if (end != End::broken && end != End::cancelled)
      return std::string("the next task: ") + static_cast<char>(end);
  } catch (const BrokenPool&) {
  } catch (const NotRunning&) {
  }
  by_terminate ? pool.terminate() : pool.close();
  if (!pool.join(kBound)) return "the pool does not end";
  return {};
}

std::string PoolNurseryKill::round(const Scenario& scenario,
                                   std::optional<std::size_t> k) {
  marks->started = 0;
  gate_.clear();
  std::string error;
  {
    Pool pool(scenario.options);
    auto running = pool.apply_async(&wait_for, gate_);
    if (!started(1)) return "no task has started";
    auto queued = pool.apply_async([] { return 2; });
    const pid_t worker = pool.workers().at(0);
    std::optional<End> end;
    Thread waiter([&] { end = end_of(running); });
    if (!waiter.falls_asleep()) return "nobody waits";
    {
      ProcessTrace trace(nursery_of(pool), sleeps_in_poll, [&] {
        return scenario.replaces && replaced(pool, worker);
      });
      const auto wake = [&] { scenario.wake(pool); };
      std::vector<std::uint64_t> state;
      const auto look_on = [&](std::size_t at) {
        auto now_state = shared_state(pool);
        if (at != 0 && now_state != state) changes_.push_back(at);
        state = std::move(now_state);
      };
      if (k)
        arrived_ = trace.go(route_, *k, wake);
      else if (!trace.rehearse(route_, 300'000, wake, look_on))
        error = "the nursery does not come to rest";
      if (!trace.kill()) error = "the kill did not land";
    }
    if (!waiter.ends()) return "get() hangs";
    ++running_[static_cast<char>(*end)];
    ++queued_[static_cast<char>(end_of(queued))];
    if (error.empty()) error = look(pool, k.value_or(0) % 2 == 0);
  }
  if (!orphans_.all_end()) error = "a process is left";
  return error;
}

// All that are near a change, and some of the rest, which looks at thousands of
// cells.
std::vector<std::size_t> PoolNurseryKill::kill_points() const {
  constexpr std::size_t kNear = 80;
  constexpr std::size_t kStride = 4001;
  std::vector<std::size_t> points;
  for (std::size_t k = 0; k < route_.size(); ++k)
    if (points.empty() || k >= points.back() + kStride ||
        std::any_of(changes_.begin(), changes_.end(), [&](std::size_t change) {
          return k + kNear >= change && k <= change + kNear;
        }))
      points.push_back(k);
  return points;
}

std::string counts(const std::map<char, int>& ends) {
  std::string text;
  for (const auto& [end, count] : ends)
    text += (text.empty() ? "" : " ") + (end + std::to_string(count));
  return text;
}

std::set<char> ends_in(const std::map<char, int>& ends) {
  std::set<char> seen;
  for (const auto& [end, count] : ends) seen.insert(end);
  return seen;
}

void PoolNurseryKill::kill_at_every_step(const Scenario& scenario) {
  constexpr std::size_t kShort = 10'000;
  const std::int64_t start = monotonic_now();
  // Twice: the first one changes what later nurseries inherit.
  ASSERT_EQ(round(scenario, std::nullopt), "");
  route_ = {};
  changes_.clear();
  ASSERT_EQ(round(scenario, std::nullopt), "");
  int kills = 0;
  int strayed = 0;
  const auto points = kill_points();
  Sample sample(points.size());
  while (const auto i = sample.next()) {
    const std::size_t k = points[*i];
    ASSERT_EQ(round(scenario, k), "") << "instruction " << k;
    // How often it waits for the end of a worker is not always the same: by
    // the way of another one, where that does not take long.
    for (int n = 0; n < 2 && !arrived_ && route_.size() < kShort; ++n) {
      route_ = {};
      ASSERT_EQ(round(scenario, std::nullopt), "");
      ASSERT_EQ(round(scenario, std::min(k, route_.size() - 1)), "");
    }
    ++kills;
    strayed += !arrived_;
  }
  const auto& test = *testing::UnitTest::GetInstance()->current_test_info();
  printf(
      "[  KILLS   ] %s.%s: %zu instructions, %d kills, %d strayed, running %s, "
      "queued %s, %.1f s\n",
      test.test_suite_name(), test.name(), route_.size(), kills, strayed,
      counts(running_).c_str(), counts(queued_).c_str(),
      static_cast<double>(monotonic_now() - start) / 1e9);
  RecordProperty("kill_points", kills);
  EXPECT_GT(points.size(), 10u) << "the nursery was not traced";
  // Workers run beside it; a kill that strays is one, too.
  if (sample.tells_shares()) {
    EXPECT_LE(strayed * 2, kills) << "kills did not land where they should";
  }
  const std::set<char> running(scenario.running_ends.begin(),
                               scenario.running_ends.end());
  // A sample may lack one.
  for (const char end : ends_in(running_))
    EXPECT_NE(running.count(end), 0u) << end;
  if (sample.whole()) {
    EXPECT_EQ(ends_in(running_), running);
  }
  for (const char end : ends_in(queued_))
    EXPECT_NE(scenario.queued_ends.find(end), std::string_view::npos) << end;
}

void kill_first_worker(Pool& pool) { kill(pool.workers().at(0), SIGKILL); }

TEST_F(PoolNurseryKill, BuriesAndReplaces) {
  kill_at_every_step({.wake = &kill_first_worker,
                      .replaces = true,
                      .running_ends = "BD",
                      .queued_ends = "BV"});
}

TEST_F(PoolNurseryKill, LeavesTheTaskToTheNext) {
  kill_at_every_step({.options = {.processes = 1, .on_worker_death = retry(3)},
                      .wake = &kill_first_worker,
                      .replaces = true,
                      .running_ends = "B",
                      .queued_ends = "B"});
}

TEST_F(PoolNurseryKill, ReplacesAWornWorker) {
  kill_at_every_step({.options = {.processes = 1, .maxtasksperchild = 1},
                      .wake = [this](Pool&) { gate_.set(); },
                      .replaces = true,
                      .running_ends = "V",
                      .queued_ends = "BV"});
}

TEST_F(PoolNurseryKill, BreaksThePool) {
  kill_at_every_step(
      {.options = {.processes = 2, .on_worker_death = break_pool},
       .wake = &kill_first_worker,
       .running_ends = "BD",
       .queued_ends = "BV"});
}

TEST_F(PoolNurseryKill, Closes) {
  kill_at_every_step({.wake =
                          [this](Pool& pool) {
                            pool.close();
                            gate_.set();
                          },
                      .running_ends = "V",
                      .queued_ends = "BV"});
}

// Of two workers, the nursery sees one end or both at once, as it happens, and
// goes another way.
TEST_F(PoolNurseryKill, Terminates) {
  kill_at_every_step({.options = {.processes = 1},
                      .wake = [](Pool& pool) { pool.terminate(); },
                      .running_ends = "C",
                      .queued_ends = "CV"});
}

// ---- at every system call ----

// 'B' the pool broke, 'D' only the task was lost, 'V' nothing was.
char run_and_close(const PoolOptions& options, int (*task)()) {
  Pool pool(options);
  char outcome = '?';
  try {
    auto first = pool.apply_async(task);
    outcome = static_cast<char>(end_of(first));
    auto second = pool.apply_async([] { return 2; });
    const End end = end_of(second);
    expect(end == End::value || end == End::broken, "the second task");
  } catch (const BrokenPool&) {
    outcome = 'B';
  }
  pool.close();
  expect(pool.join(kBound), "join");
  return outcome;
}

TEST(PoolNurseryCallKill, FromItsStartToItsEnd) {
  const Sweep all = sweep(1, 0, [](char& outcome) {
    outcome = run_and_close({.processes = 2}, [] { return 1; });
  });
  expect_phases(all, "BV");
}

TEST(PoolNurseryCallKill, WhileWorkersDie) {
  const Sweep all = sweep(1, 0, [](char& outcome) {
    outcome = run_and_close({.processes = 2}, [] {
      raise(SIGKILL);
      return 1;
    });
  });
  expect_phases(all, "BD");
}

}  // namespace
