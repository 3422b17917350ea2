#pragma once
// Who is alive: seats that the kernel itself declares dead.
//
//   Who me = domain.seat();         // joins on the first call of a thread
//   if (domain.dead(who)) ...       // one or two loads
//
// A domain is a table of seats that the users of some objects share: one for
// all anonymous objects of a process tree, one in each named object. A seat is
// a robust process-shared mutex that its thread holds for life. When a thread
// dies the kernel marks the mutex in that thread's own exit, so that no later
// store of the dead can exist.
//
// A claim in flight names a thread's seat. What outlives a call and may move
// between threads (a loan, a lease) names the process's seat: held by one of
// its threads, and dead only when the whole process is.
//
// Sharing:  any thread of any process that maps the domain.
// Death:    a dead seat is retired by whoever notices: the count of deaths
//           moves first, so that every object of the domain sweeps its claims
//           (Domain::deaths), then the seat becomes free. Repeatable at every
//           step. A seat that is taken over at once does the same.
// Cost:     seat() two loads and two compares; dead() one or two loads.
// Layout:   docs/layout.md#domain

#include <linux/futex.h>
#include <pthread.h>
#include <sys/types.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>

#include "shoal/ipc/asymmetric_fence.h"
#include "shoal/ipc/controls.h"
#include "shoal/ipc/futex.h"
#include "shoal/ipc/segment.h"

namespace shoal::liveness {

inline constexpr std::uint32_t kSeats = 1024;

// 34 bits: seat index | generation << 10. Never 0: generations start at 1.
using Who = std::uint64_t;
inline constexpr unsigned kIndexBits = 10;
inline constexpr unsigned kGenerationBits = 24;
inline constexpr Who kWhoMask = (Who{1} << (kIndexBits + kGenerationBits)) - 1;
// Names nobody; marks the end of a closed ring.
inline constexpr Who kNobody = kWhoMask;

constexpr std::uint32_t index_of(Who who) {
  return static_cast<std::uint32_t>(who & (kSeats - 1));
}
constexpr std::uint32_t generation_of(Who who) {
  return static_cast<std::uint32_t>(who >> kIndexBits) &
         ((1u << kGenerationBits) - 1);
}
constexpr Who make_who(std::uint32_t index, std::uint32_t generation) {
  return Who{index} | Who{generation} << kIndexBits;
}

// SeatState::status
//   bits 0      taken
//   bit  1      stands for a process, not for a thread
//   bit  2      process seat whose holding thread left while the process lives
//   bits 8..31  generation
inline constexpr std::uint32_t kTaken = 1;
inline constexpr std::uint32_t kProcess = 2;
inline constexpr std::uint32_t kUnheld = 4;
inline constexpr unsigned kStatusGenerationShift = 8;

// Who sits here, for the secondary proof. Written by the joiner only.
struct OccupantState {
  std::atomic<std::uint32_t> pid;
  std::atomic<std::uint32_t> tid;
  std::atomic<std::uint64_t> joined_at;      // CLOCK_BOOTTIME, nanoseconds
  std::atomic<std::uint64_t> pid_namespace;  // inode
};

struct DomainState {
  std::uint32_t seats;
  asymmetric_fence::Mode barrier_mode;
  std::atomic<std::uint32_t> high;    // seats ever taken; grows; any joiner
  std::atomic<std::uint32_t> joins;   // seats taken so far; any joiner
  std::uint64_t id;                   // random; names the domain in messages
  std::atomic<std::uint64_t> keeper;  // its number (keeper.h); any starter
  alignas(64) std::atomic<std::uint64_t> deaths;  // retirements; any thread
  // Counts what happened to objects that somebody waits for together with
  // others (waiting.h, bells); any thread.
  futex::Word bell;
  alignas(64) std::array<std::atomic<std::uint32_t>, kSeats> status;
  std::array<pthread_mutex_t, kSeats> life;
  std::array<OccupantState, kSeats> occupant;
};
static_assert(std::is_standard_layout_v<DomainState>);
static_assert(offsetof(DomainState, id) == 16);
static_assert(offsetof(DomainState, keeper) == 24);
static_assert(offsetof(DomainState, deaths) == 64);
static_assert(offsetof(DomainState, bell) == 72);
static_assert(offsetof(DomainState, status) == 128);
static_assert(offsetof(DomainState, life) == 128 + 4 * kSeats);
static_assert(offsetof(pthread_mutex_t, __data.__lock) == 0);
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

// Into zeroed memory.
void initialise(DomainState& state);

// ---- what one thread keeps ----

struct ThreadContext {
  std::uint64_t domain;  // serial number of the domain that `who` is of
  Who who;
  robust_list_head* robust;  // this thread's, as the kernel knows it
};
extern thread_local constinit ThreadContext thread_context;

// One page that the kernel empties in every forked child.
extern std::atomic<std::atomic<std::uint32_t>*> fork_page;
inline bool forked() {
  // relaxed: written by this process only, before any thread of it can read.
  return fork_page.load(std::memory_order_relaxed)
             ->load(std::memory_order_relaxed) == 0;
}
// Counts the forks between the root of the tree and this process; a handle
// that remembers it knows whether it was made by this very process.
extern std::atomic<std::uint64_t> known_fork_depth;
std::uint64_t find_fork_depth();
inline std::uint64_t fork_depth() {
  // SYNC(fork_page)
  const auto* page = fork_page.load(std::memory_order_acquire);
  // relaxed: changed in a forked child's only thread.
  return __builtin_expect(
             page != nullptr && page->load(std::memory_order_relaxed) != 0, 1)
             ? known_fork_depth.load(std::memory_order_relaxed)
             : find_fork_depth();
}

// This process knows that another has ended: it has reaped it.
void note_end();

// The calling thread's, as the kernel knows it, or nullptr. Async-signal-safe;
// errno may change.
robust_list_head* find_robust_list();

// The wake that the kernel passes on: while armed, the death of this thread
// makes the kernel wake one sleeper on `word`, whose low 30 bits must be 0.
class PassedWake {
 public:
  PassedWake(robust_list_head* robust, const futex::Word& word)
      : robust_(robust), saved_(robust->list_op_pending) {
    arm(robust, word);
  }
  ~PassedWake() {
    std::atomic_signal_fence(std::memory_order_seq_cst);
    robust_->list_op_pending = saved_;
  }
  PassedWake(const PassedWake&) = delete;
  PassedWake& operator=(const PassedWake&) = delete;

