// SIGKILL at every instruction of what writes a Value. While the writer stands
// at that instruction and after its death, the value is whole, the old one or
// the new one; after it the lock can be taken and the value be set again.
//
// The environment says which fence is tested: SHOAL_BARRIER=fence or nothing.

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "gtest/gtest.h"
#include "shoal/ipc/waiting.h"
#include "shoal/shared/value.h"
#include "tests/support/step.h"
#include "tests/support/thread.h"

namespace {

using namespace shoal::support;
using shoal::Value;

// All of its words say the same.
template <std::size_t kSize>
struct Words {
  std::array<std::uint64_t, kSize / 8> words;

  explicit Words(std::uint64_t n = 0) { words.fill(n); }
  bool operator==(const Words&) const = default;
  bool whole() const {
    return std::all_of(words.begin(), words.end(),
                       [this](std::uint64_t n) { return n == words[0]; });
  }
};

// Different in each byte, so that a mixture is neither.
constexpr std::uint64_t kOld = 0x1111111111111111;
constexpr std::uint64_t kNew = 0x2222222222222222;
constexpr std::uint64_t kNext = 0x3333333333333333;
// Long for a call that need not wait at all.
constexpr std::chrono::seconds kSoon{5};

template <std::size_t kSize>
class Scene {
 public:
  using T = Words<kSize>;

  // `turned`: stores before, so that another buffer is the next.
  explicit Scene(int turned = 0) : value(T(kOld)) {
    for (int n = 0; n < turned; ++n) value.set(T(kOld));
  }

  // 'O' or 'N'.
  char found(Round& round, std::string_view when) const {
    const T now = value.get();
    round.expect(now.whole(), std::string("torn ") + std::string(when));
    round.expect(now == T(kOld) || now == T(kNew),
                 std::string("neither old nor new ") + std::string(when));
    return now == T(kNew) ? 'N' : 'O';
  }

  Victim::Body prepare(bool unseated) {
    if (unseated) return {};
    return [this] { (void)value.lock(); };
  }

  // By the survivors.
  void check_use(Round& round) {
    try {
      const T before = value.get();
      {
        auto held = value.lock(kSoon);
        round.expect(*held == before, "lock() shows another value");
        *held = T(kNext);
      }
      round.expect(value.get() == T(kNext), "lock() does not publish");
      for (std::uint64_t n = 0; n < 5; ++n) {
        value.set(T(n));
        round.expect(value.get() == T(n), "set() does not store");
      }
      value.update([](T v) { return T(v.words[0] + 1); });
      round.expect(value.get() == T(5), "update() does not store");
      round.expect(value.exchange(T(6)) == T(5), "exchange()");
    } catch (const std::exception& error) {
      round.expect(false, error.what());
    }
  }

  Value<T> value;
};

template <std::size_t kSize>
using Operation = std::function<void(Value<Words<kSize>>&)>;

class ValueKill : public testing::Test {
 protected:
  void SetUp() override {
    use_one_processor();
    shoal::waiting::set_slices(false);
  }

  // What a seat is taken with, and a sleep, depends on clocks and on others.
  static constexpr SweepOptions kStraying{.strays = 20};

  // Whether the victim has its seat already, or takes it within the operation.
  enum Start { kSeated, kUnseated };

  template <std::size_t kSize>
  void kill_in(const Operation<kSize>& operation, Start start = kSeated,
               int turned = 0, std::string_view sane = "ON") {
    kill_at_every_step(
        sane,
        [&](Round& round) {
          Scene<kSize> scene(turned);
          Victim victim([&] { operation(scene.value); }, scene.prepare(start));
          round.step(victim);
          // It stands there as if stopped: readers wait for nobody.
          const char before = scene.found(round, "before the kill");
          round.kill(victim);
          const char after = scene.found(round, "after the kill");
          round.expect(before == after, "the kill itself changed the value");
          round.outcome(after);
          scene.check_use(round);
        },
        start == kUnseated ? kStraying : SweepOptions());
  }

