// Sleeping and waking: no wake is lost, with many threads on one word.

#include <sched.h>
#include <signal.h>
#include <sys/time.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <random>

#include "gtest/gtest.h"
#include "shoal/ipc/asymmetric_fence.h"
#include "shoal/ipc/liveness.h"
#include "shoal/ipc/timeout.h"
#include "shoal/ipc/waiting.h"
#include "tests/support/child.h"
#include "tests/support/reexec.h"
#include "tests/support/thread.h"

namespace {

namespace asymmetric_fence = shoal::asymmetric_fence;
namespace futex = shoal::futex;
namespace liveness = shoal::liveness;
namespace waiting = shoal::waiting;

using liveness::Domain;
using shoal::Deadline;
using shoal::forever;
using shoal::monotonic_now;
using shoal::Timeout;
using shoal::support::Child;
using shoal::support::eventually;
using shoal::support::exec_tests;
using shoal::support::Shared;
using shoal::support::Thread;
using waiting::Side;
using waiting::Status;
using namespace std::chrono_literals;

// The least that has two sides: `count` of at most `most` units. What Cells and
// RobustLock are to waiting::until().
class Store {
 public:
  struct State {
    std::atomic<std::uint32_t> count;
    std::atomic<std::uint32_t> closed;
    waiting::WaitState wait;
  };

  Store(State& state, std::uint32_t most) : state_(&state), most_(most) {}

  Status take(Deadline deadline) {
    return move(Side::consumers, deadline, [](std::uint32_t& count, auto) {
      return count != 0 ? (--count, true) : false;
    });
  }
  Status give(Deadline deadline) {
    return move(Side::producers, deadline,
                [](std::uint32_t& count, std::uint32_t most) {
                  return count != most ? (++count, true) : false;
                });
  }
  void close() {
    state_->closed.store(1, std::memory_order_release);
    asymmetric_fence::heavy(domain().barrier_mode());
    waiting::wake_everyone(state_->wait, domain());
  }
  std::uint32_t count() const { return state_->count.load(); }

  // ---- what waiting::until() needs ----

  waiting::WaitState& wait_state() { return state_->wait; }
  Domain& domain() { return *Domain::tree(); }
  waiting::SpinBudget& spin() { return spin_; }
  static constexpr bool kNothingToSweep = true;
  void sweep() {}
  void pass_baton(bool in_vain) {
    if (state_->closed.load() != 0)
      return waiting::wake_everyone(state_->wait, domain());
    const int most = in_vain ? futex::kAll : 1;
    if (count() != 0)
      waiting::wake(state_->wait, Side::consumers, domain(), most);
    if (count() != most_)
      waiting::wake(state_->wait, Side::producers, domain(), most);
  }
  liveness::Who holder_behind(Side) { return 0; }
  bool looks_ready(Side) const { return true; }

 private:
  template <class Step>
  Status move(Side side, Deadline deadline, Step step) {
    const auto attempt = [&](liveness::Who&) {
      domain().seat();
      const liveness::PassedWake armed(liveness::thread_context.robust,
                                       state_->wait.word);
      std::uint32_t seen = state_->count.load(std::memory_order_relaxed);
      for (;;) {
        if (state_->closed.load(std::memory_order_acquire) != 0)
          return Status::closed;
        std::uint32_t next = seen;
        if (!step(next, most_)) return Status::blocked;
        if (state_->count.compare_exchange_weak(seen, next,
                                                std::memory_order_acq_rel,
                                                std::memory_order_relaxed))
          break;
      }
      asymmetric_fence::light(domain().needs_fence());
      waiting::wake(state_->wait,
                    side == Side::consumers ? Side::producers : Side::consumers,
                    domain());
      return Status::ok;
    };
    liveness::Who nobody = 0;
    const Status status = attempt(nobody);
    return status == Status::blocked
               ? waiting::until(*this, side, deadline, attempt)
               : status;
  }

