#pragma once
// Putting and getting of Queue<T> (ipc/queue.h) off the straight path: what is
// encoded, and many at once.

#include <cstring>
#include <span>
#include <utility>

namespace shoal {

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
      const Status status = find_room(hand.parcel.bytes, local_->carrier(),
                                      hand.parcel.block, deadline);
      if (status != Status::ok) return status;
      hand.received();
    }
    // Unless it is sent, what it carries is taken back, and its block freed.
    Deposits passage(local_->as_container());
    codec::Writer writer(hand.memory(), &passage);
    codec::encode(writer, value);
    writer.finish();
    const Status status = put_cell(hand.parcel, deadline);
    // KILL: until here a block of ours; if the cell was published, the cell's.
    if (status == Status::ok) {
      passage.sent();
      hand.sent();
    }
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
  // Perhaps that was all, and who joins learns it also if we die here.
  local_->taker();
  const auto take = [&](auto&& read) {
    const Status status = rings.get(
        blocker, [&](Cells& ring) { return ring.consume(blocker, read); });
    if (status != Status::ok) return false;
    if (local_->ledger() != nullptr) local_->ledger()->tell();
    return true;
  };
  if constexpr (kDirect) {
    if (!take([](const std::byte*) noexcept {})) return false;
    // relaxed: a statistic.
    dropped.fetch_add(1, std::memory_order_relaxed);
  } else {
    payload::InHand hand(local_->store());
    const Who me = local_->carrier();
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
    return unpack(hand);
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
    return unpack(hand);
  }
}

template <class T>
T Queue<T>::unpack(payload::InHand& hand) const {
  try {
    return payload::unpack<T>(hand);
  } catch (const Error&) {
    // What it refers to may have been discarded while we were stopped.
    if (local_->rings().closed() == cells::kDiscarded) throw_shut_down();
    throw;
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
  const Who me = local_->carrier();
  const Who process = local_->taker();
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

}  // namespace shoal
