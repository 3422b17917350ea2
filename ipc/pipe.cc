#include "shoal/ipc/pipe.h"

namespace shoal {

std::pair<Connection, Connection> Pipe(PipeOptions options) {
  auto ends = pipe_end::End::make(
      pipe_end::Plan::make(options.duplex, options.capacity));
  return {ConnectionAccess::make(std::move(ends[0])),
          ConnectionAccess::make(std::move(ends[1]))};
}

std::pair<Connection, Connection> Pipe(bool duplex) {
  return Pipe(PipeOptions{.duplex = duplex});
}

}  // namespace shoal
