#pragma once
// Ledger: how many values of a JoinableQueue each process has taken and not
// reported as done.
//
//   ledger.enrol(me);                   // before a claim
//   ledger.add(me);                     // before the value's cell is committed
//   if (!ledger.report(me)) throw ...;  // nobody has any
//
// A process's number lies in one word with the generation of its seat: what
// the dead had taken counts no more. A value is either in a cell or counted
// here, so that all is done when the cells are empty and the sum is 0. Someone
// who looks at the cells and then at the numbers must know that nobody began
// to take meanwhile: `takes` moves before a number does.
//
// Who joins sleeps on its own word and on the life words of those who have
// taken, which enrol, so that it learns whom to look at from now on.
//
// Sharing:  any thread of any process.
// Death:    killed after add() and before the commit: the value is delivered
//           again, and the number is a dead process's. With values that are not
//           reported: the kernel wakes who joins.
// Layout:   docs/layout.md#queue

#include <linux/futex.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "shoal/ipc/asymmetric_fence.h"
#include "shoal/ipc/futex.h"
#include "shoal/ipc/liveness.h"
#include "shoal/ipc/waiting.h"

namespace shoal {

// LedgerState::taken
//   bits 0..39   values
//   bits 40..63  generation of the seat that they are of
struct LedgerState {
  waiting::WaitState wait;           // who joins sleeps here
  std::atomic<std::uint64_t> takes;  // takers; only ever compared
  alignas(64) std::array<std::atomic<std::uint64_t>, liveness::kSeats> taken;
};
static_assert(std::is_standard_layout_v<LedgerState>);
static_assert(offsetof(LedgerState, taken) == 64);

class Ledger {
 public:
  using Who = liveness::Who;

  Ledger(LedgerState& state, liveness::Domain& domain)
      : state_(&state), domain_(&domain) {}

  // `process`, in all of these, is the calling process's seat.

  // From here on its death wakes whoever joins. Before the claim, since it may
  // call the kernel.
  void enrol(Who process) {
    const auto& word = state_->taken[liveness::index_of(process)];
    // relaxed: only this process writes its generation there.
    const std::uint64_t known = word.load(std::memory_order_relaxed);
    if (__builtin_expect(
            generation_of(known) != liveness::generation_of(process), 0))
      introduce(process);
  }
  void add(Who process) noexcept {
    // seq_cst: the race closed is take/count against count/look/count.
    state_->takes.fetch_add(1, std::memory_order_seq_cst);
    auto& word = state_->taken[liveness::index_of(process)];
    // relaxed: the CAS looks again.
    std::uint64_t was = word.load(std::memory_order_relaxed);
    std::uint64_t next;
    do {
      next =
          generation_of(was) == liveness::generation_of(process)
              ? was + 1
              : std::uint64_t{liveness::generation_of(process)} << kShift | 1;
      // SYNC(ledger.taken): before the commit of the cell.
      // KILL: a dead process's number, and a cell that is delivered again.
    } while (!word.compare_exchange_weak(was, next, std::memory_order_seq_cst,
                                         std::memory_order_relaxed));
  }
  // One of its own is done, or of another living process that has handed its
  // value over; who joins is told. False: there is none.
  bool report(Who process) {
    const liveness::PassedWake armed(liveness::thread_context.robust,
                                     state_->wait.word);
    if (!done(process)) return false;
    tell();
    return true;
  }
  // One that came to nothing.
  void take_back(Who process) { done(process); }

  std::uint64_t takes() const {
    // seq_cst: as in add().
    return state_->takes.load(std::memory_order_seq_cst);
  }
  // No living process has anything left.
  bool clear() const {
    for (std::uint32_t index = 0; index < domain_->high(); ++index)
      if (count_of(state_->taken[index], index) != 0) return false;
    return true;
  }
  waiting::WaitState& wait_state() const { return state_->wait; }

  // After a change that those who join must see.
  void tell() {
    asymmetric_fence::light(domain_->needs_fence());
    waiting::wake(state_->wait, waiting::Side::consumers, *domain_,
                  futex::kAll);
  }

