// Who of a domain has died: seats retired, and proofs of a death.

#include <errno.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <string>

#include "shoal/ipc/liveness.h"
#include "shoal/ipc/liveness_parts.h"
#include "shoal/ipc/task_status.h"

namespace shoal::liveness {
namespace {

std::atomic<std::uint64_t> known_ends{0};

bool started_after(const TaskStatus& seen, const OccupantState& occupant) {
  constexpr std::uint64_t kTick = 10'000'000;
  // relaxed: a hint, see occupy().
  return seen.started_at >
         occupant.joined_at.load(std::memory_order_relaxed) + kTick;
}

}  // namespace

void note_end() {
  // relaxed: for the thread that knows, and whom it tells.
  known_ends.fetch_add(1, std::memory_order_relaxed);
}

void Domain::retire(std::uint32_t index, std::uint32_t status) {
  // Others may sleep on the dead one's word; the kernel has woken only one.
  futex::wake(life(index), futex::kAll);
  // SYNC(domain.deaths)
  // KILL: counted, not retired: the next one counts again; one sweep more.
  state_.deaths.fetch_add(1, std::memory_order_acq_rel);
  // SYNC(seat.status): fails when somebody else was first.
  if (state_.status[index].compare_exchange_strong(status, status & ~0xFFu,
                                                   std::memory_order_acq_rel,
                                                   std::memory_order_relaxed))
    // Once more, for a sweep in between by one to whom the death of a process
    // was not provable (no descriptor for /proc, another pid namespace).
    // SYNC(domain.deaths)
    state_.deaths.fetch_add(1, std::memory_order_acq_rel);
}

bool Domain::retire_if_dead(std::uint32_t index) {
  // SYNC(seat.status)
  const std::uint32_t status =
      state_.status[index].load(std::memory_order_acquire);
  if ((status & kTaken) == 0) return false;
  const std::uint32_t word = load_life(index);
  if ((word & FUTEX_TID_MASK) != 0) return false;
  if ((status & kProcess) != 0 && !holder_gone(index, word)) {
    // The thread that held the seat has died, the process not yet. The kernel
    // has woken one of those that wait behind it, any of them; once, wake all,
    // who then look every millisecond.
    std::uint32_t died = word;
    // relaxed: the flag orders nothing.
    if ((word & FUTEX_WAITERS) != 0 &&
        life(index).compare_exchange_strong(died, word & ~FUTEX_WAITERS,
                                            std::memory_order_relaxed))
      futex::wake(life(index), futex::kAll);
    return false;
  }
  // The word was read after the status: a tenant that came in between holds
  // the mutex, so a word without holder speaks of this status.
  retire(index, status);
  return true;
}

void Domain::retire_some() {
  if constexpr (!controls::kSweep) return;
  constexpr std::uint32_t kLook = 4;
  const std::uint32_t high = this->high();
  if (high == 0) return;
  // relaxed: who knows of an end has seen the count move.
  const std::uint64_t ends = known_ends.load(std::memory_order_relaxed);
  if (__builtin_expect(ends != ends_seen_.load(std::memory_order_relaxed), 0)) {
    ends_seen_.store(ends, std::memory_order_relaxed);
    retire_all();
    return;
  }
  // relaxed: any start is good.
  std::uint32_t index = cursor_.load(std::memory_order_relaxed);
  for (std::uint32_t n = std::min(kLook, high); n != 0; --n) {
    if (index >= high) index = 0;
    // One load a seat: only what the kernel has marked is looked at closely.
    // relaxed: retire_if_dead() reads it again.
    const std::uint32_t word = life(index).load(std::memory_order_relaxed);
    if (__builtin_expect(
            (word & (FUTEX_OWNER_DIED | FUTEX_TID_MASK)) == FUTEX_OWNER_DIED,
            0))
      retire_if_dead(index);
    ++index;
  }
  cursor_.store(index, std::memory_order_relaxed);
}

void Domain::retire_all(Watch* watch) {
  if constexpr (!controls::kSweep) return;
  // Before the life words: who is not among them has joined since.
  // SYNC(domain.joins)
  if (watch != nullptr)
    watch->add(state_.joins, state_.joins.load(std::memory_order_acquire));
  const std::uint32_t high = this->high();
  Who me = 0;
  const std::uint32_t mine = sits(me) ? index_of(me) : kSeats;
  // Nobody waits for the death of the process that it is in itself, and the
  // kernel wakes only one of those who watch a word.
  const std::uint32_t own = own_process_index();
  for (std::uint32_t index = 0; index < high; ++index) {
    if (retire_if_dead(index) || watch == nullptr || index == mine ||
        index == own)
      continue;
    // Before its owner's claims are looked for, so that they are found alive,
    // or the word has changed.
    std::uint32_t word = load_life(index);
    if (watch->wants_wakes()) word = ask_for_wake(index);
    if ((word & FUTEX_TID_MASK) != 0) watch->add(life(index), word);
  }
}

const futex::Word& Domain::life_word(Who who, std::uint32_t& value) const {
  value = ask_for_wake(index_of(who));
  return life(index_of(who));
}

std::uint32_t Domain::ask_for_wake(std::uint32_t index) const {
  futex::Word& word = life(index);
  // SYNC(seat.life)
  std::uint32_t value = word.load(std::memory_order_acquire);
  // glibc's and the kernel's own flag: whoever lets go of the mutex wakes.
  while ((value & FUTEX_TID_MASK) != 0 && (value & FUTEX_WAITERS) == 0) {
    // relaxed: the flag orders nothing; futex(2) compares the word itself.
    if (word.compare_exchange_weak(value, value | FUTEX_WAITERS,
                                   std::memory_order_relaxed))
      value |= FUTEX_WAITERS;
  }
  return value;
}

bool Domain::is_ours(Who who) const {
  const auto& occupant = state_.occupant[index_of(who)];
  // relaxed: that of a living seat does not change, but by its own process.
  return !dead(who) &&
         occupant.pid.load(std::memory_order_relaxed) ==
             static_cast<std::uint32_t>(getpid()) &&
         occupant.pid_namespace.load(std::memory_order_relaxed) ==
             own_pid_namespace();
}

bool Domain::holder_gone(std::uint32_t index, std::uint32_t word) const {
  const bool died = (word & FUTEX_OWNER_DIED) != 0;
  const auto& occupant = state_.occupant[index];
  // relaxed: the caller has read the status with acquire.
  const std::uint64_t space =
      occupant.pid_namespace.load(std::memory_order_relaxed);
  if (space == 0 || space != own_pid_namespace())
    return died;  // its pid says nothing here
  const auto pid =
      static_cast<pid_t>(occupant.pid.load(std::memory_order_relaxed));
  const auto tid =
      static_cast<pid_t>(occupant.tid.load(std::memory_order_relaxed));
  if (pid == getpid()) return false;
  if (kill(pid, 0) != 0 && errno == ESRCH) return true;
  if (!proc_shows_us()) return false;
  const TaskStatus seen = process_status(pid);
  if (!seen.known) return false;
  // Another process under the same pid; or all threads have ended. When a
  // thread has died that is not the first one, others may still run.
  return started_after(seen, occupant) ||
         (seen.threads <= 1 && (seen.ended() || (died && tid == pid)));
}

bool Domain::prove_dead(Who who) {
  if (dead(who)) return true;
  const std::uint32_t index = index_of(who);
  const auto& occupant = state_.occupant[index];
  // relaxed: a stale answer only means that nothing is proven.
  const std::uint64_t space =
      occupant.pid_namespace.load(std::memory_order_relaxed);
  if (space == 0 || space != own_pid_namespace()) return false;
  std::uint32_t word = load_life(index);
  const auto pid =
      static_cast<pid_t>(occupant.pid.load(std::memory_order_relaxed));
  const auto tid =
      static_cast<pid_t>(occupant.tid.load(std::memory_order_relaxed));
  if ((word & FUTEX_TID_MASK) != static_cast<std::uint32_t>(tid)) return false;
  bool gone = syscall(SYS_tgkill, pid, tid, 0) != 0 && errno == ESRCH;
  if (!gone && proc_shows_us()) {
    const TaskStatus seen =
        task_status("/proc/" + std::to_string(pid) + "/task/" +
                    std::to_string(tid) + "/stat");
    gone = seen.known && (seen.ended() || started_after(seen, occupant));
  }
  if (!gone) return false;
  // What the kernel does for a robust mutex, and here could not.
  // SYNC(seat.life)
  life(index).compare_exchange_strong(
      word, (word & FUTEX_WAITERS) | FUTEX_OWNER_DIED,
      std::memory_order_acq_rel, std::memory_order_relaxed);
  futex::wake(life(index), futex::kAll);
  return dead(who);
}

}  // namespace shoal::liveness
