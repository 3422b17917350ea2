#pragma once
// spawn: this program started anew, in a process of its own that runs an Entry
// in place of main.
//
//   auto started = spawn::start(introduction, {entry, bytes, {}});
//
// It has the environment, directory, arguments, stdout, stderr and signal mask
// of the calling thread, what is ignored is ignored, stdin is /dev/null; of the
// descriptors those without FD_CLOEXEC. None of this process's memory: its
// addresses are others, its static initialisers run again. Costs the same
// however large this process is, and whatever its other threads hold.
//
// Sharing: any thread. Not in a static initialiser of a process that was
//          itself started so (std::logic_error): that would never end.
// Death:   the kernel gives the pidfd together with the process. If it ends
//          before it accepts what it is handed: WorkerDied, nothing has run.

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "shoal/ipc/child.h"
#include "shoal/ipc/descriptor.h"
#include "shoal/ipc/handover.h"
#include "shoal/ipc/pidfd.h"

namespace shoal::spawn {

struct Started {
  child::Started child;
  Descriptor channel;
  std::vector<Descriptor> reply;  // what it accepted with
};

// Returns when the process has accepted. Throws what it refused with,
// WorkerDied, std::logic_error, and std::system_error with the introduction's
// name; then there is no process.
Started start(const handover::Introduction& introduction,
              const handover::Parcel& parcel);

// Throws std::logic_error in a static initialiser of a process that was started
// anew, Error where it cannot be done at all.
void require_possible();

// The error for a process that did not come to what it was to do. `exitcode`
// as of Pidfd::reap.
[[noreturn]] void throw_ended(const std::string& name, pid_t pid, int exitcode);

}  // namespace shoal::spawn
