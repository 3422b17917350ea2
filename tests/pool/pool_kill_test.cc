// SIGKILL at every instruction of a worker from the end of its sleep to the
// next one: taking a task, running it, completing it, and at the end of the
// pool. The workers are those of a real pool, and its nursery settles what
// they leave.

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "shoal/ipc/timeout.h"
#include "shoal/ipc/waiting.h"
#include "shoal/pool/pool.h"
#include "tests/pool/scene.h"
#include "tests/pool/worker_trace.h"
#include "tests/support/step.h"

namespace {

using namespace shoal;
using namespace shoal::support;
using namespace std::chrono_literals;

// More than a nursery ever takes on this machine, less than one waits for.
constexpr auto kBound = 5s;

// Where a task ran, and bytes to come back with.
using Answer = std::pair<pid_t, std::string>;
using Results = std::vector<AsyncResult<Answer>>;

// What a kill has done to a task.
enum class Fate : char { by_other = 'A', died = 'D', by_victim = 'V' };

struct Scenario {
  // Given when the victim sleeps; all tasks of one round.
  std::function<Results(Pool&)> submit;
  std::string expected_bytes = {};
  bool throws = false;
  // Another worker is at work until the victim is dead.
  bool partner = false;
  bool new_pool = false;                  // one for each round
  std::function<void(Pool&)> after = {};  // the kill
  // So many instructions around each change of what is shared are killed at,
  // and all between the first and the last change unless it `throws` or looks
  // at thousands of cells in between.
  bool scans = false;
  std::size_t near = 400;
};
// Elsewhere: every so many instructions.
constexpr std::size_t kStride = 11;
constexpr std::size_t kStrideInUnwinder = 331;
constexpr std::size_t kStrideInScan = 1009;

// What tells the nursery, the owner and other workers how things stand.
std::vector<std::uint64_t> shared_state(Pool& pool) {
  pool::Memory& memory = memory_of(pool);
  std::vector<std::uint64_t> state = {
      memory.slot(0).current.load(), memory.slot(0).drained.load(),
      memory.state().sleepers.load(), memory.arena().blocks_in_use()};
  for (std::uint32_t index = 0; index < records_of(pool); ++index) {
    const task::TaskState& task = memory.task(index);
    state.push_back(task.claim.load());
    state.push_back(task.done.load());
  }
  return state;
}

// The instructions to kill at, of a route whose instructions in `changes`
// were the first after a change.
std::vector<std::size_t> kill_points(std::size_t route,
                                     const std::vector<std::size_t>& changes,
                                     const Scenario& scenario) {
  std::vector<std::size_t> points;
  const auto dense = [&](std::size_t k) {
    if (changes.empty()) return true;
    if (!scenario.throws && !scenario.scans)
      return k + scenario.near >= changes.front() &&
             k <= changes.back() + scenario.near;
    return std::any_of(changes.begin(), changes.end(), [&](std::size_t change) {
      return k + scenario.near >= change && k <= change + scenario.near;
    });
  };
  std::size_t last = 0;
  for (std::size_t k = 0; k < route; ++k) {
    const bool between =
        !changes.empty() && k > changes.front() && k < changes.back();
    const std::size_t stride = scenario.scans ? kStrideInScan
                               : between      ? kStrideInUnwinder
                                              : kStride;
    if (points.empty() || dense(k) || k >= last + stride)
      points.push_back(last = k);
  }
  return points;
}

class PoolKill : public PoolScene {
 protected:
  void SetUp() override {
    use_one_processor();
    waiting::set_slices(false);
  }

  // Fates of the tasks at each kill, neighbours taken as one, must be `sane`.
  void kill_at_every_step(std::string_view sane, const Scenario& scenario);

