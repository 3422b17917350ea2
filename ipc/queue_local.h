#pragma once
// What a process keeps for a queue, whatever handles it has: views of the
// rings, of the payloads and of the ledger, and where they lie.

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "shoal/ipc/bell.h"
#include "shoal/ipc/cells.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/keeper.h"
#include "shoal/ipc/ledger.h"
#include "shoal/ipc/object.h"
#include "shoal/ipc/parcel.h"
#include "shoal/ipc/payload_store.h"
#include "shoal/ipc/rings.h"

namespace shoal {

// What put does when the queue is full.
enum class OnFull { block, drop_oldest, fail };

struct QueueOptions {
  std::size_t maxsize = 0;                       // 0: grows up to max_bytes
  std::size_t max_bytes = std::size_t{1} << 30;  // payloads, and cells if grown
  OnFull on_full = OnFull::block;
};

// HeaderState::options of a queue.
enum QueueOption { kMaxsize, kMaxBytes, kOnFull, kJoinable };

// payload: RingState and cells | RingsState | StoreState | LedgerState
// tail:    further rings | payloads
struct QueueLayout {
  cells::RingsPlan rings;
  std::size_t state = 0;
  std::size_t store = 0;
  std::size_t ledger = 0;
  std::size_t payload_bytes = 0;
  std::size_t store_in_tail = 0;
  std::size_t tail_bytes = 0;

  template <class Ring>
  static QueueLayout of(std::uint64_t maxsize, std::uint64_t max_bytes,
                        bool boxed, bool joinable) {
    constexpr std::uint64_t kCell = sizeof(typename Ring::CellState);
    const auto round = [](std::size_t n) { return (n + 63) / 64 * 64; };
    QueueLayout layout;
    layout.rings =
        maxsize != 0
            ? cells::RingsPlan::bounded(Ring::kFirst, kCell,
                                        static_cast<std::uint32_t>(maxsize))
            : cells::RingsPlan::growing(Ring::kFirst, kCell, max_bytes);
    layout.state = round(layout.rings.bytes(0));
    layout.store = layout.state + sizeof(cells::RingsState);
    layout.ledger = layout.store + (boxed ? sizeof(payload::StoreState) : 0);
    layout.payload_bytes = layout.ledger + (joinable ? sizeof(LedgerState) : 0);
    layout.store_in_tail = layout.rings.tail_bytes();
    layout.tail_bytes =
        layout.store_in_tail + (boxed ? payload::tail_bytes(max_bytes) : 0);
    return layout;
  }
};

template <class C, bool kBoxed>
class QueueLocal final : public Object::Local {
 public:
  using Rings = cells::Rings<C>;
  using Ring = typename Rings::Ring;
  using Who = liveness::Who;

  static QueueLocal& of(Object& object) {
    return static_cast<QueueLocal&>(object.local([&object] {
      return std::unique_ptr<Object::Local>(new QueueLocal(object));
    }));
  }

  std::uint64_t maxsize() const { return maxsize_; }
  std::uint64_t max_bytes() const { return max_bytes_; }
  OnFull on_full() const { return on_full_; }
  Rings& rings() { return *rings_; }
  payload::Store& store() { return *store_; }
  Ledger* ledger() { return ledger_ ? &*ledger_ : nullptr; }
  // Where they sleep; nullptr: nobody can.
  waiting::WaitState* joiners() {
    return ledger_ ? &ledger_->wait_state() : nullptr;
  }
  // The calling thread's seat, before it has a block in hands.
  Who carrier() {
    const Who me = domain().seat();
    if constexpr (kBoxed) {
      // relaxed: of this thread only.
      const auto& known = introduced_[liveness::index_of(me)];
      if (__builtin_expect(known.load(std::memory_order_relaxed) !=
                               liveness::generation_of(me),
                           0))
        introduce(me);
    }
    return me;
  }
  // This process, about to take, as the ledger knows it; 0: there is none.
  Who taker() {
    if (!ledger_) return 0;
    const Who process = domain().process_seat();
    ledger_->enrol(process);
    return process;
  }
  // Bytes that payloads may take at this moment, and ever.
  std::uint64_t payload_limit() const {
    if (maxsize_ != 0) return max_bytes_;
    return max_bytes_ - std::min(max_bytes_, rings_->cell_bytes());
  }
  std::uint64_t most_payload() const {
    return maxsize_ != 0
               ? max_bytes_
               : max_bytes_ - std::min(max_bytes_, rings_->plan().bytes(0));
  }

