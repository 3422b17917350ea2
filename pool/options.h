#pragma once
// What a pool is made with, and what it tells of itself.

#include <chrono>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "shoal/ipc/cpu_count.h"
#include "shoal/ipc/process.h"
#include "shoal/ipc/timeout.h"

namespace shoal {

// What becomes of the task that a worker dies in (is killed, crashes, exits).
// Exceptions are results: nothing of this is for them.
struct OnWorkerDeath {
  enum class What : std::uint32_t { fail_task, retry, break_pool };
  What what = What::fail_task;
  std::uint32_t retries = 0;
};
// It fails with WorkerDied; all others go on.
inline constexpr OnWorkerDeath fail_task{};
// It fails, every open task with BrokenPool, and the pool takes no more; so
// also when a worker dies that had no task.
inline constexpr OnWorkerDeath break_pool{OnWorkerDeath::What::break_pool, 0};
// It is run again, up to `times` times, by the worker's replacement; then it
// fails. What it had done before it died stays done: this_task::attempt(). One
// that was given an end of a Pipe, which was lost with the worker, fails at
// once.
constexpr OnWorkerDeath retry(int times) {
  if (times < 0)
    throw std::invalid_argument("shoal: retry(" + std::to_string(times) +
                                "); 0 or more");
  return {OnWorkerDeath::What::retry, static_cast<std::uint32_t>(times)};
}

struct PoolOptions {
  int processes = cpu_count();  // < 1: std::invalid_argument
  // A worker is replaced after so many tasks, of which a chunk is one; 0:
  // never.
  std::int64_t maxtasksperchild = 0;
  // Of the process that forks the workers; else what get_start_method() says.
  std::optional<StartMethod> start_method = {};
  OnWorkerDeath on_worker_death = fail_task;
  // A task that runs longer is ended together with its worker, and fails with
  // WorkerDied, whatever on_worker_death says of retries.
  Timeout task_deadline = forever;
  // CPUs: worker n runs on number n modulo size; none: wherever it likes.
  std::vector<int> affinity = {};
  // Ctrl-C reaches the program only.
  bool ignore_sigint = true;
};

// Read one after the other while workers go on. `queued` is not too high then,
// but may miss what was submitted meanwhile.
struct PoolStats {
  std::uint64_t queued = 0;  // submitted, not begun
  std::uint64_t running = 0;
  std::uint64_t done = 0;      // with a value
  std::uint64_t failed = 0;    // with an error, with their worker or the pool
  std::uint64_t retried = 0;   // runs that began anew after a death
  std::uint64_t replaced = 0;  // workers that took a place of another
  // How long each worker's place was not idle.
  std::vector<std::chrono::nanoseconds> busy = {};
};

namespace this_task {
// In a worker: how often the task has been begun before, each time by a worker
// that died in it. 0 the first time, and elsewhere.
std::uint32_t attempt();
}  // namespace this_task

}  // namespace shoal
