#include "shoal/ipc/pipe_end.h"

#include <linux/futex.h>
#include <sys/resource.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <limits>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>

namespace shoal::pipe {

using waiting::Side;
using waiting::Status;

// ---- how the object is divided ----

namespace {

constexpr std::uint64_t kMostCapacity = std::uint64_t{1} << 40;
constexpr std::uint64_t kSpan = std::uint64_t{64} << 30;

}  // namespace

Plan Plan::make(bool duplex, std::size_t capacity) {
  if (capacity >
      static_cast<std::size_t>(std::numeric_limits<std::ptrdiff_t>::max()))
    throw std::invalid_argument(
        "shoal: Pipe capacity is negative (" +
        std::to_string(static_cast<std::ptrdiff_t>(capacity)) +
        "); give the bytes that may be on their way in one direction");
  if (capacity > kMostCapacity)
    throw NoSpace("shoal: Pipe capacity " + std::to_string(capacity) +
                      " is beyond " + std::to_string(kMostCapacity) +
                      " bytes; ask for less, long messages don't need it",
                  capacity, kMostCapacity);
  Plan plan{std::bit_ceil(std::max<std::uint64_t>(capacity, segment::kPage)),
            duplex, 0};
  // The file may be no longer than this; what lies behind the tail is small.
  rlimit limit{};
  std::uint64_t room = std::numeric_limits<std::uint64_t>::max();
  if (getrlimit(RLIMIT_FSIZE, &limit) == 0) room = limit.rlim_cur;
  const std::uint64_t fixed = plan.tail_bytes() + 64 * segment::kPage;
  plan.span =
      std::min(kSpan, (room - std::min(room, fixed)) / (2 * ring::kBlocks) &
                          ~(segment::kPage - 1));
  return plan;
}

Plan Plan::read(const Object& object) {
  const auto& options = object.header().options;
  const Plan plan{options[0], options[1] != 0, options[2]};
  if (!std::has_single_bit(plan.capacity) || plan.capacity < segment::kPage ||
      plan.capacity > kMostCapacity || plan.span > kSpan ||
      plan.span % segment::kPage != 0 ||
      plan.tail_bytes() > object.tail_bytes())
    throw Corrupt(object.name() + ": a ring of " +
                  std::to_string(plan.capacity) + " bytes and blocks of " +
                  std::to_string(plan.span) + " do not fit its size");
  return plan;
}

Spec Plan::spec() const {
  return {.kind = Kind::pipe,
          .fingerprint = sizeof(PipeState),
          .options = {capacity, duplex, span},
          .payload_bytes = sizeof(PipeState),
          .tail_bytes = tail_bytes()};
}

// ---- making ----

std::array<std::shared_ptr<End>, 2> End::make(const Plan& plan) {
  auto object = Object::create(plan.spec());
  std::array<std::shared_ptr<void>, 2> rings;
  for (unsigned direction : {0u, 1u})
    if (plan.has(direction))
      rings[direction] =
          object->tail_twice(plan.ring_start(direction), plan.capacity, true);
  auto* state = static_cast<PipeState*>(object->payload());
  const std::uint64_t owner =
      make_owner(kOpen, 1, object->domain().process_seat());
  // relaxed: nobody else knows the Pipe yet.
  for (auto& word : state->owner) word.store(owner, std::memory_order_relaxed);
  std::array<std::shared_ptr<End>, 2> ends;
  for (unsigned index : {0u, 1u})
    ends[index] =
        std::shared_ptr<End>(new End(object, index, plan, rings, owner));
  return ends;
}

End::End(std::shared_ptr<Object> object, unsigned index, const Plan& plan,
         std::array<std::shared_ptr<void>, 2> rings, std::uint64_t owner)
    : object_(std::move(object)),
      state_(*static_cast<PipeState*>(object_->payload())),
      index_(index),
      domain_(&object_->domain()),
      fenced_(domain_->needs_fence()),
      epoch_(bequest::settled_epoch()),
      peer_life_(&state_.wait[0].word),
      owner_(owner),
      depth_(liveness::fork_depth()) {
  if (plan.has(index))
    out_.emplace(*object_, state_, index, plan, std::move(rings[index]));
  if (plan.has(1 - index))
    in_.emplace(*object_, state_, 1 - index, plan, std::move(rings[1 - index]));
}

std::shared_ptr<End> End::adopt(std::shared_ptr<Object> object,
                                unsigned index) {
  const Plan plan = Plan::read(*object);
  std::array<std::shared_ptr<void>, 2> rings;
  for (unsigned direction : {0u, 1u})
    if (plan.has(direction))
      rings[direction] =
          object->tail_twice(plan.ring_start(direction), plan.capacity, false);
  auto& word = static_cast<PipeState*>(object->payload())->owner[index];
  const Who me = object->domain().process_seat();
  // SYNC(pipe.owner): what its last owner did with it.
  std::uint64_t found = word.load(std::memory_order_acquire);
  std::shared_ptr<End> end(new End(std::move(object), index, plan,
                                   std::move(rings),
                                   next_owner(found, kOpen, me)));
  // KILL: before this it is on its way, after it ours and dies with us.
  if (state_of(found) != kOnTheWay ||
      !word.compare_exchange_strong(
          found, end->owner_,
          std::memory_order_acq_rel,  // SYNC(pipe.owner)
          std::memory_order_relaxed)) {
    end->give_away();
    throw Closed(
        "shoal: this end of a Pipe has been received before, or its "
        "sender has died");
  }
  end->wake_all(false);
  return end;
}

End::~End() {
  close();
  // SYNC(pipe.bell)
  delete bell_.load(std::memory_order_acquire);
}

// ---- whose it is ----

bool End::replace(std::uint64_t next) noexcept {
  std::uint64_t expected = owner_;
  // SYNC(pipe.owner): what this process did with it is visible to the next
  // owner, and all that it sent to whoever sees it closed.
  if (!mine().compare_exchange_strong(expected, next, std::memory_order_acq_rel,
                                      std::memory_order_relaxed))
    return false;
  owner_ = next;
  return true;
}

// Whoever waits for this end has another one to look at from now on.
void End::wake_all(bool also_mine) noexcept {
  for (const unsigned direction : {index_, 1 - index_}) {
    waiting::WaitState& wait = state_.wait[direction];
    if (also_mine ||
        // relaxed: they announced themselves before the CAS of the caller or
        // see what it has done.
        wait.word.load(std::memory_order_relaxed) != 0)
      waiting::wake_everyone(wait, *domain_);
  }
}

void End::claim() {
  const std::lock_guard guard(mutex_);
  if (closed()) throw_closed();
  const Who me = domain_->process_seat();
  const std::uint64_t here = liveness::fork_depth();
  const std::uint64_t settled = bequest::settled_epoch();
  if (depth_ == here) {
    // Our own from before: nothing to do, unless this process has forked.
    if (settled != bequest::kNoEpoch &&
        epoch_.load(std::memory_order_relaxed) == settled)
      return;
  } else if (in_use()) {
    throw std::logic_error(
        "shoal: this end of a Pipe was in use by the parent when this process "
        "was forked, and is the parent's");
  }
  const liveness::PassedWake armed(liveness::thread_context.robust,
                                   state_.wait[index_].word);
  const bool moves = who_of(owner_) != me;
  // KILL: ours, and dies with us; who waits for it is woken by the kernel, or
  // looks again within a second.
  if (!replace(next_owner(owner_, kOpen, me))) {
    // SYNC(pipe.owner)
    const std::uint64_t found = mine().load(std::memory_order_acquire);
    throw std::logic_error(
        std::string("shoal: this end of a Pipe ") +
        (state_of(found) == kDead     ? "counts as dead: its last owner has "
                                        "died before this process used it"
         : state_of(found) == kClosed ? "was closed by its owner before this "
                                        "process used it"
                                      : "belongs to another process, which "
                                        "has used it since the fork") +
        "; move a Connection into the Process that is to have it");
  }
  depth_ = here;
  // relaxed: read by the threads of this process that use it.
  epoch_.store(settled, std::memory_order_relaxed);
  if (moves) wake_all(false);
}

bool End::is_this_process_s() const noexcept {
  return !closed() && depth_ == liveness::fork_depth();
}

void End::close() noexcept {
  // seq_cst: the race closed is close/wake against announce/look.
  if (closed_.exchange(true, std::memory_order_seq_cst)) return;
  epoch_.store(bequest::kNoEpoch, std::memory_order_relaxed);
  const std::lock_guard guard(mutex_);
  // In a forked child that has not used it, this is a copy.
  if (depth_ != liveness::fork_depth()) return;
  try {
    domain_->seat();
  } catch (const std::exception&) {
    // No seat left: closed all the same, and whoever sleeps looks again later.
    replace(next_owner(owner_, kClosed, who_of(owner_)));
    return wake_all(true);
  }
  const liveness::PassedWake armed(liveness::thread_context.robust,
                                   state_.wait[index_].word);
  // Fails when a forked child has it.
  // KILL: closed, and not all woken: the kernel wakes one, others look again
  // when our seat dies.
  replace(next_owner(owner_, kClosed, who_of(owner_)));
  wake_all(true);
}

void End::send_away(Who carrier) {
  if (in_use())
    throw std::logic_error(
        "shoal: this Connection is in use by a call, a Frame or a View, and "
        "cannot be sent away meanwhile, nor through itself");
  if (!is_mine_at_once()) claim();
  const std::lock_guard guard(mutex_);
  if (out_) out_->ring.save();
  if (!replace(next_owner(owner_, kOnTheWay, carrier))) throw_closed();
  give_away();
  wake_all(false);
}

void End::take_back() noexcept {
  try {
    const Who me = domain_->process_seat();
    const std::lock_guard guard(mutex_);
    if (!replace(next_owner(owner_, kOpen, me))) return;
    closed_.store(false, std::memory_order_seq_cst);
    wake_all(false);
  } catch (const std::exception&) {
    // No seat left: it stays on its way, and goes with its carrier.
  }
}

void End::give_away() noexcept {
  closed_.store(true, std::memory_order_seq_cst);
  epoch_.store(bequest::kNoEpoch, std::memory_order_relaxed);
}

void End::receive() noexcept {
  try {
    claim();
  } catch (const std::exception&) {
    // Closed, or the other end has seen the parent die: so will its user.
  }
}

void End::was_given(bool received) noexcept {
  const std::lock_guard guard(mutex_);
  // KILL: it dies with us.
  if (!received) replace(next_owner(owner_, kDead, who_of(owner_)));
  // In case that the child was killed before it could do this.
  wake_all(true);
}

// ---- the other end ----

End::Peer End::peer(Who& blocker) {
  // SYNC(pipe.owner)
  std::uint64_t owner = other().load(std::memory_order_acquire);
  for (;;) {
    const Who who = who_of(owner);
    if (state_of(owner) == kDead) return Peer::died;
    if (state_of(owner) == kClosed) return Peer::closed;
    if (who == liveness::kNobody) return Peer::there;
    blocker = who;
    if (!controls::kSweep || !domain_->dead(who)) return Peer::there;
    // For good: a copy of the end in a child of the dead comes too late.
    // SYNC(pipe.owner)
    if (other().compare_exchange_weak(
            owner, next_owner(owner, kDead, who), std::memory_order_acq_rel,
            std::memory_order_acquire))  // SYNC(pipe.owner)
      return Peer::died;
  }
}

bool End::find_peer() {
  Who who = 0;
  // relaxed: compared only.
  const std::uint64_t owner = other().load(std::memory_order_relaxed);
  std::uint32_t alive = 0;
  const futex::Word* life = peer_life_;
  if (const Who seat = who_of(owner); seat != liveness::kNobody)
    life = &domain_->life_word(seat, alive);
  if (peer(who) != Peer::there) return false;
  // A seat that no thread holds at the moment does not show its death.
  if (who_of(owner) != liveness::kNobody && (alive & FUTEX_TID_MASK) != 0) {
    peer_life_ = life;
    peer_alive_ = alive;
    peer_owner_ = owner;
  }
  return true;
}

// ---- waiting ----

namespace {

// What waiting::until() needs of an object.
template <class D>
struct Sleeper {
  D& direction;
  End& end;

