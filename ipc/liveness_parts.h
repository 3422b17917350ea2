#pragma once
// What the files of liveness share, and nobody else uses.

#include <cstddef>
#include <cstdint>

namespace shoal::liveness {

// Of the first seats a domain has the pages when it is made, of the others when
// one of them is taken.
inline constexpr std::size_t kFirstSeats = 64;

// 0: it cannot be told now.
std::uint64_t own_pid_namespace();

// The calling thread's, in domains without users.
void leave_unused_seats();

}  // namespace shoal::liveness
