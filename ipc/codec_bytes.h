#pragma once
// Trivially copyable values, one or many, out of untrusted bytes.
//
// What memcpy brings in may be no value of the type: a bool of 7. Every bool
// that can be seen is checked before anyone reads it as one; enumerations are
// taken as they come.

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <type_traits>

#include "shoal/ipc/codec_stream.h"
#include "shoal/ipc/codec_traits.h"

namespace shoal::codec {

template <class T>
consteval bool is_bool() {
  if constexpr (std::is_enum_v<T>) {
    return std::same_as<std::underlying_type_t<T>, bool>;
  } else {
    return std::same_as<T, bool>;
  }
}

// Does T, which is of Kind::bytes, hold a bool?
template <class T>
consteval bool has_bool();
template <class... Ts>
consteval bool any_has_bool(std::tuple<Ts...>*) {
  return (has_bool<std::remove_const_t<std::remove_all_extents_t<Ts>>>() ||
          ...);
}
template <class T>
consteval bool has_bool() {
  if constexpr (Standard<T>) {
    return has_bool<typename T::value_type>();  // std::array
  } else if constexpr (fields::Visible<T>) {
    return any_has_bool(static_cast<fields::TypesOf<T>*>(nullptr));
  } else {
    return is_bool<T>();
  }
}

template <class T>
bool bools_are_valid(const T& value) {
  using Element = std::remove_const_t<std::remove_all_extents_t<T>>;
  if constexpr (!has_bool<Element>()) {
    return true;
  } else if constexpr (std::is_array_v<T> || Standard<T>) {
    for (const auto& element : value)
      if (!bools_are_valid(element)) return false;
    return true;
  } else if constexpr (is_bool<T>()) {
    unsigned char byte;
    std::memcpy(&byte, &value, 1);
    return byte <= 1;
  } else {
    return fields::apply(
        [](const auto&... field) { return (bools_are_valid(field) && ...); },
        value);
  }
}

template <class T>
void check_bools(const T& value) {
  if (!bools_are_valid(value)) [[unlikely]]
    Reader::corrupt("a bool that is neither 0 nor 1");
}

template <class T>
T from_raw(const std::byte* bytes) {
  if constexpr (std::default_initializable<T> && std::is_copy_assignable_v<T>) {
    T value;
    std::memcpy(static_cast<void*>(&value), bytes, sizeof(T));
    check_bools(value);
    return value;
  } else {
    struct Raw {
      std::byte bytes[sizeof(T)];
    } raw;
    std::memcpy(raw.bytes, bytes, sizeof(T));
    auto value = std::bit_cast<T>(raw);
    check_bools(value);
    return value;
  }
}

// A std::vector of count values that lie at bytes.
template <class V>
V vector_from_raw(const std::byte* bytes, std::size_t count) {
  using T = typename V::value_type;
  V values;
  if constexpr (std::is_copy_constructible_v<T>) {
    // One pass; a resize would write zeros first.
    if (reinterpret_cast<std::uintptr_t>(bytes) % alignof(T) == 0) {
      const T* first = reinterpret_cast<const T*>(bytes);
      values.assign(first, first + count);
      for (const T& value : values) check_bools(value);
      return values;
    }
  }
  if constexpr (std::default_initializable<T> && std::is_copy_assignable_v<T>) {
    values.resize(count);
    if (count != 0)
      std::memcpy(static_cast<void*>(values.data()), bytes, count * sizeof(T));
    for (const T& value : values) check_bools(value);
  } else {
    values.reserve(count);
    for (std::size_t i = 0; i < count; ++i)
      values.push_back(from_raw<T>(bytes + i * sizeof(T)));
  }
  return values;
}

}  // namespace shoal::codec
