// Arena against a map of live blocks.

#include "shoal/ipc/arena.h"

#include <string.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "shoal/ipc/errors.h"
#include "tests/ipc/arena_ground.h"
#include "tests/support/child.h"
#include "tests/support/residue.h"
#include "tests/support/small_shm.h"

namespace {

using namespace shoal;
using support::Child;
using support::Ground;
using support::Shared;

constexpr std::size_t kMiB = 1 << 20;
constexpr std::uint64_t kMe = arena_owner::process(1);

long minor_faults() {
  rusage usage;
  getrusage(RUSAGE_THREAD, &usage);
  return usage.ru_minflt;
}

void fill(Arena& arena, BlockRef block, std::size_t bytes, unsigned char with) {
  memset(arena.data(block, bytes), with, bytes);
}
bool holds(const Arena& arena, BlockRef block, std::size_t bytes,
           unsigned char what) {
  const std::byte* data = arena.data(block, bytes);
  return std::all_of(data, data + bytes,
                     [what](std::byte b) { return b == std::byte{what}; });
}

// ---- names of owners ----

TEST(ArenaOwner, NoTwoAreEqualAndNoneIsFree) {
  std::set<std::uint64_t> owners;
  std::size_t made = 0;
  for (const std::uint32_t number : {0u, 1u, 2u, 1000u, ~0u}) {
    owners.insert(arena_owner::process(number));
    ++made;
    for (const std::uint32_t generation : {0u, 1u, 2u, 0x3FFFFFFFu}) {
      owners.insert(arena_owner::task(number, generation));
      ++made;
    }
  }
  EXPECT_EQ(owners.size(), made);
  EXPECT_FALSE(owners.contains(0));
}

// ---- one block ----

class ArenaSize : public testing::TestWithParam<std::size_t> {};

TEST_P(ArenaSize, BlockHoldsThatMuchAndIsItsOwn) {
  Ground ground(4 * kMiB);
  const std::size_t bytes = GetParam();
  const BlockRef one = ground.arena.allocate(bytes, kMe);
  const BlockRef two = ground.arena.allocate(bytes, kMe);
  EXPECT_NE(one, 0u);
  EXPECT_NE(one, two);
  fill(ground.arena, one, bytes, 1);
  fill(ground.arena, two, bytes, 2);
  EXPECT_TRUE(holds(ground.arena, one, bytes, 1));
  EXPECT_TRUE(holds(ground.arena, two, bytes, 2));
  EXPECT_EQ(ground.arena.blocks_in_use(), 2u);
  ground.arena.release(one);
  EXPECT_TRUE(holds(ground.arena, two, bytes, 2));
  ground.arena.release(two);
  EXPECT_EQ(ground.arena.blocks_in_use(), 0u);
}

TEST_P(ArenaSize, MoreThanTheBlockHoldsIsCorrupt) {
  Ground ground(4 * kMiB);
  const std::size_t bytes = GetParam();
  const BlockRef block = ground.arena.allocate(bytes, kMe);
  const std::size_t holds =
      std::bit_ceil(std::max(bytes, std::size_t{1} << kSmallestBlock));
  EXPECT_NO_THROW(ground.arena.data(block, holds));
  EXPECT_THROW(ground.arena.data(block, holds + 1), Corrupt);
  EXPECT_THROW(ground.arena.data(block, SIZE_MAX), Corrupt);
}

INSTANTIATE_TEST_SUITE_P(, ArenaSize,
                         testing::Values(0, 1, 255, 256, 257, 4095, 4096, 4097,
                                         65535, 65536, 65537, 131072, 131073,
                                         kMiB, kMiB + 1, 2 * kMiB));

TEST(Arena, ReferenceThatNobodyGaveIsCorrupt) {
  Ground ground(kMiB);
  const BlockRef block = ground.arena.allocate(300, kMe);
  for (const BlockRef bad :
       {BlockRef{0}, BlockRef{7}, BlockRef{kBlockClasses + 1} << 40,
        ~BlockRef{0}, block | BlockRef{1} << 39, BlockRef{1} << 63,
        // One more than the region has of this class.
        BlockRef{2} << 40 | kMiB / 512}) {
    EXPECT_THROW(ground.arena.data(bad, 1), Corrupt) << bad;
    EXPECT_THROW(ground.arena.release(bad), Corrupt) << bad;
    EXPECT_THROW(ground.arena.assign(bad, kMe), Corrupt) << bad;
  }
  EXPECT_EQ(ground.arena.blocks_in_use(), 1u);
}

// ---- many blocks ----

TEST(Arena, BehavesLikeAMapOfLiveBlocks) {
  struct Live {
    std::size_t bytes;
    unsigned char filled;
  };
  Ground ground(64 * kMiB);
  std::mt19937 random(7);
  std::map<BlockRef, Live> live;
  const auto check_and_release = [&](std::map<BlockRef, Live>::iterator it) {
    ASSERT_TRUE(
        holds(ground.arena, it->first, it->second.bytes, it->second.filled));
    ground.arena.release(it->first);
    live.erase(it);
  };
  for (int n = 0; n < 4000; ++n) {
    if (live.size() < 40 && random() % 2 == 0) {
      // Any power of two is as likely as another.
      const std::size_t bytes = random() % (std::size_t{1} << random() % 21);
      const BlockRef block = ground.arena.allocate(bytes, kMe);
      const auto with = static_cast<unsigned char>(random());
      ASSERT_TRUE(live.insert({block, {bytes, with}}).second) << "given twice";
      fill(ground.arena, block, bytes, with);
    } else if (!live.empty()) {
      auto it = live.begin();
      std::advance(it, random() % live.size());
      ASSERT_NO_FATAL_FAILURE(check_and_release(it));
    }
    ASSERT_EQ(ground.arena.blocks_in_use(), live.size());
  }
  while (!live.empty())
    ASSERT_NO_FATAL_FAILURE(check_and_release(live.begin()));
}

TEST(Arena, WhatIsUsedAgainCostsNoPageFault) {
  if (shoal::support::kAddressSanitizer)
    GTEST_SKIP() << "its shadow costs page faults";
  Ground ground(64 * kMiB);
  const auto round = [&] {
    std::vector<BlockRef> blocks;
    for (int n = 0; n < 200; ++n)
      for (const std::size_t bytes : {200, 3000, 70'000, 200'000}) {
        blocks.push_back(ground.arena.allocate(bytes, kMe));
        fill(ground.arena, blocks.back(), bytes, 1);
      }
    for (const BlockRef block : blocks) ground.arena.release(block);
  };
  const long start = minor_faults();
  round();
  const long first = minor_faults() - start;
  const std::uint64_t taken = ground.ever_taken(200'000);
  round();
  const long second = minor_faults() - start - first;
  // The vector of references may cost one or two.
  EXPECT_LE(second, 8) << "first round: " << first;
  EXPECT_EQ(ground.ever_taken(200'000), taken);
}

TEST(Arena, BlocksArePopulatedWhenTheyAreGiven) {
  if (shoal::support::kAddressSanitizer)
    GTEST_SKIP() << "its shadow costs page faults";
  Ground ground(64 * kMiB);
  const BlockRef block = ground.arena.allocate(8 * kMiB, kMe);
  const long start = minor_faults();
  fill(ground.arena, block, 8 * kMiB, 1);
  EXPECT_LE(minor_faults() - start, 4);
}

TEST(Arena, NeighboursWithinARegionAreAllOfIt) {
  Ground ground(kMiB);
  std::set<BlockRef> blocks;
  for (std::size_t n = 0; n < kMiB / 4096; ++n)
    blocks.insert(ground.arena.allocate(4096, kMe));
  EXPECT_EQ(blocks.size(), kMiB / 4096);
  EXPECT_THROW(ground.arena.allocate(4096, kMe), NoSpace);
  EXPECT_NO_THROW(ground.arena.allocate(2048, kMe)) << "another class";
  ground.arena.release(*blocks.begin());
  EXPECT_EQ(ground.arena.allocate(4096, kMe), *blocks.begin());
  EXPECT_THROW(ground.arena.allocate(4096, kMe), NoSpace);
}

TEST(Arena, BeyondTheRegionIsNoSpaceWithFigures) {
  Ground ground(kMiB);
  for (const std::size_t bytes : {kMiB + 1, std::size_t{1} << 41, SIZE_MAX}) {
    try {
      ground.arena.allocate(bytes, kMe);
      FAIL() << bytes;
    } catch (const NoSpace& error) {
      EXPECT_EQ(error.wanted(), bytes);
      EXPECT_EQ(error.available(), kMiB);
    }
  }
  EXPECT_EQ(ground.arena.blocks_in_use(), 0u);
}

// ---- sweep ----

TEST(Arena, SweepFreesWhatTheDeadOwnedAndNothingElse) {
  Ground ground(16 * kMiB);
  const std::uint64_t dead = arena_owner::process(4);
  const std::uint64_t task = arena_owner::task(4, 9);
  const std::vector<std::size_t> sizes = {1, 500, 5000, 50'000, 500'000};
  std::vector<BlockRef> mine;
  for (const std::size_t bytes : sizes) {
    ground.arena.allocate(bytes, dead);
    mine.push_back(ground.arena.allocate(bytes, kMe));
    fill(ground.arena, mine.back(), bytes, 5);
    ground.arena.assign(ground.arena.allocate(bytes, dead), task);
  }
  EXPECT_EQ(ground.arena.sweep(arena_owner::process(5), 0), 0u);
  EXPECT_EQ(ground.arena.sweep(dead), sizes.size());
  EXPECT_EQ(ground.arena.sweep(dead), 0u);
  EXPECT_EQ(ground.arena.blocks_in_use(), 2 * sizes.size());
  EXPECT_EQ(ground.arena.sweep(dead, task), sizes.size());
  EXPECT_EQ(ground.arena.blocks_in_use(), sizes.size());
  for (std::size_t i = 0; i < sizes.size(); ++i)
    EXPECT_TRUE(holds(ground.arena, mine[i], sizes[i], 5));
  // What was swept is given again, before anything new is.
  for (const std::size_t bytes : sizes) {
    const std::uint64_t taken = ground.ever_taken(bytes);
    ground.arena.allocate(bytes, kMe);
    ground.arena.allocate(bytes, kMe);
    EXPECT_EQ(ground.ever_taken(bytes), taken) << bytes;
  }
}

TEST(Arena, AssignedBlockIsNoLongerTheFirstOwners) {
  Ground ground(kMiB);
  const BlockRef block = ground.arena.allocate(10, kMe);
  ground.arena.assign(block, arena_owner::task(3, 1));
  EXPECT_EQ(ground.arena.sweep(kMe, arena_owner::task(3, 2)), 0u);
  EXPECT_EQ(ground.arena.sweep(kMe, arena_owner::task(3, 1)), 1u);
}

// ---- several at once ----

// Each thread holds at most two blocks; none is given to two, and what is
// free is found again.
TEST(Arena, ThreadsNeverShareABlock) {
  constexpr int kThreads = 4;
  constexpr int kRounds = 20'000;
  Ground ground(64 * kMiB);
  std::atomic<int> torn{0};
  std::vector<std::thread> threads;
  for (std::uint32_t t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      std::mt19937 random(t);
      struct Held {
        BlockRef block;
        std::size_t bytes;
        unsigned char with;
      };
      std::vector<Held> held;
      for (int n = 0; n < kRounds; ++n) {
        if (held.size() == 2 || (!held.empty() && random() % 2 == 0)) {
          const Held& one = held.back();
          if (!holds(ground.arena, one.block, one.bytes, one.with)) ++torn;
          ground.arena.release(one.block);
          held.pop_back();
        } else {
          const std::size_t bytes = 200 + random() % 2 * 200;
          const auto with = static_cast<unsigned char>(random());
          const BlockRef block =
              ground.arena.allocate(bytes, arena_owner::process(t));
          fill(ground.arena, block, bytes, with);
          held.push_back({block, bytes, with});
        }
      }
      for (const Held& one : held) ground.arena.release(one.block);
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(torn, 0);
  EXPECT_EQ(ground.arena.blocks_in_use(), 0u);
}

// What is free is found again, however many look for it at once: the arena
// does not grow beyond what is in use.
TEST(Arena, ThreadsDoNotMakeItGrow) {
  constexpr int kThreads = 4;
  Ground ground(16 * kMiB);
  std::vector<std::thread> threads;
  for (std::uint32_t t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      for (int n = 0; n < 150'000; ++n) {
        const BlockRef one =
            ground.arena.allocate(200, arena_owner::process(t));
        const BlockRef two =
            ground.arena.allocate(200, arena_owner::process(t));
        ground.arena.release(one);
        ground.arena.release(two);
      }
    });
  for (auto& thread : threads) thread.join();
  const std::uint64_t taken = ground.ever_taken(200);
  EXPECT_LE(taken, 4 * kThreads);
  for (std::uint64_t n = 0; n < taken; ++n) ground.arena.allocate(200, kMe);
  EXPECT_EQ(ground.ever_taken(200), taken) << "a free block was not found";
}

// ---- under pressure ----

// An arena in a /dev/shm that holds so much.
bool with_small_shm(std::size_t bytes,
                    const std::function<void(Child&, Ground&)>& body) {
  return support::with_small_shm(bytes, [&](Child& self, support::SmallShm&) {
    constexpr std::size_t kRegion = 128 * kMiB;
    Ground ground(kRegion,
                  std::make_shared<const segment::File>(segment::File::named(
                      support::unique_name("small"),
                      Arena::mapping_bytes(kRegion), Access{})));
    // The words of the blocks get their pages here, as a memfd, which no mount
    // limits, gives them at any time.
    for (std::size_t bytes = 256; bytes <= 64 * kMiB; bytes *= 2)
      ground.arena.release(ground.arena.allocate(bytes / 2 + 1, kMe));
    body(self, ground);
  });
}

TEST(ArenaPressure, PagesOfFreeBlocksAreUsedForOthers) {
  const bool could = with_small_shm(64 * kMiB, [](Child& self, Ground& ground) {
    const BlockRef big = ground.arena.allocate(40 * kMiB, kMe);
    ground.arena.release(big);
    // Needs what the free block holds.
    const BlockRef other = ground.arena.allocate(30 * kMiB, kMe);
    fill(ground.arena, other, 30 * kMiB, 3);
    const BlockRef small = ground.arena.allocate(300, kMe);
    fill(ground.arena, small, 300, 4);
    self.expect(holds(ground.arena, other, 30 * kMiB, 3), "content");
    ground.arena.release(other);
    // And back: the first one's pages are gone, its block is not.
    const BlockRef again = ground.arena.allocate(40 * kMiB, kMe);
    fill(ground.arena, again, 40 * kMiB, 5);
    self.expect(again == big, "the block is used again");
    self.expect(holds(ground.arena, small, 300, 4), "small one untouched");
  });
  if (!could) GTEST_SKIP() << "no mount namespace";
}

TEST(ArenaPressure, NothingIsTakenFromWhoHoldsIt) {
  const bool could = with_small_shm(64 * kMiB, [](Child& self, Ground& ground) {
    const BlockRef big = ground.arena.allocate(40 * kMiB, kMe);
    fill(ground.arena, big, 40 * kMiB, 1);
    for (int n = 0; n < 3; ++n) {
      try {
        ground.arena.allocate(30 * kMiB, kMe);
        self.expect(false, "no NoSpace");
      } catch (const NoSpace& error) {
        self.expect(error.wanted() == 30 * kMiB, "wanted");
      }
      self.expect(ground.arena.blocks_in_use() == 1, "block leaked");
    }
    self.expect(holds(ground.arena, big, 40 * kMiB, 1), "content");
    // What does fit still does.
    fill(ground.arena, ground.arena.allocate(10 * kMiB, kMe), 10 * kMiB, 2);
    ground.arena.release(big);
    fill(ground.arena, ground.arena.allocate(30 * kMiB, kMe), 30 * kMiB, 2);
  });
  if (!could) GTEST_SKIP() << "no mount namespace";
}

}  // namespace
