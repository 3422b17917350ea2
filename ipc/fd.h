#pragma once
// Fd: an open file descriptor with an owner.
//
//   shoal::Fd client(accept(listening, nullptr, nullptr));
//   write(client.get(), text.data(), text.size());
//
// Sharing:  move-only; one thread's, but get() may be used by any while it
//           lives.
// Death:    the kernel closes what a process leaves open.
// Cost:     an int; close(2) when destroyed.

#include <utility>

namespace shoal {

class Fd {
 public:
  // None; get() is -1.
  Fd() = default;
  // Takes ownership. Throws invalid_argument for a negative number, such as
  // the result of an open(2) that failed.
  explicit Fd(int descriptor);
  Fd(Fd&& other) noexcept : descriptor_(other.release()) {}
  Fd& operator=(Fd&& other) noexcept {
    if (this != &other) reset(other.release());
    return *this;
  }
  ~Fd() { reset(kNone); }

  // -1 when moved from or released.
  int get() const { return descriptor_; }
  // The caller closes it from now on.
  int release() { return std::exchange(descriptor_, kNone); }

 private:
  static constexpr int kNone = -1;

  void reset(int descriptor) noexcept;

  int descriptor_ = kNone;
};

}  // namespace shoal
