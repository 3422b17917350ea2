#pragma once
// Cells<T>: a bounded ring, many producers, many consumers, in shared memory,
// of which any participant may be killed at any instruction.
//
//   Cells<int> cells(state, first_cell, count, domain, spin);
//   if (cells.try_put(7) == Status::ok) ...
//
// The claim is one compare-and-swap on the cell itself and says whose it is.
// Head and tail are hints that anybody may move: lower bounds of the truth.
//
//   empty(L) -put: claim-> busy(L, who) -publish-> full(L)
//   full(L)  -get: claim-> taken(L, who) -commit-> empty(L + 1)
//   busy(L, dead)  -> empty(L + 1)   tombstone: that value never was
//   taken(L, dead) -> full(L)        delivered again
//   taken(L, who)  -> empty(L + 1)   taken over; closed rings of the pool only
//
// Source:   new here; the cell sequence is Vyukov's bounded MPMC queue, whose
//           claims are anonymous and therefore lost with their owner.
// Invariants: claimed positions form a prefix, so that order holds for each
//           producer; busy and taken words never recur, so that a late helper
//           cannot hit a later claim; a hint is stored while the claim is
//           held, so that it is never older than one lap, but for one that
//           was taken over: its ring has no further laps.
// Death:    docs/robustness.md#cells
// Cost:     uncontended, one CAS, two stores and a copy on either side.
// Layout:   docs/layout.md#cells

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>

#include "shoal/ipc/asymmetric_fence.h"
#include "shoal/ipc/cells_state.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/liveness.h"
#include "shoal/ipc/waiting.h"

namespace shoal::cells {

using waiting::Status;

// Of a T that only names what has its claim elsewhere: take_over().
template <class T>
concept TakenOver = requires {
  T::kMayBeTakenOver;
};

template <class T>
class Cells {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  using CellState = Cell<T>;
  // Of the first cell, behind the RingState.
  static constexpr std::size_t kFirst =
      (sizeof(RingState) + alignof(CellState) - 1) & ~(alignof(CellState) - 1);
  static constexpr std::size_t bytes(std::size_t count) {
    return kFirst + count * sizeof(CellState);
  }

  // A claim between its two halves.
  struct Claim {
    CellState* cell = nullptr;
    Position position = 0;
    Who who = 0;
  };

  // `ring` is followed by its cells. One of several rings of an object has a
  // number, and its users sleep on the word of the first.
  Cells(RingState& ring, std::uint32_t count, liveness::Domain& domain,
        waiting::SpinBudget& spin, std::uint32_t number = 0,
        waiting::WaitState* wait = nullptr)
      : ring_(&ring),
        cells_(reinterpret_cast<CellState*>(
            reinterpret_cast<std::byte*>(&ring) + kFirst)),
        wait_(wait != nullptr ? wait : &ring.wait),
        count_(count),
        number_(number),
        domain_(&domain),
        spin_(&spin),
        fenced_(domain.needs_fence()) {}

  // ---- one attempt; never waits ----

  Status try_put(const T& value, Who& blocker) {
    Armed armed;
    switch (put_at_once(value, armed)) {
      case AtOnce::done:
        return Status::ok;
      case AtOnce::wake:
        wake_after_put(armed);
        return Status::ok;
      case AtOnce::nothing:
        break;
    }
    return retry_put(value, blocker);
  }
  // The usual case in one straight line without a call, so that whoever calls
  // something in its stead at the end need not save registers.
  enum class [[nodiscard]] AtOnce{
      done,
      wake,     // done; wake_after_put() or wake_after_get() is called next
      nothing,  // nothing has happened, ask retry_put() or retry_get()
  };
  using Armed = liveness::StraightWake;
  AtOnce put_at_once(const T& value, Armed& armed);
  [[gnu::always_inline]] AtOnce get_at_once(T& value, Armed& armed) {
    return take_at_once(copy_to(value), armed);
  }
  template <class Read>
  AtOnce take_at_once(Read&& read, Armed& armed);
  bool wake_after_put(Armed armed) const {
    return waiting::wake_and_disarm(*wait_, waiting::Side::consumers, *domain_,
                                    armed);
  }
  // Returns `value`.
  template <class V>
  [[gnu::noinline]] V wake_after_get(Armed armed, V value) const {
    wake_after_get(1);
    armed.disarm();
    return value;
  }
  // An attempt that looks first.
  [[gnu::noinline]] Status retry_put(const T& value, Who& blocker) {
    const Who me = domain_->seat();
    if (is_closed_to_puts()) return Status::closed;
    const liveness::PassedWake armed(liveness::thread_context.robust,
                                     wait_->word);
    Claim claim;
    const Status status = claim_put(me, claim, blocker);
    if (status == Status::ok) put_in(claim, value);
    return status;
  }

