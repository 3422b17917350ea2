#pragma once
// What a Pipe is in shared memory: the words of its rings, and of its ends.
// ipc/ring.h has what is done with the former, ipc/pipe_end.h with the latter.
//
// Layout: docs/layout.md#pipe

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "shoal/ipc/liveness.h"
#include "shoal/ipc/waiting.h"

namespace shoal::ring {

// A frame's header, 8 bytes in front of its content.
//   bit 0        there is a frame; 0 in all bits: nothing yet
//   bit 1        the content lies in a side block, whose number is here instead
//   bits 2..15   0: bytes; else the number of the type in the type table
//   bits 16..63  bytes of the content
using Header = std::uint64_t;
inline constexpr Header kFrame = 1;
inline constexpr Header kAside = 2;
inline constexpr unsigned kTypeShift = 2;
inline constexpr unsigned kLengthShift = 16;
inline constexpr std::uint32_t kMostTypes = 1023;
inline constexpr std::uint64_t kMostBytes = (std::uint64_t{1} << 48) - 1;

constexpr Header make_header(std::uint64_t length, std::uint32_t type,
                             bool aside) {
  return length << kLengthShift | Header{type} << kTypeShift |
         (aside ? kAside : 0) | kFrame;
}
constexpr std::uint64_t length_of(Header header) {
  return header >> kLengthShift;
}
constexpr std::uint32_t type_of(Header header) {
  return static_cast<std::uint32_t>(header >> kTypeShift) & 0x3FFF;
}
constexpr bool is_aside(Header header) { return (header & kAside) != 0; }

// What a content of that many bytes takes, with its header.
constexpr std::uint64_t frame_bytes(std::uint64_t length) {
  return sizeof(Header) + ((length + 7) & ~std::uint64_t{7});
}
constexpr std::uint64_t frame_bytes_of(Header header) {
  return frame_bytes(is_aside(header) ? 8 : length_of(header));
}

inline constexpr std::size_t kBlocks = 4;

// A side block: pages of its own for a message that is long for the ring.
struct BlockState {
  // 1 from the moment that the sender begins with it until the receiver has
  // read it; each of the two writes it only while it is the other's to read.
  alignas(64) std::atomic<std::uint64_t> taken;
  std::atomic<std::uint64_t> pages;  // bytes that have some; whose turn it is
  // Bytes of the message that have been written; the sender.
  alignas(64) std::atomic<std::uint64_t> progress;
};
static_assert(sizeof(BlockState) == 128);

// One direction. Positions count bytes since the beginning.
struct RingState {
  // The receiver's, in steps: the sender looks here when it finds no room.
  alignas(64) std::atomic<std::uint64_t> head;
  // The receiver's, after every frame: all before it has been consumed.
  alignas(64) std::atomic<std::uint64_t> consumed;
  // The sender's, as of the last time that its end changed hands.
  alignas(64) std::atomic<std::uint64_t> tail;
  std::atomic<std::uint32_t> types;  // in the type table; the sender
  std::array<BlockState, kBlocks> blocks;
};
static_assert(std::is_standard_layout_v<RingState>);
static_assert(sizeof(RingState) == 192 + 128 * kBlocks);
static_assert(offsetof(RingState, blocks) == 192);

}  // namespace shoal::ring

namespace shoal::pipe_end {

using liveness::Who;

// Whose an end is.
//   bits 0..33   process seat of the owner; when closed, of the last one
//   bits 34..59  how often it has been claimed, so that no value comes again
//   bits 60..61  state
enum State : std::uint64_t { kOpen = 0, kOnTheWay = 1, kClosed = 2, kDead = 3 };
inline constexpr unsigned kClaimShift = 34;
inline constexpr unsigned kStateShift = 60;
inline constexpr std::uint64_t kClaimMask = (std::uint64_t{1} << 26) - 1;

constexpr std::uint64_t make_owner(State state, std::uint64_t claim, Who who) {
  return std::uint64_t{state} << kStateShift |
         (claim & kClaimMask) << kClaimShift | who;
}
constexpr Who who_of(std::uint64_t owner) { return owner & liveness::kWhoMask; }
constexpr State state_of(std::uint64_t owner) {
  return static_cast<State>(owner >> kStateShift & 3);
}
constexpr std::uint64_t claim_of(std::uint64_t owner) {
  return owner >> kClaimShift & kClaimMask;
}
constexpr std::uint64_t next_owner(std::uint64_t owner, State state, Who who) {
  return make_owner(state, claim_of(owner) + 1, who);
}

// End e sends into rings[e] and receives from rings[1 - e]. Zeroed memory is
// a Pipe without messages, whose ends are nobody's yet.
struct PipeState {
  // Of rings[d]: who waits for a frame, who for room.
  alignas(64) std::array<waiting::WaitState, 2> wait;
  std::array<std::atomic<std::uint64_t>, 2> owner;  // by CAS; anybody
  std::array<ring::RingState, 2> rings;
};
static_assert(std::is_standard_layout_v<PipeState>);
static_assert(offsetof(PipeState, owner) == 16);
static_assert(offsetof(PipeState, rings) == 64);
static_assert(sizeof(PipeState) == 64 + 2 * sizeof(ring::RingState));

}  // namespace shoal::pipe_end