  // ---- who joins, and is about to sleep ----

  // The kernel is to wake it for each process that has taken.
  void watch(liveness::Watch& watch) const {
    for (std::uint32_t index = 0; index < domain_->high(); ++index) {
      const Who who = taker(index);
      if (who == 0 || domain_->dead(who)) continue;
      std::uint32_t alive;
      const futex::Word& life = domain_->life_word(who, alive);
      // Held by no thread: the next one that takes it over wakes us.
      if ((alive & FUTEX_TID_MASK) == 0) watch.add(life, alive);
    }
  }
  // One that has values and whose seat is to be looked at more closely, each in
  // its turn; first of all one whose seat no thread holds, of whose death the
  // kernel does not tell.
  Who holder_behind(std::uint32_t& turn) const {
    Who named = 0;
    const std::uint32_t high = domain_->high();
    for (std::uint32_t n = 0; n < high; ++n) {
      const std::uint32_t index = (turn + n) % high;
      const Who who = taker(index);
      if (who == 0 || count_of(state_->taken[index], index) == 0 ||
          domain_->is_ours(who))
        continue;
      std::uint32_t alive;
      domain_->life_word(who, alive);
      const bool unheld = (alive & FUTEX_TID_MASK) == 0;
      if (unheld || named == 0) named = who;
      if (unheld) break;
    }
    turn = liveness::index_of(named) + 1;
    return named;
  }

 private:
  static constexpr unsigned kShift = 40;
  static constexpr std::uint64_t kCount = (std::uint64_t{1} << kShift) - 1;

  static std::uint32_t generation_of(std::uint64_t word) {
    return static_cast<std::uint32_t>(word >> kShift);
  }
  // 0: nobody yet.
  Who taker(std::uint32_t index) const {
    // SYNC(ledger.taken)
    const auto generation =
        generation_of(state_->taken[index].load(std::memory_order_seq_cst));
    return generation == 0 ? 0 : liveness::make_who(index, generation);
  }
  [[gnu::noinline]] void introduce(Who process) {
    const liveness::PassedWake armed(liveness::thread_context.robust,
                                     state_->wait.word);
    auto& word = state_->taken[liveness::index_of(process)];
    // relaxed: the CAS looks again.
    std::uint64_t was = word.load(std::memory_order_relaxed);
    if (generation_of(was) != liveness::generation_of(process))
      // SYNC(ledger.taken): fails when another thread of ours was first.
      // KILL: a dead process's, of which nothing is missing.
      word.compare_exchange_strong(
          was, std::uint64_t{liveness::generation_of(process)} << kShift,
          std::memory_order_seq_cst, std::memory_order_relaxed);
    tell();
  }
  bool done(Who process) {
    if (subtract(liveness::index_of(process), process)) return true;
    for (std::uint32_t index = 0; index < domain_->high(); ++index)
      if (subtract(index, 0)) return true;
    return false;
  }
  std::uint64_t count_of(const std::atomic<std::uint64_t>& shared,
                         std::uint32_t index) const {
    // SYNC(ledger.taken)
    const std::uint64_t word = shared.load(std::memory_order_seq_cst);
    const Who who = liveness::make_who(index, generation_of(word));
    return (word & kCount) == 0 || domain_->dead(who) ? 0 : word & kCount;
  }
  // `process` 0: whosever it is.
  bool subtract(std::uint32_t index, Who process) {
    auto& shared = state_->taken[index];
    for (;;) {
      // relaxed: the CAS looks again.
      std::uint64_t word = shared.load(std::memory_order_relaxed);
      if (count_of(shared, index) == 0 ||
          (process != 0 &&
           generation_of(word) != liveness::generation_of(process)))
        return false;
      if ((word & kCount) == 0) return false;
      // SYNC(ledger.taken)
      // KILL: done, and who joins sees that we are dead and looks again.
      if (shared.compare_exchange_weak(word, word - 1,
                                       std::memory_order_seq_cst,
                                       std::memory_order_relaxed))
        return true;
    }
  }

  LedgerState* state_;
  liveness::Domain* domain_;
};

}  // namespace shoal
