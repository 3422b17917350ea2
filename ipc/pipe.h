#pragma once
// Pipe: two Connections, what one sends the other receives.
//
//   auto [a, b] = shoal::Pipe();                 // both ways
//   auto [reader, writer] = shoal::Pipe(false);  // one way
//
// Each direction is a ring of bytes (ipc/ring.h); what is long for it lies
// beside it (ipc/side_blocks.h). Connection has the verbs.

#include <cstddef>
#include <utility>

#include "shoal/ipc/connection.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/timeout.h"

namespace shoal {

struct PipeOptions {
  bool duplex = true;
  // Bytes of a direction's ring, rounded up to a power of two. Messages of more
  // than a quarter of it lie beside it, of any size, four at most.
  std::size_t capacity = std::size_t{1} << 20;
};

// Throws NoSpace, std::system_error, std::invalid_argument.
std::pair<Connection, Connection> Pipe(PipeOptions options);
std::pair<Connection, Connection> Pipe(bool duplex = true);

}  // namespace shoal
