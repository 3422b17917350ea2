#pragma once
// Shape: how many elements an Array has in each dimension. Strided: elements
// of it that lie apart.
//
//   shoal::Array<double> field(shoal::Shape{rows, columns});
//   for (double& x : field.column(3)) x = 0;

#include <array>
#include <compare>
#include <concepts>
#include <cstddef>
#include <iterator>
#include <ranges>
#include <span>
#include <string>
#include <type_traits>

namespace shoal {

// A few numbers, one a dimension: extents or strides, in elements.
class Shape {
 public:
  static constexpr std::size_t kMostDimensions = 8;

  using value_type = std::size_t;
  using const_iterator = const std::size_t*;
  using iterator = const_iterator;

  // Throws std::invalid_argument for a negative number.
  template <std::integral... N>
  requires(sizeof...(N) >= 1 &&
           sizeof...(N) <= kMostDimensions) explicit Shape(N... extents)
      : rank_(sizeof...(N)) {
    std::size_t i = 0;
    ((extents_[i++] = Shape::checked(extents)), ...);
  }
  // Throws std::invalid_argument for none, and more than 8.
  explicit Shape(std::span<const std::size_t> extents);

  std::size_t size() const noexcept { return rank_; }
  std::size_t operator[](std::size_t dimension) const noexcept {
    return extents_[dimension];
  }
  const_iterator begin() const noexcept { return extents_.data(); }
  const_iterator end() const noexcept { return extents_.data() + rank_; }
  bool operator==(const Shape&) const = default;

  // "(3, 4)"
  std::string to_string() const;

 private:
  template <class N>
  static std::size_t checked(N extent) {
    if constexpr (std::is_signed_v<N>)
      if (extent < 0) throw_negative(extent);
    return static_cast<std::size_t>(extent);
  }
  [[noreturn]] static void throw_negative(long long extent);

  std::size_t rank_;
  std::array<std::size_t, kMostDimensions> extents_{};  // unused ones are 0
};

// Every stride-th element; a view.
template <class T>
class Strided : public std::ranges::view_base {
 public:
  class iterator {
   public:
    using value_type = std::remove_cv_t<T>;
    using difference_type = std::ptrdiff_t;
    using reference = T&;
    using iterator_category = std::random_access_iterator_tag;
    using pointer = T*;

    iterator() = default;
    iterator(T* at, std::ptrdiff_t stride, std::ptrdiff_t index)
        : first_(at), stride_(stride), index_(index) {}
    T& operator*() const { return first_[index_ * stride_]; }
    T* operator->() const { return first_ + index_ * stride_; }
    T& operator[](std::ptrdiff_t n) const {
      return first_[(index_ + n) * stride_];
    }
    iterator& operator++() { return *this += 1; }
    iterator& operator--() { return *this -= 1; }
    iterator operator++(int) {
      auto before = *this;
      ++*this;
      return before;
    }
    iterator operator--(int) {
      auto before = *this;
      --*this;
      return before;
    }
    iterator& operator+=(std::ptrdiff_t n) {
      index_ += n;
      return *this;
    }
    iterator& operator-=(std::ptrdiff_t n) { return *this += -n; }
    friend iterator operator+(iterator it, std::ptrdiff_t n) { return it += n; }
    friend iterator operator+(std::ptrdiff_t n, iterator it) { return it += n; }
    friend iterator operator-(iterator it, std::ptrdiff_t n) { return it -= n; }
    friend std::ptrdiff_t operator-(const iterator& a, const iterator& b) {
      return a.index_ - b.index_;
    }
    friend bool operator==(const iterator& a, const iterator& b) {
      return a.index_ == b.index_;
    }
    friend auto operator<=>(const iterator& a, const iterator& b) {
      return a.index_ <=> b.index_;
    }

   private:
    T* first_ = nullptr;
    std::ptrdiff_t stride_ = 1;
    std::ptrdiff_t index_ = 0;
  };

  using value_type = std::remove_cv_t<T>;
  using reference = T&;
  using size_type = std::size_t;
  using difference_type = std::ptrdiff_t;
  using const_iterator = iterator;

  Strided() = default;
  Strided(T* first, std::size_t size, std::size_t stride)
      : first_(first), size_(size), stride_(stride) {}

  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  std::size_t stride() const { return stride_; }
  T& operator[](std::size_t index) const { return first_[index * stride_]; }
  T& front() const { return first_[0]; }
  T& back() const { return (*this)[size_ - 1]; }
  iterator begin() const { return at(0); }
  iterator end() const { return at(size_); }

 private:
  iterator at(std::size_t index) const {
    return {first_, static_cast<std::ptrdiff_t>(stride_),
            static_cast<std::ptrdiff_t>(index)};
  }

  T* first_ = nullptr;
  std::size_t size_ = 0;
  std::size_t stride_ = 1;
};

}  // namespace shoal

// Its iterators live without it.
template <class T>
inline constexpr bool std::ranges::enable_borrowed_range<shoal::Strided<T>> =
    true;
