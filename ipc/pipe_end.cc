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

namespace shoal::pipe_end {

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

End::~End() { close(); }

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

keeper::Container End::as_container() const {
  return {.descriptor = object_->descriptor(),
          .id = object_->header().id,
          .receiver =
              offsetof(PipeState, owner) + sizeof(std::uint64_t) * (1 - index_),
          .domain = domain_->id(),
          // Received as mere bytes, or by somebody who could not decode it.
          .passed = {.offset = offsetof(PipeState, rings) +
                               sizeof(ring::RingState) * index_ +
                               offsetof(ring::RingState, consumed),
                     .mask = ~std::uint64_t{0},
                     .least = out_->ring.position() + 1}};
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

void End::throw_closed() const {
  throw Closed("shoal: this Connection is closed");
}

}  // namespace shoal::pipe_end
