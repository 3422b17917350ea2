#pragma once
// sweep: kills one process of a family before each of its system calls.
//
//   const Sweep all = sweep(1, 0, [](char& outcome) {   // the first child
//     outcome = start_and_join();
//   });
//   expect_phases(all, "DKF");

#include <stdio.h>

#include <functional>
#include <set>
#include <stdexcept>
#include <string>

#include "gtest/gtest.h"
#include "tests/support/child.h"
#include "tests/support/family.h"

namespace shoal::support {

// In a member of the family.
inline void expect(bool holds, const std::string& what) {
  if (!holds) throw std::runtime_error(what);
}

struct Sweep {
  std::string outcomes;  // of neighbours that are alike only one
  std::size_t kills = 0;
};

// One after the other; where the next begins is not the same in every round,
// since how often a process has to wait is not.
inline void expect_phases(const Sweep& sweep, const std::string& phases) {
  EXPECT_EQ(std::set<char>(sweep.outcomes.begin(), sweep.outcomes.end()),
            std::set<char>(phases.begin(), phases.end()))
      << sweep.outcomes;
  EXPECT_EQ(sweep.outcomes.front(), phases.front());
  EXPECT_EQ(sweep.outcomes.back(), phases.back());
  EXPECT_GT(sweep.kills, 20u) << "the process was not traced";
}

// Kills `member` before each of its calls, as long as it makes so many.
// `body` writes an outcome. Expects the starter's end.
inline Sweep sweep(std::size_t member, int status,
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

}  // namespace shoal::support
