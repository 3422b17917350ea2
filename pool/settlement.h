#pragma once
// What a worker that has ended leaves in the pool's memory: the task that it
// ran is completed, left to the next worker in its place, or found done; its
// counts, its blocks and its claims are put right.
//
// Sharing:  the nursery's only thread, before the place has another worker.
// Death:    the nursery's ends the pool.

#include <sys/types.h>

#include <cstdint>

#include "shoal/pool/pool_state.h"

namespace shoal::pool::settlement {

struct Ended {
  pid_t pid;
  int exitcode;  // negative: a signal
  bool overdue;  // its task ran too long
};

// Returns the owner's name of the blocks that its task leaves, or 0 when there
// is none, or the result is whole.
std::uint64_t settle_task(Memory& memory, std::uint32_t slot,
                          const Ended& worker);
void end_busy_time(SlotState& state);
// Frees what the worker had allocated, and `unfinished`, as above; delivers
// again what it had taken.
void sweep(Memory& memory, std::uint32_t slot, std::uint64_t unfinished);

// Whether the next worker in this place has the last one's task to run.
bool has_retry(Memory& memory, std::uint32_t slot);

}  // namespace shoal::pool::settlement
