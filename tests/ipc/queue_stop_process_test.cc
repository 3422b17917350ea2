// SIGSTOP at random to those who put and get what lies in blocks, while the
// queue grows or drops, and to those who report what is done: all is there
// once, in order and whole, and others go on meanwhile.

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>

#include "gtest/gtest.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/joinable_queue.h"
#include "shoal/ipc/queue.h"
#include "tests/ipc/payload_scene.h"
#include "tests/support/child.h"
#include "tests/support/stopper.h"

namespace {

using namespace shoal::support;
using shoal::JoinableQueue;
using shoal::OnFull;
using shoal::Queue;
using shoal::QueueOptions;
using namespace std::chrono_literals;

// Of many lengths, inside the cell and not.
std::string numbered(std::uint64_t number) {
  return text(number, 20 + number * 2654435761u % 3000);
}

class QueueStop : public testing::TestWithParam<QueueOptions> {};

// A producer and a consumer are stopped; a third takes part with timeouts.
TEST_P(QueueStop, AllIsThereOnce) {
  constexpr std::uint64_t kMost = 1 << 20;
  constexpr std::uint64_t kOurs = kMost / 2;
  Queue<std::string> queue(GetParam());
  Shared<std::array<std::atomic<std::uint8_t>, kMost>> seen;
  Shared<std::atomic<bool>> end;
  Shared<std::atomic<std::uint64_t>> put;
  const auto take = [&](const std::string& got,
                        std::optional<std::uint64_t>& last) {
    const auto number = number_in(got);
    if (!number || *number >= kMost) return false;
    if (*number >= kOurs) return (*seen)[*number]++ == 0;
    const bool in_order = !last || *last < *number;
    last = number;
    return in_order && (*seen)[*number]++ == 0;
  };
  Child producer([&](Child&) {
    for (std::uint64_t n = 0; !*end && n < kOurs; ++n) {
      queue.put(numbered(n));
      *put = n + 1;
    }
  });
  Child consumer([&](Child& self) {
    std::optional<std::uint64_t> last;
    for (;;) {
      const auto got = queue.try_get(20ms);
      if (got) self.expect(take(*got, last), "torn, twice or out of order");
      if (!got && *end) return;
    }
  });
  std::optional<std::uint64_t> last;
  std::uint64_t ours = kOurs;
  EXPECT_TRUE(stop_at_random({producer.pid(), consumer.pid()}, [&] {
    if (ours < kMost && queue.try_put(numbered(ours), 1ms)) ++ours;
    for (int i = 0; i < 2; ++i)
      if (const auto got = queue.try_get(1ms)) {
        EXPECT_TRUE(take(*got, last));
      }
  }));
  *end = true;
  EXPECT_EQ(producer.join(), 0) << producer.failures();
  EXPECT_EQ(consumer.join(), 0) << consumer.failures();
  while (const auto got = queue.try_get()) {
    EXPECT_TRUE(take(*got, last));
  }
  std::uint64_t missing = 0;
  for (std::uint64_t n = 0; n < *put; ++n) missing += (*seen)[n] != 1;
  for (std::uint64_t n = kOurs; n < ours; ++n) missing += (*seen)[n] != 1;
  const bool drops = GetParam().on_full == OnFull::drop_oldest;
  EXPECT_EQ(missing, drops ? queue.dropped() : 0);
  EXPECT_GT(*put, 100u);
  EXPECT_GT(ours, kOurs + 20);
  EXPECT_EQ(blocks_in_use(queue), 0u);
}

INSTANTIATE_TEST_SUITE_P(
    , QueueStop,
    testing::Values(QueueOptions{.maxsize = 8},
                    QueueOptions{.max_bytes = 1 << 16},
                    QueueOptions{.maxsize = 8, .on_full = OnFull::drop_oldest}),
    [](const testing::TestParamInfo<QueueOptions>& info) {
      return std::string(info.param.maxsize == 0               ? "Growing"
                         : info.param.on_full == OnFull::block ? "Fixed"
                                                               : "Dropping");
    });

TEST(JoinableQueueStop, IsJoinedWhenAllIsDone) {
  JoinableQueue<int> queue(8);
  Shared<std::atomic<int>> done;
  Child worker([&](Child&) {
    while (queue.get() != 0) {
      ++*done;
      queue.task_done();
    }
    queue.task_done();
  });
  int put = 0;
  int early = 0;
  EXPECT_TRUE(stop_at_random({worker.pid()}, [&] {
    for (int i = 0; i < 3; ++i) {
      queue.put(1);
      ++put;
    }
    while (!queue.join(1ms)) ++early;
    EXPECT_EQ(*done, put) << "joined too early";
  }));
  queue.put(0);
  EXPECT_TRUE(queue.join(kPatience));
  EXPECT_EQ(worker.join(), 0) << worker.failures();
  EXPECT_GT(early, 0) << "it was never stopped in between";
  EXPECT_THROW(queue.task_done(), std::logic_error);
}

}  // namespace
