#pragma once
// SHOAL_EXCEPTION(T): an exception type of the program's own that keeps its
// type on the way to another process.
//
//   struct NoSuchUser : std::runtime_error {
//     using std::runtime_error::runtime_error;
//   };
//   SHOAL_EXCEPTION(NoSuchUser);
//
// At namespace scope, in what both processes run. T is made again from what()
// if it can be constructed from a std::string, or from what it is encoded as if
// it is a Message (one with a serialize member keeps what that lists).

#include <cstddef>
#include <exception>
#include <ios>
#include <span>
#include <stdexcept>
#include <string>
#include <system_error>
#include <type_traits>
#include <typeinfo>
#include <utility>
#include <vector>

#include "shoal/ipc/codec.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/message.h"

namespace shoal::exception_codec {

// Whether Base, which has no default constructor, is a virtual base of E: then
// a class derived from E would have to construct it.
template <class E, class Base>
inline constexpr bool kHasVirtual =
    std::is_base_of_v<Base, E> && !requires(Base * base) {
  static_cast<E*>(base);
};

// Whether std::throw_with_nested can make one: no class can be derived from a
// final one.
template <class E>
inline constexpr bool kNests =
    std::is_class_v<E> && !std::is_final_v<E> &&
    !(kHasVirtual<E, Error> || kHasVirtual<E, std::logic_error> ||
      kHasVirtual<E, std::invalid_argument> ||
      kHasVirtual<E, std::domain_error> || kHasVirtual<E, std::length_error> ||
      kHasVirtual<E, std::out_of_range> || kHasVirtual<E, std::runtime_error> ||
      kHasVirtual<E, std::range_error> || kHasVirtual<E, std::overflow_error> ||
      kHasVirtual<E, std::underflow_error> ||
      kHasVirtual<E, std::system_error> ||
      kHasVirtual<E, std::ios_base::failure>);

// `made`, an E, with `inner` nested in it.
template <class E>
std::exception_ptr nest(const std::exception_ptr& made,
                        const std::exception_ptr& inner) {
  if constexpr (!kNests<E>) {
    return made;
  } else {
    E copy = [&] {
      try {
        std::rethrow_exception(made);
      } catch (const E& error) {
        return error;
      }
    }();
    try {
      try {
        std::rethrow_exception(inner);
      } catch (...) {
        std::throw_with_nested(std::move(copy));
      }
    } catch (...) {
      return std::current_exception();
    }
  }
}

// Whether `type` is that of an E that has another nested in it, as
// throw_with_nested makes one of an E or of a const E.
template <class E>
bool is_nested(const std::type_info& type) {
  if constexpr (kNests<E>)
    return type == typeid(std::_Nested_exception<E>) ||
           type == typeid(std::_Nested_exception<const E>);
  else
    return false;
}

struct Registered {
  const std::type_info* type;
  bool (*is_nested)(const std::type_info& type);
  std::vector<std::byte> (*encode)(const std::exception_ptr& error);
  std::exception_ptr (*decode)(std::span<const std::byte> bytes);
  std::exception_ptr (*nest)(const std::exception_ptr&,
                             const std::exception_ptr&);
  const Registered* next = nullptr;
};
// For good; `entry` is static.
bool add(Registered& entry);
// Of an exception whose type, or whose name, is that; nullptr: none.
const Registered* find(const std::type_info& type);
const Registered* find(const std::string& mangled_name);

template <class T>
bool register_type() {
  // Else what it lists would be lost without a word.
  if constexpr (codec::HasSerialize<T>)
    static_assert(codec::require_message<T>());
  static_assert(
      Message<T> || (std::is_constructible_v<T, std::string> &&
                     std::is_base_of_v<std::exception, T>),
      "shoal: SHOAL_EXCEPTION wants a type that can be made from its text (a "
      "std::exception with a constructor from std::string) or is a Message: "
      "give it a serialize member.");
  static_assert(std::is_copy_constructible_v<T>);
  static Registered entry{
      .type = &typeid(T),
      .is_nested = &is_nested<T>,
      .encode =
          [](const std::exception_ptr& error) {
            try {
              std::rethrow_exception(error);
            } catch (const T& found) {
              if constexpr (Message<T>)
                return codec::to_bytes(found);
              else
                return codec::to_bytes(std::string(found.what()));
            }
          },
      .decode =
          [](std::span<const std::byte> bytes) {
            if constexpr (Message<T>)
              return std::make_exception_ptr(codec::from_bytes<T>(bytes));
            else
              return std::make_exception_ptr(
                  T(codec::from_bytes<std::string>(bytes)));
          },
      .nest = &nest<T>};
  return add(entry);
}

}  // namespace shoal::exception_codec

#define SHOAL_EXCEPTION_NAME_2(number) shoal_exception_##number
#define SHOAL_EXCEPTION_NAME(number) SHOAL_EXCEPTION_NAME_2(number)
#define SHOAL_EXCEPTION(...)                                             \
  [[maybe_unused]] static const bool SHOAL_EXCEPTION_NAME(__COUNTER__) = \
      ::shoal::exception_codec::register_type<__VA_ARGS__>()
