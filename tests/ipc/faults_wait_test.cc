// shoal::wait() over things of all kinds whose system calls are refused: in
// vain, and with each of them ready.

#include <sys/eventfd.h>
#include <unistd.h>

#include <chrono>
#include <optional>
#include <utility>
#include <vector>

#include "shoal/ipc/event.h"
#include "shoal/ipc/pipe.h"
#include "shoal/ipc/process.h"
#include "shoal/ipc/queue.h"
#include "shoal/ipc/wait.h"
#include "tests/ipc/faults_scene.h"

namespace {

using shoal::support::error_name;
using shoal::support::Faults;
using shoal::support::kErrors;
using shoal::support::require;
using namespace std::chrono_literals;

struct Things {
  std::pair<shoal::Connection, shoal::Connection> pipe = shoal::Pipe();
  shoal::Queue<int> queue;
  shoal::Event event;
  shoal::Process process{shoal::ProcessOptions{.daemon = true},
                         [] { pause(); }};
  int descriptor = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

  Things() { process.start(); }

  std::vector<std::size_t> wait(shoal::Timeout timeout) {
    return shoal::wait({pipe.second, queue, event, process, descriptor},
                       timeout);
  }
};

TEST_P(Faults, InVain) {
  std::optional<Things> things;
  // Long enough to go to sleep on any machine.
  expect_typed([&] { require(things->wait(100ms).empty(), "ready"); }, 3,
               [&] { things.emplace(); });
}

TEST_P(Faults, OneIsReady) {
  using Ready = std::vector<std::size_t>;
  std::optional<Things> things;
  expect_typed(
      [&] {
        things->queue.put(1);
        require(things->wait(1ms) == Ready{1}, "not the Queue");
        while (things->queue.try_get()) {
        }
        things->event.set();
        require(things->wait(1ms) == Ready{2}, "not the Event");
        things->event.clear();
        eventfd_write(things->descriptor, 1);
        require(things->wait(1ms) == Ready{4}, "not the descriptor");
        eventfd_t count;
        eventfd_read(things->descriptor, &count);
      },
      0, [&] { things.emplace(); });
}

INSTANTIATE_TEST_SUITE_P(Errors, Faults, kErrors, error_name);

}  // namespace
