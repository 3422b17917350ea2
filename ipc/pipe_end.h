#pragma once
// One end of a Pipe in the process that owns it: who it belongs to, what lies
// ready, and how to wait for that. Connection (ipc/connection.h) is its face.
//
// The owner of an end is a process seat in one shared word, which every change
// of hands replaces by CAS, so that the other end knows whose death to look
// for. A process that has forked must claim its ends anew at their next use,
// and so must the child, for which one CAS decides; see ipc/bequest.h.
//
// Sharing:  one thread sends and one receives at a time; close() by any.
// Ordering: what happened before a message was sent is visible to whoever
//           receives it.
// Death:    of the owner: the other end sees what was sent, then that it died.
//           Between a CAS and the wake of the other end: the kernel wakes one,
//           or its life word does; within a second in any case.
// Layout:   docs/layout.md#pipe

#include <sched.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

#include "shoal/ipc/asymmetric_fence.h"
#include "shoal/ipc/bell.h"
#include "shoal/ipc/bequest.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/fork_mutex.h"
#include "shoal/ipc/keeper.h"
#include "shoal/ipc/liveness.h"
#include "shoal/ipc/object.h"
#include "shoal/ipc/ring.h"
#include "shoal/ipc/side_blocks.h"
#include "shoal/ipc/timeout.h"
#include "shoal/ipc/type_table.h"
#include "shoal/ipc/waiting.h"

namespace shoal::pipe_end {

// How a Pipe's object is divided; kept in its header's options.
struct Plan {
  std::uint64_t capacity;  // of a ring; a power of two
  bool duplex;
  std::uint64_t span;  // of a side block

  // Throws std::invalid_argument, NoSpace.
  static Plan make(bool duplex, std::size_t capacity);
  // Throws Corrupt.
  static Plan read(const Object& object);

  Spec spec() const;
  bool has(unsigned direction) const { return duplex || direction == 1; }
  std::size_t ring_start(unsigned direction) const {
    return duplex ? direction * capacity : 0;
  }
  std::size_t types_start(unsigned direction) const {
    return (duplex ? 2 : 1) * capacity + direction * TypeTable::kBytes;
  }
  std::size_t blocks_start(unsigned direction) const {
    return types_start(2) + direction * ring::kBlocks * span;
  }
  std::size_t tail_bytes() const { return blocks_start(2); }
};

// What a type was found to be the last time.
struct KnownType {
  const void* tag = nullptr;
  std::uint32_t number = 0;
};

template <class Ring>
struct Direction {
  Direction(const Object& object, PipeState& state, unsigned direction,
            const Plan& plan, std::shared_ptr<void> mapped)
      : memory(std::move(mapped)),
        wait(state.wait[direction]),
        ring(state.rings[direction], static_cast<std::byte*>(memory.get()),
             plan.capacity),
        blocks(object, state.rings[direction], plan.blocks_start(direction),
               plan.span),
        types(object, state.rings[direction], plan.types_start(direction)) {}

  // A message has come that was waited for.
  void begin_run() {
    run_ends = ring.position() + waiting::SpinBudget::kWorthwhileRun *
                                     ring::frame_bytes_of(ring.raw_header());
  }
  // Before waiting for the next one, when it ended a run.
  void let_come_together() {
    const bool run = ring.position() >= run_ends;
    run_ends = ~std::uint64_t{0};
    for (int n = spin.pauses_after(waiting::Side::consumers, run,
                                   ring.capacity() / kBytesAValue);
         n > 0; --n)
      waiting::pause();
  }

