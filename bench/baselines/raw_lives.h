#pragma once
// What the lives of a pool's processes cost the kernel alone: a process that
// forks some, and the end of one that kills itself.

#include <signal.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

namespace shoal::bench {

class RawLives {
 public:
  // Forks a process that forks `children`, each of which waits; returns when
  // all of them have been forked, told to end and reaped.
  static void nested(int children) {
    const int forked = make_event();
    const int end = make_event();
    const pid_t nursery = start([=] {
      for (int n = 0; n < children; ++n) start([=] { await(end); });
      eventfd_write(forked, 1);
      while (wait(nullptr) > 0) {
      }
    });
    await(forked);
    eventfd_write(end, static_cast<eventfd_t>(children));
    if (waitpid(nursery, nullptr, 0) < 0) fail("waitpid");
    close(forked);
    close(end);
  }

  // A child runs `last` and kills itself; returns when that is known.
  template <class F>
  static void death(F last) {
    const pid_t child = start([&] {
      last();
      raise(SIGKILL);
    });
    if (waitpid(child, nullptr, 0) < 0) fail("waitpid");
  }

 private:
  [[noreturn]] static void fail(const char* call) {
    throw std::system_error(errno, std::generic_category(), call);
  }
  // A semaphore.
  static int make_event() {
    const int event = eventfd(0, EFD_CLOEXEC | EFD_SEMAPHORE);
    if (event < 0) fail("eventfd");
    return event;
  }
  static void await(int event) {
    eventfd_t value;
    eventfd_read(event, &value);
  }
  template <class F>
  static pid_t start(F f) {
    const pid_t child = fork();
    if (child < 0) fail("fork");
    if (child != 0) return child;
    f();
    _exit(0);
  }
};

}  // namespace shoal::bench
