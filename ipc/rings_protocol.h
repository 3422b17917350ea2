#pragma once
// The steps of Rings<C> (ipc/rings.h).

#include <algorithm>

namespace shoal::cells {

template <class C>
auto Rings<C>::map(std::uint32_t ring, bool reserve) -> Ring& {
  auto memory = object_.tail(
      plan_.offset(ring), segment::round_to_page(plan_.bytes(ring)), reserve);
  auto* state = static_cast<RingState*>(memory.get());
  std::unique_ptr<Later> made(new Later{
      std::move(memory),
      Ring(*state, static_cast<std::uint32_t>(plan_.count(ring)),
           first_.domain(), first_.spin(), ring, &first_.wait_state())});
  Later* known = nullptr;
  // SYNC(rings.mapped): another thread may be faster.
  if (!later_[ring].compare_exchange_strong(known, made.get(),
                                            std::memory_order_acq_rel))
    return known->ring;
  return made.release()->ring;
}

template <class C>
template <class F>
Status Rings<C>::put(F&& f) {
  if (!grows()) return f(first_);
  for (;;) {
    const std::uint64_t word = count_word();
    if ((word & kShut) != 0) {
      finish_closing(word);
      return Status::closed;
    }
    const Status status = f(at(last(word)));
    if (status == Status::ok) return status;
    if (count_word() != word) continue;
    if (status != Status::blocked || !grow(word)) return status;
  }
}

template <class C>
bool Rings<C>::can_grow(std::uint64_t word) const {
  const std::uint32_t next = last(word) + 1;
  if (next >= plan_.most || (word & kShut) != 0) return false;
  // relaxed: a limit.
  const std::uint64_t used =
      used_ == nullptr ? 0 : used_->load(std::memory_order_relaxed);
  const std::uint64_t cells = plan_.bytes_up_to(next);
  return cells <= most_bytes_ && used <= most_bytes_ - cells;
}

// False: it is as large as it may become. No claim is open meanwhile.
template <class C>
bool Rings<C>::grow(std::uint64_t word) {
  if (!can_grow(word)) return false;
  const std::uint32_t full = last(word);
  // Zeros are an empty ring; any number may do this at once.
  map(full + 1, true);
  // SYNC(rings.count): it has pages.
  // KILL: a ring more, and the last one unsealed: whoever meets it seals it.
  if (state_.rings.compare_exchange_strong(
          word, word + 1, std::memory_order_acq_rel, std::memory_order_relaxed))
    at(full).mark_closed(kSealed);
  return true;
}

template <class C>
template <class F>
Status Rings<C>::get(Who& blocker, F&& f) {
  if (!grows()) return f(first_);
  for (;;) {
    // SYNC(rings.reading): what came back before it went back is visible.
    const std::uint64_t reading =
        state_.reading.load(std::memory_order_acquire);
    const std::uint32_t k = ring_in(reading);
    const std::uint32_t known = last(count_word());
    if (k > known) throw_corrupt(k);
    Ring& ring = at(k);
    const Status status = f(ring);
    if (status == Status::ok) return status;
    const bool was_open = ring.closed() == kOpen;
    const std::uint64_t word = count_word();
    if ((word & kShut) != 0) finish_closing(word);
    if ((word & kDiscards) != 0) return Status::closed;
    if (k < last(word)) {
      if (status == Status::closed) {
        pass(reading);
      } else if (was_open) {
        ring.mark_closed(kSealed);  // its grower has died, or is about to
      } else {
        return status;  // a put is not complete
      }
    } else if (status == Status::closed) {
      if (!held_elsewhere(k, blocker)) return status;
      if (blocker != 0) return Status::blocked;
    } else if ((word & kShut) == 0 || !was_open) {
      return status;
    }
  }
}

template <class C>
bool Rings<C>::pass(std::uint64_t reading) {
  // SYNC(rings.reading): fails when something came back, or others passed.
  return state_.reading.compare_exchange_strong(reading, reading + 1,
                                                std::memory_order_acq_rel,
                                                std::memory_order_relaxed);
}

template <class C>
void Rings<C>::look_again(std::uint32_t ring) {
  // relaxed: the CAS looks again.
  std::uint64_t reading = state_.reading.load(std::memory_order_relaxed);
  std::uint64_t back;
  do {
    back = ((reading >> 8) + 1) << 8 | std::min(ring, ring_in(reading));
    // SYNC(rings.reading): what came back is visible to whoever sees it.
    // KILL: before it the value is hidden, until the sweep after our death.
  } while (!state_.reading.compare_exchange_weak(
      reading, back, std::memory_order_acq_rel, std::memory_order_relaxed));
}

// After the end of the last ring: true when an older one still has a value, or
// one in the hands of `blocker`.
template <class C>
bool Rings<C>::held_elsewhere(std::uint32_t end, Who& blocker) {
  for (std::uint32_t k = 0; k < end; ++k) {
    blocker = 0;
    if (at(k).drained(blocker, true) == Status::closed) continue;
    if (at(k).has_item()) {
      blocker = 0;
      look_again(k);
    }
    return true;
  }
  return false;
}

template <class C>
void Rings<C>::close(std::uint32_t how) {
  if (!grows()) return first_.close(how);
  domain().seat();
  const liveness::PassedWake armed(liveness::thread_context.robust,
                                   wait_state().word);
  const std::uint64_t bits = how == kDiscarded ? kShut | kDiscards : kShut;
  // SYNC(rings.count): no ring is added from here on.
  // KILL: whoever looks for a ring next completes it.
  finish_closing(state_.rings.fetch_or(bits, std::memory_order_acq_rel) | bits);
  wake_all();
}

template <class C>
void Rings<C>::finish_closing(std::uint64_t word) {
  const std::uint32_t end = last(word);
  const bool discards = (word & kDiscards) != 0;
  for (std::uint32_t k = 0; k <= end; ++k)
    at(k).mark_closed(discards ? kDiscarded : k < end ? kSealed : kDraining);
}

template <class C>
std::uint32_t Rings<C>::closed() const {
  if (!grows()) return first_.closed();
  const std::uint64_t word = count_word();
  return (word & kDiscards) != 0 ? kDiscarded
         : (word & kShut) != 0   ? kDraining
                                 : kOpen;
}

template <class C>
void Rings<C>::sweep(bool suspicion) {
  if (!grows()) {
    if (suspicion || first_.must_sweep()) first_.sweep_all();
    return;
  }
  each([&](Ring& ring, std::uint32_t k) {
    if (suspicion || ring.must_sweep())
      ring.sweep_all([&] {
        if (ring.has_item()) look_again(k);
      });
  });
}

template <class C>
bool Rings<C>::refresh() {
  if (!grows()) return first_.refresh();
  const bool suspicion = current(waiting::Side::consumers).suspects_death();
  bool any = suspicion;
  each([&](Ring& ring, std::uint32_t) { any = any || ring.must_sweep(); });
  if (any) sweep(suspicion);
  return any;
}

template <class C>
bool Rings<C>::can_get() {
  const std::uint32_t end = last(count_word());
  for (std::uint32_t k = reading(); k <= end; ++k) {
    if (at(k).can_get()) return true;
    if (k < end && at(k).closed() == kOpen) continue;
    if (!at(k).at_end()) return false;
  }
  return false;
}

template <class C>
void Rings<C>::pass_baton(bool in_vain) {
  if (!grows()) return first_.pass_baton(in_vain);
  // relaxed: whoever sets a flag looks for itself afterwards.
  const std::uint32_t sleepers =
      wait_state().word.load(std::memory_order_relaxed);
  if (sleepers == 0) return;
  if (closed() != kOpen) {
    bool left = false;
    each([&](Ring& ring, std::uint32_t) {
      left = left || ring.anything_left();
    });
    // Consumers go on waiting for what is in other hands.
    if (closed() == kDiscarded || !left)
      waiting::wake_everyone(wait_state(), domain());
    else
      waiting::wake(wait_state(), waiting::Side::producers, domain(),
                    futex::kAll);
  }
  const int count = in_vain ? futex::kAll : 1;
  if ((sleepers & flag_of(waiting::Side::consumers)) != 0 && can_get())
    waiting::wake_sleepers(wait_state(), waiting::Side::consumers, domain(),
                           count);
  if ((sleepers & flag_of(waiting::Side::producers)) != 0 && can_put())
    waiting::wake_sleepers(wait_state(), waiting::Side::producers, domain(),
                           count);
}

template <class C>
Who Rings<C>::holder_behind(waiting::Side side) {
  Who holder = 0;
  each([&](Ring& ring, std::uint32_t) {
    if (holder == 0) holder = ring.holder_behind(side);
  });
  return holder;
}

template <class C>
std::size_t Rings<C>::size() {
  if (closed() == kDiscarded) return 0;
  std::size_t items = 0;
  each([&](Ring& ring, std::uint32_t) { items += ring.size(); });
  return items;
}

template <class C>
bool Rings<C>::full() {
  if (!grows()) return first_.full();
  return !can_grow(count_word()) && current(waiting::Side::producers).full();
}

}  // namespace shoal::cells
