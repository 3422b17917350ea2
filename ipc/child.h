#pragma once
// child: what a forked process does around the code it was forked for.
//
//   child::prepare();
//   auto [pid, pidfd] = child::start("worker", self, {}, [&] { work(); });
//
// These two do all of it. after_fork(), guard_exit(), end_with() and run() are
// its parts, for a child that was forked in another way.
//
// Sharing: start() from any thread; the others in a child that has one thread.
// Death:   a child that is killed at once is still the one behind the pidfd: it
//          runs nothing of its own, and does not exit, before its parent has
//          it.

#include <sys/types.h>

#include <functional>
#include <iosfwd>
#include <memory>
#include <string>

#include "shoal/ipc/pidfd.h"

namespace shoal::child {

struct Setup {
  bool null_stdin = true;  // read from /dev/null
  bool ignore_sigint = false;
  bool default_sigint = false;
  bool default_signals = false;    // SIGTERM and SIGCHLD; else as in the parent
  bool clear_signal_mask = false;  // else that of the thread that forked
};

struct Started {
  pid_t pid = 0;
  std::shared_ptr<const Pidfd> pidfd;
  // The child ended, and a foreign wait() reaped it, before it had a pidfd:
  // this one is of no process, only always readable.
  bool lost = false;
};

// Before start(), and with no lock in hands: waits for those who have stdout's
// or the loader's, and may be about to start a process, too.
void prepare();

// Forks a child that runs `body` as run() does. `self` is of the calling
// process. std::system_error with `name` when the kernel refuses; then there is
// no child.
Started start(const std::string& name, const Pidfd& self, const Setup& setup,
              const std::function<void()>& body);

// False of one with a buffer such as those of libstdc++'s start, which have
// nothing beyond what stdio has.
bool keeps_output(const std::ostream& stream);

// Writes out stdout, stderr, cout, cerr and clog. Other FILEs are left alone:
// one that another thread reads from would block the caller.
void flush_standard_streams();

// Stdin, signals, and the parent's unwritten output forgotten, in whichever
// FILE it waits, so that only the parent writes it.
void after_fork(const Setup& setup);

// From here on exit() runs the handlers and static destructors registered later
// than this, flushes, and ends the process; quick_exit() likewise, without the
// flush. Those inherited do not run. (thread_local objects that the forking
// thread had are destroyed: glibc does that before all handlers.)
void guard_exit();

// A thread that ends this process by SIGKILL when `parent`, of which `pid` is,
// has ended.
void end_with(pid_t pid, std::shared_ptr<const Pidfd> parent);

// Never lets anything into the frames above: ends by exit(0), or exit(1) after
// "Process <name> (<pid>): terminate: <type>: <text>" on stderr.
[[noreturn]] void run(const std::string& name,
                      const std::function<void()>& body) noexcept;

// "<type>: <what()>", or "<type>" of what is no std::exception. In a handler.
std::string describe_current_exception();

}  // namespace shoal::child
