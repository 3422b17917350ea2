#pragma once
// The barrier that nothing can beat: one word, round which all spin. Whoever
// comes no more stops the others for ever.

#include <atomic>
#include <cstdint>

#include "bench/baselines/ping_pong.h"

namespace shoal::bench {

class SpinningBarrier {
 public:
  // `parties` is always the same.
  void wait(int parties) {
    const auto all = static_cast<std::uint64_t>(parties);
    // SYNC(bench.word)
    const std::uint64_t before =
        arrived_.fetch_add(1, std::memory_order_acq_rel);
    wait_at_least(arrived_, (before / all + 1) * all);
  }

 private:
  alignas(64) std::atomic<std::uint64_t> arrived_{0};  // in all rounds
};

}  // namespace shoal::bench
