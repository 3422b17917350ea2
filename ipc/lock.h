#pragma once
// Lock and RLock: mutual exclusion between threads and processes, robust.
//
//   shoal::Lock lock;
//   {
//     std::lock_guard guard(lock);
//     if (lock.owner_died()) { repair(); lock.mark_consistent(); }
//   }
//
// Sharing:  handles copy cheaply, a copy is the same lock. A thread holds it.
// Ordering: what a holder did before release() is visible to the next holder.
// Death:    a holder that dies or exits hands on: the next to acquire has it,
//           and owner_died() is true until mark_consistent().
// Cost:     uncontended, one CAS and one store; a system call only to sleep
//           and to wake a sleeper.
// Layout:   docs/layout.md#lock

#include <chrono>
#include <memory>
#include <string_view>

#include "shoal/ipc/handle.h"
#include "shoal/ipc/object.h"
#include "shoal/ipc/robust_lock.h"

namespace shoal {

// What Lock, RLock and Condition have in common.
class LockHandle {
 public:
  // A move copies: what was moved from stays a handle.
  LockHandle(const LockHandle&) = default;
  LockHandle& operator=(const LockHandle&) = default;

  // False when the timeout ends first.
  bool acquire(Timeout timeout = forever) const {
    if (__builtin_expect(!lock_.take_if_free(), 0))
      return acquire_slowly(timeout);
    if (recursive_) lock_.state().depth = 1;
    return true;
  }
  // std::logic_error unless the calling thread holds it.
  void release() const {
    if (recursive_ || __builtin_expect(!lock_.release_if_mine(), 0))
      release_slowly();
  }
  // True while a living thread holds it.
  bool locked() const { return lock_.locked(); }

  // The last holder died or ended without release(), and nobody has said
  // since that what the lock protects is whole again.
  bool owner_died() const { return lock_.owner_died(); }
  // By the holder; std::logic_error otherwise.
  void mark_consistent() const;

  // BasicLockable, Lockable, TimedLockable.
  void lock() const { acquire(); }
  void unlock() const { release(); }
  bool try_lock() const { return acquire(now); }
  template <class Rep, class Period>
  bool try_lock_for(std::chrono::duration<Rep, Period> duration) const {
    return acquire(duration);
  }
  template <class Clock, class Duration>
  bool try_lock_until(std::chrono::time_point<Clock, Duration> when) const {
    const auto start = Clock::now();
    return acquire(when <= start ? now : Timeout(when - start));
  }

 protected:
  // The handle's own object, and the one that begins with the lock, which the
  // handle keeps, too.
  LockHandle(std::shared_ptr<Object> object, Object& home);
  static Spec spec(Kind kind);
  void require_mine(const char* what) const;

  friend struct HandleAccess;

  std::shared_ptr<Object> object_;
  RobustLock lock_;
  bool recursive_;

 private:
  bool acquire_slowly(Timeout timeout) const;
  void release_slowly() const;
};

template <Kind kKind>
class BasicLock : public LockHandle {
 public:
  // Anonymous: for this process and its children.
  BasicLock() : BasicLock(Object::create(spec(kKind))) {}
  static BasicLock create(std::string_view name, Access access = {}) {
    return BasicLock(Object::create(name, spec(kKind), access));
  }
  static BasicLock open(std::string_view name, Access access = {}) {
    return BasicLock(Object::open(name, spec(kKind), access));
  }
  static BasicLock open_or_create(std::string_view name, Access access = {}) {
    return BasicLock(Object::open_or_create(name, spec(kKind), access));
  }

 private:
  friend struct HandleAccess;
  explicit BasicLock(const std::shared_ptr<Object>& object)
      : LockHandle(object, *object) {}
  static Spec object_spec() { return spec(kKind); }
};

using Lock = BasicLock<Kind::lock>;
using RLock = BasicLock<Kind::rlock>;

template <Kind kKind>
struct HandleTraits<BasicLock<kKind>> : ObjectHandleTraits<BasicLock<kKind>> {};

}  // namespace shoal
