#pragma once
// The byte ring of a Pipe: one sender, one receiver, frames in one piece.
//
//   writer.has_room(frame_bytes(n)) && (memcpy(writer.place(), from, n),
//                                       writer.publish(make_header(n, 0,
//                                       false)));
//   if (Header header = reader.header()) ...
//
// The ring is mapped twice behind itself, so that no frame is ever split. The
// header is the flag: the receiver looks at the one place where the next frame
// will be, and what it waits for comes with one cache line.
//
// Sharing:  each of the two is one thread's at a time. No waiting in here.
// Ordering: what was written into a frame is visible to whoever sees its
//           header; what was read of it, before its room is used again.
// Death:    a frame is there whole, or not at all. Nothing is to be repaired:
//           every word has one writer.
// Cost:     publish() two stores, consume() one; a line of the other side is
//           fetched once a quarter of the ring.
// Layout:   docs/layout.md#pipe

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>

#include "shoal/ipc/errors.h"
#include "shoal/ipc/ring_state.h"
#include "shoal/ipc/waiting.h"

namespace shoal::ring {

inline std::atomic<Header>& header_at(std::byte* place) {
  return *reinterpret_cast<std::atomic<Header>*>(place);
}

class Writer {
 public:
  // `memory`: 2 * capacity bytes, which are capacity twice; a power of two.
  // Throws Corrupt when the positions in `state` make no sense.
  Writer(RingState& state, std::byte* memory, std::uint64_t capacity)
      : state_(&state),
        memory_(memory),
        mask_(capacity - 1),
        // SYNC(ring.tail): whoever had this end before has stopped.
        position_(state.tail.load(std::memory_order_acquire)),
        // SYNC(ring.consumed)
        known_head_(state.consumed.load(std::memory_order_acquire)) {
    check(known_head_);
  }

  std::uint64_t capacity() const { return mask_ + 1; }
  std::uint64_t position() const { return position_; }

  // Longer contents lie in a side block.
  std::uint64_t most_inside() const { return (mask_ + 1) / 4; }
  // For a frame of that many bytes, and the 0 behind it.
  bool has_room(std::uint64_t bytes) const {
    return position_ + bytes + sizeof(Header) - known_head_ <= mask_ + 1;
  }
  // After a look at what the receiver says every quarter of the ring.
  bool finds_room(std::uint64_t bytes) {
    // SYNC(ring.head)
    return update(state_->head.load(std::memory_order_acquire), bytes);
  }
  // After a look at where it really is.
  bool finds_any_room(std::uint64_t bytes) {
    // SYNC(ring.consumed)
    return update(state_->consumed.load(std::memory_order_acquire), bytes);
  }

  // Where the content of the next frame goes.
  std::byte* place() const {
    return memory_ + (position_ & mask_) + sizeof(Header);
  }
  void publish(Header header) { publish(header, frame_bytes_of(header)); }
  // A frame of that many `bytes`.
  [[gnu::always_inline]] void publish(Header header, std::uint64_t bytes) {
    // Out of memory once: the compiler must assume that the stores change it.
    std::byte* const memory = memory_;
    const std::uint64_t mask = mask_;
    const std::uint64_t position = position_;
    const std::uint64_t next = position + bytes;
    position_ = next;
    std::byte* const behind = memory + (next & mask);
    // Old content must not look like a header. relaxed: the release follows.
    header_at(behind).store(0, std::memory_order_relaxed);
    // SYNC(ring.frame)
    // KILL: before this the frame is not there, after it the whole of it.
    header_at(memory + (position & mask))
        .store(header, std::memory_order_release);
    for (std::uint64_t n = 0; n < bytes && n < kMostAhead; n += 64)
      waiting::prefetch_to_write(behind + kAhead + n);
  }
  // Before the end changes hands.
  void save() const {
    // SYNC(ring.tail)
    // KILL: nobody reads it: the end is this process's still.
    state_->tail.store(position_, std::memory_order_release);
  }

