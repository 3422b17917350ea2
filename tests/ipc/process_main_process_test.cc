// What a process that was started anew runs, and what it does not: main
// aborts there. Compiled to a position-independent program and to one that is
// not.

#include "shoal/ipc/process.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shoal/ipc/call.h"
#include "shoal/ipc/descriptor.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/forkserver.h"
#include "shoal/ipc/handover.h"
#include "shoal/ipc/pidfd.h"
#include "shoal/ipc/spawn.h"
#include "shoal/ipc/takeover.h"
#include "tests/ipc/process_scene.h"
#include "tests/support/child.h"
#include "tests/support/residue.h"

namespace shoal {
namespace {

using namespace std::string_literals;
using support::Child;
using support::Flag;
using support::kPatience;
using support::Meeting;
using support::run_by;
using support::started;
using testing::HasSubstr;

void leave(int code) { exit(code); }

// ---- What static initialisers find

struct Found {
  pid_t pid = 0;
  bool is_child = false;
  bool refused = false;
  std::string name;
  std::string parent_name;
  pid_t parent_pid = 0;
  std::vector<int> early;  // exit codes of processes that were started here
};

// As a test asks for, in children only.
void misbehave() {
  const char* how = getenv("SHOAL_TEST_MISBEHAVE");
  if (how == nullptr) return;
  if (how == "exit"s) exit(3);
  if (how == "kill"s) raise(SIGKILL);
  if (how == "throw"s) throw std::runtime_error("in a static initialiser");
  if (how == "close"s)
    for (int fd = 3; fd < 1000; ++fd) close(fd);
  if (how == "thread"s) std::thread([] { pause(); }).detach();
}

Found look() {
  Found found;
  found.pid = getpid();
  const auto parent = parent_process();
  found.is_child = parent.has_value();
  found.name = current_process().name;
  if (!found.is_child) {
    for (const StartMethod method :
         {StartMethod::spawn, StartMethod::forkserver, StartMethod::fork}) {
      try {
        found.early.push_back(run_by(method, leave, 50).value_or(-1));
      } catch (const Error&) {  // as WasStartedByItsLoader expects
      }
    }
    return found;
  }
  found.parent_name = parent->name;
  found.parent_pid = parent->pid;
  for (const StartMethod method :
       {StartMethod::spawn, StartMethod::forkserver, StartMethod::fork}) {
    Process process({.start_method = method}, leave, 0);
    try {
      process.start();
    } catch (const std::logic_error& error) {
      found.refused =
          std::string_view(error.what()).find("static initialiser") !=
          std::string_view::npos;
    }
  }
  misbehave();
  return found;
}

const Found found = look();

class ProcessMain
    : public support::WithForkserver<testing::TestWithParam<StartMethod>> {
 protected:
  static StartMethod method() { return GetParam(); }
};
INSTANTIATE_TEST_SUITE_P(, ProcessMain,
                         testing::Values(StartMethod::forkserver,
                                         StartMethod::spawn),
                         testing::PrintToStringParamName());

TEST_P(ProcessMain, IsNotEntered) {
  EXPECT_EQ(run_by(method(), leave, 4), 4);
  EXPECT_EQ(run_by(
                method(),
                [](StartMethod method) {
                  exit(run_by(method, leave, 5).value_or(99));
                },
                method()),
            5);
}

TEST_P(ProcessMain, FromAThread) {
  std::optional<int> code;
  std::thread([&] { code = run_by(method(), leave, 4); }).join();
  EXPECT_EQ(code, 4);
}

TEST_P(ProcessMain, AStaticInitialiserOfTheFirstProcessMayStartOthers) {
  EXPECT_FALSE(found.is_child);
  EXPECT_EQ(found.name, "MainProcess");
  EXPECT_EQ(found.early, (std::vector{50, 50, 50}));
}

TEST_P(ProcessMain, AStaticInitialiserOfAChildMayNot) {
  Process process(
      {.name = "probe", .start_method = method()},
      [](int parent, bool spawned) {
        if (!found.is_child) exit(1);
        if (!found.refused) exit(2);
        if (found.parent_pid != parent) exit(3);
        if (found.parent_name != "MainProcess") exit(4);
        // Those of a forkserver's child were its server's.
        if (found.name != (spawned ? "probe" : "shoal.forkserver")) exit(5);
        if ((found.pid == getpid()) != spawned) exit(6);
      },
      getpid(), method() == StartMethod::spawn);
  process.start();
  process.join();
  EXPECT_EQ(process.exitcode(), 0);
}

struct Addresses {
  std::uintptr_t code, library;
};
Addresses addresses() {
  return {
      reinterpret_cast<std::uintptr_t>(&leave),
      reinterpret_cast<std::uintptr_t>(dlsym(RTLD_DEFAULT, "getpid")),
  };
}

TEST_P(ProcessMain, AddressesDiffer) {
  if ((personality(0xFFFFFFFF) & ADDR_NO_RANDOMIZE) != 0)
    GTEST_SKIP() << "addresses are fixed here";
  std::set<std::uintptr_t> libraries = {addresses().library};
  std::set<std::uintptr_t> codes = {addresses().code};
  for (int round = 0; round < 3; ++round) {
    const Meeting<Addresses> met;
    // Another server each time.
    forkserver::stop();
    EXPECT_EQ(
        run_by(
            method(),
            [](std::string path) { *Meeting<Addresses>(path) = addresses(); },
            met.path()),
        0);
    libraries.insert(met->library);
    codes.insert(met->code);
  }
  EXPECT_GT(libraries.size(), 1u);
#ifdef __pie__
  EXPECT_GT(codes.size(), 1u);
#else
  EXPECT_EQ(codes.size(), 1u);
#endif
}

// ---- Processes that end before they begin

TEST_P(ProcessMain, AnEndBeforeTheBeginningIsAnErrorOfStart) {
  const auto exitcode_of_early_end = [](const char* how) {
    Child parent([&](Child& self) {
      close(STDERR_FILENO);
      setenv("SHOAL_TEST_MISBEHAVE", how, 1);
      forkserver::stop();
      Process process({.name = "unborn", .start_method = method()}, leave, 0);
      int code = 0;
      try {
        process.start();
        self.expect(false, "started");
      } catch (const WorkerDied& error) {
        code = error.exitcode();
        self.expect(error.what() == "process "s +
                                        (method() == StartMethod::spawn
                                             ? "unborn"
                                             : "shoal.forkserver") +
                                        " (" + std::to_string(error.pid()) +
                                        ") ended before it began: exit code " +
                                        std::to_string(code),
                    error.what());
        self.expect(start_time(error.pid()) == std::nullopt, "reaped");
      }
      self.expect(process.pid() == 0 && active_children().empty(), "no child");
      unsetenv("SHOAL_TEST_MISBEHAVE");
      process.start();
      process.join();
      self.expect(process.exitcode() == 0, "and then it can be started");
      self.expect(self.failures().empty(), "all");
      if (self.failures().empty()) _exit(code & 0xFF);
    });
    const auto status = parent.join();
    EXPECT_TRUE(parent.failures().empty()) << parent.failures();
    return status;
  };
  EXPECT_EQ(exitcode_of_early_end("exit"), 3);
  EXPECT_EQ(exitcode_of_early_end("kill"), -SIGKILL & 0xFF);
  EXPECT_EQ(exitcode_of_early_end("throw"), -SIGABRT & 0xFF);
  // It notices by itself, or is killed since it has hung up.
  EXPECT_THAT(exitcode_of_early_end("close"),
              testing::AnyOf(1, -SIGKILL & 0xFF));
}

TEST_P(ProcessMain, AThreadOfAStaticInitialiserDoesNoHarm) {
  Child parent([](Child& self) {
    setenv("SHOAL_TEST_MISBEHAVE", "thread", 1);
    forkserver::stop();
    self.expect(run_by(method(), leave, 3) == 3, "ran");
    self.expect(run_by(method(), leave, 4) == 4, "ran again");
    forkserver::stop();
  });
  EXPECT_EQ(parent.join(), 0) << parent.failures();
}

TEST_P(ProcessMain, AnArgumentThatCannotBeReadIsAnErrorOfStart) {
  // Of a build that is not here.
  struct Foreign {
    FunctionRef reference;
  };
  const Foreign foreign = {{0xABCDEF, 16}};
  handover::Introduction who = handover::introduce_this_process();
  who.name = "stranger";
  EXPECT_THROW(spawn::start(who, {foreign.reference, {}, {}}), TypeMismatch);
  EXPECT_THROW(forkserver::start(who, {foreign.reference, {}, {}}),
               TypeMismatch);
}

// ---- Descriptors beside the arguments

// More than the kernel takes at once.
constexpr std::size_t kMany = 600;

void count_descriptors(handover::Arrival& arrival) {
  int right = 0;
  for (std::size_t i = 0; i < arrival.descriptors.size(); ++i) {
    std::size_t number = 0;
    if (pread(arrival.descriptors[i].get(), &number, sizeof number, 0) ==
            sizeof number &&
        number == i)
      ++right;
  }
  const int last = arrival.descriptors.back().get();
  arrival.accept(std::span(&last, 1));
  _exit(right == static_cast<int>(kMany) ? 7 : 8);
}

TEST_P(ProcessMain, DescriptorsGoBesideTheBytes) {
  std::vector<Descriptor> files;
  std::vector<int> numbers;
  for (std::size_t i = 0; i < kMany; ++i) {
    files.emplace_back(memfd_create("numbered", MFD_CLOEXEC));
    numbers.push_back(files.back().get());
    ASSERT_EQ(write(numbers.back(), &i, sizeof i), sizeof i);
  }
  handover::Introduction who = handover::introduce_this_process();
  who.name = "holder";
  const handover::Parcel parcel = {
      call::reference_of<&count_descriptors>(), {}, numbers};
  std::optional<int> code;
  if (method() == StartMethod::spawn) {
    auto process = spawn::start(who, parcel);
    std::size_t number = 0;
    ASSERT_EQ(process.reply.size(), 1u);
    EXPECT_EQ(pread(process.reply[0].get(), &number, sizeof number, 0),
              sizeof number);
    EXPECT_EQ(number, kMany - 1);
    process.child.pidfd->wait(kPatience);
    code = process.child.pidfd->reap();
  } else {
    auto process = forkserver::start(who, parcel);
    process.child.pidfd->wait(kPatience);
    code = process.ending->take(*process.child.pidfd, Deadline(kPatience));
  }
  EXPECT_EQ(code, 7);
}

// ---- Programs that are no longer where they were

class Copy {
 public:
  explicit Copy(const std::string& name) {
    const char* directory = getenv("TEST_TMPDIR");
    path_ = std::filesystem::path(directory ? directory : "/tmp") /
            (name + "." + std::to_string(getpid()));
    std::filesystem::copy_file("/proc/self/exe", path_);
  }
  ~Copy() { std::filesystem::remove(path_); }

