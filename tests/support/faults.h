#pragma once
// Making each system call of an operation fail in turn.
//
//   const FaultReport report = fail_each_call(ENOMEM, [] { Queue<int> q(4); });
//   EXPECT_THAT(report.wrong, IsEmpty()) << "after " << report.calls;
//
// The operation runs in a forked child that is traced: in round n its n-th
// system call, of those that may be refused for want of something (kRefusable
// in faults.cc), is not made and returns the error. It must throw a typed error
// with a text, or cope; and then it is done again, without faults, and must
// work, in the same process.

#include <functional>
#include <string>
#include <vector>

namespace shoal::support {

struct FaultReport {
  int calls = 0;     // that were made to fail
  int refusals = 0;  // of which the operation reported by an exception
  std::vector<std::string> wrong;  // what should not have been
  std::vector<std::string> texts;  // of the exceptions
};

FaultReport fail_each_call(int error, const std::function<void()>& operation);

}  // namespace shoal::support
