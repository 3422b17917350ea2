#include "tests/pool/worker_trace.h"

#include <errno.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include "shoal/ipc/errors.h"

namespace shoal::support {
namespace {

void require(long outcome, const char* what) {
  if (outcome != 0) throw_system_error(errno, what);
}

}  // namespace

WorkerTrace::WorkerTrace(pid_t worker)
    : worker_(worker), pidfd_(Pidfd::open(worker)) {
  if (!eventually([this] { return sleeps_on_futex(worker_); }))
    throw Error("the worker is not idle");
  require(ptrace(PTRACE_SEIZE, worker_, nullptr, PTRACE_O_EXITKILL),
          "ptrace(PTRACE_SEIZE)");
  require(ptrace(PTRACE_INTERRUPT, worker_, nullptr, nullptr),
          "ptrace(PTRACE_INTERRUPT)");
  if (!await_stop()) throw Error("the worker was not stopped");
}

WorkerTrace::~WorkerTrace() {
  if (traced_ && !ended_) kill();
}

// True: it has stopped. False: it has ended, or sleeps.
bool WorkerTrace::await_stop() {
  int quiet = 0;
  for (int looks = 0;; ++looks) {
    // It runs now, on this processor, and has mostly stopped when we do again.
    yield_cpu();
    int status;
    if (waitpid(worker_, &status, __WALL | WNOHANG) == worker_) {
      if (WIFSTOPPED(status)) return true;
      ended_ = true;
      return false;
    }
    if (looks < 2) continue;
    // Twice: it may just have been woken.
    quiet = sleeps_on_futex(worker_) ? quiet + 1 : 0;
    if (quiet == 2) return false;
  }
}

bool WorkerTrace::step() {
  require(ptrace(PTRACE_SINGLESTEP, worker_, nullptr, nullptr),
          "ptrace(PTRACE_SINGLESTEP)");
  return await_stop();
}

bool WorkerTrace::run() {
  require(ptrace(PTRACE_CONT, worker_, nullptr, nullptr),
          "ptrace(PTRACE_CONT)");
  return await_stop();
}

// Into its sleep once more, and out of it.
void WorkerTrace::begin(const Wake& wake) {
  if (step()) throw Error("the worker did not go on sleeping");
  wake();
  const Deadline deadline(kPatience);
  while (!await_stop())
    if (ended_ || deadline.passed()) throw Error("the worker was not woken");
}

bool WorkerTrace::rehearse(Route& route, std::size_t most, const Wake& wake,
                           const std::function<void(std::size_t)>& look) {
  begin(wake);
  for (std::size_t n = 0; n < most; ++n) {
    look(n);
    route.add(program_counter(worker_));
    if (!step()) return true;
  }
  return false;
}

bool WorkerTrace::go(const Route& route, std::size_t k, const Wake& wake) {
  begin(wake);
  const Route::Way way = route.way_to(k);
  if (!run_to(
          worker_, route[way.stop], way.passes, [this] { return step(); },
          [this] { return run(); }))
    return false;
  for (std::size_t i = way.stop; i < k; ++i)
    if (!step()) return false;
  return program_counter(worker_) == route[k];
}

bool WorkerTrace::kill() {
  traced_ = false;
  if (!ended_) {
    // Asleep or running it cannot be let go; then SIGKILL has to be enough.
    if (ptrace(PTRACE_DETACH, worker_, nullptr, SIGKILL) != 0) {
      ::kill(worker_, SIGKILL);
      int status;
      while (waitpid(worker_, &status, __WALL) == worker_ &&
             WIFSTOPPED(status)) {
      }
    }
  }
  return pidfd_.wait(kPatience);
}

}  // namespace shoal::support
