// The same program text under every start method: what process_process_test.cc
// asks of fork, asked of all three, by functions that travel.

#include "shoal/ipc/process.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shoal/ipc/partial.h"
#include "shoal/ipc/pidfd.h"
#include "tests/ipc/process_scene.h"
#include "tests/support/child.h"
#include "tests/support/residue.h"

namespace shoal {
namespace {

using namespace std::chrono_literals;
using namespace std::string_literals;
using support::await;
using support::Child;
using support::eventually;
using support::Flag;
using support::kPatience;
using support::Meeting;
using support::run_by;
using support::sleep_for_ever;
using support::started;
using testing::HasSubstr;

class ProcessMethod
    : public support::WithForkserver<testing::TestWithParam<StartMethod>> {
 protected:
  static StartMethod method() { return GetParam(); }
  static bool forks() { return method() == StartMethod::fork; }
};
INSTANTIATE_TEST_SUITE_P(, ProcessMethod,
                         testing::Values(StartMethod::fork,
                                         StartMethod::forkserver,
                                         StartMethod::spawn),
                         testing::PrintToStringParamName());

bool readable(int fd) { return wait_readable({fd}, now).has_value(); }

void leave(int code) { exit(code); }
void crash(int number) {
  const rlimit none = {0, 0};
  setrlimit(RLIMIT_CORE, &none);
  signal(number, SIG_DFL);
  raise(number);
}

// ---- Functions

struct Counter {
  int base;
  void add(int n) const { exit(base + n); }
};
struct Named {  // a function object that is a Message
  std::string name;
  std::vector<int> numbers;
  void operator()(int n) const {
    exit(n + static_cast<int>(name.size() + numbers.size()));
  }
};
struct Derived : Counter {
  int more;
};
template <class T>
void leave_with_size(std::vector<T> all) {
  exit(static_cast<int>(all.size()));
}

TEST_P(ProcessMethod, CallsWhatPoolCalls) {
  EXPECT_EQ(run_by(method(), leave, 3), 3);
  EXPECT_EQ(run_by(method(), &leave, 4), 4);
  EXPECT_EQ(
      run_by(method(), &leave_with_size<std::string>, std::vector{"a"s, "b"s}),
      2);
  EXPECT_EQ(run_by(
                method(), [](int n) { exit(n + 1); }, 4),
            5);
  EXPECT_EQ(
      run_by(
          method(), [](auto n) { exit(static_cast<int>(n.size())); }, "abc"s),
      3);
  EXPECT_EQ(run_by(method(), &Counter::add, Counter{40}, 2), 42);
  EXPECT_EQ(run_by(method(), Named{"abc", {1, 2}}, 5), 10);
  int one = 1;
  int two = 2;
  EXPECT_EQ(run_by(method(), [one, two] { exit(one + 10 * two); }), 21);
  EXPECT_EQ(run_by(
                method(), [](std::unique_ptr<int> p) { exit(*p); },
                std::make_unique<int>(3)),
            3);
}

TEST_P(ProcessMethod, CallsPartials) {
  EXPECT_EQ(run_by(method(), partial(leave, 3)), 3);
  const auto sum = [](const std::string& text, std::vector<int> numbers,
                      int n) {
    exit(static_cast<int>(text.size() + numbers.size()) + n);
  };
  EXPECT_EQ(run_by(method(), partial(sum, "abc", std::vector{1, 2}), 10), 15);
  EXPECT_EQ(run_by(method(), partial(partial(sum, "abc"), std::vector{1}), 1),
            5);
  EXPECT_EQ(run_by(method(), partial(&Counter::add, Counter{20}, 3)), 23);
}

TEST_P(ProcessMethod, CallsClosuresByValue) {
  Derived derived;  // not standard-layout
  derived.base = 2;
  derived.more = 3;
  EXPECT_EQ(run_by(method(), by_value([derived](int n) {
                     exit(derived.base + derived.more + n);
                   }),
                   4),
            9);
}

TEST_P(ProcessMethod, WhatCannotTravelIsRefusedUnlessItIsAFork) {
  const auto shared = std::make_shared<int>(7);
  int local = 7;
  std::function<void()> function = [&] { exit(local); };
  Process captures({.start_method = method()}, [&local] { exit(local); });
  Process opaque({.start_method = method()}, function);
  Process argument(
      {.start_method = method()},
      [](int, const std::shared_ptr<int>& p) { exit(*p); }, 1, shared);
  Process pointer(
      {.start_method = method()}, [](const int* p) { exit(*p); },
      static_cast<const int*>(&local));
  std::vector<std::string> texts;
  for (Process* process : {&captures, &opaque, &argument, &pointer}) {
    for (int again = 0; again < 2; ++again) {
      try {
        process->start();
        process->join();
        EXPECT_EQ(process->exitcode(), 7);
        break;
      } catch (const std::invalid_argument& error) {
        texts.emplace_back(error.what());
      }
    }
    EXPECT_EQ(process->pid() == 0, !forks());
    EXPECT_FALSE(process->is_alive());
  }
  EXPECT_TRUE(active_children().empty());
  if (forks()) return;
  ASSERT_EQ(texts.size(), 8u);
  EXPECT_THAT(texts[0], HasSubstr("the function of a Process"));
  EXPECT_THAT(texts[2], HasSubstr("std::function<void ()>"));
  EXPECT_THAT(texts[4], HasSubstr("argument 2 of a Process"));
  EXPECT_THAT(texts[4], HasSubstr("std::shared_ptr<int>"));
  EXPECT_THAT(texts[6], HasSubstr("argument 1"));
  for (const auto& text : texts)
    EXPECT_THAT(text, HasSubstr("StartMethod::fork takes any"));
}

TEST_P(ProcessMethod, ArgumentsOfAnySize) {
  struct Sum {
    std::uint64_t sum;
  };
  for (const std::size_t count : {0u, 1u, 4096u, 3'000'000u}) {
    const Meeting<Sum> met;
    std::vector<std::uint32_t> numbers(count);
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < count; ++i)
      sum += numbers[i] = static_cast<std::uint32_t>(i * 2654435761u);
    const auto status = run_by(
        method(),
        [](std::string path, std::vector<std::uint32_t> all) {
          const Meeting<Sum> met(path);
          for (const std::uint32_t n : all) met->sum += n;
          exit(5);
        },
        met.path(), std::move(numbers));
    EXPECT_EQ(status, 5);
    EXPECT_EQ(met->sum, sum);
  }
}

TEST_P(ProcessMethod, ArgumentsLeaveTheParentAtStart) {
  auto process = started(method(), leave_with_size<int>, std::vector<int>(3));
  process.join();
  EXPECT_EQ(process.exitcode(), 3);
}

TEST(ProcessStartMethod, IsForkUnlessSet) {
  EXPECT_EQ(get_start_method(), StartMethod::fork);
  const auto starts_by = [](StartMethod method) {
    set_start_method(method);
    EXPECT_EQ(get_start_method(), method);
    // In a fork this is not 0.
    static int copied = 0;
    copied = 1;
    Process process([] { exit(copied); });
    process.start();
    process.join();
    copied = 0;
    return process.exitcode() == 1 ? StartMethod::fork : StartMethod::spawn;
  };
  EXPECT_EQ(starts_by(StartMethod::spawn), StartMethod::spawn);
  EXPECT_EQ(starts_by(StartMethod::forkserver), StartMethod::spawn);
  EXPECT_EQ(starts_by(StartMethod::fork), StartMethod::fork);
  forkserver::stop();
}

// ---- Ends

TEST_P(ProcessMethod, ExitCodes) {
  for (const int code : {0, 1, 2, 7, 127, 128, 200, 255}) {
    EXPECT_EQ(run_by(method(), leave, code), code);
    EXPECT_EQ(run_by(
                  method(), [](int n) { _exit(n); }, code),
              code);
  }
}

TEST_P(ProcessMethod, EndBySignal) {
  for (const int number : {SIGSEGV, SIGKILL, SIGTERM, SIGABRT, SIGRTMIN})
    EXPECT_EQ(run_by(method(), crash, number), -number);
}

// A standard stream that goes to memory while this object lives.
class Redirected {
 public:
  explicit Redirected(int fd)
      : fd_(fd), saved_(dup(fd)), memory_(memfd_create("redirected", 0)) {
    dup2(memory_, fd_);
  }
  Redirected(const Redirected&) = delete;
  Redirected& operator=(const Redirected&) = delete;
  ~Redirected() {
    dup2(saved_, fd_);
    close(saved_);
    close(memory_);
  }
  std::string text() const {
    std::array<char, 4096> buffer;
    const ssize_t n = pread(memory_, buffer.data(), buffer.size(), 0);
    return {buffer.data(), static_cast<std::size_t>(std::max<ssize_t>(n, 0))};
  }

