#pragma once
// Orphans: while it lives, processes whose parent dies come to this one.
//
//   const Orphans orphans;
//   ...                                   // kill one that has children
//   EXPECT_TRUE(orphans.all_end());

#include <errno.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "tests/support/child.h"

namespace shoal::support {

class Orphans {
 public:
  Orphans() { prctl(PR_SET_CHILD_SUBREAPER, 1); }
  Orphans(const Orphans&) = delete;
  Orphans& operator=(const Orphans&) = delete;
  ~Orphans() { prctl(PR_SET_CHILD_SUBREAPER, 0); }

  // By themselves, all children that this process has or gets; in time.
  bool all_end() const {
    return eventually([] {
      while (waitpid(-1, nullptr, WNOHANG) > 0) {
      }
      return waitpid(-1, nullptr, WNOHANG) < 0 && errno == ECHILD;
    });
  }
};

}  // namespace shoal::support
