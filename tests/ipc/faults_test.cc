// Every system call of an operation is refused in turn: a typed error, or it
// copes; and the next attempt works.

#include <cstddef>
#include <stdexcept>
#include <vector>

#include "shoal/ipc/codec.h"
#include "shoal/ipc/handle.h"
#include "shoal/ipc/lock.h"
#include "shoal/ipc/passage.h"
#include "shoal/ipc/process.h"
#include "shoal/ipc/queue.h"
#include "tests/ipc/faults_scene.h"
#include "tests/support/name.h"

namespace {

using shoal::Lock;
using shoal::Queue;
using shoal::support::error_name;
using shoal::support::Faults;
using shoal::support::kErrors;
using shoal::support::Name;

TEST_P(Faults, AnonymousQueue) {
  expect_typed([] {
    Queue<int> queue(4);
    queue.put(1);
    if (queue.get() != 1) throw std::logic_error("not what was put");
  });
}

TEST_P(Faults, NamedQueue) {
  const Name name("faults");
  expect_typed([&] {
    shoal::unlink(name);
    auto made = Queue<int>::create(name, 4);
    auto opened = Queue<int>::open(name);
    auto either = Queue<int>::open_or_create(name, 4);
    made.put(1);
    if (either.get() != 1) throw std::logic_error("another queue");
    shoal::unlink(name);
  });
}

TEST_P(Faults, Lock) {
  expect_typed([] {
    Lock lock;
    lock.acquire();
    lock.release();
  });
}

TEST_P(Faults, Process) {
  expect_typed([] {
    shoal::Process process([] {});
    process.start();
    process.join();
    if (process.exitcode() != 0) throw std::logic_error("exit code");
  });
}

TEST_P(Faults, HandleThroughTheKeeper) {
  expect_typed([] {
    Queue<int> channel(1);
    std::vector<std::byte> bytes;
    {
      Queue<int> sent(1);
      sent.put(7);
      shoal::Deposits passage(*shoal::HandleAccess::object(channel));
      bytes = shoal::codec::to_bytes(sent, &passage);
      passage.sent();
    }
    shoal::Arrival arrival;
    auto got = shoal::codec::from_bytes<Queue<int>>(bytes, &arrival);
    if (got.get() != 7) throw std::logic_error("another queue");
  });
}

INSTANTIATE_TEST_SUITE_P(Errors, Faults, kErrors, error_name);

}  // namespace
