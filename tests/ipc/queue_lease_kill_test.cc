// SIGKILL at every instruction of those who hold a Loan or a Taken, while
// others sleep behind it without a timeout.

#include <signal.h>
#include <unistd.h>

#include <memory>
#include <optional>
#include <string_view>

#include "gtest/gtest.h"
#include "tests/ipc/queue_scene.h"

namespace {

using namespace shoal::support;
using shoal::Loan;
using shoal::Queue;
using shoal::Taken;

using OwnPartner = std::unique_ptr<Partner>;

class QueueLeaseKill : public testing::Test {
 protected:
  void SetUp() override {
    use_one_processor();
    shoal::waiting::set_slices(false);
  }
  // Theirs, if one got it without help; else wakes it with the value 8.
  static std::optional<Item> finish(Round& round, Scene& scene,
                                    Partner& getter) {
    if (getter.ends([&] { return scene.has_item(); })) return getter.item();
    round.expect(scene.drain().empty(), "LOST: a value, and a getter asleep");
    scene.queue.put_nowait(8);
    round.expect(getter.ends() && getter.item() == 8,
                 "LOST: the getter never wakes again");
    return std::nullopt;
  }
};

// ---- behind a loan ----

struct LoanVictim {
  Scene scene;
  std::optional<Loan<Item>> loan;
  Victim victim;

