#pragma once
// takeover: this program, started anew by shoal, does not come to main.
//
//   takeover::wrapped()          // can this program be started anew?
//   takeover::started_anew()     // and was it?
//
// Our __libc_start_main stands before the C library's and gives it, in a
// process that spawn.h has started, another function than main: all static
// initialisers have run by then, which a constructor of ours could not say of
// itself. The mark of such a process is a variable of its environment, which
// is gone before any code of the program runs, and names two descriptors.
//
// Death: of the starter: the process ends before it runs anything.
// Limits: the C library is to be a shared one. Linked into a library that is
//         loaded when main already runs, it does nothing: wrapped() is false.

#include "shoal/ipc/handover.h"

namespace shoal::takeover {

// "<name>=<channel>,<pidfd of the starter>"
inline constexpr char kVariable[] = "SHOAL_STARTED_ANEW";

bool wrapped();
bool started_anew();
// In one that was started anew: main would begin later.
bool in_static_initialisers();

// What such a process is handed, and where by it takes it; received at the
// first call. Ends the process if its starter has ended.
handover::Arrival& arrival();

}  // namespace shoal::takeover
