#pragma once
// forkserver: a process that forks others on request, from memory that holds
// nothing of this process: it is this program started anew (spawn.h), and has
// one thread, whatever this one has.
//
//   auto [child, ending] = forkserver::start(introduction, parcel);
//   child.pidfd->wait(forever);
//   status = ending->take(*child.pidfd, forever);
//
// Each process has a server of its own, from its first start() on. What it
// forks has this process's environment, directory, stdout, stderr, limits,
// processors, umask, signal mask and ignored signals as of start(); priority,
// namespaces and other descriptors are those of the server's own beginning.
//
// Sharing: any thread; in a forked child, which gets a server of its own.
// Death:   of the server: its children live on. start() begins another; what
//          was being started had not been handed anything yet, and is started
//          again there. How children of the dead one end is then known by the
//          kernel (Linux 6.15), else Pidfd::kUnknownStatus. Of this process:
//          the server ends.
// Cost:    start() is a fork of a small process and twelve system calls.

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>

#include "shoal/ipc/child.h"
#include "shoal/ipc/handover.h"
#include "shoal/ipc/pidfd.h"
#include "shoal/ipc/timeout.h"

namespace shoal::forkserver {

// How many children of one server may be there at once.
inline constexpr std::uint32_t kMostChildren = 16384;

class Board;

// How a child of a server ends, which only its server is told.
class Ending {
 public:
  Ending(std::shared_ptr<Board> board, std::uint32_t place)
      : board_(std::move(board)), place_(place) {}
  Ending(const Ending&) = delete;
  Ending& operator=(const Ending&) = delete;
  ~Ending();

  // As Pidfd::reap(); once `process` has ended it waits until `patience` is
  // over for a server that is late, e.g. stopped.
  std::optional<int> take(const Pidfd& process, Deadline patience) const;
  std::uint32_t place() const { return place_; }

 private:
  std::shared_ptr<Board> board_;
  std::uint32_t place_;
  mutable std::atomic<bool> told_{false};  // nothing more will be
};

struct Started {
  child::Started child;
  std::shared_ptr<const Ending> ending;
};

// As spawn::start, and Error when one server after the other ends under it,
// NoSpace for more than kMostChildren.
Started start(handover::Introduction introduction,
              const handover::Parcel& parcel);

// Ends this process's server, if there is one, and waits for it. Its children
// live on, as at its death; a later start() begins another.
void stop();

// In a forked child: gives back what it has inherited of its parent's.
void forget_inherited();

}  // namespace shoal::forkserver
