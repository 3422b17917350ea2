#include "shoal/shared/npy_file.h"

#include <errno.h>
#include <fcntl.h>

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

#include "shoal/ipc/descriptor.h"
#include "shoal/ipc/errors.h"

namespace shoal::npy {

std::shared_ptr<const File> File::open(const std::string& path,
                                       bool read_only) {
  const int descriptor = above_stdio(::open(
      path.c_str(), (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK));
  if (descriptor < 0) throw_system_error(errno, "open", path);
  return adopt(descriptor, path);
}

std::shared_ptr<const File> File::adopt(int descriptor,
                                        const std::string& path) {
  return std::shared_ptr<const File>(
      new File(segment::File::adopt(descriptor, path)));
}

File::File(segment::File file)
    : file_(std::move(file)), read_only_(file_.read_only()) {
  const std::string& path = file_.what();
  const auto cut_off = [&](std::size_t wanted) {
    throw Corrupt(path + " is no NumPy file that can be mapped: it has " +
                  std::to_string(file_.size()) + " bytes where " +
                  std::to_string(wanted) + " are expected");
  };
  if (file_.size() < kPreamble) cut_off(kPreamble);
  mapping_ = file_.map(0, file_.size(), read_only_, false);
  const auto* const start = static_cast<const std::byte*>(mapping_.get());
  const std::size_t all = header_bytes({start, kPreamble}, path);
  if (file_.size() < all) cut_off(all);
  // Read once: what is checked is what is used.
  const std::vector<std::byte> copy(start, start + all);
  header_ = read_header(copy, path);
  std::size_t bytes = header_.type.size;
  bool beyond = false;  // all numbers
  for (const std::size_t extent : header_.shape)
    beyond |= __builtin_mul_overflow(bytes, extent, &bytes);
  if (std::count(header_.shape.begin(), header_.shape.end(), 0u) != 0) {
    bytes = 0;
    beyond = false;
  }
  beyond |= __builtin_add_overflow(all, bytes, &bytes);
  if (beyond) bytes = std::numeric_limits<std::size_t>::max();
  if (bytes > file_.size()) cut_off(bytes);
}

Layout File::layout_of(const Type& expected, std::size_t alignment) const {
  const std::string& path = file_.what();
  Type found = header_.type;
  std::vector<std::size_t> extents = header_.shape;
  const auto mismatch = [&](const std::string& here, const std::string& there) {
    throw TypeMismatch(
        path + " is not what this program expects\n  expected: " + here +
        "\n  found:    " + there);
  };
  // Elements that are arrays are the last dimension there.
  if (expected.is_array && !found.is_array && !extents.empty() &&
      extents.back() == expected.count && !header_.fortran_order) {
    found = array_of(std::move(found), extents.back());
    extents.pop_back();
  }
  if (!(found == expected) || !same_names(found, expected)) {
    const auto text = [](const Type& type) {
      return describe(type) +
             (type.is_array ? " times " + std::to_string(type.count) : "");
    };
    mismatch("elements of " + text(expected), text(header_.type));
  }
  if (extents.empty()) extents.push_back(1);
  if (extents.size() > Shape::kMostDimensions)
    mismatch(
        "at most " + std::to_string(Shape::kMostDimensions) + " dimensions",
        std::to_string(extents.size()));
  if (header_.data_offset % alignment != 0)
    mismatch(
        "elements at a multiple of " + std::to_string(alignment) + " bytes",
        "at byte " + std::to_string(header_.data_offset));
  return {Shape(extents), header_.fortran_order};
}

}  // namespace shoal::npy
