#pragma once
// How the codec sees a type: which kind it is, and what it consists of.
//
//   static_assert(codec::kKind<std::vector<int>> == codec::Kind::standard);
//   static_assert(codec::kIsMessage<std::map<std::string, Order>>);
//
// Programs use the concepts of message.h. A further kind of Message takes a
// line in Kind, in kind_of and in is_message here, and one in each of size_at,
// put, get and skip.

#include <concepts>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <iterator>
#include <ranges>
#include <source_location>
#include <span>
#include <string_view>
#include <system_error>
#include <tuple>
#include <type_traits>
#include <typeindex>

#include "shoal/ipc/codec_parts.h"
#include "shoal/ipc/codec_serialize.h"
#include "shoal/ipc/fields.h"

namespace shoal {

// A shoal object or a descriptor as it travels (ipc/passage.h).
struct HandleRef {
  std::uint64_t object;  // id of its segment; 0: only a descriptor
  std::uint64_t part;    // of the object: an end
  std::uint64_t type;
  std::uint64_t domain;  // id of the tree's domain it lives in; 0: its own
  std::uint64_t keeper;  // who holds its descriptors; 0: what brings the bytes
  std::uint64_t ticket;  // under this number; 0: the reader has it mapped

  bool operator==(const HandleRef&) const = default;
};
static_assert(sizeof(HandleRef) == 48 &&
              std::is_trivially_copyable_v<HandleRef>);

// How descriptors come along with bytes, on either side; ipc/passage.h.
class Passage;
class Arrival;

// Defined for each handle:
//   static HandleRef reference(const T&, Passage*);
//   static T resolve(const HandleRef&, Arrival*);
// Without a passage the reader must have the object mapped.
template <class T>
struct HandleTraits;

namespace codec {

// A complete object type without qualifiers.
template <class T>
concept Object =
    std::is_object_v<T> && std::same_as<T, std::remove_cv_t<T>> && requires {
  sizeof(T);
};

template <class T>
concept Handle = requires(const T& handle, const HandleRef& reference,
                          Passage* passage, Arrival* arrival) {
  sizeof(HandleTraits<T>);
  { HandleTraits<T>::reference(handle, passage) } -> std::same_as<HandleRef>;
  { HandleTraits<T>::resolve(reference, arrival) } -> std::same_as<T>;
};

// Means nothing elsewhere, although it can be copied as bytes.
template <class T>
inline constexpr bool kPointsHere =
    std::is_pointer_v<T> || std::is_member_pointer_v<T> ||
    std::is_null_pointer_v<T> || std::ranges::enable_view<T> ||
    std::ranges::enable_borrowed_range<T> || requires {
  typename T::iterator_category;
}
|| requires { typename T::iterator_concept; };
template <class T>
inline constexpr bool kPointsHere<std::reference_wrapper<T>> = true;
template <class T>
inline constexpr bool kPointsHere<std::initializer_list<T>> = true;
template <class T>
inline constexpr bool kPointsHere<std::coroutine_handle<T>> = true;
template <>
inline constexpr bool kPointsHere<std::type_index> = true;
template <>
inline constexpr bool kPointsHere<std::error_code> = true;
template <>
inline constexpr bool kPointsHere<std::error_condition> = true;
#ifdef __cpp_lib_source_location  // clang 14 has none
template <>
inline constexpr bool kPointsHere<std::source_location> = true;
#endif

// g++ names a closure's type "<lambda(int)>", clang "(lambda at …)".
template <class T>
consteval bool mentions_lambda() {
  const std::string_view name = __PRETTY_FUNCTION__;
  return name.find("<lambda") != name.npos ||
         name.find("(lambda at") != name.npos;
}

enum class Kind {
  refused,
  handle,     // as its HandleRef
  bytes,      // as they lie in memory
  standard,   // by what Parts says it holds
  aggregate,  // field by field
  serialize,  // what its serialize gives
};

template <class T>
consteval Kind kind_of();
// A C array is what its elements are, a const field what it is without const.
template <class T>
inline constexpr Kind kKind =
    kind_of<std::remove_const_t<std::remove_all_extents_t<T>>>();

template <class... Ts>
consteval bool all_bytes(std::tuple<Ts...>*) {
  return ((kKind<Ts> == Kind::bytes) && ...);
}
template <class T, class... Ts>
consteval bool all_bytes(Types<T, Ts...>*) {
  return kKind<T> == Kind::bytes;
}
template <class... Ts>
consteval bool all_trivial(std::tuple<Ts...>*) {
  return (std::is_trivially_copyable_v<Ts> && ...);
}

template <class T>
consteval Kind kind_of() {
  if constexpr (!Object<T>) {
    return Kind::refused;
  } else if constexpr (Handle<T>) {
    return Kind::handle;
  } else if constexpr (Standard<T>) {
    if constexpr (Parts<T>::kForm == Form::array &&
                  std::is_trivially_copyable_v<T>) {
      if (all_bytes(static_cast<typename Parts<T>::type*>(nullptr)))
        return Kind::bytes;
    }
    return Kind::standard;
  } else if constexpr (HasSerialize<T>) {
    return Kind::serialize;
  } else if constexpr (!std::is_trivially_copyable_v<T>) {
    return fields::Visible<T> ? Kind::aggregate : Kind::refused;
  } else if constexpr (kPointsHere<T>) {
    return Kind::refused;
  } else if constexpr (!std::is_class_v<T>) {
    return Kind::bytes;
  } else if constexpr (fields::Visible<T>) {
    constexpr auto* kFields = static_cast<fields::TypesOf<T>*>(nullptr);
    if (all_bytes(kFields)) return Kind::bytes;
    // What is not trivial in a trivial T is behind a reference.
    return all_trivial(kFields) ? Kind::aggregate : Kind::refused;
  } else if constexpr (fields::kCount<T> == fields::kRefused) {
    return Kind::refused;
  } else {
    // A closure that captures by reference does not have standard layout.
    return !mentions_lambda<T>() || std::is_standard_layout_v<T>
               ? Kind::bytes
               : Kind::refused;
  }
}

// Seen: the aggregates around T. A type that holds itself, by way of a vector
// or a unique_ptr, is a Message if the rest of it is.
template <class T, class... Seen>
consteval bool is_message();
template <class... Seen, class... Ts>
consteval bool are_messages(Types<Seen...>, Types<Ts...>*) {
  return (is_message<Ts, Seen...>() && ...);
}
template <class... Seen, class... Ts>
consteval bool are_messages(Types<Seen...>, std::tuple<Ts...>*) {
  return (is_message<std::remove_const_t<std::remove_all_extents_t<Ts>>,
                     Seen...>() &&
          ...);
}

template <class T, class... Seen>
consteval bool is_message() {
  if constexpr (!Object<T> || std::is_array_v<T>) {
    return false;
  } else if constexpr ((std::same_as<T, Seen> || ...)) {
    return true;
  } else if constexpr (kKind<T> == Kind::handle) {
    return true;
  } else if constexpr (kKind<T> == Kind::bytes) {
    return std::is_move_constructible_v<T>;
  } else if constexpr (kKind<T> == Kind::standard) {
    return are_messages(Types<Seen...>{},
                        static_cast<typename Parts<T>::type*>(nullptr));
  } else if constexpr (kKind<T> == Kind::aggregate) {
    return are_messages(Types<T, Seen...>{},
                        static_cast<fields::TypesOf<T>*>(nullptr));
  } else if constexpr (kKind<T> == Kind::serialize) {
    return Makeable<T> && std::is_move_constructible_v<T>;
  } else {
    return false;
  }
}
template <class T>
inline constexpr bool kIsMessage = Object<T>&& is_message<T>();

// No pointers as far as can be seen; T is trivially copyable.
template <class T>
consteval bool is_pointer_free();
template <template <class...> class List, class... Ts>
consteval bool are_pointer_free(List<Ts...>*) {
  return (
      is_pointer_free<std::remove_const_t<std::remove_all_extents_t<Ts>>>() &&
      ...);
}
template <class T>
consteval bool is_pointer_free() {
  if constexpr (kKind<T> == Kind::standard) {
    return are_pointer_free(static_cast<typename Parts<T>::type*>(nullptr));
  } else if constexpr (kKind<T> == Kind::aggregate ||
                       kKind<T> == Kind::serialize) {
    // What has serialize lies in shared memory as any other.
    if constexpr (fields::Visible<T>)
      return are_pointer_free(static_cast<fields::TypesOf<T>*>(nullptr));
    else
      return fields::kCount<T> != fields::kRefused;
  } else {
    return kKind<T> == Kind::bytes;
  }
}

}  // namespace codec
}  // namespace shoal
