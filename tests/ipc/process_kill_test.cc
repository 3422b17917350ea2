// SIGKILL before every system call of each process that has to do with a start
// by spawn or by the forkserver: nobody hangs, nobody is left, nothing stays,
// and what is reported is what was.

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <optional>
#include <set>
#include <string>

#include "gtest/gtest.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/forkserver.h"
#include "shoal/ipc/process.h"
#include "tests/ipc/process_scene.h"
#include "tests/support/process_sweep.h"
#include "tests/support/residue.h"

namespace shoal {
namespace {

using support::expect;
using support::expect_phases;
using support::sleep_for_ever;
using support::Sweep;
using support::sweep;

// Numbers of processes, see family.h.
constexpr std::size_t kStarter = 0;
constexpr std::size_t kSpawned = 1;
constexpr std::size_t kServersParent = 1;
constexpr std::size_t kServer = 2;
constexpr std::size_t kServed = 3;

void leave(int code) { exit(code); }

// 'D' it died before it began, 'K' it was killed, 'F' it was not.
char start_and_join(StartMethod method) {
  Process process({.start_method = method}, leave, 3);
  try {
    process.start();
  } catch (const WorkerDied& error) {
    expect(error.exitcode() == -SIGKILL || error.exitcode() == 1,
           "an end of its own: " + std::string(error.what()));
    expect(!process.is_alive() && process.pid() == 0, "it is nobody");
    return 'D';
  }
  expect(process.join(), "joined");
  const auto code = process.exitcode();
  expect(code == 3 || code == -SIGKILL,
         "exit code " + std::to_string(code.value_or(-1)));
  return code == 3 ? 'F' : 'K';
}

// The killed one is not the starter: it goes on as if nothing had been.
void check_rest(StartMethod method, const std::set<std::string>& before) {
  expect(start_and_join(method) == 'F', "the next one");
  expect(active_children().empty(), "active children");
  forkserver::stop();
  for (const std::string& item : support::residue())
    expect(before.contains(item), "left behind: " + item);
  expect(waitpid(-1, nullptr, WNOHANG) < 0 && errno == ECHILD, "a child left");
}

TEST(ProcessKill, ASpawnedChild) {
  const Sweep all = sweep(kSpawned, 0, [](char& outcome) {
    const auto before = support::residue();
    outcome = start_and_join(StartMethod::spawn);
    check_rest(StartMethod::spawn, before);
  });
  expect_phases(all, "DKF");
}

// Until it has started them; the daemon ends by that.
TEST(ProcessKill, WhoSpawns) {
  const Sweep all = sweep(kStarter, -SIGKILL, [](char& outcome) {
    outcome = 'S';
    Process daemon({.daemon = true, .start_method = StartMethod::spawn},
                   sleep_for_ever);
    daemon.start();
    outcome = 'D';
    Process other({.start_method = StartMethod::spawn}, leave, 3);
    other.start();
    outcome = 'O';
    expect(other.join() && other.exitcode() == 3, "the other");
  });
  expect_phases(all, "SDO");
}

TEST(ProcessKill, AForkserversChild) {
  const Sweep all = sweep(kServed, 0, [](char& outcome) {
    const auto before = support::residue();
    outcome = start_and_join(StartMethod::forkserver);
    check_rest(StartMethod::forkserver, before);
  });
  expect_phases(all, "DKF");
}

// Wherever it dies, both processes start, and end as they do.
TEST(ProcessKill, AForkserver) {
  const Sweep all = sweep(kServer, 0, [](char& outcome) {
    const auto before = support::residue();
    outcome = start_and_join(StartMethod::forkserver);
    check_rest(StartMethod::forkserver, before);
  });
  expect_phases(all, "F");
}

TEST(ProcessKill, WhoForksTheForkserver) {
  const Sweep all = sweep(kServersParent, 0, [](char& outcome) {
    const auto before = support::residue();
    outcome = start_and_join(StartMethod::forkserver);
    check_rest(StartMethod::forkserver, before);
  });
  expect_phases(all, "DF");
}

TEST(ProcessKill, WhoHasAForkserver) {
  const Sweep all = sweep(kStarter, -SIGKILL, [](char& outcome) {
    outcome = 'S';
    Process daemon({.daemon = true, .start_method = StartMethod::forkserver},
                   sleep_for_ever);
    daemon.start();
    outcome = 'D';
    Process other({.start_method = StartMethod::forkserver}, leave, 3);
    other.start();
    outcome = 'O';
    expect(other.join() && other.exitcode() == 3, "the other");
    forkserver::stop();
  });
  expect_phases(all, "SDO");
}

}  // namespace
}  // namespace shoal
