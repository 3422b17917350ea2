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
#include <memory>
#include <mutex>

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
  // The descriptor, of one that was inherited.
  void close() noexcept;
  // Made by this very process.
  bool mine() const { return depth_ == liveness::fork_depth(); }
  // Looks whether the descriptor says what is; after something was taken.
  void look();
  // The same where nothing may fail any more: the thread looks again soon.
  void look_again() noexcept;

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

// The Bell of an object, made at the first call in each process that asks for
// its descriptor. As a member it comes last: the thread uses the others.
class BellOnDemand {
 public:
  BellOnDemand() = default;
  BellOnDemand(const BellOnDemand&) = delete;
  BellOnDemand& operator=(const BellOnDemand&) = delete;
  ~BellOnDemand() { delete load(); }

  // make() returns a std::unique_ptr<Bell>.
  template <class Make>
  int descriptor(Make&& make) {
    for (;;) {
      {
        const std::lock_guard guard(mutex_);
        // relaxed: under the mutex.
        Bell* const bell = bell_.load(std::memory_order_relaxed);
        if (bell != nullptr && bell->mine()) return bell->descriptor();
        // One that was inherited is closed here, and lives on in the parent.
        // look() of other threads may have found it; none is left of those that
        // may have found the one before.
        bell_.store(nullptr, std::memory_order_relaxed);
        if (bell != nullptr) {
          bell->close();
          inherited_.reset(bell);
        }
      }
      std::unique_ptr<Bell> made = make();
      const std::lock_guard guard(mutex_);
      if (bell_.load(std::memory_order_relaxed) == nullptr)
        // SYNC(bell.made)
        bell_.store(made.release(), std::memory_order_release);
    }
  }
  // After something was taken: the descriptor may have ceased to be readable.
  void look() noexcept {
    Bell* const bell = load();
    if (__builtin_expect(bell != nullptr, 0) && bell->mine())
      bell->look_again();
  }

 private:
  Bell* load() const {
    // SYNC(bell.made)
    return bell_.load(std::memory_order_acquire);
  }

  ForkMutex mutex_;  // of changes of what follows
  std::unique_ptr<Bell> inherited_;
  std::atomic<Bell*> bell_{nullptr};
};

}  // namespace shoal
