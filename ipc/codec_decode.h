#pragma once
// A Message out of a Reader, whose bytes may be anything: codec.h says what
// they should be.

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>
#include <variant>

#include "shoal/ipc/codec_archive.h"
#include "shoal/ipc/codec_bytes.h"
#include "shoal/ipc/codec_depth.h"
#include "shoal/ipc/codec_size.h"
#include "shoal/ipc/codec_stream.h"
#include "shoal/ipc/codec_traits.h"

namespace shoal::codec {

template <class T>
T get(Reader& reader);

// A first guess at a capacity that count elements need: no more bytes than are
// there to be read, so that a large T in few bytes grows step by step.
inline std::size_t capacity_for(const Reader& reader, std::size_t count,
                                std::size_t element_size) {
  return std::min(count, reader.remaining() / element_size + 1);
}

template <class T>
T get_text(Reader& reader) {
  using C = typename T::value_type;
  const std::size_t count = reader.read_count(sizeof(C));
  const std::byte* bytes = reader.take(count * sizeof(C));
  if constexpr (sizeof(C) == 1) {
    return T(reinterpret_cast<const C*>(bytes), count);
  } else {
    T text(count, C{});
    if (count != 0) std::memcpy(text.data(), bytes, count * sizeof(C));
    return text;
  }
}

template <class T>
T get_bits(Reader& reader) {
  const auto count = reader.read<std::uint64_t>();
  const std::uint64_t size = count / 8 + (count % 8 != 0);
  const std::byte* bytes = reader.take(size);
  T bits(count);
  for (std::size_t i = 0; i < count; ++i)
    bits[i] = ((bytes[i / 8] >> (i % 8)) & std::byte{1}) != std::byte{0};
  return bits;
}

template <class T>
T get_vector(Reader& reader) {
  using Element = typename T::value_type;
  const std::size_t count = reader.read_count(extent<Element>().least);
  if constexpr (kKind<Element> == Kind::bytes) {
    return vector_from_raw<T>(reader.take(count * sizeof(Element)), count);
  } else {
    T values;
    values.reserve(capacity_for(reader, count, sizeof(Element)));
    for (std::size_t i = 0; i < count; ++i)
      values.push_back(get<Element>(reader));
    return values;
  }
}

template <class T>
T get_sequence(Reader& reader) {
  using Element = typename T::value_type;
  T values;
  for (auto left = reader.read_count(extent<Element>().least); left > 0; --left)
    values.push_back(get<Element>(reader));
  return values;
}

template <class T>
T get_set(Reader& reader) {
  using Key = typename T::key_type;
  T values;
  for (auto left = reader.read_count(extent<Key>().least); left > 0; --left)
    values.insert(values.end(), get<Key>(reader));
  return values;
}

template <class T>
T get_map(Reader& reader) {
  using Key = typename T::key_type;
  using Mapped = typename T::mapped_type;
  T values;
  for (auto left =
           reader.read_count(extent<Key>().least + extent<Mapped>().least);
       left > 0; --left) {
    auto key = get<Key>(reader);
    values.emplace_hint(values.end(), std::move(key), get<Mapped>(reader));
  }
  return values;
}

template <class T, std::size_t... I>
T get_each(Reader& reader, std::index_sequence<I...>) {
  return T{{((void)I, get<typename T::value_type>(reader))...}};
}

template <class T>
T get_array(Reader& reader) {
  using Element = typename T::value_type;
  if constexpr (std::tuple_size_v<T> == 0) {
    reader.take(1);
    return T{};
  } else if constexpr (std::default_initializable<Element> &&
                       std::is_move_assignable_v<Element>) {
    T values;
    for (auto& value : values) value = get<Element>(reader);
    return values;
  } else {
    return get_each<T>(reader,
                       std::make_index_sequence<std::tuple_size_v<T>>{});
  }
}

template <class... Ts>
std::variant<Ts...> get_variant(Reader& reader, std::variant<Ts...>*) {
  using V = std::variant<Ts...>;
  const unsigned index = reader.read_choice(sizeof...(Ts));
  return [&]<std::size_t... I>(std::index_sequence<I...>) {
    using Get = V (*)(Reader&);
    static constexpr Get kGet[] = {[](Reader& from) {
      return V(std::in_place_index<I>,
               get<std::variant_alternative_t<I, V>>(from));
    }...};
    return kGet[index](reader);
  }
  (std::index_sequence_for<Ts...>{});
}

// Clang would have braces around the elements of an array.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmissing-braces"

// The parts of T, given to its braces: left to right.
template <class T, template <class...> class List, class... Ts>
T get_parts(Reader& reader, List<Ts...>*) {
  if constexpr (sizeof...(Ts) == 0) {
    reader.take(1);
    return T{};
  } else {
    return T{get<std::remove_const_t<Ts>>(reader)...};
  }
}

#pragma GCC diagnostic pop

template <class T>
T get_standard(Reader& reader) {
  constexpr Form kForm = Parts<T>::kForm;
  if constexpr (kForm == Form::text) {
    return get_text<T>(reader);
  } else if constexpr (kForm == Form::path) {
    return T(get<typename T::string_type>(reader), T::native_format);
  } else if constexpr (kForm == Form::vector) {
    return get_vector<T>(reader);
  } else if constexpr (kForm == Form::bits) {
    return get_bits<T>(reader);
  } else if constexpr (kForm == Form::sequence) {
    return get_sequence<T>(reader);
  } else if constexpr (kForm == Form::set) {
    return get_set<T>(reader);
  } else if constexpr (kForm == Form::map) {
    return get_map<T>(reader);
  } else if constexpr (kForm == Form::array) {
    return get_array<T>(reader);
  } else if constexpr (kForm == Form::product) {
    return get_parts<T>(reader, static_cast<typename Parts<T>::type*>(nullptr));
  } else if constexpr (kForm == Form::optional) {
    if (reader.read_choice(2) == 0) return std::nullopt;
    return T(std::in_place, get<typename T::value_type>(reader));
  } else if constexpr (kForm == Form::pointer) {
    if (reader.read_choice(2) == 0) return nullptr;
    using Element = typename T::element_type;
    return T(new Element(get<Element>(reader)));
  } else {
    return get_variant(reader, static_cast<T*>(nullptr));
  }
}

template <class F>
void get_into(Reader& reader, F& field) {
  if constexpr (std::is_array_v<F>) {
    for (auto& element : field) get_into(reader, element);
  } else if constexpr (kKind<F> == Kind::serialize) {
    codec::get_serialized_into(reader, field);
  } else {
    field = get<F>(reader);
  }
}

template <class... Ts>
consteval bool any_array(std::tuple<Ts...>*) {
  return (std::is_array_v<Ts> || ...);
}
template <class... Ts>
consteval bool all_assignable(std::tuple<Ts...>*) {
  return (std::is_move_assignable_v<std::remove_all_extents_t<Ts>> && ...);
}

// The fields with each element of an array as one: T{...} takes them so.
template <class E, std::size_t... I>
Types<std::enable_if_t<(I >= 0), E>...> elements_of(std::index_sequence<I...>);
template <class F>
using FlatOf = decltype(elements_of<std::remove_all_extents_t<F>>(
    std::make_index_sequence<sizeof(F) /
                             sizeof(std::remove_all_extents_t<F>)>{}));
template <class... As, class... Bs>
Types<As..., Bs...> operator+(Types<As...>, Types<Bs...>);
template <class... Fs>
auto flatten(std::tuple<Fs...>*) -> decltype((Types<>{} + ... + FlatOf<Fs>{}));

template <class T>
T get_aggregate(Reader& reader) {
  const Reader::Level level(reader, codec::level_cost<T>());
  constexpr auto* kFields = static_cast<fields::TypesOf<T>*>(nullptr);
  if constexpr (!any_array(kFields)) {
    return get_parts<T>(reader, kFields);
  } else if constexpr (std::default_initializable<T> &&
                       all_assignable(kFields)) {
    T value{};
    fields::apply([&reader](auto&... field) { (get_into(reader, field), ...); },
                  value);
    return value;
  } else {
    using Flat = decltype(codec::flatten(kFields));
    return get_parts<T>(reader, static_cast<Flat*>(nullptr));
  }
}

template <class T>
T get(Reader& reader) {
  if constexpr (kKind<T> == Kind::bytes) {
    return from_raw<T>(reader.take(sizeof(T)));
  } else if constexpr (kKind<T> == Kind::handle) {
    return HandleTraits<T>::resolve(
        from_raw<HandleRef>(reader.take(sizeof(HandleRef))), reader.arrival());
  } else if constexpr (kKind<T> == Kind::aggregate) {
    return get_aggregate<T>(reader);
  } else if constexpr (kKind<T> == Kind::serialize) {
    return codec::get_serialized<T>(reader);
  } else {
    return get_standard<T>(reader);
  }
}

}  // namespace shoal::codec
