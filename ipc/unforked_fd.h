#pragma once
// UnforkedFd: a descriptor that forked children do not keep, for sockets whose
// other side learns of this process's end by their closing.
//
//   UnforkedFd socket(std::move(fd));
//   socket.get();        // -1 in a forked child
//
// Sharing:  as an Fd. A fork waits for the short moment in which one is made,
//           moved onto or destroyed.

#include <memory>

#include "shoal/ipc/fd.h"

namespace shoal {

class UnforkedFd {
 public:
  UnforkedFd() = default;
  explicit UnforkedFd(Fd fd);

  // -1: none, moved from, or inherited.
  int get() const { return held_ == nullptr ? -1 : held_->get(); }

 private:
  struct Forget {
    void operator()(Fd* held) const;
  };
  std::unique_ptr<Fd, Forget> held_;
};

}  // namespace shoal
