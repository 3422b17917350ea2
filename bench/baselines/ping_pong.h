#pragma once
// What no queue and no pool can be faster than: cache lines that two spinning
// processes hand to and fro. One process calls ask(), the other answer(), with
// the same numbers; the figure is of ask().

#include <array>
#include <atomic>
#include <cstdint>

#include "shoal/ipc/waiting.h"

namespace shoal::bench {

// One line that carries a question and then its answer.
struct Slot {
  alignas(64) std::atomic<std::uint64_t> word{0};  // 2n + 1 asked, + 2 answered
  std::uint64_t argument = 0;
  std::uint64_t result = 0;
};

inline void wait_for(const std::atomic<std::uint64_t>& word,
                     std::uint64_t value) {
  // SYNC(bench.word): what was written before the word is visible.
  while (word.load(std::memory_order_acquire) != value) waiting::pause();
}

inline void wait_at_least(const std::atomic<std::uint64_t>& word,
                          std::uint64_t value) {
  // SYNC(bench.word): as above.
  while (word.load(std::memory_order_acquire) < value) waiting::pause();
}

inline void ask(Slot& slot, std::uint64_t first, std::uint64_t rounds) {
  for (std::uint64_t i = first; i < first + rounds; ++i) {
    slot.argument = i;
    slot.word.store(2 * i + 1, std::memory_order_release);  // SYNC(bench.word)
    wait_for(slot.word, 2 * i + 2);
    if (slot.result != i) __builtin_trap();
  }
}
inline void answer(Slot& slot, std::uint64_t first, std::uint64_t rounds) {
  for (std::uint64_t i = first; i < first + rounds; ++i) {
    wait_for(slot.word, 2 * i + 1);
    slot.result = slot.argument;
    slot.word.store(2 * i + 2, std::memory_order_release);  // SYNC(bench.word)
  }
}

// One line each way, with room for `kBytes` beside the word: what a queue in
// each direction has to move, and a record of a question and an answer. Both
// end up with the whole message in memory of their own.
template <std::size_t kBytes = 8>
struct Lines {
  struct alignas(64) Line {
    std::atomic<std::uint64_t> word{0};
    std::array<std::uint64_t, kBytes / 8> data{};
  };
  Line there;
  Line back;
};

template <std::size_t kBytes>
void ask(Lines<kBytes>& lines, std::uint64_t first, std::uint64_t rounds) {
  std::array<std::uint64_t, kBytes / 8> answer;
  for (std::uint64_t i = first; i < first + rounds; ++i) {
    lines.there.data.fill(i);
    lines.there.word.store(i + 1,
                           std::memory_order_release);  // SYNC(bench.word)
    wait_for(lines.back.word, i + 1);
    answer = lines.back.data;
    asm volatile("" : : "r"(&answer) : "memory");
    if (answer.back() != i) __builtin_trap();
  }
}
template <std::size_t kBytes>
void answer(Lines<kBytes>& lines, std::uint64_t first, std::uint64_t rounds) {
  std::array<std::uint64_t, kBytes / 8> question;
  for (std::uint64_t i = first; i < first + rounds; ++i) {
    wait_for(lines.there.word, i + 1);
    question = lines.there.data;
    asm volatile("" : : "r"(&question) : "memory");
    lines.back.data = question;
    lines.back.word.store(i + 1,
                          std::memory_order_release);  // SYNC(bench.word)
  }
}

}  // namespace shoal::bench
