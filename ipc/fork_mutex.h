#pragma once
// A mutex between the threads of one process whose memory may be forked while
// another thread holds it: in the child it is free. For short sections that
// call nothing that blocks.
//
// HeldAtFork: no process is forked within a section of another thread, so that
// a child finds whole what the mutex guards. All of them are taken for a fork,
// so no section of one may enter that of another.
//
//   constinit ForkMutex mutex;
//   const HeldAtFork<mutex> held;

#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <cstdint>

#include "shoal/ipc/liveness.h"

namespace shoal {

class ForkMutex {
 public:
  void lock() {
    const std::uint64_t mine = liveness::fork_depth() + 1;
    std::uint64_t holder = 0;
    // SYNC(fork_mutex): pairs with unlock.
    while (!holder_.compare_exchange_weak(
        holder, mine, std::memory_order_acquire, std::memory_order_relaxed)) {
      if (holder == mine) {
        sched_yield();
        holder = 0;
      }  // else: free, or held by a thread that only the parent has
    }
  }
  // SYNC(fork_mutex)
  void unlock() { holder_.store(0, std::memory_order_release); }

 private:
  std::atomic<std::uint64_t> holder_{0};  // fork depth of the holder + 1
};

// Made by a static initialiser. Without memory for that, forks do not wait.
template <ForkMutex& kMutex>
struct HeldAtFork {
  HeldAtFork() {
    pthread_atfork([] { kMutex.lock(); }, [] { kMutex.unlock(); },
                   [] { kMutex.unlock(); });
  }
};

}  // namespace shoal
