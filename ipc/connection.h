#pragma once
// Connection: one end of a Pipe.
//
//   auto [parent, child] = shoal::Pipe();
//   shoal::Process process([child = std::move(child)]() mutable {
//     child.send(child.recv<int>() + 1);
//   });
//   process.start();
//   parent.send(41);
//   int answer = parent.recv<int>();
//
// Sharing:  moves, and belongs to one process. One thread sends and one
//           receives at a time; close() from any. Moved into a Process it is
//           the child's when start() has returned. After a bare fork() it
//           belongs to the process that uses it first, closing included; in
//           the other one its verbs throw std::logic_error.
// Ordering: what happened before a message was sent is visible to whoever has
//           received it. In order.
// Death:    of the other end's process: PeerDied, after what it had sent. A
//           message half sent is discarded. Copies made by fork delay nothing.
// Cost:     a message: a copy and two stores; no system call unless someone
//           sleeps. Longer than a quarter of the ring: one copy more, which
//           overlaps with the other side's.
// Layout:   docs/layout.md#pipe
//
// Errors: Closed (this end), EndOfFile (the other is closed, nothing is left
// to receive), PeerDied (its process died), BrokenPipe (sending to either),
// TimeoutError (nothing is lost), std::logic_error (wrong direction, another
// process's).

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <ranges>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "shoal/ipc/at_once.h"
#include "shoal/ipc/codec.h"
#include "shoal/ipc/codec_bytes.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/message.h"
#include "shoal/ipc/passage.h"
#include "shoal/ipc/timeout.h"
#include "shoal/ipc/transfer.h"
#include "shoal/ipc/waitable.h"

namespace shoal {

inline constexpr std::size_t npos = static_cast<std::size_t>(-1);

// A message that is being written in place. Dropped, it never was.
class Frame {
 public:
  Frame(Frame&& other) noexcept
      : end_(std::move(other.end_)),
        sending_(std::move(other.sending_)),
        bytes_(std::exchange(other.bytes_, {})),
        committed_(other.committed_) {}

  // Empty when committed or moved from.
  std::span<std::byte> bytes() const { return bytes_; }
  // Once; std::logic_error again.
  void commit();

 private:
  friend class Connection;
  Frame(std::shared_ptr<pipe_end::End> end, std::size_t n, Timeout timeout);

  std::shared_ptr<pipe_end::End> end_;  // before what uses it
  pipe_end::Sending sending_;
  std::span<std::byte> bytes_;
  bool committed_ = false;
};

// A message that is being read in place: received when this is destroyed.
class View {
 public:
  View(View&& other) noexcept
      : end_(other.end_),
        receiving_(std::move(other.receiving_)),
        header_(other.header_),
        bytes_(other.bytes_) {}
  ~View();

  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  friend class Connection;
  View(std::shared_ptr<pipe_end::End> end, Timeout timeout);

  std::shared_ptr<pipe_end::End> end_;
  pipe_end::Receiving receiving_;
  ring::Header header_ = 0;
  std::span<const std::byte> bytes_;
};

class Connection {
  template <class R>
  static constexpr bool kIsBytes =
      std::ranges::contiguous_range<R>&& std::ranges::sized_range<R>&&
          codec::kKind<std::ranges::range_value_t<R>> == codec::Kind::bytes;
  template <class R>
  static constexpr bool kIsText =
      std::is_array_v<R>&& std::same_as<std::remove_extent_t<R>, char>;

 public:
  Connection(Connection&&) noexcept = default;
  Connection& operator=(Connection&& other) noexcept;
  ~Connection() { let_go(); }

  // ---- whole values ----

