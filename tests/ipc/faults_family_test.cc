// A system call is refused not to who starts a process, but to the one that is
// started, before and while it takes over, to a forkserver, and to a Pool's
// nursery: who waits gets a typed error, or what it waits for; and the next
// time it works.

#include <cstddef>
#include <functional>
#include <new>
#include <system_error>

#include "shoal/ipc/errors.h"
#include "shoal/ipc/process.h"
#include "shoal/pool/pool.h"
#include "tests/ipc/faults_scene.h"
#include "tests/ipc/process_scene.h"
#include "tests/support/child.h"
#include "tests/support/family.h"

namespace {

using shoal::Process;
using shoal::ProcessOptions;
using shoal::StartMethod;
using shoal::support::error_name;
using shoal::support::kPatience;
using shoal::support::refuse_in_family;
using shoal::support::require;

void leave() { _exit(7); }

// A child that was refused something after start() has an exit code that says
// so; what it did not do is not taken for done.
void start(StartMethod method, bool may_fail) {
  Process process(ProcessOptions{.start_method = method}, &leave);
  process.start();
  require(process.join(kPatience), "not joined");
  require(may_fail ? process.exitcode() != 0 : process.exitcode() == 7,
          "another exit code");
}

int twice(int n) { return 2 * n; }

void use_pool() {
  shoal::Pool pool(1);
  require(pool.apply(&twice, 3) == 6, "another result");
}

class FaultsFamily : public testing::TestWithParam<int> {
 protected:
  // Refuses each call of members 1 to `last`.
  static void expect_typed(std::size_t last,
                           const std::function<void(bool)>& operation) {
    for (std::size_t member = 1; member <= last; ++member) {
      std::size_t k = 0;
      for (;; ++k) {
        const auto end =
            refuse_in_family(member, k, GetParam(), [&](auto& enough) {
              try {
                operation(true);
              } catch (const shoal::Error&) {
              } catch (const std::system_error&) {
              } catch (const std::bad_alloc&) {
              }
              enough = true;
              operation(false);
            });
        EXPECT_TRUE(end.all_ended) << "member " << member << ", call " << k;
        EXPECT_EQ(end.status, 0) << "member " << member << ", call " << k;
        if (!end.refused || HasFailure()) break;
      }
      EXPECT_GE(k, 1u) << "member " << member << " made no call";
      if (HasFailure()) break;
    }
  }
};

TEST_P(FaultsFamily, Forked) {
  expect_typed(1, [](bool may_fail) { start(StartMethod::fork, may_fail); });
}
TEST_P(FaultsFamily, Spawned) {
  expect_typed(1, [](bool may_fail) { start(StartMethod::spawn, may_fail); });
}
// The one that forks the server, the server, the child.
TEST_P(FaultsFamily, Served) {
  expect_typed(3,
               [](bool may_fail) { start(StartMethod::forkserver, may_fail); });
}
// The nursery and a worker.
TEST_P(FaultsFamily, Pool) {
  expect_typed(2, [](bool) { use_pool(); });
}

INSTANTIATE_TEST_SUITE_P(Errors, FaultsFamily, testing::Values(ENOMEM, EMFILE),
                         error_name);

}  // namespace