  explicit LoanVictim(const Items& before, bool publish)
      : scene(before, 6),
        victim(
            [this, publish] {
              if (publish)
                loan->publish();
              else
                loan.reset();
            },
            [this] {
              loan.emplace(scene.queue.loan());
              **loan = 7;
            }) {
    victim.await_prepared();
  }
};

void kill_behind_a_loan(bool publish, std::string_view sane) {
  kill_at_every_step(sane, [&](Round& round) {
    LoanVictim owner({}, publish);
    Scene& scene = owner.scene;
    scene.queue.put_nowait(2);
    const OwnPartner asleep(new Partner(Partner::getter(scene.queue)));
    round.step(owner.victim);
    round.kill(owner.victim);
    round.expect(asleep->ends(), "LOST: the getter sleeps behind the dead");
    const Item got = asleep->item();
    round.expect(got == 2 || (publish && got == 7), "phantom");
    round.outcome(got == 7 ? 'P' : 'A');
    round.expect_none(
        exactly(scene.drain(), got == 7 ? Items{2} : Items{}, {}));
    round.expect_none(scene.whole());
  });
}

TEST_F(QueueLeaseKill, LoanPublishedWithGetterAsleep) {
  kill_behind_a_loan(true, "AP");
}
TEST_F(QueueLeaseKill, LoanDroppedWithGetterAsleep) {
  kill_behind_a_loan(false, "A");
}

TEST_F(QueueLeaseKill, LoanPublishedWithTwoGettersAsleep) {
  kill_at_every_step("AP", [&](Round& round) {
    LoanVictim owner({}, true);
    Scene& scene = owner.scene;
    scene.queue.put_nowait(2);
    const OwnPartner one(new Partner(Partner::getter(scene.queue)));
    const OwnPartner two(new Partner(Partner::getter(scene.queue)));
    round.step(owner.victim);
    round.kill(owner.victim);
    const auto any = [&] { return scene.has_item(); };
    const int got = (one->ends(any) ? 1 : 0) + (two->ends(any) ? 1 : 0);
    round.expect(got >= 1, "LOST: the getters sleep behind the dead");
    round.expect(scene.drain().empty(), "LOST: a value, and a getter asleep");
    for (int i = got; i < 2; ++i) scene.queue.put_nowait(8);
    round.expect(one->ends() && two->ends(), "LOST: a getter never wakes");
    round.outcome(got == 2 ? 'P' : 'A');
    round.expect_none(scene.whole());
  });
}

// The ring is full of loans; the putter sleeps behind the oldest.
TEST_F(QueueLeaseKill, LoansWithPutterAsleep) {
  kill_at_every_step("AP", [&](Round& round) {
    Scene scene({}, 6);
    std::vector<Loan<Item>> loans;
    Victim victim([&] { loans.front().publish(); },
                  [&] {
                    for (std::size_t i = 0; i < kCapacity; ++i) {
                      loans.push_back(scene.queue.loan());
                      *loans.back() = 7;
                    }
                  });
    victim.await_prepared();
    const OwnPartner asleep(new Partner(Partner::putter(scene.queue, 50)));
    round.step(victim);
    round.kill(victim);
    Items items;
    if (!asleep->ends([&] { return scene.has_room(); })) {
      // Only when the oldest loan was published, and is full now.
      const auto item = scene.queue.try_get();
      round.expect(item == 7, "LOST: room, and a putter asleep");
      if (item) items.push_back(*item);
      round.expect(asleep->ends(), "LOST: the putter never wakes again");
    }
    for (const Item item : scene.drain()) items.push_back(item);
    round.expect_none(exactly(items, {50}, {7}));
    round.outcome(items.size() == 2 ? 'P' : 'A');
    round.expect_none(scene.whole());
  });
}

// ---- behind a value that somebody has taken ----

TEST_F(QueueLeaseKill, TakenReleasedWithGetterAsleep) {
  kill_at_every_step("RC", [](Round& round) {
    Scene scene({1}, 6);
    std::optional<Taken<Item>> taken;
    Victim victim([&] { taken.reset(); },
                  [&] { taken.emplace(scene.queue.take()); });
    victim.await_prepared();
    const OwnPartner asleep(new Partner(Partner::getter(scene.queue)));
    round.step(victim);
    round.kill(victim);
    const auto got = finish(round, scene, *asleep);
    round.expect(!got || *got == 1, "phantom");
    round.outcome(got ? 'R' : 'C');
    round.expect_none(exactly(scene.drain(), {}, {}));
    round.expect_none(scene.whole());
  });
}

TEST_F(QueueLeaseKill, TakenReleasedWithPutterAsleep) {
  kill_at_every_step("RC", [](Round& round) {
    Scene scene({1, 2, 3, 4}, 6);
    std::optional<Taken<Item>> taken;
    Victim victim([&] { taken.reset(); },
                  [&] { taken.emplace(scene.queue.take()); });
    victim.await_prepared();
    const OwnPartner asleep(new Partner(Partner::putter(scene.queue, 50)));
    round.step(victim);
    round.kill(victim);
    Items items;
    if (!asleep->ends([&] { return scene.has_room(); })) {
      const auto item = scene.queue.try_get();
      round.expect(item == 1, "LOST: room, and a putter asleep");
      if (item) items.push_back(*item);
      round.expect(asleep->ends(), "LOST: the putter never wakes again");
    }
    for (const Item item : scene.drain()) items.push_back(item);
    round.expect_none(exactly(items, {2, 3, 4, 50}, {1}));
    round.outcome(items.size() == 5 ? 'R' : 'C');
    round.expect_none(scene.whole());
  });
}

// A getter behind the leases of two processes, of which the younger dies: it
// watches one of them, and looks after the others every 100 ms.
TEST_F(QueueLeaseKill, TwoTakersAndGetterAsleep) {
  shoal::waiting::set_slices(true);
  Scene scene({1, 2}, 6);
  Shared<std::atomic<int>> taken;
  const auto take_and_hold = [&](Child&) {
    const auto held = scene.queue.take();
    ++*taken;
    for (;;) pause();
  };
  Child elder(take_and_hold);
  ASSERT_TRUE(eventually([&] { return *taken == 1; }));
  Child younger(take_and_hold);
  ASSERT_TRUE(eventually([&] { return *taken == 2; }));
  Partner asleep = Partner::getter(scene.queue);
  younger.kill();
  EXPECT_EQ(younger.join(), -SIGKILL);
  EXPECT_TRUE(asleep.ends());
  EXPECT_EQ(asleep.item(), 2u);
}

}  // namespace
