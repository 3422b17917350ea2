// A process held still at every instruction of acquiring and releasing a lock:
// it keeps what it has, delays nobody by what it has not, and does not count as
// dead.

#include <memory>

#include "gtest/gtest.h"
#include "shoal/ipc/lock.h"
#include "tests/ipc/pause_scene.h"
#include "tests/ipc/queue_scene.h"

namespace {

using namespace shoal::support;
using shoal::Lock;
using shoal::now;
using shoal::RLock;

// Sleeps behind the lock, has it and lets go.
template <class L>
std::unique_ptr<Partner> waiter(const L& lock) {
  return std::unique_ptr<Partner>(new Partner([lock = lock]() mutable {
    lock.acquire();
    const bool died = lock.owner_died();
    lock.release();
    return Item{!died};
  }));
}

template <class L>
class LockPause : public testing::Test {
 protected:
  void SetUp() override { use_one_processor(); }

  static Victim::Body join(const L& lock) {
    return [&lock] { (void)lock.locked(), lock.try_lock(), lock.unlock(); };
  }
  // Of a victim that will hold it: lets go when it is told to.
  static Victim::Body release(const L& lock, const Signal& signal) {
    return [&] { signal.await(), lock.release(); };
  }
  // Whether it is to be had while the victim stands still; it is let go again.
  static bool free(Round& round, const L& lock) {
    somebody_dies([&] { (void)lock.locked(); });
    const bool got = lock.acquire(brief());
    round.expect(lock.locked(), "held by nobody");
    round.expect(!lock.owner_died(), "a stopped holder counts as dead");
    if (got) lock.release();
    return got;
  }
  static void expect_held(Round& round, const L& lock) {
    round.expect(lock.locked(), "not held");
    round.expect(!lock.acquire(now), "two hold it");
    round.expect(!lock.owner_died(), "nobody has died");
  }
  static void expect_whole(Round& round, const L& lock) {
    for (int i = 0; i < 2; ++i) {
      round.expect(lock.acquire(kPatience), "LOST: the lock");
      round.expect(!lock.owner_died(), "nobody has died");
      lock.release();
      round.expect(!lock.locked(), "not released");
    }
  }
};

using Kinds = testing::Types<Lock, RLock>;
TYPED_TEST_SUITE(LockPause, Kinds);

TYPED_TEST(LockPause, Acquire) {
  kill_at_every_step("FH", [&](Round& round) {
    TypeParam lock;
    Signal signal;
    Victim victim([&] { lock.acquire(); }, this->join(lock),
                  this->release(lock, signal));
    round.step(victim);
    round.outcome(this->free(round, lock) ? 'F' : 'H');
    round.expect(victim.resume(), "stuck after it was let go");
    this->expect_held(round, lock);
    signal.give();
    this->expect_whole(round, lock);
    round.kill(victim);
    round.expect_none(seats_free());
  });
}

TYPED_TEST(LockPause, Release) {
  kill_at_every_step("HF", [&](Round& round) {
    TypeParam lock;
    Victim victim([&] { lock.release(); }, [&] { lock.acquire(); });
    round.step(victim);
    round.outcome(this->free(round, lock) ? 'F' : 'H');
    round.expect(victim.resume(), "stuck after it was let go");
    this->expect_whole(round, lock);
    round.kill(victim);
    round.expect_none(seats_free());
  });
}

TYPED_TEST(LockPause, ReleaseWithWaitersAsleep) {
  kill_at_every_step("HF", [&](Round& round) {
    TypeParam lock;
    Victim victim([&] { lock.release(); }, [&] { lock.acquire(); });
    victim.await_prepared();
    const auto one = waiter(lock);
    const auto two = waiter(lock);
    round.step(victim);
    // Whoever comes has it, and those who sleep have it after that.
    round.outcome(this->free(round, lock) ? 'F' : 'H');
    round.expect(victim.resume(), "stuck after it was let go");
    round.expect(one->ends() && two->ends(), "LOST: a waiter sleeps on");
    round.expect(one->item() && two->item(), "told of a death");
    this->expect_whole(round, lock);
    round.kill(victim);
    round.expect_none(seats_free());
  });
}

// Free again, and taken by others, while it is on its way to sleep.
TYPED_TEST(LockPause, OnItsWayToSleep) {
  kill_at_every_step(
      "F",
      [&](Round& round) {
        TypeParam lock;
        Signal signal;
        lock.acquire();
        Victim victim([&] { lock.acquire(); },
                      [&] { lock.try_lock_for(std::chrono::milliseconds(0)); },
                      this->release(lock, signal));
        round.step(victim);
        if (round.stop() == Stop::asleep) {
          round.outcome('F');
          lock.release();
        } else {
          lock.release();
          round.outcome(this->free(round, lock) ? 'F' : 'H');
        }
        round.expect(victim.resume(), "LOST: it sleeps on");
        this->expect_held(round, lock);
        signal.give();
        this->expect_whole(round, lock);
        round.kill(victim);
        round.expect_none(seats_free());
      },
      {.end = Stop::asleep, .stride = 5});
}

// Woken to have it, and held still: others have it meanwhile.
TYPED_TEST(LockPause, WokenWaiter) {
  kill_at_every_step(
      "FH",
      [&](Round& round) {
        TypeParam lock;
        Signal signal;
        lock.acquire();
        Victim victim([&] { lock.acquire(); },
                      [&] { lock.try_lock_for(std::chrono::milliseconds(0)); },
                      this->release(lock, signal));
        round.step(victim, [&] { lock.release(); });
        round.outcome(this->free(round, lock) ? 'F' : 'H');
        round.expect(victim.resume(), "LOST: it sleeps on");
        this->expect_held(round, lock);
        signal.give();
        this->expect_whole(round, lock);
        round.kill(victim);
        round.expect_none(seats_free());
      },
      {.after_sleep = true});
}

// The wake of the other one is in its hands.
TYPED_TEST(LockPause, WhoSleepsBesideOneThatWasWokenLooksWithinASecond) {
  kill_at_every_step(
      "FH",
      [&](Round& round) {
        TypeParam lock;
        Signal signal;
        lock.acquire();
        std::unique_ptr<Partner> other;
        Victim victim([&] { lock.acquire(); },
                      [&] { lock.try_lock_for(std::chrono::milliseconds(0)); },
                      this->release(lock, signal));
        round.step(victim, [&] {
          other = waiter(lock);
          lock.release();
        });
        other->settle();
        const bool free = other->done() || !lock.locked();
        round.outcome(free ? 'F' : 'H');
        round.expect(!free || eventually([&] { return other->done(); },
                                         std::chrono::milliseconds(1500)),
                     "it sleeps beside a free lock");
        round.expect(victim.resume(), "LOST: it sleeps on");
        this->expect_held(round, lock);
        signal.give();
        round.expect(other->ends(), "LOST: the other sleeps on");
        this->expect_whole(round, lock);
        round.kill(victim);
      },
      {.after_sleep = true, .strays = 20, .stride = 5});
}

// ---- what is nested ----

class RLockPause : public LockPause<RLock> {};

TEST_F(RLockPause, InnerReleaseAndAcquire) {
  kill_at_every_step("H", [&](Round& round) {
    RLock lock;
    Victim victim([&] { lock.release(), lock.acquire(), lock.acquire(); },
                  [&] { lock.acquire(), lock.acquire(); },
                  [&] { lock.release(), lock.release(), lock.release(); });
    round.step(victim);
    if (round.stop() == Stop::finished)
      round.outcome('H');
    else
      round.outcome(free(round, lock) ? 'F' : 'H');
    round.expect(victim.resume(), "stuck after it was let go");
    expect_whole(round, lock);
    round.kill(victim);
    round.expect_none(seats_free());
  });
}

}  // namespace
