#pragma once
// What an Array is in shared memory behind its elements.
//
// Layout: docs/layout.md#array

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "shoal/ipc/robust_lock.h"
#include "shoal/shared/shape.h"

namespace shoal {

struct ArrayState {
  static constexpr std::size_t kStripes = 64;

  LockState lock;
  // Somebody has locked a stripe: whoever locks the whole takes them all.
  // Written by the holder of `lock`, never back to 0.
  std::atomic<std::uint32_t> striped;
  std::uint32_t dimensions;
  std::uint64_t extents[Shape::kMostDimensions];
  struct alignas(64) Stripe {
    LockState lock;
  };
  Stripe stripes[kStripes];
};
static_assert(std::is_standard_layout_v<ArrayState>);
static_assert(offsetof(ArrayState, extents) == 32);
static_assert(offsetof(ArrayState, stripes) == 128);
static_assert(sizeof(ArrayState) == 128 + 64 * ArrayState::kStripes);

}  // namespace shoal
