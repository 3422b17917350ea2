#include "tests/pool/process_trace.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include <utility>

#include "gtest/gtest.h"
#include "shoal/ipc/errors.h"
#include "tests/support/sample.h"

namespace shoal::support {
namespace {

void require(long outcome, const char* what) {
  if (outcome != 0) throw_system_error(errno, what);
}

}  // namespace

ProcessTrace::ProcessTrace(pid_t process, bool (*asleep)(pid_t),
                           std::function<bool()> settled)
    : process_(process),
      asleep_(asleep),
      settled_(std::move(settled)),
      pidfd_(Pidfd::open(process)) {
  if (!eventually([this] { return asleep_(process_); }))
    throw Error("the process is not idle");
  require(ptrace(PTRACE_SEIZE, process_, nullptr, PTRACE_O_EXITKILL),
          "ptrace(PTRACE_SEIZE)");
  interrupt();
}

void ProcessTrace::interrupt() {
  require(ptrace(PTRACE_INTERRUPT, process_, nullptr, nullptr),
          "ptrace(PTRACE_INTERRUPT)");
  if (!await_stop()) throw Error("the process was not stopped");
}

ProcessTrace::~ProcessTrace() {
  if (traced_ && !ended_) kill();
}

// True: it has stopped. False: it has ended, or is at rest.
bool ProcessTrace::await_stop() {
  const Deadline deadline(kPatience);
  int quiet = 0;
  for (int looks = 0;; ++looks) {
    // It runs now, on this processor, and has mostly stopped when we do again.
    yield_cpu();
    int status;
    if (waitpid(process_, &status, __WALL | WNOHANG) == process_) {
      ended_ = !WIFSTOPPED(status);
      stop_signal_ = ended_ ? 0 : WSTOPSIG(status);
      stopped_ = !ended_;
      return stopped_;
    }
    if (looks < 2) continue;
    // Twice: it may just have been woken.
    quiet = at_rest() ? quiet + 1 : 0;
    if (quiet == 2) return false;
    if (deadline.passed()) throw Error("the process does not come to rest");
  }
}

void ProcessTrace::resume(Mode mode) {
  require(ptrace(mode == Mode::step ? PTRACE_SINGLESTEP : PTRACE_CONT, process_,
                 nullptr, nullptr),
          "ptrace");
  stopped_ = false;
}

// A child's end and the like stop it as well; they are not counted.
bool ProcessTrace::advance(Mode mode) {
  do {
    resume(mode);
    if (!await_stop()) return false;
  } while (stop_signal_ != SIGTRAP);
  return true;
}

// Into its sleep once more, and out of it.
void ProcessTrace::begin(const Wake& wake) {
  if (step()) throw Error("the process did not go on sleeping");
  woken_ = true;
  wake();
  const Deadline deadline(kPatience);
  for (;;) {
    if (await_stop()) {
      if (stop_signal_ == SIGTRAP) return;
      resume(Mode::step);
    } else if (ended_ || deadline.passed()) {
      throw Error("the process was not woken");
    }
  }
}

bool ProcessTrace::rehearse(Route& route, std::size_t most, const Wake& wake,
                            const std::function<void(std::size_t)>& look) {
  begin(wake);
  for (std::size_t n = 0; n < most; ++n) {
    look(n);
    route.add(program_counter(process_));
    if (!step()) return true;
  }
  return false;
}

bool ProcessTrace::go(const Route& route, std::size_t k, const Wake& wake) {
  begin(wake);
  // Without breakpoints it would fork with traps in its code.
  const Route::Way way = has_breakpoints() ? route.way_to(k) : Route::Way{0, 0};
  if (!run_to(
          process_, route[way.stop], way.passes, [this] { return step(); },
          [this] { return advance(Mode::run); }))
    return false;
  for (std::size_t i = way.stop; i < k; ++i)
    if (!step()) return false;
  return program_counter(process_) == route[k];
}

void ProcessTrace::let_go() {
  // At rest it is not stopped, and only who is stopped can be let go.
  if (!stopped_) interrupt();
  require(ptrace(PTRACE_DETACH, process_, nullptr, nullptr),
          "ptrace(PTRACE_DETACH)");
  traced_ = false;
}

bool ProcessTrace::kill() {
  traced_ = false;
  if (!ended_) {
    // Asleep or running it cannot be let go; then SIGKILL has to be enough.
    if (ptrace(PTRACE_DETACH, process_, nullptr, SIGKILL) != 0) {
      ::kill(process_, SIGKILL);
      int status;
      while (waitpid(process_, &status, __WALL) == process_ &&
             WIFSTOPPED(status)) {
      }
    }
  }
  return pidfd_.wait(kPatience);
}

void RouteSweep::play(
    const char* what,
    const std::function<std::string(std::optional<std::size_t>)>& round) {
  // Twice: the first one changes what later workers inherit.
  ASSERT_EQ(round(std::nullopt), "");
  route = {};
  ASSERT_EQ(round(std::nullopt), "");
  int rounds = 0;
  Sample sample(route.size());
  while (const auto k = sample.next()) {
    ASSERT_EQ(round(*k), "") << "instruction " << *k;
    ++rounds;
  }
  const auto& test = *testing::UnitTest::GetInstance()->current_test_info();
  printf("[  KILLS   ] %s: %zu instructions, %d played, %d strayed, %d %s\n",
         test.name(), route.size(), rounds, strayed, some, what);
  testing::Test::RecordProperty("kill_points", rounds);
  if (!sample.tells_shares()) return;
  EXPECT_LE(strayed * 2, rounds);
  EXPECT_GT(some, 0);
  EXPECT_LT(some, rounds);
}

}  // namespace shoal::support
