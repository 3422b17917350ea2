#pragma once
// A task's record in shared memory: the ledger that decides what becomes of it.
//
//   claim:  free -submit-> pending or alone -worker-> running(slot)
//           pending, alone -cancel-> cancelled
//           running, cancelled -submit, when done-> pending or alone of a new
//                   generation
//   An alone one is as pending in all but this: it may be claimed ahead, before
//   its handle has come through the ring. No other task was open when it was
//   submitted, so that it overtakes nobody. The handle that comes later finds
//   it claimed, as one does whose first worker was killed.
//   Tasks that are cancelled together or not at all, chunks of a map: whoever
//   has claimed one asks the first of them before it begins, by begin_after().
//           first:  pending, alone -begin_after by another-> joined
//                   joined -worker-> running
//           others, when the first is cancelled:
//                   pending -cancel-> cancelled, running -cancel-> doomed
//           doomed -submit, when done-> as above
//   done:   open -> value | error | died | cancelled | broken    one CAS wins
//
// The first cache line is written by the submitter and then by the claimer,
// the second by whoever completes; a submitter that spins looks at the second
// only.
//
// Death:  a worker killed before the claim has nothing; after it, until done
//         has changed, the nursery completes the task as died.
// Layout: docs/layout.md#task

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "shoal/ipc/arena.h"
#include "shoal/ipc/function.h"

namespace shoal::task {

// What travels through the ring: index | generation << 32.
using Handle = std::uint64_t;
constexpr std::uint32_t index_of(Handle handle) {
  return static_cast<std::uint32_t>(handle);
}
constexpr std::uint32_t generation_of(Handle handle) {
  return static_cast<std::uint32_t>(handle >> 32);
}
constexpr Handle make_handle(std::uint32_t index, std::uint32_t generation) {
  return Handle{generation} << 32 | index;
}

// What stands in the ring. The task's claim word says whose the task is, so
// that several may read the same ticket.
struct Ticket {
  static constexpr bool kMayBeTakenOver = true;
  Handle handle;
};

enum class ClaimState : std::uint8_t {
  free = 0,  // never submitted
  pending = 1,
  running = 2,
  cancelled = 3,
  joined = 4,  // as pending; another one of its map has begun
  doomed = 5,  // as running; not begun, and the first of its map is cancelled
  alone = 6,   // as pending; no other was open when it was submitted
};
constexpr bool is_pending(ClaimState state) {
  return state == ClaimState::pending || state == ClaimState::alone;
}
// TaskState::claim
//   bits 0..7    ClaimState
//   bits 8..23   worker slot, of running and doomed
//   bits 32..63  generation
constexpr std::uint64_t claim_word(std::uint32_t generation, ClaimState state,
                                   std::uint32_t slot = 0) {
  return std::uint64_t{generation} << 32 | std::uint64_t{slot} << 8 |
         static_cast<std::uint64_t>(state);
}
constexpr std::uint32_t claim_generation(std::uint64_t word) {
  return static_cast<std::uint32_t>(word >> 32);
}
constexpr ClaimState claim_state(std::uint64_t word) {
  return static_cast<ClaimState>(word & 0xFF);
}
constexpr std::uint64_t with_state(std::uint64_t word, ClaimState state) {
  return (word & ~std::uint64_t{0xFF}) | static_cast<std::uint64_t>(state);
}

enum class Outcome : std::uint8_t {
  open = 0,
  value = 1,      // result: the encoded value
  error = 2,      // result: an encoded exception
  died = 3,       // result: DiedState
  cancelled = 4,  // no result
  broken = 5,     // no result: the pool can run nothing any more
  no_room = 6,    // no result: not even the error found room
};
// TaskState::done
//   bits 0..7    Outcome
//   bits 32..63  generation
constexpr std::uint64_t done_word(std::uint32_t generation, Outcome outcome) {
  return std::uint64_t{generation} << 32 | static_cast<std::uint64_t>(outcome);
}
constexpr Outcome outcome_of(std::uint64_t word) {
  return static_cast<Outcome>(word & 0xFF);
}

struct DiedState {
  std::int64_t pid;
  std::int64_t exitcode;
  std::uint64_t overdue;  // 1: ended because the task ran too long
};

inline constexpr std::size_t kInlineArguments = 24;
inline constexpr std::size_t kInlineResult = 32;

struct TaskState {
  alignas(64) std::atomic<std::uint64_t> claim;  // submitter, worker, canceller
  FunctionRef thunk;                             // submitter
  BlockRef arguments;                            // submitter; 0: inline
  std::uint64_t arguments_bytes;                 // submitter
  std::byte inline_arguments[kInlineArguments];  // submitter

