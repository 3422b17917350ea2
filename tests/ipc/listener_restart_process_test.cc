// Servers that are killed at any moment and start again under one name, two
// that want it at once, and clients that come all the while: each call ends by
// its deadline, with what it is for or an error that says why not, and whoever
// asks on is answered by the next server. And clients that give up: neither
// those after them nor the server wait longer than they said for it.

#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <system_error>

#include "gtest/gtest.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/listener.h"
#include "shoal/ipc/waiting.h"
#include "tests/support/child.h"
#include "tests/support/residue.h"
#include "tests/support/step.h"

namespace {

using namespace shoal::support;
using shoal::Connection;
using shoal::Listener;
using shoal::Timeout;

constexpr int kClients = 3;
constexpr int kServersEver = 256;

enum Phase { kStarting, kAccepting, kTalking };

struct Question {
  int client;
  int number;
};
struct Answer {
  Question question;
  int server;
};

// One line of it for each server, numbered from 1 as they are started.
struct Board {
  struct Server {
    std::atomic<Phase> phase;     // its own
    std::atomic<int> refusals;    // its own; of the name
    std::atomic<bool> condemned;  // by the parent, before it kills it
    std::atomic<bool> halts;      // by the parent; when it has accepted
    std::array<std::atomic<int>, kClients> answers;  // by each client
  };
  std::array<Server, kServersEver> servers;
  std::atomic<int> owner;  // who has had the name last; by servers
  std::atomic<bool> end;   // by the parent
  // By clients: how else their questions ended.
  std::atomic<int> timed_out;
  std::atomic<int> died;
  std::atomic<int> broken;
};

class ListenerRestart : public testing::Test {
 protected:
  class Server;

  ListenerRestart() {
    // What servers and clients might leave behind becomes this process's.
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    shoal::waiting::set_slices(false);
    for (int n = 0; n < kClients; ++n)
      clients_[n] =
          std::make_unique<Child>([this, n](Child& self) { ask_on(self, n); });
  }
  ~ListenerRestart() override {
    shoal::waiting::set_slices(true);
    prctl(PR_SET_CHILD_SUBREAPER, 0);
  }

  // While some server lives.
  void expect_clients_end() {
    board_->end = true;
    for (auto& client : clients_)
      EXPECT_EQ(client->join(), 0) << client->failures();
    RecordProperty("timed_out", board_->timed_out);
    RecordProperty("died", board_->died);
    RecordProperty("broken", board_->broken);
  }

  void expect_nothing_left() {
    clients_ = {};
    // A sanitizer's servers have children for a moment (passed_wake.cc).
    eventually([&] {
      while (waitpid(-1, nullptr, WNOHANG) > 0) {
      }
      return residue() == before_;
    });
    EXPECT_EQ(residue(), before_);
    const Listener free(name_);
  }

  // Of the clients.
  std::string failures() const {
    std::string all;
    for (const auto& client : clients_) all += client->failures();
    return all;
  }
  bool answers_all(int server) const {
    return std::ranges::all_of(board_->servers[server].answers,
                               [](const auto& n) { return n != 0; });
  }
  void expect_name_is_taken() const {
    try {
      const Listener second(name_);
      ADD_FAILURE() << "two Listeners of one name";
    } catch (const std::system_error& error) {
      EXPECT_EQ(error.code(), std::errc::address_in_use) << error.what();
    }
  }
  // A moment that nobody chose.
  void pass_time() {
    eventually([] { return false; },
               std::chrono::microseconds(random_() % 2000));
  }

  const std::set<std::string> before_ = residue();
  const std::string name_ = unique_name("listener");
  Shared<Board> board_;
  int servers_ = 0;
  std::minstd_rand random_{7};

 private:
  void ask_on(Child& self, int client);
  void ask(Child& self, Question question, Timeout timeout);
  void serve(Child& self, int number);

  std::array<std::unique_ptr<Child>, kClients> clients_;
};

// Every fourth question is one of a client that soon gives up.
void ListenerRestart::ask_on(Child& self, int client) {
  std::minstd_rand random(client + 1);
  std::optional<std::multiset<std::string>> belongings;
  for (int number = 0; !board_->end; ++number) {
    const bool patient = number % 4 != 3;
    try {
      ask(self, {client, number},
          patient ? Timeout(kPatience)
                  : Timeout(std::chrono::microseconds(random() % 6000)));
      if (!belongings) belongings = kinds_of_belongings();
    } catch (const shoal::TimeoutError& error) {
      ++board_->timed_out;
      self.expect(!patient, error.what());
    } catch (const shoal::PeerDied&) {
      ++board_->died;
    } catch (const shoal::BrokenPipe&) {
      ++board_->broken;
    }
  }
  self.expect(kinds_of_belongings() == belongings, "keeps what is of the dead");
}

void ListenerRestart::ask(Child& self, Question question, Timeout timeout) {
  Connection server = shoal::connect(name_, timeout);
  server.send(question, timeout);
  const auto answer = server.recv<Answer>(timeout);
  self.expect(answer.question.client == question.client &&
                  answer.question.number == question.number,
              "the answer to another question");
  ++board_->servers[answer.server].answers[question.client];
}

void ListenerRestart::serve(Child& self, int number) {
  Board::Server& mine = board_->servers[number];
  std::optional<Listener> listener;
  while (!listener) {
    try {
      listener.emplace(name_);
    } catch (const std::system_error& error) {
      if (error.code() != std::errc::address_in_use) throw;
      ++mine.refusals;
      yield_cpu();
    }
  }
  const int before = board_->owner.exchange(number);
  self.expect(before == 0 || board_->servers[before].condemned,
              "took the name of a living server");
  for (;;) {
    mine.phase = kAccepting;
    Connection client = listener->accept(kPatience);
    mine.phase = kTalking;
    if (mine.halts) raise(SIGSTOP);
    try {
      const auto question = client.recv<Question>(kPatience);
      client.send(Answer{question, number}, kPatience);
    } catch (const shoal::BrokenPipe&) {
    } catch (const shoal::PeerDied&) {
      self.expect(false, "a client died");
    } catch (const shoal::EndOfFile&) {
    }
  }
}

class ListenerRestart::Server {
 public:
  explicit Server(ListenerRestart& scene)
      : number_(++scene.servers_),
        mine_(scene.board_->servers.at(number_)),
        child_([&](Child& self) { scene.serve(self, number_); }) {}
  ~Server() { kill(); }

