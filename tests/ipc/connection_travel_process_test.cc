// Connections inside messages: through Connections, Queues and Processes; what
// the other end sees meanwhile.

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/fd.h"
#include "shoal/ipc/forkserver.h"
#include "shoal/ipc/pipe.h"
#include "shoal/ipc/process.h"
#include "shoal/ipc/queue.h"
#include "tests/support/child.h"
#include "tests/support/step.h"
#include "tests/support/thread.h"

namespace {

using shoal::Connection;
using shoal::now;
using shoal::Pipe;
using shoal::Process;
using shoal::Queue;
using shoal::StartMethod;
using shoal::support::Child;
using shoal::support::eventually;
using shoal::support::kPatience;
using shoal::support::Shared;
using shoal::support::Thread;

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

// The queue is there all the while, and others put into it.
class DiscardedByShutdown : public testing::TestWithParam<std::size_t> {};

TEST_P(DiscardedByShutdown, ClosesTheEnd) {
  Queue<Connection> queue(GetParam());
  auto [a, b] = Pipe();
  auto [c, d] = Pipe();
  queue.put(std::move(b));
  queue.put(std::move(d));
  Connection first = queue.get(kPatience);
  queue.shutdown(true);
  EXPECT_THROW(c.recv<int>(kPatience), shoal::EndOfFile);
  EXPECT_THROW(c.send(1), shoal::BrokenPipe);
  first.send(2);  // that was taken before
  EXPECT_EQ(a.recv<int>(kPatience), 2);
}

TEST_P(DiscardedByShutdown, NotOfOneThatIsDrained) {
  Queue<Connection> queue(GetParam());
  auto [a, b] = Pipe();
  auto [x, y] = Pipe();
  queue.put(std::move(b));
  queue.put(std::move(y));
  queue.shutdown();
  // The keeper has looked twice by the time that it has dropped this one.
  Queue<Connection> other(2);
  auto [c, d] = Pipe();
  other.put(std::move(d));
  other.shutdown(true);
  EXPECT_THROW(c.recv<int>(kPatience), shoal::EndOfFile);
  queue.get(kPatience).send(3);
  EXPECT_EQ(a.recv<int>(kPatience), 3);
  queue.get(kPatience).send(4);
  EXPECT_EQ(x.recv<int>(kPatience), 4);
}

INSTANTIATE_TEST_SUITE_P(Sizes, DiscardedByShutdown,
                         testing::Values<std::size_t>(2, 0),
                         [](const auto& size) {
                           return size.param == 0 ? "growing" : "bounded";
                         });

// In a Pipe, of whose other end that depends.
class ConnectionInAPipe : public testing::Test {
 protected:
  void send() { carrier_.first.send(std::move(travels_.first)); }
  // The carrier's sending end lives all the while.
  void expect_closed() {
    EXPECT_THROW(travels_.second.recv<int>(kPatience), shoal::EndOfFile);
    EXPECT_THROW(travels_.second.send(1), shoal::BrokenPipe);
  }
  std::pair<Connection, Connection> carrier_ = Pipe();
  std::pair<Connection, Connection> travels_ = Pipe();
};

TEST_F(ConnectionInAPipe, WhoseReceiverIsClosed) {
  send();
  carrier_.second.close();
  expect_closed();
}

TEST_F(ConnectionInAPipe, WhoseReceiverIsKilled) {
  Shared<std::atomic<bool>> has;
  Process receiver(
      [&has](Connection carrier) {
        (void)carrier.poll();
        *has = true;
        for (;;) pause();
      },
      std::move(carrier_.second));
  receiver.start();
  ASSERT_TRUE(eventually([&] { return has->load(); }));
  send();
  Thread waiter([&] { expect_closed(); });
  ASSERT_TRUE(waiter.falls_asleep());
  receiver.kill();
  receiver.join();
  ASSERT_TRUE(waiter.ends());
}

// A child that was forked meanwhile, and has mere copies, keeps nothing open.
TEST_F(ConnectionInAPipe, TakenAsBytes) {
  send();
  EXPECT_FALSE(carrier_.second.recv_bytes().empty());
  expect_closed();
}

TEST_F(ConnectionInAPipe, TakenAsBytesIntoABuffer) {
  send();
  std::vector<std::byte> buffer(4096);
  EXPECT_NE(carrier_.second.recv_bytes_into(buffer), 0u);
  expect_closed();
}

TEST_F(ConnectionInAPipe, TakenAsBytesThatDoNotFit) {
  send();
  std::byte buffer[1];
  EXPECT_THROW(carrier_.second.recv_bytes_into(buffer), shoal::BufferTooShort);
  expect_closed();
}

TEST_F(ConnectionInAPipe, SeenAndLeft) {
  send();
  { const auto view = carrier_.second.peek(); }
  expect_closed();
}

// What comes behind it is not taken for it.
TEST_F(ConnectionInAPipe, BehindMereBytes) {
  auto [c, d] = Pipe();
  send();
  carrier_.first.send(std::move(d));
  (void)carrier_.second.recv_bytes();
  expect_closed();
  carrier_.second.recv<Connection>(kPatience).send(7);
  EXPECT_EQ(c.recv<int>(kPatience), 7);
}

TEST_F(ConnectionInAPipe, ADescriptorTakenAsBytesIsClosed) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
  const shoal::Fd reader(ends[0]);
  {
    const shoal::Fd writer(ends[1]);
    carrier_.first.send(writer);
  }
  char byte;
  EXPECT_EQ(read(reader.get(), &byte, 1), -1);  // the keeper has it open
  (void)carrier_.second.recv_bytes();
  EXPECT_TRUE(eventually([&] { return read(reader.get(), &byte, 1) == 0; }));
}

TEST_F(ConnectionInAPipe, OfWhichABystanderHasCopies) {
  send();
  Child bystander([](Child&) {
    for (;;) pause();
  });
  carrier_.second.close();
  carrier_.first.close();
  expect_closed();
  bystander.kill();
  EXPECT_EQ(bystander.join(), -SIGKILL);
}

TEST_F(ConnectionInAPipe, IsReceivedLater) {
  send();
  // Longer than the keeper takes between two looks.
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  Connection got = carrier_.second.recv<Connection>();
  got.send(7);
  EXPECT_EQ(travels_.second.recv<int>(kPatience), 7);
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
