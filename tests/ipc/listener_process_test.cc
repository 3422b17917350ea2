// Listener and connect(): several clients, servers that die and come back.

#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include "gtest/gtest.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/event.h"
#include "shoal/ipc/listener.h"
#include "shoal/ipc/pidfd.h"
#include "shoal/ipc/queue.h"
#include "shoal/ipc/wait.h"
#include "tests/support/child.h"
#include "tests/support/reexec.h"
#include "tests/support/residue.h"
#include "tests/support/thread.h"

namespace {

using shoal::Connection;
using shoal::Listener;
using shoal::now;
using shoal::support::Child;
using shoal::support::kPatience;
using shoal::support::Thread;
using shoal::support::unique_name;
using namespace std::chrono_literals;

TEST(DISABLED_Client, Asks) {
  Connection server = shoal::connect(shoal::support::given("LISTENER"), 10s);
  server.send(std::string("question"));
  EXPECT_EQ(server.recv<std::string>(10s), "question, answered");
}

TEST(Listener, StrangersSeveralAtOnce) {
  const std::string name = unique_name("listener");
  std::vector<std::unique_ptr<Child>> clients;
  for (int n = 0; n < 3; ++n)
    clients.push_back(std::make_unique<Child>([&](Child&) {
      shoal::support::exec_tests("DISABLED_Client.Asks", {"LISTENER=" + name});
    }));
  Listener listener(name);
  std::vector<Connection> connections;
  for (int n = 0; n < 3; ++n) connections.push_back(listener.accept(kPatience));
  for (Connection& connection : connections)
    connection.send(connection.recv<std::string>(kPatience) + ", answered");
  for (auto& client : clients) EXPECT_EQ(client->join(), 0);
}

TEST(Listener, OneAName) {
  const std::string name = unique_name("listener");
  {
    const Listener first(name);
    EXPECT_THROW(Listener second(name), std::system_error);
  }
  const Listener again(name);
  EXPECT_THROW(Listener("a/b"), std::invalid_argument);
  EXPECT_THROW(Listener(std::string(201, 'a')), std::invalid_argument);
  const Listener longest(std::string(200, 'a'));
  const Listener other(std::string(199, 'a'));
}

TEST(Listener, TimeOuts) {
  const std::string name = unique_name("listener");
  EXPECT_THROW(shoal::connect(name, 5ms), shoal::TimeoutError);
  EXPECT_THROW(shoal::connect(name, now), shoal::TimeoutError);
  Listener listener(name);
  EXPECT_THROW(listener.accept(now), shoal::TimeoutError);
  EXPECT_THROW(listener.accept(5ms), shoal::TimeoutError);
  EXPECT_THROW(shoal::connect(name, 20ms), shoal::TimeoutError)
      << "nobody accepts";
  EXPECT_THROW(listener.accept(20ms), shoal::TimeoutError) << "it has gone";
}

TEST(Listener, IsWaitedFor) {
  const std::string name = unique_name("listener");
  Listener listener(name);
  EXPECT_TRUE(shoal::wait({listener}, now).empty());
  Thread client([&] {
    Connection server = shoal::connect(name, kPatience);
    EXPECT_EQ(server.recv<int>(kPatience), 7);
  });
  EXPECT_EQ(shoal::wait({listener}, kPatience), std::vector<std::size_t>{0});
  Connection connection = listener.accept(kPatience);
  connection.send(7);
  EXPECT_TRUE(client.ends());
}

// accept(now) has offered an end, and its client has not said that it has it.
TEST(Listener, IsWaitedForInSteps) {
  const std::string name = unique_name("listener");
  Listener listener(name);
  for (int n = 0; n < 20; ++n) {
    Thread client([&] {
      EXPECT_EQ(shoal::connect(name, kPatience).recv<int>(kPatience), n);
    });
    std::optional<Connection> connection;
    while (!connection) {
      ASSERT_FALSE(shoal::wait({listener}, kPatience).empty()) << n;
      try {
        connection = listener.accept(now);
      } catch (const shoal::TimeoutError&) {
      }
    }
    connection->send(n);
    EXPECT_TRUE(client.ends());
  }
}

TEST(Listener, AServerThatIsKilledAndStartedAgainIsFoundAgain) {
  const std::string name = unique_name("listener");
  const auto serve = [&](Child&) {
    Listener listener(name);
    for (int n = 0;; ++n) {
      Connection client = listener.accept();
      client.send(n);
      client.recv<int>();
    }
  };
  std::optional<Child> server(std::in_place, serve);
  Connection first = shoal::connect(name, kPatience);
  EXPECT_EQ(first.recv<int>(kPatience), 0);
  server->kill();
  EXPECT_THROW(first.recv<int>(kPatience), shoal::PeerDied);
  EXPECT_EQ(server->join(), -SIGKILL);
  Thread waiting([&] {
    Connection second = shoal::connect(name, kPatience);
    EXPECT_EQ(second.recv<int>(kPatience), 0);
  });
  server.emplace(serve);
  EXPECT_TRUE(waiting.ends());
  server->kill();
}

TEST(Listener, ForkedChildrenHaveNoneOfIt) {
  const std::string name = unique_name("listener");
  shoal::Queue<int> orphans(1);
  shoal::Event end;
  std::optional<Child> server(std::in_place, [&](Child&) {
    Listener listener(name);
    const Child orphan([&](Child& self) {
      const auto is_refused = [&](auto call) {
        try {
          call();
          self.expect(false, "an inherited Listener works");
        } catch (const std::logic_error&) {
        }
      };
      is_refused([&] { listener.accept(now); });
      is_refused([&] { shoal::wait({listener}, now); });
      orphans.put(getpid());
      end.wait();
    });
    listener.accept();
  });
  const auto orphan = shoal::Pidfd::open(orphans.get(kPatience));
  server->kill();
  EXPECT_EQ(server->join(), -SIGKILL);
  // While the orphan lives.
  EXPECT_FALSE(orphan.wait(now));
  EXPECT_THROW(shoal::connect(name, 20ms), shoal::TimeoutError);
  Listener listener(name);
  Thread client([&] { shoal::connect(name, kPatience).send(7); });
  EXPECT_EQ(listener.accept(kPatience).recv<int>(kPatience), 7);
  EXPECT_TRUE(client.ends());
  end.set();
  EXPECT_TRUE(orphan.wait(kPatience));
}

TEST(Listener, AClientThatIsKilledOrStoppedDelaysNobody) {
  const std::string name = unique_name("listener");
  Child stopped([&](Child&) { shoal::connect(name); });
  stopped.kill(SIGSTOP);
  Child killed([&](Child&) { shoal::connect(name); });
  killed.kill();
  Listener listener(name);
  Child good([&](Child& self) {
    Connection server = shoal::connect(name, kPatience);
    self.expect(server.recv<int>(kPatience) == 7, "greeted");
  });
  Connection client = listener.accept(kPatience);
  client.send(7);
  EXPECT_EQ(good.join(), 0) << good.failures();
  EXPECT_THROW(listener.accept(5ms), shoal::TimeoutError);
  stopped.kill(SIGCONT);
  Connection late = listener.accept(kPatience);
  EXPECT_EQ(stopped.join(), 0);
}

}  // namespace
