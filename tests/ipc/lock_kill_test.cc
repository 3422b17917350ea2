// SIGKILL at every instruction of acquiring and releasing a lock, and of those
// who are woken to have it: it is never lost, and the next holder is told
// exactly when its holder died.

#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <memory>
#include <string_view>

#include "gtest/gtest.h"
#include "shoal/ipc/lock.h"
#include "tests/ipc/queue_scene.h"

namespace {

using namespace shoal::support;
using shoal::HandleAccess;
using shoal::Lock;
using shoal::LockState;
using shoal::Object;
using shoal::RLock;
namespace liveness = shoal::liveness;
using std::chrono::milliseconds;

using OwnPartner = std::unique_ptr<Partner>;

constexpr Item kOwnerDied = 2;
constexpr Item kFine = 1;

// Sleeps behind the lock, has it, repairs what it protects and lets go.
template <class L>
OwnPartner waiter(const L& lock) {
  return OwnPartner(new Partner([lock = lock]() mutable {
    lock.acquire();
    const bool died = lock.owner_died();
    if (died) lock.mark_consistent();
    lock.release();
    return died ? kOwnerDied : kFine;
  }));
}

template <class L>
class LockKill : public testing::Test {
 protected:
  void SetUp() override {
    use_one_processor();
    shoal::waiting::set_slices(false);
  }

