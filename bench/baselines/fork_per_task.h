#pragma once
// The pool that has no workers: a process is forked for each task, leaves the
// result in memory that it shares with this one, and ends.

#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <system_error>

#include "bench/support/machine.h"

namespace shoal::bench {

class ForkPerTask {
 public:
  // So many processes at once.
  static constexpr std::size_t kMost = 2;

  // Runs f(0) to f(count - 1), each in a process of its own and `at_once` of
  // them at a time, and gives each result to take(n, result), in order.
  template <class F, class Take>
  void run(std::uint64_t count, std::size_t at_once, F f, Take take) {
    std::array<pid_t, kMost> processes{};
    for (std::uint64_t n = 0; n < count + at_once; ++n) {
      const std::size_t place = n % at_once;
      if (n >= at_once) {
        if (waitpid(processes.at(place), nullptr, 0) < 0) fail("waitpid");
        take(n - at_once, results_->at(place));
      }
      if (n >= count) continue;
      processes.at(place) = fork();
      if (processes[place] < 0) fail("fork");
      if (processes[place] == 0) {
        results_->at(place) = f(n);
        _exit(0);
      }
    }
  }

 private:
  [[noreturn]] static void fail(const char* call) {
    throw std::system_error(errno, std::generic_category(), call);
  }

  Shared<std::array<std::uint64_t, kMost>> results_;
};

}  // namespace shoal::bench
