#pragma once
// What became of one item of a stream.

#include <exception>
#include <optional>
#include <tuple>
#include <type_traits>
#include <variant>
#include <vector>

#include "shoal/ipc/codec_traits.h"

namespace shoal {

// What a stream of void yields.
template <class R>
using Streamed = std::conditional_t<std::is_void_v<R>, std::monostate, R>;

namespace pool {

// What a map of functions that give an R gives.
template <class R>
using AllOf =
    std::conditional_t<std::is_void_v<R>, void, std::vector<Streamed<R>>>;

template <class R>
struct Attempt {
  std::optional<Streamed<R>> value;
  std::exception_ptr error;  // instead
};

// Whether a T can be copied, and all that it holds: a container says that it
// can, whatever is in it. Seen: the aggregates around T, which may hold itself.
template <class T, class... Seen>
consteval bool copies();
template <class... Seen, class... Ts>
consteval bool all_copy(codec::Types<Seen...>, codec::Types<Ts...>*) {
  return (copies<Ts, Seen...>() && ...);
}
template <class... Seen, class... Ts>
consteval bool all_copy(codec::Types<Seen...>, std::tuple<Ts...>*) {
  return (
      copies<std::remove_const_t<std::remove_all_extents_t<Ts>>, Seen...>() &&
      ...);
}
template <class T, class... Seen>
consteval bool copies() {
  if constexpr (std::is_void_v<T> || (std::is_same_v<T, Seen> || ...))
    return true;
  else if constexpr (!std::is_copy_constructible_v<T>)
    return false;
  else if constexpr (codec::Standard<T>)
    return all_copy(codec::Types<Seen...>{},
                    static_cast<typename codec::Parts<T>::type*>(nullptr));
  else if constexpr (codec::kKind<T> == codec::Kind::aggregate)
    return all_copy(codec::Types<T, Seen...>{},
                    static_cast<fields::TypesOf<T>*>(nullptr));
  else
    return true;
}

// Whether get() of an AsyncResult<T> may be repeated.
template <class T>
inline constexpr bool kCopies = copies<T>();
template <class R>
inline constexpr bool kCopies<std::vector<Attempt<R>>> = false;  // moved on

}  // namespace pool
}  // namespace shoal
