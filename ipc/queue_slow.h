#pragma once
// What of Queue<T> (ipc/queue.h) is off the fast path.

#include <limits>

namespace shoal {

template <class T>
Spec Queue<T>::make_spec(QueueOptions options) {
  const std::size_t maxsize =
      options.maxsize == 0 ? kDefaultMaxsize : options.maxsize;
  if (maxsize >
      static_cast<std::size_t>(std::numeric_limits<std::ptrdiff_t>::max()))
    throw std::invalid_argument(
        "shoal: Queue maxsize is negative (" +
        std::to_string(static_cast<std::ptrdiff_t>(maxsize)) +
        "); give the number of values it may hold");
  constexpr std::size_t kMost = std::numeric_limits<std::uint32_t>::max() - 1;
  if (maxsize > kMost)
    throw NoSpace("shoal: Queue maxsize " + std::to_string(maxsize) +
                      " is beyond what one ring holds (" +
                      std::to_string(kMost) + " values)",
                  maxsize, kMost);
  Spec spec = object_spec();
  spec.options[0] = maxsize;
  spec.payload_bytes = Cells::bytes(maxsize);
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
typename Queue<T>::Cells Queue<T>::view(Object& object) {
  const std::uint64_t maxsize = object.header().options[0];
  if (maxsize == 0 || maxsize >= std::numeric_limits<std::uint32_t>::max() ||
      Cells::bytes(maxsize) != object.header().payload_bytes)
    throw Corrupt(object.name() + ": its maxsize (" + std::to_string(maxsize) +
                  ") does not fit its size; unlink it");
  auto* ring = static_cast<cells::RingState*>(object.payload());
  return Cells(*ring, static_cast<std::uint32_t>(maxsize), object.domain(),
               object.spin);
}

template <class T>
[[gnu::noinline]] void Queue<T>::put_slowly(T value, Timeout timeout) {
  if (try_put_slowly(value, timeout)) return;
  require_open();
  if (cells_.closed() != cells::kOpen) throw_shut_down();
  throw_full();
}

template <class T>
[[gnu::noinline]] bool Queue<T>::try_put_slowly(T value, Timeout timeout) {
  require_open();
  Who blocker = 0;
  const auto attempt = [&](Who& by) {
    return cells_.looks_ready(wait::Side::producers)
               ? cells_.try_put(value, by)
               : cells_.retry_put(value, by);
  };
  Status status = cells_.retry_put(value, blocker);
  if (status == Status::blocked)
    status = wait_to_put(timeout, blocker, attempt);
  if (status == Status::closed) require_open();
  return status == Status::ok;
}

template <class T>
[[gnu::noinline]] T Queue<T>::get_slowly(Timeout timeout) {
  Slot slot;
  if (!get_into(slot.value, timeout)) throw_empty();
  return slot.value;
}

template <class T>
[[gnu::noinline]] std::optional<T> Queue<T>::try_get_slowly(Timeout timeout) {
  Slot slot;
  if (!get_into(slot.value, timeout)) return std::nullopt;
  return slot.value;
}

template <class T>
bool Queue<T>::get_into(T& value, Timeout timeout) {
  require_open();
  Who blocker = 0;
  int eager = Cells::kEagerAttempts;
  const auto attempt = [&](Who& by) {
    return cells_.get_waiting(eager, value, by);
  };
  Status status = cells_.retry_get(value, blocker);
  if (status == Status::blocked)
    status = wait_to_get(timeout, blocker, attempt);
  if (status == Status::closed) throw_closed_or_shut_down();
  return status == Status::ok;
}

template <class T>
template <class Attempt>
[[gnu::noinline]] wait::Status Queue<T>::wait_for(wait::Side side,
                                                  Timeout timeout, Who blocker,
                                                  Attempt& attempt) {
  if (timeout.is_now()) {
    if (!cells_.refresh()) return Status::blocked;
    return attempt(blocker);
  }
  refuse_own_lease(side, blocker);
  for (int n = cells_.spin().pauses(side, cells_.passed(side), cells_.count());
       n > 0; --n)
    wait::pause();
  const Status status = wait::until(
      cells_, side, timeout,
      [&](Who& by) {
        return __builtin_expect(closed(), 0) ? Status::closed : attempt(by);
      },
      [&] { return typename CallCount::Call(waiting_); });
  return status == Status::timed_out ? Status::blocked : status;
}

// A thread that waits for a cell which it holds itself waits for ever.
template <class T>
void Queue<T>::refuse_own_lease(wait::Side side, Who blocker) {
  if (blocker == 0 || !object_->domain().is_process(blocker)) return;
  const bool put = side == wait::Side::producers;
  if (blocker != object_->domain().process_seat() ||
      !(object_->leased_by_this_thread(put ? cells_.tail_index()
                                           : cells_.head_index()) ||
        // At the end of a closed queue every value taken is waited for.
        (!put && cells_.closed() != cells::kOpen &&
         object_->leased_by_this_thread())))
    return;
  throw std::logic_error(
      put ? "shoal: Queue::put would wait for a value that this thread has "
            "taken and still holds; let go of the Taken first"
          : "shoal: Queue::get would wait for a loan of this very thread; "
            "publish or drop the Loan first");
}

template <class T>
std::size_t Queue<T>::put_many(std::span<const T> values, Timeout timeout) {
  require_open();
  if (values.empty()) return 0;
  std::size_t done = 0;
  const auto attempt = [&](Who& by) {
    Status status = Status::ok;
    while (status == Status::ok && done < values.size())
      done += cells_.try_put_many(values.data() + done, values.size() - done,
                                  status, by);
    return done != 0 ? Status::ok : status;
  };
  Who blocker = 0;
  Status status = attempt(blocker);
  if (status == Status::blocked)
    status = wait_to_put(timeout, blocker, attempt);
  if (status == Status::closed) throw_closed_or_shut_down();
  if (status != Status::ok) throw_full();
  return done;
}

template <class T>
std::size_t Queue<T>::get_many(std::span<T> values, Timeout timeout) {
  require_open();
  if (values.empty()) return 0;
  std::size_t done = 0;
  const auto attempt = [&](Who& by) {
    Status status = Status::ok;
    while (status == Status::ok && done < values.size())
      done += cells_.try_get_many(values.data() + done, values.size() - done,
                                  status, by);
    return done != 0 ? Status::ok : status;
  };
  Who blocker = 0;
  Status status = attempt(blocker);
  if (status == Status::blocked)
    status = wait_to_get(timeout, blocker, attempt);
  if (status == Status::closed) throw_closed_or_shut_down();
  if (status != Status::ok) throw_empty();
  return done;
}

template <class T>
Loan<T> Queue<T>::loan(Timeout timeout) {
  require_open();
  const Who who = object_->domain().process_seat();
  typename Cells::Claim claim;
  const auto attempt = [&](Who& by) {
    return cells_.claim_for_put(who, claim, by);
  };
  Who blocker = 0;
  Status status = attempt(blocker);
  if (status == Status::blocked)
    status = wait_to_put(timeout, blocker, attempt);
  if (status == Status::closed) throw_closed_or_shut_down();
  if (status != Status::ok) throw_full();
  try {
    if constexpr (std::is_default_constructible_v<T>)
      ::new (static_cast<void*>(claim.cell->data)) T();
    else
      std::memset(static_cast<void*>(claim.cell->data), 0, sizeof(T));
    return Loan<T>(object_, cells_, claim);
  } catch (...) {
    cells_.finish_put(claim, false);
    throw;
  }
}

template <class T>
Taken<T> Queue<T>::take(Timeout timeout) {
  require_open();
  const Who who = object_->domain().process_seat();
  typename Cells::Claim claim;
  const auto attempt = [&](Who& by) {
    return cells_.claim_for_get(who, claim, by);
  };
  Who blocker = 0;
  Status status = attempt(blocker);
  if (status == Status::blocked)
    status = wait_to_get(timeout, blocker, attempt);
  if (status == Status::closed) throw_closed_or_shut_down();
  if (status != Status::ok) throw_empty();
  try {
    return Taken<T>(object_, cells_, claim);
  } catch (...) {
    cells_.give_back(claim);
    throw;
  }
}

template <class T>
void Queue<T>::require_size(QueueOptions options) const {
  if (options.maxsize == 0 || options.maxsize == maxsize()) return;
  throw TypeMismatch(object_->name() +
                     " is not what this program expects\n  expected: maxsize " +
                     std::to_string(options.maxsize) +
                     "\n  found:    maxsize " + std::to_string(maxsize()));
}

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
  throw Full("shoal: the queue is full (maxsize " + std::to_string(maxsize()) +
             ")");
}

template <class T>
void Queue<T>::throw_empty() const {
  throw Empty("shoal: the queue is empty");
}

}  // namespace shoal
