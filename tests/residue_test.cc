// A test of the tests: what a program leaves behind is found.

#include "tests/support/residue.h"

#include <stdio.h>
#include <sys/wait.h>

#include <array>
#include <filesystem>
#include <set>
#include <string>

#include "gmock/gmock.h"

namespace {

using testing::HasSubstr;
using testing::Not;
using testing::SizeIs;

struct Outcome {
  int status;  // as of exit
  std::string output;
};

Outcome probe(const std::string& name) {
  // Not over our own report, and not cut down by our own sharding or filter.
  const std::string command =
      "env -u XML_OUTPUT_FILE -u GTEST_OUTPUT -u TEST_PREMATURE_EXIT_FILE "
      "-u TESTBRIDGE_TEST_ONLY -u GTEST_TOTAL_SHARDS -u "
      "GTEST_SHARD_STATUS_FILE "
      "tests/residue_probe --gtest_filter=Probe." +
      name + " 2>&1";
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return {-1, "popen failed"};
  Outcome outcome{};
  std::array<char, 4096> buffer;
  while (fgets(buffer.data(), buffer.size(), pipe) != nullptr)
    outcome.output += buffer.data();
  outcome.status = WEXITSTATUS(pclose(pipe));
  return outcome;
}

int objects_of_tests() {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/dev/shm"))
    count += entry.path().native().ends_with("-probe");
  return count;
}

TEST(Residue, NothingLeftIsNoFailure) {
  const Outcome outcome = probe("Nothing");
  EXPECT_EQ(outcome.status, 0) << outcome.output;
  EXPECT_THAT(outcome.output, Not(HasSubstr("left behind")));
}

TEST(Residue, ObjectIsFoundAndRemoved) {
  const Outcome outcome = probe("Object");
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.output, HasSubstr("left behind: /dev/shm/shoal.test-"));
  EXPECT_EQ(objects_of_tests(), 0);
}

TEST(Residue, ObjectOfFailedTestIsFound) {
  const Outcome outcome = probe("ObjectOfFailedTest");
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.output, HasSubstr("left behind: /dev/shm/shoal.test-"));
}

TEST(Residue, DescriptorIsFound) {
  const Outcome outcome = probe("Descriptor");
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.output, HasSubstr("left behind: descriptor "));
  EXPECT_THAT(outcome.output, HasSubstr("of /dev/null"));
}

TEST(Residue, ChildIsFound) {
  const Outcome outcome = probe("Child");
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.output, HasSubstr("left behind: process "));
}

TEST(Residue, ZombieIsFound) {
  const Outcome outcome = probe("Zombie");
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.output, HasSubstr("left behind: process "));
}

TEST(Residue, NamesAreNeverEqual) {
  std::set<std::string> names;
  for (int i = 0; i < 100; ++i) names.insert(shoal::support::unique_name("x"));
  EXPECT_THAT(names, SizeIs(100));
}

}  // namespace