  State* state_;
  std::uint32_t most_;
  waiting::SpinBudget spin_;
};

// Who waits beside a thread that computes on the same processor gives it a time
// slice now and then, and not ten each time.
TEST(SpinBudget, DoesNotYieldAgainToAThreadThatComputes) {
  cpu_set_t before;
  ASSERT_EQ(sched_getaffinity(0, sizeof before, &before), 0);
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(static_cast<std::size_t>(sched_getcpu()), &one);
  ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
  std::atomic<bool> over{false};
  Thread computes([&] {
    while (!over.load()) {
    }
  });
  waiting::SpinBudget spin;
  const std::int64_t begin = monotonic_now();
  for (int n = 0; n < 100; ++n)
    EXPECT_FALSE(waiting::spin_until(spin, Deadline::never(),
                                     [](int) { return false; }));
  EXPECT_LT(monotonic_now() - begin, 300'000'000);
  over = true;
  EXPECT_TRUE(computes.ends());
  EXPECT_EQ(sched_setaffinity(0, sizeof before, &before), 0);
}

// A wake that is lost hangs the test: nobody wakes up by himself.
class WaitStress : public testing::Test {
 protected:
  WaitStress() { waiting::set_slices(false); }
  ~WaitStress() override { waiting::set_slices(true); }

