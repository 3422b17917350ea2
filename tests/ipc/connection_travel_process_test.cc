// Connections inside messages: through Connections, Queues and Processes; what
// the other end sees meanwhile.

#include <signal.h>
#include <unistd.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/forkserver.h"
#include "shoal/ipc/pipe.h"
#include "shoal/ipc/process.h"
#include "shoal/ipc/queue.h"
#include "tests/support/child.h"

namespace {

using shoal::Connection;
using shoal::now;
using shoal::Pipe;
using shoal::Process;
using shoal::Queue;
using shoal::StartMethod;
using shoal::support::Child;
using shoal::support::kPatience;

struct Call {
  std::string text;
  Connection answer_to;
};

TEST(ConnectionTravel, ThroughAConnectionToAnOlderChild) {
  auto [here, there] = Pipe();
  Process child([there = std::move(there)]() mutable {
    auto call = there.recv<Call>();
    call.answer_to.send(call.text + "!");
  });
  child.start();
  auto [mine, theirs] = Pipe();
  here.send(Call{"hello", std::move(theirs)});
  EXPECT_EQ(mine.recv<std::string>(kPatience), "hello!");
  EXPECT_TRUE(child.join(kPatience));
  EXPECT_EQ(child.exitcode(), 0);
  EXPECT_THROW(mine.recv<int>(kPatience), shoal::EndOfFile);
}

TEST(ConnectionTravel, LeavesNoneBehind) {
  Queue<Connection> queue(2);
  auto [a, b] = Pipe();
  a.send(1);
  queue.put(std::move(b));
  EXPECT_TRUE(b.closed());
  EXPECT_THROW(b.send(1), shoal::Closed);
  a.send(2);  // it is on its way, not closed
  Connection again = queue.get();
  EXPECT_EQ(again.recv<int>(kPatience), 1);
  EXPECT_EQ(again.recv<int>(kPatience), 2);
  again.send(3);
  EXPECT_EQ(a.recv<int>(kPatience), 3);
}

TEST(ConnectionTravel, IsTakenBackWhenItIsNotSent) {
  Queue<Connection> full(1);
  auto [x, y] = Pipe();
  full.put(std::move(y));
  auto [a, b] = Pipe();
  EXPECT_FALSE(full.try_put(std::move(b)));
  EXPECT_FALSE(b.closed());
  b.send(5);
  EXPECT_EQ(a.recv<int>(kPatience), 5);
}

TEST(ConnectionTravel, ItsSenderMayEnd) {
  Queue<Connection> queue(2);
  Child sender([&](Child&) {
    auto [a, b] = Pipe();
    a.send(std::string("left behind"));
    queue.put(std::move(b));
    queue.put(std::move(a));
  });
  ASSERT_EQ(sender.join(), 0) << sender.failures();
  Connection b = queue.get(kPatience);
  EXPECT_EQ(b.recv<std::string>(kPatience), "left behind");
  b.send(1);
  Connection a = queue.get(kPatience);
  EXPECT_EQ(a.recv<int>(kPatience), 1);
}

TEST(ConnectionTravel, ItsReceiverIsKilled) {
  Queue<Connection> queue(2);
  auto [a, b] = Pipe();
  Child receiver([&](Child&) {
    Connection got = queue.get();
    got.send(1);
    for (;;) pause();
  });
  queue.put(std::move(b));
  EXPECT_EQ(a.recv<int>(kPatience), 1);
  receiver.kill();
  EXPECT_THROW(a.recv<int>(kPatience), shoal::PeerDied);
  EXPECT_EQ(receiver.join(), -SIGKILL);
}

TEST(ConnectionTravel, AMessageThatNobodyReceivesClosesIt) {
  auto [a, b] = Pipe();
  {
    Queue<Connection> queue(2);
    queue.put(std::move(b));
  }
  EXPECT_THROW(a.recv<int>(kPatience), shoal::EndOfFile);
}

void echo(Connection connection) {
  connection.send(connection.recv<int>() + 1);
}

class ConnectionArgument : public testing::TestWithParam<StartMethod> {
 protected:
  static void TearDownTestSuite() { shoal::forkserver::stop(); }
};

TEST_P(ConnectionArgument, IsTheChilds) {
  auto [a, b] = Pipe();
  Process child(
      shoal::ProcessOptions{
          .name = {}, .daemon = {}, .start_method = GetParam()},
      &echo, std::move(b));
  child.start();
  a.send(41);
  EXPECT_EQ(a.recv<int>(kPatience), 42);
  EXPECT_TRUE(child.join(kPatience));
  EXPECT_EQ(child.exitcode(), 0);
  EXPECT_THROW(a.recv<int>(kPatience), shoal::EndOfFile);
}

INSTANTIATE_TEST_SUITE_P(Methods, ConnectionArgument,
                         testing::Values(StartMethod::fork, StartMethod::spawn,
                                         StartMethod::forkserver));

}  // namespace
