#include "tests/support/family.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "shoal/ipc/errors.h"
#include "tests/support/child.h"
#include "tests/support/refusable.h"

namespace shoal::support {
namespace {

constexpr long kOptions = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK |
                          PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE |
                          PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL;

pid_t process_of(pid_t thread) {
  std::ifstream file("/proc/" + std::to_string(thread) + "/status");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("Tgid:")) return std::stoi(line.substr(5));
  return thread;
}

[[noreturn]] void live(const std::function<void()>& body) {
  if (ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) _exit(2);
  raise(SIGSTOP);
  try {
    body();
  } catch (const std::exception& exception) {
    fprintf(stderr, "family: %s\n", exception.what());
    _exit(1);
  }
  _exit(0);
}

class Family {
 public:
  // To be killed.
  Family(std::size_t target, std::size_t k) : target_(target), k_(k) {}
  // To be refused something.
  Family(std::size_t target, std::size_t k, int error,
         const std::atomic<bool>& enough)
      : target_(target), k_(k), error_(error), enough_(&enough) {}

  FamilyEnd watch(pid_t first) {
    first_ = first;
    const Deadline deadline(kPatience);
    while (!deadline.passed()) {
      int status = 0;
      const pid_t thread = waitpid(-1, &status, __WALL | WNOHANG);
      if (thread < 0) {
        end_.all_ended = errno == ECHILD;
        break;
      }
      if (thread == 0) {
        sched_yield();
      } else if (WIFSTOPPED(status)) {
        go_on(thread, status);
      } else {
        ended(thread, status);
      }
    }
    if (!end_.all_ended) kill_all();
    end_.members = members_.size();
    return end_;
  }

 private:
  void go_on(pid_t thread, int status) {
    const int event = status >> 16;
    int signal = WSTOPSIG(status);
    if (known_.emplace(thread, true).second) {
      if (thread == first_)
        ptrace(PTRACE_SETOPTIONS, thread, nullptr, kOptions);
      if (process_of(thread) == thread) members_.push_back(thread);
      signal = 0;  // the one that it began with
    } else if (event != 0) {
      signal = 0;
    } else if (signal == (SIGTRAP | 0x80)) {
      signal = 0;
      if (is_target(thread) && error_ != 0) {
        refuse(thread);
      } else if (is_target(thread) && enters_call(thread) && calls_++ == k_) {
        ::kill(thread, SIGKILL);
        return;
      }
    }
    ptrace(is_target(thread) ? PTRACE_SYSCALL : PTRACE_CONT, thread, nullptr,
           static_cast<long>(signal));
  }

  bool is_target(pid_t thread) const {
    return target_ < members_.size() && members_[target_] == thread;
  }

  void refuse(pid_t thread) {
    const bool enters = enters_call(thread);
    if (enters == refusing_) return;  // another's, or not our call's end
    user_regs_struct registers{};
    ptrace(PTRACE_GETREGS, thread, nullptr, &registers);
    if (!enters) {
      registers.rax = static_cast<unsigned long long>(-error_);
      end_.refused = true;
    } else {
      if (*enough_ || !refusable(registers, error_) || calls_++ != k_) return;
      registers.orig_rax = static_cast<unsigned long long>(-1);
    }
    ptrace(PTRACE_SETREGS, thread, nullptr, &registers);
    refusing_ = enters;
  }

  static bool enters_call(pid_t thread) {
    __ptrace_syscall_info info = {};
    ptrace(PTRACE_GET_SYSCALL_INFO, thread, sizeof info, &info);
    return info.op == PTRACE_SYSCALL_INFO_ENTRY;
  }

  void ended(pid_t thread, int status) {
    const int code =
        WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
    if (thread == first_) end_.status = code;
    if (is_target(thread) && calls_ > k_) end_.killed = code == -SIGKILL;
    known_.erase(thread);
  }

  void kill_all() {
    for (const pid_t member : members_)
      if (known_.contains(member)) ::kill(member, SIGKILL);
    while (waitpid(-1, nullptr, __WALL) > 0) {
    }
  }

  const std::size_t target_;
  const std::size_t k_;
  const int error_ = 0;
  const std::atomic<bool>* const enough_ = nullptr;
  bool refusing_ = false;  // between the call's two stops
  std::size_t calls_ = 0;
  pid_t first_ = 0;
  std::vector<pid_t> members_;
  std::map<pid_t, bool> known_;  // threads that live
  FamilyEnd end_;
};

FamilyEnd watch(Family family, const std::function<void()>& body) {
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  fflush(nullptr);
  const pid_t pid = fork();
  if (pid < 0) throw_system_error(errno, "fork", "family");
  if (pid == 0) live(body);
  const FamilyEnd end = family.watch(pid);
  prctl(PR_SET_CHILD_SUBREAPER, 0);
  return end;
}

}  // namespace

FamilyEnd kill_in_family(std::size_t member, std::size_t k,
                         const std::function<void()>& body) {
  return watch(Family(member, k), body);
}

FamilyEnd refuse_in_family(
    std::size_t member, std::size_t k, int error,
    const std::function<void(std::atomic<bool>& enough)>& body) {
  Shared<std::atomic<bool>> enough;
  return watch(Family(member, k, error, *enough), [&] { body(*enough); });
}

}  // namespace shoal::support
