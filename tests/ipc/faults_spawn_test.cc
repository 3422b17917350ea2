// Processes by spawn and by forkserver whose starter is refused a system call,
// with the server there and without.

#include <string>

#include "shoal/ipc/forkserver.h"
#include "shoal/ipc/process.h"
#include "tests/ipc/faults_scene.h"

namespace {

using shoal::Process;
using shoal::ProcessOptions;
using shoal::StartMethod;
using shoal::support::error_name;
using shoal::support::Faults;
using shoal::support::kErrors;
using shoal::support::require;

int length_of(const std::string& text) { return static_cast<int>(text.size()); }
void leave_with_length(std::string text) { _exit(length_of(text)); }

void run(StartMethod method) {
  Process process(ProcessOptions{.start_method = method}, &leave_with_length,
                  "seven..");
  process.start();
  require(process.join(), "not joined");
  require(process.exitcode() == 7, "another exit code");
}

TEST_P(Faults, Spawn) {
  expect_typed([] { run(StartMethod::spawn); }, 5);
}

TEST_P(Faults, ForkserverFirst) {
  expect_typed([] { run(StartMethod::forkserver); }, 10);
}

TEST_P(Faults, ForkserverThatIsThere) {
  expect_typed([] { run(StartMethod::forkserver); }, 5,
               [] { run(StartMethod::forkserver); });
}

INSTANTIATE_TEST_SUITE_P(Errors, Faults, kErrors, error_name);

}  // namespace
