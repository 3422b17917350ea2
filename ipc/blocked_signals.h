#pragma once
// BlockedSignals: while it lives, no handler of the program's runs in this
// thread, nor in threads and processes that it starts meanwhile.

#include <signal.h>

namespace shoal {

class BlockedSignals {
 public:
  BlockedSignals() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  BlockedSignals(const BlockedSignals&) = delete;
  BlockedSignals& operator=(const BlockedSignals&) = delete;
  ~BlockedSignals() { restore(); }

  void restore() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  // None is blocked, now and at the end.
  void clear() {
    sigemptyset(&before_);
    restore();
  }

 private:
  sigset_t before_;
};

}  // namespace shoal
