// Queue<T> of messages that are encoded, of any size, in one process.

#include <array>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <tuple>
#include <unordered_map>
#include <variant>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shoal/ipc/queue.h"
#include "tests/ipc/payload_scene.h"
#include "tests/support/thread.h"

namespace {

using namespace shoal::support;
using shoal::OnFull;
using shoal::Queue;
using shoal::QueueOptions;
using testing::HasSubstr;
using namespace std::chrono_literals;

struct Order {
  int id;
  std::string symbol;
  std::vector<double> prices;
  std::optional<std::string> note;
  bool operator==(const Order&) const = default;
};

template <class T>
void comes_back(const T& value) {
  Queue<T> queue(2);
  queue.put(value);
  EXPECT_EQ(queue.qsize(), 1u);
  EXPECT_EQ(queue.get(), value);
  EXPECT_TRUE(queue.empty());
  EXPECT_EQ(blocks_in_use(queue), 0u);
}

TEST(QueuePayload, EveryKindOfValueComesBack) {
  comes_back(std::string());
  comes_back(std::string("short"));
  comes_back(std::string(40, 'x'));
  comes_back(std::string(41, 'x'));
  comes_back(std::string(100000, 'x'));
  comes_back(std::vector<int>{});
  comes_back(std::vector<int>{1, 2, 3});
  comes_back(std::vector<std::string>(1000, "a string"));
  comes_back(std::map<std::string, std::vector<int>>{{"a", {1}}, {"b", {}}});
  comes_back(std::unordered_map<int, std::string>{{1, "one"}, {2, "two"}});
  comes_back(std::set<std::string>{"x", "y"});
  comes_back(std::deque<std::string>{"x", "y"});
  comes_back(std::pair<int, std::string>{1, "one"});
  comes_back(std::tuple<int, std::string, double>{1, "one", 1.5});
  comes_back(std::variant<int, std::string>{"text"});
  comes_back(std::optional<std::string>{});
  comes_back(std::optional<std::string>{"x"});
  comes_back(std::vector<std::optional<std::variant<int, std::string>>>{
      1, "two", std::nullopt});
  comes_back(Order{7, "ABC", {1.5, 2.5}, "note"});
  comes_back(std::vector<Order>(100, Order{7, "ABC", {1.5}, {}}));
}

TEST(QueuePayload, EverySizeComesBack) {
  Queue<std::vector<std::byte>> queue(2);
  for (std::size_t size = 0; size <= 16u << 20;
       size = size < 600 ? size + 1 : size * 2 - 7) {
    std::vector<std::byte> value(size);
    for (std::size_t i = 0; i < size; i += 97)
      value[i] = static_cast<std::byte>(i + size);
    queue.put(value);
    ASSERT_EQ(queue.get(), value) << size;
  }
  EXPECT_EQ(blocks_in_use(queue), 0u);
  EXPECT_EQ(store_of(queue).used(), 0u);
}

TEST(QueuePayload, AStringLiteralIsAString) {
  Queue<std::string> queue;
  queue.put("literal");
  queue.put_nowait("another");
  EXPECT_TRUE(queue.try_put("third"));
  EXPECT_EQ(queue.get(), "literal");
  EXPECT_EQ(queue.get_nowait(), "another");
  EXPECT_EQ(queue.try_get(), "third");
}

TEST(QueuePayload, WhatOnlyMovesIsMoved) {
  using Pointer = std::unique_ptr<std::string>;
  Queue<Pointer> queue(1);
  auto value = std::make_unique<std::string>("moved");
  queue.put(std::move(value));
  auto kept = std::make_unique<std::string>("kept");
  EXPECT_FALSE(queue.try_put(std::move(kept)));
  ASSERT_NE(kept, nullptr) << "try_put: untouched when it says no";
  EXPECT_EQ(*kept, "kept");
  const Pointer got = queue.get();
  ASSERT_NE(got, nullptr);
  EXPECT_EQ(*got, "moved");
  EXPECT_TRUE(queue.try_put(std::move(kept)));
  queue.get();
  queue.put(nullptr);
  EXPECT_EQ(queue.get(), nullptr);
  EXPECT_FALSE(queue.try_get().has_value());
}

TEST(QueuePayload, OrderAgainstADeque) {
  Queue<std::string> queue(13);
  std::deque<std::string> model;
  std::mt19937 random(1);
  for (int i = 0; i < 20000; ++i) {
    if (random() % 2 == 0) {
      const std::string value = text(static_cast<std::uint64_t>(i),
                                     random() % (random() % 8 ? 100 : 5000));
      const bool fits = model.size() < 13;
      ASSERT_EQ(queue.try_put(value), fits);
      if (fits) model.push_back(value);
    } else {
      const auto value = queue.try_get();
      ASSERT_EQ(value.has_value(), !model.empty());
      if (value) {
        ASSERT_EQ(*value, model.front());
        model.pop_front();
      }
    }
    ASSERT_EQ(queue.qsize(), model.size());
    ASSERT_EQ(queue.full(), model.size() == 13);
  }
  while (queue.try_get()) {
  }
  EXPECT_EQ(blocks_in_use(queue), 0u);
  EXPECT_EQ(store_of(queue).used(), 0u);
}

TEST(QueuePayload, ManyAtOnce) {
  Queue<std::string> queue(5);
  std::vector<std::string> values;
  for (std::uint64_t i = 0; i < 8; ++i) values.push_back(text(i, 20 + 60 * i));
  EXPECT_EQ(queue.put_many(values), 5u);
  EXPECT_THROW(queue.put_many(values, shoal::now), shoal::Full);
  std::vector<std::string> got(3);
  EXPECT_EQ(queue.get_many(got), 3u);
  EXPECT_EQ(got[2], values[2]);
  EXPECT_EQ(queue.put_many(std::span(values).subspan(5)), 3u);
  got.resize(10);
  EXPECT_EQ(queue.get_many(got), 5u);
  EXPECT_EQ(got[4], values[7]);
  EXPECT_EQ(queue.get_many({}), 0u);
  EXPECT_THROW(queue.get_many(got, 1ms), shoal::Empty);
  queue.put("last");
  queue.shutdown();
  EXPECT_EQ(queue.get_many(got), 1u);
  EXPECT_THROW(queue.get_many(got), shoal::ShutDown);
  EXPECT_THROW(queue.put_many(values), shoal::ShutDown);
  EXPECT_EQ(blocks_in_use(queue), 0u);
}

// ---- max_bytes ----

TEST(QueuePayload, MaxBytesBoundsThePayloads) {
  Queue<std::string> queue(QueueOptions{.maxsize = 1000, .max_bytes = 100000});
  int held = 0;
  while (queue.try_put(std::string(992, 'x'))) ++held;
  EXPECT_EQ(held, 100);
  EXPECT_FALSE(queue.full()) << "cells are left";
  EXPECT_TRUE(queue.try_put("a short one takes none"));
  EXPECT_THROW(queue.put_nowait(std::string(992, 'x')), shoal::Full);
  EXPECT_THROW(queue.put(std::string(992, 'x'), 2ms), shoal::Full);
  queue.get();
  EXPECT_TRUE(queue.try_put(std::string(992, 'x')));
}

TEST(QueuePayload, WhatNeverFitsIsTooLong) {
  Queue<std::string> queue(QueueOptions{.maxsize = 4, .max_bytes = 100000});
  EXPECT_TRUE(queue.try_put(std::string(99992, 'x')));
  EXPECT_EQ(queue.get().size(), 99992u);
  try {
    queue.put(std::string(99993, 'x'));
    FAIL();
  } catch (const shoal::MessageTooLong& error) {
    EXPECT_THAT(error.what(), HasSubstr("100001 bytes"));
    EXPECT_THAT(error.what(), HasSubstr("max_bytes 100000"));
  }
  EXPECT_THROW((void)queue.try_put(std::string(1 << 20, 'x')),
               shoal::MessageTooLong);
  EXPECT_TRUE(queue.empty());
  EXPECT_EQ(blocks_in_use(queue), 0u);
}

TEST(QueuePayload, WhoWaitsForRoomIsWoken) {
  Queue<std::string> queue(QueueOptions{.maxsize = 10, .max_bytes = 100000});
  queue.put(std::string(60000, 'a'));
  Thread first([&] { queue.put(std::string(60000, 'b')); });
  Thread second([&] { queue.put(std::string(30000, 'c')); });
  ASSERT_TRUE(first.falls_asleep());
  ASSERT_TRUE(second.ends());
  EXPECT_EQ(queue.get()[0], 'a');
  ASSERT_TRUE(first.ends());
  EXPECT_EQ(queue.get()[0], 'c');
  EXPECT_EQ(queue.get()[0], 'b');
}

TEST(QueuePayload, CloseAndShutdownWakeWhoWaitsForRoom) {
  Queue<std::string> queue(QueueOptions{.maxsize = 10, .max_bytes = 100000});
  queue.put(std::string(60000, 'a'));
  Queue<std::string> copy = queue;
  Thread closed(
      [&] { EXPECT_THROW(copy.put(std::string(60000, 'b')), shoal::Closed); });
  ASSERT_TRUE(closed.falls_asleep());
  copy.close();
  ASSERT_TRUE(closed.ends());
  Thread shut([&] {
    EXPECT_THROW(queue.put(std::string(60000, 'b')), shoal::ShutDown);
  });
  ASSERT_TRUE(shut.falls_asleep());
  queue.shutdown();
  ASSERT_TRUE(shut.ends());
  EXPECT_FALSE(queue.try_put(std::string(60000, 'b')));
  EXPECT_EQ(queue.get().size(), 60000u);
  EXPECT_THROW(queue.get(), shoal::ShutDown);
}

// ---- what throws ----

struct Chain {
  int value = 0;
  std::unique_ptr<Chain> next;
};

TEST(QueuePayload, EncodingThatThrowsLeavesTheQueueAsItWas) {
  Queue<Chain> queue(1);
  auto chain = std::make_unique<Chain>();
  for (int i = 0; i < 3000; ++i) {
    auto longer = std::make_unique<Chain>();
    longer->next = std::move(chain);
    chain = std::move(longer);
  }
  EXPECT_THROW(queue.put(std::move(*chain)), std::invalid_argument);
  EXPECT_TRUE(queue.empty());
  EXPECT_EQ(blocks_in_use(queue), 0u);
  EXPECT_EQ(store_of(queue).used(), 0u);
  queue.put(Chain{7, std::make_unique<Chain>(Chain{8, nullptr})});
  EXPECT_EQ(queue.get().next->value, 8);
}

TEST(QueuePayload, AMessageThatIsCorruptIsLostAlone) {
  using Lines = std::vector<std::string>;
  Queue<Lines> queue(4);
  for (int i = 0; i < 3; ++i)
    queue.put(Lines(100, "message " + std::to_string(i)));
  // The second block of 2,048 bytes announces more than it holds.
  const shoal::payload::BlockRef second = std::uint64_t{4} << 40 | 1;
  std::byte* const data = store_of(queue).data(second, 2048);
  ASSERT_EQ(std::to_integer<int>(data[0]), 100);
  std::memset(data, 0xFF, 8);
  EXPECT_EQ(queue.get(), Lines(100, "message 0"));
  EXPECT_THROW(queue.get(), shoal::Corrupt);
  EXPECT_EQ(queue.get(), Lines(100, "message 2"));
  EXPECT_TRUE(queue.empty());
  EXPECT_EQ(blocks_in_use(queue), 0u);
}

// ---- on_full ----

TEST(QueueOnFull, FailThrowsAtOnce) {
  Queue<std::string> queue(QueueOptions{.maxsize = 1, .on_full = OnFull::fail});
  queue.put("one");
  EXPECT_THROW(queue.put("two"), shoal::Full);
  EXPECT_THROW(queue.put("two", 1h), shoal::Full);
  EXPECT_FALSE(queue.try_put("two", 1h));
  EXPECT_EQ(queue.get(), "one");
  Queue<int> numbers(QueueOptions{.maxsize = 1, .on_full = OnFull::fail});
  numbers.put(1);
  EXPECT_THROW(numbers.put(2), shoal::Full);
  EXPECT_THROW(numbers.loan(), shoal::Full);
  Queue<std::string> bytes(
      QueueOptions{.maxsize = 10, .max_bytes = 4096, .on_full = OnFull::fail});
  bytes.put(std::string(3000, 'x'));
  EXPECT_THROW(bytes.put(std::string(3000, 'x')), shoal::Full);
}

TEST(QueueOnFull, DropOldestMakesRoom) {
  Queue<std::string> queue(
      QueueOptions{.maxsize = 3, .on_full = OnFull::drop_oldest});
  for (std::uint64_t i = 0; i < 10; ++i) queue.put(text(i, 500));
  EXPECT_EQ(queue.qsize(), 3u);
  EXPECT_EQ(queue.dropped(), 7u);
  for (std::uint64_t i = 7; i < 10; ++i) EXPECT_EQ(queue.get(), text(i, 500));
  EXPECT_EQ(blocks_in_use(queue), 0u);
  Queue<int> numbers(
      QueueOptions{.maxsize = 3, .on_full = OnFull::drop_oldest});
  for (int i = 0; i < 10; ++i) numbers.put(i);
  EXPECT_EQ(numbers.get(), 7);
  EXPECT_EQ(numbers.dropped(), 7u);
  Queue<std::string> bytes(QueueOptions{
      .maxsize = 100, .max_bytes = 4096, .on_full = OnFull::drop_oldest});
  for (std::uint64_t i = 0; i < 10; ++i) bytes.put(text(i, 1000));
  EXPECT_EQ(bytes.qsize(), 4u);
  EXPECT_EQ(bytes.get(), text(6, 1000));
}

TEST(QueueOnFull, DropOldestWaitsForWhatIsInOtherHands) {
  Queue<int> queue(QueueOptions{.maxsize = 1, .on_full = OnFull::drop_oldest});
  queue.put(1);
  std::unique_ptr<shoal::Taken<int>> taken(new shoal::Taken(queue.take()));
  EXPECT_FALSE(queue.try_put(2));
  EXPECT_THROW(queue.put(2), std::logic_error) << "its own Taken";
  Thread other([&] { queue.put(2); });
  ASSERT_TRUE(other.falls_asleep());
  taken.reset();
  ASSERT_TRUE(other.ends());
  EXPECT_EQ(queue.get(), 2);
  EXPECT_EQ(queue.dropped(), 0u);
}

// It would make no room.
TEST(QueueOnFull, DropOldestDropsNothingBehindWhatIsInOtherHands) {
  Queue<int> queue(QueueOptions{.maxsize = 3, .on_full = OnFull::drop_oldest});
  for (int i = 1; i <= 3; ++i) queue.put(i);
  std::unique_ptr<shoal::Taken<int>> taken(new shoal::Taken(queue.take()));
  Thread refused([&] {
    EXPECT_FALSE(queue.try_put(4));
    EXPECT_FALSE(queue.try_put(4, std::chrono::milliseconds(20)));
  });
  ASSERT_TRUE(refused.ends());
  EXPECT_EQ(queue.dropped(), 0u);
  Thread other([&] { queue.put(4); });
  ASSERT_TRUE(other.falls_asleep());
  taken.reset();
  ASSERT_TRUE(other.ends());
  for (int i = 2; i <= 4; ++i) EXPECT_EQ(queue.get(), i);
  EXPECT_EQ(queue.dropped(), 0u);
}

}  // namespace
