#pragma once
// Array<T>: a contiguous range of T that several processes use in place.
//
//   shoal::Array<double> list(1'000'000);         // zeroed
//   for (double& x : list) x *= 2;                // vectorises
//   auto held = list.lock();                      // until the end of the scope
//   shoal::Array<double> field(shoal::Shape{rows, columns});
//   field(2, 3) = 1;  for (double& x : field.row(2)) x *= 2;
//
// Sharing:  copying an Array copies the handle. Elements are plain memory:
//           who writes what, and when, is for the program to order (lock(),
//           Queue, Value, join).
// Death:    a killed writer leaves what it has stored so far; a lock outlives
//           its holder.
// Cost:     indexing is a plain load or store. Once somebody has locked a
//           stripe, lock() takes 65 locks instead of one.
// Layout:   a NumPy file: docs/layout.md#array

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <ranges>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "shoal/ipc/errors.h"
#include "shoal/ipc/handle.h"
#include "shoal/ipc/lazy_static.h"
#include "shoal/ipc/message.h"
#include "shoal/ipc/object.h"
#include "shoal/ipc/type_name.h"
#include "shoal/shared/array_elements.h"
#include "shoal/shared/array_layout.h"
#include "shoal/shared/array_locks.h"
#include "shoal/shared/array_plan.h"
#include "shoal/shared/npy.h"
#include "shoal/shared/npy_file.h"

namespace shoal {

// What an Array is filled from: any range but itself, whose copy is a handle.
template <class R, class A>
concept ArraySource =
    !std::is_same_v<std::remove_cvref_t<R>, A> && std::ranges::input_range<R> &&
    std::convertible_to<std::ranges::range_reference_t<R>,
                        typename A::value_type>;

// Its elements, from data() to copy_to(): array_elements.h.
template <class T>
class Array : public ArrayElements<T> {
  static_assert(codec::require_shareable<T>());
  static_assert(alignof(T) <= npy::kHeaderBytes,
                "shoal: the elements of an Array begin at a page");

 public:
  class Locked;

  // Zeroed. Throws NoSpace, std::invalid_argument (a negative size).
  explicit Array(std::size_t size, ArrayOptions options = {})
      : Array(Plan::of(size, options)) {}
  explicit Array(const Shape& shape, ArrayOptions options = {})
      : Array(Plan::of(shape, options)) {}
  Array(std::initializer_list<T> values) : Array(Plan::of(values)) {}
  // A copy of the range's elements, each read once.
  template <ArraySource<Array> R>
  requires(!std::is_same_v<std::remove_cvref_t<R>, Shape>) explicit Array(
      R&& range, ArrayOptions options = {})
      : Array(Plan::of(range, options)) {}

  // Named; `args` are a size, a Shape, a list or a range, ArrayOptions and an
  // Access.
  template <class... Args>
  static Array create(std::string_view name, Args&&... args) {
    return make(name, Plan::of(args...), access_of(args...));
  }
  static Array create(std::string_view name, std::initializer_list<T> values,
                      Access access = {}) {
    return make(name, Plan::of(values), access);
  }
  static Array open(std::string_view name, Access access = {}) {
    return Array(Object::open(name, object_spec(), access));
  }
  // Throws TypeMismatch when there is one of another shape.
  template <class... Args>
  static Array open_or_create(std::string_view name, Args&&... args) {
    return open_or_make(name, Plan::of(args...), access_of(args...));
  }
  static Array open_or_create(std::string_view name,
                              std::initializer_list<T> values,
                              Access access = {}) {
    return open_or_make(name, Plan::of(values), access);
  }
  // The elements of a NumPy file, in place: changes are in the file. Such a
  // file has no lock. Throws std::system_error, Corrupt (with the reason),
  // TypeMismatch.
  static Array open_npy(const std::string& path, Access access = {}) {
    return Array(npy::File::open(path, access.read_only));
  }

  // A move copies: what was moved from stays a handle.
  Array(const Array&) = default;
  Array& operator=(const Array&) = default;

  // Excludes other holders, in all processes; those of stripes, too. Throws
  // TimeoutError; std::logic_error for a thread that holds it or a stripe, and
  // of a file that open_npy() has opened.
  Locked lock(Timeout timeout = forever) {
    const Deadline deadline(timeout);
    return Locked(*this, locks().take_whole(deadline));
  }
  // For parts, as the program numbers them: the lock of that number, modulo 64.
  // Excludes those who hold the same, or the whole.
  Locked lock(std::size_t stripe, Timeout timeout = forever) {
    const Deadline deadline(timeout);
    return Locked(*this, locks().take_stripe(stripe, deadline));
  }

