#include "shoal/ipc/unforked_fd.h"

#include <mutex>
#include <utility>
#include <vector>

#include "shoal/ipc/at_fork.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/lazy_static.h"

namespace shoal {
namespace {

// Never destroyed: static objects may hold descriptors.
constinit LazyStatic<std::vector<Fd*>> registry;
constinit std::mutex registry_mutex;

constinit int unwatched = 0;
SHOAL_AT_FORK const AtFork watched([] { registry_mutex.lock(); },
                                   [] { registry_mutex.unlock(); },
                                   [] {
                                     for (Fd* const fd : registry.get())
                                       *fd = Fd();
                                     registry.get().clear();
                                     registry_mutex.unlock();
                                   },
                                   &unwatched);

}  // namespace

UnforkedFd::UnforkedFd(Fd fd) {
  if (unwatched != 0)
    throw_system_error(unwatched, "pthread_atfork", "UnforkedFd");
  auto held = std::make_unique<Fd>(std::move(fd));
  const std::lock_guard guard(registry_mutex);
  registry.get().push_back(held.get());
  held_.reset(held.release());
}

void UnforkedFd::Forget::operator()(Fd* held) const {
  const std::lock_guard guard(registry_mutex);
  std::erase(registry.get(), held);
  delete held;
}

}  // namespace shoal
