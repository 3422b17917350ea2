// SIGKILL at every instruction of acquiring and releasing units, and of those
// who are woken to have them.

#include <signal.h>

#include <memory>

#include "gtest/gtest.h"
#include "shoal/ipc/semaphore.h"
#include "tests/ipc/queue_scene.h"

namespace {

using namespace shoal::support;
using shoal::BoundedSemaphore;
using shoal::now;
using shoal::Semaphore;
using std::chrono::milliseconds;

using OwnPartner = std::unique_ptr<Partner>;

template <class S>
class SemaphoreKill : public testing::Test {
 protected:
  static constexpr bool kBounded = std::is_same_v<S, BoundedSemaphore>;

  void SetUp() override {
    use_one_processor();
    shoal::waiting::set_slices(false);
  }

  // Ours is the first, also of the process.
  static void sit(const S& semaphore) {
    auto& domain = shoal::HandleAccess::object(semaphore)->domain();
    domain.seat();
  }
  static OwnPartner taker(const S& semaphore) {
    return OwnPartner(new Partner([semaphore] {
      semaphore.acquire();
      semaphore.release();
      return Item{1};
    }));
  }
  // Of a victim: it has its seats, and a unit.
  static Victim::Body join(const S& semaphore) {
    return [semaphore] {
      semaphore.acquire(now);
      semaphore.release();
      semaphore.acquire(now);
    };
  }
  // What a dead holder had is there again, or lost where units have no owner.
  static void expect_units(Round& round, S& semaphore, unsigned least,
                           unsigned most) {
    const unsigned value = semaphore.get_value();
    round.expect(value >= least && value <= most, "units lost, or too many");
    for (unsigned i = 0; i < value; ++i)
      round.expect(semaphore.acquire(now), "not to be had");
    round.expect(!semaphore.acquire(now), "more than its value");
    if (kBounded) round.expect(value == most, "units of the dead");
  }
};
using Kinds = testing::Types<Semaphore, BoundedSemaphore>;
TYPED_TEST_SUITE(SemaphoreKill, Kinds);

TYPED_TEST(SemaphoreKill, Acquire) {
  kill_at_every_step(this->kBounded ? "2" : "21", [&](Round& round) {
    TypeParam semaphore(2);
    Victim victim([&] { semaphore.acquire(); },
                  [&] { semaphore.acquire(now), semaphore.release(); });
    round.step(victim);
    round.kill(victim);
    round.outcome(static_cast<char>('0' + semaphore.get_value()));
    this->expect_units(round, semaphore, 1, 2);
  });
}

TYPED_TEST(SemaphoreKill, Release) {
  kill_at_every_step(this->kBounded ? "2" : "12", [&](Round& round) {
    TypeParam semaphore(2);
    Victim victim([&] { semaphore.release(); }, this->join(semaphore));
    victim.await_prepared();
    round.step(victim);
    round.kill(victim);
    round.outcome(static_cast<char>('0' + semaphore.get_value()));
    this->expect_units(round, semaphore, 1, 2);
  });
}

// One unit, released to two who sleep.
TYPED_TEST(SemaphoreKill, ReleaseWithTwoAsleep) {
  kill_at_every_step(this->kBounded ? "R" : "LR", [&](Round& round) {
    TypeParam semaphore(1);
    this->sit(semaphore);
    Victim victim([&] { semaphore.release(); }, this->join(semaphore));
    victim.await_prepared();
    const OwnPartner one = this->taker(semaphore);
    const OwnPartner two = this->taker(semaphore);
    round.step(victim);
    round.kill(victim);
    if (!this->kBounded) {
      // Nobody can tell whether the dead still held it, but by its value.
      const bool released =
          static_cast<shoal::SemaphoreState*>(
              shoal::HandleAccess::object(semaphore)->payload())
                  ->value != 0 ||
          one->done() || two->done();
      round.outcome(released ? 'R' : 'L');
      if (!released) semaphore.release();
    } else {
      round.outcome('R');
    }
    round.expect(one->ends(), "LOST: the first sleeps on");
    round.expect(two->ends(), "LOST: the second sleeps on");
    this->expect_units(round, semaphore, 1, 1);
  });
}

TYPED_TEST(SemaphoreKill, TakerOnItsWayToSleep) {
  kill_at_every_step(
      "S",
      [&](Round& round) {
        TypeParam semaphore(1);
        semaphore.acquire();
        const OwnPartner other = this->taker(semaphore);
        Victim victim([&] { semaphore.acquire(); },
                      [&] { semaphore.acquire(std::chrono::nanoseconds(1)); });
        round.step(victim);
        round.kill(victim);
        semaphore.release();
        round.expect(other->ends(), "LOST: the other sleeps on");
        round.outcome('S');
        this->expect_units(round, semaphore, 1, 1);
      },
      {.end = Stop::asleep});
}

// Two sleep, one is woken, and killed on its way.
TYPED_TEST(SemaphoreKill, WokenTaker) {
  kill_at_every_step(
      this->kBounded ? "R" : "RL",
      [&](Round& round) {
        TypeParam semaphore(1);
        semaphore.acquire();
        OwnPartner other;
        Victim victim([&] { semaphore.acquire(); },
                      [&] { semaphore.acquire(std::chrono::nanoseconds(1)); });
        round.step(victim, [&] {
          other = this->taker(semaphore);
          semaphore.release();
        });
        round.kill(victim);
        other->settle();
        if (this->kBounded) {
          // The other does not know who holds it since: it would look in 100
          // ms. Here the next one to release wakes it.
          if (other->state() == Partner::State::waiting) {
            round.expect(semaphore.acquire(milliseconds(500)),
                         "LOST: the unit of the dead");
            semaphore.release();
          }
          round.outcome('R');
        } else {
          const bool lost = other->state() == Partner::State::waiting &&
                            semaphore.get_value() == 0;
          round.outcome(lost ? 'L' : 'R');
          if (lost) semaphore.release();
        }
        round.expect(other->ends(), "LOST: the other sleeps on");
        this->expect_units(round, semaphore, 1, 1);
      },
      {.after_sleep = true});
}

// ---- who sleeps behind units of processes that die ----

class BoundedSemaphoreKill : public SemaphoreKill<BoundedSemaphore> {};

TEST_F(BoundedSemaphoreKill, WokenByADeath) {
  kill_at_every_step(
      "R",
      [&](Round& round) {
        BoundedSemaphore semaphore(2);
        Shared<std::atomic<bool>> held;
        Child holder([&](Child&) {
          semaphore.acquire(), semaphore.acquire();
          *held = true;
          for (;;) pause();
        });
        eventually([&] { return held->load(); });
        OwnPartner other;
        Victim victim([&] { semaphore.acquire(); },
                      [&] { semaphore.acquire(std::chrono::nanoseconds(1)); });
        round.step(victim, [&] {
          other = taker(semaphore);
          holder.kill();
          holder.join();
        });
        round.kill(victim);
        round.expect(other->ends(), "LOST: the other sleeps on");
        round.outcome('R');
        expect_units(round, semaphore, 2, 2);
      },
      {.most = 800, .end = Stop::at_step, .after_sleep = true, .strays = 40});
}

TEST_F(BoundedSemaphoreKill, AcquireFromTheDead) {
  kill_at_every_step("R", [&](Round& round) {
    BoundedSemaphore semaphore(1);
    Victim victim([&] { semaphore.acquire(); },
                  [&] {
                    semaphore.acquire();
                    semaphore.release();
                  });
    victim.await_prepared();
    Child dead([&](Child&) {
      semaphore.acquire();
      raise(SIGKILL);
    });
    round.expect(dead.join() == -SIGKILL, dead.failures());
    round.step(victim);
    round.kill(victim);
    round.outcome('R');
    expect_units(round, semaphore, 1, 1);
  });
}

}  // namespace
