#pragma once
// NumPy files: the header that a named Array begins with, and what one that
// NumPy wrote says.
//
//   npy::write_header(page, npy::dtype<double>(), Shape(3, 4));
//   const npy::Header header = npy::read_header(bytes);   // throws Corrupt
//   header.type == npy::dtype<double>()
//
// Source: numpy.lib.format, "NPY format", versions 1.0 to 3.0.

#include <array>
#include <complex>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "shoal/ipc/fields.h"
#include "shoal/ipc/type_name.h"
#include "shoal/shared/shape.h"

// The names that NumPy shows the fields of a struct by, in their order, beside
// the struct and in its namespace; without it they are f0, f1, ...
//
//   struct Body { double x, y, mass; };
//   SHOAL_FIELDS(Body, x, y, mass)
#define SHOAL_FIELDS(Type, ...)                                           \
  [[maybe_unused]] constexpr std::string_view shoal_fields(const Type*) { \
    return #__VA_ARGS__;                                                  \
  }                                                                       \
  static_assert(shoal::npy::names_match<Type>(),                          \
                "shoal: SHOAL_FIELDS names each field of " #Type          \
                " once, in the namespace of the type");

namespace shoal::npy {

// Of a header, at the least: its page-aligned data begin behind it.
inline constexpr std::size_t kHeaderBytes = 4096;

// A dtype, as far as memory goes.
struct Type {
  struct Field;

  explicit Type(char of = 'V', std::size_t bytes = 0);

  char code;                  // b i u f c; V: raw bytes, or a record
  std::size_t size;           // bytes of all of it
  std::size_t count = 1;      // elements, of an array
  bool is_array = false;      // of `count` times what else stands here
  bool named = false;         // a record whose program says what its fields are
  std::vector<Field> fields;  // of a record; none: not a record

  std::size_t element_size() const { return count == 0 ? 0 : size / count; }
};
struct Type::Field {
  std::string name;
  std::size_t offset;
  Type type;
};
inline Type::Type(char of, std::size_t bytes) : code(of), size(bytes) {}
// The same memory, whatever its fields are called.
bool operator==(const Type& a, const Type& b);
// Wherever `expected` is named.
bool same_names(const Type& found, const Type& expected);
Type element_of(const Type& array);
// As NumPy writes it: '<f8', [('x', '<f8'), ('', '|V4')]; of an array, what its
// elements are.
std::string describe(const Type& type);

struct Header {
  Type type;
  bool fortran_order;
  std::vector<std::size_t> shape;  // none: a single element
  std::size_t data_offset;
};
// Of a file that begins with `bytes`. Throws Corrupt with the reason.
Header read_header(std::span<const std::byte> bytes, const std::string& path);
// How many bytes read_header() has to see, known from the first kPreamble.
inline constexpr std::size_t kPreamble = 12;
std::size_t header_bytes(std::span<const std::byte> preamble,
                         const std::string& path);

// Elements in all; at most 2^63.
std::size_t count_of(const Shape& shape);
// "12 elements of shape (3, 4)"
std::string describe(const Shape& shape);
Shape strides_of(const Shape& shape, bool fortran_order);

// Writes the whole header page of an array in C order. What its elements have
// as arrays is one dimension more.
void write_header(void* page, const Type& type, const Shape& shape);

// ---- the dtype of a C++ type ----

template <class T>
concept Named = requires(const T* type) {
  { shoal_fields(type) } -> std::convertible_to<std::string_view>;
};

// At comma and space; "a, b" are two.
std::vector<std::string> split_names(std::string_view names);
constexpr std::size_t count_names(std::string_view names) {
  std::size_t count = 1;
  for (const char c : names) count += c == ',';
  return count;
}
template <class T>
constexpr bool names_match() {
  if constexpr (Named<T> && fields::Visible<T>)
    return npy::count_names(shoal_fields(static_cast<const T*>(nullptr))) ==
           fields::kCount<T>;
  else
    return false;
}

template <class T>
struct IsComplex : std::false_type {};
template <class F>
struct IsComplex<std::complex<F>> : std::true_type {};
template <class T>
struct ElementsOf {  // of std::array
  static constexpr std::size_t kCount = 0;
};
template <class T, std::size_t kN>
struct ElementsOf<std::array<T, kN>> {
  static constexpr std::size_t kCount = kN;
  using type = T;
};

template <class T>
Type dtype();

inline Type array_of(Type element, std::size_t count) {
  // Arrays of arrays lie as one.
  element.count *= count;
  element.size *= count;
  element.is_array = true;
  return element;
}

template <class T>
Type record() {
  Type type('V', sizeof(T));
  const std::vector<std::size_t> offsets = layout::offsets<T>();
  std::vector<std::string> names;
  if constexpr (Named<T>) {
    names = npy::split_names(shoal_fields(static_cast<const T*>(nullptr)));
    type.named = true;
  }
  [&]<class... Fields>(std::tuple<Fields...>*) {
    std::size_t i = 0;
    (
        [&] {
          type.fields.push_back(
              {i < names.size() ? names[i] : "f" + std::to_string(i),
               offsets[i], npy::dtype<std::remove_cv_t<Fields>>()});
          ++i;
        }(),
        ...);
  }(static_cast<fields::TypesOf<T>*>(nullptr));
  return type;
}

// What it has no name for is raw bytes.
template <class T>
Type dtype() {
  if constexpr (std::is_same_v<T, bool>) {
    return Type('b', 1);
  } else if constexpr (std::is_same_v<T, std::byte>) {
    return Type('u', 1);
  } else if constexpr (std::is_enum_v<T>) {
    return npy::dtype<std::underlying_type_t<T>>();
  } else if constexpr (std::is_floating_point_v<T>) {
    return Type('f', sizeof(T));
  } else if constexpr (std::is_integral_v<T>) {
    return Type(std::is_signed_v<T> ? 'i' : 'u', sizeof(T));
  } else if constexpr (IsComplex<T>::value) {
    return Type('c', sizeof(T));
  } else if constexpr (std::is_array_v<T>) {
    return npy::array_of(npy::dtype<std::remove_extent_t<T>>(),
                         std::extent_v<T>);
  } else if constexpr (ElementsOf<T>::kCount != 0) {
    return npy::array_of(npy::dtype<typename ElementsOf<T>::type>(),
                         ElementsOf<T>::kCount);
  } else if constexpr (layout::HasFields<T>) {
    return npy::record<T>();
  } else {
    return Type('V', sizeof(T));
  }
}

}  // namespace shoal::npy
