#pragma once
// The store-load fence between "publish, then look for sleepers" and "announce
// myself as a sleeper, then look again", paid by the side that is about to
// sleep: membarrier(2) there lets the publishing side do without a fence.
//
// Source: "asymmetric fences", Dice, Huang, Yang 2001; folly's
// asymmetric_thread_fence; membarrier(2) MEMBARRIER_CMD_GLOBAL_EXPEDITED.
//
// A segment records its mode at creation. In membarrier mode a process that
// cannot register (seccomp) fences on its light side, which needs nobody's
// agreement; if it cannot issue the heavy side, it sleeps in short slices.

#include <atomic>
#include <cstdint>

namespace shoal::asymmetric_fence {

enum class Mode : std::uint32_t { membarrier = 1, fence = 2 };

// membarrier, unless the environment has SHOAL_BARRIER=fence or the kernel
// lacks it. Read once.
Mode default_mode();

// True when this process takes part in the heavy side of others.
bool registered();

inline void full() {
#ifdef __SANITIZE_THREAD__
  // g++ refuses atomic_thread_fence under TSan; a seq_cst RMW orders as much.
  static std::atomic<std::uint32_t> word;
  word.fetch_add(1, std::memory_order_seq_cst);
#else
  // seq_cst: the race closed is publish/look against announce/look.
  std::atomic_thread_fence(std::memory_order_seq_cst);
#endif
}

// The publishing side; `fenced` is cached by the caller from needs_fence().
inline void light(bool fenced) {
  if (__builtin_expect(fenced, 0))
    full();
  else
    std::atomic_signal_fence(std::memory_order_seq_cst);  // compiler only
}
bool needs_fence(Mode mode);

// The sleeping side. False: it had no effect on the others, and the caller
// must not sleep without a bound.
bool heavy(Mode mode);

}  // namespace shoal::asymmetric_fence
