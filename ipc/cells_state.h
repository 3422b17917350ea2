#pragma once
// What a ring of cells is in shared memory: its words, positions and layout.
// ipc/cells.h has what is done with them.
//
// Layout: docs/layout.md#cells

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "shoal/ipc/liveness.h"
#include "shoal/ipc/waiting.h"

namespace shoal::cells {

using liveness::Who;

// A cell's word
//   bits 0..1    state: 0 empty, 1 busy, 2 full, 3 taken
//   bits 2..35   who: of busy and taken; of full: kNobody is the end marker,
//                kAgain an item that was taken before, and delivered again
//   bit  36      of taken: consumers have passed the sealed ring with this one
//                still held; what ends the claim leaves the end marker
//   bits 37..63  lap, modulo 2^27
enum State : std::uint64_t { kEmpty = 0, kBusy = 1, kFull = 2, kTaken = 3 };
inline constexpr unsigned kWhoShift = 2;
inline constexpr std::uint64_t kPassed = std::uint64_t{1} << 36;
inline constexpr unsigned kLapShift = 37;
inline constexpr Who kAgain = 1;  // of a full cell, which nobody owns

constexpr std::uint64_t make_word(std::uint64_t lap, State state, Who who = 0) {
  return lap << kLapShift | who << kWhoShift | state;
}
constexpr std::uint64_t lap_of(std::uint64_t word) { return word >> kLapShift; }
constexpr State state_of(std::uint64_t word) {
  return static_cast<State>(word & 3);
}
constexpr Who who_of(std::uint64_t word) {
  return word >> kWhoShift & liveness::kWhoMask;
}
constexpr bool is_end(std::uint64_t word) {
  return state_of(word) == kFull && who_of(word) == liveness::kNobody;
}
constexpr bool is_item(std::uint64_t word) {
  return state_of(word) == kFull && who_of(word) != liveness::kNobody;
}
constexpr bool is_again(std::uint64_t word) {
  return state_of(word) == kFull && who_of(word) == kAgain;
}
// Signed distance of two laps that are less than 2^26 apart.
constexpr std::int64_t lap_distance(std::uint64_t a, std::uint64_t b) {
  return static_cast<std::int64_t>((a - b) << kLapShift) >> kLapShift;
}

// A position: lap << 32 | index.
using Position = std::uint64_t;
constexpr std::uint64_t lap_at(Position p) { return p >> 32; }
constexpr std::uint32_t index_at(Position p) {
  return static_cast<std::uint32_t>(p);
}
// Of the lap that the word of the cell at `index` names.
constexpr Position position_of(std::uint64_t word, std::uint32_t index) {
  return lap_of(word) << 32 | index;
}
constexpr std::uint64_t word_at(Position p, State state, Who who = 0) {
  return p >> 32 << kLapShift | who << kWhoShift | state;
}
// Empty, and the lap that p is in is over.
constexpr std::uint64_t word_after(Position p) {
  return word_at(p, kEmpty) + (std::uint64_t{1} << kLapShift);
}
// The end marker in that place.
constexpr std::uint64_t end_after(Position p) {
  return word_after(p) | liveness::kNobody << kWhoShift | kFull;
}
constexpr bool before(Position a, Position b) {
  const std::int64_t laps = lap_distance(lap_at(a), lap_at(b));
  return laps != 0 ? laps < 0 : index_at(a) < index_at(b);
}

// RingState::closed; it only grows.
inline constexpr std::uint32_t kOpen = 0;
inline constexpr std::uint32_t kSealed =
    1;  // another ring goes on: ipc/rings.h
inline constexpr std::uint32_t kDraining = 2;
inline constexpr std::uint32_t kDiscarded = 3;

// Zeroed memory is an empty, open ring.
struct RingState {
  alignas(64) std::atomic<Position> tail;  // hint; producers
  alignas(64) std::atomic<Position> head;  // hint; consumers, sweepers
  alignas(64) waiting::WaitState wait;
  std::atomic<std::uint32_t> orphans;  // an item may lie behind head; anybody
  std::atomic<std::uint32_t> closed;   // kOpen ... kDiscarded; anybody
  std::atomic<std::uint32_t> leased;  // a value was ever taken on lease; takers
  std::atomic<std::uint64_t> swept;  // domain deaths at the last sweep; anybody
};
static_assert(std::is_standard_layout_v<RingState> && sizeof(RingState) == 192);
static_assert(offsetof(RingState, head) == 64);
static_assert(offsetof(RingState, wait) == 128);
static_assert(offsetof(RingState, swept) == 152);

template <class T>
struct Cell {
  std::atomic<std::uint64_t> word;
  alignas(alignof(T) > 8 ? alignof(T) : 8) std::byte data[sizeof(T)];
};

}  // namespace shoal::cells
