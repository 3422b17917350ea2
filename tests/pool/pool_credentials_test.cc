// Workers that change their user: the kernel forgets then whose death a process
// is to follow, and they follow all the same.

#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <vector>

#include "gtest/gtest.h"
#include "shoal/pool/pool.h"
#include "tests/pool/scene.h"
#include "tests/support/child.h"

namespace {

using namespace shoal;
using namespace shoal::support;

constexpr uid_t kNobody = 65534;

// For a while, as a server does that acts for its client.
void be_nobody_for_a_while() {
  if (seteuid(kNobody) != 0 || seteuid(0) != 0) _exit(3);
}

class PoolCredentials : public PoolScene {
 protected:
  void SetUp() override {
    Child probe([](Child&) { be_nobody_for_a_while(); });
    if (probe.join() != 0) GTEST_SKIP() << "only root changes its user";
  }

  // Its processes, once their death signal is gone.
  static std::vector<pid_t> forgetful(Pool& pool) {
    for (std::size_t n = 0; n < pool.workers().size(); ++n)
      pool.apply_async([] {
        be_nobody_for_a_while();
        int follows = 0;
        prctl(PR_GET_PDEATHSIG, &follows);
        if (follows != 0) _exit(4);
        ++marks->started;
        return eventually([] {
          return marks->started == 2;  // so that each worker has one
        });
      });
    EXPECT_TRUE(started(2));
    return processes_of(pool);
  }
};

TEST_F(PoolCredentials, OwnerKilled) {
  Child owner([&](Child&) {
    Pool pool(2);
    const std::vector<pid_t> pids = forgetful(pool);
    std::ranges::copy(pids, marks->of.begin());
    marks->ran = 1;
    for (;;) pause();
  });
  ASSERT_TRUE(eventually([] { return marks->ran == 1; }));
  const Watch watch(
      std::vector<pid_t>(marks->of.begin(), marks->of.begin() + 3));
  EXPECT_TRUE(watch.all_live());
  owner.kill(SIGKILL);
  EXPECT_TRUE(watch.all_end());
}

TEST_F(PoolCredentials, NurseryKilled) {
  Pool pool(2);
  const Watch watch(forgetful(pool));
  kill(nursery_of(pool), SIGKILL);
  EXPECT_TRUE(watch.all_end());
}

// Whatever its tasks do: they could be long.
TEST_F(PoolCredentials, InitializerMayDropThem) {
  Pool pool(1, [] {
    if (setgid(kNobody) != 0 || setuid(kNobody) != 0) _exit(3);
  });
  EXPECT_EQ(pool.apply([] {
    int follows = 0;
    prctl(PR_GET_PDEATHSIG, &follows);
    return follows;
  }),
            SIGKILL);
  EXPECT_EQ(pool.apply(&getuid), kNobody);
}

}  // namespace
