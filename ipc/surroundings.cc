#include "shoal/ipc/surroundings.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <string_view>

#include "shoal/ipc/file_text.h"

namespace shoal {
namespace {

constexpr int kSignals = 64;

std::uint64_t bit(int number) { return std::uint64_t{1} << (number - 1); }

bool is_ignored(int number) {
  struct sigaction action = {};
  return sigaction(number, nullptr, &action) == 0 &&
         action.sa_handler == SIG_IGN;
}

// umask(2) would change it for other threads, for a moment.
std::uint32_t file_mode_mask_now() {
  return static_cast<std::uint32_t>(
      number_in_file("/proc/self/status", "Umask:", 8).value_or(022));
}

std::vector<std::byte> cpus_allowed() {
  std::vector<std::byte> mask(sizeof(cpu_set_t));
  // A machine may have more than a cpu_set_t holds.
  while (sched_getaffinity(0, mask.size(),
                           reinterpret_cast<cpu_set_t*>(mask.data())) != 0) {
    if (errno != EINVAL || mask.size() > (1 << 16)) return {};
    mask.resize(2 * mask.size());
  }
  return mask;
}

}  // namespace

Surroundings Surroundings::of_this_thread() {
  Surroundings all;
  for (char** variable = environ; variable != nullptr && *variable != nullptr;
       ++variable)
    all.environment.emplace_back(*variable);
  all.file_mode_mask = file_mode_mask_now();
  all.cpus = cpus_allowed();
  for (int resource = 0; resource < RLIM_NLIMITS; ++resource) {
    rlimit limit = {};
    getrlimit(static_cast<__rlimit_resource>(resource), &limit);
    all.limits.push_back(limit.rlim_cur);
  }
  sigset_t blocked;
  pthread_sigmask(SIG_SETMASK, nullptr, &blocked);
  for (int number = 1; number <= kSignals; ++number) {
    if (is_ignored(number)) all.ignored_signals |= bit(number);
    if (sigismember(&blocked, number) == 1) all.blocked_signals |= bit(number);
  }
  return all;
}

void Surroundings::take_on() const {
  clearenv();
  for (const std::string& variable : environment) {
    const auto equals = variable.find('=');
    if (equals != variable.npos)
      setenv(variable.substr(0, equals).c_str(), variable.c_str() + equals + 1,
             1);
  }
  umask(file_mode_mask);
  if (!cpus.empty())
    // Refused for CPUs that have gone: then those of the server.
    static_cast<void>(sched_setaffinity(
        0, cpus.size(), reinterpret_cast<const cpu_set_t*>(cpus.data())));
  for (std::size_t i = 0; i < limits.size() && i < RLIM_NLIMITS; ++i) {
    const auto resource = static_cast<__rlimit_resource>(i);
    rlimit limit;
    if (getrlimit(resource, &limit) != 0 || limit.rlim_cur == limits[i])
      continue;
    limit.rlim_cur = std::min<rlim_t>(limits[i], limit.rlim_max);
    setrlimit(resource, &limit);
  }
  sigset_t blocked;
  sigemptyset(&blocked);
  for (int number = 1; number <= kSignals; ++number) {
    const bool ignored = (ignored_signals & bit(number)) != 0;
    // A handler that a static initialiser installed stays.
    if (ignored != is_ignored(number))
      signal(number, ignored ? SIG_IGN : SIG_DFL);
    if ((blocked_signals & bit(number)) != 0) sigaddset(&blocked, number);
  }
  pthread_sigmask(SIG_SETMASK, &blocked, nullptr);
}

}  // namespace shoal