  Shared<Store::State> state_;
};

TEST_F(WaitStress, EveryUnitGivenIsTaken) {
  for (const std::uint32_t most : {1u, 2u, 5u}) {
    Store store(*state_, most);
    constexpr int kEach = 5000;
    std::deque<Thread> threads;
    for (int i = 0; i < 3; ++i) {
      threads.emplace_back([&] {
        for (int n = 0; n < kEach; ++n)
          ASSERT_EQ(store.give(forever), Status::ok);
      });
      threads.emplace_back([&] {
        for (int n = 0; n < kEach; ++n)
          ASSERT_EQ(store.take(forever), Status::ok);
      });
    }
    for (auto& thread : threads) ASSERT_TRUE(thread.ends()) << most;
    EXPECT_EQ(store.count(), 0u);
  }
}

// A sleeper whose time is up at the moment of its wake passes the wake on.
TEST_F(WaitStress, TimeoutsSwallowNoWake) {
  Store store(*state_, 2);
  constexpr int kEach = 2000;
  std::atomic<bool> done{false};
  std::atomic<int> stolen{0};
  std::deque<Thread> hurried;
  for (int i = 0; i < 2; ++i)
    hurried.emplace_back([&, i] {
      std::mt19937 random(static_cast<unsigned>(i));
      while (!done.load()) {
        const auto timeout = std::chrono::microseconds(random() % 150);
        if (store.take(Timeout(timeout)) == Status::ok) {
          ++stolen;
          ASSERT_EQ(store.give(forever), Status::ok);
        }
      }
    });
  std::deque<Thread> patient;
  for (int i = 0; i < 2; ++i) {
    patient.emplace_back([&] {
      for (int n = 0; n < kEach; ++n)
        ASSERT_EQ(store.give(forever), Status::ok);
    });
    patient.emplace_back([&] {
      for (int n = 0; n < kEach; ++n)
        ASSERT_EQ(store.take(forever), Status::ok);
    });
  }
  for (auto& thread : patient) EXPECT_TRUE(thread.ends());
  done.store(true);
  if (testing::Test::HasFailure()) store.close();
  for (auto& thread : hurried) EXPECT_TRUE(thread.ends());
  EXPECT_EQ(store.count(), 0u);
}

// Both really sleep at every turn, and do not just spin.
TEST_F(WaitStress, OneSleeperIsWokenEveryTime) {
  Store store(*state_, 1);
  std::atomic<int> taken{0};
  Thread taker([&] {
    for (int n = 0; n < 200; ++n) {
      ASSERT_EQ(store.take(forever), Status::ok);
      ++taken;
    }
  });
  for (int n = 0; n < 200; ++n) {
    ASSERT_TRUE(taker.falls_asleep()) << n;
    ASSERT_EQ(store.give(forever), Status::ok);
    ASSERT_TRUE(eventually([&] { return taken.load() == n + 1; })) << n;
  }
  EXPECT_TRUE(taker.ends());
}

TEST_F(WaitStress, ManySleepersAreWokenOneByOne) {
  Store store(*state_, 64);
  std::atomic<int> taken{0};
  std::deque<Thread> takers;
  for (int i = 0; i < 16; ++i)
    takers.emplace_back([&] {
      ASSERT_EQ(store.take(forever), Status::ok);
      ++taken;
    });
  for (auto& taker : takers) ASSERT_TRUE(taker.falls_asleep());
  for (int i = 0; i < 16; ++i) {
    EXPECT_EQ(taken.load(), i) << "no unit, no way out";
    ASSERT_EQ(store.give(forever), Status::ok);
    ASSERT_TRUE(eventually([&] { return taken.load() == i + 1; })) << i;
  }
  EXPECT_EQ(store.count(), 0u);
}

// All give at once, and each wakes somebody.
TEST_F(WaitStress, ABurstWakesAsManyAsItServes) {
  for (int round = 0; round < 20; ++round) {
    Store store(*state_, 64);
    std::deque<Thread> takers;
    for (int i = 0; i < 6; ++i)
      takers.emplace_back([&] { ASSERT_EQ(store.take(forever), Status::ok); });
    for (auto& taker : takers) ASSERT_TRUE(taker.falls_asleep());
    std::deque<Thread> givers;
    for (int i = 0; i < 3; ++i)
      givers.emplace_back([&] {
        for (int n = 0; n < 2; ++n) ASSERT_EQ(store.give(forever), Status::ok);
      });
    for (auto& giver : givers) ASSERT_TRUE(giver.ends());
    for (auto& taker : takers) ASSERT_TRUE(taker.ends()) << round;
    EXPECT_EQ(store.count(), 0u);
  }
}

// A waker that has found nobody, has cleared the flag and dies before it wakes
// all: two have fallen asleep meanwhile, and the kernel wakes one of them.
TEST_F(WaitStress, WhoIsWokenByADeadWakerWakesTheOthers) {
  Store store(*state_, 64);
  std::atomic<int> taken{0};
  std::atomic<bool> over{false};
  std::deque<Thread> takers;
  for (int i = 0; i < 2; ++i)
    takers.emplace_back([&] {
      ASSERT_EQ(store.take(forever), Status::ok);
      ++taken;
      // A thread that ends wakes those who watch it.
      while (!over) std::this_thread::yield();
    });
  for (auto& taker : takers) ASSERT_TRUE(taker.falls_asleep());
  state_->count.store(2);
  state_->wait.word.fetch_and(~flag_of(Side::consumers));
  EXPECT_EQ(futex::wake(state_->wait.word, 1), 1);
  EXPECT_TRUE(eventually([&] { return taken == 2; }));
  over = true;
  for (auto& taker : takers) ASSERT_TRUE(taker.ends());
}

// The flag of a side stands for as long as wakes find somebody.
TEST_F(WaitStress, FlagStandsWhileThereMayBeMore) {
  Shared<waiting::WaitState> word;
  std::atomic<int> woken{0};
  word->word.store(flag_of(Side::consumers) | flag_of(Side::producers));
  const std::uint32_t announced = word->word.load();
  std::deque<Thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      if (futex::wait(word->word, announced, forever) == futex::Result::woken)
        ++woken;
    });
  for (auto& thread : threads) ASSERT_TRUE(thread.falls_asleep());
  waiting::wake(*word, Side::producers, *Domain::tree(), 2);
  EXPECT_TRUE(eventually([&] { return woken.load() == 2; }));
  EXPECT_TRUE(word->word.load() & flag_of(Side::producers));
  waiting::wake(*word, Side::producers, *Domain::tree(), 3);
  EXPECT_TRUE(eventually([&] { return woken.load() == 4; }));
  EXPECT_FALSE(word->word.load() & flag_of(Side::producers));
  EXPECT_TRUE(word->word.load() & flag_of(Side::consumers));
  waiting::wake_everyone(*word, *Domain::tree());
  EXPECT_EQ(word->word.load(), 0u);
}

// Between a sleeper's last look and its sleep somebody publishes, wakes all,
// and is gone; and somebody else has set the flag again, for reasons of his
// own. The word is what the sleeper left: it looks again nevertheless.
class Between : public WaitStress,
                public testing::WithParamInterface<void (*)(waiting::WaitState&,
                                                            Domain&)> {};

