#pragma once
// Types in words, to show in errors and to check that two processes mean the
// same by one object.
//
//   struct Order { int id; double price; char symbol[8]; };
//   type_name<Order>()        // "Order"
//   describe_layout<Order>()
//       // "Order (24 bytes, align 8): 0 int, 8 double, 16 char[8]"
//
// Fields of fields are shown in place. What a container holds is shown too if
// it has fields: "std::vector<Order> (24 bytes, align 8): of {0 int, …}".
// Of classes with private members or a serialize only name and size are known.
// g++ and clang agree on these texts, except for the names of closures and
// unnamed types.

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <typeinfo>
#include <utility>
#include <vector>

#include "shoal/ipc/codec_parts.h"
#include "shoal/ipc/codec_serialize.h"
#include "shoal/ipc/fields.h"

namespace shoal {

// The demangled name, without default template arguments of the standard
// library.
std::string type_name(const std::type_info& type);
template <class T>
std::string type_name() {
  return shoal::type_name(typeid(T));
}

namespace layout {

// FNV-1a, 64 bits.
std::uint64_t hash(std::string_view text);
std::string join(const std::vector<std::string>& parts);
std::string heading(const std::string& name, std::size_t size,
                    std::size_t alignment);

template <class T, class... Around>
std::string contents();

// The offset of each field of T.
template <class T>
std::vector<std::size_t> offsets() {
  struct Free {
    void operator()(void* memory) const {
      ::operator delete (memory, std::align_val_t{alignof(T)});
    }
  };
  // Only addresses are taken: there need be no T in it.
  const std::unique_ptr<void, Free> memory(
      ::operator new (sizeof(T), std::align_val_t{alignof(T)}));
  const auto* base = static_cast<const std::byte*>(memory.get());
  return fields::apply(
      [base](const auto&... field) {
        return std::vector<std::size_t>{static_cast<std::size_t>(
            reinterpret_cast<const std::byte*>(std::addressof(field)) -
            base)...};
      },
      *static_cast<T*>(memory.get()));
}

// What T is as a field or as the element of an array.
template <class T, class... Around>
std::string name_of() {
  const std::string inside = layout::contents<T, Around...>();
  if (inside.empty()) return type_name<T>();
  if constexpr (codec::Standard<T>)
    return type_name<T>() + " " + inside;
  else
    return "{" + inside + "}";
}

template <class T, class... Around>
void add_field(std::size_t offset, std::vector<std::string>& out);

template <class T, class... Around>
void add_fields(std::size_t base, std::vector<std::string>& out) {
  const std::vector<std::size_t> at = layout::offsets<T>();
  [&]<class... Fields>(std::tuple<Fields...>*) {
    std::size_t i = 0;
    (layout::add_field<std::remove_cv_t<Fields>, T, Around...>(base + at[i++],
                                                               out),
     ...);
  }(static_cast<fields::TypesOf<T>*>(nullptr));
}

template <class T>
concept HasFields =
    !codec::HasSerialize<T> && fields::Visible<T> && !std::is_empty_v<T>;

template <class T, class... Around>
void add_field(std::size_t offset, std::vector<std::string>& out) {
  constexpr bool kInside = (std::same_as<T, Around> || ...);
  if constexpr (HasFields<T> && !kInside) {
    layout::add_fields<T, Around...>(offset, out);
  } else {
    using Element = std::remove_all_extents_t<T>;
    std::string text =
        std::to_string(offset) + " " + layout::name_of<Element, Around...>();
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      ((text += "[" + std::to_string(std::extent_v<T, I>) + "]"), ...);
    }
    (std::make_index_sequence<std::rank_v<T>>{});
    out.push_back(std::move(text));
  }
}

// Empty if there is nothing to see in T. Around: the types that T is in.
template <class T, class... Around>
std::string contents() {
  std::vector<std::string> out;
  if constexpr ((std::same_as<T, Around> || ...)) {
    return {};
  } else if constexpr (HasFields<T>) {
    layout::add_fields<T, Around...>(0, out);
    return layout::join(out);
  } else if constexpr (codec::Standard<T>) {
    [&]<class... Ts>(codec::Types<Ts...>*) {
      ((out.push_back(layout::contents<Ts, T, Around...>())), ...);
    }(static_cast<typename codec::Parts<T>::type*>(nullptr));
    std::erase(out, std::string());
    return out.empty() ? std::string() : "of {" + layout::join(out) + "}";
  } else {
    return {};
  }
}

}  // namespace layout

template <class T>
std::string describe_layout() {
  std::string text = layout::heading(type_name<T>(), sizeof(T), alignof(T));
  const std::string inside = layout::contents<T>();
  if (!inside.empty()) text += ": " + inside;
  return text;
}

template <class T>
std::uint64_t layout_hash() {
  return layout::hash(shoal::describe_layout<T>());
}

}  // namespace shoal
