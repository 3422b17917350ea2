#pragma once
// Event: something has happened, told to all who wait for it.
//
//   shoal::Event ready;
//   Process worker([ready] { load(); ready.set(); });
//   worker.start();
//   if (!ready.wait(5s)) complain();
//
// Sharing:  handles copy cheaply, a copy is the same event. Any thread of any
//           process calls any method; set() also a signal handler.
// Ordering: what happened before set() is visible to whoever it lets go.
// Death:    killed in set(): it is set and all wake, or it is not. Nobody
//           waits for one who waited.
// Cost:     set() one CAS, two system calls if somebody sleeps, and one more
//           in a thread that never used shoal; is_set() one load.
// Layout:   docs/layout.md#event

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <type_traits>

#include "shoal/ipc/handle.h"
#include "shoal/ipc/object.h"
#include "shoal/ipc/timeout.h"
#include "shoal/ipc/waitable.h"
#include "shoal/ipc/waiting.h"

namespace shoal {

// EventState::word
//   bit  0      set
//   bits 1..63  how often it was set after it was not
// So that a set() followed at once by clear() still lets go those who waited.
// Zeroed memory is an event that is not set.
struct EventState {
  std::atomic<std::uint64_t> word;  // by whoever sets or clears
  // That count as it was when last all sleepers had been woken. Behind it: a
  // setter died in between, and whoever awakes wakes all. By setters and these.
  std::atomic<std::uint64_t> woken;
  waiting::WaitState wait;
};
static_assert(std::is_standard_layout_v<EventState>);
static_assert(sizeof(EventState) == 24);
static_assert(offsetof(EventState, wait) == 16);

class Event {
 public:
  // Anonymous: for this process and its children.
  Event() : Event(Object::create(object_spec())) {}
  static Event create(std::string_view name, Access access = {}) {
    return Event(Object::create(name, object_spec(), access));
  }
  static Event open(std::string_view name, Access access = {}) {
    return Event(Object::open(name, object_spec(), access));
  }
  static Event open_or_create(std::string_view name, Access access = {}) {
    return Event(Object::open_or_create(name, object_spec(), access));
  }
  // A move copies: what was moved from stays a handle.
  Event(const Event&) = default;
  Event& operator=(const Event&) = default;

  // Async-signal-safe, and keeps errno.
  void set() const noexcept;
  void clear() const noexcept;
  bool is_set() const noexcept {
    // SYNC(event.word)
    return (state_->word.load(std::memory_order_acquire) & kSet) != 0;
  }
  // True when it is set, or was set since the call began; false when the
  // timeout ends first.
  bool wait(Timeout timeout = forever) const;

  // For shoal::wait().
  WaitSource wait_source() { return WaitSource::of(*this); }
  bool ready_to_wait_for() const { return is_set(); }
  void announce_wait() const { waiting::announce_afar(state_->wait); }
  liveness::Domain& domain_to_wait_in() const { return *domain_; }
  static liveness::Who blocker_to_wait_for() { return 0; }

 private:
  friend struct HandleAccess;
  class Sleeper;
  static constexpr std::uint64_t kSet = 1;

  explicit Event(std::shared_ptr<Object> object);
  static Spec object_spec();

  std::shared_ptr<Object> object_;
  EventState* state_;
  liveness::Domain* domain_;
  bool fenced_;
};

template <>
struct HandleTraits<Event> : ObjectHandleTraits<Event> {};

}  // namespace shoal
