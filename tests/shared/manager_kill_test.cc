// SIGKILL at every instruction of a client's call of a Manager: what it asked
// for has been done or not, whole; the server and the other clients go on.
//
// The environment says which fence is tested: SHOAL_BARRIER=fence or nothing.

#include <fcntl.h>
#include <signal.h>
#include <sys/types.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "shoal/ipc/waiting.h"
#include "shoal/shared/manager.h"
#include "tests/support/census.h"
#include "tests/support/child.h"
#include "tests/support/step.h"

namespace {

using namespace shoal::support;
using Dict = shoal::Dict<int, std::string>;
using List = shoal::List<int>;

class ManagerKill : public testing::Test {
 protected:
  void SetUp() override {
    use_one_processor();
    shoal::waiting::set_slices(false);
    manager_.emplace();
  }

  // What the server does meanwhile leads a victim by other ways.
  static constexpr SweepOptions kStraying{.strays = 50};

  // One for each connection, and its main thread.
  std::size_t threads() { return threads_of(manager_->pid()); }

  // What the victim had sent when it died has been done, or never will be, and
  // others are served as before.
  void expect_served(Round& round, std::size_t before) {
    round.expect(eventually([&] { return threads() <= before; }),
                 "the server keeps what is of the dead");
    try {
      auto list = manager_->list<int>({1, 2});
      round.expect(list.pop() == 2 && list.size() == 1, "another list");
    } catch (const std::exception& error) {
      round.expect(false, error.what());
    }
  }

  // 'A' or 'P' by found(), when the victim has made `call`.
  template <class Object>
  void kill_in(const std::function<Object()>& make,
               const std::function<void(Object&)>& call,
               const std::function<char(Object&)>& found,
               std::string_view sane = "AP") {
    kill_at_every_step(
        sane,
        [&](Round& round) {
          Object object = make();
          const auto before = threads();
          Victim victim([&] { call(object); }, [&] { (void)object.size(); });
          round.step(victim);
          round.kill(victim);
          expect_served(round, before);
          round.outcome(found(object));
        },
        kStraying);
  }

