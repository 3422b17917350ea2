#pragma once
// Array<T>: a contiguous range of T that several processes use in place.
//
//   shoal::Array<double> field(1'000'000);        // zeroed
//   for (double& x : field) x *= 2;               // vectorises
//   auto held = field.lock();                     // until the end of the scope
//
// Sharing:  copying an Array copies the handle. Elements are plain memory:
//           who writes what, and when, is for the program to order (lock(),
//           Queue, Value, join).
// Death:    a killed writer leaves what it has stored so far; a lock outlives
//           its holder.
// Cost:     indexing is a plain load or store.
// Layout:   a NumPy file: docs/layout.md#array

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <limits>
#include <memory>
#include <ranges>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "shoal/ipc/errors.h"
#include "shoal/ipc/handle.h"
#include "shoal/ipc/message.h"
#include "shoal/ipc/object.h"
#include "shoal/ipc/robust_lock.h"
#include "shoal/ipc/type_name.h"
#include "shoal/shared/npy.h"

namespace shoal {

struct ArrayOptions {
  bool reserve = true;    // false: pages come when touched; for sparse arrays
  bool populate = false;  // map all pages at creation
};

template <class T>
class Array {
  static_assert(codec::require_shareable<T>());

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
  class Locked;

  // Zeroed. Throws NoSpace, std::invalid_argument (a negative size).
  explicit Array(std::size_t size, ArrayOptions options = {})
      : Array(Object::create(make_spec(size, options, nullptr))) {}
  Array(std::initializer_list<T> values)
      : Array(std::span<const T>(values.begin(), values.size())) {}
  // A copy of the range's elements.
  template <std::ranges::input_range R>
    requires(!std::is_same_v<std::remove_cvref_t<R>, Array> &&
             std::convertible_to<std::ranges::range_reference_t<R>, T>)
  explicit Array(R&& range, ArrayOptions options = {});

  // Named; `args` are a size, a list or a range, ArrayOptions and an Access.
  template <class... Args>
  static Array create(std::string_view name, const Args&... args) {
    return with_contents([&](const T* values, std::size_t size,
                             ArrayOptions options) {
      return Object::create(name, make_spec(size, options, values),
                            access_of(args...));
    }, args...);
  }
  static Array create(std::string_view name, std::initializer_list<T> values,
                      Access access = {}) {
    return create(name, std::span<const T>(values.begin(), values.size()),
                  access);
  }
  static Array open(std::string_view name, Access access = {}) {
    return Array(Object::open(name, object_spec(), access));
  }
  template <class... Args>
  static Array open_or_create(std::string_view name, const Args&... args) {
    return with_contents([&](const T* values, std::size_t size,
                             ArrayOptions options) {
      return Object::open_or_create(name, make_spec(size, options, values),
                                    access_of(args...));
    }, args...);
  }
  static Array open_or_create(std::string_view name,
                              std::initializer_list<T> values,
                              Access access = {}) {
    return open_or_create(
        name, std::span<const T>(values.begin(), values.size()), access);
  }

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

  // Throws std::out_of_range that names index and shape.
  T& at(std::size_t index) { return data_[checked(index)]; }
  const T& at(std::size_t index) const { return data_[checked(index)]; }

  std::span<T> span() noexcept { return {data_, size_}; }
  std::span<const T> span() const noexcept { return {data_, size_}; }
  void fill(const T& value) { std::fill(begin(), end(), value); }

  // Excludes other holders, in all processes. Throws TimeoutError.
  Locked lock(Timeout timeout = forever) {
    RobustLock lock = robust_lock();
    if (!lock.acquire(timeout))
      throw TimeoutError("shoal: Array::lock timed out");
    return Locked(*this);
  }

 private:
  friend struct HandleAccess;

  // Behind the elements: docs/layout.md#array.
  static constexpr std::size_t control_offset(std::size_t size) {
    return npy::kHeaderBytes + (size * sizeof(T) + 63) / 64 * 64;
  }

  explicit Array(std::shared_ptr<Object> object);
  static Spec object_spec() {
    return {.kind = Kind::array,
            .fingerprint = sizeof(LockState) << 16 | npy::kHeaderBytes,
            .type_hash = layout_hash<T>(),
            .type_text = describe_layout<T>()};
  }
  static Spec make_spec(std::size_t size, ArrayOptions options,
                        const T* values);
  template <class Make, class... Args>
  static Array with_contents(Make&& make, const Args&... args);
  RobustLock robust_lock() const {
    return RobustLock(*lock_, object_->domain(), object_->spin);
  }
  std::size_t checked(std::size_t index) const;

