#pragma once
// The nursery: the process that forks, watches, reaps and replaces a pool's
// workers. It has one thread, so that forking from it is safe whatever the
// owner does, and ends with its owner; its workers end with it.
//
// Death:  a dead worker's task is completed as died, its blocks are freed, its
//         claims in the rings are swept. Killed itself, its workers get
//         SIGKILL from the kernel, and the owner finds its seat dead.

#include <memory>

#include "shoal/ipc/child.h"
#include "shoal/ipc/pidfd.h"
#include "shoal/ipc/process.h"
#include "shoal/pool/pool_state.h"

namespace shoal::pool {

inline constexpr child::Setup kNurserySetup = {.null_stdin = false,
                                               .ignore_sigint = true,
                                               .default_signals = true,
                                               .clear_signal_mask = true};

// In the nursery's process, which ends with the pool; what it has printed is
// written out. `bell` becomes readable when the owner gives a command;
// `initializer`, or nullptr, runs in each worker.
[[noreturn]] void run_nursery(Memory& memory,
                              std::shared_ptr<const Pidfd> owner, int bell,
                              detail::Body* initializer);

}  // namespace shoal::pool
