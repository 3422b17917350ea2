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
#include <functional>
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

// What an Array is filled from: any range but itself, whose copy is a handle.
template <class R, class A>
concept ArraySource =
    !std::is_same_v<std::remove_cvref_t<R>, A> && std::ranges::input_range<R> &&
    std::convertible_to<std::ranges::range_reference_t<R>,
                        typename A::value_type>;

template <class T>
class Array {
  static_assert(codec::require_shareable<T>());
  static_assert(alignof(T) <= npy::kHeaderBytes,
                "shoal: the elements of an Array begin at a page");

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
      : Array(Object::create(make_spec(size, options))) {}
  Array(std::initializer_list<T> values)
      : Array(Object::create(spec_of({}, values))) {}
  // A copy of the range's elements, each read once.
  template <ArraySource<Array> R>
  explicit Array(R&& range, ArrayOptions options = {})
      : Array(Object::create(spec_of(options, range))) {}

  // Named; `args` are a size, a list or a range, ArrayOptions and an Access.
  template <class... Args>
  static Array create(std::string_view name, Args&&... args) {
    return Array(Object::create(name, spec_of(options_of(args...), args...),
                                access_of(args...)));
  }
  static Array create(std::string_view name, std::initializer_list<T> values,
                      Access access = {}) {
    return Array(Object::create(name, spec_of({}, values), access));
  }
  static Array open(std::string_view name, Access access = {}) {
    return Array(Object::open(name, object_spec(), access));
  }
  // Throws TypeMismatch when there is one of another size.
  template <class... Args>
  static Array open_or_create(std::string_view name, Args&&... args) {
    return open_or_make(name, spec_of(options_of(args...), args...),
                        access_of(args...));
  }
  static Array open_or_create(std::string_view name,
                              std::initializer_list<T> values,
                              Access access = {}) {
    return open_or_make(name, spec_of({}, values), access);
  }

  // A move copies: what was moved from stays a handle.
  Array(const Array&) = default;
  Array& operator=(const Array&) = default;

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
  // `fill`, if any, writes the elements into zeroed memory.
  static Spec make_spec(std::size_t size, ArrayOptions options,
                        std::function<void(T*)> fill = {});
  // The ArrayOptions that create() got, wherever they stand, and what it got
  // beside them and an Access. The Spec refers to a range.
  template <class... Args>
  static ArrayOptions options_of(const Args&... args) {
    ArrayOptions options;
    (
        [&] {
          if constexpr (std::is_same_v<Args, ArrayOptions>) options = args;
        }(),
        ...);
    return options;
  }
  template <class First, class... Rest>
  static Spec spec_of(ArrayOptions options, First& first, Rest&... rest);
  template <class R>
  static Spec spec_of_range(ArrayOptions options, R& range);
  static Array open_or_make(std::string_view name, const Spec& spec,
                            Access access);
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
      : array_(other.array_),
        holder_(other.holder_),
        held_(std::exchange(other.held_, false)) {}
  Locked& operator=(Locked&&) = delete;
  // In another thread than the one that took it: nothing, it stays held.
  ~Locked() {
    if (held_ && holder_ == array_.object_->domain().seat())
      array_.robust_lock().release();
  }

  Array& operator*() { return array_; }
  Array* operator->() { return &array_; }
  T& operator[](std::size_t index) { return array_[index]; }

  // As of Lock: the last holder ended without letting go.
  bool owner_died() const { return array_.robust_lock().owner_died(); }
  void mark_consistent() { array_.robust_lock().mark_consistent(); }

 private:
  friend class Array;
  explicit Locked(const Array& array)
      : array_(array), holder_(array.object_->domain().seat()), held_(true) {}

  Array array_;
  liveness::Who holder_;
  bool held_;
};

template <class T>
struct HandleTraits<Array<T>> : ObjectHandleTraits<Array<T>> {};

// ---- inline ----

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
                         std::function<void(T*)> fill) {
  if (size >
      static_cast<std::size_t>(std::numeric_limits<std::ptrdiff_t>::max()))
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
  spec.initialise = [size, fill = std::move(fill)](void* payload) {
    npy::write_header(payload, npy::dtype<T>(), size);
    if (fill)
      fill(reinterpret_cast<T*>(static_cast<std::byte*>(payload) +
                                npy::kHeaderBytes));
  };
  return spec;
}

template <class T>
template <class First, class... Rest>
Spec Array<T>::spec_of(ArrayOptions options, First& first, Rest&... rest) {
  using Arg = std::remove_cv_t<First>;
  constexpr bool kElsewhere =
      std::is_same_v<Arg, ArrayOptions> || std::is_same_v<Arg, Access>;
  static_assert(!kElsewhere || sizeof...(Rest) != 0,
                "shoal: a size, list or range is missing");
  if constexpr (kElsewhere) {
    return spec_of(options, rest...);
  } else if constexpr (std::is_integral_v<Arg>) {
    return make_spec(static_cast<std::size_t>(first), options);
  } else {
    static_assert(std::ranges::input_range<First>,
                  "shoal: a size, list, range, ArrayOptions or Access is "
                  "expected");
    return spec_of_range(options, first);
  }
}

template <class T>
template <class R>
Spec Array<T>::spec_of_range(ArrayOptions options, R& range) {
  if constexpr (std::ranges::forward_range<R> || std::ranges::sized_range<R>) {
    const auto size = static_cast<std::size_t>(std::ranges::distance(range));
    return make_spec(size, options, [&range, size](T* out) {
      if constexpr (std::ranges::contiguous_range<R> &&
                    std::is_same_v<std::ranges::range_value_t<R>, T>) {
        std::uninitialized_copy_n(std::ranges::data(range), size, out);
      } else {
        const T* const end = out + size;
        for (auto&& value : range)
          if (out != end) std::construct_at(out++, static_cast<T>(value));
      }
    });
  } else {
    struct Element {  // std::vector<bool> has no elements
      T value;
    };
    std::vector<Element> elements;
    for (auto&& value : range) elements.push_back({static_cast<T>(value)});
    const std::size_t size = elements.size();
    return make_spec(size, options, [elements = std::move(elements)](T* out) {
      for (const Element& element : elements)
        std::construct_at(out++, element.value);
    });
  }
}

template <class T>
Array<T> Array<T>::open_or_make(std::string_view name, const Spec& spec,
                                Access access) {
  Array array(Object::open_or_create(name, spec, access));
  if (array.size_ != spec.options[0])
    throw TypeMismatch(array.object_->name() +
                       " is not what this program expects\n  expected: " +
                       std::to_string(spec.options[0]) +
                       " elements\n  found:    " + std::to_string(array.size_) +
                       " elements");
  return array;
}

template <class T>
std::size_t Array<T>::checked(std::size_t index) const {
  if (index < size_) return index;
  throw std::out_of_range("shoal: Array index " + std::to_string(index) +
                          " is outside of shape (" + std::to_string(size_) +
                          ")");
}

}  // namespace shoal
