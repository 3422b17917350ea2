#pragma once
// cpu_count: how many processes can really run at once here.
//
//   shoal::Pool pool(shoal::cpu_count());
//
// The smaller of the CPUs that this thread may run on (affinity, cpusets) and
// of what the quotas of its cgroups (v1 and v2, every level) amount to, rounded
// up. At least 1.

#include <optional>
#include <string>

namespace shoal {

int cpu_count();

// The cgroup's share of it, if there is a quota. `root` is prefixed to /proc
// and to the mount points found there.
std::optional<int> cpu_quota(const std::string& root = {});

}  // namespace shoal
