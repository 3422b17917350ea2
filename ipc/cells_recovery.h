#pragma once
// The rest of Cells<T> (ipc/cells.h): what the dead leave, who is to wake, the
// end, and looks from outside. docs/robustness.md#cells has the table of kill
// windows.

#include <algorithm>
#include <optional>

namespace shoal::cells {

// The oldest item anywhere, for the rare case that one lies behind head.
template <class T>
Status Cells<T>::claim_orphan(Who who, Claim& claim) {
  for (;;) {
    // seq_cst: the race closed is clear/scan against deliver again/set.
    ring_->orphans.store(0, std::memory_order_seq_cst);
    asymmetric_fence::full();
    // What is not behind head is for claim_get, in order.
    // relaxed: a hint.
    const Position head = ring_->head.load(std::memory_order_relaxed);
    bool found = false;
    bool others = false;
    Position oldest = 0;
    std::uint64_t word_of_oldest = 0;
    for (std::uint32_t index = 0; index < count_; ++index) {
      const std::uint64_t word = load(cells_[index]);
      if (!is_item(word)) continue;
      const Position position = position_of(word, index);
      if (!before(position, head)) {
        others = true;
        continue;
      }
      if (found && !before(position, oldest)) continue;
      found = true;
      oldest = position;
      word_of_oldest = word;
    }
    // KILL: cleared with an item left: the passed wake's receiver, a sweep or
    // a producer that meets the item sets it again.
    // relaxed: there may be more behind head, also when a late store of the
    // hint passes one that was delivered again; the next caller looks.
    if (found || others) ring_->orphans.store(1, std::memory_order_relaxed);
    if (!found) return Status::blocked;
    CellState& cell = at(oldest);
    // SYNC(cell.full)
    if (cell.word.compare_exchange_strong(
            word_of_oldest, word_at(oldest, kTaken, who),
            std::memory_order_acq_rel, std::memory_order_relaxed)) {
      claim = {&cell, oldest, who};
      return Status::ok;
    }
  }
}

template <class T>
[[gnu::noinline]] Status Cells<T>::drained(Who& blocker, bool in_hands) {
  if (discarded()) return Status::closed;
  domain_->retire_all();
  sweep();
  for (std::uint32_t index = 0; index < count_; ++index) {
    const std::uint64_t word = load(cells_[index]);
    if (is_item(word)) {
      ring_->orphans.store(1, std::memory_order_seq_cst);
      return Status::blocked;
    }
    if (state_of(word) != kTaken && state_of(word) != kBusy) continue;
    if (resolve(cells_[index], word)) return Status::blocked;
    if (state_of(word) == kTaken && !in_hands) continue;
    blocker = who_of(word);
    return Status::blocked;
  }
  return Status::closed;
}

// The claim in `word` stands in somebody's way. True: its owner was dead, the
// claim is resolved; look again.
template <class T>
[[gnu::noinline]] bool Cells<T>::resolve(CellState& cell, std::uint64_t word) {
  if constexpr (!controls::kSweep) return false;
  if (!domain_->dead(who_of(word))) return false;
  if (state_of(word) == kBusy) {
    // SYNC(cell.empty)
    // KILL: a tombstone; any consumer skips it, the next lap uses it.
    cell.word.compare_exchange_strong(word, make_word(lap_of(word) + 1, kEmpty),
                                      std::memory_order_acq_rel,
                                      std::memory_order_relaxed);
    return true;
  }
  // Before the item is full again, so that it is never full unnoticed.
  ring_->orphans.store(1, std::memory_order_seq_cst);
  // SYNC(cell.full)
  // KILL: full again and announced.
  cell.word.compare_exchange_strong(
      word, make_word(lap_of(word), kFull, kAgain), std::memory_order_acq_rel,
      std::memory_order_relaxed);
  asymmetric_fence::full();
  waiting::wake(*wait_, waiting::Side::consumers, *domain_);
  // Those who can put behind it now.
  waiting::wake(*wait_, waiting::Side::producers, *domain_);
  return true;
}

template <class T>
template <class Read>
[[gnu::noinline]] bool Cells<T>::take_over(Read&& read) requires TakenOver<T> {
  if (closed() == kOpen || discarded()) return false;
  Claim oldest;
  std::uint64_t word_of_oldest = 0;
  for (std::uint32_t index = 0; index < count_; ++index) {
    const std::uint64_t word = load(cells_[index]);
    // What the dead have taken is delivered again.
    if (state_of(word) != kTaken || domain_->dead(who_of(word))) continue;
    const Position position = position_of(word, index);
    if (oldest.cell != nullptr && !before(position, oldest.position)) continue;
    oldest = {&cells_[index], position, who_of(word)};
    word_of_oldest = word;
  }
  if (oldest.cell == nullptr) return false;
  // No put comes into the cell while it is taken. Should its owner be done with
  // it meanwhile, a late put may write there: this reads the same value once
  // more, or another one, or a mixture, and the owner's claim of what the value
  // names is as good as this one's.
  read(static_cast<const std::byte*>(oldest.cell->data));
  // KILL: before it the value is taken still, and taken over by another.
  end_claim(oldest, word_of_oldest, word_after(oldest.position));
  return true;
}

// The item that stands in the way of a put at `position` was delivered again,
// and what came after it has been consumed: there is room behind it. In a ring
// that is full in truth the next cell is an item that nobody has taken yet.
template <class T>
bool Cells<T>::overtaken(Position position) const {
  for (std::uint32_t n = count_; n != 0; --n) {
    const std::uint64_t word = load(at(position));
    if (!is_again(word)) {
      const auto distance = lap_distance(lap_of(word), lap_at(position));
      return distance > 0 || (distance == 0 && !is_end(word));
    }
    position = next(position);
  }
  return false;
}

template <class T>
template <class Announce>
[[gnu::noinline]] void Cells<T>::sweep_all(Announce&& announce) {
  if constexpr (!controls::kSweep) return;
  const std::uint64_t deaths = domain_->deaths();
  bool freed = false;
  bool again = false;
  const Position head = ring_->head.load(std::memory_order_relaxed);
  Position lowest = head;
  for (std::uint32_t index = 0; index < count_; ++index) {
    CellState& cell = cells_[index];
    std::uint64_t word = load(cell);
    const Position position = position_of(word, index);
    if (is_item(word)) {
      // Some helper may have been killed between its CAS and its announcement.
      if (!before(position, head)) continue;
    } else {
      if (state_of(word) != kBusy && state_of(word) != kTaken) continue;
      if (!domain_->dead(who_of(word))) continue;
      if (state_of(word) == kBusy) {
        resolve(cell, word);
        freed = true;
        continue;
      }
      resolve(cell, word);
    }
    ring_->orphans.store(1, std::memory_order_seq_cst);
    again = true;
    if (before(position, lowest)) lowest = position;
  }
  if (again && before(lowest, head)) {
    Position expected = head;
    // relaxed: a hint; fails when somebody has moved it.
    ring_->head.compare_exchange_strong(expected, lowest,
                                        std::memory_order_relaxed);
  }
  announce();
  // SYNC(ring.swept)
  // KILL: not stored: the next one sweeps again.
  ring_->swept.store(deaths, std::memory_order_release);
  asymmetric_fence::full();
  // An item that is delivered again may be passed by producers, too.
  if (freed || again) {
    waiting::wake(*wait_, waiting::Side::producers, *domain_, futex::kAll);
    waiting::wake(*wait_, waiting::Side::consumers, *domain_, futex::kAll);
  }
}

template <class T>
void Cells<T>::pass_baton(bool in_vain) {
  // relaxed: whoever sets a flag looks for itself afterwards.
  const std::uint32_t sleepers = wait_->word.load(std::memory_order_relaxed);
  if (sleepers == 0) return;
  if (closed() != kOpen) {
    // Consumers go on waiting for what is in other hands.
    if (discarded() || !anything_left())
      waiting::wake_everyone(*wait_, *domain_);
    else
      waiting::wake(*wait_, waiting::Side::producers, *domain_, futex::kAll);
  }
  const int count = in_vain ? futex::kAll : 1;
  if ((sleepers & flag_of(waiting::Side::consumers)) != 0 && can_get())
    waiting::wake_sleepers(*wait_, waiting::Side::consumers, *domain_, count);
  if ((sleepers & flag_of(waiting::Side::producers)) != 0 && can_put())
    waiting::wake_sleepers(*wait_, waiting::Side::producers, *domain_, count);
}

template <class T>
Who Cells<T>::holder_behind(waiting::Side side) const {
  if (side == waiting::Side::producers ||
      // SYNC(ring.leased)
      ring_->leased.load(std::memory_order_acquire) == 0)
    return 0;
  for (std::uint32_t index = 0; index < count_; ++index) {
    const std::uint64_t word = load(cells_[index]);
    if (state_of(word) == kTaken && domain_->is_process(who_of(word)))
      return who_of(word);
  }
  return 0;
}

// An item, or a claim that may become one.
template <class T>
bool Cells<T>::anything_left() const {
  for (std::uint32_t index = 0; index < count_; ++index) {
    const std::uint64_t word = load(cells_[index]);
    if (state_of(word) != kEmpty && !is_end(word)) return true;
  }
  return false;
}

template <class T>
Who Cells<T>::putter() const {
  for (std::uint32_t index = 0; index < count_; ++index) {
    const std::uint64_t word = load(cells_[index]);
    if (state_of(word) == kBusy) return who_of(word);
  }
  return 0;
}

template <class T>
bool Cells<T>::can_get() const {
  if (ring_->orphans.load(std::memory_order_relaxed) != 0) {
    const Position head = ring_->head.load(std::memory_order_relaxed);
    for (std::uint32_t index = 0; index < count_; ++index) {
      const std::uint64_t word = load(cells_[index]);
      if (is_item(word) && before(position_of(word, index), head)) return true;
    }
  }
  const Position position = true_head();
  const std::uint64_t word = load(at(position));
  return is_item(word) ||
         (state_of(word) == kBusy && domain_->dead(who_of(word)));
}

template <class T>
bool Cells<T>::at_end() const {
  if (closed() == kOpen) return false;
  const Position position = true_head();
  const std::uint64_t word = load(at(position));
  return is_end(word) || word == word_at(position, kEmpty) ||
         (state_of(word) == kTaken && domain_->is_process(who_of(word)));
}

template <class T>
bool Cells<T>::has_item() const {
  for (std::uint32_t index = 0; index < count_; ++index)
    if (is_item(load(cells_[index]))) return true;
  return false;
}

template <class T>
template <class Visit, class Keep>
void Cells<T>::visit_items(Visit&& visit, Keep&& keep) const {
  for (std::uint32_t index = 0; index < count_; ++index) {
    const CellState& cell = cells_[index];
    std::uint64_t word = load(cell);
    while (is_item(word) || state_of(word) == kTaken) {
      visit(static_cast<const std::byte*>(cell.data));
      asymmetric_fence::full();
      const std::uint64_t after = load(cell);
      if (after == word) {
        keep();
        break;
      }
      word = after;
    }
  }
}

template <class T>
bool Cells<T>::can_put() const {
  const Position position = true_tail();
  const std::uint64_t word = load(at(position));
  return takes_put(position, word) ||
         ((state_of(word) == kBusy || state_of(word) == kTaken) &&
          domain_->dead(who_of(word)));
}

template <class T>
void Cells<T>::wake_all() {
  domain_->seat();
  const liveness::PassedWake armed(liveness::thread_context.robust,
                                   wait_->word);
  asymmetric_fence::heavy(domain_->barrier_mode());
  waiting::wake_everyone(*wait_, *domain_);
}

template <class T>
void Cells<T>::close(std::uint32_t how) {
  std::optional<liveness::PassedWake> armed;
  if (robust_list_head* const robust = liveness::find_robust_list())
    armed.emplace(robust, wait_->word);
  mark_closed(how);
  asymmetric_fence::heavy(domain_->barrier_mode());
  waiting::wake_everyone(*wait_, *domain_);
}

template <class T>
void Cells<T>::mark_closed(std::uint32_t how) {
  std::uint32_t before = kOpen;
  // SYNC(ring.closed): never back from discarded to draining.
  // KILL: closed; whoever the kernel wakes wakes the others.
  while (before < how && !ring_->closed.compare_exchange_weak(
                             before, how, std::memory_order_acq_rel,
                             std::memory_order_relaxed)) {
  }
}

// The first position that no producer has claimed.
template <class T>
Position Cells<T>::true_tail() const {
  Position position = ring_->tail.load(std::memory_order_relaxed);
  for (std::uint64_t n = 2 * std::uint64_t{count_}; n != 0; --n) {
    const std::uint64_t word = load(at(position));
    const std::int64_t distance = lap_distance(lap_of(word), lap_at(position));
    if (distance < 0 || word == word_at(position, kEmpty) || is_end(word))
      break;
    position = distance > 0 ? jump(position, distance) : next(position);
  }
  return position;
}

// The first position that no consumer has claimed.
template <class T>
Position Cells<T>::true_head() const {
  Position position = ring_->head.load(std::memory_order_relaxed);
  for (std::uint64_t n = 2 * std::uint64_t{count_}; n != 0; --n) {
    const std::uint64_t word = load(at(position));
    const std::int64_t distance = lap_distance(lap_of(word), lap_at(position));
    if (distance < 0 || (distance == 0 && state_of(word) != kTaken)) break;
    position = distance > 0 ? jump_to_unread(position, word, distance)
                            : next(position);
  }
  return position;
}

template <class T>
std::size_t Cells<T>::size() const {
  if (closed() == kDiscarded) return 0;
  std::size_t items = 0;
  if (ring_->orphans.load(std::memory_order_relaxed) != 0) {
    for (std::uint32_t index = 0; index < count_; ++index)
      items += is_item(load(cells_[index]));
    return items;
  }
  Position position = ring_->head.load(std::memory_order_relaxed);
  for (std::uint64_t n = 2 * std::uint64_t{count_}; n != 0; --n) {
    const std::uint64_t word = load(at(position));
    const std::int64_t distance = lap_distance(lap_of(word), lap_at(position));
    if (distance < 0 || word == word_at(position, kEmpty) || is_end(word))
      break;
    if (distance == 0) items += is_item(word);
    position = distance > 0 ? jump_to_unread(position, word, distance)
                            : next(position);
  }
  // A walk that others overtake may count two laps.
  return std::min<std::size_t>(items, count_);
}

template <class T>
bool Cells<T>::full() const {
  const Position tail = true_tail();
  const std::uint64_t word = load(at(tail));
  return !takes_put(tail, word) && !is_end(word);
}

template <class T>
void Cells<T>::throw_corrupt(std::uint32_t index) const {
  throw Corrupt("shoal: a ring of " + std::to_string(count_) +
                " cells names cell " + std::to_string(index));
}

}  // namespace shoal::cells