  Status try_get(T& value, Who& blocker) {
    return consume(blocker, copy_to(value));
  }
  [[gnu::noinline]] Status retry_get(T& value, Who& blocker) {
    return retry_consume(blocker, copy_to(value));
  }
  // read(const std::byte*) noexcept between claim and commit; it must not take
  // long.
  template <class Read>
  Status consume(Who& blocker, Read&& read) {
    Armed armed;
    switch (take_at_once(read, armed)) {
      case AtOnce::done:
        return Status::ok;
      case AtOnce::wake:
        return wake_after_get(armed, Status::ok);
      case AtOnce::nothing:
        break;
    }
    return retry_consume(blocker, read);
  }
  // One who waits is eager a few times, and counts them down from this: an
  // attempt on an empty ring takes the cell's line from the other waiting
  // consumers, and saves a transfer to the one that gets the value.
  static constexpr int kEagerAttempts = 8;
  template <class Read>
  Status consume_waiting(int& eager, Who& blocker, Read&& read) {
    if (eager == 0 && !looks_ready(waiting::Side::consumers))
      return retry_consume(blocker, read);
    if (eager != 0) --eager;
    return consume(blocker, read);
  }
  Status get_waiting(int& eager, T& value, Who& blocker) {
    return consume_waiting(eager, blocker, copy_to(value));
  }
  template <class Read>
  [[gnu::noinline]] Status retry_consume(Who& blocker, Read&& read) {
    const Who me = domain_->seat();
    const liveness::PassedWake armed(liveness::thread_context.robust,
                                     wait_->word);
    Claim claim;
    const Status status = take_any(me, claim, blocker);
    if (status == Status::ok) take_out(claim, read);
    return status;
  }

  // Up to kBatch values at once; killed half-way, a prefix has happened.
  static constexpr std::size_t kBatch = 32;
  std::size_t try_put_many(const T* values, std::size_t wanted, Status& status,
                           Who& blocker);
  std::size_t try_get_many(T* values, std::size_t wanted, Status& status,
                           Who& blocker) {
    return try_take_many(
        wanted, status, blocker,
        [values](std::size_t i, const std::byte* data) noexcept {
          std::memcpy(&values[i], data, sizeof(T));
        });
  }
  // read(i, const std::byte*) noexcept between claims and commits.
  template <class Read>
  std::size_t try_take_many(std::size_t wanted, Status& status, Who& blocker,
                            Read&& read);

  // By one who was told blocked. In a ring that is closed to puts all others
  // would wait for a living process that is stopped between claim and commit:
  // of a TakenOver this reads the oldest value that somebody has taken, and
  // empties its cell. Both have read it then. False: there is none.
  template <class Read>
  bool take_over(Read&& read) requires TakenOver<T>;

  // ---- claims that user code holds; `who` is the process's seat ----

