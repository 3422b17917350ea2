#pragma once
// Sleeping until another process has done something, and waking it.
//
// A 32-bit word of flags an object: bit 31 "consumers sleep", bit 30 "producers
// sleep", the low 30 bits always 0, so that the kernel, too, may wake on it:
// during an operation the word is armed as the thread's pending robust futex
// (PassedWake), and whoever dies between publishing and waking, or after
// being woken and before acting, has its wake passed on to another sleeper.
// That one looks for the dead, does what it can itself, and passes on what is
// left over (the baton).
//
//   publisher: publish, light fence, look at the word; count a turn, clear the
//              flag, wake.
//   sleeper:   announce in the word, heavy fence, note who lives, look again,
//              sleep unless the word has changed, or was cleared and set again,
//              or one of those is dead.
//
// The last condition is for a publisher that dies in between: the kernel's wake
// comes before the sleep and changes nothing in the word.
//
// Death:  any of these steps may be the last of a thread; docs/ordering.md.
// Cost:   a publisher pays one load while nobody sleeps.
// Layout: docs/layout.md#wait

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <type_traits>

#include "shoal/ipc/asymmetric_fence.h"
#include "shoal/ipc/futex.h"
#include "shoal/ipc/liveness.h"

namespace shoal::waiting {

// What stands beside a word of flags: how often flags were taken away, since
// others may have set the same again before a sleeper compares the word; and,
// in bit 0, whether somebody waits for several objects at once, so that whoever
// wakes here rings the domain's bell, too.
class Turns {
 public:
  // By a sleeper, before it announces itself: it sleeps on this, too. (Comes
  // again after 2^31 turns within one look.)
  futex::Expected now() const {
    // SYNC(wait.turns): or else the look sees what was published.
    return {&word_, word_.load(std::memory_order_acquire)};
  }
  // By a waker that has published, before it takes flags away.
  void turn() {
    // SYNC(wait.turns)
    // KILL: a turn without one costs a futile look.
    word_.fetch_add(kTurn, std::memory_order_release);
  }

  // By one who sleeps on the domain's bell, before it sets the flag that makes
  // a waker look here.
  void want_bell() {
    // SYNC(wait.bells)
    // KILL: a bell rung for nobody.
    word_.fetch_or(kBell, std::memory_order_release);
  }
  bool wants_bell() const {
    // SYNC(wait.bells)
    return (word_.load(std::memory_order_acquire) & kBell) != 0;
  }
  // Whether it is wanted; the caller rings it then.
  bool take_bell() {
    // SYNC(wait.bells): whoever set it looks at the object after that.
    // KILL: gone and not rung: they watch who lives, and see that we do not.
    return wants_bell() &&
           (word_.fetch_and(~kBell, std::memory_order_acq_rel) & kBell) != 0;
  }

 private:
  static constexpr std::uint32_t kBell = 1;
  static constexpr std::uint32_t kTurn = 2;