  waiting::WaitState& wait_state() const { return direction.wait; }
  liveness::Domain& domain() const { return end.domain(); }
  waiting::SpinBudget& spin() const { return direction.spin; }
  void sweep() const {}
  // The wake was meant for the other side.
  void pass_baton(bool in_vain) const {
    constexpr bool kReceives = std::is_same_v<D, Incoming>;
    if (in_vain)
      waiting::wake(direction.wait,
                    kReceives ? Side::producers : Side::consumers, end.domain(),
                    futex::kAll);
  }
  Who holder_behind(Side) const { return 0; }
  bool looks_ready(Side) const {
    if constexpr (std::is_same_v<D, Incoming>)
      return direction.ring.has_frame();
    else
      return false;
  }
};

}  // namespace

// Nobody who waits for a peer does anything but watch its life word; once in a
// while it asks for the second proof, and looks whose the other end is.
template <class D, class Attempt, class BeforeSleep>
Status End::wait(D& direction, Side side, Timeout timeout, Attempt&& attempt,
                 BeforeSleep&& before_sleep) {
  constexpr Timeout kLook = std::chrono::seconds(1);
  bool about_to_sleep = false;
  Who peer = 0;
  const auto once = [&](Who& blocker) {
    if (__builtin_expect(closed(), 0)) return Status::closed;
    peer = 0;
    const Status status = attempt(peer);
    if (status != Status::blocked || !about_to_sleep || peer == 0)
      return status;
    // From now on the kernel wakes us when it dies. A seat that no thread holds
    // is not watched, but asked for.
    std::uint32_t alive;
    domain_->life_word(peer, alive);
    blocker = (alive & FUTEX_TID_MASK) == 0 ? peer : 0;
    return status;
  };
  Who none = 0;
  Status status = once(none);
  if (status != Status::blocked || timeout.is_now()) return status;
  // A thread that held this process's seat may have ended.
  domain_->process_seat();
  const Deadline deadline(timeout);
  Sleeper<D> sleeper{direction, *this};
  for (;;) {
    const Deadline look(kLook);
    const bool last = deadline.nanoseconds() <= look.nanoseconds();
    status = waiting::until(sleeper, side, last ? deadline : look, once, [&] {
      about_to_sleep = true;
      // Before until() notes who lives, or it would find the word changed.
      std::uint32_t alive;
      if (peer != 0) domain_->life_word(peer, alive);
      return before_sleep();
    });
    if (status != Status::timed_out || last) return status;
    if (peer != 0) domain_->prove_dead(peer);
  }
}

ring::Header End::await_frame(Timeout timeout) {
  ring::Header header = 0;
  Peer how = Peer::there;
  const Status status = wait(*in_, Side::consumers, timeout, [&](Who& blocker) {
    if ((header = in_->ring.header()) != 0) return Status::ok;
    if ((how = peer(blocker)) == Peer::there) return Status::blocked;
    // It may have sent something, and then gone.
    header = in_->ring.header();
    return Status::ok;
  });
  if (status == Status::closed) throw_closed();
  if (header != 0) return header;
  if (status != Status::ok) throw_timeout("no message");
  throw_gone(how);
}

bool End::poll(Timeout timeout) {
  const Status status = wait(*in_, Side::consumers, timeout, [&](Who& blocker) {
    return in_->ring.header() != 0 || peer(blocker) != Peer::there
               ? Status::ok
               : Status::blocked;
  });
  if (status == Status::closed) throw_closed();
  return status == Status::ok;
}

void End::await_room(std::uint64_t bytes, Timeout timeout) {
  Peer how = Peer::there;
  // Exactly first, and when nothing else is left: a look at where the receiver
  // is disturbs it at work.
  bool exactly = true;
  bool about_to_sleep = false;
  const Status status = wait(
      *out_, Side::producers, timeout,
      [&](Who& blocker) {
        if ((how = peer(blocker)) != Peer::there) return Status::ok;
        const bool room = exactly ? out_->ring.finds_any_room(bytes)
                                  : out_->ring.finds_room(bytes);
        exactly = about_to_sleep;
        return room ? Status::ok : Status::blocked;
      },
      [&] { return exactly = about_to_sleep = true; });
  if (status == Status::closed) throw_closed();
  if (how != Peer::there)
    throw BrokenPipe(how == Peer::closed
                         ? "shoal: the other end of the Pipe is closed"
                         : "shoal: the process at the other end has died");
  if (status != Status::ok) throw_timeout("no room");
}

unsigned End::await_block(Timeout timeout) {
  Peer how = Peer::there;
  std::optional<unsigned> block;
  const Status status =
      wait(*out_, Side::producers, timeout, [&](Who& blocker) {
        if ((how = peer(blocker)) != Peer::there) return Status::ok;
        block = out_->blocks.find_free();
        return block ? Status::ok : Status::blocked;
      });
  if (status == Status::closed) throw_closed();
  if (how != Peer::there)
    throw BrokenPipe(how == Peer::closed
                         ? "shoal: the other end of the Pipe is closed"
                         : "shoal: the process at the other end has died");
  if (!block) throw_timeout("no room");
  return *block;
}

std::uint64_t End::await_progress(unsigned block, std::uint64_t done,
                                  std::uint64_t bytes, Timeout timeout) {
  std::uint64_t now = 0;
  Peer how = Peer::there;
  const Status status = wait(*in_, Side::consumers, timeout, [&](Who& blocker) {
    if ((now = in_->blocks.progress(block, bytes)) > done) return Status::ok;
    how = peer(blocker);
    if (how == Peer::closed) {
      // By another thread; the one that sends may be at it still.
      blocker = who_of(other().load(std::memory_order_relaxed));
      if (domain_->dead(blocker)) how = Peer::died;
    }
    if (how != Peer::died) return Status::blocked;
    now = in_->blocks.progress(block, bytes);
    return Status::ok;
  });
  if (status == Status::closed) throw_closed();
  if (now > done) return now;
  if (status != Status::ok) throw_timeout("an unfinished message");
  throw_gone(how);
}

bool End::ready_to_wait_for() {
  while (!is_mine_at_once()) claim();
  Who blocker;
  // Another thread may be receiving.
  return in_->ring.has_frame_for_others() || peer(blocker) != Peer::there;
}

void End::announce_wait() { waiting::announce_afar(in_->wait); }

void End::pass_on_wait() { waiting::wake_everyone(in_->wait, *domain_); }

Who End::blocker_to_wait_for() {
  Who blocker = 0;
  peer(blocker);
  return blocker;
}

// ---- a descriptor ----

bool End::looks_readable() {
  Who blocker;
  return closed() || in_->ring.has_frame_for_others() ||
         peer(blocker) != Peer::there;
}

std::unique_ptr<Bell> End::make_bell() {
  return std::make_unique<Bell>(Bell::Source{
      .ready = [this] { return looks_readable(); },
      .sleep =
          [this](const std::atomic<bool>& stop) {
            const Sleeper<Incoming> sleeper{*in_, *this};
            waiting::until(
                sleeper, Side::consumers, forever, [&](Who& blocker) {
                  // SYNC(bell.stop)
                  return stop.load(std::memory_order_seq_cst) || closed() ||
                                 in_->ring.has_frame_for_others() ||
                                 peer(blocker) != Peer::there
                             ? Status::ok
                             : Status::blocked;
                });
            // The wake may have been for a thread that receives.
            waiting::wake(in_->wait, Side::consumers, *domain_, futex::kAll);
          },
      .wake = [this] { waiting::wake_everyone(in_->wait, *domain_); }});
}

int End::descriptor() {
  for (;;) {
    {
      const std::lock_guard guard(bell_mutex_);
      // relaxed: under the mutex.
      Bell* const bell = bell_.load(std::memory_order_relaxed);
      if (bell != nullptr && bell->mine()) return bell->descriptor();
      // One that was inherited is closed here, and lives on in the parent.
      bell_.store(nullptr, std::memory_order_relaxed);
      delete bell;
    }
    auto made = make_bell();
    const std::lock_guard guard(bell_mutex_);
    if (bell_.load(std::memory_order_relaxed) == nullptr)
      // SYNC(pipe.bell)
      bell_.store(made.release(), std::memory_order_release);
  }
}

void End::throw_closed() const {
  throw Closed("shoal: this Connection is closed");
}

void End::throw_gone(Peer how) const {
  if (how == Peer::died)
    throw PeerDied("shoal: the process at the other end of the Pipe has died");
  throw EndOfFile("shoal: the other end of the Pipe is closed");
}

void End::throw_timeout(const char* what) const {
  throw TimeoutError(std::string("shoal: Pipe: ") + what +
                     " before the time was up");
}

}  // namespace shoal::pipe
