// Threads of one process on the same containers of a Manager, with connections
// that they hand each other on, and objects that come and go meanwhile.

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "shoal/shared/manager.h"
#include "tests/support/thread.h"

namespace {

using shoal::Dict;
using shoal::List;
using shoal::Manager;
using shoal::Namespace;
using shoal::support::Thread;

// More than there are connections that wait for the next call.
constexpr int kThreads = 10;
constexpr int kTimes = 100;

void run_threads(const std::function<void(int n, int i)>& call) {
  std::vector<std::unique_ptr<Thread>> threads;
  for (int n = 0; n < kThreads; ++n)
    threads.push_back(std::make_unique<Thread>([&, n] {
      for (int i = 0; i < kTimes; ++i) call(n, i);
    }));
  for (auto& thread : threads) EXPECT_TRUE(thread->ends());
}

int add_one(int n) { return n + 1; }

TEST(ManagerStress, Dict) {
  Manager manager;
  Dict<int, std::string> dict = manager.dict<int, std::string>();
  auto counts = manager.dict<int, int>();
  run_threads([&](int n, int i) {
    const std::string text(static_cast<std::size_t>(i), static_cast<char>(n));
    dict.set(n, text);
    EXPECT_EQ(dict.at(n), text);
    EXPECT_EQ(counts.setdefault(-1 - n, n), n);
    counts.update(i, add_one, 0);
  });
  EXPECT_EQ(dict.size(), std::size_t{kThreads});
  for (int i = 0; i < kTimes; ++i) EXPECT_EQ(counts.at(i), kThreads);
}

TEST(ManagerStress, List) {
  Manager manager;
  List<int> list = manager.list<int>({0});
  run_threads([&](int n, int) {
    list.append(n);
    list.update(0, add_one);
    (void)list.slice(0, 3);
    (void)list.pop();
  });
  EXPECT_EQ(list.copy(), std::vector<int>{kThreads * kTimes});
}

TEST(ManagerStress, Namespace) {
  Manager manager;
  Namespace ns = manager.ns();
  ns.set("all", 0);
  run_threads([&](int n, int i) {
    const std::string name = "of " + std::to_string(n);
    ns.set(name, i);
    EXPECT_EQ(ns.get<int>(name), i);
    ns.update<int>("all", add_one);
    EXPECT_TRUE(ns.erase(name));
  });
  EXPECT_EQ(ns.get<int>("all"), kThreads * kTimes);
  EXPECT_EQ(ns.names(), std::vector<std::string>{"all"});
}

// Objects, and proxies of them in others.
TEST(ManagerStress, OfWhatComesAndGoes) {
  Manager manager;
  auto lists = manager.dict<int, List<int>>();
  run_threads([&](int n, int i) {
    lists.set(n, manager.list<int>({i}));
    EXPECT_EQ(lists.at(n).at(0), i);
    if (i % 2 == 0) lists.erase(n);
  });
  EXPECT_EQ(lists.size(), std::size_t{kThreads});
}

}  // namespace
