#pragma once
// Bell: a descriptor that is readable while something in shared memory is
// ready, for poll, epoll and event loops.
//
//   Bell bell({.ready = [&] { return !queue.empty(); },
//              .sleep = [&](auto& stop) { ... },       // until ready or stop
//              .wake = [&] { queue.wake_all(); }});
//   poll(bell.descriptor(), ...);
//   if (queue.try_get()) bell.look();                  // it may be empty now
//
// A thread sleeps as any consumer does, and writes an eventfd when there is
// something; look() takes that back at once when this process has taken the
// last of it. What other processes take the thread notices by looking again, in
// growing distances up to 50 ms: until then the descriptor may be readable in
// vain, as a socket may. It is never unreadable beside something ready for
// longer than the thread takes to run.
//
// Sharing:  any thread. A forked child has no thread, and makes its own Bell.
// Cost:     a thread and a descriptor in each process that asks for it.

#include <pthread.h>

#include <atomic>
#include <cstdint>
#include <functional>

#include "shoal/ipc/fork_mutex.h"
#include "shoal/ipc/futex.h"

namespace shoal {

class Bell {
 public:
  struct Source {
    std::function<bool()> ready;
    // Until ready, or woken by `wake` after stop has become true.
    std::function<void(const std::atomic<bool>& stop)> sleep;
    std::function<void()> wake;
  };

  // Throws std::system_error.
  explicit Bell(Source source);
  Bell(const Bell&) = delete;
  Bell& operator=(const Bell&) = delete;
  // Ends the thread, and closes the descriptor. In a forked child only the
  // latter.
  ~Bell();

  int descriptor() const { return descriptor_; }
  // Made by this very process.
  bool mine() const { return depth_ == liveness::fork_depth(); }
  // Looks whether the descriptor says what is; after something was taken.
  void look();

 private:
  static void* run(void* bell);
  void live();

  const Source source_;
  const std::uint64_t depth_;
  int descriptor_;
  pthread_t thread_;
  ForkMutex mutex_;  // of readable_ and of the descriptor's count
  bool readable_ = false;
  futex::Word looks_{0};  // grows when look() has changed something
  std::atomic<bool> stop_{false};
  std::atomic<bool> ended_{false};
};

}  // namespace shoal
