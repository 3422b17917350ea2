#include "shoal/examples/heat_equation.h"

#include <png.h>

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <vector>

namespace heat {
namespace {

// Rows [first, last) of the next moment; those at the border stay as they are.
void step(Plate from, Plate to, std::size_t first, std::size_t last) {
  constexpr double kStep = 0.2;
  first = std::max<std::size_t>(first, 1);
  last = std::min(last, from.rows() - 1);
  for (std::size_t i = first; i < last; ++i) {
    const double* const above = from.row(i - 1);
    const double* const here = from.row(i);
    const double* const below = from.row(i + 1);
    double* const out = to.row(i);
    for (std::size_t j = 1; j + 1 < from.columns(); ++j)
      out[j] = here[j] + kStep * (above[j] + below[j] + here[j - 1] +
                                  here[j + 1] - 4 * here[j]);
  }
}

}  // namespace

void set_up(Plate plate) {
  const auto rows = static_cast<double>(plate.rows());
  const auto columns = static_cast<double>(plate.columns());
  for (std::size_t i = 0; i < plate.rows(); ++i)
    for (std::size_t j = 0; j < plate.columns(); ++j) {
      const double y = static_cast<double>(i) / rows - 0.6;
      const double x = static_cast<double>(j) / columns - 0.4;
      const bool in_disc = x * x + y * y < 0.04;
      plate.row(i)[j] = i == 0 ? 0.6 : in_disc ? 1 : 0;
    }
}

void run_strip(Field a, Field b, shoal::Barrier all, shoal::Value<int> done,
               int worker, int workers, int steps) {
  advance_strip(a, b, worker, workers, steps, [&] {
    if (all.wait() == 0) done.fetch_add(1);  // one of them counts
  });
}

void advance_strip(Plate a, Plate b, int worker, int workers, int steps,
                   const std::function<void()>& meet) {
  const auto edge = [&](int n) {
    return a.rows() * static_cast<std::size_t>(n) /
           static_cast<std::size_t>(workers);
  };
  for (int n = 0; n < steps; ++n) {
    step(n % 2 == 0 ? a : b, n % 2 == 0 ? b : a, edge(worker),
         edge(worker + 1));
    meet();
  }
}

void write_png(const Field& field, const std::string& path) {
  const std::size_t rows = field.shape()[0];
  const std::size_t columns = field.shape()[1];
  std::vector<std::uint8_t> pixels;
  pixels.reserve(3 * field.size());
  for (const double heat : field) {
    const auto part = [&](double from) {
      return static_cast<std::uint8_t>(255 *
                                       std::clamp(3 * heat - from, 0.0, 1.0));
    };
    for (const double from : {0.0, 1.0, 2.0}) pixels.push_back(part(from));
  }
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  image.width = static_cast<png_uint_32>(columns);
  image.height = static_cast<png_uint_32>(rows);
  image.format = PNG_FORMAT_RGB;
  if (png_image_write_to_file(&image, path.c_str(), 0, pixels.data(), 0,
                              nullptr) == 0)
    throw std::runtime_error(path + ": " + image.message);
}

}  // namespace heat
