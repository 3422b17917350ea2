// A party of a barrier held still at every instruction of its wait: the barrier
// is not broken, and who came before it is let go when it goes on.

#include <algorithm>
#include <array>
#include <memory>
#include <thread>

#include "gtest/gtest.h"
#include "shoal/ipc/barrier.h"
#include "shoal/ipc/errors.h"
#include "tests/ipc/pause_scene.h"
#include "tests/ipc/queue_scene.h"

namespace {

using namespace shoal::support;
using shoal::Barrier;
using shoal::BrokenBarrier;

constexpr Item kBroken = 100;

Item wait_once(const Barrier& barrier) {
  try {
    return static_cast<Item>(barrier.wait());
  } catch (const BrokenBarrier&) {
    return kBroken;
  }
}

// A thread that ends normally, before its process does not.
std::unique_ptr<Partner> party(const Barrier& barrier) {
  return std::make_unique<Partner>([barrier] {
    Item index = kBroken;
    std::thread([&] { index = wait_once(barrier); }).join();
    return index;
  });
}
bool await_waiting(const Barrier& barrier, int n) {
  return eventually([&] { return barrier.n_waiting() == n; });
}

class BarrierPause : public testing::Test {
 protected:
  void SetUp() override { use_one_processor(); }

  // Ours is the first.
  static void sit(const Barrier& barrier) { (void)barrier.broken(); }
  static Victim::Body join(const Barrier& barrier) {
    return [barrier] { (void)barrier.broken(); };
  }
  // No party has died; others have.
  static void expect_sound(Round& round, const Barrier& barrier) {
    somebody_dies([&] { (void)barrier.n_waiting(); });
    round.expect(!barrier.broken(), "a stopped party counts as dead");
  }
  // All were let go, each with an index of its own.
  static void expect_indices(Round& round, std::array<Item, 3> indices) {
    for (const Item index : {0, 1, 2})
      round.expect(std::ranges::count(indices, index) == 1, "indices");
  }
};

// The third of three: before it has completed the round, nobody is let go.
TEST_F(BarrierPause, TheLast) {
  for (const bool acts : {false, true})
    kill_at_every_step("AC", [&](Round& round) {
      Shared<std::atomic<int>> actions;
      Barrier barrier(
          3, acts ? Barrier::Action([&] { ++*actions; }) : Barrier::Action());
      sit(barrier);
      Shared<std::atomic<Item>> index;
      Victim victim([&] { *index = wait_once(barrier); }, join(barrier),
                    [&] { *index = wait_once(barrier); });
      victim.await_prepared();
      const auto one = party(barrier);
      const auto two = party(barrier);
      await_waiting(barrier, 2);
      round.step(victim);
      expect_sound(round, barrier);
      const bool completed = barrier.n_waiting() == 0;
      round.outcome(completed ? 'C' : 'A');
      round.expect(victim.resume(), "stuck after it was let go");
      round.expect(one->ends() && two->ends(), "LOST: a party sleeps on");
      expect_indices(round, {one->item(), two->item(), 2});
      round.expect(*actions == acts, "the action");
      // The next round, of the victim, another one and us.
      const auto three = party(barrier);
      await_waiting(barrier, 2);
      const auto ours = static_cast<Item>(barrier.wait());
      round.expect(three->ends(), "LOST: a party of the next round");
      round.expect(
          eventually([&] { return *index + three->item() + ours == 3; }),
          "the next round");
      round.kill(victim);
    });
}

// The first of three: the others complete the round when it has come, and do
// not wait for it to see that.
TEST_F(BarrierPause, OnItsWayToSleep) {
  kill_at_every_step(
      "AC",
      [](Round& round) {
        Barrier barrier(3);
        sit(barrier);
        Shared<std::atomic<Item>> index(kBroken);
        Victim victim([&] { *index = wait_once(barrier); }, join(barrier));
        round.step(victim);
        expect_sound(round, barrier);
        const bool arrived = barrier.n_waiting() == 1;
        round.outcome(arrived ? 'C' : 'A');
        const auto one = party(barrier);
        const auto two = party(barrier);
        if (arrived)
          round.expect(one->ends() && two->ends(),
                       "waits for one that stands still");
        round.expect(victim.resume(), "LOST: it sleeps on");
        round.expect(one->ends() && two->ends(), "LOST: a party sleeps on");
        expect_indices(round, {one->item(), two->item(), *index});
        round.kill(victim);
      },
      {.end = Stop::asleep, .stride = 7});
}

// Let go and held still: the others are let go, too, and come again.
TEST_F(BarrierPause, WokenByTheLast) {
  kill_at_every_step(
      "C",
      [](Round& round) {
        Barrier barrier(3);
        sit(barrier);
        std::unique_ptr<Partner> other;
        Item last = kBroken;
        Shared<std::atomic<Item>> index(kBroken);
        Victim victim([&] { *index = wait_once(barrier); }, join(barrier));
        round.step(victim, [&] {
          other = party(barrier);
          await_waiting(barrier, 2);
          last = wait_once(barrier);
        });
        round.expect(other->ends(), "LOST: the other sleeps on");
        expect_sound(round, barrier);
        const auto next = party(barrier);
        await_waiting(barrier, 1);
        round.expect(!next->done(), "let go alone");
        round.outcome('C');
        round.expect(victim.resume(), "LOST: it sleeps on");
        expect_indices(round, {other->item(), last, *index});
        const auto more = party(barrier);
        await_waiting(barrier, 2);
        round.expect(wait_once(barrier) == 2, "the next round");
        round.expect(next->ends() && more->ends(), "LOST: a party sleeps on");
        round.kill(victim);
      },
      {.after_sleep = true, .strays = 40});
}

}  // namespace
