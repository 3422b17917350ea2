// SIGKILL at every instruction of a worker: taking a task, running it,
// completing it, and at the end of the worker or the pool.

#include <unistd.h>

#include <cstddef>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/event.h"
#include "shoal/ipc/waiting.h"
#include "shoal/pool/pool.h"
#include "tests/pool/scene.h"
#include "tests/pool/worker_kill_scene.h"

namespace {

using namespace shoal;
using namespace shoal::support;

using PoolKill = WorkerKillScene;

Results submit_one(Pool& pool) {
  return {later(pool.apply_async([] { return answer(0); }))};
}

// With arguments and results in blocks.
Results submit_two(Pool& pool) {
  Results results;
  for (std::size_t i = 0; i < 2; ++i)
    results.push_back(later(
        pool.apply_async([i](const std::string& s) { return answer(i, s); },
                         std::string(60, 'x'))));
  return results;
}

// One chunk.
Results submit_stream(Pool& pool) {
  const std::vector<std::size_t> items = {0, 1, 2};
  auto stream = std::make_shared<Stream<Answer>>(pool.imap(
      [](std::size_t i) { return answer(i); }, items, std::ssize(items)));
  return Results(items.size(), [stream](Timeout timeout) {
    return stream->next(timeout).value();
  });
}

// In the record of the worker's last task, whose handle comes when it is dead:
// it can only be taken ahead. What wakes it is the handle of another one.
Results submit_ahead(Pool& pool) {
  pool::Ring& ring = memory_of(pool).ring(0);
  const auto result = later(pool.apply_async([] { return answer(0); }));
  task::Ticket ticket = {};
  liveness::Who blocker = 0;
  if (ring.try_get(ticket, blocker) != waiting::Status::ok)
    throw Error("the handle is not in the ring");
  if (!pool.apply_async([] { return answer(1); }).cancel())
    throw Error("not cancelled");
  return {[&ring, ticket, result](Timeout timeout) {
    liveness::Who none = 0;
    if (ring.try_put(ticket, none) != waiting::Status::ok)
      throw Error("the ring is full");
    return result(timeout);
  }};
}

TEST_F(PoolKill, TaskTakenAheadOfItsHandle) {
  kill_at_every_step("A D V", {.submit = &submit_ahead});
}

TEST_F(PoolKill, RetriedTaskTakenAheadOfItsHandle) {
  kill_at_every_step(
      "A R V", {.submit = &submit_ahead,
                .options = {.processes = 1, .on_worker_death = retry(1)}});
}

TEST_F(PoolKill, SmallTask) {
  kill_at_every_step("A D V", {.submit = &submit_one});
}

TEST_F(PoolKill, ArgumentsAndResultInBlocks) {
  kill_at_every_step(
      "A D V", {.submit =
                    [](Pool& pool) {
                      return Results{later(pool.apply_async(
                          [](const std::string& s) { return answer(0, s + s); },
                          std::string(60, 'x')))};
                    },
                .expected_bytes = std::string(120, 'x')});
}

TEST_F(PoolKill, TaskThatThrows) {
  kill_at_every_step(
      "A D V", {.submit =
                    [](Pool& pool) {
                      return Results{later(pool.apply_async([]() -> Answer {
                        ++marks->of[0];
                        throw std::runtime_error(std::to_string(getpid()));
                      }))};
                    },
                .throws = true});
}

TEST_F(PoolKill, TwoTasksInARow) {
  kill_at_every_step(
      "AA DA VA VD VV",
      {.submit = &submit_two, .expected_bytes = std::string(60, 'x')});
}

TEST_F(PoolKill, CancelledTaskBeforeAnother) {
  kill_at_every_step("A D V", {.submit = [](Pool& pool) {
                       auto cancelled =
                           pool.apply_async([] { return answer(1); });
                       Results results = submit_one(pool);
                       if (!cancelled.cancel()) throw Error("not cancelled");
                       return results;
                     }});
}

TEST_F(PoolKill, ChunkOfAStream) {
  kill_at_every_step("AAA DDD VVV", {.submit = &submit_stream, .chunk = true});
}

TEST_F(PoolKill, RecordUsedAgainBeforeTheNurseryKnows) {
  kill_at_every_step("A D V", {.submit = &submit_one, .late_nursery = true});
}

// Another worker is at work, and has to do what the victim leaves.
TEST_F(PoolKill, WithAPartner) {
  kill_at_every_step("AA DA VA VD VV", {.submit = &submit_two,
                                        .expected_bytes = std::string(60, 'x'),
                                        .partner = true,
                                        .options = {.processes = 2}});
}

// From the first ring into the second.
TEST_F(PoolKill, NextRing) {
  kill_at_every_step("A D V", {.submit =
                                   [](Pool& pool) {
                                     auto& memory = memory_of(pool);
                                     memory.populate_ring(1);
                                     memory.state().ring.store(1);
                                     memory.ring(0).close(cells::kDraining);
                                     return submit_one(pool);
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
                                     Results results = submit_one(pool);
                                     pool.close();
                                     return results;
                                   },
                               .new_pool = true,
                               .scans = true,
                               .near = 60});
}

// ---- on_worker_death ----

TEST_F(PoolKill, RetriedTask) {
  kill_at_every_step(
      "A R V", {.submit = &submit_one,
                .options = {.processes = 1, .on_worker_death = retry(1)}});
}

TEST_F(PoolKill, RetriedTasksInARow) {
  kill_at_every_step(
      "AA RA VA VR VV",
      {.submit = &submit_two,
       .expected_bytes = std::string(60, 'x'),
       .options = {.processes = 1, .on_worker_death = retry(1)}});
}

TEST_F(PoolKill, RetriedTaskWithAPartner) {
  kill_at_every_step(
      "AA RA VA VR VV",
      {.submit = &submit_two,
       .expected_bytes = std::string(60, 'x'),
       .partner = true,
       .options = {.processes = 2, .on_worker_death = retry(1)}});
}

TEST_F(PoolKill, RetriedChunkOfAStream) {
  kill_at_every_step("AAA RRR VVV", {.submit = &submit_stream,
                                     .chunk = true,
                                     .options = {.processes = 1,
                                                 .on_worker_death = retry(1)}});
}

TEST_F(PoolKill, RetriedTaskOfAPoolThatCloses) {
  kill_at_every_step("A R V",
                     {.submit =
                          [](Pool& pool) {
                            Results results = submit_one(pool);
                            pool.close();
                            return results;
                          },
                      .options = {.processes = 1, .on_worker_death = retry(1)},
                      .new_pool = true,
                      .scans = true,
                      .near = 60});
}

// ---- maxtasksperchild ----

TEST_F(PoolKill, WornWorkerThatLeaves) {
  kill_at_every_step("A D V",
                     {.submit = &submit_one,
                      .options = {.processes = 1, .maxtasksperchild = 1}});
}

TEST_F(PoolKill, WornWorkerThatLeavesATask) {
  kill_at_every_step("AA RA VA", {.submit = &submit_two,
                                  .expected_bytes = std::string(60, 'x'),
                                  .options = {.processes = 1,
                                              .maxtasksperchild = 1,
                                              .on_worker_death = retry(1)}});
}

// ---- initializer ----

bool initialized = false;  // a worker's

// The first worker waits in `initializer` until there is a task.
Scenario in_initializer(const Event& begin, void (*initializer)()) {
  return {.submit =
              [begin](Pool& pool) mutable {
                Results results = {later(pool.apply_async([] {
                  if (!initialized) throw Error("not initialized");
                  return answer(0);
                }))};
                begin.set();
                return results;
              },
          .make =
              [begin, initializer](std::optional<Pool>& pool) mutable {
                begin.clear();
                pool.emplace(PoolOptions{.processes = 1},
                             [begin, initializer]() mutable {
                               begin.wait();
                               initializer();
                             });
              },
          .new_pool = true,
          .after = [](Pool& pool) { pool.close(); },
          .scans = true,
          .near = 100};
}

TEST_F(PoolKill, Initializer) {
  kill_at_every_step("A D V",
                     in_initializer(Event(), [] { initialized = true; }));
}

TEST_F(PoolKill, InitializerThatThrows) {
  Scenario scenario = in_initializer(
      Event(), [] { throw std::runtime_error("no such place"); });
  scenario.throws = true;
  kill_at_every_step("B", scenario);
}

}  // namespace
