#include "shoal/ipc/barrier.h"

#include <algorithm>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "shoal/ipc/controls.h"
#include "shoal/ipc/errors.h"

namespace shoal {
namespace {

using liveness::Who;
using waiting::Side;
using waiting::Status;
using Slot = BarrierState::Slot;

constexpr std::uint64_t kBroken = 2;
constexpr unsigned kRoundShift = 2;
constexpr unsigned kHistoryShift = 32;
constexpr unsigned kSlotRoundShift = 34;
constexpr std::uint32_t kRoundMask = (1u << 30) - 1;
constexpr std::uint32_t kFirstRound = 2;  // after that of zeroed slots

constexpr std::uint32_t round_of(std::uint64_t word) {
  return static_cast<std::uint32_t>(word >> kRoundShift) & kRoundMask;
}
constexpr bool is_broken(std::uint64_t word) { return (word & kBroken) != 0; }
constexpr std::uint64_t make_word(std::uint32_t round, std::uint32_t history) {
  return std::uint64_t{round & kRoundMask} << kRoundShift |
         std::uint64_t{history} << kHistoryShift;
}
constexpr std::uint64_t after(std::uint64_t word, bool completed) {
  const auto history = static_cast<std::uint32_t>(word >> kHistoryShift);
  return completed ? make_word(round_of(word) + 1, history << 1 | 1)
                   : make_word(round_of(word) + 2, history << 2);
}

constexpr std::uint64_t make_slot(Who who, std::uint32_t round) {
  return who | std::uint64_t{round} << kSlotRoundShift;
}
constexpr Who who_of(std::uint64_t slot) { return slot & liveness::kWhoMask; }
constexpr std::uint32_t slot_round(std::uint64_t slot) {
  return static_cast<std::uint32_t>(slot >> kSlotRoundShift);
}
// Rounds go round.
constexpr bool older(std::uint32_t a, std::uint32_t b) {
  return a != b && ((b - a) & kRoundMask) < (kRoundMask >> 1);
}

// No longer a party, and not by death.
void leave(Slot& slot, std::uint64_t word) {
  // SYNC(barrier.slot)
  // KILL: nobody, or a dead party.
  slot.compare_exchange_strong(word, word & ~liveness::kWhoMask,
                               std::memory_order_acq_rel,
                               std::memory_order_relaxed);
}

// What this process keeps for all its handles of one barrier. When it goes, the
// threads of the process are parties no more.
struct Local {
  Local(Slot* first, std::uint32_t n, liveness::Domain& seats)
      : slots(first), count(n), domain(seats) {}
  Local(const Local&) = delete;
  Local& operator=(const Local&) = delete;
  ~Local() {
    leave_all([this](Who who) { return domain.is_ours(who); });
  }

  template <class IsOne>
  void leave_all(IsOne is_one) const {
    for (std::uint32_t i = 0; i < count; ++i) {
      // SYNC(barrier.slot)
      const std::uint64_t word = slots[i].load(std::memory_order_acquire);
      if (who_of(word) != 0 && is_one(who_of(word))) leave(slots[i], word);
    }
  }

  Slot* const slots;
  const std::uint32_t count;
  liveness::Domain& domain;
  std::shared_ptr<const Barrier::Action> action;  // under companion_mutex
};

// The barriers of which a thread is a party. Made after the thread's seats and
// so gone before them: a thread that ends normally leaves in time.
class Memberships {
 public:
  static Memberships& mine() {
    thread_local Memberships memberships;
    return memberships;
  }

  void add(const std::shared_ptr<Object>& object, Who who) {
    if (depth_ != liveness::fork_depth()) {
      // Inherited: those of the parent's thread.
      all_.clear();
      depth_ = liveness::fork_depth();
    }
    for (const Membership& known : all_)
      if (known.who == who && known.serial == object->serial()) return;
    std::erase_if(all_, [](const Membership& m) { return m.object.expired(); });
    all_.push_back({object, object->serial(), who});
  }

  Memberships() = default;
  Memberships(const Memberships&) = delete;
  Memberships& operator=(const Memberships&) = delete;
  ~Memberships() {
    if (depth_ != liveness::fork_depth()) return;
    for (const Membership& known : all_)
      if (const auto object = known.object.lock())
        static_cast<const Local*>(object->companion.get())
            ->leave_all([&](Who who) { return who == known.who; });
  }

