#pragma once
// Descriptor: an open file descriptor that closes with its owner.
//
//   Descriptor end(sockets[0]);
//   write(end.get(), ...);

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <utility>

#include "shoal/ipc/errors.h"

namespace shoal {

// Moves a descriptor out of the way of standard input, output and error, which
// a program may have closed, and which a child's standard input replaces.
// Leaves -1 and errno as they are; throws std::system_error.
inline int above_stdio(int fd) {
  if (fd < 0 || fd > STDERR_FILENO) return fd;
  const int moved = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
  const int error = errno;
  ::close(fd);
  if (moved < 0) throw_system_error(error, "fcntl", "F_DUPFD_CLOEXEC");
  return moved;
}

class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(other.release()) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor() { reset(); }

  explicit operator bool() const { return fd_ >= 0; }
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }
  void reset() {
    if (fd_ >= 0) ::close(release());
  }

 private:
  int fd_ = -1;
};

// above_stdio() of both ends that socketpair(2) or pipe2(2) gives; when it
// throws, they are closed.
inline std::pair<Descriptor, Descriptor> above_stdio(const int (&ends)[2]) {
  Descriptor one(ends[0]);
  Descriptor other(ends[1]);
  one = Descriptor(above_stdio(one.release()));
  other = Descriptor(above_stdio(other.release()));
  return {std::move(one), std::move(other)};
}

}  // namespace shoal
