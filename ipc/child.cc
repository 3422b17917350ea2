#include "shoal/ipc/child.h"

#include <cxxabi.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <exception>
#include <ext/stdio_sync_filebuf.h>
#include <iostream>
#include <optional>
#include <string_view>
#include <system_error>
#include <typeinfo>
#include <utility>

#include "shoal/ipc/blocked_signals.h"
#include "shoal/ipc/descriptor.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/function.h"
#include "shoal/ipc/lazy_static.h"
#include "shoal/ipc/timeout.h"

// at_quick_exit() for a handler with an argument. glibc calls what is
// registered here with the exit status behind that argument.
// NOLINTNEXTLINE(bugprone-reserved-identifier): glibc's name
extern "C" int __cxa_at_quick_exit(void (*handler)(void*), void* dso);

namespace shoal::child {
namespace {

// Holds a child back until its parent has a pidfd of it: a child that had ended
// before could have been reaped by a foreign wait(), and its pid be another's.
class Gate {
 public:
  explicit Gate(const std::string& name)
      : fd_(above_stdio(eventfd(0, EFD_CLOEXEC))) {
    if (fd_ < 0) throw_system_error(errno, "eventfd", name);
  }
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;
  ~Gate() {
    if (fd_ >= 0) close(fd_);
  }

  void open() const { eventfd_write(fd_, 1); }
  // Also when `parent` was killed; a sibling may hold its gate.
  void pass(const Pidfd& parent) {
    wait_readable({fd_, parent.get()}, forever);
    close(release());
  }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

// glibc's list of all FILEs and its lock, which no header declares. By dlsym,
// since a direct use of the list would get a copy in programs that are not PIE.
struct AllFiles {
  FILE** first = static_cast<FILE**>(dlsym(RTLD_DEFAULT, "_IO_list_all"));
  void (*lock)() = reinterpret_cast<void (*)()>(dlsym(RTLD_DEFAULT,
                                                      "_IO_list_lock"));
  void (*unlock)() = reinterpret_cast<void (*)()>(dlsym(RTLD_DEFAULT,
                                                        "_IO_list_unlock"));

  static const AllFiles& instance() {
    static constinit LazyStatic<const AllFiles> files;
    return files.get();
  }

