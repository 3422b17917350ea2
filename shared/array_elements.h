#pragma once
// The elements of an Array<T> (shared/array.h): contiguous memory, in a shape.
//
// Sharing: who writes what, and when, is for the program to order.
// Cost:    indexing is a plain load or store.

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <ranges>
#include <span>
#include <stdexcept>
#include <string>

#include "shoal/shared/npy.h"
#include "shoal/shared/shape.h"

namespace shoal {

// The base of Array<T>, which keeps the memory.
template <class T>
class ArrayElements {
 public:
  using value_type = T;
  using size_type = std::size_t;
  using difference_type = std::ptrdiff_t;
  using reference = T&;
  using const_reference = const T&;
  using pointer = T*;
  using const_pointer = const T*;
  using iterator = T*;
  using const_iterator = const T*;

  std::size_t size() const noexcept { return size_; }
  bool empty() const noexcept { return size_ == 0; }
  T* data() noexcept { return data_; }
  const T* data() const noexcept { return data_; }
  T* begin() noexcept { return data_; }
  const T* begin() const noexcept { return data_; }
  T* end() noexcept { return data_ + size_; }
  const T* end() const noexcept { return data_ + size_; }
  const T* cbegin() const noexcept { return data_; }
  const T* cend() const noexcept { return data_ + size_; }
  T& operator[](std::size_t index) noexcept { return data_[index]; }
  const T& operator[](std::size_t index) const noexcept { return data_[index]; }
  T& front() noexcept { return data_[0]; }
  const T& front() const noexcept { return data_[0]; }
  T& back() noexcept { return data_[size_ - 1]; }
  const T& back() const noexcept { return data_[size_ - 1]; }

  // As many indices as there are dimensions, within them: not checked.
  template <std::integral... I>
  T& operator()(I... indices) noexcept {
    return data_[place_of(indices...)];
  }
  template <std::integral... I>
  const T& operator()(I... indices) const noexcept {
    return data_[place_of(indices...)];
  }

  // With one index, the element that lies there in memory. Throws
  // std::out_of_range that names index and shape.
  template <std::integral... I>
  T& at(I... indices) {
    return data_[checked(indices...)];
  }
  template <std::integral... I>
  const T& at(I... indices) const {
    return data_[checked(indices...)];
  }

  const Shape& shape() const noexcept { return shape_; }
  // Elements from one to the next, in each dimension.
  Shape strides() const { return npy::strides_of(shape_, fortran_); }
  // Not false only of a file that NumPy wrote so.
  bool fortran_order() const noexcept { return fortran_; }

  std::span<T> span() noexcept { return {data_, size_}; }
  std::span<const T> span() const noexcept { return {data_, size_}; }
  // All whose first index is i. Of two and more dimensions. Throws
  // std::out_of_range; std::logic_error in Fortran order, where they lie apart.
  std::span<T> row(std::size_t i) { return slice(rows(i), i + 1); }
  std::span<const T> row(std::size_t i) const { return slice(rows(i), i + 1); }
  // All whose first index is in [first, last). The same.
  std::span<T> slice(std::size_t first, std::size_t last) {
    const std::size_t each = slice_of(first, last);
    return {data_ + first * each, (last - first) * each};
  }
  std::span<const T> slice(std::size_t first, std::size_t last) const {
    const std::size_t each = slice_of(first, last);
    return {data_ + first * each, (last - first) * each};
  }
  // All whose second index is j, of two dimensions. Throws std::out_of_range,
  // std::logic_error.
  Strided<T> column(std::size_t j) {
    const Shape step = column_of(j);
    return {data_ + j * step[1], shape_[0], step[0]};
  }
  Strided<const T> column(std::size_t j) const {
    const Shape step = column_of(j);
    return {data_ + j * step[1], shape_[0], step[0]};
  }

  // All at once, in the order in which they lie. Throws std::invalid_argument
  // for another number of elements.
  void fill(const T& value) { std::fill(begin(), end(), value); }
  template <std::ranges::sized_range R>
  requires std::ranges::input_range<R>
  void copy_from(const R& range) {
    require_count("copy_from", std::ranges::size(range));
    std::ranges::copy(range, data_);
  }
  void copy_to(std::span<T> out) const {
    require_count("copy_to", out.size());
    std::copy(begin(), end(), out.begin());
  }

