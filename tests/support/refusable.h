#pragma once
// Which system calls the kernel may refuse with a given error. Calls that only
// let go, wait, or ask are made as they are.

#include <sys/user.h>

namespace shoal::support {

// `call` as it is about to be made.
bool refusable(const user_regs_struct& call, int error);

}  // namespace shoal::support