  alignas(64) std::atomic<std::uint64_t> done;  // whoever completes
  BlockRef result;                              // completer; 0: inline
  std::uint64_t result_bytes;                   // completer
  std::byte inline_result[kInlineResult];       // completer
  std::uint64_t sequence;                       // submitter; counts from 1
};
static_assert(std::is_standard_layout_v<TaskState> && sizeof(TaskState) == 128);
static_assert(offsetof(TaskState, done) == 64);
static_assert(sizeof(DiedState) <= kInlineResult);

inline std::uint32_t generation_of(const TaskState& task) {
  // relaxed: only the owner changes the generation.
  return static_cast<std::uint32_t>(task.done.load(std::memory_order_relaxed) >>
                                    32);
}
inline Outcome outcome_of(const TaskState& task) {
  // SYNC(task.done)
  return outcome_of(task.done.load(std::memory_order_acquire));
}

// By the worker in place `slot`, which expects to find it pending or alone;
// false: somebody was first.
inline bool claim(TaskState& task, std::uint32_t generation, std::uint32_t slot,
                  ClaimState expected = ClaimState::pending) {
  std::uint64_t claim = claim_word(generation, expected);
  do {
    // SYNC(task.claim): the submitter's fields are visible.
    // KILL: running here: the nursery completes the task as died. The cell is
    // delivered again, and whoever takes it finds the task claimed.
    if (task.claim.compare_exchange_strong(
            claim, claim_word(generation, ClaimState::running, slot),
            std::memory_order_acquire, std::memory_order_relaxed))
      return true;
  } while (claim == claim_word(generation, ClaimState::alone) ||
           claim == claim_word(generation, ClaimState::joined));
  return false;
}

// No worker begins the task any more; false: one has, or another of its map
// has, or it was withdrawn.
inline bool withdraw(TaskState& task) {
  // relaxed: the CAS looks again.
  std::uint64_t claim = task.claim.load(std::memory_order_relaxed);
  // SYNC(task.claim): against the worker that takes it, or joins it.
  return __builtin_expect(is_pending(claim_state(claim)), 0) &&
         task.claim.compare_exchange_strong(
             claim, with_state(claim, ClaimState::cancelled),
             std::memory_order_acq_rel, std::memory_order_relaxed);
}

// The same, whatever others of its map do: it is complete, or will be at once.
inline void withdraw_completed(TaskState& task) {
  // relaxed: as above.
  std::uint64_t claim = task.claim.load(std::memory_order_relaxed);
  while (__builtin_expect(is_pending(claim_state(claim)) ||
                              claim_state(claim) == ClaimState::joined,
                          0) &&
         // SYNC(task.claim): as above.
         !task.claim.compare_exchange_weak(
             claim, with_state(claim, ClaimState::cancelled),
             std::memory_order_acq_rel, std::memory_order_relaxed)) {
  }
}

// Of a task whose map's first one was withdrawn: the worker that holds it, or
// will hold it, does not begin it.
enum class Doom {
  no,         // it is complete
  withdrawn,  // no worker has it; the caller completes it
  in_hand,    // its worker completes it, or the nursery
};
inline Doom doom(TaskState& task) {
  // relaxed: the CAS orders.
  std::uint64_t claim = task.claim.load(std::memory_order_relaxed);
  for (;;) {
    const bool pending = is_pending(claim_state(claim));
    if (!pending && claim_state(claim) != ClaimState::running) return Doom::no;
    // SYNC(task.claim): with the worker, in begin_after().
    // KILL: the owner, and with it the pool.
    if (task.claim.compare_exchange_weak(
            claim,
            with_state(claim,
                       pending ? ClaimState::cancelled : ClaimState::doomed),
            std::memory_order_acq_rel, std::memory_order_relaxed))
      return pending ? Doom::withdrawn : Doom::in_hand;
  }
}

// By the worker that has claimed `task`, before it begins: false when the map
// is cancelled. From true on the map cannot be.
inline bool begin_after(TaskState& first, std::uint32_t generation,
                        const TaskState& task) {
  // SYNC(task.claim)
  std::uint64_t claim = first.claim.load(std::memory_order_acquire);
  while (claim == claim_word(generation, ClaimState::pending) ||
         claim == claim_word(generation, ClaimState::alone))
    // KILL: joined: it cannot be cancelled, and is run.
    if (first.claim.compare_exchange_weak(
            claim, claim_word(generation, ClaimState::joined),
            std::memory_order_acq_rel, std::memory_order_acquire))
      return true;
  if (claim == claim_word(generation, ClaimState::cancelled)) return false;
  // If the map was cancelled, and the record is another task's by now, doom()
  // of this task came before that, which the load above has seen.
  return claim_state(task.claim.load(std::memory_order_acquire)) !=
         ClaimState::doomed;
}

// True when `outcome` became the task's; the result fields are written before.
inline bool complete(TaskState& task, std::uint32_t generation,
                     Outcome outcome) {
  std::uint64_t open = done_word(generation, Outcome::open);
  // SYNC(task.done): publishes the result fields. seq_cst: the race closed is
  // complete/look for sleepers against announce/look at the task.
  // KILL: before it the nursery completes the task; after it, it is done, and
  // the nursery wakes who waits.
  return task.done.compare_exchange_strong(open, done_word(generation, outcome),
                                           std::memory_order_seq_cst,
                                           std::memory_order_relaxed);
}

}  // namespace shoal::task
