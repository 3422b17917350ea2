#include "shoal/ipc/wait.h"

#include <sched.h>

namespace shoal::wait {
namespace {

std::atomic<bool> slices{true};

using std::chrono::milliseconds;

// The kernel does not pass wakes on, or the heavy fence had no effect.
constexpr Timeout kBlindSlice = milliseconds(20);
// The holder of a process's seat has ended, and the process not yet.
constexpr Timeout kDyingSlice = milliseconds(1);
// Somebody holds a claim for unusually long: time for the secondary proof.
constexpr Timeout kClaimSlice = milliseconds(100);
// Others sleep here, too; one of them may be stopped with a wake in its hands.
constexpr Timeout kCompanySlice = milliseconds(1000);

Deadline earlier(Deadline a, Deadline b) {
  return a.nanoseconds() < b.nanoseconds() ? a : b;
}

}  // namespace

void set_slices(bool on) {
  // relaxed: set by a test before it starts.
  slices.store(on, std::memory_order_relaxed);
}

int SpinBudget::first_budget() {
  cpu_set_t set;
  const bool alone =
      sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) == 1;
  const int budget = alone ? 0 : kMost;
  budget_.store(budget, std::memory_order_relaxed);
  return budget;
}

void wake_sleepers(WaitState& state, Side side, int count) {
  // The flag stands while there may be more.
  // KILL: none or some woken: the kernel passes the wake on.
  int woken = futex::wake(state.word, count, bits_of(side));
  if (woken >= count) return;
  // Nobody is left, or somebody is about to sleep: the word must change.
  // seq_cst: against a sleeper that announces itself at this moment.
  // KILL: flag gone: who is woken by the kernel passes the baton unasked.
  state.word.fetch_and(~flag_of(side), std::memory_order_seq_cst);
  woken = futex::wake(state.word, count - woken, bits_of(side));
  if (woken != 0) state.word.fetch_or(flag_of(side), std::memory_order_seq_cst);
}

void wake_everyone(WaitState& state) {
  // seq_cst: as above.
  // KILL: the one that the kernel wakes finds the object closed and comes
  // here again.
  state.word.store(0, std::memory_order_seq_cst);
  futex::wake(state.word, futex::kAll);
}

Status park(const WaitState& state, Side side, std::uint32_t announced,
            bool others_slept, bool bounded, liveness::Domain& domain,
            liveness::Who blocker, Deadline deadline) {
  Deadline until = deadline;
  // relaxed: see set_slices.
  if (slices.load(std::memory_order_relaxed)) {
    if (!bounded || !liveness::kernel_passes_wakes())
      until = earlier(deadline, kBlindSlice);
    else if (blocker != 0)
      until = earlier(deadline, kClaimSlice);
    else if (others_slept)
      until = earlier(deadline, kCompanySlice);
  }
  futex::Result result;
  if (blocker != 0) {
    std::uint32_t alive;
    const futex::Word& life = domain.life_word(blocker, alive);
    // The claim may have come free while we prepared its word.
    if (domain.dead(blocker)) return Status::ok;
    // A process that is dying, thread by thread: nobody will wake us.
    if ((alive & FUTEX_TID_MASK) == 0) until = earlier(until, kDyingSlice);
    result = futex::wait_either(state.word, announced, life, alive, until);
    if (result == futex::Result::timed_out) domain.prove_dead(blocker);
  } else {
    result = futex::wait(state.word, announced, until, bits_of(side));
  }
  return result == futex::Result::timed_out && deadline.passed()
             ? Status::timed_out
             : Status::ok;
}

}  // namespace shoal::wait
