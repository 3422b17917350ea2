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

// What Lock and RLock have in common.
class LockHandle {
 public:
  // A move copies: what was moved from stays a handle.
  LockHandle(const LockHandle&) = default;
  LockHandle& operator=(const LockHandle&) = default;

  // False when the timeout ends first.
  bool acquire(Timeout timeout = forever);
  // std::logic_error unless the calling thread holds it.
  void release();
  // True while a living thread holds it.
  bool locked() const { return lock_.locked(); }

  // The last holder died or ended without release(), and nobody has said
  // since that what the lock protects is whole again.
  bool owner_died() const { return lock_.owner_died(); }
  // By the holder; std::logic_error otherwise.
  void mark_consistent();

  // BasicLockable, Lockable, TimedLockable.
  void lock() { acquire(); }
  void unlock() { release(); }
  bool try_lock() { return acquire(now); }
  template <class Rep, class Period>
  bool try_lock_for(std::chrono::duration<Rep, Period> duration) {
    return acquire(duration);
  }
  template <class Clock, class Duration>
  bool try_lock_until(std::chrono::time_point<Clock, Duration> when) {
    const auto start = Clock::now();
    return acquire(when <= start ? now : Timeout(when - start));
  }

 protected:
  explicit LockHandle(std::shared_ptr<Object> object);
  static Spec spec(Kind kind);

  friend struct HandleAccess;

  std::shared_ptr<Object> object_;
  RobustLock lock_;

 private:
  void require_mine(const char* what) const;
  bool recursive() const { return object_->header().kind == Kind::rlock; }
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
  explicit BasicLock(std::shared_ptr<Object> object)
      : LockHandle(std::move(object)) {}
  static Spec object_spec() { return spec(kKind); }
};

using Lock = BasicLock<Kind::lock>;
using RLock = BasicLock<Kind::rlock>;

template <Kind kKind>
struct HandleTraits<BasicLock<kKind>> : ObjectHandleTraits<BasicLock<kKind>> {};

}  // namespace shoal
