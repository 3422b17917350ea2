#include "shoal/ipc/liveness.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "shoal/ipc/errors.h"
#include "shoal/ipc/fork_mutex.h"
#include "shoal/ipc/liveness_parts.h"
#include "shoal/ipc/segment.h"
#include "shoal/ipc/task_status.h"

namespace shoal::liveness {
namespace {

// The mutex of a seat that may never have been taken, out of zeroed memory:
// whoever comes, and all who come at the same time, store the same words, which
// locking does not change.
void make_life(pthread_mutex_t& life) {
  using Words = std::array<std::uint32_t, sizeof life / sizeof(std::uint32_t)>;
  // No static: who is forked while another thread makes it waits for ever.
  const Words model = [] {
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_t made;
    memset(&made, 0, sizeof made);
    pthread_mutex_init(&made, &attributes);
    pthread_mutexattr_destroy(&attributes);
    return std::bit_cast<Words>(made);
  }();
  auto* const words = reinterpret_cast<std::uint32_t*>(&life);
  for (std::size_t i = 0; i < model.size(); ++i)
    // relaxed: the caller locks it next, by these words.
    // KILL: one more comes and stores them again.
    if (model[i] != 0)
      std::atomic_ref(words[i]).store(model[i], std::memory_order_relaxed);
}

}  // namespace

// The seats that one thread holds, given back when it ends.
class ThreadSeats {
 public:
  struct Held {
    std::shared_ptr<Domain> domain;
    Who who;
  };

  // Created at the first join; after the thread's destructors have run it is
  // created again and then left to the kernel.
  static ThreadSeats& mine() {
    thread_local constinit ThreadSeats* seats = nullptr;
    thread_local constinit std::uint64_t seats_depth = 0;
    if (seats != nullptr && seats_depth != fork_depth()) {
      // The parent's, whose mutexes are not ours. Its memory stays, and in
      // sight of leak checkers; only the forking thread is left to do this.
      static ThreadSeats* inherited = nullptr;
      seats->older_ = std::exchange(inherited, seats);
      seats = nullptr;
    }
    if (seats == nullptr) {
      seats = new ThreadSeats;
      seats_depth = fork_depth();
      struct AtThreadExit {
        ThreadSeats** seats;
        const std::uint64_t* depth;
        ~AtThreadExit() {
          // In a forked child they are the parent's.
          if (*seats == nullptr || *depth != fork_depth()) return;
          (*seats)->leave_all();
          delete *seats;
          *seats = nullptr;
        }
      };
      thread_local AtThreadExit at_thread_exit{&seats, &seats_depth};
      (void)at_thread_exit;
    }
    return *seats;
  }

  void leave_all() {
    thread_context.domain = 0;
    while (!held_.empty()) leave_last();
  }

  void leave_unused() {
    auto unused = std::stable_partition(
        held_.begin(), held_.end(),
        [](const Held& held) { return !held.domain->unused(); });
    while (held_.end() != unused) {
      const bool last = unused + 1 == held_.end();
      if (thread_context.domain == held_.back().domain->serial_)
        thread_context.domain = 0;
      leave_last();
      if (last) break;
    }
  }

  std::vector<Held>& held() { return held_; }

 private:
  void leave_last() {
    Held held = std::move(held_.back());
    held_.pop_back();
    Domain& domain = *held.domain;
    const bool process = domain.is_process(held.who);
    domain.leave(held.who,
                 process && !domain.unused() ? kTaken | kProcess | kUnheld : 0);
  }

