#pragma once
// How an Array<T> (shared/array.h) lies in its segment: a page of NumPy header,
// the elements, an ArrayState.
//
// Layout: docs/layout.md#array

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "shoal/ipc/errors.h"
#include "shoal/ipc/object.h"
#include "shoal/ipc/type_name.h"
#include "shoal/shared/array_state.h"
#include "shoal/shared/npy.h"
#include "shoal/shared/shape.h"

namespace shoal::array_layout {

template <class T>
Spec spec() {
  return {.kind = Kind::array,
          .fingerprint = sizeof(ArrayState) << 16 | npy::kHeaderBytes,
          .type_hash = layout_hash<T>(),
          .type_text = describe_layout<T>()};
}

template <class T>
constexpr std::size_t state_offset(std::size_t size) {
  return npy::kHeaderBytes + (size * sizeof(T) + 63) / 64 * 64;
}
template <class T>
constexpr std::size_t bytes_for(std::size_t size) {
  return state_offset<T>(size) + sizeof(ArrayState);
}

template <class T>
T* elements(void* payload) {
  return reinterpret_cast<T*>(static_cast<std::byte*>(payload) +
                              npy::kHeaderBytes);
}
template <class T>
ArrayState& state(void* payload, std::size_t size) {
  return *reinterpret_cast<ArrayState*>(static_cast<std::byte*>(payload) +
                                        state_offset<T>(size));
}

// Into zeroed memory; `size` elements of that shape.
template <class T>
void write(void* payload, const Shape& shape, std::size_t size) {
  npy::write_header(payload, npy::dtype<T>(), shape);
  ArrayState& state = array_layout::state<T>(payload, size);
  state.dimensions = static_cast<std::uint32_t>(shape.size());
  std::copy(shape.begin(), shape.end(), state.extents);
}

// The shape of one that may have been written by anybody. Throws Corrupt.
template <class T>
Shape read(const Object& object) {
  const std::size_t size = object.header().options[0];
  const std::size_t bytes = object.header().payload_bytes;
  const auto refuse = [&](const std::string& what) {
    throw Corrupt(object.name() + ": its " + what +
                  " does not fit its size; unlink it");
  };
  if (size > bytes / sizeof(T) || bytes_for<T>(size) != bytes)
    refuse("length (" + std::to_string(size) + ")");
  const ArrayState& state = array_layout::state<T>(object.payload(), size);
  std::array<std::size_t, Shape::kMostDimensions> extents;
  std::copy(std::begin(state.extents), std::end(state.extents),
            extents.begin());
  const std::size_t dimensions = state.dimensions;
  if (dimensions == 0 || dimensions > extents.size())
    refuse("number of dimensions (" + std::to_string(dimensions) + ")");
  const Shape shape{std::span(extents).first(dimensions)};
  if (npy::count_of(shape) != size) refuse("shape " + shape.to_string());
  return shape;
}

}  // namespace shoal::array_layout
