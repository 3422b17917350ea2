// SIGKILL at every instruction of taking a seat and of giving it back, and of
// taking over the seat of somebody who died with claims in several objects.

#include <errno.h>
#include <signal.h>
#include <stdlib.h>

#include <optional>
#include <string_view>
#include <system_error>

#include "gtest/gtest.h"
#include "shoal/ipc/errors.h"
#include "tests/ipc/queue_scene.h"
#include "tests/support/name.h"
#include "tests/support/residue.h"

namespace {

using namespace shoal::support;
using shoal::Queue;

class SeatsKill : public testing::Test {
 protected:
  void SetUp() override {
    use_one_processor();
    shoal::waiting::set_slices(false);
  }
};

// ---- joining ----

TEST_F(SeatsKill, Join) {
  kill_at_every_step("J", [](Round& round) {
    Scene scene({1});
    Victim victim([&] { domain_of(scene.queue).seat(); });
    round.step(victim);
    round.kill(victim);
    round.outcome('J');
    round.expect_none(exactly(scene.drain(), {1}, {}));
    round.expect_none(scene.whole());
  });
}

TEST_F(SeatsKill, JoinAsAProcess) {
  kill_at_every_step("J", [](Round& round) {
    Scene scene({1});
    Victim victim([&] { domain_of(scene.queue).process_seat(); });
    round.step(victim);
    round.kill(victim);
    round.outcome('J');
    round.expect_none(exactly(scene.drain(), {1}, {}));
    round.expect_none(scene.whole());
  });
}

TEST_F(SeatsKill, JoinOnASeatWithClaims) {
  kill_at_every_step("J", [](Round& round) {
    Scene scene({1, 2}, 6);
    die_with_claims(scene.queue, 1, 1);
    Victim victim([&] { domain_of(scene.queue).seat(); });
    round.step(victim);
    round.kill(victim);
    round.outcome('J');
    round.expect_none(exactly(scene.drain(), {1, 2}, {}));
    round.expect_none(scene.whole());
  });
}

// ---- leaving ----

TEST_F(SeatsKill, LeaveAtTheEndOfAThread) {
  kill_at_every_step(
      "L",
      [](Round& round) {
        Scene scene({1});
        Victim victim([&] { scene.queue.put(2); }, {},
                      Victim::Place::thread_end);
        round.step(victim);
        round.kill(victim);
        round.outcome('L');
        round.expect_none(exactly(scene.drain(), {1, 2}, {}));
        round.expect_none(scene.whole());
      },
      {.strays = 10});  // the C library's exit of a thread is not ours
}

// Both seats; static destructors come after, and are not looked at.
TEST_F(SeatsKill, LeaveAtTheEndOfAProgram) {
  kill_at_every_step("L",
                     [](Round& round) {
                       Scene scene({1});
                       Victim victim([] { exit(0); }, scene.join_for_leases());
                       round.step(victim);
                       round.kill(victim);
                       round.outcome('L');
                       round.expect_none(exactly(scene.drain(), {1}, {}));
                       round.expect_none(scene.whole());
                     },
                     {.most = 1500, .end = Stop::at_step});
}

// ---- seats of a named object ----

// Empty, or what is wrong with a named queue that should hold the value 1.
std::string named_whole(const Name& name) {
  auto queue = Queue<Item>::open(name);
  if (queue.try_get() != 1) return "the value is gone";
  for (Item i = 0; i < kCapacity; ++i)
    if (!queue.try_put(i)) return "capacity lost";
  for (Item i = 0; i < kCapacity; ++i)
    if (queue.try_get() != i) return "lost or out of order";
  domain_of(queue).retire_all();
  if (domain_of(queue).seats_taken() != 1) return "seats taken";
  return {};
}

TEST_F(SeatsKill, UseAndLetGoOfANamedQueue) {
  kill_at_every_step("N",
                     [](Round& round) {
                       const Name name("seats");
                       auto ours = Queue<Item>::create(name, kCapacity);
                       ours.put(1);
                       std::optional<Queue<Item>> theirs;
                       Victim victim(
                           [&] {
                             domain_of(*theirs).seat();
                             theirs.reset();
                           },
                           [&] { theirs.emplace(Queue<Item>::open(name)); });
                       round.step(victim);
                       round.kill(victim);
                       round.outcome('N');
                       round.expect_none(named_whole(name));
                     },
                     {.strays = 10});  // nor is its heap
}

// Nothing is left, or all of it.
TEST_F(SeatsKill, CreateUseAndLetGoOfANamedQueue) {
  kill_at_every_step(
      "AEP",
      [](Round& round) {
        const Name name("made");
        Victim victim([&] { Queue<Item>::create(name, kCapacity).put(1); });
        round.step(victim);
        round.kill(victim);
        try {
          auto queue = Queue<Item>::open(name);
          const bool put = !queue.empty();
          round.outcome(put ? 'P' : 'E');
          if (!put) round.expect(queue.try_put(1), "cannot be used");
          round.expect_none(named_whole(name));
        } catch (const std::system_error& error) {
          round.expect(error.code().value() == ENOENT, error.what());
          round.outcome('A');
        }
      },
      {.around_system_calls = true});
}

// ---- one seat, two objects ----

struct TwoObjects {
  Scene x{{1}, 6};
  Scene y{{2}, 7};
};

// A dies with claims in both, B takes the same seat and uses only X.
TEST_F(SeatsKill, ReuseAfterClaimsInTwoObjects) {
  kill_at_every_step("RC", [](Round& round) {
    TwoObjects both;
    const std::uint32_t seat = [&] {
      Shared<std::atomic<std::uint32_t>> index;
      Child dead([&](Child&) {
        for (Scene* scene : {&both.x, &both.y}) {
          auto cells = cells_of(scene->queue);
          decltype(cells)::Claim claim;
          shoal::liveness::Who blocker = 0;
          const auto me = cells.domain().seat();
          *index = shoal::liveness::index_of(me);
          (void)cells.claim_for_get(me, claim, blocker);
          (void)cells.claim_for_put(me, claim, blocker);
        }
        raise(SIGKILL);
      });
      round.expect(dead.join() == -SIGKILL, dead.failures());
      return index->load();
    }();
    Shared<std::atomic<std::uint32_t>> taken;
    Victim victim([&] {
      *taken = shoal::liveness::index_of(domain_of(both.x.queue).seat());
      (void)both.x.queue.get();
    });
    round.step(victim);
    round.kill(victim);
    round.expect(*taken == 0 || *taken == seat, "another seat");
    // Y by one who only polls.
    round.expect_none(exactly(both.y.drain(), {2}, {}));
    const Items items = both.x.drain();
    round.expect_none(exactly(items, {}, {1}));
    round.outcome(items.empty() ? 'C' : 'R');
    round.expect_none(both.x.whole());
    round.expect_none(both.y.whole());
  });
}

// The same by leases, while a getter sleeps on Y since before the death, and
// B lives on the seat.
TEST_F(SeatsKill, ReuseWhileAGetterSleepsOnTheOtherObject) {
  kill_at_every_step("R", [](Round& round) {
    TwoObjects both;
    std::optional<shoal::Taken<Item>> of_x;
    std::optional<shoal::Taken<Item>> of_y;
    Victim victim(
        [&] {
          of_x.reset();
          domain_of(both.x.queue).seat();
        },
        [&] {
          of_x.emplace(both.x.queue.take());
          of_y.emplace(both.y.queue.take());
        });
    victim.await_prepared();
    Partner asleep = Partner::getter(both.y.queue);
    round.step(victim);
    round.kill(victim);
    Shared<std::atomic<int>> step;
    Child heir([&](Child&) {
      (void)both.x.queue.try_put(3);
      *step = 1;
      while (*step != 2) yield_cpu();
    });
    eventually([&] { return *step == 1; });
    round.expect(asleep.ends(), "LOST: the getter on Y sleeps on");
    round.expect(asleep.item() == 2, "another value");
    round.outcome('R');
    *step = 2;
    round.expect(heir.join() == 0, heir.failures());
    round.expect_none(exactly(both.x.drain(), {3}, {1}));
    round.expect_none(both.y.whole());
    round.expect_none(both.x.whole());
  });
}

}  // namespace
