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
#include "shoal/ipc/futex.h"
#include "shoal/ipc/keeper.h"
#include "shoal/ipc/segment.h"
#include "shoal/pool/task.h"

namespace shoal::pool {

enum class Command : std::uint32_t { run = 0, close = 1, terminate = 2 };
enum class Start : std::uint32_t { waiting = 0, over = 1 };
// Why a worker ends by itself.
enum class Leaving : std::uint32_t {
  no = 0,
  drained = 1,  // no task will come
  worn = 2,     // it has run as many as it may
  refused = 3,  // the initializer has thrown
};
// Why a pool can run nothing any more.
enum class Broken : std::uint32_t {
  no = 0,
  hopeless = 1,     // workers die, or cannot be forked, before their first task
  initializer = 2,  // `problem`: what it has thrown
  death = 3,        // of a worker; `died_pid`, `died_exitcode`
};

// A worker's place. The worker writes the first line but for `pid`, the nursery
// the second, the owner `cpu` before it starts.
struct SlotState {
  alignas(64) futex::Word pid;       // nursery; 0: no process is admitted now
  std::atomic<std::uint32_t> ready;  // it has reached its loop
  std::atomic<Leaving> leaving;
  std::uint32_t unused;
  // Handle + 1 of the task that the worker has claimed or is about to.
  std::atomic<std::uint64_t> current;
  // Tasks that ended with a value, and with an error, in this place.
  std::atomic<std::uint64_t> done;
  std::atomic<std::uint64_t> failed;
  std::atomic<std::uint64_t>
      counted;  // counted_word() when `current` was taken
  // Ticks in which it was not idle, until `busy_since`; 0: it is.
  std::atomic<std::uint64_t> busy;
  std::atomic<std::uint64_t> busy_since;

  // Handle + 1 of the task that the next worker begins with, and how often that
  // was begun before.
  alignas(64) std::atomic<std::uint64_t> retry;
  std::atomic<std::uint32_t> attempt;
  std::int32_t cpu;                 // the owner; -1: any
  std::atomic<std::int64_t> begun;  // worker; when `current` was, if limited
  BlockRef problem;                 // worker, before it is `refused`
  std::uint64_t problem_bytes;
  // Who began the task of `retry` last, and how it ended; the nursery.
  std::int64_t died_pid;
  std::int64_t died_exitcode;
};
static_assert(std::is_standard_layout_v<SlotState> && sizeof(SlotState) == 128);

// The lower halves of both.
constexpr std::uint64_t counted_word(std::uint64_t done, std::uint64_t failed) {
  return failed << 32 | (done & 0xFFFFFFFF);
}

// The owner, before the nursery starts.
struct Settings {
  std::uint32_t workers;
  std::uint32_t ignores_sigint;
  std::uint64_t tasks_a_worker;  // 0: no limit
  std::uint64_t retries;         // of a task whose worker has died
  std::uint64_t breaks;          // a death breaks the pool
  std::int64_t task_deadline;    // ns; 0: none
};

struct PoolState {
  Settings settings;
  std::atomic<Command> command;      // the owner
  futex::Word start;                 // Start; nursery
  std::atomic<std::uint32_t> error;  // errno of the last refused fork; nursery
  std::atomic<Broken> broken;        // nursery: gives up
  std::atomic<std::uint64_t> nursery;  // its seat; nursery
  // All of them the nursery's, before `broken`.
  BlockRef problem;
  std::uint64_t problem_bytes;
  std::int64_t died_pid;
  std::int64_t died_exitcode;
  // Counted by the nursery.
  std::atomic<std::uint64_t> died;  // tasks
  std::atomic<std::uint64_t> retried;
  std::atomic<std::uint64_t> replaced;
  // One flag for each residue of a task's index modulo 32: somebody sleeps for
  // such a task. Set by waiters, cleared by completers.
  alignas(64) futex::Word sleepers;
  waiting::Turns turns;                         // beside `sleepers`
  alignas(64) std::atomic<std::uint32_t> ring;  // the one in use; the owner
  // Those before it are closed and drained; it only grows; workers.
  std::atomic<std::uint32_t> first_ring;
  alignas(64) ArenaState arena;
};
static_assert(std::is_standard_layout_v<PoolState>);

inline constexpr std::uint32_t kMaxWorkers = 1000;
inline constexpr std::uint32_t kRings = 17;
inline constexpr std::uint32_t kFirstRing = 256;  // handles
inline constexpr std::uint32_t kMaxTasks = kFirstRing << (kRings - 1);

using Ring = cells::Cells<task::Ticket>;

// A process's view of the mapping.
class Memory {
 public:
  // Its state as zeroed but for the settings. Throws NoSpace,
  // std::system_error.
  Memory(const Settings& settings, liveness::DomainUse domain);
  // That of another process. Throws std::system_error.
  Memory(segment::File file, std::uint64_t id, liveness::DomainUse domain);

  liveness::Domain& domain() const { return *domain_; }
  std::uint64_t id() const { return id_; }

  PoolState& state() const { return *state_; }
  SlotState& slot(std::uint32_t index) const { return slots_[index]; }
  Ring& ring(std::uint32_t index) { return rings_[index]; }
  Arena& arena() const { return *arena_; }
  // For handles that are in flight in tasks and results.
  keeper::Container container() const { return {file_->descriptor(), id_}; }
  // The same, of those that go when the task's `done` is `word` or later.
  keeper::Container container_until(std::uint32_t index,
                                    std::uint64_t word) const {
    keeper::Container container = this->container();
    container.passed = {.offset = places_.tasks +
                                  index * sizeof(task::TaskState) +
                                  offsetof(task::TaskState, done),
                        .mask = ~std::uint64_t{0},
                        .least = word};
    return container;
  }
  // Only indices below kMaxTasks; a Handle from a ring is checked with this.
  task::TaskState& task(std::uint32_t index) const {
    if (__builtin_expect(index >= kMaxTasks, 0)) throw_no_task(index);
    return tasks_[index];
  }
  // Of a task that is named as SlotState::current names it: whether it is one,
  // and not done. A guess, unless nobody can complete it.
  bool is_open(std::uint64_t named) const {
    if (named == 0 || task::index_of(named - 1) >= kMaxTasks) return false;
    // relaxed: as above.
    return tasks_[task::index_of(named - 1)].done.load(
               std::memory_order_relaxed) ==
           task::done_word(task::generation_of(named - 1), task::Outcome::open);
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
  // Where the parts begin, in bytes.
  struct Places {
    Places(std::uint32_t workers, std::size_t region_bytes);
    std::size_t ring(std::uint32_t index) const;

    std::size_t slots, rings, tasks, arena, end;
  };

  [[noreturn]] static void throw_no_task(std::uint32_t index);
  void find_parts();
  std::byte* at(std::size_t offset) const {
    return static_cast<std::byte*>(mapping_.get()) + offset;
  }

  liveness::DomainUse domain_;
  std::shared_ptr<const segment::File> file_;
  std::uint64_t id_;
  std::shared_ptr<void> mapping_;
  Places places_;
  PoolState* state_;
  SlotState* slots_;
  task::TaskState* tasks_;
  waiting::SpinBudget spin_;
  std::vector<Ring> rings_;
  std::unique_ptr<Arena> arena_;
};

}  // namespace shoal::pool
