#pragma once
// For tests that hold a process still in the midst of an operation: what the
// others do meanwhile.
//
//   round.step(victim);
//   somebody_dies();                       // so that others look for the dead
//   round.expect(!lock.acquire(brief()), "two have it");
//   round.expect(victim.resume(), "stuck after it was let go");

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <functional>

#include "shoal/ipc/errors.h"
#include "shoal/ipc/liveness.h"
#include "shoal/ipc/timeout.h"
#include "tests/support/child.h"

namespace shoal::support {

// How long to wait for who may stand still: now and then longer than the slice
// after which a holder is looked up in /proc.
inline Timeout brief() {
  static int calls = 0;
  return std::chrono::milliseconds(++calls % 64 == 0 ? 130 : 1);
}

// A process joins, does that, and is killed.
inline void somebody_dies(const std::function<void()>& work = [] {}) {
  Child dead([&](Child&) {
    liveness::Domain::tree()->seat();
    work();
    raise(SIGKILL);
  });
  if (dead.join() != -SIGKILL)
    throw Error("it did not die: " + dead.failures());
}

// What a victim waits for before it does more: asleep, so that it is seen to
// have ended its operation.
class Signal {
 public:
  Signal() {
    if (pipe2(ends_.data(), O_CLOEXEC) != 0)
      throw_system_error(errno, "pipe2", "Signal");
  }
  Signal(const Signal&) = delete;
  Signal& operator=(const Signal&) = delete;
  ~Signal() {
    for (const int end : ends_) close(end);
  }

  void give() {
    if (write(ends_[1], "", 1) != 1) throw_system_error(errno, "write");
  }
  void await() const {
    pollfd polled{ends_[0], POLLIN, 0};
    if (poll(&polled, 1, 60'000) != 1) throw Error("no signal was given");
  }

 private:
  std::array<int, 2> ends_;
};

}  // namespace shoal::support
