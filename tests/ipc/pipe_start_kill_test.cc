// SIGKILL before every system call of a child that is given an end of a Pipe,
// by each start method, up to what it sends first and its end: the other end
// gets what was sent, and then learns that nobody is there.

#include <set>
#include <string>
#include <utility>

#include "gtest/gtest.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/forkserver.h"
#include "shoal/ipc/pipe.h"
#include "shoal/ipc/process.h"
#include "tests/ipc/process_scene.h"
#include "tests/support/process_sweep.h"
#include "tests/support/residue.h"

namespace shoal {
namespace {

using support::expect;
using support::kPatience;
using support::Sweep;
using support::sweep;

void greet(Connection end) { end.send(7); }

// 'G' greeted; 'N' not.
char greeted(StartMethod method) {
  auto [mine, theirs] = Pipe();
  char outcome = 'N';
  {
    Process process({.start_method = method}, greet, std::move(theirs));
    bool began = true;
    try {
      process.start();
    } catch (const WorkerDied&) {
      // Its end went with the child, or goes with `process`.
      began = false;
    }
    if (began) {
      try {
        expect(mine.recv<int>(kPatience) == 7, "phantom");
        outcome = 'G';
        mine.recv<int>(kPatience);
        expect(false, "a second one");
      } catch (const EndOfFile&) {
      }
      process.join();
    }
  }
  try {
    mine.recv<int>(kPatience);
    expect(false, "a message of nobody");
  } catch (const EndOfFile&) {
  }
  return outcome;
}

class PipeStartKill : public testing::TestWithParam<StartMethod> {};

TEST_P(PipeStartKill, TheChild) {
  const std::size_t child = GetParam() == StartMethod::forkserver ? 3 : 1;
  const Sweep all = sweep(child, 0, [](char& outcome) {
    const auto before = support::residue();
    outcome = greeted(GetParam());
    expect(greeted(GetParam()) == 'G', "the next one");
    forkserver::stop();
    for (const std::string& item : support::residue())
      expect(before.contains(item), "left behind: " + item);
  });
  support::expect_phases(all, "NG");
}

INSTANTIATE_TEST_SUITE_P(, PipeStartKill,
                         testing::Values(StartMethod::fork, StartMethod::spawn,
                                         StartMethod::forkserver),
                         testing::PrintToStringParamName());

}  // namespace
}  // namespace shoal
