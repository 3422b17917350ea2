#pragma once
// Ledger: how many values of a JoinableQueue each process has taken and not
// reported as done.
//
//   ledger.add(me);                     // before the value's cell is committed
//   if (!ledger.done(me)) throw ...;    // nobody has any
//
// A process's number lies in one word with the generation of its seat: what
// the dead had taken counts no more. A value is either in a cell or counted
// here, so that all is done when the cells are empty and the sum is 0. Someone
// who looks at the cells and then at the numbers must know that nobody began
// to take meanwhile: `takes` moves before a number does.
//
// Sharing:  any thread of any process.
// Death:    killed after add() and before the commit: the value is delivered
//           again, and the number is a dead process's.
// Layout:   docs/layout.md#queue

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>

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

  // `process` is a process's seat.
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
  // One of its own, or of another living process that has handed its value
  // over; false: there is none.
  bool done(Who process) {
    if (subtract(liveness::index_of(process), process)) return true;
    for (std::uint32_t index = 0; index < liveness::kSeats; ++index)
      if (subtract(index, 0)) return true;
    return false;
  }
  // One that came to nothing.
  void take_back(Who process) { done(process); }

  std::uint64_t takes() const {
    // seq_cst: as in add().
    return state_->takes.load(std::memory_order_seq_cst);
  }
  // No living process has anything left.
  bool clear() const {
    for (const auto& word : state_->taken)
      if (count_of(word, &word - state_->taken.data()) != 0) return false;
    return true;
  }
  waiting::WaitState& wait_state() const { return state_->wait; }

 private:
  static constexpr unsigned kShift = 40;
  static constexpr std::uint64_t kCount = (std::uint64_t{1} << kShift) - 1;

  static std::uint32_t generation_of(std::uint64_t word) {
    return static_cast<std::uint32_t>(word >> kShift);
  }
  std::uint64_t count_of(const std::atomic<std::uint64_t>& shared,
                         std::ptrdiff_t index) const {
    // SYNC(ledger.taken)
    const std::uint64_t word = shared.load(std::memory_order_seq_cst);
    const Who who = liveness::make_who(static_cast<std::uint32_t>(index),
                                       generation_of(word));
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
