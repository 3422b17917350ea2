#pragma once
// What of Queue<T> (ipc/queue.h) is off the fast path: making one, waiting,
// messages that are encoded, many at once, leases.

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

// ---- put ----

template <class T>
[[gnu::noinline]] void Queue<T>::put_slowly(Passed value, Timeout timeout) {
  if (try_put_slowly(value, timeout)) return;
  require_open();
  if (local_->rings().closed() != cells::kOpen) throw_shut_down();
  throw_full();
}

template <class T>
[[gnu::noinline]] bool Queue<T>::try_put_slowly(Passed value, Timeout timeout) {
  require_open();
  const Status status = send(value, timeout);
  if (status == Status::closed) require_open();
  return status == Status::ok;
}

// User code, and all that may throw, comes before the claim.
template <class T>
waiting::Status Queue<T>::send(const T& value, Deadline deadline) {
  if constexpr (kDirect) {
    return put_cell(value, deadline);
  } else {
    payload::InHand hand(local_->store());
    hand.parcel.bytes = codec::size(value);
    if (hand.parcel.bytes > payload::Parcel::kInside) {
      const Status status =
          find_room(hand.parcel.bytes, local_->domain().seat(),
                    hand.parcel.block, deadline);
      if (status != Status::ok) return status;
      hand.received();
    }
    codec::Writer writer(hand.memory());
    codec::encode(writer, value);
    const Status status = put_cell(hand.parcel, deadline);
    // KILL: until here a block of ours; if the cell was published, the cell's.
    if (status == Status::ok) hand.sent();
    return status;
  }
}

template <class T>
waiting::Status Queue<T>::put_cell(const Content& content, Deadline deadline) {
  auto& rings = local_->rings();
  const auto attempt = [&](Who& by) {
    return rings.put([&](Cells& ring) {
      return ring.looks_ready(waiting::Side::producers)
                 ? ring.try_put(content, by)
                 : ring.retry_put(content, by);
    });
  };
  Who blocker = 0;
  const Status status = rings.put([&](Cells& ring) {
    // Of the other kind the straight path was not tried yet.
    return kDirect ? ring.retry_put(content, blocker)
                   : ring.try_put(content, blocker);
  });
  return status == Status::blocked ? wait_to_put(deadline, blocker, attempt)
                                   : status;
}

template <class T>
waiting::Status Queue<T>::find_room(std::size_t bytes, Who me,
                                    payload::BlockRef& block,
                                    Deadline deadline) {
  if (bytes > local_->most_payload()) throw_too_long(bytes);
  const auto attempt = [&](Who&) {
    if (closed() || local_->rings().closed() != cells::kOpen)
      return Status::closed;
    block = local_->store().allocate(bytes, me, local_->payload_limit());
    return block != 0 ? Status::ok : Status::blocked;
  };
  Who blocker = 0;
  Status status = attempt(blocker);
  while (status == Status::blocked) {
    const OnFull how = local_->on_full();
    if (how == OnFull::drop_oldest && drop_oldest()) {
      status = attempt(blocker);
      continue;
    }
    if (how == OnFull::fail || deadline.nanoseconds() == 0) {
      local_->refresh();
      return attempt(blocker);
    }
    Room<Local> room(*local_);
    status =
        waiting::until(room, waiting::Side::producers,
                       how == OnFull::drop_oldest ? sooner(deadline) : deadline,
                       attempt, [&] { return CallCount::Call(waiting_); });
    if (status != Status::timed_out) break;
    if (deadline.passed()) return Status::blocked;
    status = Status::blocked;
  }
  return status;
}

template <class T>
bool Queue<T>::drop_oldest() {
  Who blocker = 0;
  auto& rings = local_->rings();
  auto& dropped = rings.state().dropped;
  const auto take = [&](auto&& read) {
    return rings.get(blocker, [&](Cells& ring) {
      return ring.consume(blocker, read);
    }) == Status::ok;
  };
  if constexpr (kDirect) {
    if (!take([](const std::byte*) noexcept {})) return false;
    // relaxed: a statistic.
    dropped.fetch_add(1, std::memory_order_relaxed);
  } else {
    payload::InHand hand(local_->store());
    const Who me = local_->domain().seat();
    if (!take([&](const std::byte* data) noexcept {
          std::memcpy(&hand.parcel, data, sizeof hand.parcel);
          hold(*local_, hand.parcel, me);
        }))
      return false;
    dropped.fetch_add(1, std::memory_order_relaxed);
    hand.received();
    payload::discard<T>(hand);
  }
  return true;
}

// ---- get ----

template <class T>
[[gnu::noinline]] T Queue<T>::get_slowly(Timeout timeout) {
  require_open();
  if constexpr (kDirect) {
    Slot slot;
    if (!receive(slot.value, timeout)) throw_empty();
    return slot.value;
  } else {
    payload::InHand hand(local_->store());
    if (!receive(hand.parcel, timeout)) throw_empty();
    hand.received();
    return payload::unpack<T>(hand);
  }
}

template <class T>
[[gnu::noinline]] std::optional<T> Queue<T>::try_get_slowly(Timeout timeout) {
  require_open();
  if constexpr (kDirect) {
    Slot slot;
    if (!receive(slot.value, timeout)) return std::nullopt;
    return slot.value;
  } else {
    payload::InHand hand(local_->store());
    if (!receive(hand.parcel, timeout)) return std::nullopt;
    hand.received();
    return payload::unpack<T>(hand);
  }
}

