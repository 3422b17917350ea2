// The forkserver as a process: what it is, how long it lives, and what its
// death, stop and restart mean for those that it has started.

#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "shoal/ipc/call.h"
#include "shoal/ipc/forkserver.h"
#include "shoal/ipc/handover.h"
#include "shoal/ipc/pidfd.h"
#include "shoal/ipc/process.h"
#include "tests/ipc/process_scene.h"
#include "tests/support/child.h"
#include "tests/support/residue.h"

namespace shoal {
namespace {

using namespace std::chrono_literals;
using support::await;
using support::Child;
using support::eventually;
using support::Flag;
using support::kPatience;
using support::Meeting;
using support::run_by;
using support::Shared;
using support::sleep_for_ever;
using support::started;

constexpr auto kMethod = StartMethod::forkserver;

void leave(int code) { exit(code); }
void wait_and_leave(std::string path, int code) {
  await(*Meeting<Flag>(path));
  exit(code);
}

std::string line_of(const std::filesystem::path& file, const std::string& key) {
  std::ifstream lines(file);
  for (std::string line; std::getline(lines, line);)
    if (line.starts_with(key)) return line.substr(key.size());
  return {};
}

// Of this process: one of those that it has a pidfd of.
pid_t server() {
  for (const auto& entry :
       std::filesystem::directory_iterator("/proc/self/fdinfo")) {
    const int pid = atoi(line_of(entry.path(), "Pid:").c_str());
    const std::string process = "/proc/" + std::to_string(pid);
    if (pid > 0 && line_of(process + "/comm", "") == "shoal.forkserv")
      return pid;
  }
  return 0;
}

class Forkserver : public support::WithForkserver<testing::Test> {
 protected:
  void SetUp() override { EXPECT_EQ(run_by(kMethod, leave, 1), 1); }
  static std::filesystem::path of_server(const std::string& file) {
    return "/proc/" + std::to_string(server()) + "/" + file;
  }
};

TEST_F(Forkserver, IsOneProcessWithOneThreadAndNoChildOfOurs) {
  const pid_t first = server();
  ASSERT_NE(first, 0);
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i)
    threads.emplace_back([] { run_by(kMethod, [] {}); });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(server(), first);
  EXPECT_EQ(line_of(of_server("status"), "Threads:"), "\t1");
  EXPECT_NE(line_of(of_server("status"), "PPid:"),
            "\t" + std::to_string(getpid()));
}

TEST_F(Forkserver, HasNothingOfThisProcess) {
  const auto mine = memfd_create("mine", 0);  // without FD_CLOEXEC
  forkserver::stop();
  EXPECT_EQ(server(), 0);
  run_by(kMethod, [] {});
  const int later = memfd_create("later", 0);
  std::string found;
  for (const auto& entry :
       std::filesystem::directory_iterator(of_server("fd"))) {
    const auto target = std::filesystem::read_symlink(entry.path()).string();
    if (target.find("memfd:") != target.npos) found += target + " ";
  }
  EXPECT_EQ(found, "/memfd:mine (deleted) ");
  close(mine);
  close(later);
}

TEST_F(Forkserver, IgnoresInterruptsThatItsChildrenDoNot) {
  const pid_t first = server();
  ::kill(first, SIGINT);
  Process process = started(kMethod, sleep_for_ever);
  EXPECT_EQ(server(), first);
  process.interrupt();
  EXPECT_TRUE(process.join(kPatience));
  EXPECT_EQ(process.exitcode(), -SIGINT);
}

bool kernel_remembers() {
  utsname name;
  uname(&name);
  char* end;
  const long major = strtol(name.release, &end, 10);
  const long minor = strtol(end + 1, nullptr, 10);
  return major > 6 || (major == 6 && minor >= 15);
}

TEST_F(Forkserver, KilledItsChildrenLiveOnAndTheirEndIsSeen) {
  const Meeting<Flag> go;
  Process process = started(kMethod, wait_and_leave, go.path(), 9);
  Process killed = started(kMethod, sleep_for_ever);
  Process before = started(kMethod, leave, 8);
  ASSERT_TRUE(before.join(kPatience));
  const Pidfd old = Pidfd::open(server());
  old.signal(SIGKILL);
  ASSERT_TRUE(old.wait(kPatience));
  EXPECT_TRUE(process.is_alive());
  EXPECT_EQ(process.exitcode(), std::nullopt);
  EXPECT_FALSE(process.join(10ms));
  EXPECT_EQ(active_children().size(), 2u);
  // Another one.
  EXPECT_EQ(run_by(kMethod, leave, 3), 3);
  EXPECT_NE(server(), 0);
  *go = 1;
  EXPECT_TRUE(process.join(kPatience));
  EXPECT_FALSE(process.is_alive());
  EXPECT_EQ(process.exitcode(), kernel_remembers() ? 9 : 255);
  killed.kill();
  EXPECT_TRUE(killed.join(kPatience));
  EXPECT_EQ(killed.exitcode(), kernel_remembers() ? -SIGKILL : 255);
  EXPECT_EQ(before.exitcode(), 8);
  EXPECT_TRUE(active_children().empty());
}

TEST_F(Forkserver, StoppedAnEndIsSeenAndItsStatusLater) {
  Process process = started(kMethod, sleep_for_ever);
  const pid_t stopped = server();
  ::kill(stopped, SIGSTOP);
  ASSERT_TRUE(eventually([&] {
    return line_of(of_server("status"), "State:").starts_with("\tT");
  }));
  process.kill();
  EXPECT_TRUE(wait_readable({process.sentinel()}, Deadline(kPatience)));
  EXPECT_FALSE(process.is_alive());
  EXPECT_FALSE(process.join(20ms));  // nobody knows how
  EXPECT_EQ(process.exitcode(), std::nullopt);
  ::kill(stopped, SIGCONT);
  EXPECT_TRUE(process.join(kPatience));
  EXPECT_EQ(process.exitcode(), -SIGKILL);
  EXPECT_EQ(server(), stopped);
}

TEST_F(Forkserver, EndsWithItsOwnerAlsoBySigkill) {
  const Shared<std::atomic<int>> pid;
  Child owner([&](Child&) {
    run_by(kMethod, [] {});
    *pid = server();
    sleep_for_ever();
  });
  ASSERT_TRUE(eventually([&] { return *pid != 0; }));
  EXPECT_NE(*pid, server());
  const Pidfd of_owner = Pidfd::open(*pid);
  EXPECT_FALSE(of_owner.wait(now));
  owner.kill();
  EXPECT_TRUE(of_owner.wait(kPatience));
}

TEST_F(Forkserver, OutlivesTheThreadThatWasFirst) {
  forkserver::stop();
  std::thread([] { EXPECT_EQ(run_by(kMethod, leave, 2), 2); }).join();
  const pid_t first = server();
  EXPECT_EQ(run_by(kMethod, leave, 3), 3);
  EXPECT_EQ(server(), first);
}

TEST_F(Forkserver, TellsManyChildrenApart) {
  const Meeting<Flag> go;
  std::vector<Process> all;
  for (int i = 0; i < 100; ++i)
    all.push_back(started(kMethod, wait_and_leave, go.path(), i));
  EXPECT_EQ(active_children().size(), 100u);
  *go = 1;
  for (int i = 0; i < 100; ++i) {
    Process& process = all[static_cast<std::size_t>(i)];
    EXPECT_TRUE(process.join(kPatience));
    EXPECT_EQ(process.exitcode(), i);
  }
}

TEST_F(Forkserver, AForkOfItsOwnerHasItsOwn) {
  const pid_t outer = server();
  Process forked([outer] {
    if (server() != 0) exit(1);  // its descriptors went
    if (run_by(kMethod, leave, 5) != 5) exit(2);
    exit(server() != outer && server() != 0 ? 0 : 3);
  });
  forked.start();
  forked.join();
  EXPECT_EQ(forked.exitcode(), 0);
  EXPECT_EQ(server(), outer);
  EXPECT_EQ(run_by(kMethod, leave, 6), 6);
}

TEST_F(Forkserver, StoppedAndBegunAgainLeavesNothing) {
  forkserver::stop();
  const auto before = support::belongings();
  for (int round = 0; round < 5; ++round) {
    EXPECT_EQ(run_by(kMethod, leave, round), round);
    forkserver::stop();
    forkserver::stop();
    EXPECT_EQ(support::belongings(), before);
  }
}

// ---- The board, which is shared memory

void accept_and_end(handover::Arrival& arrival) {
  arrival.accept();
  _exit(0);
}

TEST_F(Forkserver, PlacesAreReused) {
  for (int round = 0; round < 50; ++round)
    ASSERT_EQ(run_by(kMethod, leave, round), round);
  const auto place = [] {
    handover::Introduction who = handover::introduce_this_process();
    who.name = "probe";
    auto process =
        forkserver::start(who, {call::reference_of<&accept_and_end>(), {}, {}});
    process.child.pidfd->wait(kPatience);
    EXPECT_EQ(process.ending->take(*process.child.pidfd, Deadline(kPatience)),
              0);
    return process.ending->place();
  };
  EXPECT_LT(place(), 4u);
}

}  // namespace
}  // namespace shoal
