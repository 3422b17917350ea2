#include "shoal/ipc/asymmetric_fence.h"

#include <linux/membarrier.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <memory>

#include "shoal/ipc/lazy_static.h"

namespace shoal::asymmetric_fence {
namespace {

bool call(int command) { return syscall(SYS_membarrier, command, 0, 0) == 0; }

bool wants_fence() {
  const char* wanted = getenv("SHOAL_BARRIER");
  return wanted != nullptr && strcmp(wanted, "fence") == 0;
}

bool register_once() {
  static constinit LazyStatic<const bool> done;
  return done.get([] {
    return std::make_unique<const bool>(
        !wants_fence() && call(MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED));
  });
}

// Registering is quick only while the process has one thread, so it is done
// before main. A fork inherits the registration.
[[maybe_unused]] const bool registered_at_start = register_once();

}  // namespace

bool registered() { return register_once(); }

Mode default_mode() { return registered() ? Mode::membarrier : Mode::fence; }

bool needs_fence(Mode mode) { return mode == Mode::fence || !registered(); }

bool heavy(Mode mode) {
  full();
  return mode == Mode::fence || call(MEMBARRIER_CMD_GLOBAL_EXPEDITED);
}

}  // namespace shoal::asymmetric_fence
