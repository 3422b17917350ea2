#include "shoal/ipc/bell.h"

#include <errno.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <mutex>
#include <utility>

#include "shoal/ipc/blocked_signals.h"
#include "shoal/ipc/descriptor.h"
#include "shoal/ipc/errors.h"

namespace shoal {

Bell::Bell(Source source)
    : source_(std::move(source)),
      depth_(liveness::fork_depth()),
      descriptor_(above_stdio(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK))) {
  if (descriptor_ < 0) throw_system_error(errno, "eventfd", "fileno()");
  int error;
  {
    // Signals are for the program's own threads.
    const BlockedSignals inherited;
    error = pthread_create(&thread_, nullptr, run, this);
  }
  if (error == 0) return;
  close();
  throw_system_error(error, "pthread_create", "fileno()");
}

Bell::~Bell() {
  if (mine()) {
    // SYNC(bell.stop)
    stop_.store(true, std::memory_order_seq_cst);
    // Again and again: it may be about to sleep.
    // SYNC(bell.ended)
    while (!ended_.load(std::memory_order_acquire)) {
      looks_.fetch_add(1, std::memory_order_seq_cst);
      futex::wake(looks_, futex::kAll);
      source_.wake();
      sched_yield();
    }
    pthread_join(thread_, nullptr);
  }
  close();
}

void Bell::close() noexcept {
  if (descriptor_ >= 0) ::close(std::exchange(descriptor_, -1));
}

void Bell::look() {
  const std::lock_guard guard(mutex_);
  const bool ready = source_.ready();
  if (ready == readable_) return;
  readable_ = ready;
  std::uint64_t count = 1;
  const auto outcome = ready ? write(descriptor_, &count, sizeof count)
                             : read(descriptor_, &count, sizeof count);
  static_cast<void>(outcome);  // the program may have read or closed it
  // seq_cst: against the thread that compares it before it sleeps.
  looks_.fetch_add(1, std::memory_order_seq_cst);
  futex::wake(looks_, futex::kAll);
}

void Bell::look_again() noexcept {
  try {
    look();
  } catch (const std::exception&) {
    // seq_cst: as in look().
    looks_.fetch_add(1, std::memory_order_seq_cst);
    futex::wake(looks_, futex::kAll);
  }
}

void* Bell::run(void* bell) {
  auto& self = *static_cast<Bell*>(bell);
  try {
    self.live();
  } catch (...) {
    // No seat is left, or the object is corrupt: readable, so that the
    // program's own call meets the error.
    const std::uint64_t one = 1;
    static_cast<void>(!write(self.descriptor_, &one, sizeof one));
  }
  // SYNC(bell.ended)
  self.ended_.store(true, std::memory_order_release);
  return nullptr;
}

void Bell::live() {
  using std::chrono::milliseconds;
  constexpr milliseconds kMost{50};
  milliseconds pause{1};
  // SYNC(bell.stop)
  while (!stop_.load(std::memory_order_seq_cst)) {
    const std::uint32_t looks = looks_.load(std::memory_order_seq_cst);
    look();
    bool readable;
    {
      const std::lock_guard guard(mutex_);
      readable = readable_;
    }
    if (!readable) {
      source_.sleep(stop_);
      pause = milliseconds(1);
    } else {
      // Until this process takes something, or for a while.
      futex::wait(looks_, looks, Timeout(pause));
      pause = std::min(2 * pause, kMost);
    }
  }
}

}  // namespace shoal
