#include "shoal/ipc/cpu_count.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "shoal/ipc/file_text.h"

namespace shoal {
namespace {

int affinity() {
  // The mask must be as long as the kernel's, which nothing tells in advance.
  for (int cpus = CPU_SETSIZE; cpus <= 1 << 20; cpus *= 2) {
    std::vector<cpu_set_t> mask(static_cast<std::size_t>(cpus / CPU_SETSIZE));
    const std::size_t bytes = mask.size() * sizeof(cpu_set_t);
    if (sched_getaffinity(0, bytes, mask.data()) == 0)
      return CPU_COUNT_S(bytes, mask.data());
    if (errno != EINVAL) break;
  }
  return 1;
}

bool has(const std::vector<std::string>& parts, std::string_view part) {
  return std::find(parts.begin(), parts.end(), part) != parts.end();
}

// mountinfo writes a space in a path as \040.
std::string unescape(const std::string& text) {
  std::string result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size()) {
      result += static_cast<char>(std::stoi(text.substr(i + 1, 3), nullptr, 8));
      i += 3;
    } else {
      result += text[i];
    }
  }
  return result;
}

// What is left of a path below `top`; nothing if it is elsewhere.
std::string below(const std::string& path, const std::string& top) {
  const bool inside = path.starts_with(top) &&
                      (path.size() == top.size() || path[top.size()] == '/');
  return inside ? path.substr(top.size()) : std::string();
}

// Cores, or nothing when the group has no quota of its own.
std::optional<int> cores(const std::string& quota, const std::string& period) {
  const std::int64_t q = std::strtoll(quota.c_str(), nullptr, 10);
  const std::int64_t p = std::strtoll(period.c_str(), nullptr, 10);
  if (q <= 0 || p <= 0) return std::nullopt;  // "max" or -1
  return static_cast<int>(std::min<std::int64_t>((q + p - 1) / p, 1 << 20));
}

std::optional<int> quota_of_group(const std::string& directory, bool v2) {
  if (!v2)
    return cores(text_of_file(directory + "/cpu.cfs_quota_us"),
                 text_of_file(directory + "/cpu.cfs_period_us"));
  const auto words = split(text_of_file(directory + "/cpu.max"), ' ');
  if (words.size() < 2) return std::nullopt;
  return cores(words[0], words[1]);
}

// The group of this process in a v1 cpu hierarchy or in the v2 one.
std::optional<std::string> group(const std::string& root, bool v2) {
  // "4:cpu,cpuacct:/a/b"
  for (const std::string& line : lines_of_file(root + "/proc/self/cgroup")) {
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const auto controllers =
        split(line.substr(first + 1, second - first - 1), ',');
    if (v2 ? line.starts_with("0::") : has(controllers, "cpu"))
      return line.substr(second + 1);
  }
  return std::nullopt;
}

}  // namespace

std::optional<int> cpu_quota(const std::string& root) {
  std::optional<int> least;
  for (const std::string& line : lines_of_file(root + "/proc/self/mountinfo")) {
    // "36 35 98:0 /root /mount/point rw,… shared:1 - type source options"
    const auto fields = split(line, ' ');
    const auto dash = std::find(fields.begin(), fields.end(), "-");
    if (dash - fields.begin() < 6 || fields.end() - dash < 4) continue;
    const bool v2 = dash[1] == "cgroup2";
    if (!v2 && !(dash[1] == "cgroup" && has(split(dash[3], ','), "cpu")))
      continue;
    std::string path = group(root, v2).value_or("/");
    // A container may see its own group mounted as the top.
    const std::string top = unescape(fields[3]);
    if (top != "/") path = below(path, top);
    if (path.find("/..") != std::string::npos) path.clear();
    const std::string mount = root + unescape(fields[4]);
    for (;;) {
      while (path.ends_with('/')) path.pop_back();
      if (const auto quota = quota_of_group(mount + path, v2))
        least = std::min(*quota, least.value_or(*quota));
      if (path.empty()) break;
      path.resize(path.rfind('/') + 1);
    }
  }
  return least;
}

int cpu_count() {
  const int allowed = std::max(affinity(), 1);
  return std::max(1, std::min(allowed, cpu_quota().value_or(allowed)));
}

}  // namespace shoal
