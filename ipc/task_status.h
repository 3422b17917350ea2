#pragma once
// What /proc tells of a process or thread: the second proof of a death.

#include <sys/types.h>

#include <cstdint>
#include <string>

namespace shoal {

struct TaskStatus {
  bool known = false;
  char state = '?';
  long threads = 0;
  std::uint64_t started_at = 0;  // CLOCK_BOOTTIME, nanoseconds, 10 ms steps

  bool ended() const { return state == 'Z' || state == 'X'; }
};

// Of a file like /proc/<pid>/stat; not known if there is none.
TaskStatus task_status(const std::string& path);
inline TaskStatus process_status(pid_t pid) {
  return task_status("/proc/" + std::to_string(pid) + "/stat");
}

// False where /proc is missing, or shows another pid namespace.
bool proc_shows_us();

// The inode of this process's; 0 if it cannot be seen.
std::uint64_t pid_namespace();

// CLOCK_BOOTTIME, nanoseconds.
std::uint64_t boot_time();

}  // namespace shoal