  Status claim_for_put(Who who, Claim& claim, Who& blocker) {
    domain_->seat();
    if (is_closed_to_puts()) return Status::closed;
    const liveness::PassedWake armed(liveness::thread_context.robust,
                                     wait_->word);
    return claim_put(who, claim, blocker);
  }
  Status claim_for_get(Who who, Claim& claim, Who& blocker) {
    domain_->seat();
    // relaxed: seen by whoever sees the claim.
    if (ring_->leased.load(std::memory_order_relaxed) == 0)
      // SYNC(ring.leased): before the claim that it speaks of.
      ring_->leased.store(1, std::memory_order_release);
    const liveness::PassedWake armed(liveness::thread_context.robust,
                                     wait_->word);
    return take_any(who, claim, blocker);
  }
  // busy -> full, or -> empty when `publish` is false; taken -> empty. A CAS:
  // a process that is being killed may still run here after others have
  // resolved its claim, and then must change nothing.
  void finish_put(const Claim& claim, bool publish) {
    end_claim(
        claim, word_at(claim.position, kBusy, claim.who),
        publish ? word_at(claim.position, kFull) : word_after(claim.position));
  }
  void finish_get(const Claim& claim) {
    const std::uint64_t taken = word_at(claim.position, kTaken, claim.who);
    if (!end_claim(claim, taken, word_after(claim.position)))
      end_claim(claim, taken | kPassed, end_after(claim.position));
  }

  // taken -> full, for a claim that came to nothing.
  void give_back(const Claim& claim) {
    // seq_cst: as in resolve().
    ring_->orphans.store(1, std::memory_order_seq_cst);
    const std::uint64_t taken = word_at(claim.position, kTaken, claim.who);
    const std::uint64_t again = word_at(claim.position, kFull, kAgain);
    if (!end_claim(claim, taken, again))
      end_claim(claim, taken | kPassed, again);
  }

  // ---- what waiting needs (waiting::until) ----

  waiting::WaitState& wait_state() const { return *wait_; }
  liveness::Domain& domain() const { return *domain_; }
  waiting::SpinBudget& spin() const { return *spin_; }
  void sweep() {
    if (must_sweep()) sweep_all();
  }
  void pass_baton(bool in_vain);
  // A cheap guess at whether an attempt would be blocked still.
  bool looks_ready(waiting::Side side) const {
    const bool put = side == waiting::Side::producers;
    // relaxed: hints; the attempt looks closely.
    const Position position =
        (put ? ring_->tail : ring_->head).load(std::memory_order_relaxed);
    return at(position).word.load(std::memory_order_relaxed) ==
           word_at(position, put ? kEmpty : kFull);
  }
  // The line that a put will need, ahead of it.
  void prefetch_for_put() const noexcept {
    const std::uint32_t index =
        index_at(ring_->tail.load(std::memory_order_relaxed));
    if (index < count_) waiting::prefetch_to_write(&cells_[index]);
  }
  // How many values that side has moved, modulo the range of the type.
  std::uint64_t passed(waiting::Side side) const {
    const Position position =
        (side == waiting::Side::producers ? ring_->tail : ring_->head)
            .load(std::memory_order_relaxed);
    return lap_at(position) * count_ + index_at(position);
  }
  // Whose death would bring a value back to a consumer that finds none: the
  // kernel does not pass on a wake for claims that user code holds.
  Who holder_behind(waiting::Side side) const;

  // After an attempt said blocked: looks for deaths at flat cost, first of
  // whoever has taken the latest value; true when another attempt may fare
  // better.
  bool refresh() {
    if (!suspects_death()) return false;
    sweep_all();
    return true;
  }
  bool suspects_death() const {
    const Position head = ring_->head.load(std::memory_order_relaxed);
    CellState& latest =
        at(index_at(head) == 0 ? Position{count_} - 1 : head - 1);
    const std::uint64_t word = load(latest);
    // All of them at once, or the latest would come before the others.
    if (__builtin_expect(state_of(word) != kTaken, 1) ||
        !domain_->dead(who_of(word))) {
      domain_->retire_some();
      return __builtin_expect(must_sweep(), 0);
    }
    return true;
  }
  bool must_sweep() const {
    // SYNC(ring.swept): what the sweep has resolved is visible.
    return ring_->swept.load(std::memory_order_acquire) != domain_->deaths();
  }
  // Resolves every claim of the dead. Any number of helpers, killable anywhere.
  // announce() is called before it is noted that it was done.
  template <class Announce>
  void sweep_all(Announce&& announce);
  void sweep_all() {
    sweep_all([] {});
  }

