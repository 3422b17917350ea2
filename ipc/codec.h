#pragma once
// The codec: a Message to bytes and back.
//
//   std::vector<std::byte> bytes = codec::to_bytes(order);
//   auto order = codec::from_bytes<Order>(bytes);
//
// Measured first and then written in place, so that a value is copied into
// shared memory once. Decoding trusts nothing: what no encoder writes throws
// Corrupt, and no more is allocated than the bytes at hand account for.
//
// Sharing:  no state; a Writer or a Reader is one thread's.
// Cost:     a memcpy for what is trivially copyable, and for a vector, string
//           or array of it; else a loop, without allocation when encoding.
// Layout:   trivially copyable: its bytes, padding included. Containers and
//           strings: 8 bytes of count, the elements; vector<bool>: 8 bytes of
//           count, 8 bits a byte. optional, unique_ptr: a byte 0 or 1, the
//           value. variant: a byte of index, the value. pair, tuple, array,
//           aggregate: their parts. serialize: 8 bytes of length, what it
//           gives. Handles: a HandleRef. What would take no byte takes one, so
//           that a count never exceeds the bytes.
// The two ends must agree on the type: see type_name.h.

#include <cstddef>
#include <span>
#include <tuple>
#include <vector>

#include "shoal/ipc/codec_decode.h"
#include "shoal/ipc/codec_encode.h"
#include "shoal/ipc/codec_size.h"
#include "shoal/ipc/codec_stream.h"
#include "shoal/ipc/message.h"

namespace shoal::codec {

// The bytes that encode writes. Throws invalid_argument for a value nested
// more than kMaxDepth deep.
template <Message T>
constexpr std::size_t size(const T& value) {
  return codec::size_at(value, 0);
}

// Throws invalid_argument for a handle that the writer does not let through.
template <Message T>
void encode(Writer& writer, const T& value) {
  codec::put(writer, value);
}

// Throws Corrupt; Reader::finish checks that nothing follows.
template <Message T>
T decode(Reader& reader) {
  return codec::get<T>(reader);
}

// The same for several values in a row, such as a call's arguments.
template <Message... Ts>
constexpr std::size_t size_of_all(const Ts&... values) {
  return (std::size_t{0} + ... + codec::size(values));
}
template <Message... Ts>
void encode_all(Writer& writer, const Ts&... values) {
  (codec::encode(writer, values), ...);
}
template <Message... Ts>
std::tuple<Ts...> decode_tuple(Reader& reader) {
  return std::tuple<Ts...>{codec::decode<Ts>(reader)...};  // left to right
}

template <Message T>
std::vector<std::byte> to_bytes(const T& value, Passage* passage = nullptr) {
  std::vector<std::byte> bytes(codec::size(value));
  Writer writer(bytes, passage);
  codec::encode(writer, value);
  writer.finish();
  return bytes;
}
// All of bytes is one T, else Corrupt.
template <Message T>
T from_bytes(std::span<const std::byte> bytes, Arrival* arrival = nullptr) {
  Reader reader(bytes, arrival);
  T value = codec::decode<T>(reader);
  reader.finish();
  return value;
}

}  // namespace shoal::codec
