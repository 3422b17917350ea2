#include "tests/support/thread.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <exception>
#include <fstream>
#include <string>
#include <utility>

#include "gtest/gtest.h"
#include "tests/support/child.h"

namespace shoal::support {
namespace {

constexpr long kSysFutexWaitv = 449;

}  // namespace

bool asleep(pid_t process, pid_t thread) {
  std::ifstream file("/proc/" + std::to_string(process) + "/task/" +
                     std::to_string(thread) + "/syscall");
  long number = -1;  // "running" leaves 0, which is read(2)
  return file >> number && (number == SYS_futex || number == kSysFutexWaitv);
}

bool falls_asleep(pid_t process, pid_t thread) {
  return eventually([&] { return asleep(process, thread); });
}

Thread::Thread(std::function<void()> body)
    : thread_([this, body = std::move(body)] {
        id_.store(gettid(), std::memory_order_release);
        try {
          body();
        } catch (const std::exception& exception) {
          ADD_FAILURE() << "in a thread: " << exception.what();
        } catch (...) {
          ADD_FAILURE() << "in a thread: an exception";
        }
        ended_.store(true, std::memory_order_release);
      }) {}

Thread::~Thread() {
  if (!ends()) {
    fprintf(stderr, "thread %d hangs\n", id());
    abort();
  }
  thread_.join();
}

pid_t Thread::id() {
  eventually([this] { return id_.load(std::memory_order_acquire) != 0; });
  return id_.load(std::memory_order_acquire);
}

bool Thread::falls_asleep() {
  const pid_t thread = id();
  bool sleeps = false;
  eventually([&] {
    sleeps = asleep(getpid(), thread);
    return sleeps || ended();
  });
  return sleeps;
}

bool Thread::ends() {
  return eventually([this] { return ended(); });
}

}  // namespace shoal::support
