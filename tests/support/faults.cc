#include "tests/support/faults.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <exception>
#include <new>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "shoal/ipc/errors.h"
#include "tests/support/child.h"

namespace shoal::support {
namespace {

// What may be refused for want of memory, descriptors, rights. Calls that only
// let go, wait, or ask are made as they are.
constexpr long kRefusable[] = {SYS_memfd_create,
                               SYS_ftruncate,
                               SYS_fallocate,
                               SYS_mmap,
                               SYS_open,
                               SYS_openat,
                               SYS_socket,
                               SYS_socketpair,
                               SYS_bind,
                               SYS_listen,
                               SYS_connect,
                               SYS_accept4,
                               SYS_sendmsg,
                               SYS_recvmsg,
                               SYS_clone,
                               SYS_clone3,
                               SYS_fork,
                               SYS_vfork,
                               SYS_pidfd_open,
                               SYS_eventfd2,
                               SYS_epoll_create1,
                               SYS_epoll_ctl,
                               SYS_pipe2,
                               SYS_dup,
                               SYS_dup3,
                               SYS_linkat,
                               SYS_fchmod,
                               SYS_timerfd_create,
                               SYS_fstat,
                               SYS_newfstatat,
                               SYS_madvise,
                               SYS_membarrier,
                               SYS_set_robust_list,
                               SYS_get_robust_list,
                               SYS_pidfd_getfd};

// Marks of the operation's start and end, as a call that nobody makes.
constexpr long kBegin = 0x5A0A1;
constexpr long kEnd = 0x5A0A2;
void mark(long what) { syscall(SYS_getpgid, what); }

struct Outcome {
  std::atomic<int> threw;
  std::atomic<int> untyped;
  std::atomic<int> again_failed;
  char text[600];
};

void note(Outcome& outcome, const char* text) {
  std::snprintf(outcome.text, sizeof outcome.text, "%s", text);
}

// Whether it threw; an exception of no type that shoal documents is noted.
bool attempt(const std::function<void()>& operation, Outcome& outcome) {
  try {
    operation();
    return false;
  } catch (const shoal::Error& error) {
    note(outcome, error.what());
  } catch (const std::system_error& error) {
    note(outcome, error.what());
  } catch (const std::bad_alloc& error) {
    note(outcome, error.what());
  } catch (const std::exception& error) {
    note(outcome, error.what());
    outcome.untyped = 1;
  } catch (...) {
    note(outcome, "no std::exception");
    outcome.untyped = 1;
  }
  return true;
}

[[noreturn]] void live(const std::function<void()>& operation,
                       Outcome& outcome) {
  ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
  raise(SIGSTOP);
  mark(kBegin);
  outcome.threw = attempt(operation, outcome) ? 1 : 0;
  mark(kEnd);
  char first[sizeof outcome.text];
  memcpy(first, outcome.text, sizeof first);
  if (attempt(operation, outcome))
    outcome.again_failed = 1;
  else
    memcpy(outcome.text, first, sizeof first);
  _exit(0);
}

// The n-th call of the operation fails; the number of calls that it made, or
// the name of what went wrong.
struct Round {
  bool failed_one = false;
  long call = -1;
  std::string wrong;
};

Round play(int n, int error, const std::function<void()>& operation,
           Outcome& outcome) {
  Round round;
  const pid_t pid = fork();
  if (pid < 0) throw_system_error(errno, "fork", "faults");
  if (pid == 0) live(operation, outcome);
  int status;
  waitpid(pid, &status, 0);
  ptrace(PTRACE_SETOPTIONS, pid, nullptr,
         PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
  bool inside = false;
  bool entering = true;
  bool refusing = false;
  int seen = 0;
  int signal = 0;
  for (;;) {
    ptrace(PTRACE_SYSCALL, pid, nullptr, signal);
    signal = 0;
    if (waitpid(pid, &status, 0) < 0) break;
    if (WIFEXITED(status)) {
      if (WEXITSTATUS(status) != 0) round.wrong = "the child exited";
      break;
    }
    if (WIFSIGNALED(status)) {
      round.wrong = "killed by signal " + std::to_string(WTERMSIG(status));
      break;
    }
    if (WSTOPSIG(status) != (SIGTRAP | 0x80)) {
      if (WSTOPSIG(status) != SIGTRAP) signal = WSTOPSIG(status);
      continue;
    }
    user_regs_struct registers{};
    ptrace(PTRACE_GETREGS, pid, nullptr, &registers);
    const auto call = static_cast<long>(registers.orig_rax);
    if (entering) {
      if (call == SYS_getpgid) {
        if (static_cast<long>(registers.rdi) == kBegin) inside = true;
        if (static_cast<long>(registers.rdi) == kEnd) inside = false;
      } else if (inside &&
                 std::find(std::begin(kRefusable), std::end(kRefusable),
                           call) != std::end(kRefusable)) {
        if (seen++ == n) {
          round.failed_one = refusing = true;
          round.call = call;
          registers.orig_rax = static_cast<unsigned long long>(-1);
          ptrace(PTRACE_SETREGS, pid, nullptr, &registers);
        }
      }
    } else if (std::exchange(refusing, false)) {
      registers.rax = static_cast<unsigned long long>(-error);
      ptrace(PTRACE_SETREGS, pid, nullptr, &registers);
    }
    entering = !entering;
  }
  return round;
}

}  // namespace

FaultReport fail_each_call(int error, const std::function<void()>& operation) {
  FaultReport report;
  for (int n = 0;; ++n) {
    Shared<Outcome> outcome;
    const Round round = play(n, error, operation, *outcome);
    const auto complain = [&](const std::string& what) {
      report.wrong.push_back("call " + std::to_string(n) + " (number " +
                             std::to_string(round.call) + "): " + what + ": " +
                             outcome->text);
    };
    if (!round.wrong.empty()) complain(round.wrong);
    if (!round.failed_one) break;
    ++report.calls;
    report.refusals += outcome->threw;
    if (outcome->threw != 0) report.texts.push_back(outcome->text);
    if (outcome->untyped != 0) complain("an untyped error");
    if (outcome->again_failed != 0) complain("the next attempt failed");
    if (n > 2000) {
      complain("no end");
      break;
    }
  }
  return report;
}

}  // namespace shoal::support
