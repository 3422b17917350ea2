#pragma once
// The three archives that a serialize is called with; codec_serialize.h says
// what it looks like.
//
//   ar(a, b, c)   // each a Message: measured, written or read, in this order
//   ar & a & b    // the same
//
// What is read must be an lvalue that is not const. It is read in place if it
// has serialize itself, else assigned.

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <utility>

#include "shoal/ipc/codec_depth.h"
#include "shoal/ipc/codec_stream.h"
#include "shoal/ipc/codec_traits.h"
#include "shoal/ipc/type_name.h"

namespace shoal::codec {

template <class T>
constexpr std::size_t size_at(const T& value, unsigned depth);
template <class T>
void put(Writer& writer, const T& value);
template <class F>
void get_into(Reader& reader, F& field);
template <class T>
consteval bool require_message();

template <class T>
consteval bool require_part() {
  return require_message<std::remove_cv_t<std::remove_all_extents_t<T>>>();
}

class SizeArchive {
 public:
  using is_loading = std::false_type;
  using is_saving = std::true_type;

  explicit SizeArchive(unsigned depth) : depth_(depth) {}
  template <class... Ts>
  SizeArchive& operator()(const Ts&... values) {
    static_assert((codec::require_part<Ts>() && ...));
    ((bytes_ += codec::size_at(values, depth_)), ...);
    return *this;
  }
  template <class T>
  SizeArchive& operator&(const T& value) {
    return (*this)(value);
  }
  std::size_t bytes() const { return bytes_; }

 private:
  std::size_t bytes_ = 0;
  unsigned depth_;
};

class WriteArchive {
 public:
  using is_loading = std::false_type;
  using is_saving = std::true_type;

  explicit WriteArchive(Writer& writer) : writer_(writer) {}
  template <class... Ts>
  WriteArchive& operator()(const Ts&... values) {
    static_assert((codec::require_part<Ts>() && ...));
    (codec::put(writer_, values), ...);
    return *this;
  }
  template <class T>
  WriteArchive& operator&(const T& value) {
    return (*this)(value);
  }

 private:
  Writer& writer_;
};

class ReadArchive {
 public:
  using is_loading = std::true_type;
  using is_saving = std::false_type;

  explicit ReadArchive(Reader& reader) : reader_(reader) {}
  template <class... Ts>
  ReadArchive& operator()(Ts&&... values) {
    static_assert(
        (std::is_lvalue_reference_v<Ts> && ...) &&
            (!std::is_const_v<std::remove_reference_t<Ts>> && ...),
        "shoal: serialize gives the archive a const or temporary value, into "
        "which nothing can be read: give it the member itself, or do so only "
        "if constexpr (Archive::is_saving::value).");
    static_assert((codec::require_part<std::remove_reference_t<Ts>>() && ...));
    (codec::get_into(reader_, values), ...);
    return *this;
  }
  template <class T>
  ReadArchive& operator&(T&& value) {
    return (*this)(std::forward<T>(value));
  }

 private:
  Reader& reader_;
};

// ---- a T that has serialize: 8 bytes of length, what serialize gives ----

template <class T>
std::size_t size_of_serialized(const T& value, unsigned depth) {
  SizeArchive archive(depth);
  codec::call_serialize(const_cast<T&>(value), archive);  // as cereal does
  return sizeof(std::uint64_t) + archive.bytes();
}

template <class T>
void put_serialized(Writer& writer, const T& value) {
  std::byte* length = writer.leave_room(sizeof(std::uint64_t));
  const std::size_t before = writer.remaining();
  WriteArchive archive(writer);
  codec::call_serialize(const_cast<T&>(value), archive);
  const std::uint64_t bytes = before - writer.remaining();
  std::memcpy(length, &bytes, sizeof(bytes));
}

// Into value; its serialize must take just the bytes that are there.
template <class T>
void get_serialized_into(Reader& reader, T& value) {
  const Reader::Level level(reader, codec::level_cost<T>());
  const Reader::Part part(reader, reader.read_count(1));
  ReadArchive archive(reader);
  codec::call_serialize(value, archive);
  if (reader.remaining() != 0) [[unlikely]]
    Reader::corrupt("serialize of " + type_name<T>() + " left " +
                    std::to_string(reader.remaining()) +
                    " bytes of its own unread");
}

template <class T>
T get_serialized(Reader& reader) {
  T value = SerializeAccess::make<T>();
  codec::get_serialized_into(reader, value);
  return value;
}

}  // namespace shoal::codec