  // ---- what waiting needs (waiting::until) ----

  waiting::WaitState& wait_state() const { return rings_->wait_state(); }
  liveness::Domain& domain() const { return rings_->domain(); }
  waiting::SpinBudget& spin() const { return rings_->spin(); }
  void pass_baton(bool in_vain) { rings_->pass_baton(in_vain); }
  Who holder_behind(waiting::Side side) { return rings_->holder_behind(side); }
  bool looks_ready(waiting::Side side) { return rings_->looks_ready(side); }
  void sweep() {
    rings_->sweep();
    if constexpr (kBoxed) sweep_payloads();
  }
  bool refresh() {
    const bool again = rings_->refresh();
    if constexpr (kBoxed) sweep_payloads();
    return again;
  }
  // Never no when a get would succeed or throw ShutDown.
  bool looks_readable() {
    return rings_->readable() || (refresh() && rings_->readable());
  }
  // The descriptor that is readable while the queue is; made at the first call
  // in each process.
  int descriptor();
  // After something was taken.
  void look() noexcept { bell_.look(); }
  void settle() {
    rings_->settle();
    if constexpr (kBoxed) sweep_payloads();
  }
  // Of what is put, until shutdown(true) discards it.
  const keeper::Container& as_container() const { return container_; }

 private:
  explicit QueueLocal(Object& object);
  void introduce(Who me);
  void sweep_payloads();
  std::unique_ptr<Bell> make_bell();

  std::uint64_t maxsize_;
  std::uint64_t max_bytes_;
  OnFull on_full_;
  keeper::Container container_;
  std::optional<payload::Store> store_;
  std::optional<Rings> rings_;
  std::optional<Ledger> ledger_;
  // Generations of the seats whose death wakes who waits for room; each by the
  // thread that sits there.
  std::array<std::atomic<std::uint32_t>, kBoxed ? liveness::kSeats : 0>
      introduced_{};
  BellOnDemand bell_;
};

// Producers that wait for room for a payload; an object for waiting::until.
template <class Local>
class Room {
 public:
  explicit Room(Local& local) : local_(local), seen_(local.store().used()) {}

  waiting::WaitState& wait_state() const { return local_.store().wait_state(); }
  liveness::Domain& domain() const { return local_.domain(); }
  waiting::SpinBudget& spin() const { return local_.spin(); }
  void sweep() { local_.sweep(); }
  // What changed since this one looked may be enough for another.
  void pass_baton(bool) {
    const std::uint64_t used = local_.store().used();
    if (used == seen_) return;
    seen_ = used;
    waiting::wake(wait_state(), waiting::Side::producers, domain(),
                  futex::kAll);
  }
  liveness::Who holder_behind(waiting::Side) const { return 0; }
  bool looks_ready(waiting::Side) const {
    return local_.store().used() < local_.payload_limit();
  }

