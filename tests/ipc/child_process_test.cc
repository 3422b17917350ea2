// What runs, what is written and what is read around the function of a child.

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <exception>
#include <functional>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "shoal/ipc/child.h"
#include "shoal/ipc/pidfd.h"
#include "shoal/ipc/process.h"
#include "tests/support/child.h"

namespace shoal {
namespace {

using support::Child;
using support::Shared;

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

std::optional<int> run_process(const std::function<void()>& body) {
  Process process({.name = "probe"}, body);
  process.start();
  if (!process.join(support::kPatience)) process.kill();
  return process.exitcode();
}

struct Handlers {
  std::atomic<int> of_parent{0};
  std::atomic<int> of_child{0};
  std::atomic<int> statics_of_parent{0};
  std::atomic<int> statics_of_child{0};
  std::atomic<int> quick_of_parent{0};
  std::atomic<int> quick_of_child{0};
};
Handlers* handlers;

struct Counted {
  std::atomic<int>* counter;
  ~Counted() { ++*counter; }
};

void static_of_parent() {
  static const Counted counted{&handlers->statics_of_parent};
}
void static_of_child() {
  static const Counted counted{&handlers->statics_of_child};
}

// A helper process plays the parent, so that its exit can be watched too.
void check_exit(void (*leave)(), int code, bool quick) {
  const Shared<Handlers> shared;
  handlers = &*shared;
  Child parent([&](Child& self) {
    child::guard_exit();  // the handlers of the test program are not its own
    atexit([] { ++handlers->of_parent; });
    at_quick_exit([] { ++handlers->quick_of_parent; });
    static_of_parent();
    const auto status = run_process([&] {
      atexit([] { ++handlers->of_child; });
      at_quick_exit([] { ++handlers->quick_of_child; });
      static_of_child();
      leave();
    });
    self.expect(status == code, "exit code " + std::to_string(*status));
    self.expect(handlers->of_parent == 0, "the parent's handler");
    self.expect(handlers->statics_of_parent == 0, "the parent's static");
    self.expect(handlers->quick_of_parent == 0, "the parent's quick handler");
    self.expect(handlers->of_child == (quick ? 0 : 1), "own handler");
    self.expect(handlers->statics_of_child == (quick ? 0 : 1), "own static");
    self.expect(handlers->quick_of_child == (quick ? 1 : 0), "own quick one");
    if (self.failures().empty()) exit(0);
  });
  EXPECT_EQ(parent.join(), 0) << parent.failures();
  // The control: they are there, and run where they belong.
  EXPECT_EQ(shared->of_parent, 1);
  EXPECT_EQ(shared->statics_of_parent, 1);
}

TEST(ChildExit, ByExit) {
  check_exit([] { exit(5); }, 5, false);
}
TEST(ChildExit, ByReturning) {
  check_exit([] {}, 0, false);
}
TEST(ChildExit, ByAnException) {
  const Redirected silence(STDERR_FILENO);
  check_exit([] { throw 1; }, 1, false);
}
TEST(ChildExit, ByQuickExit) {
  check_exit([] { quick_exit(6); }, 6, true);
}

TEST(ChildExit, NothingUnwindsIntoTheFramesOfTheParent) {
  const Redirected silence(STDERR_FILENO);
  const Shared<std::atomic<int>> destroyed;
  for (const auto& [leave, code] : std::vector<std::pair<void (*)(), int>>{
           {[] {}, 0},
           {[] { throw std::runtime_error("x"); }, 1},
           {[] { pthread_exit(nullptr); }, 0},
           {[] { exit(3); }, 3}}) {
    const Counted frame{&*destroyed};
    const int before = *destroyed;
    EXPECT_EQ(run_process(leave), code);
    EXPECT_EQ(*destroyed, before);
  }
}

TEST(ChildExit, FunctionAndArgumentsAreDestroyed) {
  const Shared<std::atomic<int>> destroyed;
  {
    Process process([](const std::shared_ptr<Counted>&) {},
                    std::make_shared<Counted>(Counted{&*destroyed}));
    *destroyed = 0;  // of the temporary
    process.start();
    EXPECT_TRUE(process.join(support::kPatience));
    EXPECT_EQ(process.exitcode(), 0);
  }
  // By the child; by the parent as soon as it had started.
  EXPECT_EQ(*destroyed, 2);
}

struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

TEST(ChildException, TypeAndTextOnStderr) {
  const Redirected captured(STDERR_FILENO);
  Process process({.name = "loader"}, [] {
    std::set_terminate([] { _exit(99); });
    std::cerr << "before;";
    throw Failure("no such file");
  });
  process.start();
  EXPECT_TRUE(process.join(support::kPatience));
  EXPECT_EQ(process.exitcode(), 1);
  EXPECT_EQ(captured.text(),
            "before;Process loader (" + std::to_string(process.pid()) +
                "): terminate: shoal::(anonymous namespace)::Failure: "
                "no such file\n");
}

TEST(ChildException, OfATypeWithoutText) {
  const Redirected captured(STDERR_FILENO);
  EXPECT_EQ(run_process([] { throw 42; }), 1);
  EXPECT_NE(captured.text().find("): terminate: int\n"), std::string::npos)
      << captured.text();
}

void fail_noexcept(void (*f)()) noexcept { f(); }

TEST(ChildException, OutOfNoexceptAborts) {
  const Redirected silence(STDERR_FILENO);
  EXPECT_EQ(run_process([] {
              signal(SIGABRT, SIG_DFL);
              fail_noexcept([] { throw std::runtime_error("x"); });
            }),
            -SIGABRT);
}

TEST(ChildOutput, IsWrittenOnceAndWhole) {
  Redirected captured(STDOUT_FILENO);
  Child parent([&](Child& self) {
    printf("parent;");
    std::cout << "stream;";
    const auto status = run_process([] {
      printf("child;");
      std::cout << "its stream;";
    });
    self.expect(status == 0, "exit code");
  });
  EXPECT_EQ(parent.join(), 0) << parent.failures();
  EXPECT_EQ(captured.text(), "parent;stream;child;its stream;");
}

TEST(ChildOutput, EachFileIsWrittenByWhoFilledIt) {
  const int inherited = memfd_create("inherited", 0);
  const int own = memfd_create("own", 0);
  Child parent([&](Child& self) {
    FILE* const file = fdopen(inherited, "w");
    fputs("once", file);
    const auto status = run_process([&] {
      FILE* const opened = fdopen(own, "w");
      fputs("not closed", opened);
    });
    self.expect(status == 0, "exit code");
    fclose(file);
  });
  EXPECT_EQ(parent.join(), 0) << parent.failures();
  std::array<char, 64> text{};
  EXPECT_EQ(pread(inherited, text.data(), text.size(), 0), 4) << text.data();
  EXPECT_EQ(pread(own, text.data(), text.size(), 0), 10) << text.data();
  close(inherited);
  close(own);
}

// As a thread does that waits for a command while main() ends.
TEST(ChildOutput, AThreadThatReadsDoesNotHoldUpTheExit) {
  std::array<int, 2> ends;
  ASSERT_EQ(pipe(ends.data()), 0);
  const Shared<std::atomic<bool>> reading;
  const auto status = run_process([&] {
    FILE* const file = fdopen(ends[0], "r");
    pthread_t thread;
    pthread_create(
        &thread, nullptr,
        [](void* argument) -> void* {
          fgetc(static_cast<FILE*>(argument));
          return nullptr;
        },
        file);
    // Locked by the reader, for as long as the pipe is empty.
    *reading = support::eventually([&] {
      if (ftrylockfile(file) != 0) return true;
      funlockfile(file);
      return false;
    });
  });
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(*reading);
  close(ends[0]);
  close(ends[1]);
}

TEST(ChildInput, IsEmptyAndTheParentsIsKept) {
  std::array<int, 2> ends;
  ASSERT_EQ(pipe(ends.data()), 0);
  ASSERT_EQ(write(ends[1], "one\ntwo\n", 8), 8);
  Child parent([&](Child& self) {
    dup2(ends[0], STDIN_FILENO);
    std::array<char, 16> line;
    self.expect(fgets(line.data(), line.size(), stdin) != nullptr, "one");
    const auto status = run_process([] {
      struct stat input;
      struct stat null;
      char byte;
      std::string word;
      if (fstat(STDIN_FILENO, &input) != 0 || stat("/dev/null", &null) != 0)
        exit(10);
      if (input.st_rdev != null.st_rdev) exit(11);
      if (fgetc(stdin) != EOF) exit(12);
      if (std::cin >> word) exit(13);
      if (read(STDIN_FILENO, &byte, 1) != 0) exit(14);
    });
    self.expect(status == 0, "exit code " + std::to_string(*status));
    self.expect(fgets(line.data(), line.size(), stdin) != nullptr &&
                    std::string(line.data()) == "two\n",
                "two");
  });
  EXPECT_EQ(parent.join(), 0) << parent.failures();
  close(ends[0]);
  close(ends[1]);
}

TEST(ChildInput, AClosedStdinDoesNoHarm) {
  Child parent([&](Child& self) {
    close(STDIN_FILENO);
    Process process({.daemon = true}, [] { pause(); });
    process.start();
    self.expect(process.sentinel() > STDERR_FILENO, "above stdio");
    self.expect(process.is_alive(), "alive");
    process.kill();
    self.expect(process.join(support::kPatience), "ended");
    self.expect(process.exitcode() == -SIGKILL, "killed");
  });
  EXPECT_EQ(parent.join(), 0) << parent.failures();
}

bool ignored(int number) {
  struct sigaction action;
  sigaction(number, nullptr, &action);
  return action.sa_handler == SIG_IGN;
}

bool blocked(int number) {
  sigset_t mask;
  pthread_sigmask(SIG_SETMASK, nullptr, &mask);
  return sigismember(&mask, number) == 1;
}

TEST(ChildSignals, SetUpAsAsked) {
  Child parent([&](Child& self) {
    signal(SIGTERM, SIG_IGN);
    signal(SIGCHLD, SIG_DFL);
    sigset_t some;
    sigemptyset(&some);
    sigaddset(&some, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &some, nullptr);
    const Pidfd own = Pidfd::open(getpid());
    const auto status_of = [&](const child::Setup& setup,
                               const std::function<void()>& body) {
      const child::Started started = child::start("probe", own, setup, body);
      return started.pidfd->wait(support::kPatience) ? started.pidfd->reap()
                                                     : std::nullopt;
    };
    self.expect(status_of({},
                          [] {
                            exit(ignored(SIGTERM) && !ignored(SIGINT) &&
                                 blocked(SIGUSR1) && !blocked(SIGTERM));
                          }) == 1,
                "inherited");
    self.expect(status_of({.ignore_sigint = true,
                           .default_signals = true,
                           .clear_signal_mask = true},
                          [] {
                            exit(!ignored(SIGTERM) && ignored(SIGINT) &&
                                 !blocked(SIGUSR1));
                          }) == 1,
                "set up");
    self.expect(blocked(SIGUSR1) && !blocked(SIGTERM), "the parent's mask");
  });
  EXPECT_EQ(parent.join(), 0) << parent.failures();
}

TEST(PidfdTest, StartTimesTellProcessesApart) {
  const auto own = start_time(getpid());
  ASSERT_TRUE(own.has_value());
  EXPECT_EQ(start_time(getpid()), own);
  Child child([](Child&) { pause(); });
  const auto later = start_time(child.pid());
  ASSERT_TRUE(later.has_value());
  EXPECT_GE(*later, *own);
  child.kill();
  EXPECT_EQ(child.join(), -SIGKILL);
  EXPECT_EQ(start_time(child.pid()), std::nullopt);
}

TEST(PidfdTest, WaitTellsTheReadableOneAndAClosedOne) {
  std::array<int, 2> quiet;
  std::array<int, 2> loud;
  ASSERT_EQ(pipe(quiet.data()), 0);
  ASSERT_EQ(pipe(loud.data()), 0);
  EXPECT_EQ(wait_readable({quiet[0], loud[0]}, now), std::nullopt);
  ASSERT_EQ(write(loud[1], "x", 1), 1);
  EXPECT_EQ(wait_readable({quiet[0], loud[0]}, forever), 1u);
  for (const int fd : {quiet[0], quiet[1], loud[0], loud[1]}) close(fd);
  EXPECT_THROW(wait_readable({quiet[0]}, now), std::system_error);
}

}  // namespace
}  // namespace shoal