TEST_P(Between, FlagSetAgainByAnother) {
  Store store(*state_, 1);
  bool announced = false, published = false;
  int looks_after = 0;
  const auto attempt = [&](liveness::Who&) {
    if (published) return ++looks_after, Status::ok;
    const std::uint32_t flags = state_->wait.word.load();
    announced = (flags & flag_of(Side::consumers)) != 0;
    if (!announced) return Status::blocked;
    published = true;
    GetParam()(state_->wait, *Domain::tree());
    EXPECT_EQ(state_->wait.word.load(), 0u);
    state_->wait.word.fetch_or(flags);
    return Status::blocked;
  };
  std::atomic<Status> status{Status::blocked};
  Thread sleeper([&] {
    status = waiting::sleep(store, Side::consumers, forever, attempt,
                            [] { return 0; });
  });
  ASSERT_TRUE(sleeper.ends());
  EXPECT_EQ(status, Status::ok);
  EXPECT_TRUE(announced);
  EXPECT_EQ(looks_after, 1);
}

INSTANTIATE_TEST_SUITE_P(AllWakers, Between,
                         testing::Values(
                             [](waiting::WaitState& state, Domain& domain) {
                               waiting::wake(state, Side::consumers, domain,
                                             futex::kAll);
                             },
                             [](waiting::WaitState& state, Domain& domain) {
                               waiting::wake_everyone(state, domain);
                             },
                             [](waiting::WaitState& state, Domain&) {
                               waiting::take_away(state,
                                                  flag_of(Side::consumers));
                             }));

TEST_F(WaitStress, WakeWithoutSleepersDoesNothing) {
  Shared<waiting::WaitState> word;
  waiting::wake(*word, Side::consumers, *Domain::tree());
  waiting::wake(*word, Side::producers, *Domain::tree(), futex::kAll);
  waiting::wake_everyone(*word, *Domain::tree());
  EXPECT_EQ(word->word.load(), 0u);
}

TEST_F(WaitStress, CloseWakesBothSidesWhateverTheyDo) {
  for (int round = 0; round < 100; ++round) {
    new (&*state_) Store::State();
    Store store(*state_, 1);
    std::deque<Thread> threads;
    for (int i = 0; i < 2; ++i) {
      threads.emplace_back([&] {
        while (store.take(forever) == Status::ok) {
        }
      });
      threads.emplace_back([&] {
        while (store.give(forever) == Status::ok) {
        }
      });
    }
    for (int i = 0; i < round; ++i) sched_yield();
    store.close();
    for (auto& thread : threads) ASSERT_TRUE(thread.ends()) << round;
  }
}

// ---- deadlines ----

TEST_F(WaitStress, TimesOutNeitherEarlyNorAbsurdlyLate) {
  Store store(*state_, 1);
  for (const auto timeout : {1us, 500us, 20'000us, 60'000us}) {
    const std::int64_t start = monotonic_now();
    EXPECT_EQ(store.take(Timeout(timeout)), Status::timed_out);
    const std::chrono::nanoseconds took(monotonic_now() - start);
    EXPECT_GE(took, timeout);
    EXPECT_LT(took, 10s);
  }
  EXPECT_EQ(store.take(Timeout(-1s)), Status::timed_out);
  ASSERT_EQ(store.give(forever), Status::ok);
  EXPECT_EQ(store.take(Timeout(-1s)), Status::ok)
      << "what is there is had, however late";
}

// With slices a sleeper looks up from time to time, but not any earlier out.
TEST_F(WaitStress, SlicesDoNotShortenAWait) {
  waiting::set_slices(true);
  Store store(*state_, 1);
  std::deque<Thread> threads;
  for (int i = 0; i < 3; ++i)
    threads.emplace_back([&] {
      const std::int64_t start = monotonic_now();
      EXPECT_EQ(store.take(Timeout(250ms)), Status::timed_out);
      EXPECT_GE(monotonic_now() - start, 250'000'000);
    });
  for (auto& thread : threads) EXPECT_TRUE(thread.ends());
}

// ---- futexes ----

TEST(Futex, WaitsOnlyWhileTheWordIsAsExpected) {
  futex::Word word{5};
  EXPECT_EQ(futex::wait(word, 6, forever), futex::Result::changed);
  EXPECT_EQ(futex::wait(word, 5, Timeout(5ms)), futex::Result::timed_out);
  EXPECT_EQ(futex::wait(word, 5, Timeout(0ms)), futex::Result::timed_out);
}

