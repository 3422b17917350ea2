// Leaves something behind in every possible way; tests/residue_test.cc starts
// it once for each.

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <fstream>
#include <string>

#include "gtest/gtest.h"
#include "tests/support/residue.h"

namespace {

std::string plant_object() {
  std::string path = "/dev/shm/shoal." + shoal::support::unique_name("probe");
  std::ofstream(path) << "left";
  return path;
}

TEST(Probe, Nothing) {}

TEST(Probe, Object) { plant_object(); }

TEST(Probe, ObjectOfFailedTest) {
  plant_object();
  FAIL() << "on purpose";
}

TEST(Probe, Descriptor) { EXPECT_GE(open("/dev/null", O_RDONLY), 0); }

TEST(Probe, Child) {
  const pid_t parent = getpid();
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    // residue_test.cc reads until nobody holds the pipe any more.
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() == parent) pause();
    _exit(0);
  }
}

TEST(Probe, Zombie) {
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) _exit(0);
}

}  // namespace
