#include "tests/support/reexec.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include <array>
#include <stdexcept>

#include "shoal/ipc/errors.h"

namespace shoal::support {
namespace {

// By these the test runner tells a program where to report and what to leave
// out; the parent's report is not ours to overwrite.
constexpr const char* kOfTheRunner[] = {
    "XML_OUTPUT_FILE",        "GTEST_OUTPUT",       "TEST_PREMATURE_EXIT_FILE",
    "TESTBRIDGE_TEST_ONLY",   "GTEST_TOTAL_SHARDS", "GTEST_SHARD_INDEX",
    "GTEST_SHARD_STATUS_FILE"};

}  // namespace

void exec_tests(std::string_view filter,
                const std::vector<std::string>& environment) {
  for (const char* name : kOfTheRunner) unsetenv(name);
  for (const std::string& setting : environment) {
    const auto equals = setting.find('=');
    setenv(setting.substr(0, equals).c_str(),
           setting.substr(equals + 1).c_str(), 1);
  }
  std::string wanted = "--gtest_filter=" + std::string(filter);
  char program[] = "/proc/self/exe";
  char disabled[] = "--gtest_also_run_disabled_tests";
  char brief[] = "--gtest_brief=1";
  const std::array<char*, 5> arguments = {program, wanted.data(), disabled,
                                          brief, nullptr};
  execv(program, arguments.data());
  throw_system_error(errno, "execv", program);
}

std::string given(const char* variable) {
  const char* value = getenv(variable);
  if (value == nullptr)
    throw std::runtime_error(std::string(variable) + " is not set");
  return value;
}

}  // namespace shoal::support