TEST(Futex, AnyOfTheWordsWakes) {
  Shared<std::array<futex::Word, 2>> words;
  const auto wait_both = [&](std::uint32_t first, std::uint32_t second,
                             Timeout timeout) {
    return futex::wait_any(std::array{futex::Expected{&(*words)[0], first},
                                      futex::Expected{&(*words)[1], second}},
                           timeout);
  };
  for (const std::size_t which : {0u, 1u}) {
    const auto how =
        which == 0 ? futex::Result::woken : futex::Result::elsewhere;
    Thread sleeper([&] { EXPECT_EQ(wait_both(0, 0, forever), how); });
    ASSERT_TRUE(sleeper.falls_asleep());
    EXPECT_EQ(futex::wake((*words)[which], futex::kAll), 1);
    EXPECT_TRUE(sleeper.ends());
  }
  (*words)[1].store(1);
  EXPECT_EQ(wait_both(0, 0, forever), futex::Result::changed);
  EXPECT_EQ(wait_both(0, 1, Timeout(10ms)), futex::Result::timed_out);
}

TEST(Futex, MoveOneMovesASleeperWithoutWakingIt) {
  Shared<std::array<futex::Word, 2>> words;
  Thread sleeper([&] {
    EXPECT_EQ(futex::wait((*words)[0], 0, forever), futex::Result::woken);
  });
  ASSERT_TRUE(sleeper.falls_asleep());
  EXPECT_EQ(futex::move_one((*words)[0], (*words)[1]), 1);
  EXPECT_EQ(futex::move_one((*words)[0], (*words)[1]), 0);
  EXPECT_EQ(futex::wake((*words)[0], futex::kAll), 0);
  EXPECT_FALSE(sleeper.ended());
  EXPECT_EQ(futex::wake((*words)[1], futex::kAll), 1);
  EXPECT_TRUE(sleeper.ends());
}

TEST(Futex, IsSharedBetweenProcesses) {
  Shared<futex::Word> word;
  Child child([&](Child& self) {
    self.expect(futex::wait(*word, 0, forever) == futex::Result::woken,
                "woken by the parent");
  });
  ASSERT_TRUE(shoal::support::falls_asleep(child.pid(), child.pid()));
  EXPECT_EQ(futex::wake(*word, 1), 1);
  EXPECT_EQ(child.join(), 0) << child.failures();
}

// ---- without what the kernel may lack ----

class DISABLED_WaitFallback : public testing::Test {};

TEST_F(DISABLED_WaitFallback, IsInEffect) {
  EXPECT_EQ(asymmetric_fence::default_mode(), asymmetric_fence::Mode::fence);
  EXPECT_TRUE(asymmetric_fence::needs_fence(asymmetric_fence::Mode::fence));
  EXPECT_EQ(Domain::tree()->barrier_mode(), asymmetric_fence::Mode::fence);
  EXPECT_FALSE(liveness::kernel_passes_wakes());
}

TEST(WaitFallback, WithoutMembarrierAndPassedWakes) {
  Child again([](Child&) {
    exec_tests("DISABLED_WaitFallback.*:WaitStress.*",
               {"SHOAL_BARRIER=fence", "SHOAL_PASSED_WAKE=0"});
  });
  EXPECT_EQ(again.join(100s), 0);
}

// The kernel is asked once in a program, by its first object: also where
// signals come all the time.
class DISABLED_KernelAsked : public testing::Test {};

TEST_F(DISABLED_KernelAsked, AmongSignals) {
  signal(SIGALRM, [](int) {});
  const itimerval often = {{0, 200}, {0, 200}};
  setitimer(ITIMER_REAL, &often, nullptr);
  const std::int64_t start = monotonic_now();
  EXPECT_TRUE(liveness::kernel_passes_wakes());
  EXPECT_LT(monotonic_now() - start, 900'000'000);
  const itimerval never = {};
  setitimer(ITIMER_REAL, &never, nullptr);
}

TEST(KernelAsked, AmongSignals) {
  if (!liveness::kernel_passes_wakes()) GTEST_SKIP() << "it does not";
  for (int n = 0; n < 20; ++n) {
    Child again([](Child&) { exec_tests("DISABLED_KernelAsked.*", {}); });
    ASSERT_EQ(again.join(), 0) << n;
  }
}

}  // namespace