  // A string literal travels as std::string.
  template <class T>
  void send(const T& value, Timeout timeout = forever) {
    static_assert(!std::same_as<T, Connection>,
                  "shoal: a Connection moves: send(std::move(connection))");
    if constexpr (std::is_array_v<T>) {
      static_assert(std::same_as<std::remove_extent_t<T>, char>,
                    "shoal: an array does not travel; send a std::array");
      send_value(std::string(value), timeout);
    } else {
      send_value(value, timeout);
    }
  }
  template <class T>
  requires(!std::is_reference_v<T> &&
           !std::is_array_v<T>) void send(T&& value,
                                          Timeout timeout = forever) {
    send_value(static_cast<const T&>(value), timeout);
  }
  // TypeMismatch, which leaves the message there; Corrupt, which does not.
  template <class T>
  T recv(Timeout timeout = forever) {
    static_assert(codec::require_message<T>());
    pipe_end::End& end = readable_end();
    if constexpr (kStraight<T>) {
      T value;
      if (__builtin_expect(!pipe_end::receive_at_once(end, timeout, value),
                           0)) {
        const T other = recv_value<T>(end, timeout);
        // Not by assignment, which may be anything.
        std::memcpy(static_cast<void*>(std::addressof(value)),
                    std::addressof(other), sizeof(T));
      }
      return value;
    } else {
      return recv_value<T>(end, timeout);
    }
  }

  // ---- bytes ----

  // `size` bytes from `offset` on, of any trivially copyable values. Throws
  // std::out_of_range, std::invalid_argument (a negative number).
  template <class R>
  requires kIsBytes<std::remove_cvref_t<R>>
  void send_bytes(const R& range, std::size_t offset = 0,
                  std::size_t size = npos, Timeout timeout = forever) {
    static_assert(!kIsText<std::remove_cv_t<R>>,
                  "shoal: is the 0 at the end of a char array part of the "
                  "message? Use std::string_view, or a span");
    const auto bytes = std::as_bytes(
        std::span(std::ranges::data(range), std::ranges::size(range)));
    if (__builtin_expect(offset != 0 || size != npos, 0))
      return send_part(bytes, offset, size, timeout);
    pipe_end::End& end = writable_end();
    if (__builtin_expect(!pipe_end::send_at_once(end, bytes), 0))
      send_slowly(end, bytes, timeout);
  }
  // MessageTooLong leaves the message there.
  std::vector<std::byte> recv_bytes(std::size_t maxlength = npos,
                                    Timeout timeout = forever);
  // The number of bytes. BufferTooShort carries the message, which has been
  // received; std::out_of_range comes before.
  std::size_t recv_bytes_into(std::span<std::byte> buffer,
                              std::size_t offset = 0,
                              Timeout timeout = forever) {
    if (__builtin_expect(offset != 0, 0)) buffer = part_of(buffer, offset);
    pipe_end::End& end = readable_end();
    std::size_t length = buffer.size();
    return __builtin_expect(
               pipe_end::receive_at_once(end, timeout, buffer.data(), length),
               1)
               ? length
               : recv_slowly(end, buffer, timeout);
  }

  Frame reserve(std::size_t n, Timeout timeout = forever);
  View peek(Timeout timeout = forever);

  // ---- the rest ----

  // Whether recv() would return, or throw EndOfFile, at once.
  bool poll(Timeout timeout = now);
  // A descriptor that is readable while recv() would not wait, the same until
  // this end goes. Costs a helper thread in the process that asks for it.
  int fileno();
  // Wakes a call that is blocked in it; may be repeated.
  void close();
  bool closed() const { return end_ == nullptr || end_->closed(); }
  // For shoal::wait().
  WaitSource wait_source() { return WaitSource::of(readable_end()); }
  bool readable() const { return end_ != nullptr && end_->in() != nullptr; }
  bool writable() const { return end_ != nullptr && end_->out() != nullptr; }

 private:
  friend struct ConnectionAccess;

  // A message that is received when this goes, however it was liked.
  class Consumed {
   public:
    Consumed(pipe_end::Receiving& receiving, ring::Header header,
             Timeout timeout)
        : receiving_(receiving),
          header_(header),
          bytes_(receiving.content(header, timeout), ring::length_of(header)) {}
    Consumed(const Consumed&) = delete;
    Consumed& operator=(const Consumed&) = delete;
    ~Consumed() { receiving_.consume(header_); }
    std::span<const std::byte> bytes() const { return bytes_; }

