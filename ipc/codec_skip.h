#pragma once
// Past a T, checked as decode checks it, without making one.

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <tuple>
#include <type_traits>

#include "shoal/ipc/codec_bytes.h"
#include "shoal/ipc/codec_depth.h"
#include "shoal/ipc/codec_size.h"
#include "shoal/ipc/codec_stream.h"
#include "shoal/ipc/codec_traits.h"

namespace shoal::codec {

template <class T>
void skip(Reader& reader);

// Bytes that hold count values of T, which is of Kind::bytes.
template <class T>
const std::byte* take_elements(Reader& reader, std::size_t count) {
  const std::byte* first = reader.take(count * sizeof(T));
  if constexpr (has_bool<T>())
    for (std::size_t i = 0; i < count; ++i)
      static_cast<void>(codec::from_raw<T>(first + i * sizeof(T)));
  return first;
}

template <class T>
void skip_elements(Reader& reader, std::size_t count) {
  if constexpr (kKind<T> == Kind::bytes) {
    take_elements<T>(reader, count);
  } else {
    for (; count > 0; --count) codec::skip<T>(reader);
  }
}

// What a container of T holds, as one type.
template <class T, Form kForm = Parts<T>::kForm>
struct ElementOf {
  using type = typename T::value_type;
};
template <class T>
struct ElementOf<T, Form::map> {
  using type = std::pair<typename T::key_type, typename T::mapped_type>;
};

template <template <class...> class List, class... Ts>
void skip_parts(Reader& reader, List<Ts...>*) {
  if constexpr (sizeof...(Ts) == 0) {
    reader.take(1);
  } else {
    (codec::skip<std::remove_const_t<Ts>>(reader), ...);
  }
}

template <class... Ts>
void skip_choice(Reader& reader, Types<Ts...>*) {
  using Skip = void (*)(Reader&);
  static constexpr Skip kSkip[] = {
      [](Reader& from) { codec::skip<Ts>(from); }...};
  kSkip[reader.read_choice(sizeof...(Ts))](reader);
}

inline const std::byte* take_bits(Reader& reader, std::uint64_t count) {
  return reader.take(count / 8 + (count % 8 != 0));
}

template <class T>
void skip_standard(Reader& reader) {
  constexpr Form kForm = Parts<T>::kForm;
  if constexpr (kForm == Form::path) {
    reader.take(reader.read_count(1));
  } else if constexpr (kForm == Form::bits) {
    take_bits(reader, reader.read<std::uint64_t>());
  } else if constexpr (kForm == Form::product) {
    skip_parts(reader, static_cast<typename Parts<T>::type*>(nullptr));
  } else if constexpr (kForm == Form::array) {
    if constexpr (std::tuple_size_v<T> == 0) reader.take(1);
    skip_elements<typename T::value_type>(reader, std::tuple_size_v<T>);
  } else if constexpr (kForm == Form::optional) {
    if (reader.read_choice(2) != 0) codec::skip<typename T::value_type>(reader);
  } else if constexpr (kForm == Form::pointer) {
    if (reader.read_choice(2) != 0)
      codec::skip<typename T::element_type>(reader);
  } else if constexpr (kForm == Form::variant) {
    skip_choice(reader, static_cast<typename Parts<T>::type*>(nullptr));
  } else {
    using Element = typename ElementOf<T>::type;
    skip_elements<Element>(reader, reader.read_count(extent<Element>().least));
  }
}

template <class T>
void skip(Reader& reader) {
  static_assert(kKind<T> != Kind::handle,
                "shoal: a message that holds a handle has no view: decode it.");
  if constexpr (std::is_array_v<T>) {
    using Element = std::remove_all_extents_t<T>;
    skip_elements<Element>(reader, sizeof(T) / sizeof(Element));
  } else if constexpr (kKind<T> == Kind::bytes) {
    take_elements<T>(reader, 1);
  } else if constexpr (kKind<T> == Kind::aggregate) {
    const Reader::Level level(reader, codec::level_cost<T>());
    skip_parts(reader, static_cast<fields::TypesOf<T>*>(nullptr));
  } else if constexpr (kKind<T> == Kind::serialize) {
    reader.take(reader.read_count(1));  // looked into only by decode
  } else {
    skip_standard<T>(reader);
  }
}

}  // namespace shoal::codec
