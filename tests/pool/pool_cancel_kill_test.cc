// cancel() of a map at every instruction of a worker that takes its second
// chunk, while the first one is with a worker that has not claimed it yet: the
// map runs whole or not at all, also when the worker is killed there.

#include <sys/types.h>

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/waiting.h"
#include "shoal/pool/pool.h"
#include "tests/pool/process_trace.h"
#include "tests/pool/scene.h"
#include "tests/support/step.h"

namespace {

using namespace shoal;
using namespace shoal::support;
using namespace std::chrono_literals;

constexpr auto kBound = 20s;  // more than anything takes here

enum class Then { goes_on, is_killed };

int mark(int item) {
  ++marks->ran;
  return item;
}

class PoolCancelKill : public PoolScene {
 protected:
  void SetUp() override {
    use_one_processor();
    waiting::set_slices(false);
  }

  void cancel_at_every_step(const PoolOptions& options, Then then);

 private:
  // Empty, or what is wrong. Without k: the rehearsal.
  std::string round(Pool& pool, Then then, std::optional<std::size_t> k);
  std::string look(AsyncResult<std::vector<int>>& result, bool cancelled,
                   bool killed);

  RouteSweep sweep_;
};

std::string PoolCancelKill::look(AsyncResult<std::vector<int>>& result,
                                 bool cancelled, bool killed) {
  try {
    if (result.get(kBound) != std::vector{0, 1}) return "other values";
    if (cancelled) return "a cancelled map has values";
    if (marks->ran < 2) return "values without a run";
  } catch (const Cancelled&) {
    if (!cancelled) return "not cancelled, says cancel()";
  } catch (const WorkerDied&) {
    if (cancelled || !killed) return "a worker has died";
  } catch (const TimeoutError&) {
    return "get() hangs";
  }
  if (cancelled && marks->ran != 0) return "a cancelled map has run";
  return {};
}

std::string PoolCancelKill::round(Pool& pool, Then then,
                                  std::optional<std::size_t> k) {
  if (!back_to_size(pool)) return "not back to its size";
  // The same way for a new worker as for an old one.
  pool.map(&mark, {0, 1}, 1);
  marks->ran = 0;
  std::optional<AsyncResult<std::vector<int>>> result;
  pool::Ring& ring = memory_of(pool).ring(0);
  task::Ticket first = {};
  liveness::Who blocker = 0;
  bool cancelled = false;
  bool killed = true;
  const pid_t victim = pool.workers().at(0);
  {
    ProcessTrace trace(victim, sleeps_on_futex);
    const auto wake = [&] {
      result.emplace(pool.map_async(&mark, std::vector{0, 1}, 1));
      if (ring.try_get(first, blocker) != waiting::Status::ok)
        throw Error("the first chunk is not in the ring");
    };
    if (!k) {
      if (!trace.rehearse(sweep_.route, 300'000, wake, [](std::size_t) {}))
        return "the worker does not come to rest";
    } else {
      const bool arrived = trace.go(sweep_.route, *k, wake);
      sweep_.strayed += !arrived;
      cancelled = result->cancel();
      sweep_.some += cancelled;
      killed = !arrived || then == Then::is_killed;
      if (!killed) trace.let_go();
    }
    if (killed && !trace.kill()) return "the kill did not land";
  }
  if (killed &&
      !eventually([&] { return pool.workers() != std::vector{victim}; }))
    return "the victim is not buried";
  // What the other worker does: it claims, or comes too late.
  if (ring.try_put(first, blocker) != waiting::Status::ok)
    return "the ring is full";
  if (auto error = look(*result, cancelled, killed); !error.empty())
    return error;
  result.reset();
  if (!eventually([&] {
        const PoolStats stats = pool.stats();
        return stats.queued == 0 && stats.running == 0;
      }))
    return std::to_string(pool.stats().queued) + " tasks are queued";
  return {};
}

void PoolCancelKill::cancel_at_every_step(const PoolOptions& options,
                                          Then then) {
  Pool pool(options);
  sweep_.play("cancelled", [&](std::optional<std::size_t> k) {
    return round(pool, then, k);
  });
}

TEST_F(PoolCancelKill, TheWorkerGoesOn) {
  cancel_at_every_step({.processes = 1}, Then::goes_on);
}

TEST_F(PoolCancelKill, TheWorkerIsKilled) {
  cancel_at_every_step({.processes = 1}, Then::is_killed);
}

TEST_F(PoolCancelKill, TheWorkerIsKilledAndItsTaskTriedAgain) {
  cancel_at_every_step({.processes = 1, .on_worker_death = retry(1)},
                       Then::is_killed);
}

}  // namespace