  static void arm(robust_list_head* robust, const futex::Word& word);

 private:
  robust_list_head* robust_;
  robust_list* saved_;
};

// ---- a mapped domain ----

// The same for code without calls, which keeps it in registers and disarms by
// hand. The calling thread sits (Domain::sits).
struct StraightWake {
  static StraightWake arm(const futex::Word& word) {
    robust_list_head* robust = thread_context.robust;
    robust_list* saved = robust->list_op_pending;
    PassedWake::arm(robust, word);
    return {robust, saved};
  }
  void disarm() const {
    std::atomic_signal_fence(std::memory_order_seq_cst);
    robust->list_op_pending = saved;
  }

  robust_list_head* robust = nullptr;
  robust_list* saved = nullptr;
};

// The life words of the threads that sit in a domain, as they were at a moment:
// as long as all of them are the same, none of these threads has died and
// nobody has joined. At most kMost; with more of them it is not complete.
class Watch {
 public:
  static constexpr std::size_t kMost = futex::kMostWords - 3;
  Watch() = default;
  // For one who sleeps on none of the words that the dead wake at, and is to be
  // woken by the deaths themselves: the kernel wakes one of those for each.
  static Watch that_wakes() {
    Watch watch;
    watch.wants_wakes_ = true;
    return watch;
  }
  bool wants_wakes() const { return wants_wakes_; }
  bool complete() const { return complete_; }
  std::span<const futex::Expected> words() const { return {words_, count_}; }
  void add(const futex::Word& word, std::uint32_t value) {
    if (count_ == kMost)
      complete_ = false;
    else
      words_[count_++] = {&word, value};
  }

