// SIGSTOP at every instruction of a worker that takes a task, runs it and
// completes it, while another worker has hundreds of tasks to run, through the
// end of one ring into the next: the one that is stopped delays the task that
// it has claimed, and nothing else. Then it goes on, or is killed.

#include <sys/types.h>
#include <unistd.h>

#include <chrono>
#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "shoal/ipc/errors.h"
#include "shoal/pool/pool.h"
#include "tests/pool/process_trace.h"
#include "tests/pool/scene.h"
#include "tests/support/step.h"

namespace {

using namespace shoal;
using namespace shoal::support;
using namespace std::chrono_literals;

constexpr auto kBound = 20s;  // more than anything takes here
// More than the first ring holds, and less than the first two.
constexpr int kOthers = pool::kFirstRing + 100;

enum class Then { goes_on, is_killed };

int mark(int number) {
  ++marks->of[static_cast<std::size_t>(number)];
  return number;
}

class PoolStopKill : public PoolScene {
 protected:
  void SetUp() override { use_one_processor(); }

  void stop_at_every_step(const PoolOptions& options, Then then);

 private:
  // Empty, or what is wrong. Without k: the rehearsal.
  std::string round(const PoolOptions& options, Then then,
                    std::optional<std::size_t> k);
  std::string look(Pool& pool, AsyncResult<int>& victims, bool killed);

  RouteSweep sweep_;
};

std::string PoolStopKill::look(Pool& pool, AsyncResult<int>& victims,
                               bool killed) {
  try {
    if (victims.get(kBound) != 0) return "another value";
  } catch (const WorkerDied&) {
    if (!killed) return "a worker has died";
  } catch (const TimeoutError&) {
    return "get() hangs";
  }
  pool.close();
  if (!pool.join(kBound)) return "the pool does not end";
  for (std::size_t i = 0; i <= kOthers; ++i) {
    const int ran = marks->of[i].exchange(0);
    if (ran != 1 && !(i == 0 && killed && ran <= 2))
      return "task " + std::to_string(i) + " ran " + std::to_string(ran) +
             " times";
  }
  return {};
}

std::string PoolStopKill::round(const PoolOptions& options, Then then,
                                std::optional<std::size_t> k) {
  Pool pool(options);
  marks->gate = marks->started = 0;
  auto partner = pool.apply_async([] {
    wait_at_gate();
    return getpid();
  });
  if (!started(1)) return "the partner does not start";
  // The other one of the two.
  pid_t victim = 0;
  if (!eventually([&] {
        for (const pid_t worker : pool.workers())
          if (sleeps_on_futex(worker)) victim = worker;
        return victim != 0;
      }))
    return "no worker is idle";
  std::optional<AsyncResult<int>> victims;
  std::vector<AsyncResult<int>> others;
  bool killed = false;
  {
    ProcessTrace trace(victim, sleeps_on_futex);
    const auto wake = [&] { victims.emplace(pool.apply_async(&mark, 0)); };
    if (!k) {
      if (!trace.rehearse(sweep_.route, 300'000, wake, [](std::size_t) {}))
        return "the worker does not come to rest";
    } else {
      sweep_.strayed += !trace.go(sweep_.route, *k, wake);
    }
    marks->gate = 1;
    if (partner.get(kBound) == victim) return "the partner is the victim";
    for (int i = 1; i <= kOthers; ++i)
      others.push_back(pool.apply_async(&mark, i));
    for (int i = 1; i <= kOthers; ++i) {
      auto& result = others[static_cast<std::size_t>(i - 1)];
      if (!result.wait(kBound)) return "task " + std::to_string(i) + " waits";
      if (result.get() != i) return "another value";
    }
    sweep_.some += k && victims->ready() && marks->of[0] == 1;
    killed = then == Then::is_killed;
    if (!killed)
      trace.let_go();
    else if (!trace.kill())
      return "the kill did not land";
  }
  return look(pool, *victims, killed);
}

void PoolStopKill::stop_at_every_step(const PoolOptions& options, Then then) {
  sweep_.play(
      "with the victim's task done beside it",
      [&](std::optional<std::size_t> k) { return round(options, then, k); });
}

TEST_F(PoolStopKill, TheWorkerGoesOn) {
  stop_at_every_step({.processes = 2}, Then::goes_on);
}

TEST_F(PoolStopKill, TheWorkerIsKilled) {
  stop_at_every_step({.processes = 2}, Then::is_killed);
}

TEST_F(PoolStopKill, TheWorkerIsKilledAndItsTaskTriedAgain) {
  stop_at_every_step({.processes = 2, .on_worker_death = retry(1)},
                     Then::is_killed);
}

}  // namespace
