// SIGKILL before every system call of each process that has to do with a start
// by spawn or by the forkserver: nobody hangs, nobody is left, nothing stays,
// and what is reported is what was.

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>

#include "gtest/gtest.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/forkserver.h"
#include "shoal/ipc/process.h"
#include "tests/ipc/process_scene.h"
#include "tests/support/child.h"
#include "tests/support/family.h"
#include "tests/support/residue.h"

namespace shoal {
namespace {

using support::FamilyEnd;
using support::kill_in_family;
using support::Shared;
using support::sleep_for_ever;

// Numbers of processes, see family.h.
constexpr std::size_t kStarter = 0;
constexpr std::size_t kSpawned = 1;
constexpr std::size_t kServersParent = 1;
constexpr std::size_t kServer = 2;
constexpr std::size_t kServed = 3;

void leave(int code) { exit(code); }

void expect(bool holds, const std::string& what) {
  if (!holds) throw std::runtime_error(what);
}

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

struct Sweep {
  std::string outcomes;  // of neighbours that are alike only one
  std::size_t kills = 0;
};

// One after the other; where the next begins is not the same in every round,
// since how often a process has to wait is not.
void expect_phases(const Sweep& sweep, const std::string& phases) {
  EXPECT_EQ(std::set<char>(sweep.outcomes.begin(), sweep.outcomes.end()),
            std::set<char>(phases.begin(), phases.end()))
      << sweep.outcomes;
  EXPECT_EQ(sweep.outcomes.front(), phases.front());
  EXPECT_EQ(sweep.outcomes.back(), phases.back());
  EXPECT_GT(sweep.kills, 20u) << "the process was not traced";
}

// Kills `member` before each of its calls, as long as it makes so many.
// `body` writes an outcome. Expects the starter's end.
Sweep sweep(std::size_t member, int status,
            const std::function<void(char& outcome)>& body) {
  Sweep sweep;
  for (std::size_t k = 0;; ++k) {
    const Shared<char> outcome('?');
    const FamilyEnd end = kill_in_family(member, k, [&] { body(*outcome); });
    const std::string where = "before call " + std::to_string(k);
    EXPECT_TRUE(end.all_ended) << where << ": hangs, or is left";
    EXPECT_EQ(end.status, end.killed ? status : 0) << where;
    if (testing::Test::HasFailure()) break;
    if (sweep.outcomes.empty() || sweep.outcomes.back() != *outcome)
      sweep.outcomes += *outcome;
    if (!end.killed) break;
    ++sweep.kills;
  }
  printf("[  KILLS   ] %zu, %s\n", sweep.kills, sweep.outcomes.c_str());
  return sweep;
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
