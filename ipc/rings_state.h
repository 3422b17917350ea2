#pragma once
// Where the rings of a queue lie: which of them there are, and how large.
//
// A queue has one ring of exactly maxsize cells, or, with maxsize 0, as many as
// it needs: the first lies in the payload, each further one is twice as large
// as the last and lies in the tail.
//
// Layout: docs/layout.md#queue

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "shoal/ipc/cells_state.h"
#include "shoal/ipc/segment.h"

namespace shoal::cells {

// RingsState::rings
//   bits 0..7  number of the last ring; grows
//   bit  8     shut down: no further ring, no put
//   bit  9     shut down, and what is left is not delivered
// RingsState::reading
//   bits 0..7  the ring where consumers begin to look
//   bits 8..63 how often it went back: what was passed is to be looked at again
struct RingsState {
  alignas(64) std::atomic<std::uint64_t> rings;  // producers, shutdown
  std::atomic<std::uint64_t> reading;            // consumers, sweepers
  std::atomic<std::uint64_t> dropped;            // by OnFull::drop_oldest
};
static_assert(std::is_standard_layout_v<RingsState> &&
              sizeof(RingsState) == 64);

inline constexpr std::uint64_t kShut = 1 << 8;
inline constexpr std::uint64_t kDiscards = 1 << 9;
constexpr std::uint32_t ring_in(std::uint64_t word) {
  return static_cast<std::uint32_t>(word & 0xFF);
}

struct RingsPlan {
  static constexpr std::uint32_t kMostRings = 31;

  std::uint64_t cell_bytes = 0;
  std::uint64_t head_bytes = 0;  // before the first cell of a ring
  std::uint32_t first = 0;       // cells of the first ring
  std::uint32_t most = 1;        // rings

  std::uint64_t count(std::uint32_t ring) const {
    return std::uint64_t{first} << ring;
  }
  std::uint64_t bytes(std::uint32_t ring) const {
    return head_bytes + count(ring) * cell_bytes;
  }
  // Of all rings up to this one.
  std::uint64_t bytes_up_to(std::uint32_t ring) const {
    std::uint64_t sum = 0;
    for (std::uint32_t k = 0; k <= ring; ++k) sum += bytes(k);
    return sum;
  }
  // In the tail; of ring 1 and later ones.
  std::size_t offset(std::uint32_t ring) const {
    std::size_t sum = 0;
    for (std::uint32_t k = 1; k < ring; ++k)
      sum += segment::round_to_page(bytes(k));
    return sum;
  }
  std::size_t tail_bytes() const { return offset(most); }

  static RingsPlan bounded(std::uint64_t head, std::uint64_t cell,
                           std::uint32_t count) {
    return {cell, head, count, 1};
  }
  // The first ring takes at most 64 KiB, and an eighth of the limit.
  static RingsPlan growing(std::uint64_t head, std::uint64_t cell,
                           std::uint64_t most_bytes) {
    const std::uint64_t room = std::min<std::uint64_t>(most_bytes / 8, 65536);
    RingsPlan plan{cell, head,
                   static_cast<std::uint32_t>(
                       std::clamp<std::uint64_t>(room / cell, 1, 1024)),
                   1};
    while (plan.most < kMostRings &&
           plan.count(plan.most) < std::numeric_limits<std::uint32_t>::max() &&
           plan.bytes_up_to(plan.most) <= most_bytes)
      ++plan.most;
    return plan;
  }
};

}  // namespace shoal::cells
