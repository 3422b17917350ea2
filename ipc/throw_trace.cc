#include "shoal/ipc/throw_trace.h"

#include <cxxabi.h>
#include <dlfcn.h>
#include <stdlib.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <typeinfo>

// g++'s libbacktrace knows functions and lines; without it there are names of
// exported functions only.
#if __has_include(<backtrace.h>)
#define BOOST_STACKTRACE_USE_BACKTRACE
#define BOOST_STACKTRACE_BACKTRACE_FORCE_STATIC
#endif
#include <boost/stacktrace.hpp>

namespace shoal::throw_trace {
namespace {

std::atomic<bool> enabled{false};

struct Thrown {
  const void* object;
  std::array<boost::stacktrace::detail::native_frame_ptr_t, 48> frames;
};
// One that is nested in another was thrown before it.
constexpr std::size_t kKept = 4;
thread_local std::array<Thrown, kKept> last_thrown{};
thread_local std::size_t thrown_count = 0;

// `thrower`: where the hook returns to; what lies above is its own.
void note(const void* object, const void* thrower) noexcept {
  Thrown& thrown = last_thrown[thrown_count++ % kKept];
  thrown.object = object;
  auto& frames = thrown.frames;
  frames.fill(nullptr);
  boost::stacktrace::safe_dump_to(frames.data(), sizeof frames);
  const auto first = std::find(frames.begin(), frames.end(), thrower);
  if (first != frames.end())
    std::fill(std::copy(first, frames.end(), frames.begin()), frames.end(),
              nullptr);
  // The call, not what comes behind it: that may be another function.
  for (auto& frame : frames)
    if (frame != nullptr) frame = static_cast<const std::byte*>(frame) - 1;
}

// The exception object that it refers to, as libstdc++ has it.
const void* object_of(const std::exception_ptr& error) {
  static_assert(sizeof error == sizeof(const void*));
  return *reinterpret_cast<const void* const*>(&error);
}

}  // namespace

void enable() noexcept { enabled.store(true, std::memory_order_relaxed); }

std::string of(const std::exception_ptr& error) {
  for (const Thrown& thrown : last_thrown)
    if (thrown.object != nullptr && thrown.object == object_of(error))
      return boost::stacktrace::to_string(
          boost::stacktrace::stacktrace::from_dump(thrown.frames.data(),
                                                   sizeof thrown.frames));
  return {};
}

}  // namespace shoal::throw_trace

// Weak, so that a program that links the C++ runtime statically, which has the
// runtime's in the same name space, links.
namespace __cxxabiv1 {
namespace {

using Throw = void (*)(void*, std::type_info*, void (*)(void*));

Throw runtimes_throw() {
  // No static initialiser: who is forked in the middle of one waits for ever.
  static constinit std::atomic<Throw> known{nullptr};
  // relaxed: the same, whoever finds it.
  Throw found = known.load(std::memory_order_relaxed);
  if (found == nullptr) {
    found = reinterpret_cast<Throw>(dlsym(RTLD_NEXT, "__cxa_throw"));
    known.store(found, std::memory_order_relaxed);
  }
  return found;
}
// Not in a process that was forked while another thread had the loader's lock.
[[maybe_unused]] const Throw found_at_start = runtimes_throw();

}  // namespace

extern "C" [[gnu::weak]] void __cxa_throw(void* object, std::type_info* type,
                                          void (*destroy)(void*)) {
  if (shoal::throw_trace::enabled.load(std::memory_order_relaxed))
    shoal::throw_trace::note(object, __builtin_return_address(0));
  runtimes_throw()(object, type, destroy);
  abort();
}
}  // namespace __cxxabiv1