  std::vector<Held> held_;
  ThreadSeats* older_ = nullptr;  // of a process further up
};

void leave_unused_seats() { ThreadSeats::mine().leave_unused(); }

Who Domain::find_seat() {
  fork_depth();
  ThreadSeats& seats = ThreadSeats::mine();
  const auto known = std::find_if(
      seats.held().begin(), seats.held().end(), [this](const auto& held) {
        return held.domain.get() == this && !is_process(held.who);
      });
  Who who;
  if (known != seats.held().end()) {
    who = known->who;
  } else {
    seats.leave_unused();
    if (thread_context.robust == nullptr) {
      thread_context.robust = find_robust_list();
      if (thread_context.robust == nullptr)
        throw_system_error(errno, "get_robust_list", "seat of a thread");
    }
    seats.held().reserve(seats.held().size() + 1);
    who = join(kTaken);
    seats.held().push_back({shared_from_this(), who});
  }
  thread_context.domain = serial_;
  thread_context.who = who;
  return who;
}

Who Domain::process_seat() {
  seat();
  const std::uint64_t here = fork_depth();
  // SYNC(domain.process_seat): of this very process, or of none yet.
  if (process_seat_depth_.load(std::memory_order_acquire) == here) {
    const Who known = process_seat_.load(std::memory_order_relaxed);
    if (known != 0 && (load_life(index_of(known)) & FUTEX_TID_MASK) != 0)
      return known;
  }
  static ForkMutex mutex;
  const std::lock_guard guard(mutex);
  ThreadSeats& seats = ThreadSeats::mine();
  seats.held().reserve(seats.held().size() + 1);
  // relaxed: under the mutex.
  Who who = process_seat_.load(std::memory_order_relaxed);
  if (who != 0 && process_seat_depth_.load(std::memory_order_relaxed) == here) {
    const std::uint32_t index = index_of(who);
    if ((load_life(index) & FUTEX_TID_MASK) != 0) return who;
    // Its holder has ended; from now on this thread holds it.
    const int outcome = pthread_mutex_trylock(&state_.life[index]);
    if (outcome == EOWNERDEAD) pthread_mutex_consistent(&state_.life[index]);
    if (outcome == 0 || outcome == EOWNERDEAD) {
      occupy(index);
      // SYNC(seat.status)
      state_.status[index].fetch_and(~kUnheld, std::memory_order_release);
      // Whoever waits for what the process has must ask the kernel anew.
      futex::wake(life(index), futex::kAll);
      seats.held().push_back({shared_from_this(), who});
    }
    return who;
  }
  who = join(kTaken | kProcess);
  seats.held().push_back({shared_from_this(), who});
  process_seat_.store(who, std::memory_order_relaxed);
  // SYNC(domain.process_seat)
  process_seat_depth_.store(here, std::memory_order_release);
  return who;
}

std::uint32_t Domain::own_process_index() const {
  // SYNC(domain.process_seat)
  if (process_seat_depth_.load(std::memory_order_acquire) != fork_depth())
    return kSeats;
  // relaxed: written before the depth; it may be another one of ours since.
  const Who who = process_seat_.load(std::memory_order_relaxed);
  return who == 0 ? kSeats : index_of(who);
}

// The calling thread, for the secondary proof.
void Domain::occupy(std::uint32_t index) {
  auto& occupant = state_.occupant[index];
  // relaxed: read only as a hint, and only after the status.
  occupant.pid.store(static_cast<std::uint32_t>(getpid()),
                     std::memory_order_relaxed);
  occupant.tid.store(static_cast<std::uint32_t>(gettid()),
                     std::memory_order_relaxed);
  occupant.joined_at.store(boot_time(), std::memory_order_relaxed);
  occupant.pid_namespace.store(own_pid_namespace(), std::memory_order_relaxed);
}

Who Domain::join(std::uint32_t flags) {
  retire_all();
  for (std::uint32_t index = 0; index < kSeats; ++index) {
    auto& status = state_.status[index];
    // relaxed: a hint; the mutex decides.
    if ((status.load(std::memory_order_relaxed) & kTaken) != 0) continue;
    // relaxed: who has raised it had the pages.
    if (index >= kFirstSeats &&
        index >= state_.high.load(std::memory_order_relaxed))
      segment::reserve_mapping("domain", &state_, sizeof state_);
    make_life(state_.life[index]);
    const int outcome = pthread_mutex_trylock(&state_.life[index]);
    if (outcome != 0 && outcome != EOWNERDEAD) continue;
    std::uint32_t high = state_.high.load(std::memory_order_relaxed);
    while (high < index + 1 &&
           !state_.high.compare_exchange_weak(high, index + 1,
                                              std::memory_order_acq_rel)) {
      // SYNC(domain.high)
    }
    const std::uint32_t before = status.load(std::memory_order_relaxed);
    // A process took it since the first look, and its thread has ended.
    if ((before & kTaken) != 0 &&
        (outcome == 0 ||
         ((before & kProcess) != 0 && !holder_gone(index, FUTEX_OWNER_DIED)))) {
      if (outcome != 0) pthread_mutex_consistent(&state_.life[index]);
      pthread_mutex_unlock(&state_.life[index]);
      continue;
    }
    std::uint32_t generation = ((before >> kStatusGenerationShift) + 1) &
                               ((1u << kGenerationBits) - 1);
    if (generation == 0) generation = 1;
    occupy(index);
    // SYNC(seat.status): what earlier tenants claimed is dead from here on.
    // KILL: the seat is taken by a dead thread, and is retired as such.
    status.store(generation << kStatusGenerationShift | flags,
                 std::memory_order_release);
    // An earlier tenant that nobody has retired: every object must sweep.
    if (outcome == EOWNERDEAD || (before & kTaken) != 0)
      // SYNC(domain.deaths)
      state_.deaths.fetch_add(1, std::memory_order_acq_rel);
    if (outcome == EOWNERDEAD) pthread_mutex_consistent(&state_.life[index]);
    // Whoever is about to sleep has not seen this thread.
    // SYNC(domain.joins)
    state_.joins.fetch_add(1, std::memory_order_acq_rel);
    return make_who(index, generation);
  }
  throw NoSpace("shoal: all " + std::to_string(kSeats) +
                    " seats are taken (one for each thread that uses an "
                    "object); end threads or processes that use shoal",
                1, 0);
}

void Domain::leave(Who who, std::uint32_t left_status) {
  const std::uint32_t index = index_of(who);
  // SYNC(seat.status)
  // KILL: free and still locked: the next joiner finds OWNER_DIED and counts
  // one death too many, which costs one sweep.
  state_.status[index].store(
      generation_of(who) << kStatusGenerationShift | left_status,
      std::memory_order_release);
  pthread_mutex_unlock(&state_.life[index]);
  futex::wake(life(index), futex::kAll);
}

void Domain::ring_bell() {
  // SYNC(domain.bell): what happened to the object is visible to whoever sees
  // the count.
  state_.bell.fetch_add(1, std::memory_order_release);
  futex::wake(state_.bell, futex::kAll);
}

std::uint32_t Domain::seats_taken() const {
  std::uint32_t taken = 0;
  // relaxed: a snapshot.
  for (const auto& status : state_.status)
    taken += status.load(std::memory_order_relaxed) & kTaken;
  return taken;
}

}  // namespace shoal::liveness
