// What this process knows of the forks that led to it, and what the calling
// thread is to the kernel.

#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "shoal/ipc/at_fork.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/liveness.h"
#include "shoal/ipc/liveness_parts.h"
#include "shoal/ipc/segment.h"
#include "shoal/ipc/task_status.h"

namespace shoal::liveness {

thread_local constinit ThreadContext thread_context{};
constinit std::atomic<std::atomic<std::uint32_t>*> fork_page{nullptr};
constinit std::atomic<std::uint64_t> known_fork_depth{0};

namespace {

// In the child's only thread, before any other can start.
SHOAL_AT_FORK const AtFork counted(nullptr, nullptr, [] {
  // SYNC(fork_page)
  if (fork_page.load(std::memory_order_acquire) != nullptr) fork_depth();
});

// This process's; whoever comes makes it, and one of them is taken.
std::atomic<std::uint32_t>* writable_fork_page() {
  // SYNC(fork_page)
  auto* known = fork_page.load(std::memory_order_acquire);
  if (known != nullptr) return known;
  void* page = mmap(nullptr, segment::kPage, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) throw_system_error(errno, "mmap", "fork page");
  if (madvise(page, segment::kPage, MADV_WIPEONFORK) != 0)
    throw_system_error(errno, "madvise(MADV_WIPEONFORK)", "fork page");
  auto* word = static_cast<std::atomic<std::uint32_t>*>(page);
  // relaxed: nobody else knows the page yet.
  word->store(1, std::memory_order_relaxed);
  // SYNC(fork_page): pairs with fork_depth().
  if (fork_page.compare_exchange_strong(known, word, std::memory_order_acq_rel,
                                        std::memory_order_acquire))
    return word;
  munmap(page, segment::kPage);
  return known;
}

}  // namespace

std::uint64_t find_fork_depth() {
  // SYNC(fork_page)
  if (fork_page.load(std::memory_order_acquire) != nullptr && forked()) {
    // In the child only the forking thread exists (pthread_atfork). What the
    // parent's thread held stays the parent's.
    // relaxed: no other thread yet.
    known_fork_depth.fetch_add(1, std::memory_order_relaxed);
    if (thread_context.robust != nullptr)
      thread_context.robust->list_op_pending = nullptr;
    thread_context = {};
    writable_fork_page()->store(1, std::memory_order_relaxed);
  }
  writable_fork_page();
  return known_fork_depth.load(std::memory_order_relaxed);
}

robust_list_head* find_robust_list() {
  if (thread_context.robust != nullptr) return thread_context.robust;
  robust_list_head* head = nullptr;
  std::size_t size;
  if (syscall(SYS_get_robust_list, 0, &head, &size) != 0) return nullptr;
  // Refused to libc when the thread began: a filter.
  if (head == nullptr) errno = EPERM;
  return head;
}

// Kept, as the kernel makes a file for each look. It changes at a fork at most:
// unshare() and setns() are for the children to come.
std::uint64_t own_pid_namespace() {
  static std::atomic<std::uint64_t> known{0};
  static std::atomic<std::uint64_t> known_depth{0};
  const std::uint64_t depth = fork_depth() + 1;
  // SYNC(pid_namespace)
  if (known_depth.load(std::memory_order_acquire) == depth)
    return known.load(std::memory_order_relaxed);
  const std::uint64_t found = pid_namespace();
  if (found == 0) return 0;  // perhaps it can be seen later
  // relaxed: other threads store the same.
  known.store(found, std::memory_order_relaxed);
  // SYNC(pid_namespace)
  known_depth.store(depth, std::memory_order_release);
  return found;
}

}  // namespace shoal::liveness
