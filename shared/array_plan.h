#pragma once
// What an Array<T> (shared/array.h) is made from: a size, a Shape, a list or a
// range, and ArrayOptions.
//
//   const auto plan = ArrayPlan<double>::of(shape, options);
//   Object::create(plan.spec);

#include <cstddef>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <ranges>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "shoal/ipc/errors.h"
#include "shoal/ipc/object.h"
#include "shoal/shared/array_layout.h"
#include "shoal/shared/npy.h"
#include "shoal/shared/placement.h"
#include "shoal/shared/shape.h"

namespace shoal {

struct ArrayOptions {
  bool reserve = true;    // false: pages come when touched; for sparse arrays
  bool populate = false;  // map all pages at creation: with `reserve`
  // What of these cannot be had is told on stderr, and by unmet().
  bool huge_pages = false;
  std::optional<int> numa_node = std::nullopt;
  // Of data(), in every process: a power of two, up to 1 GiB.
  std::size_t alignment = 4096;
};

// It refers to the range.
template <class T>
struct ArrayPlan {
  using Unmet = std::vector<std::string>;

  Spec spec;
  Shape shape;
  std::shared_ptr<const Unmet> unmet;  // none: nothing was wished for

  // Of what Array::create() takes: one of the above, and ArrayOptions and an
  // Access wherever they stand. Throws NoSpace, std::invalid_argument.
  template <class... Args>
  static ArrayPlan of(Args&... args) {
    return of_first(options_of(args...), args...);
  }

 private:
  using Fill = std::function<void(T*)>;

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
  static ArrayPlan of_first(const ArrayOptions& options, First& first,
                            Rest&... rest);
  template <class R>
  static ArrayPlan of_range(const ArrayOptions& options, R& range);
  // `fill`, if any, writes the elements into zeroed memory.
  static ArrayPlan of_shape(const ArrayOptions& options, const Shape& shape,
                            Fill fill = {});
  void place(const ArrayOptions& options);
};

// ---- inline ----

template <class T>
template <class First, class... Rest>
ArrayPlan<T> ArrayPlan<T>::of_first(const ArrayOptions& options, First& first,
                                    Rest&... rest) {
  using Arg = std::remove_cv_t<First>;
  constexpr bool kElsewhere =
      std::is_same_v<Arg, ArrayOptions> || std::is_same_v<Arg, Access>;
  static_assert(!kElsewhere || sizeof...(Rest) != 0,
                "shoal: a size, Shape, list or range is missing");
  if constexpr (kElsewhere) {
    return of_first(options, rest...);
  } else if constexpr (std::is_integral_v<Arg>) {
    return of_shape(options, Shape(static_cast<std::size_t>(first)));
  } else if constexpr (std::is_same_v<Arg, Shape>) {
    return of_shape(options, first);
  } else {
    static_assert(std::ranges::input_range<First>,
                  "shoal: a size, Shape, list, range, ArrayOptions or Access "
                  "is expected");
    return of_range(options, first);
  }
}

template <class T>
template <class R>
ArrayPlan<T> ArrayPlan<T>::of_range(const ArrayOptions& options, R& range) {
  if constexpr (std::ranges::forward_range<R> || std::ranges::sized_range<R>) {
    const auto size = static_cast<std::size_t>(std::ranges::distance(range));
    return of_shape(options, Shape(size), [&range, size](T* out) {
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
    return of_shape(options, Shape(size),
                    [elements = std::move(elements)](T* out) {
                      for (const Element& element : elements)
                        std::construct_at(out++, element.value);
                    });
  }
}

template <class T>
ArrayPlan<T> ArrayPlan<T>::of_shape(const ArrayOptions& options,
                                    const Shape& shape, Fill fill) {
  constexpr std::size_t kMost = (std::size_t{1} << 62) / sizeof(T);
  for (const std::size_t extent : shape)
    if (extent >
        static_cast<std::size_t>(std::numeric_limits<std::ptrdiff_t>::max()))
      throw std::invalid_argument(
          "shoal: Array size is negative (" +
          std::to_string(static_cast<std::ptrdiff_t>(extent)) + ")");
  const std::size_t size = npy::count_of(shape);
  if (size > kMost)
    throw NoSpace("shoal: Array of shape " + shape.to_string() +
                      " is beyond the address space (in elements)",
                  size, kMost);
  ArrayPlan plan{
      .spec = array_layout::spec<T>(), .shape = shape, .unmet = nullptr};
  Spec& spec = plan.spec;
  spec.options[0] = size;
  const bool reserve = options.reserve || options.populate;
  spec.options[1] = reserve;
  spec.payload_bytes = array_layout::bytes_for<T>(size);
  spec.reserve = reserve;
  spec.populate = options.populate;
  spec.initialise = [shape, size, fill = std::move(fill)](void* payload) {
    array_layout::write<T>(payload, shape, size);
    if (fill) fill(array_layout::elements<T>(payload));
  };
  plan.place(options);
  return plan;
}

template <class T>
void ArrayPlan<T>::place(const ArrayOptions& options) {
  const placement::Wish wish{.huge_pages = options.huge_pages,
                             .numa_node = options.numa_node,
                             .alignment = options.alignment};
  spec.alignment = placement::alignment_for(wish);
  if (!wish.any()) return;
  const auto missed = std::make_shared<Unmet>();
  unmet = missed;
  spec.place = [wish, missed](void* start, std::size_t bytes) {
    *missed = placement::arrange(start, bytes, wish);
  };
}

}  // namespace shoal