  // Takes it twice, and lets it go twice: what a holder before had nested
  // does not count.
  static void expect_whole(Round& round, L& lock) {
    for (int i = 0; i < 2; ++i) {
      round.expect(lock.acquire(milliseconds(500)), "LOST: the lock");
      if (lock.owner_died()) lock.mark_consistent();
      lock.release();
      round.expect(!lock.locked(), "not released");
      round.expect(!lock.owner_died(), "nobody died, and it was repaired");
    }
    round.expect_none(seats_free());
  }
  // 'H' when the victim died as its holder.
  static char find(L& lock) {
    return lock.acquire(milliseconds(500)) && lock.owner_died() ? 'H' : 'F';
  }
};

using Kinds = testing::Types<Lock, RLock>;
TYPED_TEST_SUITE(LockKill, Kinds);

template <class L>
Victim::Body join(L& lock) {
  return [&lock] { (void)lock.locked(), lock.try_lock(), lock.unlock(); };
}

TYPED_TEST(LockKill, Acquire) {
  kill_at_every_step("FH", [&](Round& round) {
    TypeParam lock;
    Victim victim([&] { lock.acquire(); }, join(lock));
    round.step(victim);
    round.kill(victim);
    round.outcome(this->find(lock));
    lock.release();
    this->expect_whole(round, lock);
  });
}

TYPED_TEST(LockKill, TryAcquireAndRelease) {
  kill_at_every_step("FHF", [&](Round& round) {
    TypeParam lock;
    Victim victim([&] { lock.try_lock(), lock.unlock(); }, join(lock));
    round.step(victim);
    round.kill(victim);
    round.outcome(this->find(lock));
    lock.release();
    this->expect_whole(round, lock);
  });
}

TYPED_TEST(LockKill, AcquireFromTheDead) {
  kill_at_every_step("H", [&](Round& round) {
    TypeParam lock;
    Victim victim([&] { lock.acquire(); }, join(lock));
    victim.await_prepared();
    Child dead([&](Child&) {
      lock.acquire();
      raise(SIGKILL);
    });
    round.expect(dead.join() == -SIGKILL, dead.failures());
    round.step(victim);
    round.kill(victim);
    round.outcome(this->find(lock));
    lock.release();
    this->expect_whole(round, lock);
  });
}

// Repaired, and then killed as the holder: it is to be repaired again.
TYPED_TEST(LockKill, MarkConsistent) {
  kill_at_every_step("HF", [&](Round& round) {
    TypeParam lock;
    Child dead([&](Child&) {
      lock.acquire();
      raise(SIGKILL);
    });
    round.expect(dead.join() == -SIGKILL, dead.failures());
    Victim victim([&] { lock.mark_consistent(), lock.release(); },
                  [&] { lock.acquire(); });
    round.step(victim);
    round.kill(victim);
    round.outcome(this->find(lock));
    lock.release();
    this->expect_whole(round, lock);
  });
}

TYPED_TEST(LockKill, ReleaseWithWaiterAsleep) {
  kill_at_every_step("HF", [&](Round& round) {
    TypeParam lock;
    Victim victim([&] { lock.release(); }, [&] { lock.acquire(); });
    victim.await_prepared();
    const OwnPartner asleep = waiter(lock);
    round.step(victim);
    round.kill(victim);
    round.expect(asleep->ends(), "LOST: the waiter sleeps on");
    round.outcome(asleep->item() == kOwnerDied ? 'H' : 'F');
    this->expect_whole(round, lock);
  });
}

TYPED_TEST(LockKill, ReleaseWithThreeWaitersAsleep) {
  kill_at_every_step("HF", [&](Round& round) {
    TypeParam lock;
    Victim victim([&] { lock.release(); }, [&] { lock.acquire(); });
    victim.await_prepared();
    const OwnPartner asleep[] = {waiter(lock), waiter(lock), waiter(lock)};
    round.step(victim);
    round.kill(victim);
    int told = 0;
    for (const OwnPartner& one : asleep) {
      round.expect(one->ends(), "LOST: a waiter sleeps on");
      told += one->item() == kOwnerDied;
    }
    round.expect(told <= 1, "two were told of one death");
    round.outcome(told == 1 ? 'H' : 'F');
    this->expect_whole(round, lock);
  });
}

TYPED_TEST(LockKill, WaiterOnItsWayToSleep) {
  kill_at_every_step(
      "F",
      [&](Round& round) {
        TypeParam lock;
        lock.acquire();
        const OwnPartner other = waiter(lock);
        Victim victim([&] { lock.acquire(); },
                      [&] { lock.try_lock_for(milliseconds(0)); });
        round.step(victim);
        round.kill(victim);
        lock.release();
        round.expect(other->ends(), "LOST: the other waiter sleeps on");
        round.outcome(other->item() == kFine ? 'F' : 'H');
        this->expect_whole(round, lock);
      },
      {.end = Stop::asleep});
}

// Somebody holds it and is dead.
template <class L>
bool held_by_the_dead(const L& lock) {
  Object& object = *HandleAccess::object(lock);
  const auto holder = static_cast<LockState*>(object.payload())->owner.load() &
                      liveness::kWhoMask;
  return holder != 0 && object.domain().dead(holder);
}

// The one that is woken is killed on its way to the lock, and with it. In the
// latter case the other sleeps behind a holder that it does not know yet, for
// which it looks every 100 ms; here it waits for the next to let go.
template <class L>
char finish(Round& round, L& lock, Partner& other) {
  if (held_by_the_dead(lock) && other.state() == Partner::State::waiting) {
    round.expect(lock.acquire(milliseconds(500)), "LOST: the lock");
    const bool died = lock.owner_died();
    if (died) lock.mark_consistent();
    lock.release();
    round.expect(other.ends(), "LOST: the other waiter sleeps on");
    return died || other.item() == kOwnerDied ? 'H' : 'F';
  }
  round.expect(other.ends(), "LOST: the other waiter sleeps on");
  return other.item() == kOwnerDied ? 'H' : 'F';
}

TYPED_TEST(LockKill, WokenWaiter) {
  kill_at_every_step("FH",
                     [&](Round& round) {
                       TypeParam lock;
                       lock.acquire();
                       OwnPartner other;
                       Victim victim(
                           [&] { lock.acquire(); },
                           [&] { lock.try_lock_for(milliseconds(0)); });
                       round.step(victim, [&] {
                         other = waiter(lock);
                         lock.release();
                       });
                       round.kill(victim);
                       other->settle();
                       round.outcome(finish(round, lock, *other));
                       this->expect_whole(round, lock);
                     },
                     {.after_sleep = true});
}

// Both sleep behind a holder that dies; the one that the kernel wakes dies,
// too.
TYPED_TEST(LockKill, WaiterWokenByADeath) {
  kill_at_every_step("H",
                     [&](Round& round) {
                       TypeParam lock;
                       Shared<std::atomic<bool>> held;
                       Child holder([&](Child&) {
                         lock.acquire();
                         *held = true;
                         for (;;) pause();
                       });
                       eventually([&] { return held->load(); });
                       OwnPartner other;
                       Victim victim(
                           [&] { lock.acquire(); },
                           [&] { lock.try_lock_for(milliseconds(0)); });
                       round.step(victim, [&] {
                         other = waiter(lock);
                         holder.kill();
                         holder.join();
                       });
                       round.kill(victim);
                       other->settle();
                       round.outcome(finish(round, lock, *other));
                       this->expect_whole(round, lock);
                     },
                     {.after_sleep = true, .strays = 20});
}

// A waiter that sleeps behind a holder who is gone, while the next one dies.
TYPED_TEST(LockKill, WaiterBehindANewHolder) {
  shoal::waiting::set_slices(true);
  TypeParam lock;
  lock.acquire();
  Shared<std::atomic<bool>> held;
  Child next([&](Child&) {
    lock.acquire();
    *held = true;
    for (;;) pause();
  });
  ASSERT_TRUE(eventually([&] { return sleeps_on_futex(next.pid()); }));
  const OwnPartner other = waiter(lock);
  lock.release();
  ASSERT_TRUE(eventually([&] { return held->load(); }));
  next.kill();
  EXPECT_EQ(next.join(), -SIGKILL);
  EXPECT_TRUE(other->ends());
  EXPECT_EQ(other->item(), kOwnerDied);
}

// ---- what is nested ----

class RLockKill : public LockKill<RLock> {};

TEST_F(RLockKill, InnerReleaseAndAcquire) {
  kill_at_every_step("H", [&](Round& round) {
    RLock lock;
    Victim victim([&] { lock.release(), lock.acquire(), lock.acquire(); },
                  [&] { lock.acquire(), lock.acquire(); });
    victim.await_prepared();
    const OwnPartner asleep = waiter(lock);
    round.step(victim);
    round.kill(victim);
    round.expect(asleep->ends(), "LOST: the waiter sleeps on");
    round.outcome(asleep->item() == kOwnerDied ? 'H' : 'F');
    expect_whole(round, lock);
  });
}

TEST_F(RLockKill, LastReleaseOfTwo) {
  kill_at_every_step("HF", [&](Round& round) {
    RLock lock;
    Victim victim([&] { lock.release(), lock.release(); },
                  [&] { lock.acquire(), lock.acquire(); });
    victim.await_prepared();
    const OwnPartner asleep = waiter(lock);
    round.step(victim);
    round.kill(victim);
    round.expect(asleep->ends(), "LOST: the waiter sleeps on");
    round.outcome(asleep->item() == kOwnerDied ? 'H' : 'F');
    expect_whole(round, lock);
  });
}

}  // namespace