  int number() const { return number_; }
  int refusals() const { return mine_.refusals; }
  Phase phase() const { return mine_.phase; }

  // Both: stands still there. False: never comes there.
  bool stop_in_accept() {
    return eventually([&] {
      if (mine_.phase != kAccepting) return false;
      child_.kill(SIGSTOP);
      if (!eventually([&] { return is_stopped(child_.pid()); })) return false;
      if (mine_.phase == kAccepting) return true;
      child_.kill(SIGCONT);
      return false;
    });
  }
  bool stop_before_answer() {
    mine_.halts = true;
    return eventually([&] { return is_stopped(child_.pid()); });
  }
  void kill() {
    if (mine_.condemned.exchange(true)) return;
    child_.kill();
    EXPECT_EQ(child_.join(), -SIGKILL);
    EXPECT_EQ(child_.failures(), "");
  }

 private:
  const int number_;
  Board::Server& mine_;
  Child child_;
};

TEST_F(ListenerRestart, OneAfterTheOther) {
  std::optional<Server> server;
  int listened = 0;
  for (int round = 0; round < 18; ++round) {
    // From its first instruction on, or from when it listens.
    server.emplace(*this);
    if (round % 2 == 0) {
      ASSERT_TRUE(eventually([&] { return server->phase() != kStarting; }));
    }
    pass_time();
    server->kill();
    if (server->phase() != kStarting) ++listened;

    server.emplace(*this);
    ASSERT_TRUE(eventually([&] { return answers_all(server->number()); }))
        << "round " << round << '\n'
        << failures();
    expect_name_is_taken();
    if (round % 3 == 0) {
      pass_time();
    } else {
      ASSERT_TRUE(round % 3 == 1 ? server->stop_before_answer()
                                 : server->stop_in_accept());
    }
    server->kill();
  }
  RecordProperty("listened", listened);
  server.emplace(*this);
  expect_clients_end();
  server.reset();
  expect_nothing_left();
}

TEST_F(ListenerRestart, TwoWantTheName) {
  std::array<std::optional<Server>, 2> servers;
  for (int round = 0; round < 16; ++round) {
    for (auto& server : servers)
      if (!server) server.emplace(*this);
    // One has it and answers all, and the other one is refused.
    int owner = 0;
    ASSERT_TRUE(eventually([&] {
      for (int n = 0; n < 2; ++n)
        if (answers_all(servers[n]->number()) &&
            servers[1 - n]->refusals() > 0) {
          owner = n;
          return true;
        }
      return false;
    })) << "round "
        << round << '\n'
        << failures();
    EXPECT_EQ(board_->owner, servers[owner]->number());
    EXPECT_EQ(servers[1 - owner]->phase(), kStarting);
    pass_time();
    // The one, the other one, or both.
    if (round % 4 != 3) servers[owner].reset();
    if (round % 4 >= 2) servers[1 - owner].reset();
  }
  for (auto& server : servers)
    if (!server) server.emplace(*this);
  expect_clients_end();
  for (auto& server : servers) server.reset();
  expect_nothing_left();
}

// Who has given up stays in the kernel's queue until the Listener comes to it.
TEST(Listener, AConnectThatFindsTheQueueFullEndsInTime) {
  const std::string name = unique_name("listener");
  const Listener listener(name);
  Shared<std::atomic<int>> given_up;
  Child client([&](Child&) {
    while (*given_up < SOMAXCONN + 100) {
      try {
        shoal::connect(name, shoal::now);
      } catch (const shoal::TimeoutError&) {
        ++*given_up;
      }
    }
  });
  EXPECT_EQ(client.join(), 0)
      << client.failures() << "hangs after " << *given_up;
}

TEST(Listener, AnAcceptThatOnlyMeetsThoseWhoHaveGivenUpEndsInTime) {
  const std::string name = unique_name("listener");
  Shared<std::atomic<int>> given_up;
  Child server([&](Child& self) {
    Listener listener(name);
    self.expect(eventually([&] { return *given_up > 100; }), "clients come");
    try {
      listener.accept(std::chrono::milliseconds(20));
    } catch (const shoal::TimeoutError&) {
    }
  });
  Child client([&](Child&) {
    for (;;) {
      try {
        shoal::connect(name, shoal::now);
      } catch (const shoal::TimeoutError&) {
        ++*given_up;  // nearly always
      }
    }
  });
  EXPECT_EQ(server.join(), 0) << server.failures();
}

}  // namespace
