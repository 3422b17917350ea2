#pragma once
// Why a type is no Message, as a sentence of the compiler's.
//
//   static_assert(codec::require_message<T>());   // in class templates
//
// The error stands at the innermost part that cannot travel; the compiler's
// "required from" or "in instantiation of" lines lead to it from T.

#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <tuple>
#include <type_traits>

#include "shoal/ipc/codec_traits.h"

namespace shoal::codec {

template <template <class...> class Template, class T>
inline constexpr bool kIs = false;
template <template <class...> class Template, class... Ts>
inline constexpr bool kIs<Template, Template<Ts...>> = true;
template <class T>
inline constexpr bool kIsSpan = false;
template <class T, std::size_t kN>
inline constexpr bool kIsSpan<std::span<T, kN>> = true;
template <class T>
inline constexpr bool kIsUniquePtr = false;
template <class T, class D>
inline constexpr bool kIsUniquePtr<std::unique_ptr<T, D>> = true;

// Depends on T, so that only what is instantiated fails.
template <class T>
inline constexpr bool kTravels = false;

template <class T, class... Seen>
consteval bool refuse_parts();

template <class T>
consteval bool refuse_serialize() {
  static_assert(
      Makeable<T>,
      "shoal: a type with serialize needs a default constructor, into which "
      "the receiver reads. It may be private beside friend struct "
      "shoal::SerializeAccess.");
  static_assert(std::is_move_constructible_v<T>,
                "shoal: a type with serialize must be movable to travel.");
  return true;
}

// What points into this process.
template <class T>
consteval bool refuse_pointing() {
  if constexpr (kIs<std::basic_string_view, T>) {
    static_assert(kTravels<T>,
                  "shoal: a string_view points into this process only: send "
                  "std::string.");
  } else if constexpr (kIsSpan<T>) {
    static_assert(kTravels<T>,
                  "shoal: a span points into this process only: send "
                  "std::vector, or share the elements in a shoal::Array.");
  } else if constexpr (kIs<std::reference_wrapper, T>) {
    static_assert(kTravels<T>,
                  "shoal: a reference_wrapper refers to an object of this "
                  "process only: send the value, or share it by a shoal "
                  "handle.");
  } else if constexpr (std::is_pointer_v<T> &&
                       std::is_function_v<std::remove_pointer_t<T>>) {
    static_assert(kTravels<T>,
                  "shoal: a pointer to a function cannot travel in a message: "
                  "give the function to a Pool or Process itself.");
  } else if constexpr (std::is_pointer_v<T> || std::is_member_pointer_v<T> ||
                       std::is_null_pointer_v<T>) {
    static_assert(kTravels<T>,
                  "shoal: a raw pointer points into this process only: send "
                  "the value itself, std::string for text, std::vector for "
                  "ranges, std::unique_ptr or std::optional for what may be "
                  "absent, a shoal handle for what is shared.");
  } else {
    static_assert(kTravels<T>,
                  "shoal: an iterator, view, error_code or the like points "
                  "into this process only: send the value that it stands "
                  "for.");
  }
  return true;
}

template <class T>
consteval bool refuse_class() {
  if constexpr (kIs<std::function, T>) {
    static_assert(kTravels<T>,
                  "shoal: a std::function hides what it holds and cannot "
                  "travel: give the function or lambda itself to a Pool or "
                  "Process, or send a value that says what to do.");
  } else if constexpr (kIs<std::shared_ptr, T> || kIs<std::weak_ptr, T>) {
    static_assert(kTravels<T>,
                  "shoal: a shared_ptr cannot be shared between processes: "
                  "send std::unique_ptr or the value for a copy, a shoal "
                  "handle (Value, Array) for what is to be shared.");
  } else if constexpr (kIsUniquePtr<T>) {
    static_assert(kTravels<T>,
                  "shoal: a unique_ptr to an array does not know its length, "
                  "and a deleter cannot travel: send std::vector, or "
                  "std::unique_ptr<T> of a single T.");
  } else if constexpr (mentions_lambda<T>()) {
    static_assert(kTravels<T>,
                  "shoal: a lambda that captures by reference points into "
                  "this process only, and one that captures strings, vectors "
                  "or handles cannot be taken apart: capture small plain "
                  "values by value and pass the rest as arguments.");
  } else {
    static_assert(
        kTravels<T>,
        "shoal: this class cannot travel between processes: it is neither "
        "trivially copyable nor an aggregate of Messages (no constructors, "
        "base classes, private or virtual members, references; at most 100 "
        "fields), nor of the standard library's containers. Give it a "
        "template <class A> void serialize(A& ar) { ar(x, y); }.");
  }
  return true;
}

// T is no Message.
template <class T, class... Seen>
consteval bool refuse() {
  if constexpr (std::is_reference_v<T>) {
    static_assert(kTravels<T>,
                  "shoal: a reference refers to an object of this process "
                  "only: send the value, or share it by a shoal handle.");
  } else if constexpr (std::is_const_v<T> || std::is_volatile_v<T>) {
    static_assert(kTravels<T>,
                  "shoal: the type of a message is without const and volatile: "
                  "drop the qualifier.");
  } else if constexpr (std::is_array_v<T>) {
    static_assert(kTravels<T>,
                  "shoal: a C array is no value by itself: send std::array, "
                  "std::vector or std::string, or a struct that holds it.");
  } else if constexpr (!Object<T>) {
    static_assert(kTravels<T>,
                  "shoal: a function, void or a type that is only declared "
                  "cannot be a message.");
  } else if constexpr (kKind<T> == Kind::serialize) {
    return refuse_serialize<T>();
  } else if constexpr (kKind<T> == Kind::bytes) {
    static_assert(kTravels<T>, "shoal: a message must be movable.");
  } else if constexpr (kKind<T> == Kind::standard ||
                       kKind<T> == Kind::aggregate || fields::Visible<T>) {
    return refuse_parts<T, Seen...>();
  } else if constexpr (kPointsHere<T>) {
    return refuse_pointing<T>();
  } else {
    return refuse_class<T>();
  }
  return true;
}

template <class T, class... Seen>
consteval bool refuse_unless_message() {
  if constexpr (!is_message<T, Seen...>()) return refuse<T, Seen...>();
  return true;
}
template <class... Seen, template <class...> class List, class... Ts>
consteval bool refuse_each(Types<Seen...>, List<Ts...>*) {
  return (
      refuse_unless_message<std::remove_const_t<std::remove_all_extents_t<Ts>>,
                            Seen...>() &&
      ...);
}
template <class T, class... Seen>
consteval bool refuse_parts() {
  if constexpr (kKind<T> == Kind::standard) {
    return refuse_each(Types<Seen...>{},
                       static_cast<typename Parts<T>::type*>(nullptr));
  } else {
    return refuse_each(Types<T, Seen...>{},
                       static_cast<fields::TypesOf<T>*>(nullptr));
  }
}

// Always true: what is no Message does not compile.
template <class T>
consteval bool require_message() {
  if constexpr (!kIsMessage<T>) return refuse<T>();
  return true;
}

}  // namespace shoal::codec
