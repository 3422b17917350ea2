#pragma once
// Sleeping until another process has done something, and waking it.
//
// One 32-bit word an object: bit 31 "consumers sleep", bit 30 "producers
// sleep", the low 30 bits always 0, so that the kernel, too, may wake on it:
// during an operation the word is armed as the thread's pending robust futex
// (PassedWake), and whoever dies between publishing and waking, or after
// being woken and before acting, has its wake passed on to another sleeper.
// That one looks for the dead, does what it can itself, and passes on what is
// left over (the baton).
//
//   publisher: publish, light fence, look at the word, wake.
//   sleeper:   announce in the word, heavy fence, note who lives, look again,
//              sleep unless the word has changed or one of those is dead.
//
// The last condition is for a publisher that dies in between: the kernel's wake
// comes before the sleep and changes nothing in the word.
//
// Death:  any of these steps may be the last of a thread; docs/ordering.md.
// Cost:   a publisher pays one load while nobody sleeps.
// Layout: docs/layout.md#wait

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "shoal/ipc/asymmetric_fence.h"
#include "shoal/ipc/futex.h"
#include "shoal/ipc/liveness.h"

namespace shoal::waiting {

struct WaitState {
  futex::Word word;  // set by sleepers, cleared by wakers
  // Somebody waits for several objects at once: whoever wakes consumers here
  // rings the domain's bell, too. Set by those, cleared by the ringer.
  std::atomic<std::uint32_t> bells;
};
static_assert(sizeof(WaitState) == 8);

enum class Side : std::uint32_t {
  consumers = 0x80000000u,
  producers = 0x40000000u,
};
constexpr std::uint32_t flag_of(Side side) {
  return static_cast<std::uint32_t>(side);
}

enum class Status : std::uint8_t { ok, blocked, closed, timed_out };

// Wakes at most `count`, of that side unless both sides sleep, and then whoever
// is woken in vain passes it on. Keeps the flag while somebody was there to
// wake: a sleeper that is stopped after its wake does not hide the others.
void wake_sleepers(WaitState& state, Side side, liveness::Domain& domain,
                   int count);

inline void wake(WaitState& state, Side side, liveness::Domain& domain,
                 int count = 1) {
  // relaxed: ordered after the publication by the asymmetric fence.
  if (__builtin_expect(
          state.word.load(std::memory_order_relaxed) & flag_of(side), 0))
    wake_sleepers(state, side, domain, count);
}
void wake_everyone(WaitState& state, liveness::Domain& domain);
// One of that side; true.
bool wake_and_disarm(WaitState& state, Side side, liveness::Domain& domain,
                     liveness::StraightWake armed);

// By one who sleeps on the domain's bell: whoever wakes consumers here rings
// it.
inline void announce_afar(WaitState& state) {
  // SYNC(wait.bells): before the flag that makes a waker look at it.
  // KILL: a bell rung for nobody.
  state.bells.store(1, std::memory_order_release);
  // seq_cst: the race closed is announce/look against publish/look.
  state.word.fetch_or(flag_of(Side::consumers), std::memory_order_seq_cst);
}

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb" ::: "memory");
#endif
}

// The line will be written: fetches it for this CPU alone, where a plain load
// would leave a copy with the other and a second journey to the store.
inline void prefetch_to_write(const void* line) {
#if defined(__x86_64__)
  // __builtin_prefetch is a read, unless -mprfchw is given.
  asm volatile("prefetchw %0" : : "m"(*static_cast<const char*>(line)));
#else
  __builtin_prefetch(line, 1);
#endif
}

// How long to spin before sleeping: grows while spinning pays, shrinks while
// it does not. Process-local, one an object.
class SpinBudget {
 public:
  static constexpr int kMost = 2000;
  static constexpr int kLeast = 16;
  static constexpr int kYields = 10;

  int draw() {
    // relaxed throughout: a guess that only costs time when wrong.
    const std::uint32_t n = waits_.load(std::memory_order_relaxed);
    waits_.store(n + 1, std::memory_order_relaxed);
    const int budget = budget_.load(std::memory_order_relaxed);
    if (budget < 0) return first_budget();
    return n % 64 == 63 && budget != 0 ? kMost : budget;
  }
  void succeeded() {
    const int budget = budget_.load(std::memory_order_relaxed);
    budget_.store(std::min(kMost, budget + budget / 4 + kLeast),
                  std::memory_order_relaxed);
  }
  void failed() {
    const int budget = budget_.load(std::memory_order_relaxed);
    budget_.store(std::max(budget / 2, kLeast), std::memory_order_relaxed);
  }

