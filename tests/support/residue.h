#pragma once
// What a test program must not leave behind: named objects, open descriptors,
// child processes. Every test program is linked with tests/support/main.cc,
// which compares the end with the start and fails the program, also one that
// has failed already.
//
//   auto orders = shoal::Queue<Order>::create(support::unique_name("orders"));

#include <set>
#include <string>
#include <string_view>

#include "gtest/gtest.h"

namespace shoal::support {

// A name for a named object that no other test program uses. Test programs run
// side by side over one /dev/shm, and in a sandbox each has the same pids; so
// it holds a number drawn once a program, which forked children inherit.
std::string unique_name(std::string_view what);

// One line for each thing that this program has now: objects by unique_name()
// in /dev/shm, descriptors of this process, its children (zombies too).
std::set<std::string> residue();

// These, and one line for each mapping of a shared object in this process.
std::multiset<std::string> belongings();
// The same without numbers, which differ where the things do not.
std::multiset<std::string> kinds_of_belongings();

class ResidueCheck : public testing::Environment {
 public:
  void SetUp() override;
  void TearDown() override;

 private:
  std::set<std::string> before_;
};

}  // namespace shoal::support
