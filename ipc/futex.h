#pragma once
// futex(2) and futex_waitv(2) on words that several processes share. The only
// place that calls them; FUTEX_PRIVATE_FLAG is never used.

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

#include "shoal/ipc/timeout.h"

namespace shoal::futex {

using Word = std::atomic<std::uint32_t>;

// The low 32 bits of a word of 64, for sleeping on: never loaded as a Word.
inline const Word& low_half(const std::atomic<std::uint64_t>& word) {
  const auto* halves =
      static_cast<const std::byte*>(static_cast<const void*>(&word));
  return *static_cast<const Word*>(static_cast<const void*>(
      halves + (std::endian::native == std::endian::little ? 0 : 4)));
}

inline constexpr int kAll = 0x7FFFFFFF;

enum class Result {
  woken,      // on the only word, or the first
  elsewhere,  // on another one
  changed,
  timed_out,
  interrupted
};

// Sleeps while word == expected, until a wake.
Result wait(const Word& word, std::uint32_t expected, Deadline deadline);

// A word and what it must hold for a sleep to begin or go on.
struct Expected {
  const Word* word;
  std::uint32_t value;
};
inline constexpr std::size_t kMostWords = 128;

// Sleeps while all words hold what is expected, until a wake on any; at most
// kMostWords. On a kernel before 5.16 only the first is watched, for at most
// 20 ms.
Result wait_any(std::span<const Expected> words, Deadline deadline);

// Returns how many were woken, at most `count`.
int wake(const Word& word, int count);

// Moves at most one sleeper from one word to the other without waking it;
// returns how many were moved.
int move_one(const Word& from, const Word& to);

}  // namespace shoal::futex
