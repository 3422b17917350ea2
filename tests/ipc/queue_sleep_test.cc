// Whoever waits sleeps: no system call, no processor time, for as long as
// nothing happens.

#include <chrono>
#include <fstream>
#include <string>
#include <thread>

#include "gtest/gtest.h"
#include "tests/ipc/queue_scene.h"

namespace {

using namespace shoal::support;
using namespace std::chrono_literals;

std::string line_of(pid_t pid, const std::string& key) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/status");
  std::string line;
  while (std::getline(file, line))
    if (line.starts_with(key)) return line;
  return "no " + key;
}

std::string all_of(pid_t pid, const char* name) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/" + name);
  return {std::istreambuf_iterator<char>(file), {}};
}

// Everything that a system call would change: the number of times that the
// thread went to sleep, the call and its arguments, the time that it used.
struct Trace {
  explicit Trace(pid_t pid)
      : sleeps(line_of(pid, "voluntary_ctxt_switches")),
        preemptions(line_of(pid, "nonvoluntary_ctxt_switches")),
        call(all_of(pid, "syscall")),
        run_time(all_of(pid, "schedstat")) {}
  bool operator==(const Trace&) const = default;
  std::string sleeps, preemptions, call, run_time;
};

void expect_sleep(Partner& partner) {
  EXPECT_TRUE(partner.asleep());
  // The scheduler may still be at work on its last step.
  std::this_thread::sleep_for(20ms);
  const Trace before(partner.pid());
  std::this_thread::sleep_for(5s);
  const Trace after(partner.pid());
  EXPECT_TRUE(partner.asleep());
  EXPECT_EQ(before.sleeps, after.sleeps);
  EXPECT_EQ(before.preemptions, after.preemptions);
  EXPECT_EQ(before.call, after.call);
  EXPECT_EQ(before.run_time, after.run_time);
}

TEST(QueueSleep, GetterMakesNoSystemCall) {
  Scene scene;
  Partner getter = Partner::getter(scene.queue);
  expect_sleep(getter);
  scene.queue.put(7);
  EXPECT_TRUE(getter.ends());
  EXPECT_EQ(getter.item(), 7u);
}

// A wake leaves a flag behind, as if others slept, too; one look clears it.
TEST(QueueSleep, GetterThatWasWokenBefore) {
  Scene scene;
  Partner getter(
      [queue = scene.queue]() mutable { return queue.get() + queue.get(); });
  getter.settle();
  scene.queue.put(3);
  ASSERT_TRUE(eventually([&] { return scene.queue.empty(); }));
  getter.settle();
  std::this_thread::sleep_for(1500ms);
  expect_sleep(getter);
  scene.queue.put(4);
  EXPECT_TRUE(getter.ends());
  EXPECT_EQ(getter.item(), 7u);
}

TEST(QueueSleep, PutterMakesNoSystemCall) {
  Scene scene({1, 2, 3, 4});
  Partner putter = Partner::putter(scene.queue, 50);
  expect_sleep(putter);
  EXPECT_EQ(scene.queue.get(), 1u);
  EXPECT_TRUE(putter.ends());
}

}  // namespace