 private:
  std::string play(Pool& pool, pid_t victim, const Scenario& scenario,
                   Results results, std::string& fates);
};

// Looks at what a kill has left; empty, or what is wrong with it.
std::string PoolKill::play(Pool& pool, pid_t victim, const Scenario& scenario,
                           Results results, std::string& fates) {
  int died = 0;
  for (std::size_t i = 0; i < results.size(); ++i) {
    const std::string name = "task " + std::to_string(i) + ": ";
    Fate fate;
    pid_t pid = 0;
    try {
      const Answer answer = results[i].get(kBound);
      if (scenario.throws) return name + "no error";
      if (answer.second != scenario.expected_bytes) return name + "other bytes";
      pid = answer.first;
    } catch (const std::runtime_error& error) {
      if (const auto* end = dynamic_cast<const WorkerDied*>(&error)) {
        if (end->pid() != victim || end->exitcode() != -SIGKILL)
          return name + error.what();
        ++died;
      } else if (scenario.throws &&
                 typeid(error) == typeid(std::runtime_error)) {
        pid = std::stoi(error.what());
      } else {
        return name + error.what();
      }
    }
    fate = pid == 0        ? Fate::died
           : pid == victim ? Fate::by_victim
                           : Fate::by_other;
    fates += static_cast<char>(fate);
    const int ran = marks->of[i].exchange(0);
    if (ran > 1) return name + "ran " + std::to_string(ran) + " times";
    if (ran == 0 && fate != Fate::died) return name + "a value without a run";
  }
  if (died > 1) return "one kill cost " + std::to_string(died) + " tasks";
  if (scenario.after) scenario.after(pool);
  results.clear();
  if (scenario.new_pool) {
    if (!pool.join(kBound)) return "the pool does not end";
  } else {
    if (!eventually([&] {
          const auto workers = pool.workers();
          return std::count(workers.begin(), workers.end(), victim) == 0;
        }))
      return "the victim was not replaced";
    if (!back_to_size(pool)) return "not back to its size";
    // Nothing is stuck behind what it left, and records are used again.
    for (std::uint32_t n = 0; n < memory_of(pool).state().workers + 1; ++n)
      if (pool.apply_async(&getpid).get(kBound) == victim) return "a ghost";
    if (records_of(pool) > 16) return "records leak";
  }
  if (blocks_of(pool) != 0)
    return std::to_string(blocks_of(pool)) + " blocks are left";
  return {};
}

std::string run_lengths(const std::vector<std::string>& outcomes) {
  std::string text;
  for (std::size_t i = 0; i < outcomes.size();) {
    std::size_t end = i;
    while (end < outcomes.size() && outcomes[end] == outcomes[i]) ++end;
    text += (text.empty() ? "" : " ") + outcomes[i] + std::to_string(end - i);
    i = end;
  }
  return text;
}

void PoolKill::kill_at_every_step(std::string_view sane,
                                  const Scenario& scenario) {
  const std::int64_t start = monotonic_now();
  constexpr int kEnough = 20;  // failures, each of which may have waited long
  std::optional<Pool> pool;
  Route route;
  std::vector<std::size_t> changes;
  bool warm = false;
  std::vector<std::string> outcomes;
  std::string first;
  int failures = 0;
  int strayed = 0;
  const auto round = [&](std::optional<std::size_t> k) {
    if (scenario.new_pool) pool.reset();
    if (!pool) pool.emplace(scenario.partner ? 2 : 1);
    std::optional<AsyncResult<pid_t>> partner;
    pid_t victim = pool->workers().at(0);
    if (scenario.partner) {
      marks->gate = 0;
      partner.emplace(pool->apply_async([] {
        marks->of[8] = getpid();
        wait_at_gate();
        return getpid();
      }));
      eventually([] { return marks->of[8] != 0; });
      if (victim == marks->of[8].exchange(0)) victim = pool->workers().at(1);
    }
    Results results;
    std::string fates;
    std::string error;
    bool arrived = true;
    {
      WorkerTrace trace(victim);
      std::vector<std::uint64_t> state;
      const auto wake = [&] { results = scenario.submit(*pool); };
      const auto look = [&](std::size_t at) {
        if (!warm) return;
        auto now_state = shared_state(*pool);
        if (at != 0 && now_state != state) changes.push_back(at);
        state = std::move(now_state);
      };
      if (k)
        arrived = trace.go(route, *k, wake);
      else if (!trace.rehearse(route, 300'000, wake, look))
        error = "the worker does not come to rest";
      if (!trace.kill()) error = "the kill did not land";
    }
    marks->gate = 1;
    if (partner && partner->get(kBound) == victim) error = "the partner";
    partner.reset();
    if (error.empty())
      error = play(*pool, victim, scenario, std::move(results), fates);
    if (!error.empty()) {
      ++failures;
      if (first.empty())
        first = (k ? "instruction " + std::to_string(*k) : "rehearsal") + ": " +
                error;
      pool.reset();
    } else if (arrived) {
      outcomes.push_back(fates);
    } else {
      ++strayed;
    }
  };

  // Twice: the first one changes what later workers inherit.
  round(std::nullopt);
  warm = true;
  route = {};
  outcomes.clear();
  round(std::nullopt);
  const std::vector<std::string> rehearsal = std::move(outcomes);
  outcomes.clear();
  for (const std::size_t k : kill_points(route.size(), changes, scenario))
    if (failures < kEnough) round(k);
  outcomes.insert(outcomes.end(), rehearsal.begin(), rehearsal.end());

  const auto& test = *testing::UnitTest::GetInstance()->current_test_info();
  printf(
      "[  KILLS   ] %s.%s: %zu instructions, %zu kills, %d strayed, "
      "%d failures, %s, %.1f s%s%s\n",
      test.test_suite_name(), test.name(), route.size(), outcomes.size(),
      strayed, failures, run_lengths(outcomes).c_str(),
      static_cast<double>(monotonic_now() - start) / 1e9,
      first.empty() ? "" : "; first at ", first.c_str());
  fflush(stdout);
  RecordProperty("kill_points", static_cast<int>(outcomes.size()));
  RecordProperty("kill_failures", failures);
  RecordProperty("outcomes", run_lengths(outcomes));
  EXPECT_EQ(failures, 0) << first;
  EXPECT_GT(route.size(), 100u) << "the worker was not traced";
  // Beside a partner no two runs are the same; a kill that strays is one, too.
  EXPECT_LE(static_cast<std::size_t>(strayed) * (scenario.partner ? 1 : 50),
            outcomes.size())
      << "kills did not land where they should";
  if (failures != 0) return;
  std::string merged;
  for (std::size_t i = 0; i < outcomes.size(); ++i)
    if (i == 0 || outcomes[i] != outcomes[i - 1])
      merged += (merged.empty() ? "" : " ") + outcomes[i];
  if (scenario.partner) {
    // Two work at once: the same fates, in about the same order.
    std::set<std::string> seen(outcomes.begin(), outcomes.end());
    std::istringstream words{std::string(sane)};
    for (std::string fates; words >> fates;)
      EXPECT_EQ(seen.erase(fates), 1u) << fates << " was never seen";
    EXPECT_TRUE(seen.empty()) << *seen.begin();
    return;
  }
  EXPECT_EQ(merged, sane);
}

Answer answer(std::size_t mark, std::string bytes) {
  ++marks->of[mark];
  return {getpid(), std::move(bytes)};
}

TEST_F(PoolKill, SmallTask) {
  kill_at_every_step(
      "A D V", {.submit = [](Pool& pool) {
        Results results;
        results.push_back(pool.apply_async([] { return answer(0, ""); }));
        return results;
      }});
}

TEST_F(PoolKill, ArgumentsAndResultInBlocks) {
  kill_at_every_step(
      "A D V", {.submit =
                    [](Pool& pool) {
                      Results results;
                      results.push_back(pool.apply_async(
                          [](const std::string& s) { return answer(0, s + s); },
                          std::string(60, 'x')));
                      return results;
                    },
                .expected_bytes = std::string(120, 'x')});
}

TEST_F(PoolKill, TaskThatThrows) {
  kill_at_every_step(
      "A D V", {.submit =
                    [](Pool& pool) {
                      Results results;
                      results.push_back(pool.apply_async([]() -> Answer {
                        ++marks->of[0];
                        throw std::runtime_error(std::to_string(getpid()));
                      }));
                      return results;
                    },
                .throws = true});
}

TEST_F(PoolKill, TwoTasksInARow) {
  kill_at_every_step(
      "AA DA VA VD VV",
      {.submit =
           [](Pool& pool) {
             Results results;
             results.push_back(pool.apply_async(
                 [](const std::string& s) { return answer(0, s); },
                 std::string(60, 'x')));
             results.push_back(pool.apply_async(
                 [](const std::string& s) { return answer(1, s); },
                 std::string(60, 'x')));
             return results;
           },
       .expected_bytes = std::string(60, 'x')});
}

TEST_F(PoolKill, CancelledTaskBeforeAnother) {
  kill_at_every_step(
      "A D V", {.submit = [](Pool& pool) {
        auto cancelled = pool.apply_async([] { return answer(1, ""); });
        Results results;
        results.push_back(pool.apply_async([] { return answer(0, ""); }));
        if (!cancelled.cancel()) throw Error("not cancelled");
        return results;
      }});
}

// Another worker is at work, and has to do what the victim leaves.
TEST_F(PoolKill, WithAPartner) {
  kill_at_every_step("AA DA VA VD VV",
                     {.submit =
                          [](Pool& pool) {
                            Results results;
                            for (std::size_t i = 0; i < 2; ++i)
                              results.push_back(pool.apply_async(
                                  [i] { return answer(i, ""); }));
                            return results;
                          },
                      .partner = true});
}

// From the first ring into the second.
TEST_F(PoolKill, NextRing) {
  kill_at_every_step("A D V", {.submit =
                                   [](Pool& pool) {
                                     auto& memory = memory_of(pool);
                                     memory.populate_ring(1);
                                     memory.state().ring.store(1);
                                     memory.ring(0).close(cells::kDraining);
                                     Results results;
                                     results.push_back(pool.apply_async(
                                         [] { return answer(0, ""); }));
                                     return results;
                                   },
                               .new_pool = true,
                               .after = [](Pool& pool) { pool.close(); },
                               .scans = true,
                               .near = 60});
}

// One last task, and the end.
TEST_F(PoolKill, PoolThatCloses) {
  kill_at_every_step("A D V", {.submit =
                                   [](Pool& pool) {
                                     Results results;
                                     results.push_back(pool.apply_async(
                                         [] { return answer(0, ""); }));
                                     pool.close();
                                     return results;
                                   },
                               .new_pool = true,
                               .scans = true,
                               .near = 60});
}

}  // namespace
