#pragma once
// The keeper's own side (keeper.h): what the process does that exec() made.

#include <cstdint>
#include <span>

#include "shoal/ipc/liveness.h"

namespace shoal::keeper {

// argv[0] of a process that is to become a keeper; then the number of its
// domain's descriptor, the domain's id, its own number.
inline constexpr char kProgramName[] = "shoal.keeper";
inline constexpr int kArguments = 4;

// Before any other code of its program (takeover.cc).
[[noreturn]] void serve(char** argv) noexcept;

// Implemented by connection.cc where a program has connections.
[[gnu::weak]] void close_end(std::span<const int> descriptors,
                             std::uint64_t domain, int end) noexcept;
// Of a Pipe whose segment that is: nobody will receive from the end whose owner
// stands at `receiver`. `domain`: of the seat there, or nullptr when unknown.
[[gnu::weak]] bool no_receiver(int descriptor, std::uint64_t receiver,
                               const liveness::Domain* domain) noexcept;

}  // namespace shoal::keeper
