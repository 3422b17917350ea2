#pragma once
// Stopper: a process that stops others with SIGSTOP at random moments, and lets
// them go with SIGCONT, now and then after longer than any slice of a wait.
//
//   Child worker([&](Child&) { ... });
//   EXPECT_TRUE(stop_at_random({worker.pid()}, [&] { ...with timeouts... }));

#include <sys/types.h>

#include <atomic>
#include <functional>
#include <vector>

#include "tests/support/child.h"

namespace shoal::support {

class Stopper {
 public:
  explicit Stopper(std::vector<pid_t> whom);
  // All of them run.
  ~Stopper();

  bool working() const { return !shared_->done; }
  int stops() const { return shared_->stops; }

 private:
  struct State {
    std::atomic<int> stops;
    std::atomic<bool> done;
  };
  std::vector<pid_t> whom_;
  Shared<State> shared_;
  Child child_;
};

// Calls work() again and again while they are stopped; true if that happened
// often.
bool stop_at_random(const std::vector<pid_t>& whom,
                    const std::function<void()>& work);

}  // namespace shoal::support
