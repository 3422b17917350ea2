#pragma once
// AtFork: pthread_atfork() by a static initialiser that comes before all of the
// program's, which may fork.
//
//   SHOAL_AT_FORK const AtFork watched(lock, unlock, unlock);
//
// The functions may touch what is constant-initialised, and throw nothing.

#include <pthread.h>

// 101 is left for those whose handlers come around these: prepare last, child
// first.
#define SHOAL_AT_FORK [[gnu::init_priority(102)]]

namespace shoal {

struct AtFork {
  using Handler = void (*)();
  AtFork(Handler prepare, Handler parent, Handler child)
      : error(pthread_atfork(prepare, parent, child)) {}

  const int error;  // an errno, or 0
};

}  // namespace shoal
