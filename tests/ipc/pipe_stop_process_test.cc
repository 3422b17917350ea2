// SIGSTOP at random to one side of a Pipe, and to servers and clients of a
// Listener: the other side waits no longer than it wants to, and all is said
// once and in order.

#include <signal.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/listener.h"
#include "shoal/ipc/pipe.h"
#include "tests/support/child.h"
#include "tests/support/residue.h"
#include "tests/support/step.h"
#include "tests/support/stopper.h"

namespace {

using shoal::Connection;
using shoal::Listener;
using shoal::TimeoutError;
using shoal::support::Child;
using shoal::support::eventually;
using shoal::support::is_stopped;
using shoal::support::kPatience;
using shoal::support::Shared;
using shoal::support::stop_at_random;
using shoal::support::unique_name;
using namespace std::chrono_literals;

// Until it does not time out: nothing has happened then.
template <class F>
auto insist(const F& call) {
  for (;;) try {
      return call();
    } catch (const TimeoutError&) {
    }
}

// Small, aside, and longer than the ring.
std::vector<std::uint32_t> message(std::uint32_t number) {
  const std::size_t sizes[] = {2, 500, 40, 70000};
  return std::vector<std::uint32_t>(sizes[number % 4], number);
}

TEST(PipeStop, AStoppedPeerSaysAllOnceAndInOrder) {
  auto ends = shoal::Pipe({.capacity = 4096});
  shoal::Connection& mine = ends.first;
  shoal::Connection& theirs = ends.second;
  Child peer([&](Child&) {
    for (;;) {
      auto got = theirs.recv<std::vector<std::uint32_t>>();
      theirs.send(got);
      if (got.empty()) return;
    }
  });
  std::uint32_t sent = 0;
  std::uint32_t received = 0;
  const auto receive = [&] {
    const auto got =
        insist([&] { return mine.recv<std::vector<std::uint32_t>>(1ms); });
    ASSERT_EQ(got, message(received));
    ++received;
  };
  EXPECT_TRUE(stop_at_random({peer.pid()}, [&] {
    // Both sides at once would wait for each other's long ones.
    insist([&] { mine.send(message(sent), 1ms); });
    ++sent;
    if (sent % 4 == 0 || sent - received > 2)
      while (received != sent) receive();
  }));
  while (received != sent) receive();
  EXPECT_GT(sent, 50u);
  mine.send(std::vector<std::uint32_t>());
  EXPECT_TRUE(mine.recv<std::vector<std::uint32_t>>(kPatience).empty());
  EXPECT_EQ(peer.join(), 0) << peer.failures();
  EXPECT_THROW(mine.recv<int>(kPatience), shoal::EndOfFile);
}

// Once a second who waits asks /proc for the peer.
TEST(PipeStop, LongerThanTheLookForThePeer) {
  auto [mine, theirs] = shoal::Pipe({.capacity = 4096});
  Child peer([&theirs = theirs](Child&) {
    for (int i = 0; i < 2; ++i) theirs.send(theirs.recv<int>());
  });
  mine.send(1);
  ASSERT_EQ(mine.recv<int>(kPatience), 1);
  peer.kill(SIGSTOP);
  ASSERT_TRUE(eventually([&] { return is_stopped(peer.pid()); }));
  EXPECT_THROW(mine.recv<int>(1500ms), TimeoutError);
  mine.send(2);
  peer.kill(SIGCONT);
  EXPECT_EQ(mine.recv<int>(kPatience), 2);
  EXPECT_EQ(peer.join(), 0) << peer.failures();
}

// One question and one answer.
void ask(Connection& server, int number) {
  server.send(number, kPatience);
  if (server.recv<int>(kPatience) != number + 1)
    throw shoal::Error("a wrong answer");
}

TEST(ListenerStop, StoppedServersAndClientsAreConnectedOnce) {
  const std::string name = unique_name("listener");
  Shared<std::atomic<int>> asked;
  Shared<std::atomic<int>> answered;
  Shared<std::atomic<int>> accepted;
  Shared<std::atomic<bool>> end;
  Child server([&](Child&) {
    Listener listener(name);
    std::vector<Connection> clients;
    while (!*end) {
      std::erase_if(clients, [&](Connection& client) {
        if (!client.poll()) return false;
        try {
          client.send(client.recv<int>() + 1);
          ++*answered;
          return false;
        } catch (const shoal::PeerDied&) {
          throw;  // nobody has
        } catch (const shoal::EndOfFile&) {
          return true;
        }
      });
      try {
        clients.push_back(listener.accept(1ms));
        ++*accepted;
      } catch (const TimeoutError&) {
      }
    }
  });
  Child client([&](Child&) {
    for (int n = 0; !*end; ++n) {
      Connection connection = shoal::connect(name, kPatience);
      ask(connection, n);
      ++*asked;
    }
  });
  EXPECT_TRUE(stop_at_random({server.pid(), client.pid()}, [&] {
    Connection connection = insist([&] { return shoal::connect(name, 50ms); });
    ask(connection, 7);
    ++*asked;
  }));
  Connection last = shoal::connect(name, kPatience);
  ask(last, 1);
  EXPECT_GT(*asked, 20);
  *end = true;
  EXPECT_EQ(server.join(), 0) << server.failures();
  EXPECT_GE(*answered, *asked);
}

}  // namespace
