#include "shoal/ipc/liveness.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "shoal/ipc/at_fork.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/fork_mutex.h"
#include "shoal/ipc/lazy_static.h"
#include "shoal/ipc/segment.h"
#include "shoal/ipc/task_status.h"

namespace shoal::liveness {

thread_local constinit ThreadContext thread_context{};
constinit std::atomic<std::atomic<std::uint32_t>*> fork_page{nullptr};
constinit std::atomic<std::uint64_t> known_fork_depth{0};

namespace {

std::atomic<std::uint64_t> next_domain{1};
std::atomic<std::uint64_t> known_ends{0};

// In the child's only thread, before any other can start.
SHOAL_AT_FORK const AtFork counted(nullptr, nullptr, [] {
  // SYNC(fork_page)
  if (fork_page.load(std::memory_order_acquire) != nullptr) fork_depth();
});

// This process's; whoever comes makes it, and one of them is taken.
std::atomic<std::uint32_t>* writable_fork_page() {
  // SYNC(fork_page)
  auto* known = fork_page.load(std::memory_order_acquire);
  if (known != nullptr) return known;
  void* page = mmap(nullptr, segment::kPage, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) throw_system_error(errno, "mmap", "fork page");
  if (madvise(page, segment::kPage, MADV_WIPEONFORK) != 0)
    throw_system_error(errno, "madvise(MADV_WIPEONFORK)", "fork page");
  auto* word = static_cast<std::atomic<std::uint32_t>*>(page);
  // relaxed: nobody else knows the page yet.
  word->store(1, std::memory_order_relaxed);
  // SYNC(fork_page): pairs with fork_depth().
  if (fork_page.compare_exchange_strong(known, word, std::memory_order_acq_rel,
                                        std::memory_order_acquire))
    return word;
  munmap(page, segment::kPage);
  return known;
}

bool started_after(const TaskStatus& seen, const OccupantState& occupant) {
  constexpr std::uint64_t kTick = 10'000'000;
  // relaxed: a hint, see occupy().
  return seen.started_at >
         occupant.joined_at.load(std::memory_order_relaxed) + kTick;
}

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

// Of the first seats a domain has the pages when it is made, of the others when
// one of them is taken.
constexpr std::size_t kFirstSeats = 64;
constexpr std::size_t kFirstBytes = segment::round_to_page(
    offsetof(DomainState, life) + kFirstSeats * sizeof(pthread_mutex_t));
constexpr std::size_t kFirstOccupants =
    offsetof(DomainState, occupant) / segment::kPage * segment::kPage;
constexpr std::size_t kFirstOccupantBytes =
    segment::round_to_page(offsetof(DomainState, occupant) +
                           kFirstSeats * sizeof(OccupantState)) -
    kFirstOccupants;

// Kept, as the kernel makes a file for each look. It changes at a fork at most:
// unshare() and setns() are for the children to come.
std::uint64_t own_pid_namespace() {
  static std::atomic<std::uint64_t> known{0};
  static std::atomic<std::uint64_t> known_depth{0};
  const std::uint64_t depth = fork_depth() + 1;
  // SYNC(pid_namespace)
  if (known_depth.load(std::memory_order_acquire) == depth)
    return known.load(std::memory_order_relaxed);
  const std::uint64_t found = pid_namespace();
  if (found == 0) return 0;  // perhaps it can be seen later
  // relaxed: other threads store the same.
  known.store(found, std::memory_order_relaxed);
  // SYNC(pid_namespace)
  known_depth.store(depth, std::memory_order_release);
  return found;
}

}  // namespace

std::uint64_t find_fork_depth() {
  // SYNC(fork_page)
  if (fork_page.load(std::memory_order_acquire) != nullptr && forked()) {
    // In the child only the forking thread exists (pthread_atfork). What the
    // parent's thread held stays the parent's.
    // relaxed: no other thread yet.
    known_fork_depth.fetch_add(1, std::memory_order_relaxed);
    if (thread_context.robust != nullptr)
      thread_context.robust->list_op_pending = nullptr;
    thread_context = {};
    writable_fork_page()->store(1, std::memory_order_relaxed);
  }
  writable_fork_page();
  return known_fork_depth.load(std::memory_order_relaxed);
}

robust_list_head* find_robust_list() {
  if (thread_context.robust != nullptr) return thread_context.robust;
  robust_list_head* head = nullptr;
  std::size_t size;
  if (syscall(SYS_get_robust_list, 0, &head, &size) != 0) return nullptr;
  // Refused to libc when the thread began: a filter.
  if (head == nullptr) errno = EPERM;
  return head;
}

void note_end() {
  // relaxed: for the thread that knows, and whom it tells.
  known_ends.fetch_add(1, std::memory_order_relaxed);
}

void initialise(DomainState& state) {
  state.seats = kSeats;
  state.barrier_mode = asymmetric_fence::default_mode();
  state.id = segment::random_id();
}

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

Domain::Domain(DomainState& state, std::shared_ptr<void> mapping)
    : state_(state),
      mapping_(std::move(mapping)),
      serial_(next_domain.fetch_add(1, std::memory_order_relaxed)),
      id_(state.id),
      needs_fence_(asymmetric_fence::needs_fence(state.barrier_mode)) {}

namespace {

struct Tree {
  std::shared_ptr<Domain> current;
  // Trees' domains that this process has mapped.
  std::vector<std::weak_ptr<Domain>> mapped;
};
// Never destroyed: objects may outlive static ones.
constinit LazyStatic<Tree> the_tree;
constinit ForkMutex tree_mutex;
SHOAL_AT_FORK const HeldAtFork<tree_mutex> held_at_fork;

void remember(Tree& tree, const std::shared_ptr<Domain>& domain) {
  std::erase_if(tree.mapped, [](const auto& known) { return known.expired(); });
  tree.mapped.push_back(domain);
}

}  // namespace

std::shared_ptr<Domain> Domain::make_tree() {
  kernel_passes_wakes();
  constexpr std::size_t kBytes = segment::round_to_page(sizeof(DomainState));
  auto file = segment::File::anonymous("domain", kBytes);
  file.reserve(0, kFirstBytes);
  file.reserve(kFirstOccupants, kFirstOccupantBytes);
  file.seal();
  auto mapping = file.map(0, kBytes, false, false);
  auto* state = static_cast<DomainState*>(mapping.get());
  initialise(*state);
  auto made = std::make_shared<Domain>(*state, std::move(mapping));
  made->file_.emplace(std::move(file));
  return made;
}

std::shared_ptr<Domain> Domain::tree() {
  Tree& tree = the_tree.get();
  {
    const std::lock_guard guard(tree_mutex);
    if (tree.current != nullptr) return tree.current;
  }
  // Not under the mutex: what is made may be refused by the kernel, or slow.
  auto made = make_tree();
  const std::lock_guard guard(tree_mutex);
  if (tree.current == nullptr) {
    remember(tree, made);
    tree.current = std::move(made);
  }
  return tree.current;  // another thread may have been first
}

DomainUse Domain::use_tree() {
  Tree& tree = the_tree.get();
  for (;;) {
    auto domain = Domain::tree();
    const std::lock_guard guard(tree_mutex);
    if (tree.current == domain) return DomainUse(std::move(domain));
  }
}

DomainUse Domain::adopt(segment::File file, std::uint64_t id, bool as_tree) {
  kernel_passes_wakes();
  constexpr std::size_t kBytes = segment::round_to_page(sizeof(DomainState));
  Tree& tree = the_tree.get();
  const std::lock_guard guard(tree_mutex);
  std::shared_ptr<Domain> domain;
  for (const auto& known : tree.mapped)
    if (auto mapped = known.lock(); mapped != nullptr && mapped->id() == id)
      domain = std::move(mapped);
  if (domain == nullptr) {
    if (file.size() != kBytes)
      throw Corrupt(file.what() + ": no domain has " +
                    std::to_string(file.size()) + " bytes");
    auto mapping = file.map(0, kBytes, false, false);
    auto& state = *static_cast<DomainState*>(mapping.get());
    domain = std::make_shared<Domain>(state, std::move(mapping));
    if (state.seats != kSeats || domain->id() != id)
      throw Corrupt(file.what() + " is not the domain that was announced");
    remember(tree, domain);
  }
  // Gone when the last object went; back with the next.
  if (!domain->file_) domain->file_.emplace(std::move(file));
  if (as_tree && tree.current == nullptr) tree.current = domain;
  return DomainUse(std::move(domain));
}

DomainUse Domain::adopt(segment::File file, std::uint64_t id) {
  return adopt(std::move(file), id, false);
}

DomainUse Domain::become_tree(segment::File file, std::uint64_t id) {
  return adopt(std::move(file), id, true);
}

std::shared_ptr<Domain> Domain::attach(DomainState& state,
                                       std::shared_ptr<void> mapping) {
  kernel_passes_wakes();
  return std::make_shared<Domain>(state, std::move(mapping));
}

void Domain::remove_user() {
  const auto self = shared_from_this();
  std::shared_ptr<Domain> last;
  {
    Tree& tree = the_tree.get();
    const std::lock_guard guard(tree_mutex);
    // relaxed: under the mutex, as in use_tree().
    if (users_.fetch_sub(1, std::memory_order_relaxed) != 1) return;
    // No descriptor outlives the last object.
    if (tree.current.get() == this) last = std::move(tree.current);
    file_.reset();
  }
  ThreadSeats::mine().leave_unused();
}

void Domain::ring_bell() {
  // SYNC(domain.bell): what happened to the object is visible to whoever sees
  // the count.
  state_.bell.fetch_add(1, std::memory_order_release);
  futex::wake(state_.bell, futex::kAll);
}

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

std::uint32_t Domain::seats_taken() const {
  std::uint32_t taken = 0;
  // relaxed: a snapshot.
  for (const auto& status : state_.status)
    taken += status.load(std::memory_order_relaxed) & kTaken;
  return taken;
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
