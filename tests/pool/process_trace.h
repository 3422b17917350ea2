#pragma once
// ProcessTrace: a worker or the nursery of a real pool, which is run to a
// certain instruction and killed there.
//
//   ProcessTrace worker(pool.workers()[0], sleeps_on_futex);   // idle
//   worker.go(route, k, [&] { result.emplace(pool.apply_async(f)); });
//   worker.kill();
//
// A worker's own parent sees it die: the tracer lets go in that moment.

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "shoal/ipc/pidfd.h"
#include "tests/support/step.h"

namespace shoal::support {

class ProcessTrace {
 public:
  using Wake = std::function<void()>;

  // Waits until asleep(process), and stops it there. It comes to rest when it
  // is asleep again and settled().
  ProcessTrace(
      pid_t process, bool (*asleep)(pid_t),
      std::function<bool()> settled = [] { return true; });
  ProcessTrace(const ProcessTrace&) = delete;
  ProcessTrace& operator=(const ProcessTrace&) = delete;
  ~ProcessTrace();

  // Both: wake() gives it something to do; its first instruction after that
  // sleep is instruction 0.
  // Writes the route down until it is at rest or has ended; false if it has not
  // come to that after `most` instructions. look(k): k have been run.
  bool rehearse(Route& route, std::size_t most, const Wake& wake,
                const std::function<void(std::size_t)>& look);
  // To instruction k of the route; false if it did not get there.
  bool go(const Route& route, std::size_t k, const Wake& wake);

  // From where it has come to, stopped or at rest, it runs on by itself.
  void let_go();
  // It runs no further instruction. True once it has ended.
  bool kill();

 private:
  enum class Mode { step, run };

  void interrupt();
  void begin(const Wake& wake);
  void resume(Mode mode);
  bool advance(Mode mode);
  bool step() { return advance(Mode::step); }
  bool await_stop();
  bool at_rest() const { return asleep_(process_) && (!woken_ || settled_()); }

  const pid_t process_;
  bool (*const asleep_)(pid_t);
  const std::function<bool()> settled_;
  Pidfd pidfd_;
  bool woken_ = false;
  bool traced_ = true;
  bool stopped_ = false;
  bool ended_ = false;
  int stop_signal_ = 0;
};

// A round at each instruction of a route, or at as many as there is time for.
struct RouteSweep {
  // Plays `round`(k), which says what was wrong, or "". Without k it is a
  // rehearsal and writes the route down. `what` were those counted in `some`.
  void play(
      const char* what,
      const std::function<std::string(std::optional<std::size_t> k)>& round);

  Route route = {};
  int strayed = 0;  // rounds that did not get there
  int some = 0;     // rounds of one kind: not all are, and not none
};

}  // namespace shoal::support
