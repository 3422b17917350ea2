// A Manager whose server has no descriptors left, and processes that are forked
// by its clients, and by itself, in the middle of everything.

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <filesystem>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/pipe.h"
#include "shoal/ipc/process.h"
#include "shoal/shared/manager.h"
#include "tests/support/census.h"
#include "tests/support/child.h"
#include "tests/support/thrown.h"

namespace {

using namespace std::chrono_literals;
using shoal::Connection;
using shoal::List;
using shoal::Manager;
using shoal::PeerDied;
using shoal::Pipe;
using shoal::Process;
using shoal::support::Child;
using shoal::support::code_of_refusal;
using shoal::support::cpu_time_of;
using shoal::support::descriptors_of;
using shoal::support::eventually;
using shoal::support::kAddressSanitizer;
using shoal::support::kPatience;
using shoal::support::Shared;
using shoal::support::sleeps_of;
using shoal::support::threads_of;

// ---- without standard streams ----

// A daemon's: what it opens would come to lie at 0, 1 and 2.
TEST(ManagerProcess, OfAProgramWithoutStandardStreams) {
  Child program([](Child& self) {
    for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
      close(stream);
    auto [kept, given] = Pipe();
    Process process([](Connection end) { end.send(7); }, std::move(given));
    process.start();
    self.expect(kept.recv<int>(kPatience) == 7, "what the Process sent");
    process.join();
    Manager manager;
    auto words = manager.dict<std::string, int>();
    words["one"] = 1;
    self.expect(words.at("one") == 1, "what the Manager holds");
    for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
      self.expect(fcntl(stream, F_GETFD) < 0, "a stream's number is taken");
  });
  EXPECT_EQ(program.join(), 0) << program.failures();
}

// ---- without descriptors ----

// How many descriptors another process may still make, as long as this lives.
class SpareDescriptors {
 public:
  SpareDescriptors(pid_t process, std::size_t spare) : process_(process) {
    prlimit(process_, RLIMIT_NOFILE, nullptr, &before_);
    const rlimit few{number_of_spare(spare), before_.rlim_max};
    prlimit(process_, RLIMIT_NOFILE, &few, nullptr);
  }
  SpareDescriptors(const SpareDescriptors&) = delete;
  SpareDescriptors& operator=(const SpareDescriptors&) = delete;
  ~SpareDescriptors() { prlimit(process_, RLIMIT_NOFILE, &before_, nullptr); }

 private:
  // The limit is one of numbers; those in use have gaps.
  rlim_t number_of_spare(std::size_t spare) const {
    std::set<rlim_t> used;
    for (const auto& entry : std::filesystem::directory_iterator(
             "/proc/" + std::to_string(process_) + "/fd"))
      used.insert(std::stoul(entry.path().filename()));
    rlim_t number = 0;
    for (std::size_t unused = 0;; ++number) {
      if (used.contains(number)) continue;
      if (unused++ == spare) return number;
    }
  }

  pid_t process_;
  rlimit before_{};
};

// Those who are connected are told what is wrong, or served.
TEST(ManagerWithoutDescriptors, RefusesWhatNeedsSome) {
  if (kAddressSanitizer)
    GTEST_SKIP() << "UBSan needs descriptors of its own for each check";
  Manager manager;
  auto dict = manager.dict<int, int>({{1, 1}});
  auto lists = manager.dict<int, List<int>>();
  auto list = manager.list<int>({5});
  lists.set(1, list);
  const std::size_t before = descriptors_of(manager.pid());
  {
    const SpareDescriptors none(manager.pid(), 0);
    EXPECT_EQ(code_of_refusal([&] { (void)manager.list<int>(); }), EMFILE);
    EXPECT_EQ(code_of_refusal([&] { lists.set(2, list); }), EMFILE);
    EXPECT_EQ(code_of_refusal([&] { (void)lists.at(1); }), EMFILE);
    EXPECT_EQ(dict.at(1), 1);
    EXPECT_EQ(lists.size(), 1u);
    EXPECT_TRUE(manager.is_alive());
  }
  EXPECT_TRUE(eventually([&] {
    return descriptors_of(manager.pid()) == before;
  })) << descriptors_of(manager.pid())
      << " instead of " << before;
  EXPECT_EQ(lists.at(1).at(0), 5);
  lists.set(2, list);
  EXPECT_EQ(lists.at(2).at(0), 5);
  EXPECT_EQ(manager.list<int>({7}).at(0), 7);
}

// Some are kept for those who come; then they wait until there are more.
TEST(ManagerWithoutDescriptors, ServesSomeNewClientsAndLetsOthersWait) {
  Manager manager;
  auto dict = manager.dict<int, int>();
  constexpr int kMost = 64;
  Shared<std::array<std::atomic<bool>, kMost>> asks, served;
  Shared<std::atomic<bool>> over;
  std::vector<std::unique_ptr<Child>> clients;
  for (int n = 0; n < kMost; ++n)
    clients.push_back(std::make_unique<Child>([&, n](Child& self) {
      const auto told = [&](std::atomic<bool>& flag) {
        return eventually([&] { return flag || *over; });
      };
      self.expect(told((*asks)[n]), "let go");
      dict.set(n, n);
      (*served)[n] = true;
      self.expect(told(*over), "the end");  // it stays connected
    }));
  int at_once = 0;
  {
    const SpareDescriptors none(manager.pid(), 0);
    for (bool waits = false; !waits; at_once += !waits) {
      ASSERT_LT(at_once, kMost);
      const std::size_t sleeps = sleeps_of(manager.pid());
      (*asks)[at_once] = true;
      // Once it has refused somebody it looks again every now and then.
      EXPECT_TRUE(eventually([&] {
        waits = !(*served)[at_once] && sleeps_of(manager.pid()) > sleeps + 5;
        return (*served)[at_once] || waits;
      }));
    }
    EXPECT_GE(at_once, 8);
  }
  EXPECT_TRUE(eventually([&] { return (*served)[at_once].load(); }));
  *over = true;
  for (const auto& client : clients)
    EXPECT_EQ(client->join(), 0) << client->failures();
  EXPECT_EQ(dict.size(), std::size_t{kMost});
  EXPECT_TRUE(manager.is_alive());
}

// ---- and forks ----

// One that is no child of this process.
class Killed {
 public:
  explicit Killed(pid_t process) : process_(process) {}
  Killed(const Killed&) = delete;
  Killed& operator=(const Killed&) = delete;
  ~Killed() { kill(process_, SIGKILL); }