 private:
  Local& local_;
  std::uint64_t seen_;
};

template <class C, bool kBoxed>
QueueLocal<C, kBoxed>::QueueLocal(Object& object)
    : maxsize_(object.header().options[kMaxsize]),
      max_bytes_(object.header().options[kMaxBytes]),
      on_full_(static_cast<OnFull>(object.header().options[kOnFull])) {
  const bool joinable = object.header().options[kJoinable] != 0;
  const bool sane = maxsize_ < std::numeric_limits<std::uint32_t>::max() &&
                    object.header().options[kOnFull] <= 2;
  QueueLayout layout;
  if (sane)
    layout = QueueLayout::of<Ring>(maxsize_, max_bytes_, kBoxed, joinable);
  if (!sane || layout.payload_bytes != object.header().payload_bytes ||
      segment::round_to_page(layout.tail_bytes) != object.tail_bytes())
    throw Corrupt(object.name() + ": its maxsize (" + std::to_string(maxsize_) +
                  ") does not fit its size; " + "unlink it");
  auto* const start = static_cast<std::byte*>(object.payload());
  const std::atomic<std::uint64_t>* used = nullptr;
  if constexpr (kBoxed) {
    auto& state = *reinterpret_cast<payload::StoreState*>(start + layout.store);
    store_.emplace(state, object, layout.store_in_tail, max_bytes_);
    used = &state.used;
  }
  rings_.emplace(Ring(*reinterpret_cast<cells::RingState*>(start),
                      static_cast<std::uint32_t>(layout.rings.first),
                      object.domain(), object.spin),
                 *reinterpret_cast<cells::RingsState*>(start + layout.state),
                 object, layout.rings, max_bytes_, used);
  const auto discarded = [](std::uint64_t offset, std::uint64_t bits) {
    return keeper::Passed{.offset = offset, .mask = bits, .least = bits};
  };
  constexpr std::uint64_t kClosed = offsetof(cells::RingState, closed);
  static_assert(kClosed % 8 == 4);  // the upper half of a word
  container_ = {
      .descriptor = object.descriptor(),
      .id = object.header().id,
      .passed =
          rings_->grows()
              ? discarded(layout.state + offsetof(cells::RingsState, rings),
                          cells::kDiscards)
              : discarded(kClosed - 4, std::uint64_t{cells::kDiscarded} << 32)};
  if constexpr (kBoxed)
    if (rings_->grows()) store_->wake_also(rings_->wait_state());
  if (joinable)
    ledger_.emplace(*reinterpret_cast<LedgerState*>(start + layout.ledger),
                    object.domain());
}

template <class C, bool kBoxed>
std::unique_ptr<Bell> QueueLocal<C, kBoxed>::make_bell() {
  return std::make_unique<Bell>(Bell::Source{
      .ready = [this] { return looks_readable(); },
      .sleep =
          [this](const std::atomic<bool>& stop) {
            waiting::until(*this, waiting::Side::consumers, forever, [&](Who&) {
              // SYNC(bell.stop)
              return stop.load(std::memory_order_seq_cst) || looks_readable()
                         ? waiting::Status::ok
                         : waiting::Status::blocked;
            });
          },
      .wake = [this] { rings_->wake_all(); }});
}

template <class C, bool kBoxed>
int QueueLocal<C, kBoxed>::descriptor() {
  return bell_.descriptor([this] { return make_bell(); });
}

// A block that is in hands is in no cell, so that the wake which the kernel
// passes on to who waits for cells does not free it. From here on the kernel
// wakes at this thread's death, too, and who waits for room watches it.
template <class C, bool kBoxed>
[[gnu::noinline]] void QueueLocal<C, kBoxed>::introduce(Who me) {
  std::uint32_t alive;
  domain().life_word(me, alive);
  asymmetric_fence::light(domain().needs_fence());
  waiting::wake(store_->wait_state(), waiting::Side::producers, domain(),
                futex::kAll);
  introduced_[liveness::index_of(me)].store(liveness::generation_of(me),
                                            std::memory_order_relaxed);
}

// Blocks that the dead had in hands. First the blocks, then the cells: what a
// cell gives up meanwhile has a living owner.
template <class C, bool kBoxed>
[[gnu::noinline]] void QueueLocal<C, kBoxed>::sweep_payloads() {
  if (!controls::kSweep || !store_->must_sweep()) return;
  const std::uint64_t deaths = domain().deaths();
  const auto orphans = store_->orphans();
  if (!orphans.empty()) {
    std::vector<payload::BlockRef> referred;
    rings_->each([&](Ring& ring, std::uint32_t) {
      payload::Parcel parcel;
      ring.visit_items(
          [&](const std::byte* data) {
            std::memcpy(&parcel, data, sizeof parcel);
          },
          [&] {
            if (parcel.bytes > payload::Parcel::kInside)
              referred.push_back(parcel.block);
          });
    });
    std::sort(referred.begin(), referred.end());
    store_->release_orphans(orphans, referred);
  }
  store_->note_swept(deaths);
}

}  // namespace shoal
