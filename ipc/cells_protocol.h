#pragma once
// The steps of Cells<T> (ipc/cells.h): to put and to get, one and many.
// docs/robustness.md#cells has the table of kill windows.

#include <algorithm>

namespace shoal::cells {

template <class T>
[[gnu::always_inline]] inline bool Cells<T>::claim_at_tail(Who who,
                                                           Claim& claim) {
  // relaxed: a hint; the cells decide.
  const Position position = ring_->tail.load(std::memory_order_relaxed);
  if (__builtin_expect(index_at(position) >= count_, 0)) return false;
  CellState& cell = cells_[index_at(position)];
  // Without a look first: one transfer of the line instead of two.
  std::uint64_t word = word_at(position, kEmpty);
  // SYNC(cell.empty): the last consumer is done with the data.
  // KILL: before it nothing has happened; after it busy(dead) becomes a
  // tombstone.
  if (__builtin_expect(
          !cell.word.compare_exchange_strong(
              word, word_at(position, kBusy, who), std::memory_order_acq_rel,
              std::memory_order_relaxed),
          0))
    return false;
  // relaxed: a hint, stored while the claim keeps the ring from passing.
  ring_->tail.store(next(position), std::memory_order_relaxed);
  claim = {&cell, position, who};
  return true;
}

template <class T>
[[gnu::always_inline]] inline bool Cells<T>::claim_at_head(Who who,
                                                           Claim& claim) {
  // relaxed: a hint; the cells decide.
  const Position position = ring_->head.load(std::memory_order_relaxed);
  if (__builtin_expect(index_at(position) >= count_, 0)) return false;
  CellState& cell = cells_[index_at(position)];
  waiting::prefetch_to_write(&cell);
  std::uint64_t word = word_at(position, kFull);
  // relaxed: the CAS looks again.
  if (__builtin_expect(cell.word.load(std::memory_order_relaxed) != word, 0))
    return false;
  // SYNC(cell.full): the data is the producer's.
  // KILL: before it nothing has happened; after it taken(dead) is delivered
  // again.
  if (__builtin_expect(
          !cell.word.compare_exchange_strong(
              word, word_at(position, kTaken, who), std::memory_order_acq_rel,
              std::memory_order_relaxed),
          0))
    return false;
  // relaxed: a hint, stored while the claim keeps the ring from passing.
  ring_->head.store(next(position), std::memory_order_relaxed);
  claim = {&cell, position, who};
  return true;
}

template <class T>
[[gnu::always_inline]] inline auto Cells<T>::put_at_once(const T& value,
                                                         Armed& armed)
    -> AtOnce {
  Who me;
  if (__builtin_expect(!domain_->sits(me), 0)) return AtOnce::nothing;
  if (__builtin_expect(is_closed_to_puts(), 0)) return AtOnce::nothing;
  armed = Armed::arm(wait_->word);
  Claim claim;
  if (__builtin_expect(!claim_at_tail(me, claim), 0)) {
    armed.disarm();
    return AtOnce::nothing;
  }
  std::memcpy(claim.cell->data, &value, sizeof value);
  publish(claim);
  asymmetric_fence::light(fenced_);
  // relaxed: ordered by the fence.
  if (__builtin_expect(wait_->word.load(std::memory_order_relaxed) &
                           flag_of(waiting::Side::consumers),
                       0))
    return AtOnce::wake;
  armed.disarm();
  return AtOnce::done;
}

template <class T>
template <class Read>
[[gnu::always_inline]] inline auto Cells<T>::take_at_once(Read&& read,
                                                          Armed& armed)
    -> AtOnce {
  static_assert(std::is_nothrow_invocable_v<Read&, const std::byte*>);
  Who me;
  if (__builtin_expect(!domain_->sits(me), 0)) return AtOnce::nothing;
  // While it closes there is more to do than to take a value.
  if (__builtin_expect(is_closed_to_puts(), 0)) return AtOnce::nothing;
  armed = Armed::arm(wait_->word);
  Claim claim;
  if (__builtin_expect(!claim_at_head(me, claim), 0)) {
    armed.disarm();
    return AtOnce::nothing;
  }
  read(static_cast<const std::byte*>(claim.cell->data));
  commit(claim);
  asymmetric_fence::light(fenced_);
  // relaxed: ordered by the fence. Closed: whoever sleeps since sees it, too.
  if (__builtin_expect(
          (wait_->word.load(std::memory_order_relaxed) &
           flag_of(waiting::Side::producers)) != 0 ||
              ring_->closed.load(std::memory_order_relaxed) != kOpen,
          0))
    return AtOnce::wake;
  armed.disarm();
  return AtOnce::done;
}

template <class T>
[[gnu::noinline]] Status Cells<T>::claim_put(Who who, Claim& claim,
                                             Who& blocker) {
  Position position = ring_->tail.load(std::memory_order_relaxed);
  for (;;) {
    CellState& cell = at(position);
    std::uint64_t word = load(cell);
    // SYNC(cell.empty)
    // KILL: as in claim_at_tail().
    if (word == word_at(position, kEmpty)) {
      if (!cell.word.compare_exchange_strong(
              word, word_at(position, kBusy, who), std::memory_order_acq_rel,
              std::memory_order_relaxed))
        continue;
      // relaxed: a hint, stored while the claim keeps the ring from passing.
      ring_->tail.store(next(position), std::memory_order_relaxed);
      claim = {&cell, position, who};
      return Status::ok;
    }
    const std::int64_t distance = lap_distance(lap_of(word), lap_at(position));
    if (distance == 0) {
      if (is_end(word)) return Status::closed;
      position = next(position);
    } else if (distance > 0) {
      position = jump(position, distance);
    } else {
      // The previous lap has not been released: full, unless its owner is
      // dead, or later ones have been.
      if (is_end(word)) return Status::closed;
      if (is_again(word) && overtaken(position)) {
        // SYNC(cell.full): the data stays; only its turn is another.
        // KILL: before it nothing has happened, after it the item stands in
        // this lap, and the next producer passes it.
        cell.word.compare_exchange_strong(
            word, word_at(position, kFull, kAgain), std::memory_order_acq_rel,
            std::memory_order_relaxed);
        continue;
      }
      if (state_of(word) == kBusy || state_of(word) == kTaken) {
        if (resolve(cell, word)) continue;
        blocker = who_of(word);
      }
      const Position latest = ring_->tail.load(std::memory_order_relaxed);
      if (before(position, latest)) {
        position = latest;  // we were stopped for a while
        blocker = 0;
        continue;
      }
      if (is_item(word)) {
        // An item that was delivered again lies behind head.
        const Position head = ring_->head.load(std::memory_order_relaxed);
        if (before(position - (Position{1} << 32), head) &&
            ring_->orphans.exchange(1, std::memory_order_seq_cst) == 0) {
          asymmetric_fence::light(fenced_);
          waiting::wake(*wait_, waiting::Side::consumers, *domain_);
        }
      }
      return Status::blocked;
    }
  }
}

template <class T>
[[gnu::noinline]] Status Cells<T>::claim_get(Who who, Claim& claim,
                                             Who& blocker) {
  Position position = ring_->head.load(std::memory_order_relaxed);
  for (;;) {
    CellState& cell = at(position);
    std::uint64_t word = load(cell);
    const std::int64_t distance = lap_distance(lap_of(word), lap_at(position));
    if (distance == 0 && is_item(word)) {
      if (discarded()) return Status::closed;
      // SYNC(cell.full)
      // KILL: as in claim_at_head().
      if (!cell.word.compare_exchange_strong(
              word, word_at(position, kTaken, who), std::memory_order_acq_rel,
              std::memory_order_relaxed))
        continue;
      // relaxed: a hint, stored while the claim keeps the ring from passing.
      ring_->head.store(next(position), std::memory_order_relaxed);
      claim = {&cell, position, who};
      return Status::ok;
    }
    if (distance > 0) {
      position = jump_to_unread(position, word, distance);
      continue;
    }
    if (distance < 0) {
      // An item of an older lap, delivered again, sits right here.
      if (!is_item(word) || discarded()) {
        const Position latest = ring_->head.load(std::memory_order_relaxed);
        if (before(position, latest)) {
          position = latest;  // we were stopped for a while
          continue;
        }
        if (discarded()) return Status::closed;
        if (state_of(word) != kTaken || !sealed()) return Status::blocked;
        // All that this ring has held has been claimed, and its end is where a
        // lease still is.
        if (resolve(cell, word)) continue;
        blocker = who_of(word);
        if (!domain_->is_process(blocker)) return Status::blocked;
        // KILL: whoever ends or resolves the claim sees that others have
        // passed, and no put can come in its place unnoticed.
        // SYNC(cell.empty)
        if ((word & kPassed) == 0 &&
            !cell.word.compare_exchange_strong(word, word | kPassed,
                                               std::memory_order_acq_rel,
                                               std::memory_order_relaxed))
          continue;
        return drained(blocker, false);
      }
      const Position found = position_of(word, index_at(position));
      // SYNC(cell.full)
      // KILL: as above.
      if (!cell.word.compare_exchange_strong(word, word_at(found, kTaken, who),
                                             std::memory_order_acq_rel,
                                             std::memory_order_relaxed))
        continue;
      claim = {&cell, found, who};
      return Status::ok;
    }
    if (state_of(word) == kTaken) {
      position = next(position);
      continue;
    }
    if (state_of(word) == kBusy) {
      if (discarded()) return Status::closed;
      if (resolve(cell, word)) continue;
      blocker = who_of(word);
      return Status::blocked;
    }
    // The end marker.
    if (state_of(word) == kFull) return drained(blocker, !sealed());
    if (ring_->closed.load(std::memory_order_relaxed) != kOpen) {
      // seq_cst: against a put that claims this very cell.
      // KILL: the marker stands; everybody reads it the same way.
      cell.word.compare_exchange_strong(
          word, word_at(position, kFull, liveness::kNobody),
          std::memory_order_seq_cst, std::memory_order_relaxed);
      continue;
    }
    return Status::blocked;
  }
}

template <class T>
bool Cells<T>::end_claim(const Claim& claim, std::uint64_t from,
                         std::uint64_t to) {
  domain_->seat();
  const liveness::PassedWake armed(liveness::thread_context.robust,
                                   wait_->word);
  // SYNC(cell.full) SYNC(cell.empty)
  // KILL: before it the claim is resolved by others, after it it is done.
  const bool ended = claim.cell->word.compare_exchange_strong(
      from, to, std::memory_order_acq_rel, std::memory_order_relaxed);
  asymmetric_fence::light(fenced_);
  // A value that was dropped frees its cell and unblocks what lies behind it.
  waiting::wake(*wait_, waiting::Side::consumers, *domain_);
  waiting::wake(*wait_, waiting::Side::producers, *domain_);
  return ended;
}

template <class T>
std::size_t Cells<T>::try_put_many(const T* values, std::size_t wanted,
                                   Status& status, Who& blocker) {
  const Who me = domain_->seat();
  status = Status::closed;
  if (is_closed_to_puts()) return 0;
  const liveness::PassedWake armed(liveness::thread_context.robust,
                                   wait_->word);
  Claim claims[kBatch];
  std::size_t n = 0;
  for (status = Status::ok; n < std::min(wanted, kBatch); ++n)
    if (!claim_at_tail(me, claims[n]) &&
        (status = claim_put(me, claims[n], blocker)) != Status::ok)
      break;
  for (std::size_t i = 0; i < n; ++i) {
    std::memcpy(claims[i].cell->data, &values[i], sizeof(T));
    publish(claims[i]);
  }
  asymmetric_fence::light(fenced_);
  if (n != 0)
    waiting::wake(*wait_, waiting::Side::consumers, *domain_,
                  static_cast<int>(n));
  return n;
}

template <class T>
template <class Read>
std::size_t Cells<T>::try_take_many(std::size_t wanted, Status& status,
                                    Who& blocker, Read&& read) {
  const Who me = domain_->seat();
  const liveness::PassedWake armed(liveness::thread_context.robust,
                                   wait_->word);
  Claim claims[kBatch];
  std::size_t n = 0;
  for (status = Status::ok; n < std::min(wanted, kBatch); ++n) {
    if (!is_closed_to_puts() && claim_at_head(me, claims[n])) continue;
    if ((status = n == 0 ? take_any(me, claims[n], blocker)
                         : claim_get(me, claims[n], blocker)) != Status::ok)
      break;
  }
  for (std::size_t i = 0; i < n; ++i)
    read(i, static_cast<const std::byte*>(claims[i].cell->data));
  for (std::size_t i = 0; i < n; ++i) commit(claims[i]);
  asymmetric_fence::light(fenced_);
  if (n != 0) wake_after_get(static_cast<int>(n));
  return n;
}

}  // namespace shoal::cells
