#include "shoal/ipc/task_status.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <string_view>

#include "shoal/ipc/file_text.h"

namespace shoal {

TaskStatus task_status(const std::string& path) {
  TaskStatus status;
  const std::string text = text_of_file(path);
  const char* rest = strrchr(text.c_str(), ')');  // the command: anything
  unsigned long long ticks = 0;
  if (rest != nullptr &&
      sscanf(rest + 1,
             " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d "
             "%*d %*d %ld %*d %llu",
             &status.state, &status.threads, &ticks) == 3) {
    status.known = true;
    status.started_at = ticks * 1'000'000'000ull /
                        static_cast<std::uint64_t>(sysconf(_SC_CLK_TCK));
  }
  return status;
}

bool proc_shows_us() {
  char target[32];
  const ssize_t size = readlink("/proc/self", target, sizeof target - 1);
  return size > 0 && std::string_view(target, static_cast<std::size_t>(size)) ==
                         std::to_string(getpid());
}

std::uint64_t pid_namespace() {
  struct stat status;
  return stat("/proc/self/ns/pid", &status) == 0 ? status.st_ino : 0;
}

std::uint64_t boot_time() {
  timespec time;
  clock_gettime(CLOCK_BOOTTIME, &time);
  return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000 +
         static_cast<std::uint64_t>(time.tv_nsec);
}

}  // namespace shoal