 private:
  pid_t process_;
};

// Whatever its other threads are about: with a lock of the connections in
// hands, in a call, between two. See manager_kill_test, too.
TEST(ManagerFork, WhileThreadsAreInCalls) {
  constexpr int kForks = 60;
  Manager manager;
  auto dict = manager.dict<int, int>({{-1, 0}});
  std::atomic<bool> over = false;
  std::atomic<int> updates = 0;
  std::vector<std::thread> threads;
  for (int n = 0; n < 3; ++n)
    threads.emplace_back([&] {
      for (; !over; ++updates) dict.update(-1, [](int k) { return k + 1; });
    });
  for (int n = 0; n < kForks; ++n) {
    Child child([&](Child& self) {
      dict.set(n, n);
      self.expect(manager.list<int>({n}).at(0) == n, "another object");
    });
    EXPECT_EQ(child.join(), 0) << child.failures();
  }
  over = true;
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(dict.size(), std::size_t{kForks + 1});
  EXPECT_EQ(dict.at(-1), updates);
}

// It has a proxy like any other, until it ends; of the connections of who
// forked it, nothing.
TEST(ManagerFork, OfAClientKeepsItsProxies) {
  Manager manager;
  std::optional<List<int>> list = manager.list<int>({5});
  const std::size_t with = descriptors_of(manager.pid());
  const std::size_t threads = threads_of(manager.pid());
  Shared<std::atomic<bool>> gone, asked;
  Shared<std::atomic<pid_t>> fork;
  Child client([&](Child&) {
    (void)list->size();
    Child keeps([&](Child& self) {
      self.expect(eventually([&] { return gone->load(); }), "told");
      self.expect(list->at(0) == 5, "it is still there");
      *asked = true;
      for (;;) pause();
    });
    *fork = keeps.pid();
    for (;;) pause();
  });
  ASSERT_TRUE(eventually([&] { return *fork != 0; }));
  const Killed at_the_end(*fork);
  EXPECT_GT(threads_of(manager.pid()), threads);
  client.kill();
  client.join();
  EXPECT_TRUE(eventually([&] { return threads_of(manager.pid()) == threads; }))
      << "the connection of the dead is open in its fork";
  list.reset();
  *gone = true;
  EXPECT_TRUE(eventually([&] { return asked->load(); }));
  kill(*fork, SIGKILL);
  EXPECT_TRUE(eventually([&] { return descriptors_of(manager.pid()) < with; }));
}

// With copies of all that the server has, of what it watches objects by, too.
TEST(ManagerFork, OfTheServerKeepsNothing) {
  constexpr std::size_t kLists = 100;
  Manager manager;
  const pid_t server = manager.pid();
  auto dict = manager.dict<int, int>({{0, 0}});
  const std::size_t before = descriptors_of(server);
  const std::size_t threads = threads_of(server);
  const auto some_lists = [&] {
    std::vector<List<int>> lists;
    while (lists.size() != kLists) lists.push_back(manager.list<int>());
    return lists;
  };
  auto lists = some_lists();
  const pid_t fork = dict.update(0, [](int) -> int {
    const pid_t child = ::fork();
    while (child == 0) pause();
    return child;
  });
  ASSERT_GT(fork, 0);
  const Killed at_the_end(fork);
  EXPECT_GE(descriptors_of(fork), kLists);

  EXPECT_GE(descriptors_of(server), before + kLists);
  lists.clear();
  EXPECT_TRUE(eventually([&] { return descriptors_of(server) <= before; }));
  lists = some_lists();
  lists.clear();
  EXPECT_TRUE(eventually([&] { return descriptors_of(server) <= before; }));
  Child client([&](Child&) { dict.set(1, 1); });
  EXPECT_EQ(client.join(), 0) << client.failures();
  EXPECT_TRUE(eventually([&] { return threads_of(server) == threads; }));

  // What hangs up, and is still watched in the fork, would keep it busy.
  const auto used = cpu_time_of(server);
  std::this_thread::sleep_for(500ms);
  EXPECT_LT(cpu_time_of(server) - used, 25ms) << "of 500 ms of doing nothing";

  kill(server, SIGKILL);
  ASSERT_TRUE(eventually([&] { return !manager.is_alive(); }));
  EXPECT_THROW((void)dict.at(1), PeerDied);
}

}  // namespace
