// A client or a server held still around every system call of connect() and
// accept(), and at a sample of the instructions between them: it delays itself
// only, is connected once when it goes on, and no end of a Pipe dies meanwhile.

#include <array>
#include <atomic>
#include <chrono>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/listener.h"
#include "tests/ipc/pause_scene.h"
#include "tests/support/residue.h"
#include "tests/support/step.h"

namespace {

using namespace shoal::support;
using shoal::Connection;
using shoal::Listener;
using shoal::TimeoutError;
using namespace std::chrono_literals;

// Of each test: near the system calls, and between them.
std::array<SweepOptions, 2> sweeps(std::size_t stride) {
  constexpr std::size_t kMost = 1000000;
  return {
      SweepOptions{.most = kMost, .around_system_calls = true, .strays = 30},
      SweepOptions{.most = kMost, .strays = 30, .stride = stride}};
}

struct Counts {
  std::atomic<int> accepted;
  std::atomic<int> answered;
  std::atomic<int> died;
};

// Answers each of them once; what ends without a death is let go.
void answer(std::vector<Connection>& clients, Counts& counts) {
  std::erase_if(clients, [&](Connection& client) {
    try {
      if (!client.poll()) return false;
      client.send(client.recv<int>() + 1);
      ++counts.answered;
      return false;
    } catch (const shoal::PeerDied&) {
      ++counts.died;
    } catch (const shoal::EndOfFile&) {
    }
    return true;
  });
}

void accept(Listener& listener, std::vector<Connection>& clients,
            Counts& counts, shoal::Timeout timeout) {
  try {
    clients.push_back(listener.accept(timeout));
    ++counts.accepted;
  } catch (const TimeoutError&) {
  }
}

[[noreturn]] void serve(Listener& listener, std::vector<Connection> clients,
                        Counts& counts) {
  for (;;) {
    answer(clients, counts);
    accept(listener, clients, counts, 1ms);
  }
}

void ask(Connection& server) {
  server.send(5, kPatience);
  if (server.recv<int>(kPatience) != 6) throw shoal::Error("a wrong answer");
}

class ListenerPause : public testing::Test {
 protected:
  void SetUp() override { use_one_processor(); }

  static void client(const std::string& name) {
    Connection server = shoal::connect(name, kPatience);
    ask(server);
  }
  static void expect_served(Round& round, const std::string& name) {
    Child good([&](Child&) { client(name); });
    round.expect(good.join() == 0, good.failures());
  }
};

TEST_F(ListenerPause, Connect) {
  for (const SweepOptions& options : sweeps(997))
    kill_at_every_step(
        "WC",
        [](Round& round) {
          const std::string name = unique_name("listener");
          Shared<Counts> counts;
          Child server([&](Child&) {
            Listener listener(name);
            serve(listener, {}, *counts);
          });
          std::vector<Connection> connected;
          Victim victim(
              [&] { connected.push_back(shoal::connect(name, kPatience)); },
              [&] {
                connected.reserve(1);
                client(name);
              },
              [&] { ask(connected[0]); });
          round.step(victim);
          somebody_dies();
          expect_served(round, name);
          const int accepted = counts->accepted - 2;
          round.outcome(accepted == 0 ? 'W' : 'C');
          round.expect(accepted == 0 || accepted == 1, "connected twice");
          round.expect(victim.resume(), "stuck after it was let go");
          round.expect(eventually([&] { return counts->answered == 3; }),
                       "LOST: its question");
          expect_served(round, name);
          round.expect(counts->accepted == 4, "connected twice");
          round.expect(counts->died == 0, "an end counts as dead");
          round.kill(victim);
          round.expect(eventually([&] { return counts->died == 1; }),
                       "its death is not seen");
        },
        options);
}

TEST_F(ListenerPause, Accept) {
  for (const SweepOptions& options : sweeps(4999))
    kill_at_every_step(
        "WC",
        [](Round& round) {
          const std::string name = unique_name("listener");
          Shared<Counts> counts;
          std::vector<Connection> clients;
          std::optional<Listener> listener;
          Victim victim([&] { accept(*listener, clients, *counts, kPatience); },
                        [&] {
                          clients.reserve(8);
                          listener.emplace(name);
                          // The first one finds out about the kernel.
                          Child early([&](Child&) { client(name); });
                          accept(*listener, clients, *counts, kPatience);
                          while (early.join(1ms) != 0) answer(clients, *counts);
                        },
                        [&] { serve(*listener, std::move(clients), *counts); });
          victim.await_prepared();
          Child first([&](Child&) { client(name); });
          round.step(victim);
          somebody_dies();
          round.outcome(counts->accepted == 1 ? 'W' : 'C');
          try {
            Listener second(name);
            round.expect(false, "its name is free");
          } catch (const std::system_error&) {
          }
          if (round.stop() == Stop::at_step) {
            // Gives up, and is not accepted later.
            Child hasty([&](Child& self) {
              try {
                const Connection server = shoal::connect(name, 5ms);
                self.expect(false, "connected to one that stands still");
              } catch (const TimeoutError&) {
              }
            });
            round.expect(hasty.join() == 0, hasty.failures());
            round.expect(!first.join(shoal::now), "ended without an answer");
          }
          round.expect(victim.resume(), "stuck after it was let go");
          round.expect(first.join() == 0, first.failures());
          expect_served(round, name);
          round.expect(counts->answered == 3, "one was not answered");
          round.expect(counts->accepted == 3, "accepted another one");
          round.expect(counts->died == 0, "an end counts as dead");
          round.kill(victim);
        },
        options);
}

}  // namespace
