#pragma once
// How many bytes a Message takes: codec.h says what they are.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <variant>

#include "shoal/ipc/codec_archive.h"
#include "shoal/ipc/codec_depth.h"
#include "shoal/ipc/codec_stream.h"
#include "shoal/ipc/codec_traits.h"

namespace shoal::codec {

// {the fewest bytes that a T takes, whether every T takes just these}
struct Extent {
  std::size_t least;
  bool fixed;
};
template <class T>
consteval Extent extent();

template <template <class...> class List, class... Ts>
consteval Extent extent_of_parts(List<Ts...>*) {
  const std::size_t least = (std::size_t{0} + ... + extent<Ts>().least);
  return {std::max<std::size_t>(least, 1), (extent<Ts>().fixed && ...)};
}

template <class T>
consteval Extent extent() {
  if constexpr (std::is_const_v<T>) {
    return extent<std::remove_const_t<T>>();
  } else if constexpr (std::is_array_v<T>) {
    constexpr Extent kElement = extent<std::remove_extent_t<T>>();
    return {kElement.least * std::extent_v<T>, kElement.fixed};
  } else if constexpr (kKind<T> == Kind::bytes) {
    return {sizeof(T), true};
  } else if constexpr (kKind<T> == Kind::handle) {
    return {sizeof(HandleRef), true};
  } else if constexpr (kKind<T> == Kind::aggregate) {
    return extent_of_parts(static_cast<fields::TypesOf<T>*>(nullptr));
  } else if constexpr (kKind<T> == Kind::serialize) {
    return {sizeof(std::uint64_t), false};
  } else {
    constexpr Form kForm = Parts<T>::kForm;
    if constexpr (kForm == Form::product) {
      return extent_of_parts(static_cast<typename Parts<T>::type*>(nullptr));
    } else if constexpr (kForm == Form::array) {
      constexpr Extent kElement = extent<typename T::value_type>();
      return {std::max<std::size_t>(kElement.least * std::tuple_size_v<T>, 1),
              kElement.fixed || std::tuple_size_v<T> == 0};
    } else if constexpr (kForm == Form::optional || kForm == Form::pointer ||
                         kForm == Form::variant) {
      return {1, false};
    } else {
      return {sizeof(std::uint64_t), false};
    }
  }
}

// The depth inside a T.
template <class T>
constexpr unsigned deeper(unsigned depth) {
  constexpr unsigned kCost = level_cost<std::remove_const_t<T>>();
  if (kCost > kMaxDepth - depth) [[unlikely]]
    throw std::invalid_argument("codec: the value is nested more than " +
                                std::to_string(kMaxDepth) + " deep");
  return depth + kCost;
}

// A C array or a const field too.
template <class T>
constexpr std::size_t size_at(const T& value, unsigned depth);

template <class C>
constexpr std::size_t size_of_elements(const C& values, unsigned depth) {
  std::size_t bytes = 0;
  for (const auto& value : values) bytes += codec::size_at(value, depth);
  return bytes;
}

// A unique_ptr to a base class would send the base and lose the rest.
template <class T>
void require_whole(const T& value) {
  if constexpr (std::is_polymorphic_v<T>) {
    if (typeid(value) != typeid(T)) [[unlikely]]
      throw std::invalid_argument(
          "codec: a std::unique_ptr<" + type_name<T>() + "> points to a " +
          type_name(typeid(value)) +
          ", of which only the base would travel: use a std::variant");
  }
}

template <class T>
constexpr std::size_t size_of_variant(const T& value, unsigned depth) {
  if (value.valueless_by_exception()) [[unlikely]]
    throw std::invalid_argument(
        "codec: a std::variant has no value since an assignment to it threw: "
        "assign one before sending it");
  return 1 + std::visit(
                 [depth](const auto& alternative) {
                   return codec::size_at(alternative, depth);
                 },
                 value);
}

template <class T>
constexpr std::size_t size_of_standard(const T& value, unsigned depth) {
  constexpr Form kForm = Parts<T>::kForm;
  const auto sum = [depth](const auto&... part) {
    return (std::size_t{0} + ... + codec::size_at(part, depth));
  };
  if constexpr (kForm == Form::path) {
    return sizeof(std::uint64_t) + value.native().size();
  } else if constexpr (kForm == Form::bits) {
    return sizeof(std::uint64_t) + (value.size() + 7) / 8;
  } else if constexpr (kForm == Form::product) {
    return std::apply(sum, value);
  } else if constexpr (kForm == Form::array) {
    return codec::size_of_elements(value, depth);
  } else if constexpr (kForm == Form::optional || kForm == Form::pointer) {
    if (!value) return 1;
    if constexpr (kForm == Form::pointer) require_whole(*value);
    return 1 + codec::size_at(*value, depth);
  } else if constexpr (kForm == Form::variant) {
    return codec::size_of_variant(value, depth);
  } else if constexpr (kForm == Form::map) {
    std::size_t bytes = sizeof(std::uint64_t);
    for (const auto& [key, mapped] : value) bytes += sum(key, mapped);
    return bytes;
  } else {
    constexpr Extent kElement = extent<typename T::value_type>();
    if constexpr (kElement.fixed) {
      return sizeof(std::uint64_t) + value.size() * kElement.least;
    } else {
      return sizeof(std::uint64_t) + codec::size_of_elements(value, depth);
    }
  }
}

template <class T>
constexpr std::size_t size_at(const T& value, unsigned depth) {
  if constexpr (extent<T>().fixed) {
    return extent<T>().least;
  } else if constexpr (std::is_array_v<T>) {
    return codec::size_of_elements(value, depth);
  } else if constexpr (kKind<T> == Kind::aggregate) {
    const unsigned inside = codec::deeper<T>(depth);
    return fields::apply(
        [inside](const auto&... field) {
          return (std::size_t{0} + ... + codec::size_at(field, inside));
        },
        value);
  } else if constexpr (kKind<T> == Kind::serialize) {
    return codec::size_of_serialized(value, codec::deeper<T>(depth));
  } else {
    return codec::size_of_standard(value, depth);
  }
}

}  // namespace shoal::codec
