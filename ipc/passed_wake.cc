// Does this kernel wake a sleeper when a thread dies in the middle of an
// operation? Asked of the kernel itself, once per process tree.

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <memory>

#include "shoal/ipc/blocked_signals.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/lazy_static.h"
#include "shoal/ipc/liveness.h"
#include "shoal/ipc/segment.h"

// NOLINTBEGIN(bugprone-reserved-identifier): the sanitizers' names
extern "C" {
[[gnu::weak]] void __asan_init();
[[gnu::weak]] void __tsan_init();
}
// NOLINTEND(bugprone-reserved-identifier)

namespace shoal::liveness {
namespace {

using namespace std::chrono_literals;

// TSan and ASan keep account of threads and cannot follow a raw exit; with them
// a forked child dies instead of a thread. They may be in the program without
// having been there when this was compiled.
bool sanitized() { return &__asan_init != nullptr || &__tsan_init != nullptr; }

constexpr std::uint32_t kFlag = 0x80000000u;

struct Probe {
  futex::Word parked{kFlag};
  futex::Word pending{kFlag};
  std::atomic<bool> over{false};
};

// Waits until the main thread sleeps on `parked`, moves it to `pending` (so
// that there is no race to lose), arms and dies without a word.
void* die_armed(void* argument) {
  Probe& probe = *static_cast<Probe*>(argument);
  while (futex::move_one(probe.parked, probe.pending) == 0)
    if (probe.over) syscall(sanitized() ? SYS_exit_group : SYS_exit, 0);
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
  syscall(sanitized() ? SYS_exit_group : SYS_exit, 0);
  return nullptr;
}

bool sleep_on(Probe& probe, Timeout patience) {
  const bool woken =
      futex::wait(probe.parked, kFlag, patience) == futex::Result::woken;
  probe.over = true;
  return woken;
}

bool test(Timeout patience) {
  auto memory = segment::map_private_to_tree(segment::kPage);
  Probe& probe = *new (memory.get()) Probe;
  if (sanitized()) {
    const pid_t parent = getpid();
    const pid_t child = fork();
    if (child < 0) return false;
    if (child == 0) {
      // A parent that has been killed never sleeps.
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (getppid() != parent) _exit(0);
      die_armed(&probe);
    }
    const bool woken = sleep_on(probe, patience);
    while (waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
    }
    return woken;
  }
  pthread_t thread;
  if (pthread_create(&thread, nullptr, die_armed, &probe) != 0) return false;
  const bool woken = sleep_on(probe, patience);
  pthread_join(thread, nullptr);
  return woken;
}

// Whatever disturbs that sleep, such as a signal, or a tracer after which the
// kernel begins it anew on the first word, makes the answer a wrong no; so
// there are several tries, and no handler runs meanwhile.
bool test_with_patience() {
  const BlockedSignals blocked;
  for (const auto patience : {50ms, 100ms, 200ms, 1000ms})
    if (test(patience)) return true;
  return false;
}

}  // namespace

bool kernel_passes_wakes() {
  // SHOAL_PASSED_WAKE=0 is for the tests of the fallback.
  static constinit LazyStatic<const bool> passes;
  return passes.get([] {
    const char* wanted = getenv("SHOAL_PASSED_WAKE");
    return std::make_unique<const bool>(
        !(wanted != nullptr && wanted[0] == '0') && test_with_patience());
  });
}

}  // namespace shoal::liveness
