#pragma once
// A pool's nursery as the pool's owner sees it: started by one of three
// methods, awaited, killed. It forks the workers while its owner goes on.

#include <sys/types.h>

#include <memory>

#include "shoal/ipc/forkserver.h"
#include "shoal/ipc/pidfd.h"
#include "shoal/ipc/process.h"
#include "shoal/ipc/timeout.h"
#include "shoal/pool/pool_state.h"

namespace shoal::pool {

class NurseryProcess {
 public:
  // `bell` is to become readable when the owner gives a command; `initializer`,
  // or nullptr, runs in each worker. Throws std::system_error, and what
  // starting a Process throws.
  NurseryProcess(Memory& memory, StartMethod method, int bell,
                 detail::Body* initializer);

  pid_t pid() const { return pid_; }
  // Until it has forked all workers, or cannot, or has ended.
  void await_start() const;
  // As far as can be told: `memory` says so once it has begun.
  bool dead() const;
  // False when the deadline passes first.
  bool wait(Deadline deadline) const;
  // By SIGSTOP, as far as can be told.
  bool is_stopped() const;
  void kill() const;
  // It has ended.
  void reap() const;

 private:
  bool has_ended() const { return pidfd_->wait(now); }

  const Memory& memory_;
  pid_t pid_ = 0;
  std::shared_ptr<const Pidfd> pidfd_;
  bool lost_ = false;                                 // as of child::Started
  std::shared_ptr<const forkserver::Ending> ending_;  // a forkserver's
};

}  // namespace shoal::pool