// False: empty.
template <class T>
bool Queue<T>::receive(Content& content, Deadline deadline) {
  auto& rings = local_->rings();
  const auto read = taking([&content](std::size_t) { return &content; });
  const auto read_one = [&](const std::byte* data) noexcept { read(0, data); };
  int eager = Cells::kEagerAttempts;
  const auto attempt = [&](Who& by) {
    return rings.get(by, [&](Cells& ring) {
      return ring.consume_waiting(eager, by, read_one);
    });
  };
  Who blocker = 0;
  Status status = rings.get(blocker, [&](Cells& ring) {
    // As in put_cell().
    return kDirect && detour() == kStraight
               ? ring.retry_consume(blocker, read_one)
               : ring.consume(blocker, read_one);
  });
  if (status == Status::blocked)
    status = wait_to_get(deadline, blocker, attempt);
  local_->look();
  if (status == Status::closed) throw_closed_or_shut_down();
  return status == Status::ok;
}

// What happens between a claim and its commit; to(i) says where the i-th goes.
template <class T>
template <class To>
auto Queue<T>::taking(To to) {
  Ledger* const ledger = local_->ledger();
  const Who me = local_->domain().seat();
  const Who process = ledger == nullptr ? 0 : local_->domain().process_seat();
  return [=, local = local_](std::size_t i, const std::byte* data) noexcept {
    Content* const content = to(i);
    std::memcpy(static_cast<void*>(content), data, sizeof(Content));
    static_cast<void>(local);
    if constexpr (!kDirect) hold(*local, *content, me);
    if (ledger != nullptr) ledger->add(process);
  };
}

template <class T>
void Queue<T>::hold(Local& local, const payload::Parcel& parcel,
                    Who me) noexcept {
  if (parcel.bytes > payload::Parcel::kInside)
    local.store().hold(parcel.block, me);
}

// ---- waiting ----

// Where the queue must look again although nobody wakes it.
template <class T>
Deadline Queue<T>::sooner(Deadline deadline) {
  const Deadline soon(std::chrono::milliseconds(1));
  return soon.nanoseconds() < deadline.nanoseconds() ? soon : deadline;
}

template <class T>
template <class Attempt>
[[gnu::noinline]] waiting::Status Queue<T>::wait_to_put(Deadline deadline,
                                                        Who blocker,
                                                        Attempt&& attempt) {
  switch (local_->on_full()) {
    case OnFull::block:
      return wait_for(waiting::Side::producers, deadline, blocker, attempt);
    case OnFull::fail:
      return wait_for(waiting::Side::producers, now, blocker, attempt);
    case OnFull::drop_oldest:
      break;
  }
  for (;;) {
    while (drop_oldest()) {
      const Status status = attempt(blocker);
      if (status != Status::blocked) return status;
    }
    // What fills it is in other hands.
    const Status status =
        wait_for(waiting::Side::producers, sooner(deadline), blocker, attempt);
    if (status != Status::blocked || deadline.passed()) return status;
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
  refuse_own_lease(side, blocker);
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

// A thread that waits for a cell which it holds itself waits for ever.
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
      put ? "shoal: Queue::put would wait for a value that this thread has "
            "taken and still holds; let go of the Taken first"
          : "shoal: Queue::get would wait for a loan of this very thread; "
            "publish or drop the Loan first");
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

// ---- many ----

template <class T>
std::size_t Queue<T>::put_many(std::span<const T> values, Timeout timeout) {
  require_open();
  if (values.empty()) return 0;
  const Deadline deadline(timeout);
  std::size_t done = 0;
  Status status = Status::ok;
  if constexpr (kDirect) {
    const auto attempt = [&](Who& by) {
      return local_->rings().put([&](Cells& ring) {
        Status last = Status::ok;
        while (last == Status::ok && done < values.size())
          done += ring.try_put_many(values.data() + done, values.size() - done,
                                    last, by);
        return done != 0 ? Status::ok : last;
      });
    };
    Who blocker = 0;
    status = attempt(blocker);
    if (status == Status::blocked)
      status = wait_to_put(deadline, blocker, attempt);
  } else {
    try {
      for (; done < values.size() && status == Status::ok;
           done += status == Status::ok)
        status = send(values[done], done == 0 ? deadline : Deadline(now));
    } catch (...) {
      if (done == 0) throw;  // else the next call meets it
    }
    if (done != 0) return done;
  }
  if (status == Status::closed) throw_closed_or_shut_down();
  if (status != Status::ok) throw_full();
  return done;
}

template <class T>
std::size_t Queue<T>::get_many(std::span<T> values, Timeout timeout) {
  require_open();
  if (values.empty()) return 0;
  const Deadline deadline(timeout);
  std::size_t done = 0;
  if constexpr (kDirect) {
    const auto read =
        taking([&](std::size_t i) { return values.data() + done + i; });
    const auto attempt = [&](Who& by) {
      return local_->rings().get(by, [&](Cells& ring) {
        Status last = Status::ok;
        while (last == Status::ok && done < values.size())
          done += ring.try_take_many(values.size() - done, last, by, read);
        return done != 0 ? Status::ok : last;
      });
    };
    Who blocker = 0;
    Status status = attempt(blocker);
    if (status == Status::blocked)
      status = wait_to_get(deadline, blocker, attempt);
    local_->look();
    if (status == Status::closed) throw_closed_or_shut_down();
    if (status != Status::ok) throw_empty();
  } else {
    values[done++] = get_slowly(timeout);
    try {
      while (done < values.size()) {
        auto value = try_get_slowly(now);
        if (!value) break;
        values[done++] = std::move(*value);
      }
    } catch (const Closed&) {  // drained
    }
  }
  return done;
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
    return Loan<T>(object_, ring, claim);
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
  try {
    // The value is in no cell but this one, and in the ledger: both count.
    if (ledger != nullptr) ledger->add(who);
    return Taken<T>(object_, ring, claim,
                    ledger == nullptr ? nullptr : &ledger->wait_state());
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
