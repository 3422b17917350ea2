#pragma once
// Queue<T>: first-in first-out, many producers, many consumers, one segment.
//
//   shoal::Queue<Order> orders(1024);
//   orders.put({.id = 7});                          // waits while full
//   if (auto order = orders.try_get()) fill(*order);
//
// Sharing:  any thread of any process that holds a handle may call anything.
// Ordering: what happened before put() is visible to whoever gets the value.
//           First in, first out for each producer, but for redelivery.
// Death:    killed in put(): the value never was, or is delivered once. Killed
//           in get(): it is delivered again, or was delivered to the dead.
//           Survivors never wait for the dead.
// Cost:     uncontended, two CASes, two stores and a copy; no system call
//           unless someone sleeps.
// Layout:   docs/layout.md#queue
//
// T is trivially copyable. maxsize is exact; Queue() holds 1,024.

#include <sched.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "shoal/ipc/cells.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/handle.h"
#include "shoal/ipc/lease.h"
#include "shoal/ipc/message.h"
#include "shoal/ipc/object.h"
#include "shoal/ipc/timeout.h"
#include "shoal/ipc/type_name.h"
#include "shoal/ipc/wait.h"

namespace shoal {

struct QueueOptions {
  std::size_t maxsize = 0;  // 0: 1,024
};

// Counts calls of this process that sleep; a forked child starts at 0.
class CallCount {
 public:
  class Call {
   public:
    explicit Call(CallCount& count) : count_(count) { count_.add(1); }
    ~Call() { count_.add(-1); }
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;

   private:
    CallCount& count_;
  };
  bool any() const {
    // seq_cst: against a call that counts itself and then looks.
    const std::uint64_t word = word_.load(std::memory_order_seq_cst);
    return word >> 32 == liveness::fork_depth() && (word & 0xFFFFFFFF) != 0;
  }

 private:
  void add(int amount) {
    const std::uint64_t here = liveness::fork_depth() << 32;
    std::uint64_t word = word_.load(std::memory_order_relaxed);
    std::uint64_t next;
    do {
      const std::uint64_t mine = word >> 32 << 32 == here ? word : here;
      next = mine + static_cast<std::uint64_t>(amount);
    } while (!word_.compare_exchange_weak(word, next, std::memory_order_seq_cst,
                                          std::memory_order_relaxed));
  }
  std::atomic<std::uint64_t> word_{0};  // fork depth << 32 | calls
};

template <class T>
class Queue {
  static_assert(codec::require_message<T>());
  static_assert(std::is_trivially_copyable_v<T>,
                "shoal: Queue<T> carries trivially copyable T so far");

 public:
  using value_type = T;

  // Anonymous: for this process and its children. Throws NoSpace,
  // std::invalid_argument (a negative maxsize).
  Queue() : Queue(QueueOptions{}) {}
  explicit Queue(std::size_t maxsize) : Queue(QueueOptions{maxsize}) {}
  explicit Queue(QueueOptions options)
      : Queue(Object::create(make_spec(options))) {}

  // Named, for unrelated processes; `args` are a maxsize or QueueOptions, and
  // an Access. Errors: see object.h.
  template <class... Args>
  static Queue create(std::string_view name, const Args&... args) {
    return Queue(Object::create(name, make_spec(options_of(args...)),
                                access_of(args...)));
  }
  static Queue open(std::string_view name, Access access = {}) {
    return Queue(Object::open(name, object_spec(), access));
  }
  template <class... Args>
  static Queue open_or_create(std::string_view name, const Args&... args) {
    const QueueOptions options = options_of(args...);
    Queue queue(
        Object::open_or_create(name, make_spec(options), access_of(args...)));
    queue.require_size(options);
    return queue;
  }

  // A copy is another handle onto the same queue.
  Queue(const Queue& other)
      : object_(other.object_), cells_(other.cells_), closed_(other.closed()) {}
  Queue(Queue&& other) noexcept
      : object_(other.object_), cells_(other.cells_), closed_(other.closed()) {
    other.closed_.store(true, std::memory_order_relaxed);
  }
  Queue& operator=(const Queue& other) {
    object_ = other.object_;
    cells_ = other.cells_;
    closed_.store(other.closed(), std::memory_order_relaxed);
    return *this;
  }
  Queue& operator=(Queue&& other) noexcept {
    if (this == &other) return *this;
    *this = static_cast<const Queue&>(other);
    other.closed_.store(true, std::memory_order_relaxed);
    return *this;
  }
  ~Queue() = default;

  // In shared memory when it returns. Throws Full, Closed, ShutDown.
  void put(T value, Timeout timeout = forever) {
    typename Cells::Armed armed;
    const AtOnce at_once =
        closed() ? AtOnce::nothing : cells_.put_at_once(value, armed);
    if (__builtin_expect(at_once == AtOnce::done, 1)) return;
    if (at_once == AtOnce::wake)
      cells_.wake_after_put(armed);
    else
      put_slowly(value, timeout);
  }
  void put_nowait(T value) { put(value, now); }
  // False when full or shut down; throws Closed.
  bool try_put(const T& value, Timeout timeout = now) {
    typename Cells::Armed armed;
    const AtOnce at_once =
        closed() ? AtOnce::nothing : cells_.put_at_once(value, armed);
    if (__builtin_expect(at_once == AtOnce::done, 1)) return true;
    return at_once == AtOnce::wake ? cells_.wake_after_put(armed)
                                   : try_put_slowly(value, timeout);
  }
  bool try_put(T&& value, Timeout timeout = now) {
    return try_put(static_cast<const T&>(value), timeout);
  }

