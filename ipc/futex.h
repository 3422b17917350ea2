#pragma once
// futex(2) and futex_waitv(2) on words that several processes share. The only
// place that calls them; FUTEX_PRIVATE_FLAG is never used.

#include <atomic>
#include <cstdint>

#include "shoal/ipc/timeout.h"

namespace shoal::futex {

using Word = std::atomic<std::uint32_t>;

inline constexpr std::uint32_t kAnyBit = 0xFFFFFFFFu;
inline constexpr int kAll = 0x7FFFFFFF;

enum class Result { woken, changed, timed_out, interrupted };

// Sleeps while word == expected, until a wake whose bits meet ours.
Result wait(const Word& word, std::uint32_t expected, Deadline deadline,
            std::uint32_t bits = kAnyBit);

// Sleeps while both words hold what is expected, until a wake on either. On a
// kernel before 5.16 only `first` is watched, for at most 20 ms.
Result wait_either(const Word& first, std::uint32_t first_expected,
                   const Word& second, std::uint32_t second_expected,
                   Deadline deadline);

// Returns how many were woken, at most `count`.
int wake(const Word& word, int count, std::uint32_t bits = kAnyBit);

// Moves at most one sleeper from one word to the other without waking it;
// returns how many were moved.
int move_one(const Word& from, const Word& to);

}  // namespace shoal::futex
