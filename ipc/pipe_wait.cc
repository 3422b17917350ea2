// How an end of a Pipe waits: for a message, for room, for a descriptor's sake.

#include <linux/futex.h>

#include <bit>
#include <chrono>
#include <mutex>
#include <string>
#include <type_traits>

#include "shoal/ipc/pipe_end.h"

namespace shoal::pipe_end {

using waiting::Side;
using waiting::Status;

namespace {

// What waiting::until() needs of an object.
template <class D>
struct Sleeper {
  D& direction;
  End& end;

  waiting::WaitState& wait_state() const { return direction.wait; }
  liveness::Domain& domain() const { return end.domain(); }
  waiting::SpinBudget& spin() const { return direction.spin; }
  static constexpr bool kNothingToSweep = true;
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

// The thread behind a descriptor, beside one that receives.
struct BellSleeper : Sleeper<Incoming> {
  bool looks_ready(Side) const { return direction.ring.has_frame_for_others(); }
};

}  // namespace

// Nobody who waits for a peer does anything but watch its life word; once a
// second it looks whose the other end is, and after 4, 8 and every 16 of these
// asks for the second proof: for a death that the kernel could not mark.
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
  status = waiting::spin(sleeper, side, deadline, once);
  if (status != Status::blocked) return status;
  for (std::uint32_t looks = 1;; ++looks) {
    const Deadline look(kLook);
    const bool last = deadline.nanoseconds() <= look.nanoseconds();
    status = waiting::sleep(sleeper, side, last ? deadline : look, once, [&] {
      about_to_sleep = true;
      // Before sleep() notes who lives, or it would find the word changed.
      std::uint32_t alive;
      if (peer != 0) domain_->life_word(peer, alive);
      return before_sleep();
    });
    if (status != Status::timed_out || last) return status;
    // It takes a dozen system calls.
    if (peer != 0 && looks >= 4 &&
        (std::has_single_bit(looks) || looks % 16 == 0))
      domain_->prove_dead(peer);
  }
}

bool End::frame_comes_soon(Timeout timeout) noexcept {
  if (timeout.is_now()) return false;
  int n = in_->spin.soon();
  if (n != 0) in_->let_come_together();
  for (; n > 0; --n) {
    if (in_->ring.has_frame()) {
      in_->spin.was_soon();
      in_->begin_run();
      return true;
    }
    waiting::pause();
  }
  return false;
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
  if (header != 0) {
    in_->begin_run();
    return header;
  }
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
  return closed() || is_anothers() || in_->ring.has_frame_for_others() ||
         peer(blocker) != Peer::there;
}

// A forked child has used it first. Readable: recv() says so.
bool End::is_anothers() {
  const std::lock_guard guard(mutex_);
  // SYNC(pipe.owner)
  return mine().load(std::memory_order_acquire) != owner_;
}

std::unique_ptr<Bell> End::make_bell() {
  return std::make_unique<Bell>(Bell::Source{
      .ready = [this] { return looks_readable(); },
      .sleep =
          [this](const std::atomic<bool>& stop) {
            const BellSleeper sleeper{{*in_, *this}};
            waiting::until(sleeper, Side::consumers, forever,
                           [&](Who& blocker) {
                             // SYNC(bell.stop)
                             return stop.load(std::memory_order_seq_cst) ||
                                            closed() || is_anothers() ||
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
  return bell_.descriptor([this] { return make_bell(); });
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

}  // namespace shoal::pipe_end
