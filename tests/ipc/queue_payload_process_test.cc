// Messages of any size between processes: what outlives its sender, growth by
// many at once, named queues whose users are dead.

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "shoal/ipc/fd.h"
#include "shoal/ipc/queue.h"
#include "tests/ipc/payload_scene.h"
#include "tests/support/child.h"
#include "tests/support/name.h"

namespace {

using namespace shoal::support;
using shoal::Queue;
using shoal::QueueOptions;
using namespace std::chrono_literals;

// Larger than any pipe: a feeder thread would never get rid of it.
TEST(QueuePayloadProcess, WhatWasPutOutlivesItsSender) {
  Queue<std::string> queue;
  Child sender([&](Child&) {
    for (std::uint64_t i = 0; i < 200; ++i) queue.put(text(i, 100000));
    _exit(0);
  });
  ASSERT_EQ(sender.join(), 0);
  for (std::uint64_t i = 0; i < 200; ++i)
    ASSERT_EQ(queue.get_nowait(), text(i, 100000));
  EXPECT_TRUE(queue.empty());
  EXPECT_EQ(blocks_in_use(queue), 0u);
}

TEST(QueuePayloadProcess, AlsoWhenItWasKilledJustAfter) {
  Queue<std::string> queue;
  Child sender([&](Child&) {
    queue.put(text(1, 100));
    queue.put(text(2, 1 << 20));
    raise(SIGKILL);
  });
  ASSERT_EQ(sender.join(), -SIGKILL);
  EXPECT_EQ(queue.get_nowait(), text(1, 100));
  EXPECT_EQ(queue.get_nowait(), text(2, 1 << 20));
}

TEST(QueuePayloadProcess, SixteenMegabytesEachWay) {
  Queue<std::vector<std::uint32_t>> there(1), back(1);
  Child peer([&](Child&) {
    for (int i = 0; i < 3; ++i) back.put(there.get());
  });
  std::vector<std::uint32_t> value(4 << 20);
  for (std::size_t i = 0; i < value.size(); ++i)
    value[i] = static_cast<std::uint32_t>(i * 2654435761u);
  for (int i = 0; i < 3; ++i) {
    there.put(value);
    ASSERT_EQ(back.get(), value);
    value.pop_back();
  }
  EXPECT_EQ(peer.join(), 0) << peer.failures();
}

// First in, first out for each producer, across rings that grow meanwhile.
template <class V>
void many_grow_at_once(V (*value_of)(std::uint64_t),
                       std::uint64_t (*number_of)(const V&), int rounds) {
  constexpr std::uint64_t kProducers = 4;
  constexpr std::uint64_t kEach = 3000;
  for (int round = 0; round < rounds; ++round) {
    Queue<V> queue(QueueOptions{.max_bytes = 64 << 20});
    Shared<std::atomic<std::uint64_t>> got;
    std::vector<std::unique_ptr<Child>> children;
    for (std::uint64_t p = 0; p < kProducers; ++p)
      children.push_back(std::make_unique<Child>([&, p](Child&) {
        for (std::uint64_t i = 0; i < kEach; ++i)
          queue.put(value_of(p << 32 | i));
      }));
    for (int c = 0; c < 2; ++c)
      children.push_back(std::make_unique<Child>([&](Child& self) {
        std::map<std::uint64_t, std::uint64_t> next;
        while (*got < kProducers * kEach) {
          const auto value = queue.try_get(20ms);
          if (!value) continue;
          ++*got;
          const std::uint64_t number = number_of(*value);
          auto& expected = next[number >> 32];
          self.expect((number & 0xFFFFFFFF) >= expected, "order");
          expected = (number & 0xFFFFFFFF) + 1;
        }
      }));
    for (auto& child : children)
      EXPECT_EQ(child->join(), 0) << child->failures();
    EXPECT_EQ(*got, kProducers * kEach);
    EXPECT_TRUE(queue.empty());
  }
}

TEST(QueueGrowthProcess, ManyGrowItAtOnce) {
  many_grow_at_once<std::uint64_t>(
      [](std::uint64_t i) { return i; },
      [](const std::uint64_t& value) { return value; }, 5);
}

TEST(QueueGrowthProcess, ManyGrowItAtOnceWithTexts) {
  many_grow_at_once<std::string>(
      [](std::uint64_t i) { return text(i, 20 + i % 400); },
      [](const std::string& value) { return number_in(value).value_or(0); }, 2);
}

TEST(QueuePayloadProcess, ANameWhoseUsersAreDeadIsRepaired) {
  const Name name("dead");
  Child maker([&](Child&) {
    auto queue = Queue<std::string>::create(name);
    for (std::uint64_t i = 0; i < 2000; ++i) queue.put(text(i, 500));
    for (std::uint64_t i = 0; i < 10; ++i) queue.get();
    // In hands: a block that no cell refers to.
    auto& store = store_of(queue);
    store.allocate(500, local_of(queue).domain().seat(), 1 << 30);
    raise(SIGKILL);
  });
  ASSERT_EQ(maker.join(), -SIGKILL);
  auto queue = Queue<std::string>::open_or_create(name);
  EXPECT_EQ(queue.qsize(), 1990u) << "its content goes only by unlink";
  EXPECT_EQ(blocks_in_use(queue), 1990u);
  for (std::uint64_t i = 10; i < 2000; ++i)
    ASSERT_EQ(queue.get_nowait(), text(i, 500));
  EXPECT_EQ(blocks_in_use(queue), 0u);
  EXPECT_EQ(store_of(queue).used(), 0u);
}

// ---- what is not bytes ----

TEST(QueuePayloadProcess, HandlesTravelAlsoWhenTheirSenderIsGone) {
  Queue<std::pair<std::string, Queue<std::string>>> mail(2);
  Child sender([&](Child&) {
    Queue<std::string> made(4);  // that nobody else has mapped
    made.put(text(7, 5000));
    mail.put({"a queue", made});
  });
  ASSERT_EQ(sender.join(), 0) << sender.failures();
  auto [what, got] = mail.get();
  EXPECT_EQ(what, "a queue");
  EXPECT_EQ(got.get_nowait(), text(7, 5000));
}

TEST(QueuePayloadProcess, DescriptorsAreDuplicated) {
  Queue<shoal::Fd> mail(1);
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  Child sender([&](Child&) {
    mail.put(shoal::Fd(ends[1]));
    _exit(0);
  });
  close(ends[1]);
  ASSERT_EQ(sender.join(), 0) << sender.failures();
  {
    const shoal::Fd got = mail.get();
    ASSERT_EQ(write(got.get(), "x", 1), 1);
  }
  char c = 0;
  EXPECT_EQ(read(ends[0], &c, 1), 1);
  EXPECT_EQ(c, 'x');
  EXPECT_EQ(read(ends[0], &c, 1), 0) << "nobody else holds it";
  close(ends[0]);
}

// What is dropped or refused is let go of.
TEST(QueuePayloadProcess, DescriptorsThatDoNotArriveAreClosed) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  Queue<shoal::Fd> mail(
      QueueOptions{.maxsize = 1, .on_full = shoal::OnFull::drop_oldest});
  mail.put(shoal::Fd(ends[1]));
  mail.put(shoal::Fd(dup(0)));
  char c;
  EXPECT_EQ(read(ends[0], &c, 1), 0) << "dropped and open";
  close(ends[0]);
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  Queue<shoal::Fd> full(1);
  full.put(shoal::Fd(dup(0)));
  shoal::Fd kept(ends[1]);
  EXPECT_FALSE(full.try_put(std::move(kept)));
  EXPECT_GE(kept.get(), 0) << "untouched";
  { shoal::Fd gone = std::move(kept); }
  EXPECT_EQ(read(ends[0], &c, 1), 0) << "refused and open";
  close(ends[0]);
}

// What a stopped process holds stays its own.
TEST(QueuePayloadProcess, AStoppedProducerHoldsOnlyWhatItHolds) {
  Queue<std::string> queue(4);
  Shared<std::atomic<std::uint64_t>> puts;
  Child producer([&](Child&) {
    for (std::uint64_t i = 0;; ++i) {
      queue.put(text(i, 5000));
      *puts = i + 1;
    }
  });
  std::uint64_t next = 0;
  for (int round = 0; round < 50; ++round) {
    producer.kill(SIGSTOP);
    for (int i = 0; i < 6; ++i)
      if (const auto value = queue.try_get(1ms)) {
        ASSERT_EQ(*value, text(next++, 5000));
      }
    producer.kill(SIGCONT);
    ASSERT_EQ(queue.get(30s), text(next++, 5000));
  }
  producer.kill();
  producer.join();
  while (const auto value = queue.try_get()) {
    ASSERT_EQ(*value, text(next++, 5000));
  }
  EXPECT_GE(next, *puts);
  EXPECT_EQ(blocks_in_use(queue), 0u);
}

}  // namespace
