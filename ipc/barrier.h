#pragma once
// Barrier: a number of threads that wait until all of them have come, round
// after round.
//
//   shoal::Barrier all(4, [] { publish(); });
//   compute(part);
//   if (all.wait() == 0) report();      // each gets its own index, 0..3
//
// A party of a barrier is a thread that has arrived in this round, or had
// arrived in the last one that was completed. If a party dies, killed, crashed
// or cut off by exec or _exit, the barrier breaks: for all who wait or come to
// wait, with BrokenBarrier, until reset(). A thread that ends normally
// (returns, or calls exit) is no party any more and breaks nothing, nor does a
// process that lets go of its last handle; a round later it may be another that
// comes.
//
// Sharing:  handles copy cheaply, a copy is the same barrier.
// Ordering: what a party did before wait() is visible to `action`, and that and
//           what action did to all parties after it.
// Death:    above. Killed in wait(): the round is complete, or broken.
// Cost:     one CAS to arrive, one more for the last, who looks at all parties;
//           a system call to sleep and two to wake all.
// Layout:   docs/layout.md#barrier

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <type_traits>

#include "shoal/ipc/handle.h"
#include "shoal/ipc/object.h"
#include "shoal/ipc/timeout.h"
#include "shoal/ipc/waiting.h"

namespace shoal {

// BarrierState::word
//   bits 0..1    0 filling, 1 broken
//   bits 2..31   round
//   bits 32..63  of the last 32 rounds, bit i: round - 1 - i was completed
// A round that is completed is followed by the next; reset() skips one, so that
// no round before it is the last one.
//
// Followed by two slots for each party, the first half for even rounds: in its
// order of arrival, who has come.
//   bits 0..33   the seat of the thread; 0: it has ended normally since
//   bits 34..63  in which round; in another: nobody has come yet
struct BarrierState {
  using Slot = std::atomic<std::uint64_t>;

  std::atomic<std::uint64_t> word;  // by anybody
  // The low half of `word` when last all sleepers had been woken. Otherwise
  // who changed it died, and whoever awakes wakes all.
  std::atomic<std::uint32_t> woken;
  std::uint32_t parties;
  waiting::WaitState wait;
  std::int64_t timeout;      // of a wait() without one, in nanoseconds
  std::uint32_t has_action;  // each handle needs one
  // The round that the last reset() began; by whoever resets.
  std::atomic<std::uint32_t> last_reset;
};
static_assert(std::is_standard_layout_v<BarrierState>);
static_assert(sizeof(BarrierState) == 40);
static_assert(offsetof(BarrierState, wait) == 16);
static_assert(BarrierState::Slot::is_always_lock_free);

class Barrier {
 public:
  using Action = std::function<void()>;
  static constexpr int kMostParties = liveness::kSeats;

  // The last to arrive runs `action` before all others are let go; what it
  // throws breaks the barrier and comes out of that wait(). Throws
  // std::invalid_argument unless 1 <= parties <= kMostParties.
  explicit Barrier(int parties, const Action& action = {},
                   Timeout timeout = forever);
  static Barrier create(std::string_view name, int parties,
                        const Action& action = {}, Timeout timeout = forever,
                        Access access = {});
  // An action is code of this program: who opens a barrier that was made with
  // one gives its own.
  static Barrier open(std::string_view name, const Action& action = {},
                      Access access = {});
  static Barrier open(std::string_view name, Access access) {
    return open(name, {}, access);
  }
  static Barrier open_or_create(std::string_view name, int parties,
                                const Action& action = {},
                                Timeout timeout = forever, Access access = {});
  // A move copies: what was moved from stays a handle.
  Barrier(const Barrier&) = default;
  Barrier& operator=(const Barrier&) = default;

  // The index of this thread's arrival, 0 for the first. Throws BrokenBarrier
  // when it is broken, becomes so, or is reset meanwhile; BarrierTimeout, which
  // is a TimeoutError as well, when the timeout ends first, which breaks it for
  // all. std::logic_error from within the action, or without
  // an action where the barrier was made with one.
  int wait() const;
  int wait(Timeout timeout) const;
  // Whoever waits gets BrokenBarrier; then it is as new, without parties.
  void reset() const;
  // Broken until reset().
  void abort() const;

  int parties() const { return static_cast<int>(parties_); }
  int n_waiting() const;  // a snapshot; 0 when broken
  bool broken() const;

 private:
  friend struct HandleAccess;
  class Sleeper;

  explicit Barrier(std::shared_ptr<Object> object, const Action& action = {});
  static Spec object_spec();
  static Spec spec(int parties, bool has_action, Timeout timeout);

  std::uint64_t load() const;
  waiting::Status outcome(std::uint64_t word, std::uint32_t round) const;
  BarrierState::Slot* slots_of(std::uint32_t round) const;
  bool change(std::uint64_t word, std::uint64_t to) const;
  void wake_all(std::uint64_t word) const;
  void break_if_dead(std::uint64_t word) const;
  std::uint32_t arrive(liveness::Who me, std::uint32_t round) const;
  int wait_until(Deadline deadline) const;
  [[noreturn]] void throw_broken() const;

  std::shared_ptr<Object> object_;
  std::shared_ptr<const Action> action_;  // nullptr: none
  BarrierState* state_;
  BarrierState::Slot* slots_;
  std::uint32_t parties_;  // as it was when it was checked
  liveness::Domain* domain_;
  bool fenced_;
};

template <>
struct HandleTraits<Barrier> : ObjectHandleTraits<Barrier> {};

}  // namespace shoal