  std::optional<int> run(const std::string& test,
                         const std::string& loader = {}) const {
    Child child([&](Child&) {
      for (const char* name :
           {"XML_OUTPUT_FILE", "GTEST_OUTPUT", "TEST_PREMATURE_EXIT_FILE",
            "TESTBRIDGE_TEST_ONLY", "GTEST_TOTAL_SHARDS"})
        unsetenv(name);
      setenv("SHOAL_TEST_COPY", path_.c_str(), 1);
      std::vector<std::string> words;
      if (!loader.empty()) words.push_back(loader);
      words.push_back(path_);
      words.push_back("--gtest_filter=DISABLED_Copy." + test);
      words.emplace_back("--gtest_also_run_disabled_tests");
      words.emplace_back("--gtest_brief=1");
      std::vector<char*> given;
      for (std::string& word : words) given.push_back(word.data());
      given.push_back(nullptr);
      execv(given[0], given.data());
    });
    return child.join();
  }

 private:
  std::filesystem::path path_;
};

void expect_both_methods() {
  EXPECT_EQ(run_by(StartMethod::spawn, leave, 3), 3);
  EXPECT_EQ(run_by(StartMethod::forkserver, leave, 4), 4);
  forkserver::stop();
}

// Only there.
TEST(DISABLED_Copy, IsDeleted) {
  std::filesystem::remove(getenv("SHOAL_TEST_COPY"));
  expect_both_methods();
}
TEST(DISABLED_Copy, IsReplaced) {
  const std::filesystem::path path = getenv("SHOAL_TEST_COPY");
  std::filesystem::path other = path;
  other += ".other";
  std::filesystem::copy_file("/bin/false", other);
  std::filesystem::rename(other, path);
  expect_both_methods();
}
TEST(DISABLED_Copy, WasStartedByItsLoader) {
  for (const StartMethod method :
       {StartMethod::spawn, StartMethod::forkserver}) {
    try {
      run_by(method, leave, 3);
      ADD_FAILURE();
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr("is not the program that runs here"));
    }
  }
  EXPECT_EQ(run_by(StartMethod::fork, leave, 3), 3);
}

TEST(ProcessProgram, Deleted) {
  EXPECT_EQ(Copy("deleted").run("IsDeleted"), 0);
}
TEST(ProcessProgram, Replaced) {
  EXPECT_EQ(Copy("replaced").run("IsReplaced"), 0);
}
TEST(ProcessProgram, StartedByItsLoader) {
  const std::string loader = "/lib64/ld-linux-x86-64.so.2";
  if (access(loader.c_str(), X_OK) != 0) GTEST_SKIP() << "no " << loader;
  EXPECT_EQ(Copy("loaded").run("WasStartedByItsLoader", loader), 0);
}

TEST(ProcessProgram, AForeignMarkIsNoFirstStart) {
  Child other([](Child&) {
    close(STDERR_FILENO);
    setenv("SHOAL_STARTED_ANEW", "700,701", 1);
    execl("/proc/self/exe", "a first start", nullptr);
  });
  EXPECT_EQ(other.join(), 127);
}

}  // namespace
}  // namespace shoal

int main(int argc, char** argv) {
  if (shoal::takeover::started_anew() || shoal::parent_process()) abort();
  testing::InitGoogleMock(&argc, argv);
  testing::AddGlobalTestEnvironment(new shoal::support::ResidueCheck);
  return RUN_ALL_TESTS();
}
