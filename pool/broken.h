#pragma once
// BrokenPool: what is thrown of a pool that runs no more tasks.

#include <exception>
#include <string>

#include "shoal/ipc/child.h"
#include "shoal/ipc/errors.h"

namespace shoal::pool {

// `cause`: what the initializer has thrown, which is nested in it.
[[noreturn]] inline void throw_broken_by_initializer(
    const std::exception_ptr& cause) {
  try {
    std::rethrow_exception(cause);
  } catch (...) {
    std::throw_with_nested(
        BrokenPool("shoal: the pool is broken: its initializer has thrown: " +
                   child::describe_current_exception()));
  }
}

}  // namespace shoal::pool
