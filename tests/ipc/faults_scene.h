#pragma once
// Suites in which each system call of an operation is refused, with one error
// after the other.
//
//   TEST_P(Faults, Lock) { expect_typed([] { Lock lock; }); }
//   INSTANTIATE_TEST_SUITE_P(Errors, Faults, kErrors, error_name);

#include <errno.h>
#include <string.h>

#include <functional>
#include <stdexcept>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/faults.h"

namespace shoal::support {

// Names a call and its object, or what has no space, and says what to do.
inline void expect_helpful(const std::string& text) {
  if (text == "std::bad_alloc") return;
  EXPECT_THAT(text, testing::AnyOf(testing::HasSubstr("("),
                                   testing::HasSubstr(": no space: ")));
  EXPECT_THAT(text, testing::HasSubstr("; "));
}

class Faults : public testing::TestWithParam<int> {
 protected:
  // The operation makes at least so many calls that may be refused.
  static void expect_typed(const std::function<void()>& operation,
                           int least_calls = 1,
                           const std::function<void()>& prepare = {}) {
    const FaultReport report = fail_each_call(GetParam(), operation, prepare);
    EXPECT_THAT(report.wrong, testing::IsEmpty());
    if (GetParam() != ENOSPC) {  // few calls take room
      EXPECT_GE(report.calls, least_calls);
    }
    for (const std::string& text : report.texts) expect_helpful(text);
  }
};

// In an operation: not typed, and so never taken for a refusal.
inline void require(bool holds, const char* what) {
  if (!holds) throw std::logic_error(what);
}

inline const auto kErrors = testing::Values(ENOMEM, EMFILE, EPERM, ENOSPC);
inline std::string error_name(const testing::TestParamInfo<int>& info) {
  return strerrorname_np(info.param);
}

}  // namespace shoal::support
