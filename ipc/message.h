#pragma once
// Message: what Queue, Pipe and Pool carry. Shareable: what Value and Array
// hold.
//
//   struct Order { int id; std::string symbol; std::vector<double> prices; };
//   static_assert(shoal::Message<Order>);        // no registration, no macro
//   static_assert(!shoal::Message<const char*>);  // std::string is
//
// A Message is one of
//   - a trivially copyable type free of pointers, references and views;
//   - std::string, vector, deque, list, array, pair, tuple, optional, variant,
//     set, map and their multi and unordered forms, filesystem::path,
//     unique_ptr of one, over Messages, nested at will;
//   - an aggregate of Messages, up to 100 fields, C arrays included;
//   - a type with serialize, a member or free: see codec_serialize.h. Of what
//     it gives the archive nothing is known before it is used;
//   - a shoal handle, see HandleTraits.
// A type may hold itself by way of a container or a unique_ptr.
//
// A Shareable is trivially copyable and without pointers as far as can be
// seen: what is private, in a union or in a base class is not.
//
// Cost: compile time only. An aggregate's bit-fields do not compile, see
// fields.h; elements of an array beyond fields::kMostElements make its struct
// opaque.

#include <type_traits>

#include "shoal/ipc/codec_refusals.h"
#include "shoal/ipc/codec_traits.h"

namespace shoal {

template <class T>
concept Message = codec::kIsMessage<T>;

template <class T>
concept Shareable =
    codec::Object<T> && !std::is_array_v<T> &&
    std::is_trivially_copyable_v<T> && codec::is_pointer_free<T>();

namespace codec {

template <class T>
consteval bool require_shareable() {
  static_assert(
      Shareable<T>,
      "shoal: this type cannot live in shared memory. It must be trivially "
      "copyable, without const or volatile, and hold no pointers, references, "
      "string_view or span: use std::array or a C array for text and ranges, "
      "an index in place of a pointer, or a Manager for what grows.");
  return true;
}

}  // namespace codec
}  // namespace shoal
