// A Manager's containers, from one process and from others, beside a model.

#include "shoal/shared/manager.h"

#include <errno.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/forkserver.h"
#include "shoal/ipc/process.h"
#include "shoal/ipc/queue.h"
#include "tests/support/census.h"
#include "tests/support/child.h"
#include "tests/support/name.h"
#include "tests/support/reexec.h"
#include "tests/support/thread.h"
#include "tests/support/thrown.h"

namespace {

using namespace std::chrono_literals;
using shoal::Dict;
using shoal::List;
using shoal::Manager;
using shoal::Namespace;
using shoal::PeerDied;
using shoal::Process;
using shoal::StartMethod;
using shoal::support::Child;
using shoal::support::code_of_refusal;
using shoal::support::descriptors_of;
using shoal::support::eventually;
using shoal::support::kPatience;
using shoal::support::Name;
using shoal::support::Shared;
using shoal::support::Thread;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;
using testing::ThrowsMessage;

struct Job {
  int id;
  std::string text;
  bool operator==(const Job&) const = default;
};

TEST(ManagerDict, AgainstAModel) {
  Manager manager;
  auto dict = manager.dict<std::string, Job>();
  EXPECT_TRUE(dict.empty());
  dict.set("b", {2, "two"});
  dict["a"] = Job{1, "one"};
  dict.set("c", {3, std::string(100'000, 'x')});
  dict.set("b", {22, "two"});
  EXPECT_EQ(dict.size(), 3u);
  EXPECT_THAT(dict.keys(), ElementsAre("b", "a", "c"));  // as they came
  EXPECT_EQ(dict.at("b"), (Job{22, "two"}));
  const Job a = dict["a"];
  EXPECT_EQ(a, (Job{1, "one"}));
  EXPECT_EQ(dict.get("c").text.size(), 100'000u);
  EXPECT_EQ(dict.get("d", {0, ""}), (Job{0, ""}));
  EXPECT_FALSE(dict.find("d"));
  EXPECT_EQ(dict.find("a"), a);
  EXPECT_TRUE(dict.contains("a"));
  EXPECT_EQ(dict.setdefault("a", {9, ""}), a);
  EXPECT_EQ(dict.setdefault("d", {4, ""}), (Job{4, ""}));
  EXPECT_EQ(dict.values().size(), 4u);
  EXPECT_THAT(dict.items()[3], Pair("d", Job{4, ""}));
  EXPECT_EQ(dict.pop("d").id, 4);
  EXPECT_EQ(dict.popitem().first, "c");
  EXPECT_TRUE(dict.erase("b"));
  EXPECT_FALSE(dict.erase("b"));
  dict.update({{"x", {7, ""}}, {"a", {8, ""}}});
  EXPECT_THAT(dict.keys(), ElementsAre("a", "x"));
  EXPECT_EQ(dict.at("a").id, 8);
  dict.clear();
  EXPECT_TRUE(dict.keys().empty());
  EXPECT_EQ((manager.dict<int, int>({{1, 2}, {3, 4}}).items().size()), 2u);
}

struct Place {
  int row, column;
  auto operator<=>(const Place&) const = default;
};

TEST(ManagerDict, OfOtherTypes) {
  Manager manager;
  auto places = manager.dict<Place, bool>();
  places.set({1, 2}, true);
  places.set({0, 5}, false);
  EXPECT_EQ(places.values(), (std::vector<bool>{true, false}));
  EXPECT_TRUE(places.update({1, 2}, [](bool b) { return b; }));
  EXPECT_TRUE(places.update({0, 5}, [](bool& b) { b = !b; }));
  EXPECT_FALSE(places.update(
      {9, 9}, [](bool b) { return b; }, false));
  EXPECT_EQ(places.keys().back(), (Place{9, 9}));
  auto flags = manager.list<bool>({true, false});
  flags.append(true);
  EXPECT_EQ(flags.copy(), (std::vector<bool>{true, false, true}));
  auto texts = manager.dict<int, std::vector<std::string>>();
  texts.set(1, std::vector<std::string>(1000, std::string(1000, 'x')));
  EXPECT_EQ(texts.at(1).size(), 1000u);
}

TEST(ManagerDict, ItemsAreAssignedToItems) {
  Manager manager;
  auto dict = manager.dict<std::string, int>({{"a", 1}, {"b", 2}});
  dict["a"] = dict["b"];
  EXPECT_EQ(dict.at("a"), 2);
  auto list = manager.list<int>({1, 2});
  list[0] = list[1];
  EXPECT_THAT(list.copy(), ElementsAre(2, 2));
}

// Cannot be sent by the server.
struct Heavy {
  int weight = 0;
  template <class Archive>
  void serialize(Archive& archive) {
    if (Archive::is_saving::value && weight > 1 &&
        shoal::manager::within_request())
      throw std::domain_error("too heavy");
    archive(weight);
  }
};

// What is popped, and cannot be sent, stays.
TEST(ManagerDict, APopThatFailsLosesNothing) {
  Manager manager;
  auto dict = manager.dict<int, Heavy>();
  dict.set(1, {1});
  dict.set(2, {2});
  EXPECT_EQ(dict.pop(1).weight, 1);
  EXPECT_THROW((void)dict.pop(2), std::domain_error);
  EXPECT_THROW((void)dict.popitem(), std::domain_error);
  EXPECT_TRUE(dict.contains(2));
  auto list = manager.list<Heavy>();
  list.append({2});
  EXPECT_THROW((void)list.pop(), std::domain_error);
  EXPECT_EQ(list.size(), 1u);
}

TEST(ManagerLife, AStoppedServerIsEndedInTime) {
  const auto begin = std::chrono::steady_clock::now();
  {
    Manager manager;
    (void)manager.list<int>();
    kill(manager.pid(), SIGSTOP);
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 10s);
}

TEST(ManagerLife, MovedFromItIsClosed) {
  Manager manager;
  Manager other = std::move(manager);
  EXPECT_THROW((void)manager.list<int>(), shoal::Closed);
  EXPECT_FALSE(manager.is_alive());
  other = Manager();
  EXPECT_TRUE(other.is_alive());
}

TEST(ManagerDict, ErrorsKeepTheirType) {
  Manager manager;
  auto dict = manager.dict<std::string, int>();
  EXPECT_THAT([&] { (void)dict.at("nobody"); },
              ThrowsMessage<std::out_of_range>(HasSubstr("\"nobody\"")));
  EXPECT_THROW((void)dict.pop("nobody"), std::out_of_range);
  EXPECT_THROW((void)dict.popitem(), std::out_of_range);
  dict.set("a", 1);
  EXPECT_THROW(
      dict.update("a", [](int) -> int { throw std::domain_error("no"); }),
      std::domain_error);
  EXPECT_EQ(dict.at("a"), 1);
  EXPECT_THROW(dict.update("b", [](int n) { return n; }), std::out_of_range);
  EXPECT_EQ(dict.update(
                "b", [](int n) { return n + 1; }, 5),
            6);
  EXPECT_EQ(dict.update("b", [](int& n) { n *= 2; }), 12);
  int by = 10;
  EXPECT_EQ(dict.update("b", [by](int n) { return n + by; }), 22);
}

int add_one(int n) { return n + 1; }

TEST(ManagerUpdate, ByAFunctionByItsNameAndByAMember) {
  struct Counter {
    int count;
    void increase() { ++count; }
  };
  Manager manager;
  auto dict = manager.dict<int, int>({{1, 1}});
  EXPECT_EQ(dict.update(1, add_one), 2);
  EXPECT_EQ(dict.update(1, &add_one), 3);
  EXPECT_EQ(dict.update(2, add_one, 7), 8);
  auto list = manager.list<Counter>({Counter{5}});
  EXPECT_EQ(list.update(0, &Counter::increase).count, 6);
  Namespace ns = manager.ns();
  ns.set("n", 3);
  EXPECT_EQ(ns.update<int>("n", add_one), 4);
}

TEST(ManagerList, AgainstAModel) {
  Manager manager;
  auto list = manager.list<int>();
  list.append(1);
  list.push_back(2);
  list.extend({3, 4, 5});
  list.insert(0, 0);
  list.insert(-1, 44);
  list.insert(100, 6);
  EXPECT_THAT(list.copy(), ElementsAre(0, 1, 2, 3, 4, 44, 5, 6));
  EXPECT_EQ(list.pop(-3), 44);
  EXPECT_EQ(list.pop(), 6);
  EXPECT_EQ(list.pop(0), 0);
  EXPECT_EQ(list.at(-1), 5);
  list[0] = 10;
  EXPECT_EQ(list[0] + list.get(1), 12);
  list.set(-1, 50);
  EXPECT_THAT(list.copy(), ElementsAre(10, 2, 3, 4, 50));
  EXPECT_THAT(list.slice(1, 3), ElementsAre(2, 3));
  EXPECT_THAT(list.slice(-2, 100), ElementsAre(4, 50));
  EXPECT_TRUE(list.slice(3, 1).empty());
  EXPECT_EQ(list.index(4), 3u);
  EXPECT_EQ(list.count(4), 1u);
  list.remove(4);
  EXPECT_THROW(list.remove(4), std::invalid_argument);
  EXPECT_THROW((void)list.index(4), std::invalid_argument);
  list.reverse();
  EXPECT_THAT(list.copy(), ElementsAre(50, 3, 2, 10));
  list.sort();
  EXPECT_THAT(list.copy(), ElementsAre(2, 3, 10, 50));
  EXPECT_EQ(list.update(1, [](int n) { return n * 7; }), 21);
  EXPECT_THAT([&] { (void)list.at(4); },
              ThrowsMessage<std::out_of_range>(
                  AllOf(HasSubstr("4"), HasSubstr("4 elements"))));
  EXPECT_THROW((void)list.at(-5), std::out_of_range);
  list.clear();
  EXPECT_TRUE(list.empty());
  EXPECT_THROW((void)list.pop(), std::out_of_range);
  auto jobs = manager.list<Job>({{1, "a"}, {2, "b"}});
  EXPECT_EQ(jobs.pop(0).text, "a");
}

TEST(ManagerNamespace, OfAnyTypes) {
  Manager manager;
  Namespace ns = manager.ns();
  ns.set("n", 5);
  ns.set("text", "literal");
  ns.set("job", Job{1, "x"});
  EXPECT_EQ(ns.get<int>("n"), 5);
  EXPECT_EQ(ns.get<std::string>("text"), "literal");
  EXPECT_EQ(ns.get<Job>("job").text, "x");
  EXPECT_THAT([&] { (void)ns.get<double>("n"); },
              ThrowsMessage<shoal::TypeMismatch>(
                  AllOf(HasSubstr("double"), HasSubstr("int"))));
  EXPECT_THROW((void)ns.get<int>("m"), std::out_of_range);
  EXPECT_EQ((ns.update<int>("n", [](int n) { return n + 1; })), 6);
  ns.set("n", 2.5);
  EXPECT_EQ(ns.get<double>("n"), 2.5);
  EXPECT_THAT(ns.names(), ElementsAre("job", "n", "text"));
  EXPECT_TRUE(ns.erase("n"));
  EXPECT_FALSE(ns.contains("n"));
}

// ---- by others ----

class ManagerStart : public testing::TestWithParam<StartMethod> {
 protected:
  static void TearDownTestSuite() { shoal::forkserver::stop(); }
};

TEST_P(ManagerStart, ProxiesGoToOtherProcesses) {
  Manager manager(GetParam());
  auto dict = manager.dict<std::string, int>();
  auto list = manager.list<int>();
  Process child(
      {.start_method = GetParam()},
      [](Dict<std::string, int> d, List<int> l) {
        d.set("from the child", 1);
        l.append(d.at("from the parent"));
      },
      dict, list);
  dict.set("from the parent", 7);
  child.start();
  EXPECT_TRUE(child.join(kPatience));
  EXPECT_EQ(child.exitcode(), 0);
  EXPECT_EQ(dict.at("from the child"), 1);
  EXPECT_THAT(list.copy(), ElementsAre(7));
}

TEST_P(ManagerStart, NothingIsLostBetweenProcesses) {
  Manager manager(GetParam());
  auto dict = manager.dict<std::string, int>({{"n", 0}});
  auto list = manager.list<int>();
  constexpr int kEach = 200;
  std::vector<Process> children;
  for (int n = 0; n < 3; ++n)
    children
        .emplace_back(
            shoal::ProcessOptions{.start_method = GetParam()},
            [](Dict<std::string, int> d, List<int> l) {
              for (int i = 0; i < kEach; ++i) {
                d.update("n", [](int k) { return k + 1; });
                l.append(i);
              }
            },
            dict, list)
        .start();
  for (Process& child : children) {
    EXPECT_TRUE(child.join(kPatience));
    EXPECT_EQ(child.exitcode(), 0);
  }
  EXPECT_EQ(dict.at("n"), 3 * kEach);
  EXPECT_EQ(list.size(), std::size_t{3 * kEach});
}

INSTANTIATE_TEST_SUITE_P(Methods, ManagerStart,
                         testing::Values(StartMethod::fork, StartMethod::spawn,
                                         StartMethod::forkserver),
                         [](const auto& info) {
                           return info.param == StartMethod::fork ? "fork"
                                  : info.param == StartMethod::spawn
                                      ? "spawn"
                                      : "forkserver";
                         });

TEST(ManagerNested, AtWill) {
  Manager manager;
  auto outer = manager.dict<std::string, List<int>>();
  {
    auto inner = manager.list<int>({1, 2});
    outer.set("inner", inner);
  }
  // It lives in the other one only.
  List<int> again = outer.at("inner");
  again.append(3);
  EXPECT_THAT(outer.at("inner").copy(), ElementsAre(1, 2, 3));
  auto deep = manager.list<Dict<std::string, List<int>>>();
  deep.append(outer);
  deep.at(0).at("inner").append(4);
  EXPECT_THAT(again.copy(), ElementsAre(1, 2, 3, 4));
  EXPECT_TRUE(deep.at(0) == outer);
  // Handles of shared memory, too.
  auto queues = manager.dict<std::string, shoal::Queue<int>>();
  shoal::Queue<int> queue(4);
  queues.set("q", queue);
  Process child([](auto qs) { qs.at("q").put(5); }, queues);
  child.start();
  EXPECT_EQ(queue.get(kPatience), 5);
  child.join();
}

TEST(ManagerNested, ThroughQueuesAlsoWhenTheSenderHasEnded) {
  Manager manager;
  shoal::Queue<List<int>> queue(2);
  Child sender([&](Child&) {
    auto list = manager.list<int>({5});
    queue.put(list);
  });
  EXPECT_EQ(sender.join(), 0) << sender.failures();
  EXPECT_THAT(queue.get(kPatience).copy(), ElementsAre(5));
}

// As many as the limit of descriptors lets live, again and again.
TEST(ManagerLife, OfObjectsIsAsLongAsTheirProxies) {
  Manager manager;
  for (int n = 0; n < 3000; ++n) {
    auto list = manager.list<int>();
    list.append(n);
  }
  // Those of a client that was killed go, too.
  Shared<std::atomic<int>> made;
  Child client([&](Child&) {
    std::vector<List<int>> lists;
    for (int n = 0; n < 200; ++n) lists.push_back(manager.list<int>());
    *made = 1;
    for (;;) pause();
  });
  ASSERT_TRUE(eventually([&] { return *made == 1; }));
  EXPECT_GT(descriptors_of(manager.pid()), 200u);
  client.kill();
  client.join();
  EXPECT_TRUE(eventually([&] { return descriptors_of(manager.pid()) < 100; }))
      << descriptors_of(manager.pid());
}

TEST(ManagerLife, ServerKilledIsPeerDiedAtOnce) {
  Manager manager;
  auto dict = manager.dict<std::string, int>({{"a", 1}});
  Shared<std::atomic<int>> asked;
  Child other([&](Child& self) {
    *asked = dict.at("a");
    self.expect(eventually([&] { return !manager.is_alive(); }), "it ends");
    try {
      (void)dict.at("a");
      self.expect(false, "answered by the dead");
    } catch (const PeerDied&) {
    }
  });
  ASSERT_TRUE(eventually([&] { return *asked == 1; }));
  // One that is asked while it is in a request.
  Thread asks([&] {
    EXPECT_THROW(dict.update("a",
                             [](int) -> int {
                               raise(SIGKILL);
                               return 0;
                             }),
                 PeerDied);
  });
  EXPECT_TRUE(asks.ends());
  EXPECT_THROW((void)dict.at("a"), PeerDied);
  EXPECT_THROW((void)manager.list<int>(), PeerDied);
  EXPECT_EQ(other.join(), 0) << other.failures();
  EXPECT_TRUE(eventually([&] { return !manager.is_alive(); }));
}

// A forked process has a copy of the Manager, and does not end it.
TEST(ManagerLife, IsItsMakers) {
  Manager manager;
  auto dict = manager.dict<int, int>({{1, 1}});
  Child child([&](Child& self) {
    self.expect(manager.is_alive(), "it lives");
    self.expect(manager.pid() == 0, "not of this one");
    dict.set(2, 2);
    manager.shutdown();
    const Manager gone = std::move(manager);
  });
  EXPECT_EQ(child.join(), 0) << child.failures();
  EXPECT_EQ(dict.at(2), 2);
}

TEST(ManagerLife, ShutDown) {
  Manager manager;
  auto dict = manager.dict<int, int>();
  const pid_t server = manager.pid();
  EXPECT_TRUE(manager.is_alive());
  manager.shutdown();
  EXPECT_NE(kill(server, 0), 0);
  EXPECT_FALSE(manager.is_alive());
  EXPECT_THROW(dict.set(1, 1), PeerDied);
  manager.shutdown();
}

TEST(ManagerLife, ASignalFromTheTerminalIsNotForIt) {
  Manager manager;
  auto dict = manager.dict<int, int>({{1, 1}});
  kill(manager.pid(), SIGINT);
  EXPECT_EQ(dict.at(1), 1);
  EXPECT_TRUE(manager.is_alive());
}

TEST(ManagerLife, EndsWithWhoMadeIt) {
  Shared<std::atomic<pid_t>> server;
  Child maker([&](Child&) {
    Manager manager;
    *server = manager.pid();
    for (;;) pause();
  });
  ASSERT_TRUE(eventually([&] { return *server != 0; }));
  maker.kill();
  maker.join();
  EXPECT_TRUE(eventually([&] { return kill(*server, 0) != 0; }));
}

// In calls that have descriptors with them, and others.
TEST(ManagerLife, KilledClientsHarmNobody) {
  Manager manager;
  auto dict = manager.dict<int, int>();
  auto lists = manager.dict<int, List<int>>();
  for (int n = 0; n < 40; ++n) {
    Shared<std::atomic<int>> begun;
    Child client([&](Child&) {
      for (int i = 0;; ++i) {
        dict.set(i % 10, i);
        lists.set(i % 3, manager.list<int>({i}));
        ++*begun;
      }
    });
    ASSERT_TRUE(eventually([&] { return *begun > n; }));
    client.kill();
    EXPECT_EQ(client.join(), -SIGKILL);
    EXPECT_LE(dict.size(), 10u);
    for (const List<int>& list : lists.values()) EXPECT_LE(list.size(), 1u);
  }
  dict.set(0, -1);
  EXPECT_EQ(dict.at(0), -1);
}

// One client's slow request; others ask for other things meanwhile.
TEST(ManagerConcurrency, OneDelaysNoOther) {
  Manager manager;
  auto slow = manager.dict<std::string, int>({{"a", 1}});
  auto fast = manager.dict<std::string, int>({{"a", 1}});
  shoal::Event begun, over;
  auto events = manager.list<shoal::Event>({begun, over});
  Thread waits([&] {
    const auto wait = shoal::partial(
        [](shoal::Event b, shoal::Event o, int n) {
          b.set();
          o.wait();
          return n + 1;
        },
        begun, over);
    EXPECT_EQ(slow.update("a", wait), 2);
  });
  ASSERT_TRUE(begun.wait(kPatience));
  for (int n = 0; n < 100; ++n) EXPECT_EQ(fast.at("a"), 1);
  // A client blocked in a queue of the Manager's, likewise.
  auto queue = manager.queue<int>(2);
  Thread gets([&] { EXPECT_EQ(queue.get(), 3); });
  EXPECT_TRUE(gets.falls_asleep());
  EXPECT_EQ(fast.at("a"), 1);
  queue.put(3);
  EXPECT_TRUE(gets.ends());
  over.set();
  EXPECT_TRUE(waits.ends());
}

TEST(ManagerConcurrency, AManagerIsNotAskedByItself) {
  Manager manager;
  auto dict = manager.dict<int, List<int>>();
  dict.set(1, manager.list<int>());
  const auto grow = [](List<int> list) {
    list.append(1);
    return list;
  };
  EXPECT_THROW(dict.update(1, grow), std::logic_error);
}

TEST(ManagerConcurrency, ManyThreads) {
  Manager manager;
  auto dict = manager.dict<int, int>();
  std::vector<std::thread> threads;
  for (int n = 0; n < 8; ++n)
    threads.emplace_back([&, n] {
      for (int i = 0; i < 100; ++i)
        dict.update(
            i, [](int k) { return k + 1; }, 0);
      static_cast<void>(n);
    });
  for (auto& thread : threads) thread.join();
  for (const auto& [key, value] : dict.items()) EXPECT_EQ(value, 8) << key;
  EXPECT_EQ(dict.size(), 100u);
}

// ---- by strangers ----

// Also by processes that were forked when their parent had used some.
TEST(ManagerNamed, IsOpenedInForkedProcesses) {
  const std::string name = shoal::support::unique_name("manager");
  auto made = Manager::create(name);
  auto list = made.list<int>("list");
  for (int n = 0; n < 2; ++n) {
    Child child([&](Child& self) {
      auto opened = Manager::open(name);
      opened.list<int>("list").append(n);
      list.append(10 + n);
      Child grandchild([&](Child&) {
        Manager::open(name).list<int>("list").append(20 + n);
      });
      self.expect(grandchild.join() == 0, grandchild.failures());
    });
    EXPECT_EQ(child.join(), 0) << child.failures();
  }
  list.sort();
  EXPECT_THAT(list.copy(), ElementsAre(0, 1, 10, 11, 20, 21));
}

TEST(ManagerNamed, IsFoundByItsName) {
  const std::string name = shoal::support::unique_name("manager");
  EXPECT_EQ(code_of_refusal([&] { (void)Manager::open(name); }), ENOENT);
  EXPECT_THROW((void)Manager::create(""), std::invalid_argument);
  EXPECT_THROW((void)Manager::create("a b"), std::invalid_argument);
  EXPECT_THROW((void)Manager::open("a/b"), std::invalid_argument);
  { const auto longest = Manager::create(std::string(200, 'm')); }
  auto made = Manager::create(name);
  EXPECT_EQ(code_of_refusal([&] { (void)Manager::create(name); }), EEXIST);
  auto opened = Manager::open(name);
  EXPECT_TRUE(opened.is_alive());
  auto scores = made.dict<std::string, int>("scores");
  scores.set("a", 1);
  EXPECT_EQ((opened.dict<std::string, int>("scores").at("a")), 1);
  EXPECT_THAT(
      [&] { (void)opened.list<int>("scores"); },
      ThrowsMessage<shoal::TypeMismatch>(AllOf(HasSubstr("expected: list int"),
                                               HasSubstr("found:    dict "))));
  {
    auto list = opened.list<int>("jobs");
    list.append(5);
  }
  EXPECT_THAT(made.list<int>("jobs").copy(), ElementsAre(5));  // kept
  auto ns = made.ns("config");
  ns.set("x", 1);
  EXPECT_EQ(opened.ns("config").get<int>("x"), 1);
  opened.shutdown();  // not its own
  EXPECT_TRUE(made.is_alive());
  made.shutdown();
  EXPECT_THROW((void)opened.list<int>(), PeerDied);
  EXPECT_EQ(code_of_refusal([&] { (void)Manager::open(name); }), ENOENT);
}

// That is no relative: the same program, started by itself.
TEST(ManagerNamed, IsUsedByAStranger) {
  const std::string name = shoal::support::unique_name("manager");
  auto manager = Manager::create(name);
  auto scores = manager.dict<std::string, int>("scores");
  scores.set("here", 1);
  auto lists = manager.dict<int, List<int>>("lists");
  Child stranger([&](Child&) {
    shoal::support::exec_tests("DISABLED_ManagerStranger.Uses",
                               {"MANAGER=" + name});
  });
  EXPECT_EQ(stranger.join(), 0) << stranger.failures();
  EXPECT_EQ(scores.at("there"), 2);
  EXPECT_EQ(scores.at("here"), 101);
  EXPECT_THAT(lists.at(1).copy(), ElementsAre(5, 6));  // whose maker has ended
}

TEST(DISABLED_ManagerStranger, Uses) {
  auto manager = Manager::open(shoal::support::given("MANAGER"));
  auto scores = manager.dict<std::string, int>("scores");
  scores.set("there", 2);
  for (int i = 0; i < 100; ++i)
    scores.update("here", [](int n) { return n + 1; });
  EXPECT_THROW((void)scores.at("nowhere"), std::out_of_range);
  auto lists = manager.dict<int, List<int>>("lists");
  lists.set(1, manager.list<int>({5}));
  lists.at(1).append(6);
}

}  // namespace
