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
//   SHOAL_AT_FORK const HeldAtFork<mutex> held;

#include <sched.h>
#include <time.h>

#include <atomic>
#include <cstdint>
#include <utility>

#include "shoal/ipc/at_fork.h"
#include "shoal/ipc/liveness.h"

namespace shoal {

class ForkMutex {
 public:
  void lock() {
    const std::uint64_t mine = liveness::fork_depth() + 1;
    std::uint64_t holder = 0;
    int waits = 0;
    // SYNC(fork_mutex): pairs with unlock.
    while (!holder_.compare_exchange_weak(
        holder, mine, std::memory_order_acquire, std::memory_order_relaxed)) {
      if (holder == mine) {
        // One of lower priority has to get this CPU some time.
        constexpr timespec kSome{0, 50'000};
        if (++waits < 100)
          sched_yield();
        else
          nanosleep(&kSome, nullptr);
        holder = 0;
      }  // else: free, or held by a thread that only the parent has
    }
  }
  // SYNC(fork_mutex)
  void unlock() { holder_.store(0, std::memory_order_release); }

 private:
  std::atomic<std::uint64_t> holder_{0};  // fork depth of the holder + 1
};

// Without memory for it, forks do not wait.
template <ForkMutex& kMutex>
class HeldAtFork : public AtFork {
 public:
  HeldAtFork() : AtFork(lock, unlock, unlock) {}

 private:
  static void lock() noexcept {
    try {
      kMutex.lock();
      held_ = true;
    } catch (...) {  // nothing of the fork page: nobody has used it
    }
  }
  static void unlock() noexcept {
    if (std::exchange(held_, false)) kMutex.unlock();
  }
  // By the thread that forks.
  inline static thread_local constinit bool held_ = false;
};

}  // namespace shoal
