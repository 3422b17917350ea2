#include "shoal/shared/shape.h"

#include <algorithm>
#include <stdexcept>

namespace shoal {

Shape::Shape(std::span<const std::size_t> extents) : rank_(extents.size()) {
  if (extents.empty() || extents.size() > kMostDimensions)
    throw std::invalid_argument(
        "shoal: a Shape has 1 to " + std::to_string(kMostDimensions) +
        " dimensions, not " + std::to_string(extents.size()));
  std::copy(extents.begin(), extents.end(), extents_.begin());
}

std::string Shape::to_string() const {
  std::string text;
  for (const std::size_t extent : *this)
    text += (text.empty() ? "(" : ", ") + std::to_string(extent);
  return text + ")";
}

void Shape::throw_negative(long long extent) {
  throw std::invalid_argument("shoal: an extent of a Shape is negative (" +
                              std::to_string(extent) + ")");
}

}  // namespace shoal