 private:
  std::size_t count_ = 0;
  bool complete_ = true;
  bool wants_wakes_ = false;
  futex::Expected words_[kMost];
};

class Domain;

// Keeps a domain in use for as long as it lives.
class DomainUse {
 public:
  DomainUse() = default;
  explicit DomainUse(std::shared_ptr<Domain> domain);
  DomainUse(DomainUse&& other) noexcept = default;
  DomainUse& operator=(DomainUse&& other) = delete;
  ~DomainUse();

  explicit operator bool() const { return domain_ != nullptr; }
  Domain& operator*() const { return *domain_; }
  Domain* operator->() const { return domain_.get(); }

 private:
  std::shared_ptr<Domain> domain_;
};

class Domain : public std::enable_shared_from_this<Domain> {
 public:
  // The process tree's own; made at the first call in the tree, and anew after
  // the last of this process's objects in it is gone.
  static std::shared_ptr<Domain> tree();
  // The same, counted as used before anybody can find it unused.
  static DomainUse use_tree();
  // Another tree's, out of its segment; the same one each time. Throws Corrupt
  // when the segment holds no domain with this id.
  static DomainUse adopt(segment::File file, std::uint64_t id);
  // The same, as this process's own tree unless it has one.
  static DomainUse become_tree(segment::File file, std::uint64_t id);
  // One that lies in a named segment. `mapping` keeps it mapped, apart from
  // the object's own mapping, for as long as any thread holds a seat in it.
  static std::shared_ptr<Domain> attach(DomainState& state,
                                        std::shared_ptr<void> mapping);

  Domain(DomainState& state, std::shared_ptr<void> mapping);

  // The calling thread's seat; also makes thread_context.robust valid.
  // Throws NoSpace when 1,024 are taken, or there are no pages for one from the
  // 65th on; std::system_error from the kernel.
  Who seat() {
    Who who;
    return __builtin_expect(sits(who), 1) ? who : find_seat();
  }
  // False: seat() has more to do.
  bool sits(Who& who) const {
    who = thread_context.who;
    return thread_context.domain == serial_ && !forked();
  }
  // This process's seat.
  Who process_seat();

  bool dead(Who who) const;
  bool is_process(Who who) const;
  // It lives, and is of this process.
  bool is_ours(Who who) const;
  // The word that changes when the holder of the seat dies, prepared so that
  // the kernel wakes a sleeper on it; `value` is what to sleep on.
  const futex::Word& life_word(Who who, std::uint32_t& value) const;

  // Number of retirements. An object that has swept since this number changed
  // holds no claim of the dead.
  std::uint64_t deaths() const {
    // SYNC(domain.deaths): pairs with retire().
    return state_.deaths.load(std::memory_order_acquire);
  }
  // Looks at a few seats, in turn: flat cost, for calls that do not block. At
  // all of them once after note_end().
  void retire_some();
  // Looks at all seats; before a thread sleeps, which then watches them.
  void retire_all(Watch* watch = nullptr);
  // Secondary proof, for a claim that looks alive but is stuck: true if the
  // kernel knows no such thread any more, and then dead(who) is true, too.
  bool prove_dead(Who who);

  // Those who wait for several objects of this domain at once sleep here.
  futex::Word& bell() const { return state_.bell; }
  void ring_bell();

  std::uint64_t id() const { return id_; }
  std::atomic<std::uint64_t>& keeper() const { return state_.keeper; }
  // Of the segment that holds a tree's domain, for other trees; -1: it lies in
  // an object's, or its last object is gone here.
  int descriptor() const { return file_ ? file_->descriptor() : -1; }

  asymmetric_fence::Mode barrier_mode() const { return state_.barrier_mode; }
  bool needs_fence() const { return needs_fence_; }
  std::uint32_t seats_taken() const;
  // No seat with this index or a higher one was ever taken.
  std::uint32_t high() const {
    // SYNC(domain.high)
    const std::uint32_t high = state_.high.load(std::memory_order_acquire);
    return high < kSeats ? high : kSeats;
  }

