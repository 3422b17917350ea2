#pragma once
// A message that nothing stands in the way of, straight into or out of a
// Pipe's ring: no call, no exception, everything in registers. Each of these
// says false when there is more to it; then ipc/transfer.h finds out what.
//
// Sharing:  as Connection: one thread sends, one receives.
// Death:    before publish() the message never was, before consume() it goes
//           with the end. Between one of these and the wake of the other end:
//           who sleeps for a peer has asked the kernel to be woken by its
//           death (End::wait), so that nothing need be armed here. The kernel
//           wakes one of those who watch, who wakes the others; should that
//           one die as well, the peer looks within a second.
// Cost:     a few nanoseconds beside the memcpy.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>

#include "shoal/ipc/asymmetric_fence.h"
#include "shoal/ipc/pipe_end.h"
#include "shoal/ipc/ring.h"
#include "shoal/ipc/waiting.h"

namespace shoal::pipe_end {

// The name of a type within this process.
template <class T>
inline constexpr char kTag = 0;

// This thread is at work in that direction, until leave(); the wake of the
// other end comes after that.
template <class D>
[[gnu::always_inline]] inline bool enter(const End& end, D& direction) {
  if (__builtin_expect(direction.busy.load(std::memory_order_relaxed), 0))
    return false;
  // relaxed: what a fork copies is in program order.
  direction.busy.store(true, std::memory_order_relaxed);
  std::atomic_signal_fence(std::memory_order_seq_cst);
  if (__builtin_expect(end.is_mine_at_once(), 1)) return true;
  direction.busy.store(false, std::memory_order_relaxed);
  return false;
}
template <class D>
[[gnu::always_inline]] inline void leave(D& direction) {
  direction.busy.store(false, std::memory_order_relaxed);
}

// After something was published for that side.
template <class D>
[[gnu::always_inline]] inline void wake_if_asleep(End& end, D& direction,
                                                  waiting::Side side) {
  asymmetric_fence::light(end.fenced());
  // relaxed: ordered by the asymmetric fence.
  if (__builtin_expect((direction.wait.word.load(std::memory_order_relaxed) &
                        waiting::flag_of(side)) != 0,
                       0))
    waiting::wake_armed(direction.wait, side, end.domain());
}

// A content of `length` bytes that write(std::byte*) noexcept writes. `tag`: of
// its type, which was the last one's, too; or nullptr for mere bytes.
template <class Write>
[[gnu::always_inline]] inline bool send_at_once(End& end, Outgoing& out,
                                                const char* tag,
                                                std::size_t length,
                                                Write&& write) {
  if (!enter(end, out)) return false;
  ring::Writer& ring = out.ring;
  const std::uint64_t bytes = ring::frame_bytes(length);
  if (__builtin_expect((tag != nullptr && out.known.tag != tag) ||
                           length > ring.most_inside() ||
                           !end.peer_is_there() || !ring.has_room(bytes),
                       0)) {
    leave(out);
    return false;
  }
  write(ring.place());
  const std::uint32_t type = tag != nullptr ? out.known.number : 0;
  ring.publish(ring::make_header(length, type, false), bytes);
  leave(out);
  wake_if_asleep(end, out, waiting::Side::consumers);
  return true;
}
template <class T>
[[gnu::always_inline]] inline bool send_at_once(End& end, const T& value) {
  return send_at_once(end, *end.out(), &kTag<T>, sizeof(T),
                      [&](std::byte* to) noexcept {
                        std::memcpy(to, std::addressof(value), sizeof(T));
                      });
}
[[gnu::always_inline]] inline bool send_at_once(
    End& end, std::span<const std::byte> bytes) {
  return send_at_once(end, *end.out(), nullptr, bytes.size(),
                      [&](std::byte* to) noexcept {
                        if (!bytes.empty())
                          std::memcpy(to, bytes.data(), bytes.size());
                      });
}

// The next message, if it is there or comes soon, in the ring, and
// fits(header); then read(const std::byte*, ring::Header) noexcept gets it, and
// returns its length.
template <class Fits, class Read>
[[gnu::always_inline]] inline bool receive_at_once(End& end, Timeout timeout,
                                                   Fits&& fits, Read&& read) {
  Incoming& in = *end.in();
  if (!enter(end, in)) return false;
  ring::Header header = in.ring.raw_header();
  if (header == 0 && end.frame_comes_soon(timeout))
    header = in.ring.raw_header();
  if (__builtin_expect(!fits(header), 0)) {
    leave(in);
    return false;
  }
  const std::size_t length = read(in.ring.content(), header);
  in.ring.consume_bytes(ring::frame_bytes(length));
  leave(in);
  wake_if_asleep(end, in, waiting::Side::producers);
  end.look();
  return true;
}
// A T, of the type that came the last time.
template <class T>
[[gnu::always_inline]] inline bool receive_at_once(End& end, Timeout timeout,
                                                   T& value) {
  const KnownType& known = end.in()->known;
  return receive_at_once(
      end, timeout,
      [&](ring::Header header) {
        // Rings that a T may not fit into: it was never sent this way.
        constexpr bool kFits =
            ring::frame_bytes(sizeof(T)) < segment::kPage / 2;
        return known.tag == &kTag<T> &&
               header == ring::make_header(sizeof(T), known.number, false) &&
               (kFits || end.in()->ring.is_frame(header));
      },
      [&](const std::byte* content, ring::Header) noexcept {
        std::memcpy(static_cast<void*>(std::addressof(value)), content,
                    sizeof(T));
        return sizeof(T);
      });
}
// `length`: of the buffer, and then of the message.
[[gnu::always_inline]] inline bool receive_at_once(End& end, Timeout timeout,
                                                   std::byte* buffer,
                                                   std::size_t& length) {
  return receive_at_once(
      end, timeout,
      [&](ring::Header header) {
        return end.in()->ring.is_frame(header) && !ring::is_aside(header) &&
               ring::length_of(header) <= length;
      },
      [&](const std::byte* content, ring::Header header) noexcept {
        length = ring::length_of(header);
        if (length != 0) std::memcpy(buffer, content, length);
        return length;
      });
}

}  // namespace shoal::pipe_end
