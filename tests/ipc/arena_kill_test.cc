// SIGKILL at every instruction of taking, handing over and giving back a
// block, and of the sweep itself. The first block of an arena is never the
// victim's: it reads /proc/meminfo, which is a long way without a store.

#include <string>
#include <string_view>

#include "gtest/gtest.h"
#include "shoal/ipc/arena.h"
#include "tests/ipc/arena_ground.h"
#include "tests/support/step.h"

namespace {

using namespace shoal;
using namespace shoal::support;

constexpr std::uint64_t kDead = arena_owner::process(1);
constexpr std::uint64_t kMe = arena_owner::process(2);
constexpr std::size_t kRegion = 8 << 20;

// Empty, or what is wrong after `ground` was swept: `ours` blocks of `bytes`
// are in use, and of the `taken` that there ever were, the others are found
// again.
std::string whole(Ground& ground, std::size_t bytes, std::size_t ours,
                  std::uint64_t taken) {
  if (ground.arena.blocks_in_use() != ours)
    return std::to_string(ground.arena.blocks_in_use()) + " blocks in use";
  const std::uint64_t ever = ground.ever_taken(bytes);
  if (ever > taken) return std::to_string(ever) + " blocks were taken";
  std::vector<BlockRef> blocks;
  for (std::size_t n = ours; n < taken; ++n) {
    blocks.push_back(ground.arena.allocate(bytes, kMe));
    memset(ground.arena.data(blocks.back(), bytes), 7, bytes);
  }
  if (ground.ever_taken(bytes) > taken) return "a free block is not found";
  for (const BlockRef block : blocks) ground.arena.release(block);
  return {};
}

class ArenaKill : public testing::TestWithParam<std::size_t> {
 protected:
  void SetUp() override { use_one_processor(); }
  std::size_t bytes() const { return GetParam(); }
};

TEST_P(ArenaKill, AllocateNew) {
  kill_at_every_step("AO", [&](Round& round) {
    Ground ground(kRegion);
    const BlockRef ours = ground.arena.allocate(bytes(), kMe);
    memset(ground.arena.data(ours, bytes()), 9, bytes());
    Victim victim([&] { ground.arena.allocate(bytes(), kDead); });
    round.step(victim);
    round.kill(victim);
    const std::size_t freed = ground.arena.sweep(kDead);
    round.expect(freed <= 1, "more than one swept");
    round.outcome(freed == 0 ? 'A' : 'O');
    round.expect_none(whole(ground, bytes(), 1, 2));
    round.expect(*ground.arena.data(ours, bytes()) == std::byte{9}, "content");
  });
}

TEST_P(ArenaKill, AllocateUsed) {
  kill_at_every_step("AO", [&](Round& round) {
    Ground ground(kRegion);
    ground.arena.allocate(bytes(), kMe);
    ground.arena.release(ground.arena.allocate(bytes(), kMe));
    Victim victim([&] { ground.arena.allocate(bytes(), kDead); });
    round.step(victim);
    round.kill(victim);
    round.outcome(ground.arena.sweep(kDead) == 0 ? 'A' : 'O');
    round.expect_none(whole(ground, bytes(), 1, 2));
  });
}

TEST_P(ArenaKill, Release) {
  kill_at_every_step("OA", [&](Round& round) {
    Ground ground(kRegion);
    ground.arena.allocate(bytes(), kMe);
    const BlockRef theirs = ground.arena.allocate(bytes(), kDead);
    Victim victim([&] { ground.arena.release(theirs); });
    round.step(victim);
    round.kill(victim);
    round.outcome(ground.arena.sweep(kDead) == 0 ? 'A' : 'O');
    round.expect_none(whole(ground, bytes(), 1, 2));
  });
}

TEST_P(ArenaKill, AllocateAssignRelease) {
  const std::uint64_t task = arena_owner::task(5, 3);
  kill_at_every_step("APTA", [&](Round& round) {
    Ground ground(kRegion);
    ground.arena.allocate(bytes(), kMe);
    Victim victim([&] {
      const BlockRef block = ground.arena.allocate(bytes(), kDead);
      ground.arena.assign(block, task);
      ground.arena.release(block);
    });
    round.step(victim);
    round.kill(victim);
    const std::size_t process = ground.arena.sweep(kDead);
    const std::size_t tasks = ground.arena.sweep(kDead, task);
    round.expect(process + tasks <= 1, "more than one swept");
    round.outcome(process != 0 ? 'P' : tasks != 0 ? 'T' : 'A');
    round.expect_none(whole(ground, bytes(), 1, 2));
  });
}

// A nursery that dies while it sweeps: the blocks are the next one's to free.
TEST_P(ArenaKill, Sweep) {
  kill_at_every_step("3210", [&](Round& round) {
    Ground ground(kRegion);
    ground.arena.allocate(bytes(), kMe);
    for (int n = 0; n < 3; ++n) ground.arena.allocate(bytes(), kDead);
    Victim victim([&] { ground.arena.sweep(kDead); });
    round.step(victim);
    round.kill(victim);
    round.outcome(static_cast<char>('0' + ground.arena.sweep(kDead)));
    round.expect_none(whole(ground, bytes(), 1, 4));
  });
}

INSTANTIATE_TEST_SUITE_P(, ArenaKill, testing::Values(100, 200'000),
                         [](const auto& info) {
                           return info.param < 1000 ? "Small" : "Large";
                         });

}  // namespace