  std::shared_ptr<void> memory;
  waiting::WaitState& wait;
  Ring ring;
  std::uint64_t run_ends = ~std::uint64_t{0};
  static constexpr std::uint64_t kBytesAValue = 32;
  // A call is in progress, or a Frame or View is there. By the one thread.
  std::atomic<bool> busy{false};
  KnownType known;
  SideBlocks blocks;
  TypeTable types;
  waiting::SpinBudget spin;
};
using Outgoing = Direction<ring::Writer>;
using Incoming = Direction<ring::Reader>;

class End final : public bequest::Item,
                  public std::enable_shared_from_this<End> {
 public:
  // Both ends of a new Pipe.
  static std::array<std::shared_ptr<End>, 2> make(const Plan& plan);
  // One that is on its way (see send_away), for the calling process. Throws
  // Closed when another has it, or nobody can.
  static std::shared_ptr<End> adopt(std::shared_ptr<Object> object,
                                    unsigned index);
  // Whoever adopts it is the owner; until then it lives as long as `carrier`,
  // a seat of the Pipe's domain, or for kNobody in any case. This process has
  // closed it. Throws Closed, std::logic_error.
  void send_away(Who carrier);
  // It was not sent, and is this process's again, unless somebody has it.
  void take_back() noexcept;

  ~End() override;

  const std::shared_ptr<Object>& object() const { return object_; }
  // Of what is sent next: as long as the other end may receive it.
  keeper::Container as_container() const;
  unsigned index() const { return index_; }
  Outgoing* out() { return out_ ? &*out_ : nullptr; }
  Incoming* in() { return in_ ? &*in_ : nullptr; }
  liveness::Domain& domain() const { return *domain_; }
  bool fenced() const { return fenced_; }

  // For a call in one direction. False: claim() has more to do.
  [[gnu::always_inline]] bool is_mine_at_once() const {
    Who who;
    return epoch_.load(std::memory_order_relaxed) == bequest::epoch() &&
           domain_->sits(who);
  }
  // Throws Closed, and std::logic_error when it belongs to another process.
  void claim();
  bool closed() const {
    // relaxed: a caller that must see it is woken after it was stored.
    return closed_.load(std::memory_order_relaxed);
  }
  void close() noexcept;
  bool is_this_process_s() const noexcept;

  // bequest::Item
  void receive() noexcept override;
  void was_given(bool received) noexcept override;
  // It goes to a child; see bequest::Parcel.
  void give_away() noexcept;

  // ---- the other end ----

  enum class Peer { there, closed, died };
  // `blocker` gets the seat whose death changes the answer.
  Peer peer(Who& blocker);
  // Cheaper: false when it may be gone.
  bool peer_is_there() const {
    // relaxed: what it sent is ordered by the frames.
    return other().load(std::memory_order_relaxed) == peer_owner_ &&
           peer_life_->load(std::memory_order_relaxed) == peer_alive_;
  }
  // The same, as far as a call to the kernel can tell; remembers the answer.
  bool find_peer();

  // ---- waiting ----

  // Waits for a message as long as spinning is cheaper than anything else.
  bool frame_comes_soon(Timeout timeout) noexcept;
  // Throws Closed, EndOfFile, PeerDied, TimeoutError.
  ring::Header await_frame(Timeout timeout);
  // Whether recv() would not wait: a message, or the end of the file.
  bool poll(Timeout timeout);
  // Throws Closed, BrokenPipe, TimeoutError.
  void await_room(std::uint64_t bytes, Timeout timeout);
  unsigned await_block(Timeout timeout);
  // More than `done` of a message's `bytes` in that block. Throws Closed,
  // PeerDied, TimeoutError.
  std::uint64_t await_progress(unsigned block, std::uint64_t done,
                               std::uint64_t bytes, Timeout timeout);

  // shoal::wait(): for a message or the end. Throw Closed, std::logic_error.
  bool ready_to_wait_for();
  void announce_wait();
  void pass_on_wait();
  liveness::Domain& domain_to_wait_in() { return *domain_; }
  Who blocker_to_wait_for();

  // Readable while recv() would not wait. Throws std::system_error.
  int descriptor();
  // After something was received: it may have ceased to be.
  void look() noexcept { bell_.look(); }

  [[noreturn]] void throw_closed() const;

 private:
  End(std::shared_ptr<Object> object, unsigned index, const Plan& plan,
      std::array<std::shared_ptr<void>, 2> rings, std::uint64_t owner);

  std::atomic<std::uint64_t>& mine() const { return state_.owner[index_]; }
  std::atomic<std::uint64_t>& other() const { return state_.owner[1 - index_]; }
  // By a call, a Frame or a View. relaxed: of this thread, or of the process
  // that forked this one, as it was then.
  bool in_use() const {
    return (out_ && out_->busy.load(std::memory_order_relaxed)) ||
           (in_ && in_->busy.load(std::memory_order_relaxed));
  }
  // The word is what this process knows, and becomes that.
  bool replace(std::uint64_t next) noexcept;
  void wake_all(bool also_mine) noexcept;
  template <class D, class Attempt, class BeforeSleep>
  waiting::Status wait(D& direction, waiting::Side side, Timeout timeout,
                       Attempt&& attempt, BeforeSleep&& before_sleep);
  template <class D, class Attempt>
  waiting::Status wait(D& direction, waiting::Side side, Timeout timeout,
                       Attempt&& attempt) {
    return wait(direction, side, timeout, attempt, [] { return 0; });
  }
  [[noreturn]] void throw_gone(Peer how) const;
  [[noreturn]] void throw_timeout(const char* what) const;

  const std::shared_ptr<Object> object_;
  PipeState& state_;
  const unsigned index_;
  liveness::Domain* const domain_;
  const bool fenced_;
  // As of the last claim: kNoEpoch when closed. Changed under mutex_.
  std::atomic<std::uint64_t> epoch_;
  std::atomic<bool> closed_{false};
  // Of the peer, when it was last looked for. By the sending thread.
  std::uint64_t peer_owner_ = ~std::uint64_t{0};
  const futex::Word* peer_life_;
  std::uint32_t peer_alive_ = 0;

  // Ready, by words that any thread may read.
  bool looks_readable();
  bool is_anothers();
  std::unique_ptr<Bell> make_bell();

  std::optional<Outgoing> out_;
  std::optional<Incoming> in_;

  ForkMutex mutex_;      // of what follows
  std::uint64_t owner_;  // the word when this process last wrote it
  std::uint64_t depth_;  // the process that did

  BellOnDemand bell_;
};

}  // namespace shoal::pipe_end
