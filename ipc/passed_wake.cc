// Does this kernel wake a sleeper when a thread dies in the middle of an
// operation? Asked of the kernel itself, once per process tree.

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shoal/ipc/errors.h"
#include "shoal/ipc/liveness.h"
#include "shoal/ipc/segment.h"

namespace shoal::liveness {
namespace {

// TSan and ASan keep account of threads and cannot follow a raw exit; there
// a forked child dies instead of a thread.
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr bool kSanitized = true;
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif
#else
constexpr bool kSanitized = false;
#endif

constexpr std::uint32_t kFlag = 0x80000000u;

struct Probe {
  futex::Word parked{kFlag};
  futex::Word pending{kFlag};
};

// Waits until the main thread sleeps on `parked`, moves it to `pending` (so
// that there is no race to lose), arms and dies without a word.
void* die_armed(void* argument) {
  Probe& probe = *static_cast<Probe*>(argument);
  const std::int64_t give_up = monotonic_now() + 1'000'000'000;
  while (futex::move_one(probe.parked, probe.pending) == 0)
    if (monotonic_now() > give_up)
      syscall(kSanitized ? SYS_exit_group : SYS_exit, 0);
  robust_list_head* robust = nullptr;
  std::size_t size;
  syscall(SYS_get_robust_list, 0, &robust, &size);
  if (robust != nullptr) {
    robust->list_op_pending = reinterpret_cast<robust_list*>(
        reinterpret_cast<std::uintptr_t>(&probe.pending) -
        static_cast<std::uintptr_t>(robust->futex_offset));
    std::atomic_signal_fence(std::memory_order_seq_cst);
  }
  // In the forked child a sanitizer may have started a thread of its own.
  syscall(kSanitized ? SYS_exit_group : SYS_exit, 0);
  return nullptr;
}

bool sleep_on(Probe& probe) {
  return futex::wait(probe.parked, kFlag,
                     Timeout(std::chrono::milliseconds(1500))) ==
         futex::Result::woken;
}

bool test() {
  auto memory = segment::map_private_to_tree(segment::kPage);
  Probe& probe = *new (memory.get()) Probe;
  if (kSanitized) {
    const pid_t child = fork();
    if (child < 0) return false;
    if (child == 0) die_armed(&probe);
    const bool woken = sleep_on(probe);
    while (waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
    }
    return woken;
  }
  pthread_t thread;
  if (pthread_create(&thread, nullptr, die_armed, &probe) != 0) return false;
  const bool woken = sleep_on(probe);
  pthread_join(thread, nullptr);
  return woken;
}

}  // namespace

bool kernel_passes_wakes() {
  // SHOAL_PASSED_WAKE=0 is for the tests of the fallback.
  static const bool passes = [] {
    const char* wanted = getenv("SHOAL_PASSED_WAKE");
    return !(wanted != nullptr && wanted[0] == '0') && test();
  }();
  return passes;
}

}  // namespace shoal::liveness
