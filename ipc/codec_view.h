#pragma once
// A message read in place: strings as string_view, vectors of plain values as
// Elements, without allocating and without a copy of what they hold.
//
//   struct Order { int id; std::string symbol; std::vector<double> prices; };
//   const auto view = codec::view<Order>(bytes);
//   auto [id, symbol, prices] = view;   // int, string_view, Elements<double>
//
// View<T>, for a T that is
//   trivially copyable          T, a copy
//   string, path                basic_string_view; of characters of more than
//                               a byte: Elements
//   vector, deque, list, set,   Elements<E> if E is trivially copyable, else
//   std::array, C array of E    Sequence<E>, a forward range of View<E>
//   vector<bool>                Bits
//   map<K, V> of any sort       Sequence<pair<K, V>>, in the sender's order
//   pair, tuple, variant,       the same of View<…>
//   optional
//   aggregate                   std::tuple of the fields' View<…>
//   unique_ptr<E>               optional<Encoded<E>>
//   type with serialize         Encoded<T>
// Encoded<T> is the bytes of one T: view() or decode(). What holds a handle
// has no view.
//
// Everything is checked when the view is made, as decode checks it: Corrupt.
// (What only serialize understands is checked by its decode().) Should the
// bytes change afterwards, under a hostile peer, values may be wrong and
// ranges throw Corrupt; nothing is read beyond the bytes.
//
// Sharing:  valid as long as the bytes are there.
// Cost:     one pass over the message; a Sequence passes over an element again
//           when it comes to it.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "shoal/ipc/codec.h"
#include "shoal/ipc/codec_skip.h"
#include "shoal/ipc/codec_view_types.h"

namespace shoal::codec {

// All that `pass` passes over.
template <class Pass>
std::span<const std::byte> bytes_of(Reader& reader, Pass&& pass) {
  const std::byte* first = reader.take(0);
  const std::size_t before = reader.remaining();
  pass();
  return {first, before - reader.remaining()};
}

template <class E>
ViewOfElements<E> view_elements(Reader& reader, std::size_t count) {
  if constexpr (kKind<E> == Kind::bytes) {
    return {take_elements<E>(reader, count), count};
  } else {
    return {bytes_of(reader, [&] { skip_elements<E>(reader, count); }), count};
  }
}

template <class T>
Encoded<T> view_encoded(Reader& reader) {
  return Encoded<T>(bytes_of(reader, [&] { codec::skip<T>(reader); }));
}

// The views of the parts, given to braces: left to right.
template <class V, template <class...> class List, class... Ts>
V view_parts(Reader& reader, List<Ts...>*) {
  if constexpr (sizeof...(Ts) == 0) {
    reader.take(1);
    return V{};
  } else {
    return V{codec::view_next<std::remove_const_t<Ts>>(reader)...};
  }
}

template <class V, class... Ts>
V view_choice(Reader& reader, Types<Ts...>*) {
  const unsigned index = reader.read_choice(sizeof...(Ts));
  return [&]<std::size_t... I>(std::index_sequence<I...>) {
    using Get = V (*)(Reader&);
    static constexpr Get kGet[] = {[](Reader& from) {
      return V(std::in_place_index<I>, codec::view_next<Ts>(from));
    }...};
    return kGet[index](reader);
  }
  (std::index_sequence_for<Ts...>{});
}

template <class T>
View<T> view_standard(Reader& reader) {
  constexpr Form kForm = Parts<T>::kForm;
  constexpr auto* kParts = static_cast<typename Parts<T>::type*>(nullptr);
  if constexpr (kForm == Form::path || kForm == Form::text) {
    using C = typename T::value_type;
    const std::size_t count = reader.read_count(sizeof(C));
    const std::byte* bytes = reader.take(count * sizeof(C));
    if constexpr (sizeof(C) == 1)
      return View<T>(reinterpret_cast<const C*>(bytes), count);
    else
      return View<T>(bytes, count);
  } else if constexpr (kForm == Form::bits) {
    const auto count = reader.read<std::uint64_t>();
    return Bits(take_bits(reader, count), count);
  } else if constexpr (kForm == Form::optional) {
    if (reader.read_choice(2) == 0) return std::nullopt;
    return View<T>(std::in_place,
                   codec::view_next<typename T::value_type>(reader));
  } else if constexpr (kForm == Form::pointer) {
    if (reader.read_choice(2) == 0) return std::nullopt;
    return view_encoded<typename T::element_type>(reader);
  } else if constexpr (kForm == Form::product) {
    return view_parts<View<T>>(reader, kParts);
  } else if constexpr (kForm == Form::variant) {
    return view_choice<View<T>>(reader, kParts);
  } else if constexpr (kForm == Form::array) {
    if constexpr (std::tuple_size_v<T> == 0) reader.take(1);
    return view_elements<typename T::value_type>(reader, std::tuple_size_v<T>);
  } else {
    using Element = typename ElementOf<T>::type;
    return view_elements<Element>(reader,
                                  reader.read_count(extent<Element>().least));
  }
}

// As decode does, of one T among others.
template <class T>
View<T> view_next(Reader& reader) {
  if constexpr (std::is_array_v<T>) {
    using Element = std::remove_all_extents_t<T>;
    return view_elements<Element>(reader, sizeof(T) / sizeof(Element));
  } else if constexpr (kKind<T> == Kind::bytes) {
    return from_raw<T>(reader.take(sizeof(T)));
  } else if constexpr (kKind<T> == Kind::aggregate) {
    const Reader::Level level(reader, codec::level_cost<T>());
    return view_parts<View<T>>(reader,
                               static_cast<fields::TypesOf<T>*>(nullptr));
  } else if constexpr (kKind<T> == Kind::serialize) {
    return view_encoded<T>(reader);
  } else {
    static_assert(kKind<T> != Kind::handle,
                  "shoal: a message that holds a handle has no view: decode "
                  "it.");
    return view_standard<T>(reader);
  }
}

// All of bytes is one T, else Corrupt.
template <Message T>
View<T> view(std::span<const std::byte> bytes) {
  Reader reader(bytes);
  View<T> view = codec::view_next<T>(reader);
  reader.finish();
  return view;
}
// They would be gone.
template <Message T>
View<T> view(std::vector<std::byte>&&) = delete;

}  // namespace shoal::codec
