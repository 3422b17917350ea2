#pragma once
// Fd: a file descriptor that is closed when it goes.
//
//   shoal::Fd log(::open("log", O_WRONLY));
//   write(log.get(), "x", 1);
//
// In a Message it is duplicated into the receiver.

#include <unistd.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace shoal {

class Fd {
 public:
  // None.
  Fd() = default;
  // Takes ownership. std::invalid_argument when negative: errno tells more.
  explicit Fd(int descriptor) : descriptor_(descriptor) {
    if (descriptor < 0)
      throw std::invalid_argument("shoal: Fd(" + std::to_string(descriptor) +
                                  "): not a descriptor; check what open() "
                                  "or accept() returned first");
  }
  Fd(Fd&& other) noexcept : descriptor_(other.release()) {}
  Fd& operator=(Fd&& other) noexcept {
    if (this != &other) reset(other.release());
    return *this;
  }
  ~Fd() { reset(-1); }

  int get() const { return descriptor_; }
  int release() { return std::exchange(descriptor_, -1); }

 private:
  void reset(int descriptor) {
    if (descriptor_ >= 0) ::close(descriptor_);
    descriptor_ = descriptor;
  }
  int descriptor_ = -1;
};

}  // namespace shoal
