#include "tests/pool/worker_kill_scene.h"

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <set>
#include <sstream>
#include <stdexcept>
#include <typeinfo>

#include "gtest/gtest.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/waiting.h"
#include "tests/pool/process_trace.h"
#include "tests/support/sample.h"
#include "tests/support/step.h"

namespace shoal::support {
namespace {

using namespace std::chrono_literals;

// More than a nursery ever takes, less than the test may.
constexpr auto kBound = 20s;

// Where nothing changes: every so many instructions.
constexpr std::size_t kStride = 11;
constexpr std::size_t kStrideInUnwinder = 331;
constexpr std::size_t kStrideInScan = 1009;

// Marks that are no result's.
constexpr std::size_t kPartner = 8;
constexpr std::size_t kNext = 9;

// What tells the nursery, the owner and other workers how things stand.
std::vector<std::uint64_t> shared_state(Pool& pool) {
  pool::Memory& memory = memory_of(pool);
  std::vector<std::uint64_t> state = {
      memory.slot(0).ready.load(), memory.slot(0).current.load(),
      memory.slot(0).leaving.load() != pool::Leaving::no,
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

std::vector<std::string> words_of(std::string_view text) {
  std::istringstream stream{std::string(text)};
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

class Rounds {
 public:
  explicit Rounds(const Scenario& scenario) : scenario_(scenario) {}

  void play_all();
  void expect(std::string_view sane) const;

 private:
  void round(std::optional<std::size_t> k);
  // The first worker, at rest: one that leaves is replaced before.
  pid_t idle_worker();
  // Sets the partner to work; which worker it is not.
  pid_t occupy_partner(std::optional<AsyncResult<pid_t>>& partner);
  void stop_nursery();
  void overtake_nursery(Results& results);
  // Looks at what a kill has left; empty, or what is wrong with it.
  std::string look(pid_t victim, Results results, std::string& fates);
  std::string look_at(std::size_t i, const Later& result, pid_t victim,
                      std::string& fates) const;
  std::string look_at_rest(pid_t victim);

  const Scenario& scenario_;
  const std::int64_t start_ = monotonic_now();
  std::optional<Pool> pool_;
  std::uint64_t retried_before_ = 0;
  std::uint64_t done_ = 0;    // with a value, as far as the pool should know
  std::uint64_t failed_ = 0;  // without
  std::optional<AsyncResult<Answer>> next_;  // has the victim's record
  Route route_;
  std::vector<std::size_t> changes_;
  bool warm_ = false;
  std::map<std::size_t, std::string> outcome_at_;  // by instruction
  std::vector<std::string> outcomes_;              // in this order
  // Of the Sample.
  bool whole_ = false;
  bool tells_shares_ = false;
  std::string first_;  // failure
  int failures_ = 0;
  std::size_t strayed_ = 0;
};

std::string Rounds::look_at(std::size_t i, const Later& result, pid_t victim,
                            std::string& fates) const {
  Answer got = {};
  Fate fate = Fate::died;
  try {
    got = result(kBound);
    if (scenario_.throws) return "no error";
    if (got.bytes != scenario_.expected_bytes) return "other bytes";
    fate = got.pid == victim  ? Fate::by_victim
           : got.attempt == 0 ? Fate::by_other
                              : Fate::retried;
  } catch (const WorkerDied& end) {
    if (end.pid() != victim || end.exitcode() != -SIGKILL) return end.what();
  } catch (const BrokenPool& error) {
    if (!scenario_.throws ||
        dynamic_cast<const std::nested_exception*>(&error) == nullptr)
      return error.what();
    fate = Fate::broken;
  } catch (const std::runtime_error& error) {
    if (!scenario_.throws || typeid(error) != typeid(std::runtime_error))
      return error.what();
    fate = std::stoi(error.what()) == victim ? Fate::by_victim : Fate::by_other;
  }
  fates += static_cast<char>(fate);
  const bool again = fate == Fate::retried;
  if (got.attempt != (again ? 1u : 0u)) return "another attempt";
  const int ran = marks->of[i].exchange(0);
  if (ran > 1 + again) return "ran " + std::to_string(ran) + " times";
  if (ran == 0 && fate != Fate::died && fate != Fate::broken)
    return "a value without a run";
  return {};
}

std::string Rounds::look_at_rest(pid_t victim) {
  if (scenario_.new_pool) {
    if (!pool_->join(kBound)) return "the pool does not end";
    return {};
  }
  if (!eventually([&] {
        const auto workers = pool_->workers();
        return std::count(workers.begin(), workers.end(), victim) == 0;
      }))
    return "the victim was not replaced";
  if (!back_to_size(*pool_)) return "not back to its size";
  // Nothing is stuck behind what it left, and records are used again.
  const std::uint32_t workers = memory_of(*pool_).state().settings.workers;
  for (std::uint32_t n = 0; n < workers + 1; ++n) {
    const Answer next =
        pool_->apply_async([] { return answer(kNext); }).get(kBound);
    if (next.pid == victim) return "a ghost";
    if (next.attempt != 0) return "an attempt of another task";
  }
  done_ += workers + 1;
  if (!eventually([&] {
        const PoolStats stats = pool_->stats();
        return stats.done == done_ && stats.failed == failed_;
      }))
    return "stats: " + std::to_string(pool_->stats().done) + " done, " +
           std::to_string(pool_->stats().failed) + " failed";
  if (records_of(*pool_) > 16) return "records leak";
  return {};
}

std::string Rounds::look(pid_t victim, Results results, std::string& fates) {
  for (std::size_t i = 0; i < results.size(); ++i)
    if (const auto error = look_at(i, results[i], victim, fates);
        !error.empty())
      return "result " + std::to_string(i) + ": " + error;
  const auto count = [&](Fate fate) {
    return static_cast<std::size_t>(
        std::count(fates.begin(), fates.end(), static_cast<char>(fate)));
  };
  const auto lost = count(Fate::died);
  const auto again = count(Fate::retried);
  const std::size_t a_task = scenario_.chunk ? results.size() : 1;
  if (lost + again != 0 && lost != a_task && again != a_task)
    return "one kill cost " + fates;
  const std::uint64_t retried = pool_->stats().retried;
  if (retried - retried_before_ != again / a_task)
    return "retried " + std::to_string(retried - retried_before_) + " times";
  retried_before_ = retried;
  const auto tasks = fates.size() / a_task;
  const auto failed = scenario_.throws ? tasks : lost / a_task;
  failed_ += failed;
  done_ += tasks - failed;
  if (next_) {
    if (next_->get(kBound).pid == victim) return "a ghost has the record";
    next_.reset();
    ++done_;
  }
  if (scenario_.after) scenario_.after(*pool_);
  results.clear();
  if (const auto error = look_at_rest(victim); !error.empty()) return error;
  // What the initializer threw stays.
  if (count(Fate::broken) == 0 && blocks_of(*pool_) != 0)
    return std::to_string(blocks_of(*pool_)) + " blocks are left";
  return {};
}

pid_t Rounds::idle_worker() {
  pid_t worker = 0;
  eventually([&] {
    const auto workers = pool_->workers();
    worker = workers.empty() ? 0 : workers[0];
    return worker != 0 && sleeps_on_futex(worker);
  });
  return worker;
}

pid_t Rounds::occupy_partner(std::optional<AsyncResult<pid_t>>& partner) {
  marks->gate = 0;
  partner.emplace(pool_->apply_async([] {
    marks->of[kPartner] = getpid();
    wait_at_gate();
    return getpid();
  }));
  eventually([] { return marks->of[kPartner] != 0; });
  const pid_t busy = marks->of[kPartner].exchange(0);
  const auto workers = pool_->workers();
  return workers.at(workers.at(0) == busy ? 1 : 0);
}

void Rounds::stop_nursery() {
  const pid_t nursery = nursery_of(*pool_);
  kill(nursery, SIGSTOP);
  if (!eventually([&] { return is_stopped(nursery); }))
    throw Error("the nursery does not stop");
}

void Rounds::overtake_nursery(Results& results) {
  try {
    const Answer got = results.at(0)(now);
    results = {[got](Timeout) { return got; }};
    next_.emplace(pool_->apply_async([] { return answer(kNext); }));
  } catch (const TimeoutError&) {
    // It has not completed it.
  }
  kill(nursery_of(*pool_), SIGCONT);
}

// Without k: the rehearsal.
void Rounds::round(std::optional<std::size_t> k) {
  if (scenario_.new_pool) pool_.reset();
  if (!pool_) {
    retried_before_ = done_ = failed_ = 0;
    if (scenario_.make)
      scenario_.make(pool_);
    else
      pool_.emplace(scenario_.options);
  }
  std::optional<AsyncResult<pid_t>> partner;
  const pid_t victim =
      scenario_.partner ? occupy_partner(partner) : idle_worker();
  Results results;
  std::string fates;
  std::string error;
  bool arrived = true;
  {
    ProcessTrace trace(victim, sleeps_on_futex);
    std::vector<std::uint64_t> state;
    const auto wake = [&] { results = scenario_.submit(*pool_); };
    const auto look_on = [&](std::size_t at) {
      if (!warm_) return;
      auto now_state = shared_state(*pool_);
      if (at != 0 && now_state != state) changes_.push_back(at);
      state = std::move(now_state);
    };
    if (k)
      arrived = trace.go(route_, *k, wake);
    else if (!trace.rehearse(route_, 300'000, wake, look_on))
      error = "the worker does not come to rest";
    if (scenario_.late_nursery) stop_nursery();
    if (!trace.kill()) error = "the kill did not land";
    if (scenario_.late_nursery) overtake_nursery(results);
  }
  marks->gate = 1;
  if (partner && partner->get(kBound) == victim) error = "the partner";
  done_ += partner.has_value();
  partner.reset();
  if (error.empty()) error = look(victim, std::move(results), fates);
  if (!error.empty()) {
    ++failures_;
    if (first_.empty())
      first_ = (k ? "instruction " + std::to_string(*k) : "rehearsal") + ": " +
               error;
    pool_.reset();
  } else if (arrived) {
    outcome_at_[k.value_or(route_.size())] = fates;
  } else {
    ++strayed_;
  }
}

void Rounds::play_all() {
  constexpr int kEnough = 20;  // failures, each of which may have waited long
  // Twice: the first one changes what later workers inherit.
  round(std::nullopt);
  warm_ = true;
  route_ = {};
  outcome_at_.clear();
  round(std::nullopt);
  const auto points = kill_points(route_.size(), changes_, scenario_);
  Sample sample(points.size());
  while (const auto i = sample.next()) {
    round(points[*i]);
    if (failures_ >= kEnough) break;
  }
  whole_ = sample.whole();
  tells_shares_ = sample.tells_shares();
  for (const auto& [place, fates] : outcome_at_) outcomes_.push_back(fates);
}

void Rounds::expect(std::string_view sane) const {
  const auto& test = *testing::UnitTest::GetInstance()->current_test_info();
  printf(
      "[  KILLS   ] %s.%s: %zu instructions, %zu kills, %zu strayed, "
      "%d failures, %s, %.1f s%s%s\n",
      test.test_suite_name(), test.name(), route_.size(), outcomes_.size(),
      strayed_, failures_, run_lengths(outcomes_).c_str(),
      static_cast<double>(monotonic_now() - start_) / 1e9,
      first_.empty() ? "" : "; first at ", first_.c_str());
  fflush(stdout);
  using testing::Test;
  Test::RecordProperty("kill_points", static_cast<int>(outcomes_.size()));
  Test::RecordProperty("kill_failures", failures_);
  Test::RecordProperty("outcomes", run_lengths(outcomes_));
  EXPECT_EQ(failures_, 0) << first_;
  EXPECT_GT(route_.size(), 100u) << "the worker was not traced";
  // Beside a partner no two runs are the same, and pools made anew are not
  // quite; a kill that strays is one, too.
  const std::size_t landed_for_one = scenario_.partner               ? 1
                                     : scenario_.new_pool || !whole_ ? 4
                                                                     : 50;
  if (tells_shares_) {
    EXPECT_LE(strayed_ * landed_for_one, outcomes_.size())
        << "kills did not land where they should";
  }
  if (failures_ != 0) return;
  const auto wanted = words_of(sane);
  const std::set<std::string> allowed(wanted.begin(), wanted.end());
  auto seen = outcomes_;
  // Two work at once: the same fates, in about the same order.
  if (scenario_.partner) std::sort(seen.begin(), seen.end());
  seen.erase(std::unique(seen.begin(), seen.end()), seen.end());
  if (whole_ && !scenario_.partner) {
    EXPECT_EQ(seen, wanted);
  } else if (whole_) {
    EXPECT_EQ(std::set<std::string>(seen.begin(), seen.end()), allowed);
  } else {
    auto next = wanted.begin();
    for (const std::string& fates : seen) {
      const auto from = scenario_.partner ? wanted.begin() : next;
      next = std::find(from, wanted.end(), fates);
      ASSERT_NE(next, wanted.end()) << fates << " after " << sane;
    }
  }
}

}  // namespace

Answer answer(std::size_t mark, std::string bytes) {
  ++marks->of[mark];
  return {getpid(), this_task::attempt(), std::move(bytes)};
}

void WorkerKillScene::SetUp() {
  use_one_processor();
  waiting::set_slices(false);
}

void WorkerKillScene::kill_at_every_step(std::string_view sane,
                                         const Scenario& scenario) {
  Rounds rounds(scenario);
  rounds.play_all();
  rounds.expect(sane);
}

}  // namespace shoal::support
