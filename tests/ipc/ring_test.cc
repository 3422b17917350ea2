// The ring by itself, against a deque of strings, and what it makes of words
// that no Writer has written.

#include "shoal/ipc/ring.h"

#include <sys/mman.h>

#include <cstring>
#include <deque>
#include <memory>
#include <random>
#include <string>

#include "gtest/gtest.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/segment.h"

namespace {

using namespace shoal;
using namespace shoal::ring;

constexpr std::uint64_t kCapacity = 4096;

struct Ground {
  Ground() {
    file.reserve(0, kCapacity);
    memory = file.map_twice(0, kCapacity);
  }
  std::byte* bytes() const { return static_cast<std::byte*>(memory.get()); }

  segment::File file = segment::File::anonymous("ring", kCapacity);
  std::shared_ptr<void> memory;
  std::unique_ptr<RingState> state = std::make_unique<RingState>();
};

TEST(Ring, MemoryIsThereTwice) {
  const Ground ground;
  ground.bytes()[kCapacity + 5] = std::byte{7};
  EXPECT_EQ(ground.bytes()[5], std::byte{7});
  std::memset(ground.bytes() + kCapacity - 4, 9, 8);
  EXPECT_EQ(ground.bytes()[3], std::byte{9});
}

TEST(Ring, HeadersHoldWhatTheyAreMadeOf) {
  for (const std::uint64_t length :
       {std::uint64_t{0}, std::uint64_t{1}, kMostBytes})
    for (const std::uint32_t type : {0u, 1u, kMostTypes})
      for (const bool aside : {false, true}) {
        const Header header = make_header(length, type, aside);
        EXPECT_NE(header, 0u);
        EXPECT_EQ(length_of(header), length);
        EXPECT_EQ(type_of(header), type);
        EXPECT_EQ(is_aside(header), aside);
      }
  EXPECT_EQ(frame_bytes(0), 8u);
  EXPECT_EQ(frame_bytes(1), 16u);
  EXPECT_EQ(frame_bytes(8), 16u);
}

TEST(Ring, IsADeque) {
  const Ground ground;
  Writer writer(*ground.state, ground.bytes(), kCapacity);
  Reader reader(*ground.state, ground.bytes(), kCapacity);
  std::deque<std::string> model;
  std::mt19937 random(1);
  std::uint64_t queued = 0;
  std::size_t passed = 0;
  for (int step = 0; step < 100000; ++step) {
    if (random() % 2 == 0) {
      const std::string text(
          random() % 4 == 0 ? random() % 1000 : random() % 20,
          static_cast<char>('a' + random() % 26));
      const std::uint64_t bytes = frame_bytes(text.size());
      const bool fits = queued + bytes + sizeof(Header) <= kCapacity;
      ASSERT_EQ(writer.finds_any_room(bytes), fits);
      ASSERT_LE(writer.finds_room(bytes), fits);
      if (!writer.finds_any_room(bytes)) continue;
      std::memcpy(writer.place(), text.data(), text.size());
      writer.publish(make_header(text.size(), 3, false));
      model.push_back(text);
      queued += bytes;
    } else {
      const Header header = reader.header();
      ASSERT_EQ(header != 0, !model.empty());
      ASSERT_EQ(reader.has_frame(), !model.empty());
      if (header == 0) continue;
      ASSERT_EQ(type_of(header), 3u);
      ASSERT_EQ(std::string(reinterpret_cast<char*>(reader.content()),
                            length_of(header)),
                model.front());
      queued -= frame_bytes(model.front().size());
      model.pop_front();
      reader.consume(header);
      ++passed;
    }
  }
  EXPECT_GT(passed, 40000u);
}

TEST(Ring, HeadComesInSteps) {
  const Ground ground;
  Writer writer(*ground.state, ground.bytes(), kCapacity);
  Reader reader(*ground.state, ground.bytes(), kCapacity);
  for (int i = 0; i < 10; ++i) writer.publish(make_header(8, 0, false));
  reader.consume(reader.header());
  EXPECT_EQ(ground.state->head.load(), 0u);
  EXPECT_EQ(ground.state->consumed.load(), 16u);
  reader.tell();
  EXPECT_EQ(ground.state->head.load(), 16u);
}

// Another process goes on where one has stopped.
TEST(Ring, GoesOnFromItsWords) {
  const Ground ground;
  {
    Writer writer(*ground.state, ground.bytes(), kCapacity);
    for (int i = 0; i < 3; ++i) writer.publish(make_header(8, 0, false));
    writer.save();
  }
  {
    Reader reader(*ground.state, ground.bytes(), kCapacity);
    reader.consume(reader.header());
  }
  Writer writer(*ground.state, ground.bytes(), kCapacity);
  EXPECT_EQ(writer.position(), 48u);
  writer.publish(make_header(24, 0, false));
  Reader reader(*ground.state, ground.bytes(), kCapacity);
  EXPECT_EQ(reader.position(), 16u);
  reader.consume(reader.header());
  reader.consume(reader.header());
  EXPECT_EQ(length_of(reader.header()), 24u);
}

TEST(Ring, RefusesHeadersThatNobodyWrites) {
  const Ground ground;
  Reader reader(*ground.state, ground.bytes(), kCapacity);
  std::mt19937_64 random(2);
  int refused = 0;
  for (int i = 0; i < 10000; ++i) {
    const Header header = random() >> random() % 64;
    header_at(ground.bytes()).store(header, std::memory_order_relaxed);
    try {
      const Header found = reader.header();
      ASSERT_EQ(found, header);
      ASSERT_TRUE(found == 0 || frame_bytes_of(found) <= kCapacity);
    } catch (const Corrupt&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 5000);
}

TEST(Ring, RefusesHeadsThatNobodyWrites) {
  const Ground ground;
  Writer writer(*ground.state, ground.bytes(), kCapacity);
  writer.publish(make_header(8, 0, false));
  for (const std::uint64_t head :
       {std::uint64_t{17}, ~std::uint64_t{0}, std::uint64_t{1} << 40}) {
    ground.state->head.store(head);
    ground.state->consumed.store(head);
    EXPECT_THROW(writer.finds_room(16), Corrupt) << head;
    EXPECT_THROW(writer.finds_any_room(16), Corrupt) << head;
    EXPECT_THROW(Writer(*ground.state, ground.bytes(), kCapacity), Corrupt);
  }
}

}  // namespace