  // Everyone looks again.
  void wake_all();

  // ---- the whole ring ----

  // Puts fail from now on; gets drain and then report closed. Takes no seat,
  // and throws nothing.
  void close(std::uint32_t how);
  // The same without waking anybody.
  void mark_closed(std::uint32_t how);
  std::uint32_t closed() const {
    // SYNC(ring.closed)
    return ring_->closed.load(std::memory_order_acquire);
  }
  // Before a snapshot: what the dead hold is settled.
  void settle() {
    domain_->retire_all();
    sweep();
  }
  // Snapshots, exact when nothing is in flight.
  std::size_t size() const;
  bool empty() const { return size() == 0; }
  bool full() const;
  std::uint32_t count() const { return count_; }
  std::uint32_t number() const { return number_; }
  // The number of a cell among those of all rings of the object.
  std::uint64_t index_of_cell(const Claim& claim) const {
    return numbered(claim.position);
  }
  // The cell that a put would need next, and the one that a get would.
  Position tail() const { return true_tail(); }
  std::uint64_t tail_index() const { return numbered(true_tail()); }
  std::uint64_t head_index() const { return numbered(true_head()); }

  // ---- what rings of rings need (ipc/rings.h) ----

  // After its end was met: closed when nothing is left, else blocked. A value
  // that a living process holds may come back; `in_hands` waits for it.
  Status drained(Who& blocker, bool in_hands);
  // Snapshots for the baton: an attempt may succeed; the end is what is next;
  // a value or a claim that may become one; a value.
  bool can_get() const;
  bool can_put() const;
  bool at_end() const;
  bool anything_left() const;
  // Who has claimed a cell to put something there; 0: nobody.
  Who putter() const;
  bool has_item() const;
  // visit(data) for each value that is there or in somebody's hands. What it
  // reads may be overwritten meanwhile; keep() is then not called.
  template <class Visit, class Keep>
  void visit_items(Visit&& visit, Keep&& keep) const;

 private:
  static auto copy_to(T& value) {
    return [&value](const std::byte* data) noexcept {
      std::memcpy(&value, data, sizeof value);
    };
  }
  CellState& at(Position position) const {
    const std::uint32_t index = index_at(position);
    if (__builtin_expect(index >= count_, 0)) throw_corrupt(index);
    return cells_[index];
  }
  Position next(Position position) const {
    return index_at(position) + 1 == count_ ? (position | 0xFFFFFFFF) + 1
                                            : position + 1;
  }
  // The first position that may be in its claim's lap or later, for a cell
  // that was found `distance` laps ahead of `position`.
  Position jump(Position position, std::int64_t distance) const {
    return next(position + (static_cast<std::uint64_t>(distance - 1) << 32));
  }
  // The same for a consumer. An empty cell says that its previous lap is over,
  // and may say so early, by a tombstone: of the lap before that one, only what
  // lies up to this cell is known to be over, too.
  Position jump_to_unread(Position position, std::uint64_t word,
                          std::int64_t distance) const {
    if (state_of(word) == kEmpty && distance > 1) --distance;
    return jump(position, distance);
  }
  [[noreturn]] void throw_corrupt(std::uint32_t index) const;
  bool overtaken(Position position) const;
  // At the tail: a put finds room, in this cell or behind it.
  bool takes_put(Position position, std::uint64_t word) const {
    return word == word_at(position, kEmpty) ||
           (is_again(word) && overtaken(position));
  }