 private:
  // `head` may be older than what is known.
  bool update(std::uint64_t head, std::uint64_t bytes) {
    if (head > known_head_) {
      check(head);
      known_head_ = head;
    }
    return has_room(bytes);
  }
  void check(std::uint64_t head) const {
    if (__builtin_expect(head > position_ || position_ - head > mask_ + 1, 0))
      corrupt(head);
  }
  [[noreturn, gnu::cold]] void corrupt(std::uint64_t head) const {
    throw Corrupt("shoal: Pipe: the receiver claims to be at byte " +
                  std::to_string(head) + ", the sender is at " +
                  std::to_string(position_));
  }

  // The sender fetches lines for itself before it writes them; the receiver
  // had them last.
  static constexpr std::size_t kAhead = 1024;
  static constexpr std::size_t kMostAhead = 256;

  RingState* state_;
  std::byte* memory_;
  std::uint64_t mask_;
  std::uint64_t position_;
  std::uint64_t known_head_;
};

class Reader {
 public:
  Reader(RingState& state, std::byte* memory, std::uint64_t capacity)
      : state_(&state),
        memory_(memory),
        mask_(capacity - 1),
        // SYNC(ring.consumed): whoever had this end before has stopped.
        position_(state.consumed.load(std::memory_order_acquire)),
        told_(position_) {}

  std::uint64_t capacity() const { return mask_ + 1; }
  std::uint64_t position() const { return position_; }

  // Of the next frame; 0: none yet. Throws Corrupt for what no Writer writes.
  Header header() const {
    const Header header = raw_header();
    if (__builtin_expect(header != 0 && !is_frame(header), 0)) corrupt(header);
    return header;
  }
  // The same, whatever it is.
  Header raw_header() const {
    // SYNC(ring.frame)
    return header_at(memory_ + (position_ & mask_))
        .load(std::memory_order_acquire);
  }
  // Can a Writer have written this?
  bool is_frame(Header header) const {
    return (header & kFrame) != 0 && type_of(header) <= kMostTypes &&
           frame_bytes_of(header) <= mask_ - 7;
  }
  bool has_frame() const {
    // relaxed: a guess.
    return header_at(memory_ + (position_ & mask_))
               .load(std::memory_order_relaxed) != 0;
  }
  // The same by what all know of it, for another thread than the reader's.
  bool has_frame_for_others() const {
    for (;;) {
      // SYNC(ring.consumed)
      const std::uint64_t at = state_->consumed.load(std::memory_order_acquire);
      // SYNC(ring.frame)
      const Header header =
          header_at(memory_ + (at & mask_ & ~std::uint64_t{7}))
              .load(std::memory_order_acquire);
      // Else the reader has gone on, and this may be anything.
      if (state_->consumed.load(std::memory_order_acquire) == at)
        return header != 0;
    }
  }
  std::byte* content() const {
    return memory_ + (position_ & mask_) + sizeof(Header);
  }
  // The frame with this header, which header() has returned.
  void consume(Header header) { consume_bytes(frame_bytes_of(header)); }
  // A frame of that many.
  [[gnu::always_inline]] void consume_bytes(std::uint64_t bytes) {
    const std::uint64_t position = position_ + bytes;
    position_ = position;
    // SYNC(ring.consumed): the frame has been read.
    // KILL: before this the frame is still there, after it is not.
    state_->consumed.store(position, std::memory_order_release);
    if (__builtin_expect(position - told_ > mask_ / 4, 0)) tell();
  }
  // Lets the sender know how far it is.
  void tell() {
    told_ = position_;
    // SYNC(ring.head)
    // KILL: `consumed` says the same.
    state_->head.store(position_, std::memory_order_release);
  }

 private:
  [[noreturn, gnu::cold]] void corrupt(Header header) const {
    throw Corrupt("shoal: Pipe: no frame begins with " +
                  std::to_string(header) + ", in a ring of " +
                  std::to_string(mask_ + 1) + " bytes");
  }

  RingState* state_;
  std::byte* memory_;
  std::uint64_t mask_;
  std::uint64_t position_;
  std::uint64_t told_;
};

}  // namespace shoal::ring
