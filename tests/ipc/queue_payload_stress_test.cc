// Messages of many lengths between threads over one mapping, bounded by values,
// by bytes, and growing.

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "shoal/ipc/joinable_queue.h"
#include "tests/ipc/payload_scene.h"
#include "tests/support/thread.h"

namespace {

using namespace shoal::support;
using shoal::Queue;
using shoal::QueueOptions;

constexpr std::uint64_t kProducers = 3;
constexpr std::uint64_t kConsumers = 3;
constexpr std::uint64_t kEach = 2000;

std::string message(std::uint64_t number) {
  return text(number, 20 + number * 2654435761u % 1500);
}

class QueuePayloadStress : public testing::TestWithParam<QueueOptions> {};

TEST_P(QueuePayloadStress, EveryMessageOnceInOrderOfItsProducer) {
  shoal::JoinableQueue<std::string> queue(GetParam());
  std::atomic<std::uint64_t> got{0};
  std::atomic<std::uint64_t> wrong{0};
  std::vector<std::unique_ptr<Thread>> consumers;
  for (std::uint64_t c = 0; c < kConsumers; ++c)
    consumers.push_back(std::make_unique<Thread>([&] {
      std::map<std::uint64_t, std::uint64_t> next;
      try {
        for (;;) {
          const auto number = number_in(queue.get());
          ++got;
          auto& expected = next[number.value_or(0) >> 32];
          if (!number || (*number & 0xFFFFFFFF) < expected) ++wrong;
          expected = (number.value_or(0) & 0xFFFFFFFF) + 1;
          queue.task_done();
        }
      } catch (const shoal::ShutDown&) {
      }
    }));
  {
    std::vector<std::unique_ptr<Thread>> producers;
    for (std::uint64_t p = 0; p < kProducers; ++p)
      producers.push_back(std::make_unique<Thread>([&, p] {
        for (std::uint64_t i = 0; i < kEach; ++i)
          queue.put(message(p << 32 | i));
      }));
    for (auto& producer : producers) ASSERT_TRUE(producer->ends());
  }
  EXPECT_TRUE(queue.join());
  EXPECT_EQ(got, kProducers * kEach) << "joined before all was done";
  queue.shutdown();
  for (auto& consumer : consumers) ASSERT_TRUE(consumer->ends());
  EXPECT_EQ(wrong, 0u);
  EXPECT_EQ(blocks_in_use(queue), 0u);
  EXPECT_EQ(store_of(queue).used(), 0u);
}

std::string name_of(const testing::TestParamInfo<QueueOptions>& info) {
  constexpr const char* kNames[] = {"Small", "FewBytes", "Growing",
                                    "Unbounded"};
  return kNames[info.index];
}
INSTANTIATE_TEST_SUITE_P(
    , QueuePayloadStress,
    testing::Values(QueueOptions{.maxsize = 4},
                    QueueOptions{.maxsize = 100, .max_bytes = 10000},
                    QueueOptions{.max_bytes = 1 << 20}, QueueOptions{}),
    name_of);

}  // namespace