 private:
  struct Membership {
    std::weak_ptr<Object> object;
    std::uint64_t serial;
    Who who;
  };
  std::uint64_t depth_ = liveness::fork_depth();
  std::vector<Membership> all_;
};

}  // namespace

// One who waits: until its round is over, or, if it came when all had, until
// the round is another.
class Barrier::Sleeper {
 public:
  Sleeper(const Barrier& barrier, Who me, std::uint32_t round)
      : barrier_(barrier), me_(me), round_(round) {}

  Status attempt() const { return barrier_.outcome(barrier_.load(), round_); }
  waiting::WaitState& wait_state() const { return barrier_.state_->wait; }
  liveness::Domain& domain() const { return *barrier_.domain_; }
  waiting::SpinBudget& spin() const { return barrier_.object_->spin; }
  bool looks_ready(Side) const {
    return round_of(barrier_.state_->word.load(std::memory_order_relaxed)) !=
           round_;
  }
  void sweep() const { barrier_.break_if_dead(barrier_.load()); }
  void pass_baton(bool) const {
    const std::uint64_t word = barrier_.load();
    // SYNC(barrier.woken)
    if (barrier_.state_->woken.load(std::memory_order_acquire) !=
        static_cast<std::uint32_t>(word))
      barrier_.wake_all(word);
  }
  // The kernel is told to wake us for every party; the one that is named, a
  // party of the last round or who runs the action, is looked at more closely.
  Who holder_behind(Side) {
    Who named = 0;
    const std::uint32_t n = barrier_.parties_;
    for (std::uint32_t i = 0; i < 2 * n; ++i) {
      const bool last_round = i < n;
      const std::uint32_t which = last_round ? (turn_ + i) % n : i - n;
      const std::uint32_t round = last_round ? round_ - 1 : round_;
      // SYNC(barrier.slot)
      const std::uint64_t slot =
          barrier_.slots_of(round)[which].load(std::memory_order_acquire);
      const Who who = who_of(slot);
      if (slot_round(slot) != (round & kRoundMask) || who == 0 || who == me_)
        continue;
      std::uint32_t alive;
      domain().life_word(who, alive);
      if (named == 0 && (last_round || which == n - 1)) named = who;
    }
    ++turn_;
    return named;
  }

