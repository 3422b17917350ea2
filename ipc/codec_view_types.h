#pragma once
// View<T>: what a message looks like in place, as codec_view.h lists it.

#include <cstddef>
#include <iterator>
#include <optional>
#include <span>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>

#include "shoal/ipc/codec.h"
#include "shoal/ipc/codec_elements.h"
#include "shoal/ipc/codec_skip.h"

namespace shoal::codec {

template <class T>
consteval auto view_type();
template <class T>
using View = typename decltype(view_type<T>())::type;
template <class T>
View<T> view_next(Reader& reader);

// The bytes of one T.
template <class T>
class Encoded {
 public:
  Encoded() = default;
  explicit Encoded(std::span<const std::byte> bytes) : bytes_(bytes) {}

  std::span<const std::byte> bytes() const { return bytes_; }
  View<T> view() const {
    Reader reader(bytes_);
    return codec::view_next<T>(reader);
  }
  T decode() const { return codec::from_bytes<T>(bytes_); }

 private:
  std::span<const std::byte> bytes_;
};

// Values of T in a row.
template <class T>
class Sequence {
 public:
  class iterator {
   public:
    using value_type = View<T>;
    using reference = value_type;
    using difference_type = std::ptrdiff_t;
    using pointer = void;
    using iterator_category = std::input_iterator_tag;  // of C++17, for values
    using iterator_concept = std::forward_iterator_tag;

    iterator() = default;
    iterator(std::span<const std::byte> rest, std::size_t left)
        : rest_(rest), left_(left) {}

    value_type operator*() const {
      Reader reader(rest_);
      return codec::view_next<T>(reader);
    }
    iterator& operator++() {
      Reader reader(rest_);
      codec::skip<T>(reader);
      rest_ = rest_.last(reader.remaining());
      --left_;
      return *this;
    }
    iterator operator++(int) {
      const iterator before = *this;
      ++*this;
      return before;
    }
    friend bool operator==(const iterator& a, const iterator& b) {
      return a.left_ == b.left_;
    }

   private:
    std::span<const std::byte> rest_;
    std::size_t left_ = 0;
  };

  Sequence() = default;
  Sequence(std::span<const std::byte> bytes, std::size_t count)
      : bytes_(bytes), count_(count) {}

  std::size_t size() const { return count_; }
  bool empty() const { return count_ == 0; }
  iterator begin() const { return {bytes_, count_}; }
  iterator end() const { return {{}, 0}; }

 private:
  std::span<const std::byte> bytes_;
  std::size_t count_ = 0;
};

template <class E>
using ViewOfElements =
    std::conditional_t<kKind<E> == Kind::bytes, Elements<E>, Sequence<E>>;

// A pair, tuple or variant of views in place of the parts.
template <class T>
struct ViewsOf;
template <template <class...> class Template, class... Ts>
struct ViewsOf<Template<Ts...>> {
  using type = Template<View<std::remove_const_t<Ts>>...>;
};

template <class T>
consteval auto view_type_of_standard() {
  constexpr Form kForm = Parts<T>::kForm;
  if constexpr (kForm == Form::path) {
    return std::type_identity<std::string_view>();
  } else if constexpr (kForm == Form::text) {
    using C = typename T::value_type;
    using Text = std::basic_string_view<C, typename T::traits_type>;
    return std::type_identity<
        std::conditional_t<sizeof(C) == 1, Text, Elements<C>>>();
  } else if constexpr (kForm == Form::bits) {
    return std::type_identity<Bits>();
  } else if constexpr (kForm == Form::optional) {
    return std::type_identity<std::optional<View<typename T::value_type>>>();
  } else if constexpr (kForm == Form::pointer) {
    return std::type_identity<
        std::optional<Encoded<typename T::element_type>>>();
  } else if constexpr (kForm == Form::product || kForm == Form::variant) {
    return ViewsOf<T>();
  } else {
    return std::type_identity<ViewOfElements<typename ElementOf<T>::type>>();
  }
}

template <class T>
consteval auto view_type() {
  if constexpr (std::is_array_v<T>) {
    return std::type_identity<ViewOfElements<std::remove_all_extents_t<T>>>();
  } else if constexpr (kKind<T> == Kind::aggregate) {
    return ViewsOf<fields::TypesOf<T>>();
  } else if constexpr (kKind<T> == Kind::serialize) {
    return std::type_identity<Encoded<T>>();
  } else if constexpr (kKind<T> == Kind::standard) {
    return view_type_of_standard<T>();
  } else {
    return std::type_identity<T>();
  }
}

}  // namespace shoal::codec
