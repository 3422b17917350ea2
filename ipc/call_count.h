#pragma once
// CallCount: whether calls of this process sleep on a handle.

#include <atomic>
#include <cstdint>

#include "shoal/ipc/liveness.h"

namespace shoal {

// Counts calls of this process that sleep; a forked child starts at 0.
class CallCount {
 public:
  class Call {
   public:
    explicit Call(CallCount& count) : count_(count) { count_.add(1); }
    ~Call() { count_.add(-1); }
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;

   private:
    CallCount& count_;
  };
  bool any() const {
    // seq_cst: against a call that counts itself and then looks.
    const std::uint64_t word = word_.load(std::memory_order_seq_cst);
    return word >> 32 == liveness::fork_depth() && (word & 0xFFFFFFFF) != 0;
  }

 private:
  void add(int amount) {
    const std::uint64_t here = liveness::fork_depth() << 32;
    std::uint64_t word = word_.load(std::memory_order_relaxed);
    std::uint64_t next;
    do {
      const std::uint64_t mine = word >> 32 << 32 == here ? word : here;
      next = mine + static_cast<std::uint64_t>(amount);
    } while (!word_.compare_exchange_weak(word, next, std::memory_order_seq_cst,
                                          std::memory_order_relaxed));
  }
  std::atomic<std::uint64_t> word_{0};  // fork depth << 32 | calls
};

}  // namespace shoal