  // Somebody already sleeps in lock() when the writer dies, or has got it.
  template <std::size_t kSize>
  void kill_before_a_waiter(const Operation<kSize>& operation) {
    using T = Words<kSize>;
    kill_at_every_step("ON", [&](Round& round) {
      Scene<kSize> scene;
      Victim victim([&] { operation(scene.value); }, scene.prepare(kSeated));
      round.step(victim);
      std::string error = "the waiter did not come to an end";
      T seen;
      Thread waiter([&] {
        try {
          auto held = scene.value.lock(kSoon);
          seen = *held;
          error.clear();
        } catch (const std::exception& thrown) {
          error = thrown.what();
        }
      });
      waiter.falls_asleep();  // or ends: then the lock was free
      round.kill(victim);
      waiter.ends();
      round.expect_none(error);
      round.outcome(scene.found(round, "after the kill"));
      if (error.empty())
        round.expect(seen == scene.value.get(), "the waiter saw another value");
      scene.check_use(round);
    });
  }
};

TEST_F(ValueKill, RunsInTheModeThatTheEnvironmentNames) {
  using shoal::asymmetric_fence::Mode;
  const char* const wanted = getenv("SHOAL_BARRIER");
  const bool fence = wanted != nullptr && std::string_view(wanted) == "fence";
  const Value<int> value;  // its domain is the tree's
  EXPECT_EQ(shoal::liveness::Domain::tree()->barrier_mode(),
            fence ? Mode::fence : Mode::membarrier);
}

template <std::size_t kSize>
void set(Value<Words<kSize>>& value) {
  value.set(Words<kSize>(kNew));
}
template <std::size_t kSize>
void lock_and_publish(Value<Words<kSize>>& value) {
  auto held = value.lock();
  *held = Words<kSize>(kNew);
}
template <std::size_t kSize>
void update(Value<Words<kSize>>& value) {
  value.update([](const Words<kSize>&) { return Words<kSize>(kNew); });
}
template <std::size_t kSize>
void exchange(Value<Words<kSize>>& value) {
  (void)value.exchange(Words<kSize>(kNew));
}
template <std::size_t kSize>
void compare_exchange(Value<Words<kSize>>& value) {
  Words<kSize> expected(kOld);
  (void)value.compare_exchange(expected, Words<kSize>(kNew));
}

TEST_F(ValueKill, Set8) { kill_in<8>(set<8>); }
TEST_F(ValueKill, Set64) { kill_in<64>(set<64>); }
TEST_F(ValueKill, Set64InLaterBuffers) {
  for (const int turned : {1, 2, 3}) kill_in<64>(set<64>, kSeated, turned);
}
TEST_F(ValueKill, Set64AndItsSeat) { kill_in<64>(set<64>, kUnseated); }
TEST_F(ValueKill, Set4096) { kill_in<4096>(set<4096>); }

TEST_F(ValueKill, LockAndPublish8) { kill_in<8>(lock_and_publish<8>); }
TEST_F(ValueKill, LockAndPublish64) { kill_in<64>(lock_and_publish<64>); }

TEST_F(ValueKill, LockAndPublish8AndItsSeat) {
  kill_in<8>(lock_and_publish<8>, kUnseated);
}

TEST_F(ValueKill, LockWithoutAChange) {
  kill_in<64>([](Value<Words<64>>& value) { (void)value.lock(); }, kSeated, 0,
              "O");
}

TEST_F(ValueKill, Update8) { kill_in<8>(update<8>); }
TEST_F(ValueKill, Update64) { kill_in<64>(update<64>); }

TEST_F(ValueKill, Exchange8) { kill_in<8>(exchange<8>); }
TEST_F(ValueKill, Exchange64) { kill_in<64>(exchange<64>); }
TEST_F(ValueKill, CompareExchange8) { kill_in<8>(compare_exchange<8>); }
TEST_F(ValueKill, CompareExchange64) { kill_in<64>(compare_exchange<64>); }

// A number: O, then one more.
TEST_F(ValueKill, FetchAdd) {
  kill_at_every_step("ON", [&](Round& round) {
    Value<std::int64_t> value(41);
    Victim victim([&] { value.fetch_add(1); });
    round.step(victim);
    round.kill(victim);
    const std::int64_t found = value.get();
    round.expect(found == 41 || found == 42, "neither old nor new");
    round.outcome(found == 42 ? 'N' : 'O');
    round.expect(value.fetch_add(1) == found, "fetch_add()");
  });
}

TEST_F(ValueKill, Set64BeforeAWaiter) { kill_before_a_waiter<64>(set<64>); }
TEST_F(ValueKill, LockAndPublish8BeforeAWaiter) {
  kill_before_a_waiter<8>(lock_and_publish<8>);
}
TEST_F(ValueKill, Update64BeforeAWaiter) {
  kill_before_a_waiter<64>(update<64>);
}

// One who dies while he waits for the lock takes nothing with him.
TEST_F(ValueKill, WhoWaitsForTheLock) {
  kill_at_every_step(
      "ON",
      [&](Round& round) {
        Scene<64> scene;
        std::optional held(scene.value.lock());
        Victim victim([&] { set<64>(scene.value); },
                      [&] { (void)scene.value.get(); });
        round.step(victim, [&] { held.reset(); });
        held.reset();
        scene.found(round, "before the kill");
        round.kill(victim);
        round.outcome(scene.found(round, "after the kill"));
        scene.check_use(round);
      },
      kStraying);
}

}  // namespace