  // The usual claim, of the cell that the hint names; false: nothing has
  // happened, claim_put() or claim_get() looks closely.
  bool claim_at_tail(Who who, Claim& claim);
  bool claim_at_head(Who who, Claim& claim);
  Status claim_put(Who who, Claim& claim, Who& blocker);
  Status claim_get(Who who, Claim& claim, Who& blocker);
  Status claim_orphan(Who who, Claim& claim);
  Status take_any(Who who, Claim& claim, Who& blocker) {
    for (;;) {
      // relaxed: a hint.
      const Position from = ring_->head.load(std::memory_order_relaxed);
      Status status = claim_get(who, claim, blocker);
      // relaxed: set before the item becomes full again, and looked at again
      // before anybody sleeps.
      if (__builtin_expect(status != Status::blocked, 1) || discarded() ||
          ring_->orphans.load(std::memory_order_relaxed) == 0)
        return status;
      status = claim_orphan(who, claim);
      // A sweep has moved the hint back meanwhile, or a late store forth again.
      if (status == Status::ok ||
          ring_->head.load(std::memory_order_relaxed) == from)
        return status;
    }
  }
  bool is_closed_to_puts() const {
    // relaxed: a put that misses the closing either has claimed before the
    // end marker, and is delivered, or meets the marker.
    return ring_->closed.load(std::memory_order_relaxed) != kOpen;
  }
  void put_in(const Claim& claim, const T& value) const {
    std::memcpy(claim.cell->data, &value, sizeof value);
    publish(claim);
    asymmetric_fence::light(fenced_);
    waiting::wake(*wait_, waiting::Side::consumers, *domain_);
  }
  template <class Read>
  void take_out(const Claim& claim, Read&& read) const {
    read(static_cast<const std::byte*>(claim.cell->data));
    commit(claim);
    asymmetric_fence::light(fenced_);
    wake_after_get(1);
  }
  void publish(const Claim& claim) const {
    // SYNC(cell.full)
    // KILL: delivered once; a sleeper is woken by the kernel.
    claim.cell->word.store(word_at(claim.position, kFull),
                           std::memory_order_release);
  }
  void commit(const Claim& claim) const {
    // SYNC(cell.empty)
    // KILL: delivered to the dead; a sleeper is woken by the kernel.
    if constexpr (TakenOver<T>) {
      std::uint64_t taken = word_at(claim.position, kTaken, claim.who);
      // Unless it was taken over, and the end marker may be there.
      claim.cell->word.compare_exchange_strong(
          taken, word_after(claim.position), std::memory_order_release,
          std::memory_order_relaxed);
    } else {
      claim.cell->word.store(word_after(claim.position),
                             std::memory_order_release);
    }
  }
  // The last value of a closed ring is what other consumers wait for, too.
  void wake_after_get(int count) const {
    // relaxed: whoever sleeps since the closing sees it, too.
    if (__builtin_expect(ring_->closed.load(std::memory_order_relaxed) != kOpen,
                         0))
      waiting::wake(*wait_, waiting::Side::consumers, *domain_, futex::kAll);
    // A place in a sealed ring is none.
    if (__builtin_expect(!sealed(), 1))
      waiting::wake(*wait_, waiting::Side::producers, *domain_, count);
  }
  bool end_claim(const Claim& claim, std::uint64_t from, std::uint64_t to);
  bool resolve(CellState& cell, std::uint64_t word);
  bool discarded() const {
    // relaxed: who must see it is woken after it was stored.
    return ring_->closed.load(std::memory_order_relaxed) == kDiscarded;
  }
  bool sealed() const {
    // relaxed: as above.
    return ring_->closed.load(std::memory_order_relaxed) == kSealed;
  }
  Position true_tail() const;
  Position true_head() const;
  std::uint64_t numbered(Position position) const {
    return std::uint64_t{number_} << 32 | index_at(position);
  }
  std::uint64_t load(const CellState& cell) const {
    // SYNC(cell.full) SYNC(cell.empty)
    return cell.word.load(std::memory_order_acquire);
  }

  RingState* ring_;
  CellState* cells_;
  waiting::WaitState* wait_;
  std::uint32_t count_;
  std::uint32_t number_;
  liveness::Domain* domain_;
  waiting::SpinBudget* spin_;
  bool fenced_;
};

}  // namespace shoal::cells

#include "shoal/ipc/cells_protocol.h"
#include "shoal/ipc/cells_recovery.h"
