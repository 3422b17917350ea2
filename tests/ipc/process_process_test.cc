#include "shoal/ipc/process.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shoal/ipc/pidfd.h"
#include "tests/support/child.h"
#include "tests/support/formatting.h"
#include "tests/support/residue.h"

namespace shoal {
namespace {

using namespace std::chrono_literals;
using support::Child;
using support::eventually;
using support::kPatience;
using support::Shared;

using Flag = std::atomic<int>;

void await(const Flag& flag, int value = 1) {
  if (!eventually([&] { return flag >= value; })) _exit(97);
}

void sleep_for_ever() {
  for (;;) pause();
}

// A sanitizer handles these itself; nobody needs the core.
void crash(int number) {
  const rlimit none = {0, 0};
  setrlimit(RLIMIT_CORE, &none);
  signal(number, SIG_DFL);
  raise(number);
}

bool readable(int fd) { return wait_readable({fd}, now).has_value(); }

template <class F, class... A>
std::optional<int> run(F f, A... arguments) {
  Process process(std::move(f), std::move(arguments)...);
  process.start();
  if (!process.join(kPatience)) process.kill();
  return process.exitcode();
}

// ---- Construction

using NeedsInt = void (*)(int);

static_assert(!std::is_copy_constructible_v<Process>);
static_assert(!std::is_copy_assignable_v<Process>);
static_assert(std::is_nothrow_move_constructible_v<Process>);
static_assert(std::is_nothrow_move_assignable_v<Process>);
static_assert(std::is_constructible_v<Process, NeedsInt, int>);
static_assert(!std::is_constructible_v<Process, NeedsInt>);
static_assert(!std::is_constructible_v<Process, ProcessOptions>);
static_assert(!std::is_constructible_v<Process, ProcessOptions, int>);
static_assert(!std::is_constructible_v<Process, void (*)(int&), int>);

TEST(ProcessArguments, AreDecayedAndMoved) {
  struct Counter {
    int base;
    void add(int n) const { exit(base + n); }
  };
  EXPECT_EQ(
      run([](std::unique_ptr<int> p) { exit(*p); }, std::make_unique<int>(3)),
      3);
  EXPECT_EQ(run(&Counter::add, Counter{40}, 2), 42);
  EXPECT_EQ(run([p = std::make_unique<int>(4)] { exit(*p); }), 4);
  const int constant = 5;
  Process lvalue([](int n) { exit(n); }, constant);
  lvalue.start();
  lvalue.join();
  EXPECT_EQ(lvalue.exitcode(), 5);
}

TEST(ProcessArguments, ALiteralTravelsAsString) {
  Process generic(
      [](auto text) {
        exit(std::is_same_v<decltype(text), std::string> && text == "abc");
      },
      "abc");
  Process pointer([](const char* text) { exit(text[1]); }, "abc");
  Process reference([](const std::string& text) { exit(text[2]); }, "abc");
  for (Process* process : {&generic, &pointer, &reference}) process->start();
  for (Process* process : {&generic, &pointer, &reference}) process->join();
  EXPECT_EQ(generic.exitcode(), 1);
  EXPECT_EQ(pointer.exitcode(), 'b');
  EXPECT_EQ(reference.exitcode(), 'c');
}

TEST(ProcessArguments, OptionsAreNoCallable) {
  const ProcessOptions options{.name = "named", .daemon = true};
  Process process(
      options, [](const ProcessOptions& o) { exit(o.name == "x"); },
      ProcessOptions{.name = "x"});
  EXPECT_EQ(process.name(), "named");
  EXPECT_TRUE(process.daemon());
  process.start();
  process.join();
  EXPECT_EQ(process.exitcode(), 1);
}

TEST(ProcessArguments, LeaveTheParentAtStart) {
  auto held = std::make_shared<int>(1);
  const std::weak_ptr<int> seen = held;
  Process process([](const std::shared_ptr<int>&) {}, std::move(held));
  EXPECT_FALSE(seen.expired());
  process.start();
  EXPECT_TRUE(seen.expired());
}

TEST(ProcessStartMethod, IsFork) {
  EXPECT_EQ(get_start_method(), StartMethod::fork);
  set_start_method(StartMethod::fork);
  EXPECT_EQ(get_start_method(), StartMethod::fork);
}

// ---- Ends

TEST(ProcessExit, EveryCode) {
  for (int code = 0; code < 256; ++code)
    ASSERT_EQ(run([code] { code % 2 == 0 ? exit(code) : _exit(code); }), code);
}

TEST(ProcessExit, BySignal) {
  for (const int number : {SIGSEGV, SIGKILL, SIGTERM, SIGABRT, SIGRTMIN})
    EXPECT_EQ(run(crash, number), -number);
}

TEST(ProcessExit, WhatItDidIsSeenAfterJoin) {
  const Shared<std::array<int, 1000>> plain;
  Process process([&] { plain->fill(7); });
  process.start();
  ASSERT_TRUE(process.join(kPatience));
  EXPECT_THAT(*plain, testing::Each(7));
}

// ---- Life

TEST(ProcessLife, BeforeStart) {
  Process process([] {});
  EXPECT_FALSE(process.is_alive());
  EXPECT_EQ(process.exitcode(), std::nullopt);
  EXPECT_EQ(process.pid(), 0);
  EXPECT_THROW(process.join(), std::logic_error);
  EXPECT_THROW(process.sentinel(), std::logic_error);
  EXPECT_THROW(process.terminate(), std::logic_error);
  EXPECT_THROW(process.kill(), std::logic_error);
  EXPECT_THROW(process.interrupt(), std::logic_error);
}

TEST(ProcessLife, StartsOnce) {
  Process process([] {});
  process.start();
  EXPECT_THROW(process.start(), std::logic_error);
  process.join();
  EXPECT_THROW(process.start(), std::logic_error);
}

TEST(ProcessLife, StartsOnceAlsoFromTwoThreads) {
  const Shared<Flag> runs;
  for (int round = 0; round < 50; ++round) {
    *runs = 0;
    Process process([&] { ++*runs; });
    Flag refused = 0;
    const auto start = [&] {
      try {
        process.start();
      } catch (const std::logic_error&) {
        ++refused;
      }
    };
    std::thread other(start);
    start();
    other.join();
    process.join();
    ASSERT_EQ(*runs, 1);
    ASSERT_EQ(refused, 1);
  }
}

TEST(ProcessLife, JoinKeepsItsTimeout) {
  Process process(sleep_for_ever);
  process.start();
  EXPECT_FALSE(process.join(now));
  EXPECT_FALSE(process.join(-5s));
  const auto before = std::chrono::steady_clock::now();
  EXPECT_FALSE(process.join(30ms));
  const auto took = std::chrono::steady_clock::now() - before;
  EXPECT_GE(took, 30ms);
  EXPECT_LT(took, 5s);
  EXPECT_TRUE(process.is_alive());
  EXPECT_EQ(process.exitcode(), std::nullopt);
  process.kill();
  EXPECT_TRUE(process.join());
  EXPECT_TRUE(process.join(now));
  EXPECT_TRUE(process.join());
  EXPECT_FALSE(process.is_alive());
  EXPECT_EQ(process.exitcode(), -SIGKILL);
}

TEST(ProcessLife, SignalsInterruptNoWait) {
  Child parent([](Child& self) {
    static volatile sig_atomic_t ticks = 0;
    struct sigaction action = {};
    action.sa_handler = [](int) { ticks = ticks + 1; };
    sigaction(SIGALRM, &action, nullptr);  // no SA_RESTART
    const itimerval tick = {{0, 1000}, {0, 1000}};
    Process process(sleep_for_ever);
    process.start();
    setitimer(ITIMER_REAL, &tick, nullptr);
    const auto before = std::chrono::steady_clock::now();
    self.expect(!process.join(100ms), "runs");
    const auto took = std::chrono::steady_clock::now() - before;
    self.expect(took >= 100ms && took < 5s, "took its time");
    self.expect(ticks > 10, "was interrupted");
    process.kill();
    self.expect(process.join(kPatience), "ended");
  });
  EXPECT_EQ(parent.join(), 0) << parent.failures();
}

TEST(ProcessLife, SignalsByName) {
  const auto status_after = [](auto send) {
    Process process(sleep_for_ever);
    process.start();
    send(process);
    EXPECT_TRUE(process.join(kPatience));
    const auto status = process.exitcode();
    send(process);  // to one that has ended: nothing
    EXPECT_EQ(process.exitcode(), status);
    return status;
  };
  EXPECT_EQ(status_after([](Process& p) { p.terminate(); }), -SIGTERM);
  EXPECT_EQ(status_after([](Process& p) { p.kill(); }), -SIGKILL);
  EXPECT_EQ(status_after([](Process& p) { p.interrupt(); }), -SIGINT);
}

TEST(ProcessLife, StoppedIsAlive) {
  Process process(sleep_for_ever);
  process.start();
  ::kill(process.pid(), SIGSTOP);
  siginfo_t info = {};
  ASSERT_EQ(waitid(P_PID, process.pid(), &info, WSTOPPED | WNOWAIT), 0);
  EXPECT_TRUE(process.is_alive());
  EXPECT_FALSE(process.join(10ms));
  EXPECT_EQ(process.exitcode(), std::nullopt);
  process.kill();
  EXPECT_TRUE(process.join(kPatience));
}

TEST(ProcessLife, SentinelIsReadableAtTheEnd) {
  Process process(sleep_for_ever);
  process.start();
  const int sentinel = process.sentinel();
  EXPECT_FALSE(readable(sentinel));
  process.kill();
  EXPECT_TRUE(wait_readable({sentinel}, Deadline(kPatience)));
  EXPECT_TRUE(process.join());
  EXPECT_TRUE(readable(sentinel));
  EXPECT_EQ(process.sentinel(), sentinel);
}

TEST(ProcessLife, Closed) {
  Process process({.name = "closed"}, sleep_for_ever);
  process.start();
  EXPECT_THROW(process.close(), std::logic_error);
  process.kill();
  process.join();
  const int sentinel = process.sentinel();
  process.close();
  process.close();
  EXPECT_THROW(wait_readable({sentinel}, now), std::system_error);
  EXPECT_EQ(process.name(), "closed");
  EXPECT_THROW(process.start(), std::logic_error);
  EXPECT_THROW(process.join(), std::logic_error);
  EXPECT_THROW(process.is_alive(), std::logic_error);
  EXPECT_THROW(process.pid(), std::logic_error);
  EXPECT_THROW(process.exitcode(), std::logic_error);
  EXPECT_THROW(process.terminate(), std::logic_error);
  EXPECT_THROW(process.kill(), std::logic_error);
  EXPECT_THROW(process.interrupt(), std::logic_error);
  EXPECT_THROW(process.sentinel(), std::logic_error);
  EXPECT_THROW(process.daemon(), std::logic_error);
  Process unstarted([] {});
  unstarted.close();
  EXPECT_THROW(unstarted.start(), std::logic_error);
}

TEST(ProcessLife, Moves) {
  Process first(sleep_for_ever);
  first.start();
  const pid_t pid = first.pid();
  Process second(std::move(first));
  EXPECT_EQ(second.pid(), pid);
  EXPECT_THROW(first.pid(),
               std::logic_error);  // NOLINT(bugprone-use-after-move)
  Process third({.daemon = true}, sleep_for_ever);
  third.start();
  const Pidfd replaced = Pidfd::open(third.pid());
  third = std::move(second);
  EXPECT_TRUE(replaced.wait(now));  // as by its destructor
  EXPECT_EQ(third.pid(), pid);
  third.kill();
  EXPECT_TRUE(third.join(kPatience));
}

// ---- Reaping

TEST(ProcessReaping, OnceWhoeverAsks) {
  for (int round = 0; round < 30; ++round) {
    const Shared<Flag> go;
    Process process([&] {
      await(*go);
      exit(33);
    });
    process.start();
    Flag waiting = 0;
    Flag right = 0;
    std::vector<std::thread> threads;
    for (int i = 0; i < 8; ++i) {
      threads.emplace_back([&, i] {
        ++waiting;
        if (i % 4 == 1) eventually([&] { return !process.is_alive(); });
        if (i % 4 == 2) eventually([&] { return process.exitcode(); });
        if (process.join(kPatience) && process.exitcode() == 33) ++right;
      });
    }
    await(waiting, 8);
    *go = 1;
    for (std::thread& thread : threads) thread.join();
    ASSERT_EQ(right, 8);
  }
}

TEST(ProcessReaping, JoinReturnsThoughAGrandchildLives) {
  const Shared<Flag> grandchild;
  const Shared<Flag> go;
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  Process process([&] {
    const pid_t pid = fork();
    if (pid == 0) sleep_for_ever();  // holds all that was inherited
    *grandchild = pid;
    await(*go);
  });
  process.start();
  await(*grandchild);
  const Pidfd living = Pidfd::open(*grandchild);
  *go = 1;
  EXPECT_TRUE(process.join(kPatience));
  EXPECT_FALSE(living.wait(now));
  EXPECT_EQ(process.exitcode(), 0);
  living.signal(SIGKILL);
  EXPECT_EQ(waitpid(*grandchild, nullptr, 0), *grandchild);
  prctl(PR_SET_CHILD_SUBREAPER, 0);
}

// Linux 6.15 remembers the status of a process as long as it has a pidfd.
bool kernel_remembers() {
  utsname name;
  uname(&name);
  char* end;
  const long major = strtol(name.release, &end, 10);
  const long minor = strtol(end + 1, nullptr, 10);
  return major > 6 || (major == 6 && minor >= 15);
}

TEST(ProcessReaping, StatusTakenByAnother) {
  Child parent([](Child& self) {
    const auto stolen = [&](auto f, int status) {
      Process process(f);
      process.start();
      self.expect(waitpid(-1, nullptr, 0) == process.pid(), "stolen");
      self.expect(!process.is_alive(), "not alive");
      self.expect(process.join(kPatience), "join");
      self.expect(process.exitcode() == (kernel_remembers() ? status : 255),
                  "status " + std::to_string(*process.exitcode()));
      process.terminate();
      self.expect(active_children().empty(), "not active");
    };
    stolen([] { exit(7); }, 7);
    stolen([] { raise(SIGKILL); }, -SIGKILL);
  });
  EXPECT_EQ(parent.join(), 0) << parent.failures();
}

TEST(ProcessReaping, StatusTakenWhileThreadsAsk) {
  if (!kernel_remembers()) GTEST_SKIP() << "255 is as good here";
  Child parent([](Child& self) {
    for (int round = 0; round < 300; ++round) {
      Process process([] { exit(9); });
      process.start();
      std::thread thief([] { waitpid(-1, nullptr, 0); });
      self.expect(process.join(kPatience), "join");
      self.expect(process.exitcode() == 9, "status");
      thief.join();
    }
  });
  EXPECT_EQ(parent.join(), 0) << parent.failures();
}

TEST(ProcessReaping, SigchldIgnored) {
  Child parent([](Child& self) {
    signal(SIGCHLD, SIG_IGN);
    const Shared<Flag> go;
    Process process([&] {
      await(*go);
      exit(7);
    });
    process.start();
    self.expect(process.is_alive(), "alive");
    self.expect(!process.join(now), "not ended");
    *go = 1;
    self.expect(process.join(kPatience), "join");
    self.expect(!process.is_alive(), "not alive");
    self.expect(process.exitcode() == (kernel_remembers() ? 7 : 255), "status");
  });
  EXPECT_EQ(parent.join(), 0) << parent.failures();
}

TEST(ProcessReaping, ThousandCyclesLeaveNothing) {
  const auto before = support::residue();
  for (int cycle = 0; cycle < 1000; ++cycle) {
    Process process([] {});
    process.start();
    ASSERT_TRUE(process.join(kPatience));
  }
  EXPECT_EQ(support::residue(), before);
  EXPECT_TRUE(active_children().empty());
}

TEST(ProcessReaping, ManyThreadsStartAndJoin) {
  const Shared<Flag> ran;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int cycle = 0; cycle < 25; ++cycle) {
        Process process([&] { ++*ran; });
        process.start();
        process.join();
        if (process.exitcode() != 0) *ran = -1000;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(*ran, 100);
}

// ---- Relatives

TEST(ProcessRelatives, Names) {
  Child main([](Child& self) {
    const auto name_is = [&](const std::string& expected) {
      self.expect(current_process().name == expected, expected);
      self.expect(current_process().pid == getpid(), "pid");
    };
    name_is("MainProcess");
    Process first([&] {
      Process below([] {});
      Process second_below([] {});
      exit(current_process().name == "Process-1" &&
           below.name() == "Process-1:1" &&
           second_below.name() == "Process-1:2");
    });
    Process named({.name = "named"}, [&] {
      Process below([] {});
      exit(current_process().name == "named" && below.name() == "Process-2:1");
    });
    const Process third([] {});
    self.expect(first.name() == "Process-1", "first");
    self.expect(named.name() == "named", "named");
    self.expect(Process([] {}).name() == "Process-4", "fourth");
    first.start();
    named.start();
    first.join();
    named.join();
    self.expect(first.exitcode() == 1, "in the first");
    self.expect(named.exitcode() == 1, "in the named");
    name_is("MainProcess");
  });
  EXPECT_EQ(main.join(), 0) << main.failures();
}

TEST(ProcessRelatives, DaemonIsInherited) {
  const auto daemons = [] {
    Process inherits([] {});
    Process given({.daemon = false}, [] {});
    exit((inherits.daemon() ? 2 : 0) + (given.daemon() ? 1 : 0));
  };
  EXPECT_FALSE(Process([] {}).daemon());
  EXPECT_EQ(run(daemons), 0);
  Process daemon({.daemon = true}, daemons);
  daemon.start();
  daemon.join();
  EXPECT_EQ(daemon.exitcode(), 2);
}

TEST(ProcessRelatives, TheParentIsSeenUntilItEnds) {
  EXPECT_EQ(parent_process(), std::nullopt);
  struct Seen {
    Flag alive, joined_early, ended, go;
  };
  const Shared<Seen> seen;
  const Shared<Flag> pid;
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  Child parent([&](Child& self) {
    Process process([&, parent = getpid()] {
      *pid = getpid();
      const auto info = parent_process();
      seen->alive = info && info->pid == parent && info->is_alive() &&
                    info->name == "MainProcess";
      seen->joined_early = info->join(10ms);
      seen->go = 1;
      seen->ended = info->join(kPatience) && !info->is_alive();
    });
    process.start();
    sleep_for_ever();
    self.expect(false, "unreachable");
  });
  await(seen->go);
  EXPECT_EQ(seen->alive, 1);
  EXPECT_EQ(seen->joined_early, 0);
  parent.kill();
  EXPECT_EQ(parent.join(), -SIGKILL);
  EXPECT_EQ(waitpid(*pid, nullptr, 0), *pid);
  EXPECT_EQ(seen->ended, 1);
  prctl(PR_SET_CHILD_SUBREAPER, 0);
}

TEST(ProcessRelatives, ItselfCannotBeJoined) {
  EXPECT_TRUE(current_process().is_alive());
  EXPECT_THROW(current_process().join(), std::logic_error);
  // In a child, the same object is its parent.
  EXPECT_EQ(run([self = current_process()] {
              exit(self.is_alive() && !self.join(now));
            }),
            1);
}

TEST(ProcessRelatives, ActiveChildrenAreThoseThatRun) {
  EXPECT_TRUE(active_children().empty());
  Process one({.name = "one"}, sleep_for_ever);
  Process two({.name = "two"}, sleep_for_ever);
  Process unstarted([] {});
  one.start();
  two.start();
  auto active = active_children();
  ASSERT_EQ(active.size(), 2u);
  EXPECT_EQ(active[0].name, "one");
  EXPECT_EQ(active[0].pid, one.pid());
  EXPECT_TRUE(active[0].is_alive());
  EXPECT_FALSE(active[0].join(now));
  EXPECT_EQ(active[1].name, "two");
  one.kill();
  EXPECT_TRUE(wait_readable({one.sentinel()}, Deadline(kPatience)));
  const auto rest = active_children();
  ASSERT_EQ(rest.size(), 1u);
  EXPECT_EQ(rest[0].pid, two.pid());
  EXPECT_EQ(start_time(one.pid()), std::nullopt);  // reaped
  two.kill();
  EXPECT_TRUE(rest[0].join(kPatience));
  EXPECT_EQ(two.exitcode(), -SIGKILL);
  EXPECT_FALSE(active[0].is_alive());
  EXPECT_EQ(run([] { exit(active_children().empty()); }), 1);
}

TEST(ProcessRelatives, AnInheritedProcessIsTheParents) {
  auto sibling = std::make_unique<Process>(ProcessOptions{.name = "sibling"},
                                           sleep_for_ever);
  sibling->start();
  const auto refused = [](auto use) {
    try {
      use();
    } catch (const std::logic_error&) {
      return 1;
    }
    return 0;
  };
  EXPECT_EQ(run([&] {
              Process& p = *sibling;
              const int count =
                  refused([&] { p.start(); }) + refused([&] { p.join(now); }) +
                  refused([&] { p.is_alive(); }) + refused([&] { p.pid(); }) +
                  refused([&] { p.exitcode(); }) + refused([&] { p.kill(); }) +
                  refused([&] { p.terminate(); }) +
                  refused([&] { p.interrupt(); }) +
                  refused([&] { p.close(); }) + refused([&] { p.sentinel(); });
              if (p.name() != "sibling") exit(100);
              sibling.reset();
              exit(count);
            }),
            10);
  EXPECT_TRUE(sibling->is_alive());
  sibling->kill();
  EXPECT_TRUE(sibling->join(kPatience));
}

TEST(ProcessRelatives, AForkedChildCanUseAnInheritedLibrary) {
  // Another thread is in start() and join() all the time.
  Flag stop = 0;
  std::thread busy([&] {
    while (stop == 0) run([] {});
  });
  for (int round = 0; round < 50; ++round) {
    Child forked([](Child& self) {
      self.expect(active_children().empty(), "no children yet");
      self.expect(run([] { exit(3); }) == 3, "a process of its own");
    });
    ASSERT_EQ(forked.join(), 0) << forked.failures();
  }
  stop = 1;
  busy.join();
}

// ---- Daemons

struct Family {
  Flag daemon, daemon_below, child, ready;
};

TEST(ProcessDaemon, EndsWithItsParentAlsoBySigkill) {
  const Shared<Family> family;
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  Child parent([&](Child&) {
    Process daemon({.daemon = true}, [&] {
      family->daemon = getpid();
      Process below([&] {  // a daemon too
        family->daemon_below = getpid();
        ++family->ready;
        sleep_for_ever();
      });
      below.start();
      ++family->ready;
      sleep_for_ever();
    });
    Process child([&] {
      family->child = getpid();
      ++family->ready;
      sleep_for_ever();
    });
    daemon.start();
    child.start();
    sleep_for_ever();
  });
  await(family->ready, 3);
  const Pidfd daemon = Pidfd::open(family->daemon);
  const Pidfd below = Pidfd::open(family->daemon_below);
  const Pidfd child = Pidfd::open(family->child);
  EXPECT_FALSE(daemon.wait(now));
  parent.kill();
  EXPECT_EQ(parent.join(), -SIGKILL);
  EXPECT_TRUE(daemon.wait(kPatience));
  EXPECT_TRUE(below.wait(kPatience));
  EXPECT_FALSE(child.wait(now));  // no daemon
  child.signal(SIGKILL);
  for (const pid_t pid :
       {+family->daemon, +family->daemon_below, +family->child}) {
    int status = 0;
    EXPECT_EQ(waitpid(pid, &status, 0), pid);
    EXPECT_EQ(WTERMSIG(status), SIGKILL);
  }
  prctl(PR_SET_CHILD_SUBREAPER, 0);
}

TEST(ProcessDaemon, OutlivesTheThreadThatStartedIt) {
  const Shared<Flag> asked;
  const Shared<Flag> answered;
  Process daemon({.daemon = true}, [&] {
    for (int n = 1;; ++n) {
      await(*asked, n);
      *answered = n;
    }
  });
  pid_t thread_id = 0;
  std::thread starter([&] {
    thread_id = gettid();
    daemon.start();
    *asked = 1;
    await(*answered);  // it is set up when its starter ends
  });
  starter.join();
  // The kernel is done with the thread, so that what its end does was done.
  ASSERT_TRUE(eventually([&] { return tgkill(getpid(), thread_id, 0) != 0; }));
  for (int n = 2; n <= 100; ++n) {
    *asked = n;
    ASSERT_TRUE(eventually([&] { return *answered == n; }, 10s));
  }
  EXPECT_TRUE(daemon.is_alive());
}

TEST(ProcessDaemon, DestructorSendsSigterm) {
  static const Shared<Flag> terminated;
  const Shared<Flag> ready;
  {
    Process daemon({.daemon = true}, [&] {
      signal(SIGTERM, [](int) {
        *terminated = 1;
        _exit(0);
      });
      *ready = 1;
      sleep_for_ever();
    });
    daemon.start();
    await(*ready);
  }
  EXPECT_EQ(*terminated, 1);
}

TEST(ProcessDaemon, DestructorSendsSigkillAfterASecond) {
  const Shared<Flag> ready;
  auto daemon = std::make_unique<Process>(ProcessOptions{.daemon = true}, [&] {
    signal(SIGTERM, SIG_IGN);
    *ready = 1;
    sleep_for_ever();
  });
  daemon->start();
  await(*ready);
  const Pidfd pidfd = Pidfd::open(daemon->pid());
  const auto before = std::chrono::steady_clock::now();
  daemon.reset();
  const auto took = std::chrono::steady_clock::now() - before;
  EXPECT_TRUE(pidfd.wait(now));
  EXPECT_GE(took, 1s);
  EXPECT_LT(took, 10s);
}

TEST(ProcessDestructor, JoinsAndReaps) {
  const Shared<Flag> go;
  auto process = std::make_unique<Process>([&] { await(*go); });
  process->start();
  const pid_t pid = process->pid();
  const Pidfd pidfd = Pidfd::open(pid);
  std::thread releases([&] {
    // Not to order anything: a destructor that does not join is past by then.
    poll(nullptr, 0, 50);
    *go = 1;
  });
  process.reset();
  EXPECT_EQ(*go, 1);
  EXPECT_TRUE(pidfd.wait(now));
  EXPECT_EQ(start_time(pid), std::nullopt);
  releases.join();
}

TEST(ProcessDestructor, OfTheProgramTerminatesDaemonsAndJoinsOthers) {
  struct Seen {
    Flag ready, terminated, at_exit, joined;
  };
  static const Shared<Seen> seen;
  Process program([] {
    auto* daemon = new Process({.daemon = true}, [] {
      signal(SIGTERM, [](int) {
        seen->terminated = 1;
        _exit(0);
      });
      ++seen->ready;
      sleep_for_ever();
    });
    auto* stubborn = new Process({.daemon = true}, [] {
      signal(SIGTERM, SIG_IGN);
      ++seen->ready;
      sleep_for_ever();
    });
    auto* child = new Process([] {
      ++seen->ready;
      await(seen->at_exit);
      seen->joined = 1;
    });
    for (Process* process : {daemon, stubborn, child}) process->start();
    atexit([] { seen->at_exit = 1; });  // before the library's own
    await(seen->ready, 3);
    exit(3);
  });
  program.start();
  EXPECT_TRUE(program.join(kPatience));
  EXPECT_EQ(program.exitcode(), 3);
  EXPECT_EQ(seen->terminated, 1);
  EXPECT_EQ(seen->joined, 1);
}

TEST(ProcessDestructor, AForkThatExitsLeavesItsParentsChildrenAlone) {
  Process daemon({.daemon = true}, sleep_for_ever);
  daemon.start();
  Child forked([](Child&) { exit(4); });  // with all inherited handlers
  EXPECT_EQ(forked.join(), 4);
  EXPECT_TRUE(daemon.is_alive());
}

// ---- What the kernel refuses

// From here on `number` fails with `error`; if `except` is not 0, not with that
// first argument.
void make_fail(long number, int error, pid_t except = 0) {
  const auto load = [](std::size_t offset) {
    return sock_filter BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                                static_cast<unsigned>(offset));
  };
  const auto equals = [](unsigned value, unsigned char yes, unsigned char no) {
    return sock_filter BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, yes, no);
  };
  std::array<sock_filter, 6> code = {
      load(offsetof(seccomp_data, nr)),
      equals(static_cast<unsigned>(number), 0, 3),
      load(offsetof(seccomp_data, args)),
      equals(static_cast<unsigned>(except), 1, 0),
      sock_filter BPF_STMT(BPF_RET | BPF_K,
                           SECCOMP_RET_ERRNO | static_cast<unsigned>(error)),
      sock_filter BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
  const sock_fprog program = {static_cast<unsigned short>(code.size()),
                              code.data()};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
      prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
    throw std::system_error(errno, std::generic_category(), "seccomp");
}

// Another thread has stdout, and starts one itself.
TEST(ProcessStart, WaitsForStdoutWithoutALock) {
  Child program([](Child& self) {
    std::atomic<int> started{0};
    const auto start_some = [&](bool with_stdout) {
      for (int n = 0; n < 100; ++n) {
        if (with_stdout) flockfile(stdout);
        Process process([] {});
        process.start();
        if (with_stdout) funlockfile(stdout);
        process.join();
        self.expect(process.exitcode() == 0, "exit code");
        ++started;
      }
    };
    std::thread other(start_some, false);
    start_some(true);
    other.join();
    self.expect(started == 200, "all");
  });
  EXPECT_EQ(program.join(2 * kPatience), 0) << program.failures();
}

// With a global locale of its own each stream takes a lock of libstdc++, which
// a fork inherits as it is.
TEST(ProcessStart, OfADaemonWhileAnotherThreadFormats) {
  Child program([](Child& self) {
    const support::Formatting elsewhere;
    for (int n = 0; n < 100 && self.failures().empty(); ++n) {
      Process process({.daemon = true}, [] {});
      process.start();
      self.expect(process.join(kPatience / 2), "it hangs");
    }
  });
  EXPECT_EQ(program.join(), 0) << program.failures();
}

TEST(ProcessRefused, ForkFails) {
  Child parent([](Child& self) {
    Process process({.name = "unborn"}, [] {});
    make_fail(SYS_clone, EAGAIN);
    const auto before = support::residue();
    try {
      process.start();
      self.expect(false, "started");
    } catch (const std::system_error& error) {
      const std::string_view text = error.what();
      self.expect(error.code().value() == EAGAIN, "EAGAIN");
      self.expect(text.find("fork") != text.npos, text);
      self.expect(text.find("unborn") != text.npos, text);
    }
    self.expect(!process.is_alive(), "not alive");
    self.expect(process.pid() == 0, "no pid");
    self.expect(active_children().empty(), "no child");
    self.expect(support::residue() == before, "nothing left");
  });
  EXPECT_EQ(parent.join(), 0) << parent.failures();
}

void allow_descriptors(rlim_t most) {
  rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = std::min(most, limit.rlim_max);
  setrlimit(RLIMIT_NOFILE, &limit);
}
void allow_all_descriptors() { allow_descriptors(RLIM_INFINITY); }

TEST(ProcessRefused, NoDescriptors) {
  Child parent([](Child& self) {
    const Shared<Flag> ran;
    Process process([&] { ++*ran; });
    const auto before = support::residue();
    const int next = dup(0);
    close(next);
    int refusals = 0;
    // In the child as well: UBSan needs some to look at an object.
    pthread_atfork(nullptr, nullptr, allow_all_descriptors);
    for (rlim_t spare = 0;; ++spare) {
      allow_descriptors(static_cast<rlim_t>(next) + spare);
      std::exception_ptr refusal;
      try {
        process.start();
      } catch (...) {
        refusal = std::current_exception();
      }
      allow_all_descriptors();
      if (refusal == nullptr) break;
      ++refusals;
      try {
        std::rethrow_exception(refusal);
      } catch (const std::system_error& error) {
        self.expect(error.code().value() == EMFILE, error.what());
      }
      self.expect(*ran == 0, "did not run");
      self.expect(support::residue() == before, "nothing left");
    }
    self.expect(process.join(kPatience), "join");
    self.expect(process.exitcode() == 0, "ran after all");
    self.expect(*ran == 1, "once");
    self.expect(refusals == 3, "descriptors: " + std::to_string(refusals));
  });
  EXPECT_EQ(parent.join(), 0) << parent.failures();
}

TEST(ProcessRefused, GoneBeforeThereIsAPidfd) {
  const Shared<Flag> go;
  Child parent([&](Child& self) {
    make_fail(SYS_pidfd_open, ESRCH, getpid());
    Process process([&] { await(*go); });
    process.start();
    self.expect(!process.is_alive(), "not alive");
    self.expect(process.join(now), "joined");
    self.expect(process.exitcode() == 255, "unknown");
    self.expect(readable(process.sentinel()), "sentinel");
    process.terminate();
    self.expect(active_children().empty(), "not active");
    *go = 1;
    self.expect(waitpid(process.pid(), nullptr, 0) > 0, "it only seemed so");
  });
  EXPECT_EQ(parent.join(), 0) << parent.failures();
}

}  // namespace
}  // namespace shoal