  // Objects mapped by this process that use the domain. When the last goes,
  // threads give their seats back at their next join.
  void add_user() { users_.fetch_add(1, std::memory_order_relaxed); }
  void remove_user();
  bool unused() const {
    // relaxed: only decides when a seat is given back.
    return users_.load(std::memory_order_relaxed) == 0;
  }

 private:
  friend class ThreadSeats;

  Who find_seat();
  // Or kSeats when it has none.
  std::uint32_t own_process_index() const;
  // Takes any free seat with these flags; the caller then holds its mutex.
  Who join(std::uint32_t flags);
  void occupy(std::uint32_t index);
  void leave(Who who, std::uint32_t left_status);
  void retire(std::uint32_t index, std::uint32_t status);
  bool retire_if_dead(std::uint32_t index);
  bool holder_gone(std::uint32_t index, std::uint32_t word) const;
  std::uint32_t load_life(std::uint32_t index) const;
  // The same, prepared so that its holder's death wakes.
  std::uint32_t ask_for_wake(std::uint32_t index) const;
  futex::Word& life(std::uint32_t index) const;

  static std::shared_ptr<Domain> make_tree();
  static DomainUse adopt(segment::File file, std::uint64_t id, bool as_tree);

  DomainState& state_;
  std::shared_ptr<void> mapping_;
  std::optional<segment::File> file_;  // under the mutex of tree()
  const std::uint64_t serial_;
  const std::uint64_t id_;
  const bool needs_fence_;
  std::atomic<std::uint32_t> users_{0};
  std::atomic<std::uint32_t> cursor_{0};     // of retire_some
  std::atomic<std::uint64_t> ends_seen_{0};  // by retire_some
  std::atomic<std::uint64_t> process_seat_{0};
  std::atomic<std::uint64_t> process_seat_depth_{0};
};

// True once a thread has shown that this kernel passes wakes on (5.5 does so
// for zero words only; 6.2 and its backports do). Computed once per process
// tree, without a fork. False: sleepers park in slices of 20 ms.
bool kernel_passes_wakes();

// ---- inline ----

inline DomainUse::DomainUse(std::shared_ptr<Domain> domain)
    : domain_(std::move(domain)) {
  domain_->add_user();
}
inline DomainUse::~DomainUse() {
  if (domain_ != nullptr) domain_->remove_user();
}

inline void PassedWake::arm(robust_list_head* robust, const futex::Word& word) {
  if constexpr (controls::kPassedWake) {
    // KILL: from here on our death wakes a sleeper on `word`.
    robust->list_op_pending = reinterpret_cast<robust_list*>(
        reinterpret_cast<std::uintptr_t>(&word) -
        static_cast<std::uintptr_t>(robust->futex_offset));
    std::atomic_signal_fence(std::memory_order_seq_cst);
  }
}

inline std::uint32_t Domain::load_life(std::uint32_t index) const {
  // SYNC(seat.life): pairs with the kernel's and glibc's release of the mutex.
  return life(index).load(std::memory_order_acquire);
}

inline futex::Word& Domain::life(std::uint32_t index) const {
  return *reinterpret_cast<futex::Word*>(&state_.life[index]);
}

inline bool Domain::dead(Who who) const {
  const std::uint32_t index = index_of(who);
  // From a word that is no claim: nobody has had it, and it may have no page.
  if (index >= high()) return true;
  // The word first, then the status: a seat that is taken over changes its
  // status before its word can be seen as held by the new thread's claims.
  const std::uint32_t word = load_life(index);
  // SYNC(seat.status): pairs with join, leave and retire.
  const std::uint32_t status =
      state_.status[index].load(std::memory_order_acquire);
  if ((status & kTaken) == 0 ||
      status >> kStatusGenerationShift != generation_of(who))
    return true;
  if ((word & FUTEX_TID_MASK) != 0) return false;
  return (status & kProcess) == 0 || holder_gone(index, word);
}

inline bool Domain::is_process(Who who) const {
  // relaxed: the flag cannot change while the seat is held.
  return (state_.status[index_of(who)].load(std::memory_order_relaxed) &
          kProcess) != 0;
}

}  // namespace shoal::liveness
