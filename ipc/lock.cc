#include "shoal/ipc/lock.h"

#include <stdexcept>
#include <string>

namespace shoal {
namespace {

const char* name_of(Kind kind) {
  return kind == Kind::lock    ? "Lock"
         : kind == Kind::rlock ? "RLock"
                               : "Condition";
}

}  // namespace

LockHandle::LockHandle(std::shared_ptr<Object> object, Object& home)
    : object_(std::move(object)),
      lock_(*static_cast<LockState*>(home.payload()), home.domain(), home.spin),
      recursive_(object_->header().kind != Kind::lock) {}

Spec LockHandle::spec(Kind kind) {
  return {.kind = kind,
          .fingerprint = sizeof(LockState),
          .type_text = name_of(kind),
          .payload_bytes = sizeof(LockState)};
}

bool LockHandle::acquire_slowly(Timeout timeout) const {
  if (recursive_ && lock_.is_mine()) {
    ++lock_.state().depth;
    return true;
  }
  if (!lock_.acquire(timeout)) return false;
  lock_.state().depth = 1;
  return true;
}

void LockHandle::release_slowly() const {
  require_mine("release");
  if (recursive_ && --lock_.state().depth != 0) return;
  lock_.release();
}

void LockHandle::mark_consistent() const {
  require_mine("mark_consistent");
  lock_.mark_consistent();
}

void LockHandle::require_mine(const char* what) const {
  if (lock_.is_mine()) return;
  throw std::logic_error(
      std::string("shoal: ") + name_of(object_->header().kind) + "::" + what +
      " by a thread that does not hold it; only the holder may (to hand over "
      "between threads, use Semaphore)");
}

}  // namespace shoal
