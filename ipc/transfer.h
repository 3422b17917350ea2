#pragma once
// One message on its way into or out of a Pipe, step by step; what
// Connection's verbs, Frame and View are made of.
//
//   Sending sending(end);
//   codec::encode(Writer({sending.reserve(n, timeout), n}), value);
//   sending.commit(sending.number_of<T>());
//
//   Receiving receiving(end);
//   const ring::Header header = receiving.await(timeout);
//   ... receiving.content(header, timeout) ...
//   receiving.consume(header);
//
// Sharing:  a Sending is of one thread at a time, and of a direction there is
//           one at a time, else std::logic_error.
// Death:    killed before commit(), the message never was; before consume(),
//           it goes with the end.
// Cost:     a message that finds room, and whose receiver is awake: no call.

#include <sched.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "shoal/ipc/at_once.h"
#include "shoal/ipc/lazy_static.h"
#include "shoal/ipc/pipe_end.h"
#include "shoal/ipc/type_name.h"

namespace shoal::pipe_end {

struct TypeInfo {
  std::uint64_t hash;
  std::string text;
};
template <class T>
const TypeInfo& type_info() {
  static constinit LazyStatic<const TypeInfo> info;
  return info.get([] {
    return std::unique_ptr<const TypeInfo>(
        new TypeInfo{layout_hash<T>(), describe_layout<T>()});
  });
}

// A direction in use by this thread; what it belongs to is this process's.
template <class D>
class Use {
 public:
  Use(End& end, D& direction) : end_(&end), direction_(&direction) {
    while (!enter(end, direction)) {
      if (busy().load(std::memory_order_relaxed)) throw_busy();
      end.claim();
      sched_yield();
    }
  }
  Use(Use&& other) noexcept
      : end_(other.end_),
        direction_(std::exchange(other.direction_, nullptr)) {}
  Use& operator=(Use&&) = delete;
  ~Use() {
    if (direction_ != nullptr) leave(*direction_);
  }

  bool holds() const { return direction_ != nullptr; }

 protected:
  std::atomic<bool>& busy() const { return direction_->busy; }
  [[noreturn, gnu::cold]] void throw_busy() const;
  void wake_if_asleep(waiting::Side side) const {
    pipe_end::wake_if_asleep(*end_, *direction_, side);
  }

  End* end_;
  D* direction_;
};

class Sending : public Use<Outgoing> {
 public:
  explicit Sending(End& end) : Use(end, *end.out()) {}
  Sending(Sending&& other) noexcept
      : Use(std::move(other)),
        length_(other.length_),
        block_(std::exchange(other.block_, kNoBlock)) {}
  ~Sending() {
    if (__builtin_expect(block_ != kNoBlock, 0)) drop();
  }

  // Memory for a message, which is not there before commit(). Throws Closed,
  // BrokenPipe, TimeoutError, NoSpace, MessageTooLong.
  std::byte* reserve(std::size_t length, Timeout timeout) {
    length_ = length;
    if (__builtin_expect(length > direction_->ring.most_inside(), 0))
      return reserve_aside(length, timeout);
    make_room(ring::frame_bytes(length), timeout);
    return direction_->ring.place();
  }
  // `type`: of number_of(); 0: bytes.
  void commit(std::uint32_t type) {
    if (__builtin_expect(block_ != kNoBlock, 0)) return commit_aside(type);
    direction_->ring.publish(ring::make_header(length_, type, false));
    wake_if_asleep(waiting::Side::consumers);
  }
  // All of it; the receiver copies while this does.
  void send(const std::byte* from, std::size_t length, Timeout timeout) {
    std::byte* to = reserve(length, timeout);
    if (__builtin_expect(block_ != kNoBlock, 0)) return send_aside(to, from);
    if (length != 0) std::memcpy(to, from, length);
    commit(0);
  }

  template <class T>
  std::uint32_t number_of() {
    KnownType& known = direction_->known;
    if (__builtin_expect(known.tag != &kTag<T>, 0)) {
      const TypeInfo& info = type_info<T>();
      known = {&kTag<T>, direction_->types.number_of(info.hash, info.text)};
    }
    return known.number;
  }

 private:
  static constexpr unsigned kNoBlock = ~0u;
  static constexpr std::size_t kChunk = std::size_t{64} << 10;

  void make_room(std::uint64_t bytes, Timeout timeout) {
    auto& ring = direction_->ring;
    if (__builtin_expect(!(end_->peer_is_there() || end_->find_peer()) ||
                             !(ring.has_room(bytes) || ring.finds_room(bytes)),
                         0))
      end_->await_room(bytes, timeout);
  }
  std::byte* reserve_aside(std::size_t length, Timeout timeout);
  void send_aside(std::byte* to, const std::byte* from);
  void commit_aside(std::uint32_t type);
  void publish_aside(std::uint32_t type);
  void drop() noexcept;

  std::size_t length_ = 0;
  unsigned block_ = kNoBlock;
};

class Receiving : public Use<Incoming> {
 public:
  explicit Receiving(End& end) : Use(end, *end.in()) {}

  // The next message's. Throws Closed, EndOfFile, PeerDied, TimeoutError.
  ring::Header await(Timeout timeout) {
    const ring::Header header = direction_->ring.header();
    return __builtin_expect(header != 0, 1) ? header
                                            : end_->await_frame(timeout);
  }
  // All of it, in place.
  const std::byte* content(ring::Header header, Timeout timeout) {
    return __builtin_expect(ring::is_aside(header), 0)
               ? content_aside(header, timeout)
               : direction_->ring.content();
  }
  // Calls take(bytes, count) for one piece after another, as they come.
  template <class Take>
  void read(ring::Header header, Timeout timeout, Take&& take) {
    const std::uint64_t length = ring::length_of(header);
    if (!ring::is_aside(header))
      return take(direction_->ring.content(), length);
    const Deadline deadline(timeout);
    const unsigned block = block_of(header);
    const std::byte* from = direction_->blocks.map(block, length);
    for (std::uint64_t done = 0; done < length;) {
      std::uint64_t ready = direction_->blocks.progress(block, length);
      if (ready <= done)
        ready = end_->await_progress(block, done, length, deadline.remaining());
      take(from + done, ready - done);
      done = ready;
    }
  }
  void consume(ring::Header header) {
    if (__builtin_expect(ring::is_aside(header), 0))
      direction_->blocks.free(block_of(header));
    direction_->ring.consume(header);
    wake_if_asleep(waiting::Side::producers);
    end_->look();
  }

  // Throws TypeMismatch, Corrupt.
  template <class T>
  void require(ring::Header header) {
    KnownType& known = direction_->known;
    const std::uint32_t number = ring::type_of(header);
    if (__builtin_expect(known.tag != &kTag<T> || known.number != number, 0)) {
      const TypeInfo& info = type_info<T>();
      require(number, info);
      known = {&kTag<T>, number};
    }
  }

 private:
  unsigned block_of(ring::Header header) const;
  const std::byte* content_aside(ring::Header header, Timeout timeout);
  void require(std::uint32_t number, const TypeInfo& info);
};

}  // namespace shoal::pipe_end
