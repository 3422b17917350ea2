#include "shoal/pool/settings.h"

#include <sched.h>

#include <cstddef>
#include <stdexcept>
#include <string>

#include "shoal/ipc/errors.h"

namespace shoal::pool {
namespace {

bool is_allowed_cpu(int cpu) {
  cpu_set_t allowed;
  return cpu >= 0 && cpu < CPU_SETSIZE &&
         sched_getaffinity(0, sizeof allowed, &allowed) == 0 &&
         CPU_ISSET(static_cast<std::size_t>(cpu), &allowed);
}

std::uint32_t checked_workers(int workers, const std::string& pool,
                              const char* of) {
  if (workers < 1)
    throw std::invalid_argument("shoal: " + pool + " of " +
                                std::to_string(workers) + ' ' + of +
                                "; at least 1 is needed");
  if (static_cast<std::uint32_t>(workers) > kMaxWorkers)
    throw NoSpace("shoal: " + pool + " of " + std::to_string(workers) + ' ' +
                      of + "; at most " + std::to_string(kMaxWorkers) +
                      " are possible",
                  static_cast<std::uint64_t>(workers), kMaxWorkers);
  return static_cast<std::uint32_t>(workers);
}

}  // namespace

Settings settings_of(const PoolOptions& options, WorkersAre workers) {
  const bool threads = workers == WorkersAre::threads;
  const std::string pool = threads ? "ThreadPool" : "Pool";
  if (options.maxtasksperchild < 0)
    throw std::invalid_argument(
        "shoal: " + pool + " with maxtasksperchild " +
        std::to_string(options.maxtasksperchild) +
        "; give the number of tasks after which a worker is replaced, or 0 for "
        "never");
  if (options.task_deadline.is_now())
    throw std::invalid_argument("shoal: " + pool +
                                " with a task_deadline that no task can meet; "
                                "give a duration above 0, or forever");
  for (const int cpu : options.affinity)
    if (!is_allowed_cpu(cpu))
      throw std::invalid_argument(
          "shoal: " + pool + " with CPU " + std::to_string(cpu) +
          " in its affinity; this process may not run there");
  const OnWorkerDeath& death = options.on_worker_death;
  return {
      .workers = checked_workers(options.processes, pool,
                                 threads ? "threads" : "processes"),
      .ignores_sigint = options.ignore_sigint,
      .tasks_a_worker = static_cast<std::uint64_t>(options.maxtasksperchild),
      .retries = death.retries,
      .breaks = death.what == OnWorkerDeath::What::break_pool,
      .task_deadline = options.task_deadline.is_forever()
                           ? 0
                           : options.task_deadline.nanoseconds()};
}

}  // namespace shoal::pool
