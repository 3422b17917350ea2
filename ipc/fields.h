#pragma once
// The fields of an aggregate: how many, of which types, and references to them.
//
//   struct Order { int id; char symbol[8]; double price; };
//   static_assert(fields::kCount<Order> == 3);
//   fields::apply([](auto&... field) { (print(field), ...); }, order);
//
// Boost.PFR binds the fields. Counting is ours, since PFR 1.81 counts each
// element of a C array as a field and stops compiling at what it cannot bind:
// base classes, unions, references, more than 100 fields. Such types count as
// kOpaque here. Bit-fields cannot be told apart from outside: an aggregate
// that has them does not compile; give it a constructor, and it is opaque.

#include <boost/pfr/core.hpp>
#include <climits>
#include <cstddef>
#include <cstdlib>
#include <tuple>
#include <type_traits>
#include <utility>

namespace shoal::fields {

// Instead of a count:
inline constexpr std::size_t kOpaque = static_cast<std::size_t>(-1);
inline constexpr std::size_t kRefused = static_cast<std::size_t>(-2);
inline constexpr std::size_t kMostFields = 100;  // what PFR 1.81 binds
// Elements of C arrays count singly here; beyond it, compiling takes seconds.
inline constexpr std::size_t kMostElements = 1024;

namespace detail {

inline constexpr std::size_t kNone = static_cast<std::size_t>(-1);

// Each probe converts to the fields of one sort; what an initialiser accepts
// tells what the field is. They are never called, but defined all the same:
// clang wants it where a constructor is constexpr and the type unnamed outside.
struct Any {
  template <class U>
  operator U() const {  // NOLINT(google-explicit-constructor): a probe
    std::abort();
  }
};
struct Union {
  template <class U>
  requires std::is_union_v<U>
  operator U() const {  // NOLINT(google-explicit-constructor)
    std::abort();
  }
};
template <class Derived>
struct Base {
  template <class U>
  requires(std::is_base_of_v<U, Derived> && !std::is_same_v<U, Derived>)
  operator U() const {  // NOLINT(google-explicit-constructor)
    std::abort();
  }
};
struct ConstReference {
  template <class U>
  requires std::is_const_v<U>
  operator U&() const {  // NOLINT(google-explicit-constructor)
    std::abort();
  }
};
struct Lvalue {
  template <class U>
  operator U&() const {  // NOLINT(google-explicit-constructor)
    std::abort();
  }
};

template <std::size_t>
using AnyAt = Any;

// g++ remarks that std::optional takes Any by its constructor.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"

// clang 14 instantiates the constructors that these initialisers would call,
// so they must be ones that compile: std::vector's copy constructor does not
// for elements that only move. Any and {} call none or the default one.

// T{any × before, probe, any × after}
template <class T, class Probe, class Before, class After, class = void>
inline constexpr bool kAcceptsIn = false;
template <class T, class Probe, std::size_t... B, std::size_t... A>
inline constexpr bool kAcceptsIn<
    T, Probe, std::index_sequence<B...>, std::index_sequence<A...>,
    std::void_t<decltype(T{AnyAt<B>{}..., Probe{}, AnyAt<A>{}...})>> = true;
template <class T, class Probe, std::size_t kBefore, std::size_t kAfter>
inline constexpr bool kAccepts =
    kAcceptsIn<T, Probe, std::make_index_sequence<kBefore>,
               std::make_index_sequence<kAfter>>;

// T{any × before, {}, any × after} and T{any × before, {any}, any × after}:
// braces take one whole field, also where it is an array, which takes one
// `any` an element without them.
template <class T, class Before, class After, class = void>
inline constexpr bool kTakesEmptyIn = false;
template <class T, std::size_t... B, std::size_t... A>
inline constexpr bool
    kTakesEmptyIn<T, std::index_sequence<B...>, std::index_sequence<A...>,
                  std::void_t<decltype(T{AnyAt<B>{}..., {}, AnyAt<A>{}...})>> =
        true;
template <class T, class Before, class After, class = void>
inline constexpr bool kTakesBracedIn = false;
template <class T, std::size_t... B, std::size_t... A>
inline constexpr bool kTakesBracedIn<
    T, std::index_sequence<B...>, std::index_sequence<A...>,
    std::void_t<decltype(T{AnyAt<B>{}..., {Any{}}, AnyAt<A>{}...})>> = true;
template <class T, std::size_t kBefore, std::size_t kAfter>
consteval bool takes_braces() {
  using Before = std::make_index_sequence<kBefore>;
  using After = std::make_index_sequence<kAfter>;
  if constexpr (kTakesEmptyIn<T, Before, After>) {
    return true;
  } else {
    return kTakesBracedIn<T, Before, After>;
  }
}

// T{any × before, {any × inside}, any × after}
template <class T, class Before, class Inside, class After, class = void>
inline constexpr bool kTakesInsideIn = false;
template <class T, std::size_t... B, std::size_t... I, std::size_t... A>
inline constexpr bool kTakesInsideIn<
    T, std::index_sequence<B...>, std::index_sequence<I...>,
    std::index_sequence<A...>,
    std::void_t<decltype(T{AnyAt<B>{}..., {AnyAt<I>{}...}, AnyAt<A>{}...})>> =
    true;
template <class T, std::size_t kBefore, std::size_t kInside, std::size_t kAfter>
inline constexpr bool kTakesInside =
    kTakesInsideIn<T, std::make_index_sequence<kBefore>,
                   std::make_index_sequence<kInside>,
                   std::make_index_sequence<kAfter>>;

// T{any × n}
template <class T, class N, class = void>
inline constexpr bool kTakesIn = false;
template <class T, std::size_t... I>
inline constexpr bool kTakesIn<T, std::index_sequence<I...>,
                               std::void_t<decltype(T{AnyAt<I>{}...})>> = true;
template <class T, std::size_t kN>
inline constexpr bool kTakes = kTakesIn<T, std::make_index_sequence<kN>>;

// Does a field follow that Any does not initialise, such as U&?
template <class T, std::size_t kN>
inline constexpr bool kMoreThan =
    kTakesEmptyIn<T, std::make_index_sequence<kN>, std::index_sequence<>> ||
    kAccepts<T, Lvalue, kN, 0>;

#pragma GCC diagnostic pop

// The fewest initialisers that T needs: fields without a default come first.
template <class T, std::size_t kN = 0>
consteval std::size_t least() {
  if constexpr (kTakes<T, kN>) {
    return kN;
  } else if constexpr (kN < kMostFields && kN < sizeof(T) * CHAR_BIT) {
    return least<T, kN + 1>();
  } else {
    return kNone;
  }
}

// The most that it takes, known to lie in [kLow, kHigh).
template <class T, std::size_t kLow, std::size_t kHigh>
consteval std::size_t bisect() {
  if constexpr (kHigh - kLow <= 1) {
    return kLow;
  } else {
    constexpr std::size_t kMiddle = kLow + (kHigh - kLow) / 2;
    if constexpr (kTakes<T, kMiddle>) {
      return bisect<T, kMiddle, kHigh>();
    } else {
      return bisect<T, kLow, kMiddle>();
    }
  }
}
template <class T, std::size_t kLow, std::size_t kStep = 1>
consteval std::size_t most() {
  if constexpr (kLow + kStep > kMostElements) {
    return kNone;
  } else if constexpr (kTakes<T, kLow + kStep>) {
    return most<T, kLow + kStep, kStep * 2>();
  } else {
    return bisect<T, kLow, kLow + kStep>();
  }
}

// How many initialisers may follow a braced one at kAt, in [0, kHigh).
template <class T, std::size_t kAt, std::size_t kLow, std::size_t kHigh>
consteval std::size_t bisect_after() {
  if constexpr (kHigh - kLow <= 1) {
    return kLow;
  } else {
    constexpr std::size_t kMiddle = kLow + (kHigh - kLow) / 2;
    if constexpr (takes_braces<T, kAt, kMiddle>()) {
      return bisect_after<T, kAt, kMiddle, kHigh>();
    } else {
      return bisect_after<T, kAt, kLow, kMiddle>();
    }
  }
}
// The same where what follows must have some.
template <class T, std::size_t kAt, std::size_t kAfter>
consteval std::size_t search_after() {
  if constexpr (takes_braces<T, kAt, kAfter>()) {
    return kAfter;
  } else if constexpr (kAfter > 0) {
    return search_after<T, kAt, kAfter - 1>();
  } else {
    return kNone;
  }
}

// The elements of an array at kAt that has no default for any of them, or 1.
template <class T, std::size_t kAt, std::size_t kAll, std::size_t kInside = 2>
consteval std::size_t search_inside() {
  if constexpr (kAt + kInside > kAll) {
    return 1;
  } else if constexpr (kTakesInside<T, kAt, kInside, kAll - kAt - kInside>) {
    return kInside;
  } else {
    return search_inside<T, kAt, kAll, kInside + 1>();
  }
}

// Unbraced initialisers that the field at kAt takes: its elements, or 1.
template <class T, std::size_t kAt, std::size_t kAll, bool kDefaults>
consteval std::size_t width() {
  constexpr std::size_t kRest = kAll - kAt - 1;
  if constexpr (takes_braces<T, kAt, kRest>()) {
    return 1;
  } else if constexpr (!kDefaults) {
    constexpr std::size_t kAfter = search_after<T, kAt, kRest>();
    if constexpr (kAfter == kNone)
      return search_inside<T, kAt, kAll>();
    else
      return kAll - kAt - kAfter;
  } else if constexpr (takes_braces<T, kAt, 0>()) {
    return kAll - kAt - bisect_after<T, kAt, 0, kRest>();
  } else {
    return 1;
  }
}

// kOpaque or kRefused for a field that cannot be bound, else 0.
template <class T, std::size_t kAt, std::size_t kRest>
consteval std::size_t obstacle() {
  if constexpr (kAccepts<T, Union, kAt, kRest>) {
    return kOpaque;
  } else if constexpr (kAccepts<T, ConstReference, kAt, kRest>) {
    return kRefused;  // const U&
  } else {
    return 0;
  }
}

template <class T, std::size_t kAll, bool kDefaults, std::size_t kAt = 0,
          std::size_t kSoFar = 0>
consteval std::size_t count_from() {
  if constexpr (kAt >= kAll) {
    return kSoFar;
  } else if constexpr (kSoFar == kMostFields) {
    return kOpaque;
  } else if constexpr (constexpr std::size_t kObstacle =
                           obstacle<T, kAt, kAll - kAt - 1>();
                       kObstacle != 0) {
    return kObstacle;
  } else {
    return count_from<T, kAll, kDefaults,
                      kAt + width<T, kAt, kAll, kDefaults>(), kSoFar + 1>();
  }
}

template <class T>
consteval std::size_t count() {
  if constexpr (!std::is_class_v<T> || !std::is_aggregate_v<T>) {
    return kOpaque;
  } else if constexpr (requires { sizeof(std::tuple_size<T>); }) {
    return kOpaque;  // structured bindings give what it says, not the fields
  } else if constexpr (kAccepts<T, Base<T>, 0, 0>) {
    return kOpaque;
  } else if constexpr (std::is_empty_v<T>) {
    return 0;
  } else if constexpr (constexpr std::size_t kLeast = least<T>();
                       kLeast == kNone) {
    return kRefused;
  } else if constexpr (constexpr std::size_t kAll = most<T, kLeast>();
                       kAll == kNone) {
    return kOpaque;
  } else if constexpr (kAll == 0 || kMoreThan<T, kAll>) {
    return kRefused;
  } else if constexpr (kAccepts<T, Base<T>, 0, kAll - 1>) {
    return kOpaque;
  } else {
    return count_from<T, kAll, kLeast == 0>();
  }
}

template <class... Ts>
std::tuple<Ts...>* types_of(
    const boost::pfr::detail::sequence_tuple::tuple<Ts&...>&);

template <class T, std::size_t kN>
constexpr auto tie(T& value) noexcept {
  return boost::pfr::detail::tie_as_tuple(value,
                                          boost::pfr::detail::size_t_<kN>{});
}
template <class T, std::size_t kN>
using TypesOf = std::remove_pointer_t<decltype(detail::types_of(
    detail::tie<T, kN>(std::declval<T&>())))>;

template <class F, class Tied, std::size_t... I>
constexpr decltype(auto) apply(F& f, [[maybe_unused]] Tied tied,
                               std::index_sequence<I...>) {
  return f(boost::pfr::detail::sequence_tuple::get<I>(tied)...);
}

template <class... Ts>
consteval bool all_copyable(std::tuple<Ts...>*) {
  return (std::is_copy_constructible_v<std::remove_all_extents_t<Ts>> && ...);
}

template <class T>
consteval std::size_t checked_count() {
  constexpr std::size_t kN = count<T>();
  if constexpr (kN >= kRefused) {  // kOpaque too
    return kN;
  } else {
    // What keeps an aggregate of copyable fields from being copied is U&&.
    return !std::is_copy_constructible_v<T> &&
                   all_copyable(static_cast<TypesOf<T, kN>*>(nullptr))
               ? kRefused
               : kN;
  }
}

}  // namespace detail

// The number of T's own fields, or kOpaque: not an aggregate, or not one that
// can be bound. kRefused: it holds references.
template <class T>
inline constexpr std::size_t kCount = detail::checked_count<T>();

template <class T>
concept Visible = (kCount<T> < kRefused);

// References to the fields of value, in order.
template <class T>
requires Visible<std::remove_const_t<T>>
constexpr auto tie(T& value) noexcept {
  return detail::tie<T, kCount<std::remove_const_t<T>>>(value);
}

// std::tuple of the fields' types; arrays stay arrays.
template <Visible T>
using TypesOf = detail::TypesOf<T, kCount<T>>;

// f(fields...)
template <class F, class T>
requires Visible<std::remove_const_t<T>>
constexpr decltype(auto) apply(F&& f, T& value) {
  using Indices = std::make_index_sequence<kCount<std::remove_const_t<T>>>;
  return detail::apply(f, fields::tie(value), Indices{});
}

}  // namespace shoal::fields
