// SIGKILL in connect(), in accept() and in the making of a Listener: whoever is
// left gets a Connection that ends, or none, and the next one under the name is
// found. None of these processes is related to another by more than the name.

#include <signal.h>

#include <atomic>
#include <functional>
#include <optional>
#include <string>
#include <system_error>

#include "gtest/gtest.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/listener.h"
#include "shoal/ipc/pipe.h"
#include "tests/ipc/queue_scene.h"
#include "tests/support/residue.h"

namespace {

using namespace shoal::support;
using shoal::Connection;
using shoal::Listener;
using shoal::now;
using namespace std::chrono_literals;

constexpr Item kLast = 8;

class ListenerKill : public testing::Test {
 protected:
  void SetUp() override {
    use_one_processor();
    shoal::waiting::set_slices(false);
  }
  const std::string name_ = unique_name("listener");
};

// Answers all clients until one has sent kLast, and those that came before it.
class Server {
 public:
  explicit Server(const std::string& name)
      : child_([this, name](Child&) {
          Listener listener(name);
          shared_->listens = true;
          while (serve(listener, kPatience)) {
          }
          try {
            for (;;) serve(listener, now);
          } catch (const shoal::TimeoutError&) {
          }
        }) {
    eventually([this] { return shared_->listens.load(); });
  }
  // Of Connections whose client has died.
  int ended() const { return shared_->ended; }
  void expect_ended(Round& round) {
    round.expect(child_.join() == 0, "the server: " + child_.failures());
  }

 private:
  bool serve(Listener& listener, shoal::Timeout timeout) {
    Connection client = listener.accept(timeout);
    try {
      const Item item = client.recv<Item>(kPatience);
      client.send(item);
      return item != kLast;
    } catch (const shoal::PeerDied&) {
      ++shared_->ended;
      return true;
    }
  }

  struct Result {
    std::atomic<bool> listens;
    std::atomic<int> ended;
  };
  Shared<Result> shared_;
  Child child_;
};

// Asks again and again until a server has answered.
class Client {
 public:
  Client(const std::string& name, Item item)
      : child_([this, name, item](Child& self) {
          for (;;) {
            Connection server = shoal::connect(name, kPatience);
            try {
              server.send(item);
              self.expect(server.recv<Item>(kPatience) == item, "answered");
              return;
            } catch (const shoal::BrokenPipe&) {
              ++*ended_;
            } catch (const shoal::PeerDied&) {
              ++*ended_;
            }
          }
        }) {}
  // Of Connections whose server has died.
  int ended() const { return *ended_; }
  void expect_served(Round& round) {
    round.expect(child_.join() == 0, "the client: " + child_.failures());
  }

 private:
  Shared<std::atomic<int>> ended_;
  Child child_;
};

TEST_F(ListenerKill, Client) {
  kill_at_every_step("AC",
                     [&](Round& round) {
                       Server server(name_);
                       std::optional<Connection> connection;
                       Victim victim(
                           [&] { connection.emplace(shoal::connect(name_)); },
                           // Asks a thread.
                           [] { shoal::liveness::kernel_passes_wakes(); });
                       round.step(victim);
                       round.kill(victim);
                       Client next(name_, kLast);
                       next.expect_served(round);
                       server.expect_ended(round);
                       round.expect(server.ended() <= 1, "accepted twice");
                       round.outcome(server.ended() == 0 ? 'A' : 'C');
                     },
                     {.around_system_calls = true, .strays = 30});
}

TEST_F(ListenerKill, Server) {
  kill_at_every_step(
      "WC",
      [&](Round& round) {
        std::optional<std::pair<Connection, Connection>> keep;
        std::optional<Listener> listener;
        std::optional<Connection> connection;
        Victim victim([&] { connection.emplace(listener->accept()); },
                      [&] {
                        // Making the domain is long, and has its own tests.
                        keep.emplace(shoal::Pipe());
                        listener.emplace(name_);
                      });
        victim.await_prepared();
        Client waiting(name_, 7);
        round.step(victim);
        round.kill(victim);
        Server next(name_);
        waiting.expect_served(round);
        round.expect(waiting.ended() <= 1, "connected to the dead");
        round.outcome(waiting.ended() == 0 ? 'W' : 'C');
        Client last(name_, kLast);
        last.expect_served(round);
        next.expect_ended(round);
      },
      {.most = 2000000, .around_system_calls = true, .strays = 30});
}

// The name is free, or taken and free again.
TEST_F(ListenerKill, Construction) {
  // What is made once a process is made before it is stepped.
  { const Listener before(name_); }
  kill_at_every_step("FT", [&](Round& round) {
    std::optional<Listener> listener;
    Victim victim([&] { listener.emplace(name_); });
    round.step(victim);
    bool taken = false;
    try {
      const Listener mine(name_);
    } catch (const std::system_error& error) {
      taken = error.code() == std::errc::address_in_use;
    }
    round.outcome(taken ? 'T' : 'F');
    round.kill(victim);
    Server next(name_);
    Client client(name_, kLast);
    client.expect_served(round);
    next.expect_ended(round);
  });
}

}  // namespace