 protected:
  ArrayElements(T* data, const Shape& shape, bool fortran_order)
      : data_(data),
        size_(npy::count_of(shape)),
        shape_(shape),
        fortran_(fortran_order) {}
  ArrayElements(const ArrayElements&) = default;
  ArrayElements& operator=(const ArrayElements&) = default;
  ~ArrayElements() = default;

 private:
  template <class... I>
  std::size_t place_of(I... indices) const noexcept;
  template <class... I>
  std::size_t checked(I... indices) const;
  std::size_t rows(std::size_t i) const;
  std::size_t slice_of(std::size_t first, std::size_t last) const;
  Shape column_of(std::size_t j) const;
  void require_count(const char* verb, std::size_t count) const;
  [[noreturn]] void throw_outside(const std::string& what) const;

  T* data_;
  std::size_t size_;
  Shape shape_;
  bool fortran_;
};

// ---- inline ----

template <class T>
template <class... I>
std::size_t ArrayElements<T>::place_of(I... indices) const noexcept {
  std::size_t place = 0;
  std::size_t k = 0;
  if (__builtin_expect(!fortran_, 1)) {
    // The last index counts single elements: known to who compiles a loop.
    ((place = place * shape_[k++] + static_cast<std::size_t>(indices)), ...);
  } else {
    std::size_t stride = 1;
    ((place += static_cast<std::size_t>(indices) * stride,
      stride *= shape_[k++]),
     ...);
  }
  return place;
}

template <class T>
template <class... I>
std::size_t ArrayElements<T>::checked(I... indices) const {
  const std::size_t index[] = {static_cast<std::size_t>(indices)...};
  if (sizeof...(I) == 1 && index[0] < size_) return index[0];
  bool inside = sizeof...(I) == shape_.size();
  for (std::size_t k = 0; inside && k < sizeof...(I); ++k)
    inside = index[k] < shape_[k];
  if (inside && sizeof...(I) != 1) return place_of(indices...);
  std::string text;
  ((text += (text.empty() ? "" : ", ") + std::to_string(indices)), ...);
  throw_outside("index " + (sizeof...(I) == 1 ? text : "(" + text + ")"));
}

template <class T>
void ArrayElements<T>::throw_outside(const std::string& what) const {
  throw std::out_of_range("shoal: Array " + what + " is outside of shape " +
                          shape_.to_string());
}

template <class T>
std::size_t ArrayElements<T>::rows(std::size_t i) const {
  if (shape_.size() < 2)
    throw std::logic_error(
        "shoal: an Array of one dimension has no rows; its shape is " +
        shape_.to_string());
  if (i >= shape_[0]) throw_outside("row " + std::to_string(i));
  return i;
}

template <class T>
std::size_t ArrayElements<T>::slice_of(std::size_t first,
                                       std::size_t last) const {
  if (first > last || last > shape_[0])
    throw_outside("slice [" + std::to_string(first) + ", " +
                  std::to_string(last) + ")");
  if (fortran_ && shape_.size() > 1)
    throw std::logic_error(
        "shoal: the rows of an Array in Fortran order lie apart; take its "
        "columns, or numpy.ascontiguousarray of it");
  return shape_[0] == 0 ? 0 : size_ / shape_[0];
}

template <class T>
Shape ArrayElements<T>::column_of(std::size_t j) const {
  if (shape_.size() != 2)
    throw std::logic_error(
        "shoal: columns are of two dimensions; the shape of this Array is " +
        shape_.to_string());
  if (j >= shape_[1]) throw_outside("column " + std::to_string(j));
  return strides();
}

template <class T>
void ArrayElements<T>::require_count(const char* verb,
                                     std::size_t count) const {
  if (count != size_)
    throw std::invalid_argument(
        "shoal: Array::" + std::string(verb) + " of " + std::to_string(count) +
        " elements; the Array has " + std::to_string(size_));
}

}  // namespace shoal