  // Which ArrayOptions the one who made it did not get, and why: a sentence
  // each, with a remedy.
  const std::vector<std::string>& unmet() const {
    static constinit LazyStatic<const std::vector<std::string>> none;
    return unmet_ == nullptr ? none.get() : *unmet_;
  }

 private:
  friend struct HandleAccess;
  friend struct HandleTraits<Array>;
  using Plan = ArrayPlan<T>;

  static Spec object_spec() { return array_layout::spec<T>(); }
  static Array make(std::string_view name, const Plan& plan, Access access) {
    return Array(Object::create(name, plan.spec, access), plan);
  }
  static Array open_or_make(std::string_view name, const Plan& plan,
                            Access access) {
    Array array(Object::open_or_create(name, plan.spec, access), plan);
    if (array.shape() != plan.shape)
      throw TypeMismatch(array.object_->name() +
                         " is not what this program expects\n  expected: " +
                         npy::describe(plan.shape) +
                         "\n  found:    " + npy::describe(array.shape()));
    return array;
  }

  explicit Array(const Plan& plan) : Array(Object::create(plan.spec), plan) {}
  Array(const std::shared_ptr<Object>& object, const Plan& plan)
      : Array(object) {
    unmet_ = plan.unmet;
  }
  explicit Array(const std::shared_ptr<Object>& object)
      : ArrayElements<T>(array_layout::elements<T>(object->payload()),
                         array_layout::read<T>(*object), false),
        object_(object),
        state_(&array_layout::state<T>(object->payload(), this->size())) {}
  explicit Array(const std::shared_ptr<const npy::File>& file)
      : Array(file, file->layout_of(npy::dtype<T>(), alignof(T))) {}
  Array(const std::shared_ptr<const npy::File>& file, const npy::Layout& layout)
      : ArrayElements<T>(reinterpret_cast<T*>(file->data()), layout.shape,
                         layout.fortran_order),
        file_(file) {}

  ArrayLocks locks() const {
    if (state_ == nullptr)
      throw std::logic_error(file_->path() +
                             ": a NumPy file has no lock; use a named Lock");
    return ArrayLocks(*object_, *state_);
  }

  // One of the two.
  std::shared_ptr<Object> object_;
  std::shared_ptr<const npy::File> file_;
  ArrayState* state_ = nullptr;  // of an object
  std::shared_ptr<const std::vector<std::string>> unmet_;
};

// Holds a lock of an Array until its end, by the thread that took it; in
// another one it ends without effect, and the lock stays held.
template <class T>
class Array<T>::Locked {
 public:
  Locked(Locked&&) noexcept = default;
  Locked& operator=(Locked&&) = delete;

  Array& operator*() { return array_; }
  Array* operator->() { return &array_; }
  T& operator[](std::size_t index) { return array_[index]; }

  // As of Lock: the last holder ended without letting go.
  bool owner_died() const { return hold_.owner_died(); }
  void mark_consistent() { hold_.mark_consistent(); }

 private:
  friend class Array;
  Locked(const Array& array, ArrayLocks::Hold hold)
      : array_(array), hold_(std::move(hold)) {}

  Array array_;  // first: it keeps what is held
  ArrayLocks::Hold hold_;
};

template <class T>
struct HandleTraits<Array<T>> : ObjectHandleTraits<Array<T>> {
  static HandleRef reference(const Array<T>& array, Passage* passage) {
    if (array.file_ == nullptr)
      return ObjectHandleTraits<Array<T>>::reference(array, passage);
    if (passage == nullptr)
      throw std::invalid_argument(
          "shoal: an Array of a NumPy file cannot travel here: send it through "
          "a Queue, a Connection, a Process or a Pool");
    HandleRef reference{};
    reference.type = file_type();
    passage->carry(array.file_->descriptor(), reference);
    return reference;
  }
  static Array<T> resolve(const HandleRef& reference, Arrival* arrival) {
    if (reference.object != 0)
      return ObjectHandleTraits<Array<T>>::resolve(reference, arrival);
    if (reference.type != file_type())
      throw TypeMismatch(
          "shoal: a message refers to something else than a NumPy file of " +
          type_name<T>());
    if (arrival == nullptr || reference.ticket == 0)
      throw Error("shoal: an Array of a NumPy file cannot arrive here");
    std::vector<Fd> descriptors = arrival->take(reference);
    arrival->settled();
    return Array<T>(npy::File::adopt(descriptors.front().release(),
                                     "a NumPy file that was received"));
  }

 private:
  static std::uint64_t file_type() {
    return layout::hash("npy") ^ layout_hash<T>();
  }
};

}  // namespace shoal
