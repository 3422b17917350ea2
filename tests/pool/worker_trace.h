#pragma once
// WorkerTrace: a worker of a real pool, forked by its nursery, which is run to
// a certain instruction and killed there.
//
//   WorkerTrace worker(pool.workers()[0]);          // idle
//   worker.go(route, k, [&] { result.emplace(pool.apply_async(f)); });
//   worker.kill();
//
// The worker's own parent sees it die: the tracer lets go in that moment.

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>

#include "shoal/ipc/pidfd.h"
#include "tests/support/step.h"

namespace shoal::support {

class WorkerTrace {
 public:
  using Wake = std::function<void()>;

  // Waits until the worker sleeps, and stops it there.
  explicit WorkerTrace(pid_t worker);
  WorkerTrace(const WorkerTrace&) = delete;
  WorkerTrace& operator=(const WorkerTrace&) = delete;
  ~WorkerTrace();

  // Both: wake() gives it something to do; its first instruction after that
  // sleep is instruction 0.
  // Writes the route down until it sleeps again or has ended; false if it has
  // not come to that after `most` instructions. look(k): k have been run.
  bool rehearse(Route& route, std::size_t most, const Wake& wake,
                const std::function<void(std::size_t)>& look);
  // To instruction k of the route; false if it did not get there.
  bool go(const Route& route, std::size_t k, const Wake& wake);

  // It runs no further instruction. True once it has ended.
  bool kill();

 private:
  void begin(const Wake& wake);
  bool step();
  bool run();
  bool await_stop();

  const pid_t worker_;
  Pidfd pidfd_;
  bool traced_ = true;
  bool ended_ = false;
};

}  // namespace shoal::support
