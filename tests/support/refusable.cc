#include "tests/support/refusable.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/syscall.h>

#include <algorithm>
#include <iterator>

namespace shoal::support {
namespace {

// For want of memory, descriptors, rights.
constexpr long kRefusable[] = {SYS_memfd_create,
                               SYS_ftruncate,
                               SYS_fallocate,
                               SYS_mmap,
                               SYS_open,
                               SYS_openat,
                               SYS_socket,
                               SYS_socketpair,
                               SYS_bind,
                               SYS_listen,
                               SYS_connect,
                               SYS_accept4,
                               SYS_sendmsg,
                               SYS_recvmsg,
                               SYS_clone,
                               SYS_clone3,
                               SYS_fork,
                               SYS_vfork,
                               SYS_pidfd_open,
                               SYS_eventfd2,
                               SYS_epoll_create1,
                               SYS_epoll_ctl,
                               SYS_pipe2,
                               SYS_dup,
                               SYS_dup3,
                               SYS_linkat,
                               SYS_fchmod,
                               SYS_timerfd_create,
                               SYS_fstat,
                               SYS_newfstatat,
                               SYS_madvise,
                               SYS_membarrier,
                               SYS_set_robust_list,
                               SYS_get_robust_list,
                               SYS_pidfd_getfd,
                               SYS_mprotect};

// As fcntl(2), these two may be.
bool makes_or_seals(long command) {
  return command == F_DUPFD || command == F_DUPFD_CLOEXEC ||
         command == F_ADD_SEALS;
}

// A full file system refuses only what takes room in it.
bool allocates(const user_regs_struct& call) {
  switch (static_cast<long>(call.orig_rax)) {
    case SYS_ftruncate:
    case SYS_linkat:
    case SYS_epoll_ctl:
      return true;
    case SYS_fallocate:
      return (call.rsi & FALLOC_FL_PUNCH_HOLE) == 0;
    case SYS_openat:
      return (call.rdx & (O_CREAT | (O_TMPFILE & ~O_DIRECTORY))) != 0;
    default:
      return false;
  }
}

}  // namespace

bool refusable(const user_regs_struct& call, int error) {
  if (error == ENOSPC) return allocates(call);
  const auto number = static_cast<long>(call.orig_rax);
  if (number == SYS_fcntl) return makes_or_seals(static_cast<long>(call.rsi));
  return std::find(std::begin(kRefusable), std::end(kRefusable), number) !=
         std::end(kRefusable);
}

}  // namespace shoal::support
