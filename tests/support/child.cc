#include "tests/support/child.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <exception>

#include "shoal/ipc/errors.h"

namespace shoal::support {

void* map_shared(std::size_t size) {
  void* const memory = mmap(nullptr, size, PROT_READ | PROT_WRITE,
                            MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw_system_error(errno, "mmap", "shared", size);
  return memory;
}

void unmap_shared(void* memory, std::size_t size) { munmap(memory, size); }

void yield_cpu() { sched_yield(); }

Child::Child(const std::function<void(Child&)>& body) {
  fflush(nullptr);
  pid_ = fork();
  if (pid_ < 0) throw_system_error(errno, "fork", "Child");
  if (pid_ != 0) {
    pidfd_ = Pidfd::open(pid_);
    return;
  }
  try {
    body(*this);
  } catch (const std::exception& exception) {
    expect(false, exception.what());
  } catch (...) {
    expect(false, "an exception");
  }
  fflush(nullptr);
  _exit(failures().empty() ? 0 : 1);
}

Child::~Child() {
  if (status_) return;
  pidfd_.signal(SIGKILL);
  join(forever);
}

void Child::expect(bool holds, std::string_view what, int line) noexcept {
  if (holds) return;
  char* const text = text_->data();
  const std::size_t used = strnlen(text, text_->size());
  snprintf(text + used, text_->size() - used, "line %d: %.*s\n", line,
           static_cast<int>(what.size()), what.data());
}

std::optional<int> Child::join(Timeout timeout) {
  if (!status_ && pidfd_.wait(timeout)) status_ = pidfd_.reap();
  return status_;
}

std::string Child::failures() const {
  return {text_->data(), strnlen(text_->data(), text_->size())};
}

}  // namespace shoal::support
