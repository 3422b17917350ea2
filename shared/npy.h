#pragma once
// The header of a NumPy file, version 1.0, padded to one page, so that the
// data behind it is page-aligned.
//
// Source: numpy.lib.format, "NPY format".

#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>

namespace shoal::npy {

inline constexpr std::size_t kHeaderBytes = 4096;

// NumPy's name for T: "<f8"; what it has no name for is raw bytes, "|V24".
template <class T>
std::string dtype() {
  std::string name(sizeof(T) == 1 ? "|" : "<");
  if constexpr (std::is_same_v<T, bool>)
    name += 'b';
  else if constexpr (std::is_floating_point_v<T>)
    name += 'f';
  else if constexpr (std::is_integral_v<T>)
    name += std::is_signed_v<T> ? 'i' : 'u';
  else
    name = "|V";
  return name += std::to_string(sizeof(T));
}

// Writes the whole header page of a one-dimensional array.
void write_header(void* page, const std::string& dtype, std::uint64_t size);

}  // namespace shoal::npy