  // False if this C library has no such list.
  template <class F>
  bool for_each_with_output(F f) const {
    if (first == nullptr || lock == nullptr || unlock == nullptr) return false;
    lock();
    for (FILE* file = *first; file != nullptr; file = file->_chain)
      if (__fpending(file) != 0) f(file);
    unlock();
    return true;
  }
};

void flush_iostreams() noexcept {
  for (std::ostream* stream : {&std::cout, &std::cerr, &std::clog}) {
    try {
      if (keeps_output(*stream)) stream->flush();
    } catch (...) {  // a stream with exceptions(): there is nobody to tell
    }
  }
}

void forget_inherited_output() {
  if (AllFiles::instance().for_each_with_output(__fpurge)) return;
  __fpurge(stdout);
  __fpurge(stderr);
}

void read_from_null() {
  // What the parent had read ahead is the parent's.
  __fpurge(stdin);
  const std::streamsize ahead = std::cin.rdbuf()->in_avail();
  if (ahead > 0) std::cin.ignore(ahead);
  close(STDIN_FILENO);
  // Takes the lowest free number, that of stdin; or there is no input at all.
  static_cast<void>(open("/dev/null", O_RDONLY));
  clearerr(stdin);
  std::cin.clear();
}

void set_handler(int number, void (*handler)(int)) {
  struct sigaction action = {};
  action.sa_handler = handler;
  sigaction(number, &action, nullptr);
}

// In one write, as far as the kernel lets it: processes share a terminal.
void complain(const std::string& name, const std::string& why) {
  const std::string text = "Process " + name + " (" + std::to_string(getpid()) +
                           "): terminate: " + why + '\n';
  std::string_view rest = text;
  while (!rest.empty()) {
    const ssize_t n = write(STDERR_FILENO, rest.data(), rest.size());
    if (n < 0 && errno != EINTR) return;
    if (n > 0) rest.remove_prefix(static_cast<std::size_t>(n));
  }
}

extern "C" void leave_by_exit(int status, void*) {
  flush_iostreams();
  // Not fflush(nullptr) if it can be helped: that takes the lock of every FILE,
  // also of one that another thread is blocked reading from.
  if (!AllFiles::instance().for_each_with_output(fflush)) fflush(nullptr);
  _exit(status);
}

extern "C" void leave_by_quick_exit(void*, int status) { _exit(status); }

// The parent is not always the one that the kernel calls so: that of a
// forkserver's child is who asked for it.
struct Watched {
  std::shared_ptr<const Pidfd> pidfd;
  pid_t pid;
  std::optional<std::uint64_t> started;  // as of start_time()
};

extern "C" void* watch(void* argument) {
  const std::unique_ptr<Watched> parent(static_cast<Watched*>(argument));
  try {
    parent->pidfd->wait(forever);
  } catch (const std::system_error&) {
    // The program closed a descriptor that was not its own.
    while (parent->started && start_time(parent->pid) == parent->started)
      poll(nullptr, 0, 100);
  }
  kill(getpid(), SIGKILL);
  return nullptr;
}

}  // namespace

void prepare() {
  AllFiles::instance();  // dlsym is not for forked children of threads
  function::note_modules();
  flush_standard_streams();
}

Started start(const std::string& name, const Pidfd& self, const Setup& setup,
              const std::function<void()>& body) {
  Gate gate(name);
  const auto pidfd = std::make_shared<Pidfd>();
  // No handler of the parent's runs in a child that is not set up.
  BlockedSignals blocked;
  // Made here: a child without memory for it would throw into the caller.
  const std::function<void()> all = [&] {
    guard_exit();
    after_fork(setup);
    setup.clear_signal_mask ? blocked.clear() : blocked.restore();
    gate.pass(self);
    body();
  };
  const pid_t pid = fork();
  if (pid < 0) throw_system_error(errno, "fork", name);
  if (pid == 0) run(name, all);
  bool lost = false;
  try {
    *pidfd = Pidfd::open(pid);
  } catch (const std::system_error& error) {
    lost = error.code().value() == ESRCH;
    if (!lost) {
      ::kill(pid, SIGKILL);  // it waits at the gate
      while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
      }
      throw;
    }
  }
  gate.open();
  if (lost) *pidfd = Pidfd(gate.release());
  return {.pid = pid, .pidfd = pidfd, .lost = lost};
}

bool keeps_output(const std::ostream& stream) {
  const std::streambuf* const buffer = stream.rdbuf();
  return buffer != nullptr &&
         typeid(*buffer) != typeid(__gnu_cxx::stdio_sync_filebuf<char>);
}

void flush_standard_streams() {
  flush_iostreams();
  fflush(stdout);
  fflush(stderr);
}

void after_fork(const Setup& setup) {
  forget_inherited_output();
  if (setup.null_stdin) read_from_null();
  if (setup.ignore_sigint) set_handler(SIGINT, SIG_IGN);
  if (setup.default_sigint) set_handler(SIGINT, SIG_DFL);
  if (setup.default_signals) {
    set_handler(SIGTERM, SIG_DFL);
    set_handler(SIGCHLD, SIG_DFL);
  }
}

void guard_exit() {
  const auto quick = reinterpret_cast<void (*)(void*)>(
      reinterpret_cast<void (*)()>(leave_by_quick_exit));
  if (on_exit(leave_by_exit, nullptr) != 0 ||
      __cxa_at_quick_exit(quick, nullptr) != 0) {
    // Not by exit(), which would run what must not be run.
    complain("?", "no memory for an exit handler");
    _exit(1);
  }
}

void end_with(pid_t pid, std::shared_ptr<const Pidfd> parent) {
  auto argument = std::make_unique<Watched>(
      Watched{std::move(parent), pid, start_time(pid)});
  const BlockedSignals
      blocked;  // the thread inherits it: no handler runs there
  pthread_t thread;
  const int error = pthread_create(&thread, nullptr, watch, argument.get());
  if (error != 0)
    throw_system_error(error, "pthread_create", "watch of the parent");
  argument.release();  // NOLINT(bugprone-unused-return-value): the thread's now
  pthread_detach(thread);
}

// A forced unwind has no object, which UBSan takes ill of the reference to it.
__attribute__((no_sanitize("null"))) void run(
    const std::string& name, const std::function<void()>& body) noexcept {
  int status = 0;
  try {
    body();
  } catch (abi::__forced_unwind&) {
    // pthread_exit(): it would unwind the frames above, and must not be caught
    // and left, so the process ends here.
    std::exit(0);  // NOLINT(concurrency-mt-unsafe): as exit() in main
  } catch (...) {
    flush_standard_streams();
    complain(name, describe_current_exception());
    status = 1;
  }
  std::exit(status);  // NOLINT(concurrency-mt-unsafe): as above
}

std::string describe_current_exception() {
  const std::type_info* type = abi::__cxa_current_exception_type();
  if (type == nullptr) return "foreign exception";
  int error = 0;
  char* const demangled =
      abi::__cxa_demangle(type->name(), nullptr, nullptr, &error);
  std::string text = error == 0 ? demangled : type->name();
  std::free(demangled);
  try {
    throw;
  } catch (const std::exception& exception) {
    if (const char* const what = exception.what(); what != nullptr)
      text += std::string(": ") + what;
  } catch (...) {  // a type that has no text
  }
  return text;
}

}  // namespace shoal::child
