#pragma once
// Rings<C>: the rings of a queue, one that is bounded or several that grow.
//
//   Rings<int> rings(first, state, object, plan, payload_bytes);
//   rings.put([&](auto& ring) { return ring.try_put(7, blocker); });
//   rings.get(blocker, [&](auto& ring) { return ring.try_get(value, blocker);
//   });
//
// A producer that finds the last ring full gives pages to the next one, counts
// it, and seals the full one: that ring is closed for puts, and consumers who
// have drained it set its end marker and pass to the next. Rings are never
// freed before the object, and never used again once they are passed: there
// are at most 31 of them, since each is twice as large as the one before.
//
//   grow:  pages -> rings + 1 -> seal the last one
//   pass:  read `reading`, meet the end of that ring with nothing in it but
//          what live processes hold -> reading + 1, unless it has changed
//   again: a value came back in a ring that was passed -> `reading` goes back
//
// Ordering: a producer never puts into an older ring than before, and
//           consumers pass a ring when all that was claimed before its end has
//           been taken: first in, first out for each producer.
// Death:    killed after rings + 1: whoever meets the ring before the last one
//           unsealed seals it. A sweep lets `reading` go back before it says
//           that it is done, so that the next one repeats it.
// Layout:   docs/layout.md#queue

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "shoal/ipc/cells.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/object.h"
#include "shoal/ipc/rings_state.h"
#include "shoal/ipc/waiting.h"

namespace shoal::cells {

template <class C>
class Rings {
 public:
  using Ring = Cells<C>;

  // `used` counts what is to stay below `most_bytes` together with the cells;
  // nullptr: nothing else.
  Rings(const Ring& first, RingsState& state, const Object& object,
        const RingsPlan& plan, std::uint64_t most_bytes,
        const std::atomic<std::uint64_t>* used)
      : first_(first),
        state_(state),
        object_(object),
        plan_(plan),
        most_bytes_(most_bytes),
        used_(used) {}
  Rings(const Rings&) = delete;
  Rings& operator=(const Rings&) = delete;
  ~Rings() {
    // relaxed: nobody uses it any more.
    for (auto& ring : later_) delete ring.load(std::memory_order_relaxed);
  }

  bool grows() const { return plan_.most > 1; }
  const RingsPlan& plan() const { return plan_; }
  RingsState& state() const { return state_; }
  Ring& first() { return first_; }

  // f(Ring&) -> Status is one attempt. Both may throw NoSpace,
  // std::system_error: of growth, or of this process's mapping of a ring.
  template <class F>
  Status put(F&& f);
  template <class F>
  Status get(Who& blocker, F&& f);
  // One who has given a claim on an older ring back.
  void look_again(std::uint32_t ring);

  // Of the cells alone, at this moment.
  std::uint64_t cell_bytes() const {
    return plan_.bytes_up_to(grows() ? last(count_word()) : 0);
  }

  // ---- what waiting needs (waiting::until) ----

  waiting::WaitState& wait_state() const { return first_.wait_state(); }
  liveness::Domain& domain() const { return first_.domain(); }
  waiting::SpinBudget& spin() const { return first_.spin(); }
  void sweep() { sweep(false); }
  void pass_baton(bool in_vain);
  Who holder_behind(waiting::Side side);
  bool looks_ready(waiting::Side side) {
    return current(side).looks_ready(side);
  }
  bool refresh();
  // The ring that the side looks at first.
  Ring& current(waiting::Side side) {
    if (!grows()) return first_;
    return at(side == waiting::Side::producers ? last(count_word())
                                               : reading());
  }
  void wake_all() { first_.wake_all(); }

  // ---- all of them ----

  void close(std::uint32_t how);
  std::uint32_t closed() const;
  // Before a snapshot.
  void settle() {
    domain().retire_all();
    sweep();
  }
  std::size_t size();
  bool full();
  // An attempt to get would not find it empty and open.
  bool readable() { return closed() != kOpen || can_get(); }
  template <class F>
  void each(F&& f) {
    const std::uint32_t end = grows() ? last(count_word()) : 0;
    for (std::uint32_t k = 0; k <= end; ++k) f(at(k), k);
  }

 private:
  struct Later {
    std::shared_ptr<void> memory;
    Ring ring;
  };

  std::uint64_t count_word() const {
    // SYNC(rings.count)
    return state_.rings.load(std::memory_order_acquire);
  }
  std::uint32_t last(std::uint64_t word) const {
    if (ring_in(word) >= plan_.most) throw_corrupt(ring_in(word));
    return ring_in(word);
  }
  std::uint32_t reading() const {
    // relaxed: a hint here.
    const std::uint32_t ring =
        ring_in(state_.reading.load(std::memory_order_relaxed));
    if (ring > last(count_word())) throw_corrupt(ring);
    return ring;
  }
  Ring& at(std::uint32_t ring) {
    if (ring == 0) return first_;
    // SYNC(rings.mapped)
    Later* later = later_[ring].load(std::memory_order_acquire);
    return __builtin_expect(later != nullptr, 1) ? later->ring
                                                 : map(ring, false);
  }
  Ring& map(std::uint32_t ring, bool reserve);
  [[noreturn]] void throw_corrupt(std::uint32_t ring) const {
    throw Corrupt(object_.name() + ": names ring " + std::to_string(ring) +
                  " of " + std::to_string(plan_.most));
  }

  bool can_grow(std::uint64_t word) const;
  bool grow(std::uint64_t word);
  bool pass(std::uint64_t reading);
  void finish_closing(std::uint64_t word);
  bool held_elsewhere(std::uint32_t end, Who& blocker);
  void sweep(bool suspicion);
  bool can_get();
  bool can_put() {
    return current(waiting::Side::producers).can_put() ||
           can_grow(count_word());
  }

  Ring first_;
  RingsState& state_;
  const Object& object_;
  const RingsPlan plan_;
  const std::uint64_t most_bytes_;
  const std::atomic<std::uint64_t>* used_;
  std::array<std::atomic<Later*>, RingsPlan::kMostRings> later_{};
};

}  // namespace shoal::cells

#include "shoal/ipc/rings_protocol.h"
