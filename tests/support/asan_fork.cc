// What later AddressSanitizers do and g++ 12's does not: no process is forked
// while another thread holds a lock of the sanitizer's own allocator, or the
// child waits for that thread at its first allocation. By functions that only
// the static runtime has (-static-libasan).

#ifdef __SANITIZE_ADDRESS__

#include <pthread.h>

namespace __lsan {
[[gnu::weak]] void LockThreadRegistry();
[[gnu::weak]] void UnlockThreadRegistry();
[[gnu::weak]] void LockAllocator();
[[gnu::weak]] void UnlockAllocator();
}  // namespace __lsan

namespace __sanitizer {
[[gnu::weak]] void StackDepotLockAll();
[[gnu::weak]] void StackDepotUnlockAll();
}  // namespace __sanitizer

namespace {

void lock() {
  __lsan::LockThreadRegistry();
  __lsan::LockAllocator();
  __sanitizer::StackDepotLockAll();
}

void unlock() {
  __sanitizer::StackDepotUnlockAll();
  __lsan::UnlockAllocator();
  __lsan::UnlockThreadRegistry();
}

// Before all others, whose handlers may allocate.
[[gnu::constructor(101)]] void watch_forks() {
  if (&__lsan::LockThreadRegistry != nullptr)
    pthread_atfork(lock, unlock, unlock);
}

}  // namespace

#endif
