#pragma once
// Surroundings: what a forked process has of the one that forked it besides
// memory and descriptors, for a process that is forked by another: the child
// of a forkserver, which would have that of its server.
//
// Sharing: of_this_thread() in any thread; take_on() in a process that has one.
// Cost:    some hundred short system calls.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace shoal {

struct Surroundings {
  std::vector<std::string> environment;
  std::uint32_t file_mode_mask = 0;
  std::uint64_t ignored_signals = 0;  // bit n - 1: signal n
  std::uint64_t blocked_signals = 0;
  std::vector<std::byte> cpus;        // as of sched_getaffinity
  std::vector<std::uint64_t> limits;  // soft ones, by their number

  static Surroundings of_this_thread();
  // Signals that have a handler here keep it.
  void take_on() const;
};

}  // namespace shoal