  // How many pauses to let pass before looking again, for one who has moved
  // `passed` values so far through a ring of `count`. Two that work side by
  // side on one cache line slow each other down; when waiting has let a run of
  // values come together, it is worth while again.
  int pauses(Side side, std::uint64_t passed, std::uint32_t count) {
    Pace& pace = paces_[side == Side::producers];
    const std::uint64_t run =
        passed - pace.passed.load(std::memory_order_relaxed);
    pace.passed.store(passed, std::memory_order_relaxed);
    const int rests = pace.rests.load(std::memory_order_relaxed);
    const bool pays = rests == 0 && run >= kWorthwhileRun;
    pace.rests.store(pays         ? 0
                     : rests == 0 ? kRests
                                  : rests - 1,
                     std::memory_order_relaxed);
    if (!pays && rests != 1) return 0;
    // A small ring has turned long before.
    return static_cast<int>(
        std::min<std::uint32_t>(kPauses, count / kValuesAPause));
  }

 private:
  // One takes 30 to 60 ns, and a value at full speed 10. From 16 to 48, values
  // of 8 bytes took 9.3 instead of 11.4 ns, of 64 bytes 40 instead of 59
  // (queue_bench, medians of 21; EPYC virtual machine, 2 vCPUs).
  static constexpr std::uint32_t kPauses = 48;
  static constexpr std::uint32_t kValuesAPause = 16;
  static constexpr std::uint64_t kWorthwhileRun = 8;
  static constexpr int kRests = 256;  // waits until the next trial

  struct Pace {
    std::atomic<std::uint64_t> passed{0};
    std::atomic<int> rests{kRests};
  };
  int first_budget();

  std::atomic<int> budget_{-1};
  std::atomic<std::uint32_t> waits_{0};
  Pace paces_[2];
};

// Off only in tests of lost wake-ups, which bounded parks would hide.
void set_slices(bool on);

// Sleeps once, after the caller has announced itself, begun to watch, and
// looked again. `blocker` names the claim that stands in the way, or 0.
// Returns timed_out when `deadline` has passed, else ok.
struct Parking {
  std::uint32_t announced;
  bool others_slept;
  bool fenced;  // the heavy fence had an effect
  liveness::Who blocker;
};
Status park(WaitState& state, const Parking& parking, liveness::Domain& domain,
            const liveness::Watch& watch, Deadline deadline);

// Repeats `attempt` until it does not say blocked, or the deadline passes.
//
// Object:  wait_state(), domain(), spin(); sweep() resolves what the dead
//          hold; pass_baton(in_vain) wakes whoever can make progress, and all
//          of them when the caller was woken `in_vain`: the wake was meant for
//          the other side, or the flag is stale;
//          holder_behind() names one whose death would unblock us, or 0;
//          looks_ready(side) is a cheap guess. Where there is a
//          watch(Watch&), it adds words to those that must not change while
//          the caller sleeps: for publishers that have no seat.
// attempt: Status(liveness::Who& blocker); arms and disarms by itself.
// before_sleep: what it returns lives until the caller sleeps no more.
template <class Object, class Attempt, class BeforeSleep>
Status until(Object& object, Side side, Deadline deadline, Attempt&& attempt,
             BeforeSleep&& before_sleep) {
  liveness::Who blocker = 0;
  Status status;
  SpinBudget& spin = object.spin();
  const int budget = spin.draw();
  for (int n = 0; n < budget; ++n) {
    // Now and then whatever it looks like: there is more to see than one cell.
    if ((n % 8 == 0 || object.looks_ready(side)) &&
        (status = attempt(blocker)) != Status::blocked) {
      spin.succeeded();
      return status;
    }
    if (n % 64 == 63) {
      if (deadline.passed()) break;
      sched_yield();  // whom we wait for may wait for this CPU
    }
    pause();
  }
  spin.failed();
  for (int n = 0; n < SpinBudget::kYields && !deadline.passed(); ++n) {
    sched_yield();
    if ((status = attempt(blocker)) != Status::blocked) return status;
  }
  [[maybe_unused]] const auto guard = before_sleep();
  WaitState& state = object.wait_state();
  liveness::Domain& domain = object.domain();
  domain.seat();
  liveness::PassedWake armed(liveness::thread_context.robust, state.word);
  bool slept = false;
  for (;;) {
    // seq_cst: the race closed is announce/look against publish/look.
    // KILL: a flag without a sleeper costs one futile wake.
    const std::uint32_t before =
        state.word.fetch_or(flag_of(side), std::memory_order_seq_cst);
    const bool fenced = asymmetric_fence::heavy(domain.barrier_mode());
    liveness::Watch watch;
    domain.retire_all(&watch);
    if constexpr (requires { object.watch(watch); }) object.watch(watch);
    object.sweep();
    blocker = 0;
    status = attempt(blocker);
    object.pass_baton(slept && status == Status::blocked);
    if (status != Status::blocked) return status;
    if (deadline.passed()) return Status::timed_out;
    if (blocker == 0) blocker = object.holder_behind(side);
    slept = true;
    park(state,
         {.announced = before | flag_of(side),
          .others_slept = before != 0,
          .fenced = fenced,
          .blocker = blocker},
         domain, watch, deadline);
  }
}

template <class Object, class Attempt>
Status until(Object& object, Side side, Deadline deadline, Attempt&& attempt) {
  return until(object, side, deadline, attempt, [] { return 0; });
}

}  // namespace shoal::waiting
