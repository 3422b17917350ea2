#pragma once
// What the kernel counts of a process, this one or another, at this moment.
//
//   EXPECT_TRUE(eventually([&] { return descriptors_of(server) == before; }));

#include <sys/types.h>

#include <chrono>
#include <cstddef>

namespace shoal::support {

// All are 0 of one that has ended.
std::size_t descriptors_of(pid_t process);
std::size_t threads_of(pid_t process);
// How often the thread has gone to sleep.
std::size_t sleeps_of(pid_t thread);
// Of all its threads, those that have ended as well.
std::chrono::nanoseconds cpu_time_of(pid_t process);

}  // namespace shoal::support