  futex::Word word_;
};

struct WaitState {
  futex::Word word;  // set by sleepers, cleared by wakers
  Turns turns;
};
static_assert(std::is_standard_layout_v<WaitState>);
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
// Who is about to sleep looks again.
void take_away(WaitState& state, std::uint32_t flags);
// One of that side; true.
bool wake_and_disarm(WaitState& state, Side side, liveness::Domain& domain,
                     liveness::StraightWake armed);

// The same by one who has armed nothing, and has seen the flag.
void wake_armed(WaitState& state, Side side, liveness::Domain& domain);

// By one who sleeps on the domain's bell: whoever wakes consumers here rings
// it.
inline void announce_afar(WaitState& state) {
  state.turns.want_bell();
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
  static constexpr int kTurnsAYield = 64;
  static constexpr int kSoon = 64;
  static constexpr std::uint32_t kPatience = 8;
  static constexpr std::uint32_t kRetry = 64;

  int draw() {
    // relaxed throughout: a guess that only costs time when wrong.
    const std::uint32_t n = waits_.load(std::memory_order_relaxed);
    waits_.store(n + 1, std::memory_order_relaxed);
    const int budget = budget_.load(std::memory_order_relaxed);
    if (budget < 0) return first_budget();
    return n % 64 == 63 && budget != 0 ? kMost : budget;
  }
  // Before that: what a round trip between two who spin may take. 0 where that
  // has failed again and again, as between two on one CPU.
  int soon() {
    const std::uint32_t failures = failures_.load(std::memory_order_relaxed);
    failures_.store(failures + 1, std::memory_order_relaxed);
    return failures < kPatience || failures % kRetry == 0 ? kSoon : 0;
  }
  void was_soon() { failures_.store(0, std::memory_order_relaxed); }
  // After so many turns. One that was let go on for longer than usual has found
  // what it takes; short of that a budget that is too small would stay so. What
  // comes right after a yield came by the yield.
  void succeeded(int turns) {
    const int budget = budget_.load(std::memory_order_relaxed);
    const bool found = turns > budget && turns % kTurnsAYield != 0;
    budget_.store(
        std::min(kMost, found ? 2 * turns : budget + budget / 4 + kLeast),
        std::memory_order_relaxed);
  }
  void failed() {
    const int budget = budget_.load(std::memory_order_relaxed);
    budget_.store(std::max(budget / 2, kLeast), std::memory_order_relaxed);
  }

  // Whether one who waits may yield its CPU. Not for a while after a thread
  // that computes has taken it for a time slice: who sleeps instead takes it
  // back as soon as it is woken.
  bool may_yield() {
    const std::uint32_t rests = crowd_.load(std::memory_order_relaxed);
    if (rests == 0) return true;
    crowd_.store(rests - 1, std::memory_order_relaxed);
    return false;
  }
  // Yields; false when that took long. A time slice is 1.4 ms and more, and
  // what others do between two waits is less.
  bool yield();

  // How many pauses to let pass before looking again, for one who has moved
  // `passed` values so far through a ring of `count`. Two that work side by
  // side on one cache line slow each other down; when waiting has let a run of
  // values come together, it is worth while again.
  int pauses(Side side, std::uint64_t passed, std::uint32_t count) {
    std::atomic<std::uint64_t>& before = paces_[side == Side::producers].passed;
    const std::uint64_t run = passed - before.load(std::memory_order_relaxed);
    before.store(passed, std::memory_order_relaxed);
    return pauses_after(side, run >= kWorthwhileRun, count);
  }
  // The same for one who knows whether there has been a `run` of them since.
  int pauses_after(Side side, bool run, std::uint64_t count) {
    std::atomic<int>& rests = paces_[side == Side::producers].rests;
    const int left = rests.load(std::memory_order_relaxed);
    const bool pays = left == 0 && run;
    rests.store(pays        ? 0
                : left == 0 ? kRests
                            : left - 1,
                std::memory_order_relaxed);
    if (!pays && left != 1) return 0;
    // A small ring has turned long before.
    return static_cast<int>(
        std::min<std::uint64_t>(kPauses, count / kValuesAPause));
  }
  static constexpr std::uint64_t kWorthwhileRun = 8;

 private:
  // One takes 30 to 60 ns, and a value at full speed 10. From 16 to 48, values
  // of 8 bytes took 9.3 instead of 11.4 ns, of 64 bytes 40 instead of 59
  // (queue_bench, medians of 21; EPYC virtual machine, 2 vCPUs).
  static constexpr std::uint32_t kPauses = 48;
  static constexpr std::uint32_t kValuesAPause = 16;
  static constexpr int kRests = 256;  // waits until the next trial
  static constexpr std::uint32_t kLeastRests = 64;  // waits without yields
  static constexpr std::uint32_t kMostRests = 8192;

  struct Pace {
    std::atomic<std::uint64_t> passed{0};
    std::atomic<int> rests{kRests};
  };
  int first_budget();

  std::atomic<int> budget_{-1};
  std::atomic<std::uint32_t> waits_{0};
  std::atomic<std::uint32_t> failures_{0};  // of soon(), in a row
  std::atomic<std::uint32_t> crowd_{0};     // waits that are not to yield
  std::atomic<std::uint32_t> rests_{kLeastRests};  // after the next long yield
  Pace paces_[2];
};

// Off only in tests of lost wake-ups, which bounded parks would hide.
void set_slices(bool on);
// Off only in tests that run a process step by step, whose time is not its own.
void set_clocks(bool on);

// Sleeps once, after the caller has announced itself, begun to watch, and
// looked again. `blocker` names the claim that stands in the way, or 0.
enum class Parked : std::uint8_t {
  woken,     // on the object's word
  look,      // otherwise; or it did not sleep at all
  timed_out  // `deadline` has passed
};
struct Parking {
  std::uint32_t announced;
  futex::Expected turns;  // as it was before that
  bool others_slept;
  bool fenced;  // the heavy fence had an effect
  liveness::Who blocker;
};
Parked park(WaitState& state, const Parking& parking, liveness::Domain& domain,
            const liveness::Watch& watch, Deadline deadline);

// Turns until `ready`(turn), for as long as has paid so far, and then yields:
// whom we wait for may wait for this CPU. False: it is not ready yet.
template <class Ready>
bool spin_until(SpinBudget& spin, Deadline deadline, Ready&& ready) {
  constexpr int kTurnsAYield = SpinBudget::kTurnsAYield;
  const bool yields = spin.may_yield();
  const int budget = yields ? spin.draw() : std::min(spin.draw(), kTurnsAYield);
  for (int n = 0; n < budget; ++n) {
    if (ready(n)) {
      spin.succeeded(n);
      return true;
    }
    if (n % kTurnsAYield == kTurnsAYield - 1) {
      if (!yields || deadline.passed()) break;
      if (!spin.yield()) return ready(0);
    }
    pause();
  }
  if (!yields) return false;
  spin.failed();
  for (int n = 0; n < SpinBudget::kYields && !deadline.passed(); ++n) {
    const bool soon = spin.yield();
    if (ready(0)) return true;
    if (!soon) return false;
  }
  return false;
}

// The first half of until(), below: blocked when it takes longer.
template <class Object, class Attempt>
Status spin(Object& object, Side side, Deadline deadline, Attempt&& attempt) {
  liveness::Who blocker = 0;
  Status status = Status::blocked;
  spin_until(object.spin(), deadline, [&](int n) {
    // Now and then whatever it looks like: there is more to see than one cell.
    if (n % 8 == 0 || object.looks_ready(side)) status = attempt(blocker);
    return status != Status::blocked;
  });
  return status;
}

// The second.
template <class Object, class Attempt, class BeforeSleep>
Status sleep(Object& object, Side side, Deadline deadline, Attempt&& attempt,
             BeforeSleep&& before_sleep) {
  liveness::Who blocker = 0;
  Status status;
  [[maybe_unused]] const auto guard = before_sleep();
  WaitState& state = object.wait_state();
  liveness::Domain& domain = object.domain();
  domain.seat();
  liveness::PassedWake armed(liveness::thread_context.robust, state.word);
  bool slept = false;
  for (;;) {
    const futex::Expected turns = state.turns.now();
    // seq_cst: the race closed is announce/look against publish/look.
    // KILL: a flag without a sleeper costs one futile wake.
    const std::uint32_t before =
        state.word.fetch_or(flag_of(side), std::memory_order_seq_cst);
    const bool fenced = asymmetric_fence::heavy(domain.barrier_mode());
    liveness::Watch watch;
    // First: there is room for these.
    if constexpr (requires { object.watch(watch); }) object.watch(watch);
    domain.retire_all(&watch);
    object.sweep();
    blocker = 0;
    status = attempt(blocker);
    object.pass_baton(slept && status == Status::blocked);
    if (status != Status::blocked) return status;
    if (deadline.passed()) return Status::timed_out;
    if (blocker == 0) blocker = object.holder_behind(side);
    slept = true;
    const Parked how = park(state,
                            {.announced = before | flag_of(side),
                             .turns = turns,
                             .others_slept = before != 0,
                             .fenced = fenced,
                             .blocker = blocker},
                            domain, watch, deadline);
    if (how == Parked::look) continue;
    // Its time is up, or it was woken by the object's word: by a publisher, or
    // by the kernel for one that has died on its way, perhaps after it had
    // taken the flag away.
    if constexpr (!requires { Object::kNothingToSweep; }) {
      domain.retire_all();
      object.sweep();
    }
    status = attempt(blocker);
    if (status != Status::blocked) {
      // relaxed: as in wake().
      if ((state.word.load(std::memory_order_relaxed) & flag_of(side)) == 0)
        futex::wake(state.word, futex::kAll);
      object.pass_baton(false);
      return status;
    }
    if (how == Parked::timed_out) return Status::timed_out;
  }
}

// Repeats `attempt` until it does not say blocked, or the deadline passes.
//
// Object:  wait_state(), domain(), spin(); sweep() resolves what the dead
//          hold; pass_baton(in_vain) wakes whoever can make progress, and all
//          of them when the caller was woken `in_vain`: the wake was meant for
//          the other side, or the flag is stale;
//          holder_behind() names one whose death would unblock us, or 0;
//          looks_ready(side) is a cheap guess. Where there is a
//          watch(Watch&), it adds words to those that must not change while
//          the caller sleeps: for publishers that have no seat. One that
//          needs no look at the dead before an attempt after a wake says so by
//          kNothingToSweep.
// attempt: Status(liveness::Who& blocker); arms and disarms by itself.
// before_sleep: what it returns lives until the caller sleeps no more.
template <class Object, class Attempt, class BeforeSleep>
Status until(Object& object, Side side, Deadline deadline, Attempt&& attempt,
             BeforeSleep&& before_sleep) {
  const Status status = spin(object, side, deadline, attempt);
  return status == Status::blocked
             ? sleep(object, side, deadline, attempt, before_sleep)
             : status;
}

template <class Object, class Attempt>
Status until(Object& object, Side side, Deadline deadline, Attempt&& attempt) {
  return until(object, side, deadline, attempt, [] { return 0; });
}

}  // namespace shoal::waiting
