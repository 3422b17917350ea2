#pragma once
// NpyFile: a .npy file that is mapped, as NumPy or anybody wrote it.
//
// Death: whoever truncates it while it is mapped kills those who read there
//        (SIGBUS), as with any mapped file.

#include <cstddef>
#include <memory>
#include <string>

#include "shoal/ipc/segment.h"
#include "shoal/shared/npy.h"

namespace shoal::npy {

struct Layout {
  Shape shape;
  bool fortran_order;
};

class File {
 public:
  // Throws std::system_error, Corrupt.
  static std::shared_ptr<const File> open(const std::string& path,
                                          bool read_only);
  // One that came from elsewhere.
  static std::shared_ptr<const File> adopt(int descriptor,
                                           const std::string& path);

  // How elements of that dtype lie in it. Throws TypeMismatch, which prints
  // both types; the names of fields count where the program has some.
  Layout layout_of(const Type& expected, std::size_t alignment) const;
  std::byte* data() const {
    return static_cast<std::byte*>(mapping_.get()) + header_.data_offset;
  }
  const std::string& path() const { return file_.what(); }
  int descriptor() const { return file_.descriptor(); }
  bool read_only() const { return read_only_; }

 private:
  explicit File(segment::File file);

  segment::File file_;
  bool read_only_;
  Header header_;
  std::shared_ptr<void> mapping_;
};

}  // namespace shoal::npy