 private:
  int fd_;
  int saved_;
  int memory_;
};

struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

TEST_P(ProcessMethod, AnExceptionIsTextOnStderr) {
  const Redirected captured(STDERR_FILENO);
  Process process({.name = "loader", .start_method = method()}, [] {
    std::set_terminate([] { _exit(99); });
    std::cerr << "before;";
    throw Failure("no such file");
  });
  process.start();
  EXPECT_TRUE(process.join(kPatience));
  EXPECT_EQ(process.exitcode(), 1);
  EXPECT_EQ(captured.text(),
            "before;Process loader (" + std::to_string(process.pid()) +
                "): terminate: shoal::(anonymous namespace)::Failure: "
                "no such file\n");
}

TEST_P(ProcessMethod, OutputIsWrittenOnceAndInOrder) {
  const Redirected captured(STDOUT_FILENO);
  printf("parent;");
  const auto status = run_by(method(), [] {
    printf("child;");
    std::cout << "its stream;";
  });
  EXPECT_EQ(status, 0);
  EXPECT_EQ(captured.text(), "parent;child;its stream;");
}

struct Handlers {
  Flag own, quick_own, of_static;
};
struct AtEnd {
  std::string path;
  ~AtEnd() {
    if (!path.empty()) ++Meeting<Handlers>(path)->of_static;
  }
};
AtEnd at_end;  // was there before the function, in every process

TEST_P(ProcessMethod, ExitRunsWhatTheFunctionRegistered) {
  static std::string where;
  const Meeting<Handlers> met;
  const auto status = run_by(
      method(),
      [](std::string path) {
        where = at_end.path = path;
        atexit([] { ++Meeting<Handlers>(where)->own; });
        at_quick_exit([] { ++Meeting<Handlers>(where)->quick_own; });
      },
      met.path());
  EXPECT_EQ(status, 0);
  EXPECT_EQ(met->own, 1);
  EXPECT_EQ(met->quick_own, 0);
  EXPECT_EQ(met->of_static, 0);
}

// ---- What it starts with

TEST_P(ProcessMethod, StdinIsEmpty) {
  EXPECT_EQ(run_by(method(),
                   [] {
                     struct stat input;
                     struct stat null;
                     char byte;
                     std::string word;
                     if (fstat(STDIN_FILENO, &input) != 0 ||
                         stat("/dev/null", &null) != 0)
                       exit(10);
                     if (input.st_rdev != null.st_rdev) exit(11);
                     if (fgetc(stdin) != EOF) exit(12);
                     if (std::cin >> word) exit(13);
                     if (read(STDIN_FILENO, &byte, 1) != 0) exit(14);
                   }),
            0);
}

std::string read_file(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST_P(ProcessMethod, ArgumentsAndTitleAreTheParents) {
  EXPECT_EQ(run_by(
                method(),
                [](std::string words, std::string title) {
                  if (read_file("/proc/self/cmdline") != words) exit(1);
                  if (read_file("/proc/self/comm") != title) exit(2);
                },
                read_file("/proc/self/cmdline"), read_file("/proc/self/comm")),
            0);
}

TEST_P(ProcessMethod, DirectoryEnvironmentAndMasksAreTheParents) {
  run_by(method(), [] {});  // a server that began before all of this
  Child parent([&](Child& self) {
    run_by(method(), [] {});
    const char* directory = getenv("TEST_TMPDIR");
    self.expect(chdir(directory != nullptr ? directory : "/tmp") == 0, "chdir");
    setenv("SHOAL_TEST_OF_METHODS", "1=2", 1);
    unsetenv("HOME");
    umask(0027);
    signal(SIGUSR2, SIG_IGN);
    signal(SIGUSR1, [](int) {});
    signal(SIGINT, SIG_DFL);
    sigset_t some;
    sigemptyset(&some);
    sigaddset(&some, SIGALRM);
    pthread_sigmask(SIG_SETMASK, &some, nullptr);
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    sched_setaffinity(0, sizeof one, &one);
    const auto status = run_by(
        method(),
        [](std::string path, bool forked) {
          std::array<char, 4096> here;
          if (getcwd(here.data(), here.size()) != path) exit(10);
          const char* value = getenv("SHOAL_TEST_OF_METHODS");
          if (value == nullptr || value != "1=2"s) exit(11);
          if (getenv("HOME") != nullptr) exit(12);
          if (getenv("SHOAL_STARTED_ANEW") != nullptr) exit(13);
          if (umask(0) != 0027) exit(14);
          const auto handler = [](int number) {
            struct sigaction action;
            sigaction(number, nullptr, &action);
            return action.sa_handler;
          };
          if (handler(SIGUSR2) != SIG_IGN) exit(15);
          if (!forked && handler(SIGUSR1) != SIG_DFL) exit(16);
          if (handler(SIGINT) != SIG_DFL) exit(17);
          if (handler(SIGCHLD) != SIG_DFL) exit(18);
          sigset_t mask;
          pthread_sigmask(SIG_SETMASK, nullptr, &mask);
          for (int number = 1; number < 32; ++number)
            if (sigismember(&mask, number) != (number == SIGALRM)) exit(19);
          cpu_set_t set;
          sched_getaffinity(0, sizeof set, &set);
          if (CPU_COUNT(&set) != 1 || cpu_count() != 1) exit(20);
        },
        std::string(get_current_dir_name()), forks());
    self.expect(status == 0, "status " + std::to_string(*status));
  });
  EXPECT_EQ(parent.join(), 0) << parent.failures();
}

TEST_P(ProcessMethod, OnlyDescriptorsThatAreToBeInherited) {
  if (forks()) GTEST_SKIP() << "a fork has them all";
  const int kept = open("/dev/null", O_RDONLY | O_CLOEXEC);
  const auto before = support::residue();
  EXPECT_EQ(run_by(
                method(),
                [](int fd) {
                  if (fcntl(fd, F_GETFD) >= 0 &&
                      std::filesystem::read_symlink(
                          "/proc/self/fd/" + std::to_string(fd)) == "/dev/null")
                    exit(1);
                  int open = 0;
                  for (int i = 3; i < 100; ++i)
                    if (const int flags = fcntl(i, F_GETFD);
                        flags >= 0 && (flags & FD_CLOEXEC) != 0)
                      ++open;
                  exit(10 + open);
                },
                kept),
            11);  // and a pidfd of the parent
  EXPECT_EQ(support::residue(), before);
  close(kept);
}

TEST_P(ProcessMethod, WorksWithoutStandardStreams) {
  Child parent([&](Child& self) {
    run_by(method(), [] {});
    for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) close(fd);
    Process process({.daemon = true, .start_method = method()}, [] {
      if (fcntl(STDOUT_FILENO, F_GETFD) >= 0) exit(3);
      sleep_for_ever();
    });
    process.start();
    self.expect(process.sentinel() > STDERR_FILENO, "above stdio");
    self.expect(process.is_alive(), "alive");
    process.kill();
    self.expect(process.join(kPatience), "ended");
    self.expect(process.exitcode() == -SIGKILL, "killed");
  });
  EXPECT_EQ(parent.join(), 0) << parent.failures();
}

// ---- Life

TEST_P(ProcessMethod, BeforeStart) {
  Process process({.start_method = method()}, [] {});
  EXPECT_FALSE(process.is_alive());
  EXPECT_EQ(process.exitcode(), std::nullopt);
  EXPECT_EQ(process.pid(), 0);
  EXPECT_THROW(process.join(), std::logic_error);
  EXPECT_THROW(process.sentinel(), std::logic_error);
  EXPECT_THROW(process.terminate(), std::logic_error);
  process.start();
  EXPECT_THROW(process.start(), std::logic_error);
  process.join();
  EXPECT_THROW(process.start(), std::logic_error);
}

TEST_P(ProcessMethod, JoinKeepsItsTimeout) {
  Process process = started(method(), sleep_for_ever);
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
  EXPECT_FALSE(process.is_alive());
  EXPECT_EQ(process.exitcode(), -SIGKILL);
}

TEST_P(ProcessMethod, SignalsByName) {
  const auto status_after = [](auto send) {
    Process process = started(method(), sleep_for_ever);
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

bool is_stopped(pid_t pid) {
  const std::string stat = read_file("/proc/" + std::to_string(pid) + "/stat");
  return stat.find(") T ") != stat.npos;
}

TEST_P(ProcessMethod, StoppedIsAlive) {
  Process process = started(method(), sleep_for_ever);
  ::kill(process.pid(), SIGSTOP);
  ASSERT_TRUE(eventually([&] { return is_stopped(process.pid()); }));
  EXPECT_TRUE(process.is_alive());
  EXPECT_FALSE(process.join(10ms));
  EXPECT_EQ(process.exitcode(), std::nullopt);
  process.kill();
  EXPECT_TRUE(process.join(kPatience));
}

TEST_P(ProcessMethod, SentinelIsReadableAtTheEnd) {
  Process process = started(method(), sleep_for_ever);
  const int sentinel = process.sentinel();
  EXPECT_FALSE(readable(sentinel));
  process.kill();
  EXPECT_TRUE(wait_readable({sentinel}, Deadline(kPatience)));
  EXPECT_EQ(process.exitcode(), -SIGKILL);  // at once
  EXPECT_TRUE(process.join());
  EXPECT_TRUE(readable(sentinel));
  EXPECT_EQ(process.sentinel(), sentinel);
}

TEST_P(ProcessMethod, Closed) {
  Process process({.name = "closed", .start_method = method()}, sleep_for_ever);
  process.start();
  EXPECT_THROW(process.close(), std::logic_error);
  process.kill();
  process.join();
  process.close();
  process.close();
  EXPECT_EQ(process.name(), "closed");
  EXPECT_THROW(process.start(), std::logic_error);
  EXPECT_THROW(process.join(), std::logic_error);
  EXPECT_THROW(process.exitcode(), std::logic_error);
  EXPECT_THROW(process.sentinel(), std::logic_error);
}

// ---- Reaping

TEST_P(ProcessMethod, ReapedOnceWhoeverAsks) {
  for (int round = 0; round < 5; ++round) {
    const Meeting<Flag> go;
    Process process = started(
        method(),
        [](std::string path) {
          await(*Meeting<Flag>(path));
          exit(33);
        },
        go.path());
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

struct Grandchild {
  Flag pid, go;
};

TEST_P(ProcessMethod, JoinReturnsThoughAGrandchildLives) {
  const Meeting<Grandchild> met;
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  Process process = started(
      method(),
      [](std::string path) {
        const Meeting<Grandchild> met(path);
        const pid_t pid = fork();
        if (pid == 0) sleep_for_ever();  // holds all that was inherited
        met->pid = pid;
        await(met->go);
      },
      met.path());
  await(met->pid);
  const Pidfd living = Pidfd::open(met->pid);
  met->go = 1;
  EXPECT_TRUE(process.join(kPatience));
  EXPECT_FALSE(living.wait(now));
  EXPECT_EQ(process.exitcode(), 0);
  living.signal(SIGKILL);
  EXPECT_TRUE(living.wait(kPatience));
  // The orphan, and a forkserver that began while we took in all orphans.
  forkserver::stop();
  while (waitpid(-1, nullptr, 0) > 0) {
  }
  prctl(PR_SET_CHILD_SUBREAPER, 0);
}

bool kernel_remembers() {
  utsname name;
  uname(&name);
  char* end;
  const long major = strtol(name.release, &end, 10);
  const long minor = strtol(end + 1, nullptr, 10);
  return major > 6 || (major == 6 && minor >= 15);
}

TEST_P(ProcessMethod, SigchldIgnored) {
  Child parent([](Child& self) {
    signal(SIGCHLD, SIG_IGN);
    Process process = started(method(), leave, 7);
    self.expect(process.join(kPatience), "join");
    self.expect(!process.is_alive(), "not alive");
    self.expect(
        process.exitcode() ==
            (method() == StartMethod::forkserver || kernel_remembers() ? 7
                                                                       : 255),
        "status");
  });
  EXPECT_EQ(parent.join(), 0) << parent.failures();
}

// The program's own children are all that it meets by wait().
TEST_P(ProcessMethod, AForeignWaitMeetsNoHelper) {
  Child parent([](Child& self) {
    Process process = started(method(), sleep_for_ever);
    const pid_t own = method() == StartMethod::forkserver ? 0 : process.pid();
    if (own == 0) {
      self.expect(waitpid(-1, nullptr, WNOHANG) < 0 && errno == ECHILD,
                  "no child");
    }
    process.kill();
    if (own != 0) self.expect(waitpid(-1, nullptr, 0) == own, "stolen");
    self.expect(process.join(kPatience), "join");
    self.expect(process.exitcode() == -SIGKILL || !kernel_remembers(),
                "status");
    self.expect(waitpid(-1, nullptr, WNOHANG) < 0 && errno == ECHILD,
                "no more");
  });
  EXPECT_EQ(parent.join(), 0) << parent.failures();
}

TEST_P(ProcessMethod, CyclesLeaveNothing) {
  run_by(method(), [] {});
  const auto before = support::belongings();
  for (int cycle = 0; cycle < 100; ++cycle)
    ASSERT_EQ(run_by(method(), [] {}), 0);
  EXPECT_EQ(support::belongings(), before);
  EXPECT_TRUE(active_children().empty());
}

TEST_P(ProcessMethod, ManyThreadsStartAndJoin) {
  const Meeting<Flag> ran;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      for (int cycle = 0; cycle < 10; ++cycle) {
        const auto code = run_by(
            method(),
            [](std::string path, int code) {
              ++*Meeting<Flag>(path);
              exit(code);
            },
            ran.path(), 10 * i + cycle);
        if (code != 10 * i + cycle) *ran = -1000;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(*ran, 40);
}

// ---- Relatives

TEST_P(ProcessMethod, Names) {
  Child main([](Child& self) {
    const auto probe = [](std::string name, std::string below) {
      Process first({.start_method = StartMethod::fork}, [] {});
      Process second([] {});
      exit(current_process().name == name &&
           current_process().pid == getpid() && first.name() == below + "1" &&
           second.name() == below + "2");
    };
    const ProcessOptions by{.start_method = method()};
    Process first(by, probe, "Process-1", "Process-1:");
    Process named({.name = "named", .start_method = method()}, probe, "named",
                  "Process-2:");
    self.expect(first.name() == "Process-1", "first");
    self.expect(Process(by, [] {}).name() == "Process-3", "third");
    first.start();
    named.start();
    first.join();
    named.join();
    self.expect(first.exitcode() == 1, "in the first");
    self.expect(named.exitcode() == 1, "in the named");
    self.expect(current_process().name == "MainProcess", "own");
  });
  EXPECT_EQ(main.join(), 0) << main.failures();
}

TEST_P(ProcessMethod, DaemonIsInherited) {
  const auto daemons = [] {
    Process inherits([] {});
    Process given({.daemon = false}, [] {});
    exit((inherits.daemon() ? 2 : 0) + (given.daemon() ? 1 : 0));
  };
  EXPECT_EQ(run_by(method(), daemons), 0);
  Process daemon({.daemon = true, .start_method = method()}, daemons);
  daemon.start();
  daemon.join();
  EXPECT_EQ(daemon.exitcode(), 2);
}

struct Seen {
  Flag pid, alive, joined_early, ended, go;
};

TEST_P(ProcessMethod, TheParentIsSeenUntilItEnds) {
  const Meeting<Seen> seen;
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  Child parent([&](Child&) {
    Process process = started(
        method(),
        [](std::string path, int parent) {
          const Meeting<Seen> seen(path);
          const auto info = parent_process();
          seen->alive = info && info->pid == parent && info->is_alive() &&
                        info->name == "MainProcess";
          seen->joined_early = info->join(10ms);
          seen->pid = getpid();
          seen->go = 1;
          seen->ended = info->join(kPatience) && !info->is_alive() ? 1 : 2;
        },
        seen.path(), getpid());
    sleep_for_ever();
  });
  await(seen->go);
  EXPECT_EQ(seen->alive, 1);
  EXPECT_EQ(seen->joined_early, 0);
  const Pidfd child = Pidfd::open(seen->pid);
  parent.kill();
  EXPECT_EQ(parent.join(), -SIGKILL);
  await(seen->ended);
  EXPECT_EQ(seen->ended, 1);
  EXPECT_TRUE(child.wait(kPatience));
  while (waitpid(-1, nullptr, 0) > 0) {
  }
  prctl(PR_SET_CHILD_SUBREAPER, 0);
}

TEST_P(ProcessMethod, ActiveChildrenAreThoseThatRun) {
  EXPECT_TRUE(active_children().empty());
  Process one({.name = "one", .start_method = method()}, sleep_for_ever);
  Process two({.name = "two", .start_method = method()}, sleep_for_ever);
  Process unstarted({.start_method = method()}, [] {});
  one.start();
  two.start();
  auto active = active_children();
  ASSERT_EQ(active.size(), 2u);
  EXPECT_EQ(active[0].name, "one");
  EXPECT_EQ(active[0].pid, one.pid());
  EXPECT_TRUE(active[0].is_alive());
  EXPECT_FALSE(active[0].join(now));
  one.kill();
  EXPECT_TRUE(wait_readable({one.sentinel()}, Deadline(kPatience)));
  const auto rest = active_children();
  ASSERT_EQ(rest.size(), 1u);
  EXPECT_EQ(rest[0].pid, two.pid());
  EXPECT_EQ(start_time(one.pid()), std::nullopt);  // reaped
  two.kill();
  EXPECT_TRUE(rest[0].join(kPatience));
  EXPECT_EQ(two.exitcode(), -SIGKILL);
  EXPECT_EQ(run_by(method(), [] { exit(active_children().empty()); }), 1);
}

// By every method in a child of every method.
TEST_P(ProcessMethod, ChildrenHaveChildren) {
  for (const StartMethod below :
       {StartMethod::fork, StartMethod::forkserver, StartMethod::spawn}) {
    EXPECT_EQ(run_by(
                  method(),
                  [](StartMethod below) {
                    const auto name = current_process().name;
                    exit(*run_by(
                        below,
                        [](int parent, std::string name) {
                          exit(parent_process()->pid == parent &&
                                       parent_process()->name == name
                                   ? 9
                                   : 8);
                        },
                        getpid(), name));
                  },
                  below),
              9);
  }
}

TEST_P(ProcessMethod, AnInheritedProcessIsTheParents) {
  Process sibling = started(method(), sleep_for_ever);
  Child forked([&](Child& self) {
    int refused = 0;
    for (const auto& use : std::vector<std::function<void()>>{
             [&] { sibling.join(now); }, [&] { sibling.is_alive(); },
             [&] { sibling.exitcode(); }, [&] { sibling.kill(); }}) {
      try {
        use();
      } catch (const std::logic_error&) {
        ++refused;
      }
    }
    self.expect(refused == 4, "refused");
    const Process gone(std::move(sibling));
    self.expect(run_by(method(), leave, 3) == 3, "one of its own");
  });
  EXPECT_EQ(forked.join(), 0) << forked.failures();
  EXPECT_TRUE(sibling.is_alive());
  sibling.kill();
  EXPECT_TRUE(sibling.join(kPatience));
}

// ---- Daemons

struct Family {
  Flag daemon, below, child, ready;
};

TEST_P(ProcessMethod, ADaemonEndsWithItsParentAlsoBySigkill) {
  const Meeting<Family> family;
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  Child parent([&](Child&) {
    Process daemon(
        {.daemon = true, .start_method = method()},
        [](std::string path, StartMethod method) {
          const Meeting<Family> family(path);
          family->daemon = getpid();
          Process below(  // a daemon too
              {.start_method = method},
              [](std::string path) {
                const Meeting<Family> family(path);
                family->below = getpid();
                ++family->ready;
                sleep_for_ever();
              },
              path);
          below.start();
          ++family->ready;
          sleep_for_ever();
        },
        family.path(), method());
    Process child(
        {.start_method = method()},
        [](std::string path) {
          const Meeting<Family> family(path);
          family->child = getpid();
          ++family->ready;
          sleep_for_ever();
        },
        family.path());
    daemon.start();
    child.start();
    sleep_for_ever();
  });
  await(family->ready, 3);
  const Pidfd daemon = Pidfd::open(family->daemon);
  const Pidfd below = Pidfd::open(family->below);
  const Pidfd child = Pidfd::open(family->child);
  EXPECT_FALSE(daemon.wait(now));
  parent.kill();
  EXPECT_EQ(parent.join(), -SIGKILL);
  EXPECT_TRUE(daemon.wait(kPatience));
  EXPECT_TRUE(below.wait(kPatience));
  EXPECT_FALSE(child.wait(now));  // no daemon
  child.signal(SIGKILL);
  // All of them, and their forkservers: as if by init.
  while (waitpid(-1, nullptr, 0) > 0) {
  }
  EXPECT_TRUE(child.wait(now));
  prctl(PR_SET_CHILD_SUBREAPER, 0);
}

TEST_P(ProcessMethod, ADaemonOutlivesTheThreadThatStartedIt) {
  struct Talk {
    Flag asked, answered;
  };
  const Meeting<Talk> talk;
  Process daemon(
      {.daemon = true, .start_method = method()},
      [](std::string path) {
        const Meeting<Talk> talk(path);
        for (int n = 1;; ++n) {
          await(talk->asked, n);
          talk->answered = n;
        }
      },
      talk.path());
  pid_t thread_id = 0;
  std::thread starter([&] {
    thread_id = gettid();
    daemon.start();
    talk->asked = 1;
    await(talk->answered);
  });
  starter.join();
  ASSERT_TRUE(eventually([&] { return tgkill(getpid(), thread_id, 0) != 0; }));
  for (int n = 2; n <= 100; ++n) {
    talk->asked = n;
    ASSERT_TRUE(eventually([&] { return talk->answered == n; }, 10s));
  }
  EXPECT_TRUE(daemon.is_alive());
}

TEST_P(ProcessMethod, TheDestructorTerminatesADaemon) {
  const Meeting<Family> met;
  {
    Process daemon(
        {.daemon = true, .start_method = method()},
        [](std::string path) {
          static std::string where;
          where = path;
          signal(SIGTERM, [](int) {
            Meeting<Family>(where)->below = 1;
            _exit(0);
          });
          Meeting<Family>(path)->ready = 1;
          sleep_for_ever();
        },
        met.path());
    daemon.start();
    await(met->ready);
  }
  EXPECT_EQ(met->below, 1);
}

TEST_P(ProcessMethod, TheProgramsExitTerminatesDaemonsAndJoinsOthers) {
  struct Met {
    Flag ready, joined, at_exit;
  };
  static const Meeting<Met>* seen = nullptr;
  const Meeting<Met> met;
  seen = &met;
  Process program([path = met.path()] {
    auto* daemon = new Process(
        {.daemon = true, .start_method = method()},
        [](std::string path) {
          ++Meeting<Met>(path)->ready;
          sleep_for_ever();
        },
        path);
    auto* child = new Process(
        {.start_method = method()},
        [](std::string path) {
          const Meeting<Met> met(path);
          ++met->ready;
          await(met->at_exit);
          met->joined = 1;
        },
        path);
    daemon->start();
    child->start();
    atexit([] { (*seen)->at_exit = 1; });  // before the library's own
    await((*seen)->ready, 2);
    exit(3);
  });
  program.start();
  EXPECT_TRUE(program.join(kPatience));
  EXPECT_EQ(program.exitcode(), 3);
  EXPECT_EQ(met->joined, 1);
}

// ---- Ends before the beginning

TEST_P(ProcessMethod, CanBeTriedAgainAfterARefusal) {
  if (support::kAddressSanitizer)
    GTEST_SKIP() << "UBSan needs descriptors of its own for each check";
  if (forks()) GTEST_SKIP() << "nothing is decoded";
  Child parent([](Child& self) {
    Process process({.name = "unborn", .start_method = method()}, leave, 6);
    rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    const auto before = support::residue();
    int refusals = 0;
    const int next = dup(0);
    close(next);
    for (rlim_t spare = 0;; ++spare) {
      const rlimit fewer = {static_cast<rlim_t>(next) + spare, limit.rlim_max};
      setrlimit(RLIMIT_NOFILE, &fewer);
      std::string text;
      try {
        process.start();
      } catch (const std::exception& error) {
        // First: UBSan needs descriptors to look at the error.
        setrlimit(RLIMIT_NOFILE, &limit);
        text = error.what();
      }
      setrlimit(RLIMIT_NOFILE, &limit);
      if (text.empty()) break;
      ++refusals;
      self.expect(process.pid() == 0 && !process.is_alive(), text);
      self.expect(active_children().empty(), text);
      if (method() == StartMethod::spawn)
        self.expect(support::residue() == before, "left after " + text);
    }
    self.expect(refusals > 3, "refusals: " + std::to_string(refusals));
    self.expect(process.join(kPatience), "join");
    self.expect(process.exitcode() == 6, "ran after all");
    process.close();
    forkserver::stop();
    for (const auto& item : support::residue())
      self.expect(before.contains(item), "left behind: " + item);
  });
  EXPECT_EQ(parent.join(), 0) << parent.failures();
}

}  // namespace
}  // namespace shoal