  // Throws Empty, Closed, and ShutDown once drained.
  T get(Timeout timeout = forever) {
    Slot slot;
    typename Cells::Armed armed;
    const AtOnce at_once =
        closed() ? AtOnce::nothing : cells_.get_at_once(slot.value, armed);
    if (__builtin_expect(at_once == AtOnce::done, 1)) return slot.value;
    return at_once == AtOnce::wake ? cells_.wake_after_get(armed, slot.value)
                                   : get_slowly(timeout);
  }
  T get_nowait() { return get(now); }
  // Nothing when empty; throws Closed, and ShutDown once drained.
  std::optional<T> try_get(Timeout timeout = now) {
    Slot slot;
    typename Cells::Armed armed;
    const AtOnce at_once =
        closed() ? AtOnce::nothing : cells_.get_at_once(slot.value, armed);
    if (__builtin_expect(at_once == AtOnce::done, 1)) return slot.value;
    return at_once == AtOnce::wake
               ? cells_.wake_after_get(armed, std::optional<T>(slot.value))
               : try_get_slowly(timeout);
  }

  // At least one, as many as fit without waiting longer; 0 for an empty span.
  // Not atomic as a group: killed half-way, a prefix has happened.
  std::size_t put_many(std::span<const T> values, Timeout timeout = forever);
  std::size_t get_many(std::span<T> values, Timeout timeout = forever);

  // Build in place; see lease.h. std::logic_error when this thread itself
  // holds the cell that it would wait for. Throws Full, Closed, ShutDown.
  Loan<T> loan(Timeout timeout = forever);
  // Read in place; delivered again if this process dies with it. Throws Empty,
  // Closed, ShutDown.
  Taken<T> take(Timeout timeout = forever);

  // Snapshots, exact when nothing is in flight.
  std::size_t qsize() const { return settled().size(); }
  bool empty() const { return settled().empty(); }
  bool full() const { return settled().full(); }
  std::size_t maxsize() const { return cells_.count(); }

  // This handle only: later calls on it throw Closed, those blocked in it
  // wake and do so, too. They may still be on their way when this returns; the
  // handle is destroyed, as any object, after its last call.
  void close() {
    // seq_cst: the race closed is close/wake against announce/look.
    closed_.store(true, std::memory_order_seq_cst);
    if (object_ == nullptr) return;
    // Again and again: one that announces itself on another handle meanwhile
    // can make the word look to a call of this one as if nothing had happened.
    do {
      cells_.wake_all();
      sched_yield();
    } while (waiting_.any());
  }
  // Kept for those who port: put() has published when it returns.
  void join_thread() {}
  void cancel_join_thread() {}

  // For everyone: puts throw ShutDown; gets drain, or with `immediate` do not,
  // and then throw ShutDown; all sleepers wake.
  void shutdown(bool immediate = false) {
    require_open();
    cells_.close(immediate ? cells::kDiscarded : cells::kDraining);
  }

 private:
  friend struct HandleAccess;
  using Cells = cells::Cells<T>;
  using AtOnce = typename Cells::AtOnce;
  using Status = wait::Status;
  using Who = liveness::Who;
  // A T without its constructor.
  union Slot {
    Slot() {}
    T value;
  };

  explicit Queue(std::shared_ptr<Object> object)
      : object_(std::move(object)), cells_(view(*object_)) {}

  static constexpr std::size_t kDefaultMaxsize = 1024;

  static Spec object_spec() {
    return {.kind = Kind::queue,
            .fingerprint = sizeof(cells::RingState) << 32 |
                           sizeof(typename Cells::CellState),
            .type_hash = layout_hash<T>(),
            .type_text = describe_layout<T>()};
  }
  static Spec make_spec(QueueOptions options);
  template <class... Args>
  static QueueOptions options_of(const Args&... args);
  static Cells view(Object& object);
  void require_size(QueueOptions options) const;

  Cells settled() const {
    Cells cells = cells_;
    cells.settle();
    return cells;
  }
  bool closed() const {
    // relaxed: a caller that must see it is woken after it was stored.
    return closed_.load(std::memory_order_relaxed);
  }
  void require_open() const {
    if (__builtin_expect(closed(), 0)) throw_closed();
  }
  // By value, so that what the callers hold need not be in memory.
  void put_slowly(T value, Timeout timeout);
  bool try_put_slowly(T value, Timeout timeout);
  T get_slowly(Timeout timeout);
  std::optional<T> try_get_slowly(Timeout timeout);
  bool get_into(T& value, Timeout timeout);
  // After an attempt that was blocked. Both return Status::closed also when
  // this handle was closed.
  template <class Attempt>
  Status wait_to_put(Timeout timeout, Who blocker, Attempt&& attempt) {
    return wait_for(wait::Side::producers, timeout, blocker, attempt);
  }
  template <class Attempt>
  Status wait_to_get(Timeout timeout, Who blocker, Attempt&& attempt) {
    return wait_for(wait::Side::consumers, timeout, blocker, attempt);
  }
  template <class Attempt>
  Status wait_for(wait::Side side, Timeout timeout, Who blocker,
                  Attempt& attempt);
  void refuse_own_lease(wait::Side side, Who blocker);

  [[noreturn]] void throw_closed() const;
  [[noreturn]] void throw_shut_down() const;
  [[noreturn]] void throw_closed_or_shut_down() const {
    require_open();
    throw_shut_down();
  }
  [[noreturn]] void throw_full() const;
  [[noreturn]] void throw_empty() const;

  std::shared_ptr<Object> object_;
  Cells cells_;
  std::atomic<bool> closed_{false};
  CallCount waiting_;  // calls of this handle that sleep or are about to
};

template <class T>
struct HandleTraits<Queue<T>> : ObjectHandleTraits<Queue<T>> {};

}  // namespace shoal

#include "shoal/ipc/queue_slow.h"