  std::shared_ptr<Object> object_;
  T* data_;
  std::size_t size_;
  LockState* lock_;
};

// Holds the lock of an Array until its end, by the thread that took it.
template <class T>
class Array<T>::Locked {
 public:
  Locked(Locked&& other) noexcept
      : array_(other.array_), held_(std::exchange(other.held_, false)) {}
  Locked& operator=(Locked&&) = delete;
  ~Locked() {
    if (held_) array_.robust_lock().release();
  }

  Array& operator*() { return array_; }
  Array* operator->() { return &array_; }
  T& operator[](std::size_t index) { return array_[index]; }

  // As of Lock: the last holder ended without letting go.
  bool owner_died() const { return array_.robust_lock().owner_died(); }
  void mark_consistent() { array_.robust_lock().mark_consistent(); }

 private:
  friend class Array;
  explicit Locked(const Array& array) : array_(array), held_(true) {}
  Array array_;
  bool held_;
};

template <class T>
struct HandleTraits<Array<T>> : ObjectHandleTraits<Array<T>> {};

// ---- inline ----

template <class T>
template <std::ranges::input_range R>
  requires(!std::is_same_v<std::remove_cvref_t<R>, Array<T>> &&
           std::convertible_to<std::ranges::range_reference_t<R>, T>)
Array<T>::Array(R&& range, ArrayOptions options)
    : Array(with_contents(
          [&](const T* values, std::size_t size, ArrayOptions) {
            return Object::create(make_spec(size, options, values));
          },
          range)) {}

template <class T>
Array<T>::Array(std::shared_ptr<Object> object) : object_(std::move(object)) {
  size_ = object_->header().options[0];
  const std::size_t bytes = object_->header().payload_bytes;
  if (size_ > bytes / sizeof(T) ||
      control_offset(size_) + sizeof(LockState) != bytes)
    throw Corrupt(object_->name() + ": its length (" + std::to_string(size_) +
                  ") does not fit its size; unlink it");
  auto* start = static_cast<std::byte*>(object_->payload());
  data_ = reinterpret_cast<T*>(start + npy::kHeaderBytes);
  lock_ = reinterpret_cast<LockState*>(start + control_offset(size_));
}

template <class T>
Spec Array<T>::make_spec(std::size_t size, ArrayOptions options,
                         const T* values) {
  if (size > static_cast<std::size_t>(std::numeric_limits<std::ptrdiff_t>::max()))
    throw std::invalid_argument(
        "shoal: Array size is negative (" +
        std::to_string(static_cast<std::ptrdiff_t>(size)) + ")");
  constexpr std::size_t kMost = (std::size_t{1} << 62) / sizeof(T);
  if (size > kMost)
    throw NoSpace("shoal: Array of " + std::to_string(size) +
                      " elements is beyond the address space",
                  size, kMost);
  Spec spec = object_spec();
  spec.options[0] = size;
  spec.options[1] = options.reserve;
  spec.payload_bytes = control_offset(size) + sizeof(LockState);
  spec.reserve = options.reserve;
  spec.populate = options.populate;
  spec.initialise = [size, values](void* payload) {
    npy::write_header(payload, npy::dtype<T>(), size);
    if (values != nullptr)
      std::copy_n(values, size,
                  reinterpret_cast<T*>(static_cast<std::byte*>(payload) +
                                       npy::kHeaderBytes));
  };
  return spec;
}

template <class T>
template <class Make, class... Args>
Array<T> Array<T>::with_contents(Make&& make, const Args&... args) {
  ArrayOptions options;
  std::size_t size = 0;
  const T* values = nullptr;
  std::vector<T> copied;
  const auto read = [&](const auto& arg) {
    using Arg = std::remove_cvref_t<decltype(arg)>;
    if constexpr (std::is_same_v<Arg, ArrayOptions>) {
      options = arg;
    } else if constexpr (std::is_integral_v<Arg>) {
      size = static_cast<std::size_t>(arg);
    } else if constexpr (!std::is_same_v<Arg, Access>) {
      static_assert(std::ranges::input_range<const Arg>,
                    "shoal: a size, list, range, ArrayOptions or Access is "
                    "expected");
      if constexpr (std::is_same_v<decltype(std::ranges::begin(arg)),
                                   const T*>) {
        values = std::ranges::begin(arg);
        size = static_cast<std::size_t>(std::ranges::end(arg) - values);
      } else {
        for (auto&& value : arg) copied.push_back(static_cast<T>(value));
        values = copied.data();
        size = copied.size();
      }
    }
  };
  (read(args), ...);
  return Array(make(values, size, options));
}

template <class T>
std::size_t Array<T>::checked(std::size_t index) const {
  if (index < size_) return index;
  throw std::out_of_range("shoal: Array index " + std::to_string(index) +
                          " is outside of shape (" + std::to_string(size_) +
                          ")");
}

}  // namespace shoal
