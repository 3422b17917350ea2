#pragma once
// What a pool shares with its nursery and workers: one mapping, made before
// the first of them is forked and never enlarged; its parts get pages as they
// are needed.
//
//   PoolState | slots | rings, each twice the last | task records | arena

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "shoal/ipc/arena.h"
#include "shoal/ipc/cells.h"
#include "shoal/ipc/keeper.h"
#include "shoal/ipc/segment.h"
#include "shoal/pool/task.h"

namespace shoal::pool {

enum class Command : std::uint32_t { run = 0, close = 1, terminate = 2 };
enum class Start : std::uint32_t { waiting = 0, done = 1, failed = 2 };

struct SlotState {
  alignas(64) std::atomic<std::uint32_t> pid;  // nursery; 0: no process now
  std::atomic<std::uint32_t> ready;    // the worker: it has reached its loop
  std::atomic<std::uint32_t> drained;  // the worker: it ends, all is done
  // Handle + 1 of the task that the worker has claimed or is about to; worker.
  std::atomic<std::uint64_t> current;
};

struct PoolState {
  std::uint32_t workers;
  std::atomic<Command> command;        // the owner
  futex::Word start;                   // Start; nursery
  std::atomic<std::uint32_t> error;    // errno of a failed start; nursery
  std::atomic<std::uint32_t> broken;   // nursery: gives up
  std::atomic<std::uint64_t> nursery;  // its seat; nursery
  // One flag for each residue of a task's index modulo 32: somebody sleeps for
  // such a task. Set by waiters, cleared by completers.
  alignas(64) futex::Word sleepers;
  // Somebody waits for a task together with other things: completers ring the
  // domain's bell, too. Set by those, cleared by the ringer.
  std::atomic<std::uint32_t> bells;
  alignas(64) std::atomic<std::uint32_t> ring;  // the one in use; the owner
  alignas(64) ArenaState arena;
};
static_assert(std::is_standard_layout_v<PoolState>);

inline constexpr std::uint32_t kMaxWorkers = 1000;
inline constexpr std::uint32_t kRings = 13;
inline constexpr std::uint32_t kFirstRing = 4096;  // handles
inline constexpr std::uint32_t kMaxTasks = kFirstRing << (kRings - 1);

using Ring = cells::Cells<task::Handle>;

// A process's view of the mapping.
class Memory {
 public:
  Memory(std::uint32_t workers, liveness::DomainUse domain);

  liveness::Domain& domain() const { return *domain_; }

  PoolState& state() const { return *state_; }
  SlotState& slot(std::uint32_t index) const { return slots_[index]; }
  Ring& ring(std::uint32_t index) { return rings_[index]; }
  Arena& arena() const { return *arena_; }
  // For handles that are in flight in tasks and results.
  keeper::Container container() const { return {file_->descriptor(), id_}; }
  // Only indices below kMaxTasks; a Handle from a ring is checked with this.
  task::TaskState& task(std::uint32_t index) const {
    if (__builtin_expect(index >= kMaxTasks, 0)) throw_no_task(index);
    return tasks_[index];
  }
  // Pages for ring `index`, or for the records [first, last). Throws NoSpace.
  void populate_ring(std::uint32_t index);
  void populate_tasks(std::uint32_t first, std::uint32_t last);

  // After a completion: wakes who waits for task `index`.
  void wake_waiters(std::uint32_t index) {
    const std::uint32_t bit = bit_of(index);
    // seq_cst: the race closed is complete/look against announce/look.
    if (__builtin_expect(state_->sleepers.load(std::memory_order_seq_cst) & bit,
                         0))
      wake_bits(bit);
  }
  void wake_bits(std::uint32_t bits);
  // The next completion of task `index` rings the domain's bell.
  void announce(std::uint32_t index);
  static std::uint32_t bit_of(std::uint32_t index) { return 1u << index % 32; }

 private:
  [[noreturn]] static void throw_no_task(std::uint32_t index);
  std::size_t ring_offset(std::uint32_t index) const;
  std::byte* at(std::size_t offset) const {
    return static_cast<std::byte*>(mapping_.get()) + offset;
  }

  liveness::DomainUse domain_;
  std::shared_ptr<const segment::File> file_;
  std::uint64_t id_ = segment::random_id();
  std::shared_ptr<void> mapping_;
  std::size_t rings_offset_;
  std::size_t tasks_offset_;
  PoolState* state_;
  SlotState* slots_;
  task::TaskState* tasks_;
  waiting::SpinBudget spin_;
  std::vector<Ring> rings_;
  std::unique_ptr<Arena> arena_;
};

}  // namespace shoal::pool
