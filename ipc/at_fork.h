#pragma once
// AtFork: pthread_atfork() by a static initialiser that comes before all of the
// program's, which may fork.
//
//   constinit int error = 0;  // an errno, or 0
//   SHOAL_AT_FORK const AtFork watched(lock, unlock, unlock, &error);
//
// The functions may touch what is constant-initialised, and throw nothing.

#include <pthread.h>

// 101 is left for those whose handlers come around these: prepare last, child
// first.
#define SHOAL_AT_FORK [[gnu::init_priority(102)]]

namespace shoal {

struct AtFork {
  using Handler = void (*)();
  AtFork(Handler prepare, Handler parent, Handler child, int* error = nullptr) {
    const int outcome = pthread_atfork(prepare, parent, child);
    if (error != nullptr) *error = outcome;
  }
};

}  // namespace shoal
