#pragma once
// Making each system call of an operation fail in turn.
//
//   const FaultReport report = fail_each_call(ENOMEM, [] { Queue<int> q(4); });
//   EXPECT_THAT(report.wrong, IsEmpty()) << "after " << report.calls;
//
// The operation runs in a forked child that is traced: in round n its n-th
// system call, of those that may be refused so (refusable.h), is not made and
// returns the error. It must throw a typed error
// with a text, or cope; and then it is done again, without faults, and must
// work, in the same process, which has no more descriptors, mappings, objects
// and children then than after two rounds without faults. It must come to an
// end, and no process may outlive the child.
//
// prepare() is run before it in the child, without faults. Its other threads
// and the processes that it starts are not traced.

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

FaultReport fail_each_call(int error, const std::function<void()>& operation,
                           const std::function<void()>& prepare = {});

// Forks a process that a scene has beside the one that is traced, and that ends
// with it. `body` is repeated, whatever it throws.
void accompany(const std::function<void()>& body);

}  // namespace shoal::support
