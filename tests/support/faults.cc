#include "tests/support/faults.h"

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <exception>
#include <new>
#include <set>
#include <sstream>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "shoal/ipc/errors.h"
#include "tests/support/child.h"
#include "tests/support/orphans.h"
#include "tests/support/refusable.h"
#include "tests/support/residue.h"

namespace shoal::support {
namespace {

// Marks the operation's end, by a call that nobody makes.
constexpr long kEnd = 0x5A0A2;
void mark_end() { syscall(SYS_getpgid, kEnd); }

struct Outcome {
  std::atomic<int> threw;
  std::atomic<int> untyped;
  std::atomic<int> again_failed;
  char text[600];
  char again[600];
  char belongings[16 << 10];
};

template <std::size_t N>
void note(char (&place)[N], const std::string& text) {
  std::snprintf(place, N, "%s", text.c_str());
}

// Whether it threw; an exception of no type that shoal documents is noted.
template <std::size_t N>
bool attempt(const std::function<void()>& operation, Outcome& outcome,
             char (&text)[N]) {
  try {
    operation();
    return false;
  } catch (const shoal::Error& error) {
    note(text, error.what());
  } catch (const std::system_error& error) {
    note(text, error.what());
  } catch (const std::bad_alloc& error) {
    note(text, error.what());
  } catch (const std::exception& error) {
    note(text, error.what());
    outcome.untyped = 1;
  } catch (...) {
    note(text, "no std::exception");
    outcome.untyped = 1;
  }
  return true;
}

std::string text_of(const std::multiset<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) text += line + '\n';
  return text;
}

std::multiset<std::string> lines_of(const char* text) {
  std::multiset<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.insert(line);
  return lines;
}

[[noreturn]] void live(const std::function<void()>& operation,
                       const std::function<void()>& prepare, Outcome& outcome) {
  if (prepare && attempt(prepare, outcome, outcome.again)) _exit(2);
  ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
  raise(SIGSTOP);
  outcome.threw = attempt(operation, outcome, outcome.text) ? 1 : 0;
  mark_end();
  outcome.again_failed = attempt(operation, outcome, outcome.again) ? 1 : 0;
  note(outcome.belongings, text_of(kinds_of_belongings()));
  _exit(0);
}

// Ends the child when it takes longer than anything should: the signal
// interrupts waitpid().
class Alarm {
 public:
  Alarm() {
    struct sigaction action = {};
    action.sa_handler = [](int) {};
    sigaction(SIGALRM, &action, &before_);
    alarm(static_cast<unsigned>(kPatience.count()));
  }
  Alarm(const Alarm&) = delete;
  Alarm& operator=(const Alarm&) = delete;
  ~Alarm() {
    alarm(0);
    sigaction(SIGALRM, &before_, nullptr);
  }

 private:
  struct sigaction before_;
};

// The n-th call of the operation fails; which, and what went wrong.
struct Round {
  bool failed_one = false;
  long call = -1;
  std::string wrong;
};

// n < 0: none. Once that call has failed, or at the operation's end, the child
// runs on untraced: the stops are what takes time.
Round play(int n, int error, const std::function<void()>& operation,
           const std::function<void()>& prepare, Outcome& outcome) {
  Round round;
  const pid_t pid = fork();
  if (pid < 0) throw_system_error(errno, "fork", "faults");
  if (pid == 0) live(operation, prepare, outcome);
  const Alarm alarm;
  bool traced = false;
  bool entering = true;
  bool refusing = false;
  int seen = 0;
  for (;;) {
    int status;
    if (waitpid(pid, &status, 0) < 0) {
      round.wrong = "no end";
      kill(pid, SIGKILL);
      waitpid(pid, &status, 0);
      break;
    }
    if (WIFEXITED(status)) {
      if (WEXITSTATUS(status) != 0) round.wrong = "the child exited";
      break;
    }
    if (WIFSIGNALED(status)) {
      round.wrong = "killed by signal " + std::to_string(WTERMSIG(status));
      break;
    }
    int signal = 0;
    auto go_on = PTRACE_SYSCALL;
    if (!std::exchange(traced, true)) {
      ptrace(PTRACE_SETOPTIONS, pid, nullptr,
             PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
    } else if (WSTOPSIG(status) != (SIGTRAP | 0x80)) {
      if (WSTOPSIG(status) != SIGTRAP) signal = WSTOPSIG(status);
    } else if (std::exchange(entering, !entering)) {
      user_regs_struct registers{};
      ptrace(PTRACE_GETREGS, pid, nullptr, &registers);
      const auto call = static_cast<long>(registers.orig_rax);
      if (call == SYS_getpgid && static_cast<long>(registers.rdi) == kEnd) {
        go_on = PTRACE_DETACH;
      } else if (refusable(registers, error) && seen++ == n) {
        round.failed_one = refusing = true;
        round.call = call;
        registers.orig_rax = static_cast<unsigned long long>(-1);
        ptrace(PTRACE_SETREGS, pid, nullptr, &registers);
      }
    } else if (refusing) {
      user_regs_struct registers{};
      ptrace(PTRACE_GETREGS, pid, nullptr, &registers);
      registers.rax = static_cast<unsigned long long>(-error);
      ptrace(PTRACE_SETREGS, pid, nullptr, &registers);
      go_on = PTRACE_DETACH;
    }
    ptrace(go_on, pid, nullptr, signal);
  }
  return round;
}

}  // namespace

void accompany(const std::function<void()>& body) {
  const pid_t parent = getpid();
  if (fork() != 0) return;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  while (getppid() == parent) {
    try {
      body();
    } catch (const std::exception&) {
      // Of the other side's faults.
    }
  }
  _exit(0);
}

FaultReport fail_each_call(int error, const std::function<void()>& operation,
                           const std::function<void()>& prepare) {
  FaultReport report;
  const Orphans orphans;
  std::multiset<std::string> usual;
  for (int n = -1;; ++n) {
    Shared<Outcome> outcome;
    const Round round = play(n, error, operation, prepare, *outcome);
    const auto complain = [&](const std::string& what, const char* text) {
      report.wrong.push_back("call " + std::to_string(n) + " (number " +
                             std::to_string(round.call) + "): " + what + ": " +
                             text);
    };
    if (!round.wrong.empty()) {
      complain(round.wrong,
               outcome->text[0] != 0 ? outcome->text : outcome->again);
      if (n < 0) break;
    }
    if (outcome->untyped != 0) complain("an untyped error", outcome->text);
    if (outcome->again_failed != 0)
      complain("the next attempt failed", outcome->again);
    std::multiset<std::string> left = lines_of(outcome->belongings);
    if (n < 0) {
      if (outcome->threw != 0) complain("without a fault", outcome->text);
      usual = std::move(left);
      continue;
    }
    if (!round.failed_one) break;
    for (const std::string& line : usual)
      if (const auto found = left.find(line); found != left.end())
        left.erase(found);
    for (const std::string& line : left)
      complain("left behind " + line, outcome->text);
    ++report.calls;
    report.refusals += outcome->threw;
    if (outcome->threw != 0) report.texts.push_back(outcome->text);
    if (n > 2000) {
      complain("no end", outcome->text);
      break;
    }
  }
  if (!orphans.all_end()) report.wrong.push_back("a process lives on");
  return report;
}

}  // namespace shoal::support
