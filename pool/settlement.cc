#include "shoal/pool/settlement.h"

#include <string.h>

#include <atomic>

#include "shoal/ipc/ticks.h"
#include "shoal/pool/task.h"

namespace shoal::pool::settlement {
namespace {

using task::ClaimState;
using task::Outcome;

// It may have counted the task that it has not completed.
void take_back_count(SlotState& state) {
  const std::uint64_t before = state.counted.load(std::memory_order_relaxed);
  const auto take_back = [](std::atomic<std::uint64_t>& count,
                            std::uint64_t lower_half) {
    const std::uint64_t now = count.load(std::memory_order_relaxed);
    count.store(now - static_cast<std::uint32_t>(now - lower_half),
                std::memory_order_relaxed);
  };
  take_back(state.done, before & 0xFFFFFFFF);
  take_back(state.failed, before >> 32);
}

// The task stays claimed in the place's name, so that nobody else takes it.
bool try_again(PoolState& pool, SlotState& state, task::Handle handle,
               const task::DiedState& died) {
  // relaxed: this process's, and of workers that it forks later.
  const bool before = state.retry.load(std::memory_order_relaxed) == handle + 1;
  const std::uint32_t attempt =
      before ? state.attempt.load(std::memory_order_relaxed) : 0;
  if (attempt >= pool.settings.retries) return false;
  state.attempt.store(attempt + 1, std::memory_order_relaxed);
  state.died_pid = died.pid;
  state.died_exitcode = died.exitcode;
  state.retry.store(handle + 1, std::memory_order_relaxed);
  pool.retried.fetch_add(1, std::memory_order_relaxed);
  return true;
}

}  // namespace

std::uint64_t settle_task(Memory& memory, std::uint32_t slot,
                          const Ended& worker) {
  PoolState& pool = memory.state();
  SlotState& state = memory.slot(slot);
  // relaxed: written by a process that has ended, as what follows.
  const std::uint64_t current = state.current.load(std::memory_order_relaxed);
  if (current == 0) return 0;
  const task::Handle handle = current - 1;
  const std::uint32_t index = task::index_of(handle);
  const std::uint32_t generation = task::generation_of(handle);
  task::TaskState& task = memory.task(index);
  const std::uint64_t claim = task.claim.load(std::memory_order_relaxed);
  const bool doomed =
      claim == task::claim_word(generation, ClaimState::doomed, slot);
  if ((!doomed &&
       claim != task::claim_word(generation, ClaimState::running, slot)) ||
      task.done.load(std::memory_order_relaxed) !=
          task::done_word(generation, Outcome::open))
    return 0;
  take_back_count(state);
  if (doomed) {
    task.result = 0;
    task::complete(task, generation, Outcome::cancelled);
    memory.wake_waiters(index);
    return arena_owner::task(index, generation);
  }
  const task::DiedState died = {worker.pid, worker.exitcode, worker.overdue};
  if (!worker.overdue && try_again(pool, state, handle, died))
    return arena_owner::task(index, generation);
  memcpy(task.inline_result, &died, sizeof died);
  task.result = 0;
  task.result_bytes = sizeof died;
  // Before: who has the result finds it in the numbers.
  pool.died.fetch_add(1, std::memory_order_relaxed);
  if (!task::complete(task, generation, Outcome::died)) {
    pool.died.fetch_sub(1, std::memory_order_relaxed);
    return 0;
  }
  memory.wake_waiters(index);
  return arena_owner::task(index, generation);
}

void end_busy_time(SlotState& state) {
  const auto since = state.busy_since.load(std::memory_order_relaxed);
  if (since == 0) return;
  state.busy.store(state.busy.load(std::memory_order_relaxed) + ticks() - since,
                   std::memory_order_relaxed);
  state.busy_since.store(0, std::memory_order_relaxed);
}

void sweep(Memory& memory, std::uint32_t slot, std::uint64_t unfinished) {
  memory.arena().sweep(arena_owner::process(slot + 1), unfinished);
  memory.domain().retire_all();
  // relaxed: a sweep too many does no harm; one too few cannot be, as what the
  // worker has taken was in no drained ring.
  const PoolState& pool = memory.state();
  const std::uint32_t last = pool.ring.load(std::memory_order_relaxed);
  for (auto i = pool.first_ring.load(std::memory_order_relaxed); i <= last; ++i)
    memory.ring(i).sweep();
}

bool has_retry(Memory& memory, std::uint32_t slot) {
  return memory.is_open(
      memory.slot(slot).retry.load(std::memory_order_relaxed));
}

}  // namespace shoal::pool::settlement
