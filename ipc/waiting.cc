#include "shoal/ipc/waiting.h"

#include <sched.h>

#include <algorithm>
#include <array>
#include <span>

#include "shoal/ipc/ticks.h"

namespace shoal::waiting {
namespace {

std::atomic<bool> slices{true};
std::atomic<bool> clocks{true};

using std::chrono::milliseconds;

// The kernel does not pass wakes on, or the heavy fence had no effect.
constexpr Timeout kBlindSlice = milliseconds(20);
// More threads than one can watch: a death between two steps of a publisher may
// go unseen. All of them look, so that it must not be often.
constexpr Timeout kCrowdSlice = milliseconds(200);
// The holder of a process's seat has ended, and the process not yet.
constexpr Timeout kDyingSlice = milliseconds(1);
// Somebody holds a claim for unusually long: time for the secondary proof.
constexpr Timeout kClaimSlice = milliseconds(100);
// Others sleep here, too; one of them may be stopped with a wake in its hands.
constexpr Timeout kCompanySlice = milliseconds(1000);

}  // namespace

void set_slices(bool on) {
  // relaxed: set by a test before it starts.
  slices.store(on, std::memory_order_relaxed);
}

void set_clocks(bool on) {
  // relaxed: as above.
  clocks.store(on, std::memory_order_relaxed);
}

bool SpinBudget::yield() {
  const std::uint64_t before = ticks();
  sched_yield();
  // Signed: CPUs may differ a little.
  const auto took = static_cast<std::int64_t>(ticks() - before);
  const std::uint32_t rests = rests_.load(std::memory_order_relaxed);
  if (took < std::int64_t{kTicksAMillisecond / 2} ||
      !clocks.load(std::memory_order_relaxed)) {
    if (rests > kLeastRests)
      rests_.store(rests - rests / kLeastRests, std::memory_order_relaxed);
    return true;
  }
  crowd_.store(rests, std::memory_order_relaxed);
  rests_.store(std::min(2 * rests, kMostRests), std::memory_order_relaxed);
  return false;
}

int SpinBudget::first_budget() {
  cpu_set_t set;
  const bool alone =
      sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) == 1;
  const int budget = alone ? 0 : kMost;
  budget_.store(budget, std::memory_order_relaxed);
  return budget;
}

namespace {

// Those who wait for several objects at once look at all of theirs.
void ring(WaitState& state, liveness::Domain& domain) {
  if (state.turns.take_bell()) domain.ring_bell();
}

}  // namespace

void take_away(WaitState& state, std::uint32_t flags) {
  state.turns.turn();
  // seq_cst: against a sleeper that announces itself at this moment.
  // KILL: whoever retires us wakes all that watch us, and they announce
  // themselves again; whom the kernel wakes finds the flag gone, and wakes all,
  // too.
  state.word.fetch_and(~flags, std::memory_order_seq_cst);
}

void wake_sleepers(WaitState& state, Side side, liveness::Domain& domain,
                   int count) {
  // The flag stands while there may be more.
  // KILL: none or some woken: the kernel passes the wake on.
  if (futex::wake(state.word, count) < count) {
    // Nobody is left, or somebody is about to sleep: the words must change. Who
    // sleeps nevertheless announces itself again.
    take_away(state, flag_of(side));
    futex::wake(state.word, futex::kAll);
  }
  // Last: whose flag was taken away here had asked for the bell before.
  if (side == Side::consumers) ring(state, domain);
}

bool wake_and_disarm(WaitState& state, Side side, liveness::Domain& domain,
                     liveness::StraightWake armed) {
  wake_sleepers(state, side, domain, 1);
  armed.disarm();
  return true;
}

void wake_armed(WaitState& state, Side side, liveness::Domain& domain) {
  const liveness::PassedWake armed(liveness::thread_context.robust, state.word);
  wake_sleepers(state, side, domain, 1);
}

void wake_everyone(WaitState& state, liveness::Domain& domain) {
  // KILL: the one that the kernel wakes finds the object closed and comes
  // here again.
  take_away(state, flag_of(Side::consumers) | flag_of(Side::producers));
  futex::wake(state.word, futex::kAll);
  ring(state, domain);
}

Parked park(WaitState& state, const Parking& parking, liveness::Domain& domain,
            const liveness::Watch& watch, Deadline deadline) {
  Deadline until = deadline;
  bool in_company = false;
  // relaxed: see set_slices.
  if (slices.load(std::memory_order_relaxed)) {
    if (!parking.fenced || !liveness::kernel_passes_wakes()) {
      until = earlier(deadline, kBlindSlice);
    } else if (!watch.complete()) {
      until = earlier(deadline, kCrowdSlice);
    } else if (parking.blocker != 0) {
      until = earlier(deadline, kClaimSlice);
    } else if (parking.others_slept) {
      in_company = true;
      until = earlier(deadline, kCompanySlice);
    }
  }
  std::array<futex::Expected, futex::kMostWords> words;
  std::size_t count = 0;
  // First: the kernel queues on it before it compares the others, so that
  // whoever clears it or dies after the comparison wakes us.
  words[count++] = {&state.word, parking.announced};
  words[count++] = parking.turns;
  const futex::Word* life = nullptr;
  if (parking.blocker != 0) {
    std::uint32_t alive;
    life = &domain.life_word(parking.blocker, alive);
    // The claim may have come free while we prepared its word.
    if (domain.dead(parking.blocker)) return Parked::look;
    // A process that is dying, thread by thread: nobody will wake us.
    if ((alive & FUTEX_TID_MASK) == 0) until = earlier(until, kDyingSlice);
    words[count++] = {life, alive};
  }
  for (const futex::Expected& watched : watch.words())
    if (watched.word != life) words[count++] = watched;
  const futex::Result result =
      futex::wait_any(std::span(words.data(), count), until);
  if (result == futex::Result::woken) return Parked::woken;
  // A kernel without futex_waitv(2) ends the sleep before.
  if (result != futex::Result::timed_out || !until.passed())
    return Parked::look;
  if (life != nullptr) domain.prove_dead(parking.blocker);
  if (deadline.passed()) return Parked::timed_out;
  // Others look, too; flags that nobody stands behind go, and with them these
  // slices.
  if (in_company)
    for (const Side side : {Side::consumers, Side::producers})
      wake_sleepers(state, side, domain, 1);
  return Parked::look;
}

}  // namespace shoal::waiting
