#pragma once
// This very program once more, as a process that shares nothing with its
// parent: other addresses, static objects made anew, another environment.
//
//   Child other([&](Child&) { exec_tests("Consumer.*", {"QUEUE=" + name}); });
//   EXPECT_EQ(other.join(), 0);
//
// What only runs there is a test whose suite's name starts with "DISABLED_".

#include <string>
#include <string_view>
#include <vector>

namespace shoal::support {

// Replaces this process; `filter` as of --gtest_filter, disabled tests
// included. Throws std::system_error.
[[noreturn]] void exec_tests(std::string_view filter,
                             const std::vector<std::string>& environment);

// What exec_tests() gave; std::runtime_error when there is no such variable.
std::string given(const char* variable);

}  // namespace shoal::support
