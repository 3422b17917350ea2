// start() and join() of a function that does nothing, by each start method,
// beside a bare fork and a bare posix_spawn.
//
// With 256 MiB of memory in use, too: a fork copies the page tables of
// what the parent holds, the others do not.

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <stdexcept>
#include <string>

#include "bench/support/machine.h"
#include "bench/support/report.h"
#include "shoal/ipc/forkserver.h"
#include "shoal/ipc/process.h"

namespace shoal::bench {
namespace {

constexpr std::size_t kLarge = std::size_t{256} << 20;

void require(bool true_, const char* what) {
  if (!true_) throw std::runtime_error(what);
}

template <class F>
double timed(std::uint64_t count, std::size_t held, F once) {
  const Held memory(held);
  once();
  const double begin = clock_ns();
  for (std::uint64_t i = 0; i < count; ++i) once();
  return clock_ns() - begin;
}

void by(StartMethod method) {
  Process process({.start_method = method}, [] {});
  process.start();
  process.join();
  require(process.exitcode() == 0, "it ended otherwise");
}

void by_bare_fork() {
  const pid_t pid = fork();
  if (pid == 0) _exit(0);
  require(waitpid(pid, nullptr, 0) == pid, "waitpid");
}

void by_posix_spawn() {
  char program[] = "/bin/true";
  char* const arguments[] = {program, nullptr};
  pid_t pid = 0;
  require(posix_spawn(&pid, program, nullptr, nullptr, arguments, environ) == 0,
          "posix_spawn");
  require(waitpid(pid, nullptr, 0) == pid, "waitpid");
}

}  // namespace

void add_benchmarks() {
  const std::uint64_t count = scaled(200);
  for (const std::size_t held : {std::size_t{0}, kLarge}) {
    const std::string suffix = held == 0 ? "" : "/256MiB";
    const auto add_one = [&](const std::string& name, auto once) {
      add(name + suffix, count, [=] { return timed(count, held, once); });
    };
    add_one("start_join/fork", [] { by(StartMethod::fork); });
    add_one("start_join/forkserver", [] { by(StartMethod::forkserver); });
    add_one("start_join/spawn", [] { by(StartMethod::spawn); });
    add_one("raw/fork", by_bare_fork);
    add_one("raw/posix_spawn_true", by_posix_spawn);
  }
}

void report() {
  std::printf("\nMicroseconds, median (least):\n");
  for (const std::string suffix : {"", "/256MiB"})
    for (const std::string name :
         {"start_join/fork", "start_join/forkserver", "start_join/spawn",
          "raw/fork", "raw/posix_spawn_true"})
      if (const auto median = median_of(name + suffix))
        std::printf("%-30s %8.0f (%.0f)\n", (name + suffix).c_str(),
                    *median / 1000, *least_of(name + suffix) / 1000);
  // In this small program as measured by notes/pool.md: 172 and 923.
  at_most("fork against a bare one", ratio("start_join/fork", "raw/fork"), 2.5);
  at_most("spawn against posix_spawn of /bin/true",
          ratio("start_join/spawn", "raw/posix_spawn_true"), 6);
  at_most("forkserver against spawn",
          ratio("start_join/forkserver", "start_join/spawn"), 0.7);
  at_most("spawn, with 256 MiB against without",
          ratio("start_join/spawn/256MiB", "start_join/spawn"), 1.25);
  at_most("forkserver, with 256 MiB against without",
          ratio("start_join/forkserver/256MiB", "start_join/forkserver"), 1.25);
  forkserver::stop();
}

}  // namespace shoal::bench