   private:
    pipe_end::Receiving& receiving_;
    ring::Header header_;
    std::span<const std::byte> bytes_;
  };

  explicit Connection(std::shared_ptr<pipe_end::End> end)
      : end_(std::move(end)) {}

  template <class T>
  void send_value(const T& value, Timeout timeout) {
    static_assert(codec::require_message<T>());
    pipe_end::End& end = writable_end();
    if constexpr (codec::kKind<T> == codec::Kind::bytes &&
                  !std::is_empty_v<T>) {
      if (__builtin_expect(pipe_end::send_at_once(end, value), 1)) return;
    }
    send_encoded(end, value, timeout);
  }
  template <class T>
  [[gnu::noinline]] static void send_encoded(pipe_end::End& end, const T& value,
                                             Timeout timeout) {
    pipe_end::Sending sending(end);
    const std::size_t size = codec::size(value);
    std::byte* const memory = sending.reserve(size, timeout);
    if constexpr (codec::kKind<T> == codec::Kind::bytes) {
      codec::Writer writer({memory, size});
      codec::encode(writer, value);
      sending.commit(sending.number_of<T>());
    } else {
      Deposits passage(end.as_container());
      codec::Writer writer({memory, size}, &passage);
      codec::encode(writer, value);
      writer.finish();
      sending.commit(sending.number_of<T>());
      passage.sent();
    }
  }
  // Any content is a value, which nothing need be called to make.
  template <class T>
  static consteval bool is_straight() {
    if constexpr (codec::kKind<T> == codec::Kind::bytes)
      return !codec::has_bool<T>() && std::is_copy_assignable_v<T> &&
             std::is_nothrow_default_constructible_v<T>;
    else
      return false;
  }
  template <class T>
  static constexpr bool kStraight = is_straight<T>();
  template <class T>
  [[gnu::noinline]] static T recv_value(pipe_end::End& end, Timeout timeout) {
    pipe_end::Receiving receiving(end);
    const ring::Header header = receiving.await(timeout);
    receiving.require<T>(header);
    const Consumed consumed(receiving, header, timeout);
    Arrival arrival;
    codec::Reader reader(consumed.bytes(), &arrival);
    T value = codec::decode<T>(reader);
    reader.finish();
    return value;
  }
  static void send_slowly(pipe_end::End& end, std::span<const std::byte> bytes,
                          Timeout timeout);
  void send_part(std::span<const std::byte> bytes, std::size_t offset,
                 std::size_t size, Timeout timeout);
  static std::size_t recv_slowly(pipe_end::End& end,
                                 std::span<std::byte> buffer, Timeout timeout);
  static std::span<std::byte> part_of(std::span<std::byte> buffer,
                                      std::size_t offset);
  void let_go() noexcept;

  pipe_end::End& open_end() const {
    if (__builtin_expect(end_ == nullptr, 0)) throw_moved();
    return *end_;
  }
  pipe_end::End& readable_end() const {
    pipe_end::End& end = open_end();
    if (__builtin_expect(end.in() == nullptr, 0)) throw_direction(end, false);
    return end;
  }
  pipe_end::End& writable_end() const {
    pipe_end::End& end = open_end();
    if (__builtin_expect(end.out() == nullptr, 0)) throw_direction(end, true);
    return end;
  }
  [[noreturn]] static void throw_moved();
  [[noreturn]] static void throw_direction(pipe_end::End& end, bool send);

  std::shared_ptr<pipe_end::End> end_;
};

// For those who pass ends on: wait() and the codec.
struct ConnectionAccess {
  static const std::shared_ptr<pipe_end::End>& end(
      const Connection& connection) {
    return connection.end_;
  }
  static Connection make(std::shared_ptr<pipe_end::End> end) {
    return Connection(std::move(end));
  }
};

// An end that is sent is the receiver's; on its way it lives as long as what
// carries it (passage.h).
template <>
struct HandleTraits<Connection> {
  static HandleRef reference(const Connection& connection, Passage* passage);
  static Connection resolve(const HandleRef& reference, Arrival* arrival);
};

}  // namespace shoal
