#include "tests/support/census.h"

#include <time.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <system_error>

namespace shoal::support {
namespace {

std::size_t entries(pid_t process, const char* directory) {
  const std::string path = "/proc/" + std::to_string(process) + '/' + directory;
  std::size_t count = 0;
  std::error_code ended;  // also while we look
  for (std::filesystem::directory_iterator each(path, ended), end;
       !ended && each != end; each.increment(ended))
    ++count;
  return count;
}

}  // namespace

std::size_t descriptors_of(pid_t process) { return entries(process, "fd"); }

std::size_t threads_of(pid_t process) { return entries(process, "task"); }

std::size_t sleeps_of(pid_t thread) {
  constexpr std::string_view kKey = "voluntary_ctxt_switches:";
  std::ifstream file("/proc/" + std::to_string(thread) + "/status");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with(kKey)) return std::stoul(line.substr(kKey.size()));
  return 0;
}

std::chrono::nanoseconds cpu_time_of(pid_t process) {
  clockid_t clock;
  timespec used{};
  if (clock_getcpuclockid(process, &clock) != 0 ||
      clock_gettime(clock, &used) != 0)
    return {};
  return std::chrono::seconds(used.tv_sec) +
         std::chrono::nanoseconds(used.tv_nsec);
}

}  // namespace shoal::support
