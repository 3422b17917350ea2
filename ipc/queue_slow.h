#pragma once
// What of Queue<T> (ipc/queue.h) is off the fast path: making one, waiting,
// leases, errors.

#include <limits>

namespace shoal {

template <class T>
Spec Queue<T>::object_spec() {
  return {.kind = Kind::queue,
          .fingerprint = (kDirect ? 0 : sizeof(payload::StoreState) << 48) |
                         sizeof(cells::RingState) << 32 |
                         sizeof(typename Cells::CellState),
          .type_hash = layout_hash<T>(),
          .type_text = describe_layout<T>()};
}

template <class T>
Spec Queue<T>::make_spec(QueueOptions options, bool joinable) {
  if (options.maxsize >
      static_cast<std::size_t>(std::numeric_limits<std::ptrdiff_t>::max()))
    throw std::invalid_argument(
        "shoal: Queue maxsize is negative (" +
        std::to_string(static_cast<std::ptrdiff_t>(options.maxsize)) +
        "); give the number of values it may hold, or 0");
  constexpr std::size_t kMost = std::numeric_limits<std::uint32_t>::max() - 1;
  if (options.maxsize > kMost)
    throw NoSpace("shoal: Queue maxsize " + std::to_string(options.maxsize) +
                      " is beyond what one ring holds (" +
                      std::to_string(kMost) + " values)",
                  options.maxsize, kMost);
  const auto layout = QueueLayout::of<Cells>(options.maxsize, options.max_bytes,
                                             !kDirect, joinable);
  Spec spec = object_spec();
  spec.options[kMaxsize] = options.maxsize;
  spec.options[kMaxBytes] = options.max_bytes;
  spec.options[kOnFull] = static_cast<std::uint64_t>(options.on_full);
  spec.options[kJoinable] = joinable;
  spec.payload_bytes = layout.payload_bytes;
  spec.tail_bytes = layout.tail_bytes;
  return spec;
}

template <class T>
template <class... Args>
QueueOptions Queue<T>::options_of(const Args&... args) {
  QueueOptions options;
  [[maybe_unused]] const auto read = [&](const auto& arg) {
    using Arg = std::remove_cvref_t<decltype(arg)>;
    if constexpr (std::is_same_v<Arg, QueueOptions>)
      options = arg;
    else if constexpr (std::is_integral_v<Arg>)
      options.maxsize = static_cast<std::size_t>(arg);
    else
      static_assert(std::is_same_v<Arg, Access>,
                    "shoal: a maxsize, QueueOptions or Access is expected");
  };
  (read(args), ...);
  return options;
}

template <class T>
void Queue<T>::require_size(QueueOptions options) const {
  if (options.maxsize == 0 || options.maxsize == maxsize()) return;
  throw TypeMismatch(object_->name() +
                     " is not what this program expects\n  expected: maxsize " +
                     std::to_string(options.maxsize) +
                     "\n  found:    maxsize " + std::to_string(maxsize()));
}

// ---- waiting ----

// Where the queue must look again although nobody wakes it.
template <class T>
Deadline Queue<T>::sooner(Deadline deadline) {
  return earlier(deadline, Deadline(std::chrono::milliseconds(1)));
}

template <class T>
template <class Attempt>
[[gnu::noinline]] waiting::Status Queue<T>::wait_to_put(Deadline deadline,
                                                        Who blocker,
                                                        Attempt&& attempt) {
  switch (local_->on_full()) {
    case OnFull::block:
      if (kDirect || !local_->rings().grows())
        return wait_for(waiting::Side::producers, deadline, blocker, attempt);
      for (;;) {
        // Whoever freed a payload may have died before it woke us here.
        const Deadline look(std::chrono::seconds(1));
        const Status status =
            wait_for(waiting::Side::producers, earlier(deadline, look), blocker,
                     attempt);
        if (status != Status::blocked || deadline.passed()) return status;
      }
    case OnFull::fail:
      return wait_for(waiting::Side::producers, now, blocker, attempt);
    case OnFull::drop_oldest:
      break;
  }
  for (;;) {
    // Where somebody holds the next cell, dropping what lies behind it makes no
    // room: one that is stopped would cost all that is there.
    Status status = Status::blocked;
    while (status == Status::blocked && blocker == 0 && drop_oldest())
      status = attempt(blocker);
    if (status != Status::blocked) return status;
    // What fills it is in other hands.
    if (deadline.is_never())
      refuse_own_lease(waiting::Side::producers, blocker);
    status =
        wait_for(waiting::Side::producers, sooner(deadline), blocker, attempt);
    if (status != Status::blocked || deadline.passed()) return status;
    blocker = 0;
    status = attempt(blocker);
    if (status != Status::blocked) return status;
  }
}

template <class T>
template <class Attempt>
[[gnu::noinline]] waiting::Status Queue<T>::wait_for(waiting::Side side,
                                                     Deadline deadline,
                                                     Who blocker,
                                                     Attempt& attempt) {
  if (deadline.nanoseconds() == 0) {
    if (!local_->refresh()) return Status::blocked;
    return attempt(blocker);
  }
  if (deadline.is_never()) refuse_own_lease(side, blocker);
  const Cells& ring = local_->rings().current(side);
  for (int n = ring.spin().pauses(side, ring.passed(side), ring.count()); n > 0;
       --n)
    waiting::pause();
  const Status status = waiting::until(
      *local_, side, deadline,
      [&](Who& by) {
        return __builtin_expect(closed(), 0) ? Status::closed : attempt(by);
      },
      [&] { return CallCount::Call(waiting_); });
  return status == Status::timed_out ? Status::blocked : status;
}

// A thread that waits without end for a cell which it holds itself waits for
// ever.
template <class T>
void Queue<T>::refuse_own_lease(waiting::Side side, Who blocker) {
  if (blocker == 0 || !object_->domain().is_process(blocker)) return;
  const bool put = side == waiting::Side::producers;
  auto& rings = local_->rings();
  const Cells& ring = rings.current(side);
  if (blocker != object_->domain().process_seat() ||
      !(object_->leased_by_this_thread(put ? ring.tail_index()
                                           : ring.head_index()) ||
        // At the end of a closed queue every value taken is waited for.
        (!put && rings.closed() != cells::kOpen &&
         object_->leased_by_this_thread())))
    return;
  throw std::logic_error(
      put ? "shoal: Queue: no room before this thread lets go of what it holds "
            "itself, and it would wait for ever; let go of the Taken, publish "
            "or drop the Loan first"
          : "shoal: Queue: the next value is a loan of this very thread, which "
            "would wait for ever; publish or drop the Loan first");
}

template <class T>
void Queue<T>::wake_others() {
  const auto wake = [this](waiting::WaitState& state) {
    local_->domain().seat();
    const liveness::PassedWake armed(liveness::thread_context.robust,
                                     state.word);
    asymmetric_fence::heavy(local_->domain().barrier_mode());
    waiting::wake_everyone(state, local_->domain());
  };
  if constexpr (!kDirect) wake(local_->store().wait_state());
  if (local_->ledger() != nullptr) wake(local_->ledger()->wait_state());
}

// The kernel passes one wake on, and that is for those who wait for cells. The
// others are to see that this thread is there, and sleep on its life as well.
template <class T>
void Queue<T>::make_others_watch() {
  if (kDirect && local_->ledger() == nullptr) return;
  std::uint32_t alive;
  local_->domain().life_word(local_->domain().seat(), alive);
  wake_others();
}

// ---- leases ----

template <class T>
Loan<T> Queue<T>::loan(Timeout timeout) {
  static_assert(kDirect,
                "shoal: what is read or written in place must be trivially "
                "copyable; use put and get");
  require_open();
  const Who who = object_->domain().process_seat();
  typename Cells::Claim claim;
  const Cells* of = nullptr;
  const auto attempt = [&](Who& by) {
    return local_->rings().put([&](Cells& ring) {
      of = &ring;
      return ring.claim_for_put(who, claim, by);
    });
  };
  Who blocker = 0;
  Status status = attempt(blocker);
  if (status == Status::blocked)
    status = wait_to_put(timeout, blocker, attempt);
  if (status == Status::closed) throw_closed_or_shut_down();
  if (status != Status::ok) throw_full();
  Cells ring = *of;
  try {
    if constexpr (std::is_default_constructible_v<T>)
      ::new (static_cast<void*>(claim.cell->data)) T();
    else
      std::memset(static_cast<void*>(claim.cell->data), 0, sizeof(T));
    return Loan<T>(object_, ring, claim, local_->joiners());
  } catch (...) {
    ring.finish_put(claim, false);
    throw;
  }
}

template <class T>
Taken<T> Queue<T>::take(Timeout timeout) {
  static_assert(kDirect,
                "shoal: what is read or written in place must be trivially "
                "copyable; use put and get");
  require_open();
  const Who who = object_->domain().process_seat();
  Ledger* const ledger = local_->ledger();
  local_->taker();
  typename Cells::Claim claim;
  const Cells* of = nullptr;
  const auto attempt = [&](Who& by) {
    return local_->rings().get(by, [&](Cells& ring) {
      of = &ring;
      return ring.claim_for_get(who, claim, by);
    });
  };
  Who blocker = 0;
  Status status = attempt(blocker);
  if (status == Status::blocked)
    status = wait_to_get(timeout, blocker, attempt);
  local_->look();
  if (status == Status::closed) throw_closed_or_shut_down();
  if (status != Status::ok) throw_empty();
  Cells ring = *of;
  // Who sleeps already has nobody's death to watch for this value: one of them
  // looks again, and then watches ours.
  // KILL: as a get that dies: the kernel wakes one.
  asymmetric_fence::light(object_->domain().needs_fence());
  waiting::wake(local_->wait_state(), waiting::Side::consumers,
                object_->domain());
  try {
    // The value is in no cell but this one, and in the ledger: both count.
    if (ledger != nullptr) ledger->add(who);
    return Taken<T>(object_, ring, claim, local_->joiners());
  } catch (...) {
    if (ledger != nullptr) ledger->take_back(who);
    ring.give_back(claim);
    if (local_->rings().grows()) local_->rings().look_again(ring.number());
    throw;
  }
}

// ---- errors ----

template <class T>
void Queue<T>::throw_closed() const {
  throw Closed("shoal: this Queue handle is closed");
}

template <class T>
void Queue<T>::throw_shut_down() const {
  throw ShutDown("shoal: the queue was shut down");
}

template <class T>
void Queue<T>::throw_full() const {
  throw Full(
      "shoal: the queue is full (" +
      (maxsize() == 0 ? "" : "maxsize " + std::to_string(maxsize()) + ", ") +
      "max_bytes " + std::to_string(local_->max_bytes()) + ")");
}

template <class T>
void Queue<T>::throw_empty() const {
  throw Empty("shoal: the queue is empty");
}

template <class T>
void Queue<T>::throw_too_long(std::size_t bytes) const {
  throw MessageTooLong("shoal: a message of " + std::to_string(bytes) +
                       " bytes never fits into a queue with max_bytes " +
                       std::to_string(local_->max_bytes()) +
                       "; raise QueueOptions::max_bytes");
}

}  // namespace shoal