  std::optional<shoal::Manager> manager_;
};

TEST_F(ManagerKill, DictSet) {
  const std::string text(100, 'x');
  kill_in<Dict>([&] { return manager_->dict<int, std::string>(); },
                [&](Dict& dict) { dict.set(1, text); },
                [&](Dict& dict) {
                  const auto value = dict.find(1);
                  return !value ? 'A' : *value == text ? 'P' : '?';
                });
}

TEST_F(ManagerKill, DictUpdate) {
  kill_in<Dict>(
      [&] {
        return manager_->dict<int, std::string>({{1, "a"}});
      },
      [&](Dict& dict) {
        dict.update(1, [](const std::string& text) { return text + "b"; });
      },
      [&](Dict& dict) {
        const std::string value = dict.at(1);
        return value == "a" ? 'A' : value == "ab" ? 'P' : '?';
      });
}

TEST_F(ManagerKill, ListAppend) {
  kill_in<List>([&] { return manager_->list<int>({1}); },
                [&](List& list) { list.append(2); },
                [&](List& list) {
                  const auto all = list.copy();
                  return all == std::vector<int>{1}      ? 'A'
                         : all == std::vector<int>{1, 2} ? 'P'
                                                         : '?';
                });
}

// What is popped stays when its reply finds nobody: whichever was faster, the
// victim's death or the server, it is whole.
TEST_F(ManagerKill, Pops) {
  kill_in<List>(
      [&] {
        return manager_->list<int>({1, 2});
      },
      [&](List& list) { (void)list.pop(); },
      [&](List& list) {
        const auto all = list.copy();
        return all == std::vector<int>{1, 2} || all == std::vector<int>{1}
                   ? 'W'
                   : '?';
      },
      "W");
  const std::vector<std::function<void(Dict&)>> calls{
      [](Dict& dict) { (void)dict.pop(1); },
      [](Dict& dict) { (void)dict.popitem(); }};
  for (const auto& call : calls)
    kill_in<Dict>(
        [&] {
          return manager_->dict<int, std::string>({{1, "a"}});
        },
        call,
        [&](Dict& dict) {
          return dict.empty() || dict.at(1) == "a" ? 'W' : '?';
        },
        "W");
}

// Those that change nothing.
TEST_F(ManagerKill, Reads) {
  const std::vector<std::function<void(Dict&)>> calls{
      [](Dict& dict) { (void)dict.at(1); },
      [](Dict& dict) { (void)dict.find(2); },
      [](Dict& dict) { (void)dict.items(); }};
  for (const auto& call : calls)
    kill_in<Dict>(
        [&] {
          return manager_->dict<int, std::string>({{1, "a"}});
        },
        call, [&](Dict& dict) { return dict.at(1) == "a" ? 'A' : '?'; }, "A");
}

TEST_F(ManagerKill, OtherChanges) {
  const std::vector<std::function<void(Dict&)>> calls{
      [](Dict& dict) { dict.erase(1); }, [](Dict& dict) { dict.clear(); }};
  for (const auto& call : calls)
    kill_in<Dict>(
        [&] {
          return manager_->dict<int, std::string>({{1, "a"}});
        },
        call, [&](Dict& dict) { return dict.empty() ? 'P' : 'A'; });
  kill_in<Dict>([&] { return manager_->dict<int, std::string>(); },
                [](Dict& dict) {
                  dict.update({{1, "a"}, {2, "b"}});
                },
                [&](Dict& dict) {
                  const std::size_t size = dict.size();  // all or none
                  return size == 0 ? 'A' : size == 2 ? 'P' : '?';
                });
}

TEST_F(ManagerKill, NamespaceSet) {
  kill_at_every_step(
      "AP",
      [&](Round& round) {
        shoal::Namespace ns = manager_->ns();
        const auto before = threads();
        Victim victim([&] { ns.set("x", 5); }, [&] { (void)ns.names(); });
        round.step(victim);
        round.kill(victim);
        expect_served(round, before);
        const bool there = ns.contains("x");
        if (there) round.expect(ns.get<int>("x") == 5, "another value");
        round.outcome(there ? 'P' : 'A');
      },
      kStraying);
}

// Not killed, but forked by another thread of its process, while it stands at
// every instruction of a call: the fork can make the same, whatever was in
// hands there. That call is nobody's before.
class ManagerFork : public ManagerKill {
 protected:
  void fork_in(const std::function<bool()>& call) {
    struct Seen {
      std::atomic<bool> called;
      std::atomic<pid_t> fork;
      std::atomic<bool> fork_called;
      std::atomic<bool> fork_ended;
    };
    kill_at_every_step(
        "P",
        [&](Round& round) {
          const auto before = threads();
          // By nothing that the call itself may run: where the processor has
          // no breakpoints, a trap lies in its code meanwhile.
          int go[2];
          ASSERT_EQ(pipe2(go, O_CLOEXEC), 0);
          Shared<Seen> seen;
          const auto fork = [&] {
            for (char byte; ::read(go[0], &byte, 1) != 1;) {
            }
            Child child([&](Child& self) { self.expect(call(), "a call"); });
            seen->fork = child.pid();
            seen->fork_called = child.join() == 0;
            seen->fork_ended = true;
          };
          Victim victim([&] { seen->called = call(); },
                        [&] {
                          (void)manager_->ns();
                          std::thread(fork).detach();
                        });
          round.step(victim);
          const bool placed = round.stop() == Stop::at_step;
          if (!placed) victim.let_go();  // with the trap that it missed
          ASSERT_EQ(::write(go[1], "", 1), 1);
          ::close(go[0]);
          ::close(go[1]);
          // fork() itself may wait for a lock of the C library's.
          const auto ended = [&] { return seen->fork_ended.load(); };
          if (!eventually(ended, kFork) && placed)
            round.expect(victim.resume(), "stuck after it was let go");
          round.expect(eventually(ended, kSoon), "its fork hangs");
          round.expect(seen->fork_called, "its fork has no answer");
          if (placed)
            round.expect(victim.resume() && seen->called,
                         "stuck beside its fork");
          round.kill(victim);
          if (!ended() && seen->fork != 0) ::kill(seen->fork, SIGKILL);
          expect_served(round, before);
          round.outcome('P');
        },
        kStraying);
  }

  // Both long for a fork, a call in it, and its end.
  static constexpr std::chrono::seconds kFork{2}, kSoon{5};
};

TEST_F(ManagerFork, Set) {
  Dict dict = manager_->dict<int, std::string>();
  fork_in([&] {
    dict.set(1, "a");
    return true;
  });
}

// Of an object that is there: making one waits for the keeper, by the clock.
TEST_F(ManagerFork, Update) {
  shoal::List<long> list = manager_->list<long>({1});
  fork_in([&] { return list.update(0, [](long n) { return n + 1; }) > 1; });
}

}  // namespace
