#pragma once
// Writer and Reader: the bytes that the codec writes and reads.
//
//   codec::Writer writer(std::span(memory, codec::size(order)));
//   codec::encode(writer, order);
//   codec::Reader reader(memory);
//   auto order = codec::decode<Order>(reader);
//   reader.finish();
//
// Neither ever goes beyond its bytes, whatever they say. Memory needs no
// alignment. Numbers are in the byte order of the machine.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <span>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "shoal/ipc/errors.h"

namespace shoal {

class Passage;  // ipc/passage.h
class Arrival;

namespace codec {

// Lists linked by unique_ptr and the like, which nest by their data: see
// codec_depth.h.
inline constexpr unsigned kMaxDepth = 2000;

// Fills memory of exactly size(value) bytes.
class Writer {
 public:
  // Handles go by the passage; without one, only as references.
  explicit Writer(std::span<std::byte> memory, Passage* passage = nullptr)
      : to_(memory.data()),
        end_(memory.data() + memory.size()),
        passage_(passage) {}

  void write(const void* from, std::size_t size) {
    if (size > remaining()) [[unlikely]]
      too_long(size);
    if (size != 0) std::memcpy(to_, from, size);
    to_ += size;
  }
  // The next size bytes, which the caller fills before it is done.
  std::byte* leave_room(std::size_t size) {
    if (size > remaining()) [[unlikely]]
      too_long(size);
    std::byte* room = to_;
    to_ += size;
    return room;
  }
  template <class T>
  void write(const T& value) requires std::is_arithmetic_v<T> {
    write(&value, sizeof(T));
  }

  std::size_t remaining() const { return static_cast<std::size_t>(end_ - to_); }
  Passage* passage() const { return passage_; }
  // After the last value: throws logic_error if room is left.
  void finish() const {
    if (remaining() != 0) [[unlikely]]
      too_short();
  }

 private:
  [[noreturn, gnu::cold]] void too_long(std::size_t size) const {
    throw std::logic_error(
        "codec: the value takes " + std::to_string(size) + " bytes where " +
        std::to_string(remaining()) +
        " are left: it changed since it was measured, or the memory is not "
        "size(value) bytes");
  }
  [[noreturn, gnu::cold]] void too_short() const {
    throw std::logic_error(
        "codec: " + std::to_string(remaining()) +
        " bytes fewer were written than measured: the value changed since, or "
        "a serialize() gives less when it writes than when it measures");
  }

  std::byte* to_;
  std::byte* end_;
  Passage* passage_;
};

// Takes bytes that may come from anywhere: throws Corrupt where they are not
// what a Writer writes.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes, Arrival* arrival = nullptr)
      : from_(bytes.data()),
        end_(bytes.data() + bytes.size()),
        arrival_(arrival) {}

  // The next size bytes, in place.
  const std::byte* take(std::size_t size) {
    if (size > remaining()) [[unlikely]]
      too_short(size);
    const std::byte* bytes = from_;
    from_ += size;
    return bytes;
  }
  template <class T>
  T read() requires std::is_arithmetic_v<T> {
    T value;
    std::memcpy(&value, take(sizeof(T)), sizeof(T));
    return value;
  }
  // A number of elements that each take at least least_size bytes.
  std::size_t read_count(std::size_t least_size) {
    const auto count = read<std::uint64_t>();
    if (count > remaining() / least_size) [[unlikely]]
      corrupt(std::to_string(count) + " elements of " +
              std::to_string(least_size) + " bytes or more announced, " +
              std::to_string(remaining()) + " bytes left");
    return static_cast<std::size_t>(count);
  }
  // A byte in [0, limit).
  unsigned read_choice(unsigned limit) {
    const auto choice = read<unsigned char>();
    if (choice >= limit) [[unlikely]]
      corrupt("a byte below " + std::to_string(limit) + " wanted, it is " +
              std::to_string(choice));
    return choice;
  }

  std::size_t remaining() const {
    return static_cast<std::size_t>(end_ - from_);
  }
  // After the last value: throws Corrupt if bytes are left.
  void finish() const {
    if (remaining() != 0) [[unlikely]]
      corrupt(std::to_string(remaining()) + " bytes left after the last value");
  }

  Arrival* arrival() const { return arrival_; }

  // Within a value that may hold others of its type.
  class Level {
   public:
    Level(Reader& reader, unsigned cost) : reader_(reader), cost_(cost) {
      if (cost > kMaxDepth - reader.depth_) [[unlikely]]
        corrupt("nested more than " + std::to_string(kMaxDepth) + " deep");
      reader_.depth_ += cost_;
    }
    ~Level() { reader_.depth_ -= cost_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

   private:
    Reader& reader_;
    unsigned cost_;
  };

  // For as long as this lives, the next size bytes are all that there are.
  class Part {
   public:
    Part(Reader& reader, std::size_t size)
        : reader_(reader), end_(reader.end_) {
      if (size > reader.remaining()) [[unlikely]]
        reader.too_short(size);
      reader_.end_ = reader_.from_ + size;
    }
    ~Part() { reader_.end_ = end_; }
    Part(const Part&) = delete;
    Part& operator=(const Part&) = delete;

   private:
    Reader& reader_;
    const std::byte* end_;
  };

  [[noreturn, gnu::cold]] static void corrupt(const std::string& what) {
    throw Corrupt("message: " + what);
  }

 private:
  [[noreturn, gnu::cold]] void too_short(std::size_t size) const {
    corrupt(std::to_string(size) + " bytes wanted, " +
            std::to_string(remaining()) + " left");
  }

  const std::byte* from_;
  const std::byte* end_;
  Arrival* arrival_;
  unsigned depth_ = 0;
};

}  // namespace codec
}  // namespace shoal
