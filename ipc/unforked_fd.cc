#include "shoal/ipc/unforked_fd.h"

#include <pthread.h>

#include <mutex>
#include <utility>
#include <vector>

#include "shoal/ipc/errors.h"

namespace shoal {
namespace {

struct Registry {
  std::mutex mutex;
  std::vector<Fd*> held;
};

// Never destroyed: static objects may hold descriptors.
Registry& registry() {
  static Registry* const instance = [] {
    auto made = std::make_unique<Registry>();
    const int error = pthread_atfork([] { registry().mutex.lock(); },
                                     [] { registry().mutex.unlock(); },
                                     [] {
                                       for (Fd* const fd : registry().held)
                                         *fd = Fd();
                                       registry().held.clear();
                                       registry().mutex.unlock();
                                     });
    if (error != 0) throw_system_error(error, "pthread_atfork", "UnforkedFd");
    return made.release();
  }();
  return *instance;
}

}  // namespace

UnforkedFd::UnforkedFd(Fd fd) {
  Registry& known = registry();
  auto held = std::make_unique<Fd>(std::move(fd));
  const std::lock_guard guard(known.mutex);
  known.held.push_back(held.get());
  held_.reset(held.release());
}

void UnforkedFd::Forget::operator()(Fd* held) const {
  Registry& known = registry();
  const std::lock_guard guard(known.mutex);
  std::erase(known.held, held);
  delete held;
}

}  // namespace shoal
