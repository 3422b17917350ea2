#pragma once
// What tests of the start methods have in common: memory in which processes
// meet that inherit nothing from each other, and processes with a method.
//
//   Meeting<Seen> seen;
//   auto process = started(method, &work, seen.path());
//   ...
//   void work(std::string path) { ++Meeting<Seen>(path)->ready; }

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <new>
#include <optional>
#include <ostream>
#include <string>
#include <utility>

#include "gtest/gtest.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/forkserver.h"
#include "shoal/ipc/process.h"
#include "tests/support/child.h"

namespace shoal {

inline void PrintTo(StartMethod method, std::ostream* out) {
  *out << (method == StartMethod::fork         ? "fork"
           : method == StartMethod::forkserver ? "forkserver"
                                               : "spawn");
}

namespace support {

// A zeroed T in a file that goes with who made it.
template <class T>
class Meeting {
 public:
  Meeting() : owner_(getpid()) {
    const char* directory = getenv("TEST_TMPDIR");
    path_ = std::string(directory != nullptr ? directory : "/tmp") +
            "/meeting.XXXXXX";
    const int file = mkostemp(path_.data(), O_CLOEXEC);
    if (file < 0 || ftruncate(file, sizeof(T)) != 0)
      throw_system_error(errno, "mkostemp", path_);
    map(file);
  }
  explicit Meeting(std::string path) : path_(std::move(path)) {
    map(open(path_.c_str(), O_RDWR | O_CLOEXEC));
  }
  Meeting(const Meeting&) = delete;
  Meeting& operator=(const Meeting&) = delete;
  ~Meeting() {
    munmap(memory_, sizeof(T));
    if (owner_ == getpid()) ::unlink(path_.c_str());
  }

  const std::string& path() const { return path_; }
  T& operator*() const { return *static_cast<T*>(memory_); }
  T* operator->() const { return static_cast<T*>(memory_); }

 private:
  void map(int file) {
    if (file < 0) throw_system_error(errno, "open", path_);
    memory_ =
        mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (memory_ == MAP_FAILED) throw_system_error(errno, "mmap", path_);
    close(file);
  }

  pid_t owner_ = 0;
  std::string path_;
  void* memory_ = nullptr;
};

using Flag = std::atomic<int>;

inline void await(const Flag& flag, int value = 1) {
  if (!eventually([&] { return flag >= value; })) _exit(97);
}

inline void sleep_for_ever() {
  for (;;) pause();
}

// With the function's own exit code.
template <class F, class... A>
std::optional<int> run_by(StartMethod method, F f, A... arguments) {
  Process process(ProcessOptions{.start_method = method}, std::move(f),
                  std::move(arguments)...);
  process.start();
  if (!process.join(kPatience)) process.kill();
  return process.exitcode();
}

template <class F, class... A>
Process started(StartMethod method, F f, A... arguments) {
  Process process(ProcessOptions{.start_method = method}, std::move(f),
                  std::move(arguments)...);
  process.start();
  return process;
}

// A suite that leaves no forkserver behind.
template <class Base>
class WithForkserver : public Base {
 public:
  static void TearDownTestSuite() { forkserver::stop(); }
};

}  // namespace support
}  // namespace shoal