 private:
  const Barrier& barrier_;
  const Who me_;
  const std::uint32_t round_;
  std::uint32_t turn_ = 0;
};

// ---- making ----

Spec Barrier::object_spec() {
  return {.kind = Kind::barrier,
          .fingerprint = sizeof(BarrierState),
          .type_text = "Barrier",
          .payload_bytes = sizeof(BarrierState)};
}

Spec Barrier::spec(int parties, bool has_action, Timeout timeout) {
  if (parties < 1 || parties > kMostParties)
    throw std::invalid_argument(
        "shoal: Barrier of " + std::to_string(parties) +
        " parties; from 1 to " + std::to_string(kMostParties) +
        " (each is a thread with a seat, and there are no more seats)");
  Spec spec = object_spec();
  spec.payload_bytes += 2 * static_cast<std::size_t>(parties) * sizeof(Slot);
  spec.initialise = [=](void* payload) {
    auto& state = *static_cast<BarrierState*>(payload);
    // relaxed: nobody else sees it yet.
    state.word.store(make_word(kFirstRound, 0), std::memory_order_relaxed);
    state.parties = static_cast<std::uint32_t>(parties);
    state.timeout = timeout.nanoseconds();
    state.has_action = has_action;
  };
  return spec;
}

Barrier::Barrier(int parties, const Action& action, Timeout timeout)
    : Barrier(Object::create(spec(parties, static_cast<bool>(action), timeout)),
              action) {}

Barrier Barrier::create(std::string_view name, int parties,
                        const Action& action, Timeout timeout, Access access) {
  return Barrier(
      Object::create(name, spec(parties, static_cast<bool>(action), timeout),
                     access),
      action);
}

Barrier Barrier::open(std::string_view name, const Action& action,
                      Access access) {
  return Barrier(Object::open(name, object_spec(), access), action);
}

Barrier Barrier::open_or_create(std::string_view name, int parties,
                                const Action& action, Timeout timeout,
                                Access access) {
  return Barrier(
      Object::open_or_create(
          name, spec(parties, static_cast<bool>(action), timeout), access),
      action);
}

Barrier::Barrier(std::shared_ptr<Object> object, const Action& action)
    : object_(std::move(object)),
      state_(static_cast<BarrierState*>(object_->payload())),
      slots_(reinterpret_cast<Slot*>(state_ + 1)),
      parties_(state_->parties),
      domain_(&object_->domain()),
      fenced_(domain_->needs_fence()) {
  if (parties_ < 1 || parties_ > kMostParties ||
      object_->header().payload_bytes <
          sizeof(BarrierState) + std::uint64_t{2} * parties_ * sizeof(Slot))
    throw Corrupt(object_->name() + ": a Barrier of " +
                  std::to_string(parties_) + " parties in a segment of " +
                  std::to_string(object_->header().payload_bytes) +
                  " bytes; unlink it");
  if (action) action_ = std::make_shared<const Action>(action);
  const std::lock_guard guard(object_->companion_mutex);
  if (object_->companion == nullptr)
    object_->companion =
        std::make_shared<Local>(slots_, 2 * parties_, *domain_);
  // A handle that comes by message has the action of those that are here.
  auto& local = *static_cast<Local*>(object_->companion.get());
  if (action_ == nullptr) action_ = local.action;
  if (local.action == nullptr) local.action = action_;
}

// ---- the word ----

std::uint64_t Barrier::load() const {
  // SYNC(barrier.word)
  return state_->word.load(std::memory_order_acquire);
}

// How it stands for one who has arrived in `round`.
Status Barrier::outcome(std::uint64_t word, std::uint32_t round) const {
  const std::uint32_t since = (round_of(word) - round) & kRoundMask;
  if (since == 0) return is_broken(word) ? Status::closed : Status::blocked;
  // Of one who has slept for so long, it is only known whether it was still
  // waiting when somebody called reset().
  // SYNC(barrier.last_reset)
  const bool completed =
      since <= 32
          ? (word >> (kHistoryShift + since - 1) & 1) != 0
          : !older(round, state_->last_reset.load(std::memory_order_acquire));
  return completed ? Status::ok : Status::closed;
}

Slot* Barrier::slots_of(std::uint32_t round) const {
  return slots_ + (round & 1) * parties_;
}

// The caller is armed.
bool Barrier::change(std::uint64_t word, std::uint64_t to) const {
  // SYNC(barrier.word): what all did before they arrived, and the action, are
  // visible to whoever is let go.
  // KILL: changed; the kernel wakes one, who wakes all.
  if (!state_->word.compare_exchange_strong(word, to, std::memory_order_acq_rel,
                                            std::memory_order_relaxed))
    return false;
  asymmetric_fence::light(fenced_);
  wake_all(to);
  return true;
}

void Barrier::wake_all(std::uint64_t word) const {
  waiting::wake(state_->wait, Side::consumers, *domain_, futex::kAll);
  // SYNC(barrier.woken): the wakes come first.
  // KILL: not noted: whoever awakes next wakes all once more.
  state_->woken.store(static_cast<std::uint32_t>(word),
                      std::memory_order_release);
}

// Looks at all parties: of the last round, and of this one.
void Barrier::break_if_dead(std::uint64_t word) const {
  if constexpr (!controls::kSweep) return;
  if (is_broken(word)) return;
  for (const std::uint32_t round : {round_of(word) - 1, round_of(word)}) {
    const Slot* slots = slots_of(round);
    for (std::uint32_t i = 0; i < parties_; ++i) {
      // SYNC(barrier.slot)
      const std::uint64_t slot = slots[i].load(std::memory_order_acquire);
      if (slot_round(slot) != (round & kRoundMask) || who_of(slot) == 0 ||
          !domain_->dead(who_of(slot)))
        continue;
      // It may have left, normally, between the two looks.
      // SYNC(barrier.slot)
      if (slots[i].load(std::memory_order_acquire) != slot) continue;
      change(word, word | kBroken);
      return;
    }
  }
}

// ---- waiting ----

// Takes the first free place of the round; parties_: there is none.
std::uint32_t Barrier::arrive(Who me, std::uint32_t round) const {
  Slot* slots = slots_of(round);
  for (std::uint32_t i = 0; i < parties_; ++i) {
    // SYNC(barrier.slot): what the one who came before did is visible.
    std::uint64_t slot = slots[i].load(std::memory_order_acquire);
    while (older(slot_round(slot), round))
      // SYNC(barrier.slot)
      // KILL: a dead party has come: whoever waits or comes breaks it.
      if (slots[i].compare_exchange_strong(slot, make_slot(me, round),
                                           std::memory_order_acq_rel,
                                           std::memory_order_acquire))
        return i;
  }
  return parties_;
}

int Barrier::wait() const {
  return wait(Timeout(std::chrono::nanoseconds(state_->timeout)));
}

int Barrier::wait(Timeout timeout) const {
  if (state_->has_action != 0 && action_ == nullptr)
    throw std::logic_error(object_->name() +
                           ": this barrier was made with an action, which this "
                           "process does not know; give it to open(), or make "
                           "the barrier before this process is forked");
  return wait_until(timeout);
}

int Barrier::wait_until(Deadline deadline) const {
  const Who me = domain_->seat();
  Memberships::mine().add(object_, me);
  std::optional<liveness::PassedWake> armed;
  armed.emplace(liveness::thread_context.robust, state_->wait.word);
  for (;;) {
    const std::uint64_t word = load();
    if (is_broken(word)) throw_broken();
    const std::uint32_t round = round_of(word);
    const std::uint32_t index = arrive(me, round);
    if (index == parties_ - 1) {
      break_if_dead(word);
      if (action_ != nullptr && load() == word) {
        // Somebody watches over us from here on, where the kernel's wake is
        // not armed.
        asymmetric_fence::light(fenced_);
        waiting::wake(state_->wait, Side::consumers, *domain_);
        armed.reset();
        try {
          (*action_)();
        } catch (...) {
          armed.emplace(liveness::thread_context.robust, state_->wait.word);
          change(word, word | kBroken);
          throw;
        }
        armed.emplace(liveness::thread_context.robust, state_->wait.word);
      }
      if (change(word, after(word, true))) return static_cast<int>(index);
    } else if (index == parties_ && who_of(slots_of(round)[index - 1].load(
                                        std::memory_order_relaxed)) == me) {
      throw std::logic_error(
          object_->name() +
          ": wait() from within the barrier's action would wait for itself");
    }
    Sleeper sleeper(*this, me, round);
    Status status;
    bool late = false;
    while ((status = waiting::until(sleeper, Side::consumers, deadline,
                                    [&](Who&) { return sleeper.attempt(); })) ==
           Status::timed_out) {
      const std::uint64_t last = load();
      if (outcome(last, round) == Status::blocked) change(last, last | kBroken);
      late = true;
    }
    if (status != Status::ok && late)
      throw BarrierTimeout(object_->name() +
                           ": Barrier::wait timed out, which breaks the "
                           "barrier for all; reset() makes it usable again");
    if (status != Status::ok) throw_broken();
    if (index != parties_) return static_cast<int>(index);
    // It came when all had; the next round is its own.
  }
}

void Barrier::throw_broken() const {
  throw BrokenBarrier(object_->name() +
                      ": the barrier is broken: a party died, timed out or "
                      "aborted it, its action threw, or it was reset; reset() "
                      "makes it usable again");
}

void Barrier::reset() const {
  domain_->seat();
  const liveness::PassedWake armed(liveness::thread_context.robust,
                                   state_->wait.word);
  for (;;) {
    const std::uint64_t word = load();
    const std::uint64_t next = after(word, false);
    // SYNC(barrier.last_reset)
    // KILL: of no effect on those of the last 32 rounds.
    state_->last_reset.store(round_of(next), std::memory_order_release);
    if (change(word, next)) return;
  }
}

void Barrier::abort() const {
  domain_->seat();
  const liveness::PassedWake armed(liveness::thread_context.robust,
                                   state_->wait.word);
  for (;;) {
    const std::uint64_t word = load();
    if (is_broken(word) || change(word, word | kBroken)) return;
  }
}

int Barrier::n_waiting() const {
  if (broken()) return 0;
  const std::uint64_t word = load();
  const Slot* slots = slots_of(round_of(word));
  return static_cast<int>(
      std::count_if(slots, slots + parties_, [&](const Slot& slot) {
        // SYNC(barrier.slot)
        return slot_round(slot.load(std::memory_order_acquire)) ==
               round_of(word);
      }));
}

bool Barrier::broken() const {
  domain_->seat();
  const liveness::PassedWake armed(liveness::thread_context.robust,
                                   state_->wait.word);
  break_if_dead(load());
  return is_broken(load());
}

}  // namespace shoal
