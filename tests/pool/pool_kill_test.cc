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
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "shoal/ipc/timeout.h"
#include "shoal/ipc/wait.h"
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
  int workers = 1;
  // Given when the victim sleeps; all tasks of one round.
  std::function<Results(Pool&)> submit;
  std::function<void(Pool&)> before = {};  // a round
  std::function<void(Pool&)> after = {};   // the kill
  std::string expected_bytes = {};
  bool throws = false;
  bool new_pool = false;   // one for each round
  std::size_t stride = 1;  // all but the last kDense instructions
};
// The end of a long route, which is looked at in full.
constexpr std::size_t kDense = 1500;

class PoolKill : public PoolScene {
 protected:
  void SetUp() override {
    use_one_processor();
    wait::set_slices(false);
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
    if (!back_to_size(pool)) return "not back to its size";
    const auto workers = pool.workers();
    if (std::count(workers.begin(), workers.end(), victim) != 0)
      return "the victim was not replaced";
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
  const Deadline now_point(now);
  const std::int64_t start = monotonic_now();
  constexpr int kEnough = 20;  // failures, each of which may have waited long
  std::optional<Pool> pool;
  Route route;
  std::vector<std::string> outcomes;
  std::string first;
  int failures = 0;
  int strayed = 0;
  const auto round = [&](std::optional<std::size_t> k) {
    if (scenario.new_pool) pool.reset();
    if (!pool) pool.emplace(scenario.workers);
    if (scenario.before) scenario.before(*pool);
    const pid_t victim = pool->workers().at(0);
    Results results;
    std::string fates;
    std::string error;
    bool arrived = true;
    {
      WorkerTrace trace(victim);
      const auto wake = [&] { results = scenario.submit(*pool); };
      if (k)
        arrived = trace.go(route, *k, wake);
      else if (!trace.rehearse(route, 300'000, wake))
        error = "the worker does not come to rest";
      if (!trace.kill()) error = "the kill did not land";
    }
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
  route = {};
  outcomes.clear();
  round(std::nullopt);
  const std::vector<std::string> rehearsal = std::move(outcomes);
  outcomes.clear();
  for (std::size_t k = 0; k < route.size() && failures < kEnough;
       k += k + kDense < route.size() ? scenario.stride : 1)
    round(k);
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
  EXPECT_LE(static_cast<std::size_t>(strayed) * 50, outcomes.size())
      << "kills did not land where they should";
  if (failures != 0) return;
  std::string merged;
  for (std::size_t i = 0; i < outcomes.size(); ++i)
    if (i == 0 || outcomes[i] != outcomes[i - 1])
      merged += (merged.empty() ? "" : " ") + outcomes[i];
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
                          std::string(1000, 'x')));
                      return results;
                    },
                .expected_bytes = std::string(2000, 'x')});
}

TEST_F(PoolKill, LargeResultWithPagesOfItsOwn) {
  kill_at_every_step(
      "A D V", {.submit =
                    [](Pool& pool) {
                      Results results;
                      results.push_back(pool.apply_async(
                          [] { return answer(0, std::string(200'000, 'y')); }));
                      return results;
                    },
                .expected_bytes = std::string(200'000, 'y'),
                .new_pool = false,
                .stride = 7});
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
                .throws = true,
                .stride = 101});
}

TEST_F(PoolKill, TwoTasksInARow) {
  kill_at_every_step(
      "AA DA VA VD VV",
      {.submit =
           [](Pool& pool) {
             Results results;
             results.push_back(pool.apply_async(
                 [](const std::string& s) { return answer(0, s); },
                 std::string(300, 'x')));
             results.push_back(pool.apply_async(
                 [](const std::string& s) { return answer(1, s); },
                 std::string(300, 'x')));
             return results;
           },
       .expected_bytes = std::string(300, 'x')});
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
  kill_at_every_step("AA DA VA", {.workers = 2, .submit = [](Pool& pool) {
                                    Results results;
                                    for (std::size_t i = 0; i < 2; ++i)
                                      results.push_back(pool.apply_async(
                                          [i] { return answer(i, ""); }));
                                    return results;
                                  }});
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
                               .after = [](Pool& pool) { pool.close(); },
                               .new_pool = true});
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
                               .new_pool = true});
}

}  // namespace
