#include "shoal/ipc/event.h"

#include <errno.h>

#include <optional>
#include <utility>

namespace shoal {
namespace {

// Wakes whoever sleeps, and notes that it was done for all sets up to `count`.
void wake_all(EventState& state, liveness::Domain& domain,
              std::uint64_t count) {
  waiting::wake(state.wait, waiting::Side::consumers, domain, futex::kAll);
  // SYNC(event.woken): the wakes come first.
  // KILL: not noted: whoever awakes next wakes all once more.
  state.woken.store(count, std::memory_order_release);
}

}  // namespace

// One who waits: the count of sets is no longer what it was.
class Event::Sleeper {
 public:
  Sleeper(const Event& event, std::uint64_t seen)
      : event_(event), state_(*event.state_), seen_(seen) {}

  waiting::Status attempt() const {
    // SYNC(event.word)
    return state_.word.load(std::memory_order_acquire) == seen_
               ? waiting::Status::blocked
               : waiting::Status::ok;
  }

  waiting::WaitState& wait_state() const { return state_.wait; }
  liveness::Domain& domain() const { return *event_.domain_; }
  waiting::SpinBudget& spin() const { return event_.object_->spin; }
  bool looks_ready(waiting::Side) const {
    return state_.word.load(std::memory_order_relaxed) != seen_;
  }
  // A setter has no seat whose life word would tell of its death.
  void watch(liveness::Watch& watch) const {
    watch.add(futex::low_half(state_.word), static_cast<std::uint32_t>(seen_));
  }
  static constexpr bool kNothingToSweep = true;
  void sweep() const {}
  void pass_baton(bool) const {
    // SYNC(event.word)
    const std::uint64_t count =
        state_.word.load(std::memory_order_acquire) >> 1;
    // SYNC(event.woken)
    if (state_.woken.load(std::memory_order_acquire) != count)
      wake_all(state_, domain(), count);
  }
  liveness::Who holder_behind(waiting::Side) const { return 0; }

 private:
  const Event& event_;
  EventState& state_;
  const std::uint64_t seen_;  // not set
};

Event::Event(std::shared_ptr<Object> object)
    : object_(std::move(object)),
      state_(static_cast<EventState*>(object_->payload())),
      domain_(&object_->domain()),
      fenced_(domain_->needs_fence()) {}

Spec Event::object_spec() {
  return {.kind = Kind::event,
          .fingerprint = sizeof(EventState),
          .type_text = "Event",
          .payload_bytes = sizeof(EventState)};
}

// In a signal handler as well: no seat is joined, nothing is allocated, and
// what it interrupts has its pending wake back afterwards. Seats are what
// sleepers see publishers die by; here they watch the word itself, so that a
// death before they sleep has changed it, and one after that is told by the
// kernel's wake.
void Event::set() const noexcept {
  const int error = errno;
  {
    std::optional<liveness::PassedWake> armed;
    // None in a thread that was not made by the C library.
    if (robust_list_head* robust = liveness::find_robust_list())
      armed.emplace(robust, state_->wait.word);
    // relaxed: the exchange below orders.
    std::uint64_t word = state_->word.load(std::memory_order_relaxed);
    std::uint64_t set;
    do {
      set = (word & kSet) != 0 ? word : (word + 2) | kSet;
      // SYNC(event.word): what was done before is visible to whoever waits.
      // KILL: set, and the kernel wakes one, who wakes all.
    } while (!state_->word.compare_exchange_weak(
        word, set, std::memory_order_acq_rel, std::memory_order_relaxed));
    asymmetric_fence::light(fenced_);
    wake_all(*state_, *domain_, set >> 1);
  }
  errno = error;
}

void Event::clear() const noexcept {
  // SYNC(event.word)
  // KILL: cleared.
  state_->word.fetch_and(~kSet, std::memory_order_acq_rel);
}

bool Event::wait(Timeout timeout) const {
  // SYNC(event.word)
  const std::uint64_t seen = state_->word.load(std::memory_order_acquire);
  if ((seen & kSet) != 0) return true;
  if (timeout.is_now()) return false;
  Sleeper sleeper(*this, seen);
  return waiting::until(sleeper, waiting::Side::consumers, timeout,
                        [&](liveness::Who&) { return sleeper.attempt(); }) ==
         waiting::Status::ok;
}

}  // namespace shoal
