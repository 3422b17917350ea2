#pragma once
// A Message into a Writer: codec.h says what the bytes are.

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <tuple>
#include <type_traits>
#include <variant>

#include "shoal/ipc/codec_archive.h"
#include "shoal/ipc/codec_stream.h"
#include "shoal/ipc/codec_traits.h"

namespace shoal::codec {

template <class T>
void put(Writer& writer, const T& value);

inline void put_count(Writer& writer, std::size_t count) {
  writer.write(static_cast<std::uint64_t>(count));
}

template <class C>
void put_elements(Writer& writer, const C& values) {
  using T = std::remove_cvref_t<decltype(*std::begin(values))>;
  if constexpr (kKind<T> == Kind::bytes && !std::is_empty_v<T> &&
                requires { std::data(values); }) {
    writer.write(std::data(values), std::size(values) * sizeof(T));
  } else {
    for (const auto& value : values) codec::put(writer, value);
  }
}

template <class V>
void put_bits(Writer& writer, const V& bits) {
  put_count(writer, bits.size());
  unsigned byte = 0;
  for (std::size_t i = 0; i < bits.size(); ++i) {
    byte |= static_cast<unsigned>(bits[i]) << (i % 8);
    if (i % 8 == 7 || i + 1 == bits.size()) {
      writer.write(static_cast<unsigned char>(byte));
      byte = 0;
    }
  }
}

// Parts in a row; none at all still take a byte.
template <class... Ts>
void put_parts(Writer& writer, const Ts&... parts) {
  if constexpr (sizeof...(Ts) == 0) {
    writer.write(std::uint8_t{0});
  } else {
    (codec::put(writer, parts), ...);
  }
}

template <class T>
void put_standard(Writer& writer, const T& value) {
  constexpr Form kForm = Parts<T>::kForm;
  const auto parts = [&writer](const auto&... part) {
    codec::put_parts(writer, part...);
  };
  if constexpr (kForm == Form::path) {
    codec::put(writer, value.native());
  } else if constexpr (kForm == Form::bits) {
    codec::put_bits(writer, value);
  } else if constexpr (kForm == Form::product) {
    std::apply(parts, value);
  } else if constexpr (kForm == Form::array) {
    if constexpr (std::tuple_size_v<T> == 0) {
      codec::put_parts(writer);
    } else {
      codec::put_elements(writer, value);
    }
  } else if constexpr (kForm == Form::optional || kForm == Form::pointer) {
    writer.write(static_cast<std::uint8_t>(value ? 1 : 0));
    if (value) codec::put(writer, *value);
  } else if constexpr (kForm == Form::variant) {
    writer.write(static_cast<std::uint8_t>(value.index()));
    std::visit(parts, value);
  } else if constexpr (kForm == Form::map) {
    put_count(writer, value.size());
    for (const auto& [key, mapped] : value)
      codec::put_parts(writer, key, mapped);
  } else {
    put_count(writer, value.size());
    codec::put_elements(writer, value);
  }
}

template <class T>
void put_handle(Writer& writer, const T& handle) {
  const HandleRef reference =
      HandleTraits<T>::reference(handle, writer.passage());
  writer.write(&reference, sizeof(reference));
}

template <class T>
void put(Writer& writer, const T& value) {
  if constexpr (kKind<T> == Kind::bytes && std::is_empty_v<T>) {
    constexpr std::byte kZeros[sizeof(T)] = {};  // not what happens to be there
    writer.write(kZeros, sizeof(T));
  } else if constexpr (kKind<T> == Kind::bytes) {
    writer.write(std::addressof(value), sizeof(T));
  } else if constexpr (std::is_array_v<T>) {
    codec::put_elements(writer, value);
  } else if constexpr (kKind<T> == Kind::handle) {
    codec::put_handle(writer, value);
  } else if constexpr (kKind<T> == Kind::aggregate) {
    fields::apply(
        [&writer](const auto&... field) { codec::put_parts(writer, field...); },
        value);
  } else if constexpr (kKind<T> == Kind::serialize) {
    codec::put_serialized(writer, value);
  } else {
    codec::put_standard(writer, value);
  }
}

}  // namespace shoal::codec
