#pragma once
// What the process tests send: large enough for a sender or a receiver to be
// stopped or killed in the midst of it, and it shows when it is not whole.

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace shoal::support {

struct Block {
  std::array<std::uint32_t, 256> copies;

  static Block of(std::uint32_t number) {
    Block block;
    block.copies.fill(number);
    return block;
  }
  std::uint32_t number() const { return copies[0]; }
  bool whole() const {
    return std::all_of(copies.begin(), copies.end(),
                       [this](auto copy) { return copy == copies[0]; });
  }
};

// How often each number came out, counted by any process. Zeroed memory is an
// empty one.
template <std::size_t kCount>
struct Tally {
  std::array<std::atomic<std::uint8_t>, kCount> seen;
  std::atomic<std::uint32_t> total;

  void add(std::uint32_t number) {
    ++seen[number];
    ++total;
  }
  // How many numbers came out `count` times.
  std::size_t times(std::uint8_t count) const {
    return static_cast<std::size_t>(std::count_if(
        seen.begin(), seen.end(),
        [count](const auto& number) { return number.load() == count; }));
  }
};

}  // namespace shoal::support
