#pragma once
// For test programs that use boost::lockfree::queue: its free list looks into a
// node that another thread may have taken meanwhile, and finds that out by the
// node's tag.

#if defined(__SANITIZE_THREAD__)
extern "C" inline __attribute__((used)) const char*
__tsan_default_suppressions() {
  return "race:boost::lockfree::detail::\n";
}
#endif
