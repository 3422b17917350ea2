// Queues that grow, that carry payloads in blocks, that are waited for by a
// descriptor: system calls are refused, and no value is lost or told twice.

#include <poll.h>

#include <optional>
#include <string>

#include "shoal/ipc/joinable_queue.h"
#include "shoal/ipc/queue.h"
#include "tests/ipc/faults_scene.h"
#include "tests/support/child.h"
#include "tests/support/name.h"
#include "tests/support/small_shm.h"

namespace {

using shoal::JoinableQueue;
using shoal::now;
using shoal::Queue;
using shoal::support::Child;
using shoal::support::error_name;
using shoal::support::Faults;
using shoal::support::kErrors;
using shoal::support::Name;
using shoal::support::require;
using shoal::support::SmallShm;
using shoal::support::with_small_shm;

// A queue that is there before and after the fault. Values count from 0.
template <class T>
struct Traffic {
  std::optional<Queue<T>> queue;
  int put = 0;
  int got = 0;

  // As long as all that is in the queue at a time.
  T value(int n) const {
    if constexpr (std::is_same_v<T, std::string>)
      return std::string(bytes, static_cast<char>('a' + n % 26));
    else
      return n;
  }
  void put_until(int count) {
    for (; put < count; ++put) queue->put(value(put), now);
  }
  void get_all() {
    for (; got < put; ++got)
      require(queue->get(now) == value(got), "another value");
    require(queue->empty(), "a value too many");
  }

  std::size_t bytes = 0;
};

class FaultsQueue : public Faults {
 protected:
  // Puts so many, gets them, and again.
  template <class T>
  static void expect_nothing_lost(Traffic<T>& traffic, int count,
                                  const std::function<void()>& make) {
    expect_typed(
        [&] {
          traffic.get_all();
          traffic.put_until(traffic.put + count);
          traffic.get_all();
        },
        1, make);
  }
};

TEST_P(FaultsQueue, Growth) {
  constexpr int kCells = 5000;
  Traffic<int> anonymous;
  expect_nothing_lost(anonymous, kCells, [&] { anonymous.queue.emplace(); });
  Traffic<int> named;
  const Name name("grows");
  expect_nothing_lost(named, kCells, [&] {
    shoal::unlink(name);
    named.queue = Queue<int>::create(name);
    shoal::unlink(name);
  });
}

TEST_P(FaultsQueue, Payloads) {
  // In small blocks, in large ones, in one with pages of its own.
  for (const std::size_t bytes : {300u, 40'000u, 300'000u})
    for (const std::size_t maxsize : {0, 3}) {
      Traffic<std::string> traffic{.queue = {}, .bytes = bytes};
      expect_nothing_lost(traffic, 3, [&] { traffic.queue.emplace(maxsize); });
    }
}

TEST_P(FaultsQueue, PayloadsOfANamedOne) {
  const Name name("payloads");
  Traffic<std::string> traffic{.queue = {}, .bytes = 300'000};
  expect_nothing_lost(traffic, 3, [&] {
    shoal::unlink(name);
    traffic.queue = Queue<std::string>::create(name);
    shoal::unlink(name);
  });
}

// On a full file system a put takes the pages of free blocks.
TEST_P(FaultsQueue, PagesOfFreeBlocks) {
  const Name name("pages");
  const std::string freed(400'000, 'f');
  const std::string text(600'000, 't');
  std::optional<Queue<std::string>> queue;
  const auto work = [&](Child& self, SmallShm&) {
    expect_typed(
        [&] {
          while (queue->try_get()) {
          }
          queue->put(text, now);
          require(queue->get(now) == text, "another text");
        },
        1,
        [&] {
          shoal::unlink(name);
          queue = Queue<std::string>::create(name);
          shoal::unlink(name);
          queue->put(freed, now);
          queue->get(now);
        });
    self.expect(!HasFailure(), "see above");
  };
  if (!with_small_shm(1 << 20, work)) GTEST_SKIP() << "no mount namespace";
}

TEST_P(FaultsQueue, Making) {
  const Name name("made");
  expect_typed([&] {
    shoal::unlink(name);
    auto made = Queue<std::string>::create(name);
    auto opened = Queue<std::string>::open(name);
    made.put(std::string(1000, 'a'));
    require(opened.get(now).size() == 1000, "another value");
    shoal::unlink(name);
    JoinableQueue<int> jobs;
    jobs.put(7);
    require(jobs.get(now) == 7, "another job");
    jobs.task_done();
    require(jobs.join(now), "not done");
  });
}

TEST_P(FaultsQueue, Fileno) {
  Traffic<int> traffic;
  expect_typed(
      [&] {
        traffic.get_all();
        pollfd polled{traffic.queue->fileno(), POLLIN, 0};
        traffic.put_until(traffic.put + 1);
        require(poll(&polled, 1, 30'000) == 1, "not readable");
        traffic.get_all();
      },
      2, [&] { traffic.queue.emplace(4u); });
}

INSTANTIATE_TEST_SUITE_P(Errors, FaultsQueue, kErrors, error_name);

}  // namespace
