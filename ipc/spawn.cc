#include "shoal/ipc/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memory>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "shoal/ipc/build_id.h"
#include "shoal/ipc/descriptor.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/file_text.h"
#include "shoal/ipc/lazy_static.h"
#include "shoal/ipc/takeover.h"

namespace shoal::spawn {
namespace {

constexpr char kProgram[] = "/proc/self/exe";
constexpr std::size_t kStack = 64 << 10;

using Mask = std::uint64_t;  // as the kernel has it: bit n - 1 is signal n

Mask set_mask(Mask mask) {
  Mask before = 0;
  syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, &before, sizeof mask);
  return before;
}

// As rt_sigaction(2) has it.
struct KernelAction {
  void (*handler)(int);
  unsigned long flags;
  void (*restorer)();
  Mask mask;
};

// What the new process does while it still has our memory.
struct Execution {
  char* const* arguments;
  char* const* environment;
  int channel;
  int starter;
  Mask mask;
  int error = 0;
};

// Only system calls, and nothing but its own stack and `execution` is written.
__attribute__((no_sanitize("address", "thread", "undefined"))) int execute(
    void* argument) {
  auto& execution = *static_cast<Execution*>(argument);
  // None of our handlers may run there once signals are let through.
  for (int number = 1; number <= 64; ++number) {
    KernelAction action;
    if (syscall(SYS_rt_sigaction, number, nullptr, &action, sizeof(Mask)) !=
            0 ||
        action.handler == SIG_DFL || action.handler == SIG_IGN)
      continue;
    action = {};
    syscall(SYS_rt_sigaction, number, &action, nullptr, sizeof(Mask));
  }
  syscall(SYS_fcntl, execution.channel, F_SETFD, 0);
  syscall(SYS_fcntl, execution.starter, F_SETFD, 0);
  syscall(SYS_rt_sigprocmask, SIG_SETMASK, &execution.mask, nullptr,
          sizeof(Mask));
  syscall(SYS_execve, kProgram, execution.arguments, execution.environment);
  execution.error = errno;
  _exit(127);
}

class Stack {
 public:
  Stack()
      : memory_(mmap(nullptr, kStack, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0)) {
    if (memory_ == MAP_FAILED)
      throw_system_error(errno, "mmap", "stack", kStack);
  }
  Stack(const Stack&) = delete;
  Stack& operator=(const Stack&) = delete;
  ~Stack() { munmap(memory_, kStack); }
  void* top() const { return static_cast<char*>(memory_) + kStack; }

 private:
  void* memory_;
};

// Those that the program was started with, whatever has become of main's.
std::vector<std::string> arguments() {
  auto found = split(text_of_file("/proc/self/cmdline"), '\0');
  if (found.empty()) found.emplace_back(program_invocation_name);
  return found;
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> found;
  for (std::string& text : texts) found.push_back(text.data());
  found.push_back(nullptr);
  return found;
}

void require_same_program() {
  // Once: the kernel lets nobody change what it executes.
  static constinit LazyStatic<const bool> known;
  const bool same = known.get([] {
    return std::make_unique<const bool>(build_id::is_this_program(kProgram));
  });
  if (!same)
    throw Error(
        std::string("shoal: ") + kProgram +
        " is not the program that runs here (it was started by way of its "
        "loader, or under an emulator): start it by its own name, or use "
        "StartMethod::fork");
}

struct Executed {
  pid_t pid = 0;
  std::shared_ptr<const Pidfd> pidfd;
};

Executed execute_program(const std::string& name, int channel, int starter) {
  std::vector<std::string> words = arguments();
  std::string marker = std::string(takeover::kVariable) + '=' +
                       std::to_string(channel) + ',' + std::to_string(starter);
  std::vector<char*> environment;
  for (char** variable = environ; variable != nullptr && *variable != nullptr;
       ++variable)
    if (!std::string_view(*variable).starts_with(takeover::kVariable))
      environment.push_back(*variable);
  environment.push_back(marker.data());
  environment.push_back(nullptr);
  const std::vector<char*> given = pointers(words);
  const Stack stack;
  Execution execution = {.arguments = given.data(),
                         .environment = environment.data(),
                         .channel = channel,
                         .starter = starter,
                         .mask = set_mask(~Mask{0})};
  int pidfd = -1;
  const pid_t pid =
      clone(execute, stack.top(),
            CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, &execution, &pidfd);
  const int error = errno;
  set_mask(execution.mask);
  if (pid < 0) throw_system_error(error, "clone", name);
  Executed executed;
  try {
    executed = {pid, std::make_shared<Pidfd>(Pidfd(above_stdio(pidfd)))};
  } catch (...) {
    ::kill(pid, SIGKILL);  // it waits for what it is to do
    while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
    }
    throw;
  }
  if (execution.error != 0) {
    executed.pidfd->await_status();
    throw_system_error(execution.error, "execve",
                       name + ", " + std::string(kProgram));
  }
  return executed;
}

// Whatever it does now, it ends.
int end(const Pidfd& process) {
  process.signal(SIGKILL);
  return process.await_status();
}

}  // namespace

void require_possible() {
  if (takeover::in_static_initialisers())
    throw std::logic_error(
        "shoal: a static initialiser of a process that was started anew cannot "
        "start another, which would do the same: start it in main, or only "
        "where parent_process() is nothing");
  if (!takeover::wrapped())
    throw Error(
        "shoal: this program cannot be started anew: shoal is in a library "
        "that was loaded after its start, or its C library is not a shared "
        "one; link shoal into the program, or use StartMethod::fork");
  require_same_program();
}

void throw_ended(const std::string& name, pid_t pid, int exitcode) {
  throw WorkerDied("process " + name + " (" + std::to_string(pid) +
                       ") ended before it began: exit code " +
                       std::to_string(exitcode),
                   pid, exitcode, 0);
}

Started start(const handover::Introduction& introduction,
              const handover::Parcel& parcel) {
  require_possible();
  const Pidfd self = Pidfd::open(getpid());
  handover::Ends ends = handover::make_ends(introduction.name);
  child::flush_standard_streams();
  const Executed executed =
      execute_program(introduction.name, ends.other.get(), self.get());
  ends.other.reset();
  std::optional<std::vector<Descriptor>> reply;
  try {
    reply =
        handover::offer(ends.one.get(), *executed.pidfd, introduction, parcel);
  } catch (...) {
    end(*executed.pidfd);
    throw;
  }
  if (!reply)
    throw_ended(introduction.name, executed.pid, end(*executed.pidfd));
  return {.child = {.pid = executed.pid, .pidfd = executed.pidfd},
          .channel = std::move(ends.one),
          .reply = std::move(*reply)};
}

}  // namespace shoal::spawn
