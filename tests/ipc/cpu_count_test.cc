#include "shoal/ipc/cpu_count.h"

#include <sched.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <optional>
#include <string>

#include "gtest/gtest.h"
#include "tests/support/child.h"

namespace shoal {
namespace {

namespace fs = std::filesystem;

// A /proc and a /sys of our own making.
class FakeRoot {
 public:
  FakeRoot() {
    std::string path = (fs::temp_directory_path() / "shoal_cpu_XXXXXX");
    root_ = mkdtemp(path.data());
  }
  FakeRoot(const FakeRoot&) = delete;
  FakeRoot& operator=(const FakeRoot&) = delete;
  ~FakeRoot() { fs::remove_all(root_); }

  void write(const std::string& path, const std::string& text) {
    const fs::path file = root_ + path;
    fs::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  std::optional<int> quota() const { return cpu_quota(root_); }

 private:
  std::string root_;
};

constexpr const char* kMountV2 =
    "24 23 0:22 / /proc rw - proc proc rw\n"
    "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n";

TEST(CpuCount, NoMoreThanTheAffinityAllows) {
  support::Child child([](support::Child& self) {
    cpu_set_t before;
    sched_getaffinity(0, sizeof before, &before);
    int cpu = 0;
    while (!CPU_ISSET(cpu, &before)) ++cpu;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    self.expect(cpu_count() >= 1, "at least 1");
    self.expect(cpu_count() <= CPU_COUNT(&before), "at most the affinity");
    sched_setaffinity(0, sizeof one, &one);
    self.expect(cpu_count() == 1, "pinned to one");
  });
  EXPECT_EQ(child.join(), 0) << child.failures();
}

TEST(CpuCount, NoQuotaWithoutGroups) {
  FakeRoot root;
  EXPECT_EQ(root.quota(), std::nullopt);
  root.write("/proc/self/mountinfo", kMountV2);
  root.write("/proc/self/cgroup", "0::/a\n");
  EXPECT_EQ(root.quota(), std::nullopt);
  root.write("/sys/fs/cgroup/a/cpu.max", "max 100000\n");
  EXPECT_EQ(root.quota(), std::nullopt);
}

TEST(CpuCount, QuotaOfVersion2RoundsUp) {
  FakeRoot root;
  root.write("/proc/self/mountinfo", kMountV2);
  root.write("/proc/self/cgroup", "0::/a/b\n");
  root.write("/sys/fs/cgroup/a/b/cpu.max", "250000 100000\n");
  EXPECT_EQ(root.quota(), 3);
  root.write("/sys/fs/cgroup/a/b/cpu.max", "200000 100000\n");
  EXPECT_EQ(root.quota(), 2);
  root.write("/sys/fs/cgroup/a/b/cpu.max", "1000 100000\n");
  EXPECT_EQ(root.quota(), 1);
}

TEST(CpuCount, TheTightestLevelCounts) {
  FakeRoot root;
  root.write("/proc/self/mountinfo", kMountV2);
  root.write("/proc/self/cgroup", "0::/a/b\n");
  root.write("/sys/fs/cgroup/a/b/cpu.max", "800000 100000\n");
  root.write("/sys/fs/cgroup/a/cpu.max", "400000 100000\n");
  EXPECT_EQ(root.quota(), 4);
  root.write("/sys/fs/cgroup/a/cpu.max", "max 100000\n");
  EXPECT_EQ(root.quota(), 8);
}

TEST(CpuCount, InAContainerItsGroupIsTheTop) {
  FakeRoot root;
  root.write("/proc/self/mountinfo",
             "30 23 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"
             "31 30 0:27 /docker/1f /sys/fs/cgroup/cpu,cpuacct ro "
             "master:11 - cgroup cgroup rw,cpu,cpuacct\n");
  root.write("/proc/self/cgroup",
             "5:memory:/docker/1f\n4:cpu,cpuacct:/docker/1f\n0::/\n");
  const std::string top = "/sys/fs/cgroup/cpu,cpuacct";
  root.write(top + "/cpu.cfs_quota_us", "150000\n");
  root.write(top + "/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(root.quota(), 2);
  root.write("/proc/self/cgroup", "4:cpu,cpuacct:/docker/1f/job\n");
  root.write(top + "/job/cpu.cfs_quota_us", "50000\n");
  root.write(top + "/job/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(root.quota(), 1);
  root.write(top + "/job/cpu.cfs_quota_us", "-1\n");
  EXPECT_EQ(root.quota(), 2);
}

TEST(CpuCount, AMountPointWithASpace) {
  FakeRoot root;
  root.write("/proc/self/mountinfo",
             "30 23 0:26 / /sys/c\\040g rw - cgroup2 cgroup2 rw\n");
  root.write("/proc/self/cgroup", "0::/../other\n");
  root.write("/sys/c g/cpu.max", "500000 100000\n");
  EXPECT_EQ(root.quota(), 5);
}

}  // namespace
}  // namespace shoal
