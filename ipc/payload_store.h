#pragma once
// PayloadStore: the bytes of messages that are too long for their cell, in
// blocks of which each names its owner.
//
//   BlockRef block = store.allocate(bytes, me, limit);   // 0: no room now
//   write(store.data(block, bytes));
//   ... a cell carries `block` to a consumer, who calls hold(block, me)
//   store.release(block);
//
// A block's owner is the seat of the thread that has it in hands, or had when
// it put it into a cell: what a cell refers to belongs to that cell.
//
//   free -allocate-> of the producer -hold, by who has taken the cell-> of the
//   consumer -release-> free
//   of a dead thread, and no cell refers to it -sweep-> free
//
// A block is one of 2^8, 2^9 ... bytes. Its control word lies apart from its
// bytes; both get pages when they are first needed, and keep them. A process
// maps the control words at once, and of the bytes what it meets.
//
// Sharing:  any thread of any process that holds the queue.
// Death:    each step is one store or CAS on the owner's word. A word that
//           names a dead thread never comes again, so that a sweep that was
//           overtaken changes nothing. `used` may be off by what the dead had
//           in hands until it is counted again.
// Cost:     two CASes to allocate, two to release; a death costs a look at
//           every block.
// Layout:   docs/layout.md#queue

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <type_traits>
#include <vector>

#include "shoal/ipc/liveness.h"
#include "shoal/ipc/object.h"
#include "shoal/ipc/waiting.h"

namespace shoal::payload {

using liveness::Who;

inline constexpr unsigned kSmallest = 8;  // log2 of the smallest block
inline constexpr unsigned kMostClasses = 37;

// class + 1 << 40 | index; 0: none.
using BlockRef = std::uint64_t;

struct StoreState {
  struct alignas(64) Class {
    std::atomic<std::uint64_t> extents;  // that have pages; grows; producers
    std::atomic<std::uint64_t> freed;    // hint: index + 1; whoever releases
    std::atomic<std::uint64_t> next;     // hint; producers
  };
  alignas(64) std::atomic<std::uint64_t> used;  // bytes, as far as known
  std::atomic<std::uint64_t> counted;  // domain deaths at the last count
  std::atomic<std::uint64_t> swept;    // domain deaths at the last sweep
  waiting::WaitState wait;             // producers that wait for bytes
  std::array<Class, kMostClasses> classes;
};
static_assert(std::is_standard_layout_v<StoreState>);
static_assert(offsetof(StoreState, wait) == 24);
static_assert(offsetof(StoreState, classes) == 64);

struct BlockState {
  std::atomic<std::uint64_t> owner;   // 0: free; else a thread's seat
  std::atomic<std::uint64_t> bytes;   // of what is in it; the owner
  std::atomic<std::uint64_t> backed;  // bytes with pages, if large; the owner
};
static_assert(std::is_standard_layout_v<BlockState> &&
              sizeof(BlockState) == 24);

// Bytes of the tail for blocks of `most_bytes` in all.
std::size_t tail_bytes(std::uint64_t most_bytes);

// A process-local view.
class Store {
 public:
  // In object.tail(), from `offset` on.
  Store(StoreState& state, const Object& object, std::size_t offset,
        std::uint64_t most_bytes);
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;
  ~Store();

  // At least `bytes`, `owner`'s; 0 while more than `limit` would be in use.
  // Throws NoSpace, std::system_error.
  BlockRef allocate(std::size_t bytes, Who owner, std::uint64_t limit);
  // Between claim and commit of the cell that refers to it. False: there is no
  // such block.
  bool hold(BlockRef block, Who owner) noexcept;
  // By its owner; wakes who waits for room.
  void release(BlockRef block);
  // Throws Corrupt when `bytes` do not fit, std::system_error.
  std::byte* data(BlockRef block, std::size_t bytes);

  // ---- recovery ----

  struct Orphan {
    BlockRef block;
    Who owner;
  };
  bool must_sweep() const {
    // SYNC(store.swept)
    return state_.swept.load(std::memory_order_acquire) != domain_.deaths();
  }
  // Blocks of dead owners, for a look at the cells that comes after it.
  std::vector<Orphan> orphans() const;
  // Frees those that are not among `referred`, which is sorted.
  void release_orphans(std::span<const Orphan> orphans,
                       std::span<const BlockRef> referred);
  void note_swept(std::uint64_t deaths) {
    // SYNC(store.swept)
    // KILL: not stored: the next one sweeps again.
    state_.swept.store(deaths, std::memory_order_release);
  }

  // Of producers that sleep elsewhere, and whom room for a payload lets go on.
  void wake_also(waiting::WaitState& producers) { also_ = &producers; }

  const StoreState& state() const { return state_; }
  waiting::WaitState& wait_state() const { return state_.wait; }
  std::uint64_t used() const {
    // relaxed: a snapshot.
    return state_.used.load(std::memory_order_relaxed);
  }
  // Counted, for tests.
  std::size_t blocks_in_use() const;

 private:
  static constexpr unsigned kMostExtents = 32;
  // Blocks up to 64 KiB get their pages by extents, larger ones each its own.
  static constexpr unsigned kSmallClasses = 17 - kSmallest;

  struct Class {
    std::uint64_t first = 0;  // blocks of the first extent; the others double
    std::uint64_t count = 0;
    unsigned extents = 0;
    std::size_t control_offset = 0;
    std::size_t data_offset = 0;
    BlockState* blocks = nullptr;
    std::array<std::atomic<std::shared_ptr<void>*>, kMostExtents> mapped{};
  };

  std::uint64_t with_pages(unsigned c) const;
  BlockState* find(BlockRef block);
  bool account(std::uint64_t bytes, std::uint64_t limit);
  void discount(std::uint64_t bytes);
  bool recount();
  bool take(unsigned c, Who owner, std::uint64_t& index);
  bool claim(unsigned c, std::uint64_t index, Who owner);
  bool add_extent(unsigned c);
  void back(unsigned c, std::uint64_t index, std::size_t bytes);
  void reserve(std::size_t offset, std::size_t bytes);
  bool discard(std::size_t offset, std::size_t bytes);
  std::size_t trim();
  void let_go(unsigned c, std::uint64_t index);
  void wake_producers();
  std::byte* address(unsigned c, std::uint64_t index);

  StoreState& state_;
  waiting::WaitState* also_ = nullptr;
  const Object& object_;
  liveness::Domain& domain_;
  const bool fenced_;
  unsigned class_count_;
  std::shared_ptr<void> control_;
  std::array<Class, kMostClasses> classes_;
};

}  // namespace shoal::payload
