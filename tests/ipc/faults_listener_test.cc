// Listener, accept and connect whose system calls are refused, against a
// process at the other end whose calls are not.

#include <optional>
#include <string>

#include "shoal/ipc/listener.h"
#include "tests/ipc/faults_scene.h"
#include "tests/support/child.h"
#include "tests/support/faults.h"
#include "tests/support/residue.h"

namespace {

using shoal::Connection;
using shoal::Listener;
using shoal::support::accompany;
using shoal::support::error_name;
using shoal::support::Faults;
using shoal::support::kErrors;
using shoal::support::kPatience;
using shoal::support::require;
using shoal::support::unique_name;

class FaultsListener : public Faults {
 protected:
  // The server asks, the client answers.
  static void ask(Connection client) {
    client.send(7);
    require(client.recv<int>(kPatience) == 8, "another answer");
  }
  static void answer(Connection server) {
    server.send(server.recv<int>(kPatience) + 1);
  }
  void clients() {
    accompany([this] { answer(shoal::connect(name_, kPatience)); });
  }

  const std::string name_ = unique_name("faults");
};

TEST_P(FaultsListener, ListenAndAccept) {
  expect_typed(
      [&] {
        Listener listener(name_);
        ask(listener.accept(kPatience));
      },
      10, [&] { clients(); });
}

TEST_P(FaultsListener, AcceptByOneThatIsThere) {
  std::optional<Listener> listener;
  expect_typed([&] { ask(listener->accept(kPatience)); }, 10,
               [&] {
                 clients();  // before it has a socket to inherit
                 listener.emplace(name_);
               });
}

TEST_P(FaultsListener, Connect) {
  expect_typed([&] { answer(shoal::connect(name_, kPatience)); }, 5,
               [&] {
                 accompany([this] {
                   Listener listener(name_);
                   for (;;) {
                     try {
                       ask(listener.accept());
                     } catch (const shoal::Error&) {
                       // A client that was refused something, and is no more.
                     }
                   }
                 });
               });
}

INSTANTIATE_TEST_SUITE_P(Errors, FaultsListener, kErrors, error_name);

}  // namespace
