// A process held still at every instruction of acquiring and releasing units:
// what it has taken does not come back, and what it has given is there once.

#include <memory>
#include <stdexcept>

#include "gtest/gtest.h"
#include "shoal/ipc/semaphore.h"
#include "tests/ipc/pause_scene.h"
#include "tests/ipc/queue_scene.h"

namespace {

using namespace shoal::support;
using shoal::BoundedSemaphore;
using shoal::now;
using shoal::Semaphore;

constexpr unsigned kUnits = 3;

template <class S>
class SemaphorePause : public testing::Test {
 protected:
  static constexpr bool kBounded = std::is_same_v<S, BoundedSemaphore>;
  void SetUp() override { use_one_processor(); }

  // Ours is the first seat.
  static void sit(const S& semaphore) {
    shoal::HandleAccess::object(semaphore)->domain().seat();
  }
  static Victim::Body join(const S& semaphore) {
    return [semaphore] {
      semaphore.acquire(now);
      semaphore.release();
      semaphore.acquire(std::chrono::nanoseconds(1));
    };
  }
  static Victim::Body release(const S& semaphore, const Signal& signal) {
    return [&] { signal.await(), semaphore.release(); };
  }
  // How many are to be had while the victim stands still. One more process has
  // one and dies: where units have owners, it comes back.
  static unsigned free(Round& round, const S& semaphore) {
    somebody_dies([&] {
      if (kBounded) semaphore.acquire(now);
    });
    unsigned n = 0;
    while (n <= kUnits && semaphore.acquire(now)) ++n;
    round.expect(!semaphore.acquire(brief()), "a unit that nobody gave");
    round.expect(semaphore.get_value() == 0, "more than can be had");
    if (n != 0) semaphore.release(n);
    round.expect(semaphore.get_value() == n, "given back, and not there");
    return n;
  }
  static void expect_units(Round& round, const S& semaphore, unsigned n) {
    round.expect(semaphore.get_value() == n, "units lost, or too many");
    for (unsigned i = 0; i < n; ++i)
      round.expect(semaphore.acquire(now), "not to be had");
    round.expect(!semaphore.acquire(now), "more than its value");
    semaphore.release(n);
  }
  // All are free: of a bounded one, no more can be given.
  static void expect_whole(Round& round, const S& semaphore) {
    round.expect(eventually([&] { return semaphore.get_value() == kUnits; }),
                 "units lost");
    expect_units(round, semaphore, kUnits);
    if (!kBounded) return;
    try {
      semaphore.release();
      round.expect(false, "more than it was made with");
    } catch (const std::logic_error&) {
    }
  }
};
using Kinds = testing::Types<Semaphore, BoundedSemaphore>;
TYPED_TEST_SUITE(SemaphorePause, Kinds);

TYPED_TEST(SemaphorePause, Acquire) {
  kill_at_every_step("32", [&](Round& round) {
    TypeParam semaphore(kUnits);
    this->sit(semaphore);
    Signal signal;
    Victim victim([&] { semaphore.acquire(); },
                  [&] { semaphore.acquire(now), semaphore.release(); },
                  this->release(semaphore, signal));
    round.step(victim);
    round.outcome(static_cast<char>('0' + this->free(round, semaphore)));
    round.expect(victim.resume(), "stuck after it was let go");
    this->expect_units(round, semaphore, kUnits - 1);
    signal.give();
    this->expect_whole(round, semaphore);
    round.kill(victim);
  });
}

TYPED_TEST(SemaphorePause, Release) {
  kill_at_every_step("23", [&](Round& round) {
    TypeParam semaphore(kUnits);
    this->sit(semaphore);
    Victim victim([&] { semaphore.release(); }, this->join(semaphore));
    victim.await_prepared();
    round.step(victim);
    round.outcome(static_cast<char>('0' + this->free(round, semaphore)));
    round.expect(victim.resume(), "stuck after it was let go");
    this->expect_whole(round, semaphore);
    round.kill(victim);
  });
}

TYPED_TEST(SemaphorePause, ReleaseWithTwoAsleep) {
  kill_at_every_step("S", [&](Round& round) {
    TypeParam semaphore(1);
    this->sit(semaphore);
    Victim victim([&] { semaphore.release(); }, this->join(semaphore));
    victim.await_prepared();
    const auto taker = [&] {
      return std::make_unique<Partner>([semaphore] {
        semaphore.acquire();
        semaphore.release();
        return Item{1};
      });
    };
    const auto one = taker();
    const auto two = taker();
    round.step(victim);
    somebody_dies();
    const bool got = semaphore.acquire(brief());
    round.expect(semaphore.get_value() == 0 || !got, "two have it");
    if (got) semaphore.release();
    round.outcome('S');
    round.expect(victim.resume(), "stuck after it was let go");
    round.expect(one->ends() && two->ends(), "LOST: a taker sleeps on");
    this->expect_units(round, semaphore, 1);
    round.kill(victim);
  });
}

// All are in use; they come back while it is on its way to sleep.
TYPED_TEST(SemaphorePause, OnItsWayToSleep) {
  kill_at_every_step(
      "S",
      [&](Round& round) {
        TypeParam semaphore(kUnits);
        this->sit(semaphore);
        for (unsigned i = 0; i < kUnits; ++i) semaphore.acquire();
        Signal signal;
        Victim victim([&] { semaphore.acquire(); },
                      [&] { semaphore.acquire(std::chrono::nanoseconds(1)); },
                      this->release(semaphore, signal));
        round.step(victim);
        round.expect(!semaphore.acquire(brief()), "a unit that nobody gave");
        somebody_dies();
        semaphore.release(kUnits);
        round.outcome('S');
        round.expect(victim.resume(), "LOST: it sleeps on");
        this->expect_units(round, semaphore, kUnits - 1);
        signal.give();
        this->expect_whole(round, semaphore);
        round.kill(victim);
      },
      {.end = Stop::asleep, .stride = 5});
}

// Woken to have one, and held still.
TYPED_TEST(SemaphorePause, WokenTaker) {
  kill_at_every_step(
      "32",
      [&](Round& round) {
        TypeParam semaphore(kUnits);
        this->sit(semaphore);
        for (unsigned i = 0; i < kUnits; ++i) semaphore.acquire();
        Signal signal;
        Victim victim([&] { semaphore.acquire(); },
                      [&] { semaphore.acquire(std::chrono::nanoseconds(1)); },
                      this->release(semaphore, signal));
        round.step(victim, [&] { semaphore.release(kUnits); });
        round.outcome(static_cast<char>('0' + this->free(round, semaphore)));
        round.expect(victim.resume(), "LOST: it sleeps on");
        this->expect_units(round, semaphore, kUnits - 1);
        signal.give();
        this->expect_whole(round, semaphore);
        round.kill(victim);
      },
      {.after_sleep = true, .strays = 40});
}

}  // namespace
