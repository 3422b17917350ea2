#pragma once
// What a forkserver and the process that it serves say to each other: requests
// and answers in turn over a socket, and how children end on a board in shared
// memory.

#include <sys/types.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>

#include "shoal/ipc/forkserver.h"
#include "shoal/ipc/futex.h"

namespace shoal::forkserver {

// With 2 to 4 descriptors: the child's channel, its directory, then its stdout
// and stderr, where there are.
struct Request {
  std::uint32_t place;  // on the board
  std::uint32_t has_stdout;
  std::uint32_t has_stderr;
  std::uint32_t unused;
};
// With a pidfd of the child, if there is no error.
struct Answer {
  std::uint32_t place;  // the request's
  std::int32_t pid;
  std::int32_t error;  // an errno
};

// A word for each child, 0 as long as it runs. Written by the server, and by
// the one that it serves while no child has the place.
//   bits 0..8   exit code, or 256 + the number of a signal
//   bit  31     ended
struct BoardState {
  futex::Word words[kMostChildren];
};
inline constexpr std::uint32_t kEnded = 1u << 31;
inline constexpr std::uint32_t kSignal = 256;
static_assert(std::is_standard_layout_v<BoardState>);
static_assert(sizeof(BoardState) == 4 * kMostChildren);
static_assert(futex::Word::is_always_lock_free);

// The server's side, in a process that was started for it; does not return.
void serve(handover::Arrival& arrival);

}  // namespace shoal::forkserver
