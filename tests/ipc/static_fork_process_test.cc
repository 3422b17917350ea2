// fork() by a static initialiser of the program, before those of shoal that
// wait for none.

#include <chrono>
#include <stdexcept>

#include "gtest/gtest.h"
#include "shoal/ipc/pipe.h"
#include "tests/support/child.h"

namespace {

using shoal::support::Child;
using namespace std::chrono_literals;

struct Outcome {
  bool child_sent = false;
  bool parent_sent = false;
  int received = 0;
};

// Both use the end that this process has used.
Outcome fork_within_a_pipe() {
  Outcome outcome;
  auto [sender, receiver] = shoal::Pipe();
  sender.send(0);
  receiver.recv<int>();
  Child child([&](Child&) { sender.send(1); });
  outcome.child_sent = child.join() == 0;
  try {
    sender.send(2);
    outcome.parent_sent = true;
  } catch (const std::logic_error&) {
  }
  outcome.received = receiver.recv<int>(10s);
  return outcome;
}

const Outcome in_initialiser = fork_within_a_pipe();

TEST(StaticFork, SendsByOneProcessOnly) {
  for (const Outcome& outcome : {in_initialiser, fork_within_a_pipe()}) {
    EXPECT_TRUE(outcome.child_sent);
    EXPECT_FALSE(outcome.parent_sent);
    EXPECT_EQ(outcome.received, 1);
  }
}

}  // namespace
