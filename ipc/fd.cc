#include "shoal/ipc/fd.h"

#include <errno.h>
#include <unistd.h>

#include <stdexcept>
#include <string>

namespace shoal {

Fd::Fd(int descriptor) : descriptor_(descriptor) {
  if (descriptor < 0)
    throw std::invalid_argument(
        "shoal: Fd(" + std::to_string(descriptor) +
        "): no open descriptor; check the result of open, socket or accept "
        "before it becomes an Fd");
}

// Linux has closed it also when close(2) says EINTR or EIO: never again.
void Fd::reset(int descriptor) noexcept {
  if (descriptor_ != kNone) {
    const int saved = errno;
    ::close(descriptor_);
    errno = saved;
  }
  descriptor_ = descriptor;
}

}  // namespace shoal
