#pragma once
// How deep a Message may nest: what bounds the stack when bytes decide.
//
// A type nests by its data only if it holds itself by way of a unique_ptr or a
// container, such as a list's node. Encoding, decoding and destroying such a
// value recurse; so it is refused when it is made and when it is read, at the
// same depth: kMaxDepth levels, fewer where a level is larger than
// kBytesALevel, since some hold one on the stack.

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <tuple>
#include <type_traits>

#include "shoal/ipc/codec_stream.h"
#include "shoal/ipc/codec_traits.h"

namespace shoal::codec {

inline constexpr std::size_t kBytesALevel = 256;

// Stands for all of them in holds().
struct AnyHandle {};
template <class In, class T>
inline constexpr bool kIsIn = std::same_as<In, T>;
template <class T>
inline constexpr bool kIsIn<AnyHandle, T> = kKind<T> == Kind::handle;

// Is there an In within T? Of what serialize gives nothing is known: perhaps.
template <class In, class T, class... Seen>
consteval bool holds();
template <class In, class... Seen, template <class...> class List, class... Ts>
consteval bool any_holds(Types<Seen...>, List<Ts...>*) {
  return (holds<In, std::remove_const_t<std::remove_all_extents_t<Ts>>,
                Seen...>() ||
          ...);
}
template <class T, class... Seen, class In>
consteval bool parts_hold(Types<In>) {
  if constexpr (kKind<T> == Kind::standard) {
    return any_holds<In>(Types<T, Seen...>{},
                         static_cast<typename Parts<T>::type*>(nullptr));
  } else if constexpr (kKind<T> == Kind::aggregate) {
    return any_holds<In>(Types<T, Seen...>{},
                         static_cast<fields::TypesOf<T>*>(nullptr));
  } else {
    return kKind<T> == Kind::serialize;
  }
}
template <class In, class T, class... Seen>
consteval bool holds() {
  if constexpr (kIsIn<In, T>) {
    return true;
  } else if constexpr ((std::same_as<T, Seen> || ...)) {
    return false;
  } else {
    return parts_hold<T, Seen...>(Types<In>{});
  }
}

// Whether writing one may need a Passage.
template <class T>
inline constexpr bool kMayHoldHandles = holds<AnyHandle, std::remove_cv_t<T>>();

// What a T, which is an aggregate or has serialize, takes of kMaxDepth.
template <class T>
consteval unsigned level_cost() {
  if constexpr (parts_hold<T>(Types<T>{})) {
    constexpr std::size_t kCost = 1 + sizeof(T) / kBytesALevel;
    return static_cast<unsigned>(std::min<std::size_t>(kCost, kMaxDepth / 4));
  } else {
    return 0;
  }
}

}  // namespace shoal::codec
