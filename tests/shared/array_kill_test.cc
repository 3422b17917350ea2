// SIGKILL at every instruction of locking an Array, the whole or a stripe, and
// of letting it go: no lock is lost, whoever sleeps behind the dead gets it,
// and the next holder is told exactly when its holder died.
//
// The environment says which fence is tested: SHOAL_BARRIER=fence or nothing.

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>

#include "gtest/gtest.h"
#include "shoal/ipc/waiting.h"
#include "shoal/shared/array.h"
#include "tests/support/child.h"
#include "tests/support/step.h"

namespace {

using namespace shoal::support;
using Ints = shoal::Array<int>;

// Long for a call that need not wait at all.
constexpr std::chrono::seconds kSoon{5};
constexpr std::size_t kStripe = 3;

class ArrayKill : public testing::Test {
 protected:
  void SetUp() override {
    use_one_processor();
    shoal::waiting::set_slices(false);
  }

  // 'H' when the victim died as the holder of one of the locks; repaired then.
  static char find(Round& round, Ints& array) {
    char found = 'F';
    const auto look = [&](Ints::Locked held) {
      if (held.owner_died()) found = 'H';
      held.mark_consistent();
    };
    try {
      look(array.lock(kSoon));
      look(array.lock(kStripe, kSoon));
      for (int n = 0; n < 2; ++n) {
        for (std::size_t k = 0; k < shoal::ArrayState::kStripes; ++k)
          round.expect(!array.lock(k, kSoon).owner_died(), "told twice");
        round.expect(!array.lock(kSoon).owner_died(), "told twice of all");
      }
    } catch (const std::exception& error) {
      round.expect(false, error.what());
    }
    return found;
  }

  // `striped`: somebody has locked a stripe before.
  static void kill_in(std::string_view sane, bool striped,
                      const std::function<void(Ints&)>& operation) {
    kill_at_every_step(sane, [&](Round& round) {
      Ints array(10);
      if (striped) (void)array.lock(kStripe);
      Victim victim([&] { operation(array); },
                    [&] {
                      // Its seat; what follows is the same each time.
                      (void)Ints(1).lock();
                      if (striped) (void)array.lock();
                    });
      round.step(victim);
      round.kill(victim);
      round.outcome(find(round, array));
    });
  }

  // The victim holds it, and lets it go while others sleep behind it: one in
  // lock(), one in lock(kStripe).
  static void kill_in_release(const std::function<Ints::Locked(Ints&)>& take) {
    kill_at_every_step("HF", [&](Round& round) {
      Ints array(10);
      (void)array.lock(kStripe);
      std::optional<Ints::Locked> held;
      Victim victim([&] { held.reset(); }, [&] { held.emplace(take(array)); });
      victim.await_prepared();
      Shared<std::atomic<int>> told;
      const auto sleeper = [&](auto&& lock) {
        auto child = std::make_unique<Child>([&, lock](Child&) {
          auto mine = lock();
          if (mine.owner_died()) ++*told;
          mine.mark_consistent();
        });
        round.expect(eventually([&] { return sleeps_on_futex(child->pid()); }),
                     "does not sleep behind the victim");
        return child;
      };
      const auto whole = sleeper([&] { return array.lock(); });
      const auto stripe = sleeper([&] { return array.lock(kStripe); });
      round.step(victim);
      round.kill(victim);
      for (Child* child : {whole.get(), stripe.get()})
        round.expect(child->join(kSoon) == 0, "LOST: sleeps on");
      const char left = find(round, array);
      round.outcome(*told != 0 || left == 'H' ? 'H' : 'F');
    });
  }
};

TEST_F(ArrayKill, LockAndRelease) {
  kill_in("FHF", false, [](Ints& array) {
    const auto held = array.lock();
    array[0] = 1;
  });
}

// It takes the whole first, to tell that there are stripes now.
TEST_F(ArrayKill, FirstStripe) {
  kill_in("FHFHF", false, [](Ints& array) {
    const auto held = array.lock(kStripe);
    array[0] = 1;
  });
}

TEST_F(ArrayKill, Stripe) {
  kill_in("FHF", true, [](Ints& array) {
    const auto held = array.lock(kStripe);
    array[0] = 1;
  });
}

TEST_F(ArrayKill, WholeOverStripes) {
  kill_in("FHF", true, [](Ints& array) {
    const auto held = array.lock();
    array[0] = 1;
  });
}

TEST_F(ArrayKill, ReleaseOfAStripeWithOthersAsleep) {
  kill_in_release([](Ints& array) { return array.lock(kStripe); });
}

TEST_F(ArrayKill, ReleaseOfTheWholeWithOthersAsleep) {
  kill_in_release([](Ints& array) { return array.lock(); });
}

}  // namespace
