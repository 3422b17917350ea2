#pragma once
// Where an exception was thrown, for processes whose errors go to another one.
//
//   throw_trace::enable();
//   try { work(); } catch (...) {
//     text = throw_trace::of(std::current_exception());
//   }
//
// By a __cxa_throw of our own in front of the C++ runtime's (and of a
// sanitizer's, which it calls). Off until enabled: then a throw costs one walk
// of the stack more.
//
// Sharing: any thread; each knows its own throws.
// Source:  Boost.Stacktrace; file and line where the program has them (-g).

#include <exception>
#include <string>

namespace shoal::throw_trace {

// For this process, for good.
void enable() noexcept;

// The frames from the throw outwards, one a line, "" if this thread has not
// thrown it, or many others since. Not for many threads at once.
std::string of(const std::exception_ptr& error);

}  // namespace shoal::throw_trace
