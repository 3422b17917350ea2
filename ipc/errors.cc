#include "shoal/ipc/errors.h"

#include <errno.h>

#include <system_error>

namespace shoal {
namespace {

// What to do about it; nullptr where the call and the name say that.
const char* remedy_of(int error) {
  switch (error) {
    case EMFILE:
      return "raise the limit of open files (ulimit -n), or close some";
    case ENFILE:
      return "raise the system's limit of open files (fs.file-max)";
    case ENOMEM:
      return "free memory, or raise its limits (cgroup, ulimit -v, "
             "vm.max_map_count)";
    case ENOSPC:
      return "free some of the file system, or enlarge it";
    case EAGAIN:
      return "raise the limit of processes and threads (ulimit -u, cgroup), or "
             "end some";
    case EPERM:
      return "allow it (rights, or the sandbox's seccomp filter)";
    default:
      return nullptr;
  }
}

}  // namespace

void throw_system_error(int error, const char* call, const std::string& name,
                        std::uint64_t size) {
  std::string what = call;
  if (!name.empty() || size != 0) {
    what += '(' + name;
    if (size != 0)
      what += (name.empty() ? "" : ", ") + std::to_string(size) + " bytes";
    what += ')';
  }
  if (const char* remedy = remedy_of(error)) what += std::string("; ") + remedy;
  throw std::system_error(error, std::generic_category(), what);
}

}  // namespace shoal
