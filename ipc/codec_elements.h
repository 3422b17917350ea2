#pragma once
// Elements<T> and Bits: what a vector of plain values looks like in place.
//
//   codec::Elements<double> prices = ...;   // see codec_view.h
//   for (const double price : prices) sum += price;
//   if (auto span = prices.in_place()) fast(*span);
//
// The codec does not align: where a number comes to lie depends on what stands
// before it and on where the message begins, in a cell, a block or a ring,
// which size() cannot know. So elements are copied out one at a time, which
// compiles to an ordinary load; whoever needs a std::span asks in_place().
//
// Sharing:  a view of bytes; valid as long as they are, and as they are.

#include <compare>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <span>
#include <vector>

#include "shoal/ipc/codec_bytes.h"

namespace shoal::codec {

// Random access to what has operator[] and gives values.
template <class Range>
class IndexIterator {
 public:
  using value_type = typename Range::value_type;
  using reference = value_type;
  using difference_type = std::ptrdiff_t;
  using pointer = void;
  using iterator_category = std::input_iterator_tag;  // of C++17, for values
  using iterator_concept = std::random_access_iterator_tag;

  IndexIterator() = default;
  IndexIterator(Range range, std::size_t at)
      : range_(range), at_(static_cast<difference_type>(at)) {}

  value_type operator*() const { return (*this)[0]; }
  value_type operator[](difference_type n) const {
    return range_[static_cast<std::size_t>(at_ + n)];
  }
  IndexIterator& operator+=(difference_type n) {
    at_ += n;
    return *this;
  }
  IndexIterator& operator-=(difference_type n) { return *this += -n; }
  IndexIterator& operator++() { return *this += 1; }
  IndexIterator& operator--() { return *this -= 1; }
  IndexIterator operator++(int) {
    const IndexIterator before = *this;
    ++*this;
    return before;
  }
  IndexIterator operator--(int) {
    const IndexIterator before = *this;
    --*this;
    return before;
  }
  friend IndexIterator operator+(IndexIterator it, difference_type n) {
    return it += n;
  }
  friend IndexIterator operator+(difference_type n, IndexIterator it) {
    return it += n;
  }
  friend IndexIterator operator-(IndexIterator it, difference_type n) {
    return it -= n;
  }
  friend difference_type operator-(const IndexIterator& a,
                                   const IndexIterator& b) {
    return a.at_ - b.at_;
  }
  friend bool operator==(const IndexIterator& a, const IndexIterator& b) {
    return a.at_ == b.at_;
  }
  friend auto operator<=>(const IndexIterator& a, const IndexIterator& b) {
    return a.at_ <=> b.at_;
  }

 private:
  Range range_;
  difference_type at_ = 0;
};

// T is trivially copyable.
template <class T>
class Elements {
 public:
  using value_type = T;
  using iterator = IndexIterator<Elements>;

  Elements() = default;
  Elements(const std::byte* first, std::size_t count)
      : first_(first), count_(count) {}

  std::size_t size() const { return count_; }
  bool empty() const { return count_ == 0; }
  // index < size(), as for a std::span. Throws Corrupt if it is a bool that is
  // none.
  T operator[](std::size_t index) const {
    return codec::from_raw<T>(first_ + index * sizeof(T));
  }
  iterator begin() const { return {*this, 0}; }
  iterator end() const { return {*this, count_}; }

  std::span<const std::byte> bytes() const {
    return {first_, count_ * sizeof(T)};
  }
  // Nothing where they are not aligned for a T. Always something for bytes
  // and characters.
  std::optional<std::span<const T>> in_place() const {
    if (reinterpret_cast<std::uintptr_t>(first_) % alignof(T) != 0)
      return std::nullopt;
    return std::span<const T>(reinterpret_cast<const T*>(first_), count_);
  }
  std::vector<T> to_vector() const {
    return codec::vector_from_raw<std::vector<T>>(first_, count_);
  }

 private:
  const std::byte* first_ = nullptr;
  std::size_t count_ = 0;
};

// A vector<bool>.
class Bits {
 public:
  using value_type = bool;
  using iterator = IndexIterator<Bits>;

  Bits() = default;
  Bits(const std::byte* first, std::size_t count)
      : first_(first), count_(count) {}

  std::size_t size() const { return count_; }
  bool empty() const { return count_ == 0; }
  bool operator[](std::size_t index) const {
    return ((first_[index / 8] >> (index % 8)) & std::byte{1}) != std::byte{0};
  }
  iterator begin() const { return {*this, 0}; }
  iterator end() const { return {*this, count_}; }

 private:
  const std::byte* first_ = nullptr;
  std::size_t count_ = 0;
};

}  // namespace shoal::codec
