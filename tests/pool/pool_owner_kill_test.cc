// SIGKILL of the process that owns a pool, at every instruction of what it does
// with it: within seconds no worker, no nursery and no memory is left.

#include <errno.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "gtest/gtest.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/event.h"
#include "shoal/pool/pool.h"
#include "tests/pool/scene.h"
#include "tests/support/orphans.h"
#include "tests/support/process_sweep.h"
#include "tests/support/step.h"

namespace {

using namespace shoal;
using namespace shoal::support;
using namespace std::chrono_literals;

class PoolOwnerKill : public PoolScene {
 protected:
  void SetUp() override { use_one_processor(); }

  // Tasks wait for `gate`, which is opened when the owner sleeps.
  void kill_at_every_step(const std::function<void(Pool&)>& prepare,
                          const std::function<void(std::optional<Pool>&)>& use,
                          SweepOptions options = {}) {
    support::kill_at_every_step(
        "E",
        [&](Round& round) {
          gate.clear();
          marks->started = 0;
          std::optional<Pool> pool;  // the victim's
          Victim victim([&] { use(pool); },
                        [&] {
                          pool.emplace(2);
                          if (prepare) prepare(*pool);
                        });
          round.step(victim, [&] { gate.set(); });
          round.kill(victim);
          round.expect(orphans_.all_end(), "a process is left");
          round.outcome('E');
        },
        options);
  }

  Event gate;

 private:
  const Orphans orphans_;
};

std::string wait_for(Event& gate, const std::string& text) {
  ++marks->started;
  gate.wait();
  return text + text;
}

void submit_and_get(Pool& pool, Event& gate) {
  auto result = pool.apply_async(&wait_for, gate, std::string(60, 'x'));
  if (result.get() != std::string(120, 'x')) throw Error("another result");
}

TEST_F(PoolOwnerKill, SubmitAndGet) {
  kill_at_every_step(
      [this](Pool& pool) {
        gate.set();
        submit_and_get(pool, gate);
        gate.clear();
      },
      [this](std::optional<Pool>& pool) { submit_and_get(*pool, gate); });
}

// Looks up the function, the build-id and more.
TEST_F(PoolOwnerKill, FirstSubmitAndGet) {
  kill_at_every_step(
      {}, [this](std::optional<Pool>& pool) { submit_and_get(*pool, gate); },
      {.stride = 199});
}

TEST_F(PoolOwnerKill, CloseAndJoin) {
  kill_at_every_step([](Pool& pool) { pool.apply([] {}); },
                     [](std::optional<Pool>& pool) {
                       pool->close();
                       pool->join();
                     });
}

// One task runs in each worker, one waits.
void submit_three(Pool& pool, Event& gate) {
  for (int n = 0; n < 3; ++n)
    static_cast<void>(pool.apply_async(&wait_for, gate, std::string(60, 'x')));
  if (!started(2)) throw Error("no task has started");
}

TEST_F(PoolOwnerKill, Terminate) {
  kill_at_every_step([this](Pool& pool) { submit_three(pool, gate); },
                     [](std::optional<Pool>& pool) { pool->terminate(); });
}

TEST_F(PoolOwnerKill, Destructor) {
  kill_at_every_step([this](Pool& pool) { submit_three(pool, gate); },
                     [](std::optional<Pool>& pool) { pool.reset(); },
                     {.stride = 16});
}

// From before the pool to behind it.
TEST_F(PoolOwnerKill, AtEverySystemCall) {
  const Sweep all = sweep(0, -SIGKILL, [](char& outcome) {
    outcome = 'N';
    {
      Pool pool(2);
      outcome = 'P';
      expect(pool.apply([] { return 7; }) == 7, "a result");
      outcome = 'R';
    }
    outcome = 'G';
    // So that there is a call to be killed before.
    static_cast<void>(getppid());
  });
  expect_phases(all, "NPRG");
}

}  // namespace
