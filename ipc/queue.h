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
// Cost:     trivially copyable, uncontended: two CASes, two stores and a copy.
//           No system call unless someone sleeps or the queue grows.
// Layout:   docs/layout.md#queue
//
// T is any Message. What is trivially copyable lies in the cell; of the rest up
// to 48 encoded bytes do, and what is longer in a block of the same segment.
// Encoding comes before the claim of a cell and decoding after its commit: what
// they throw fails that call, or loses that message, and nothing else.

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
#include <type_traits>
#include <utility>

#include "shoal/ipc/call_count.h"
#include "shoal/ipc/cells.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/handle.h"
#include "shoal/ipc/lease.h"
#include "shoal/ipc/message.h"
#include "shoal/ipc/object.h"
#include "shoal/ipc/queue_local.h"
#include "shoal/ipc/timeout.h"
#include "shoal/ipc/type_name.h"
#include "shoal/ipc/waitable.h"
#include "shoal/ipc/waiting.h"

namespace shoal {

template <class T>
class Queue {
  static_assert(codec::require_message<T>());

 protected:
  // Copied as it lies; else encoded.
  static constexpr bool kDirect = std::is_trivially_copyable_v<T> &&
                                  (codec::kKind<T> == codec::Kind::bytes ||
                                   codec::kKind<T> == codec::Kind::standard ||
                                   codec::kKind<T> == codec::Kind::aggregate);

 public:
  using value_type = T;

  // Anonymous: for this process and its children. Throws NoSpace,
  // std::invalid_argument (a negative maxsize).
  Queue() : Queue(QueueOptions{}) {}
  explicit Queue(std::size_t maxsize) : Queue(QueueOptions{maxsize}) {}
  explicit Queue(QueueOptions options)
      : Queue(Object::create(make_spec(options, false))) {}

  // Named, for unrelated processes; `args` are a maxsize or QueueOptions, and
  // an Access. Errors: see object.h.
  template <class... Args>
  static Queue create(std::string_view name, const Args&... args) {
    return Queue(Object::create(name, make_spec(options_of(args...), false),
                                access_of(args...)));
  }
  // A JoinableQueue opens as the Queue that it is; what is put and taken
  // through that counts.
  static Queue open(std::string_view name, Access access = {}) {
    return Queue(Object::open(name, object_spec(), access));
  }
  template <class... Args>
  static Queue open_or_create(std::string_view name, const Args&... args) {
    const QueueOptions options = options_of(args...);
    Queue queue(Object::open_or_create(name, make_spec(options, false),
                                       access_of(args...)));
    queue.require_size(options);
    return queue;
  }

  // A copy is another handle onto the same queue.
  Queue(const Queue& other)
      : object_(other.object_),
        local_(other.local_),
        cells_(other.cells_),
        detour_(other.detour()) {}
  Queue(Queue&& other) noexcept : Queue(static_cast<const Queue&>(other)) {
    other.mark_closed();
  }
  Queue& operator=(const Queue& other) {
    object_ = other.object_;
    local_ = other.local_;
    cells_ = other.cells_;
    detour_.store(other.detour(), std::memory_order_relaxed);
    return *this;
  }
  Queue& operator=(Queue&& other) noexcept {
    if (this == &other) return *this;
    *this = static_cast<const Queue&>(other);
    other.mark_closed();
    return *this;
  }
  ~Queue() = default;

  // In shared memory when it returns. Throws Full, Closed, ShutDown, NoSpace,
  // MessageTooLong (more than max_bytes leave room for), and what encoding
  // throws.
  void put(T value, Timeout timeout = forever) requires kDirect {
    typename Cells::Armed armed;
    const AtOnce at_once =
        closed() ? AtOnce::nothing : cells_.put_at_once(value, armed);
    if (__builtin_expect(at_once == AtOnce::done, 1)) return;
    if (at_once == AtOnce::wake)
      cells_.wake_after_put(armed);
    else
      put_slowly(value, timeout);
  }
  void put(const T& value, Timeout timeout = forever) requires(!kDirect) {
    put_slowly(value, timeout);
  }
  // What was sent is gone here; after an exception it is as it was.
  void put(T&& value, Timeout timeout = forever) requires(!kDirect) {
    put_slowly(value, timeout);
    [[maybe_unused]] const T sent(std::move(value));
  }
  void put_nowait(T value) { put(std::move(value), now); }
  // False when full or shut down, and `value` is as it was; throws Closed,
  // NoSpace, MessageTooLong.
  bool try_put(const T& value, Timeout timeout = now) {
    if constexpr (kDirect) {
      typename Cells::Armed armed;
      const AtOnce at_once =
          closed() ? AtOnce::nothing : cells_.put_at_once(value, armed);
      if (__builtin_expect(at_once == AtOnce::done, 1)) return true;
      if (at_once == AtOnce::wake) return cells_.wake_after_put(armed);
    }
    return try_put_slowly(value, timeout);
  }
  bool try_put(T&& value, Timeout timeout = now) {
    if (!try_put(static_cast<const T&>(value), timeout)) return false;
    if constexpr (!kDirect) {
      [[maybe_unused]] const T sent(std::move(value));
    }
    return true;
  }

  // Throws Empty, Closed, and ShutDown once drained; Corrupt and what decoding
  // throws: that message is lost.
  T get(Timeout timeout = forever) {
    if constexpr (kDirect) {
      Slot slot;
      typename Cells::Armed armed;
      const AtOnce at_once =
          detour() ? AtOnce::nothing : cells_.get_at_once(slot.value, armed);
      if (__builtin_expect(at_once == AtOnce::done, 1)) return slot.value;
      if (at_once == AtOnce::wake)
        return cells_.wake_after_get(armed, slot.value);
    }
    return get_slowly(timeout);
  }
  T get_nowait() { return get(now); }
  // Nothing when empty; throws Closed, and ShutDown once drained.
  std::optional<T> try_get(Timeout timeout = now) {
    if constexpr (kDirect) {
      Slot slot;
      typename Cells::Armed armed;
      const AtOnce at_once =
          detour() ? AtOnce::nothing : cells_.get_at_once(slot.value, armed);
      if (__builtin_expect(at_once == AtOnce::done, 1)) return slot.value;
      if (at_once == AtOnce::wake)
        return cells_.wake_after_get(armed, std::optional<T>(slot.value));
    }
    return try_get_slowly(timeout);
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

  // Snapshots, exact when nothing is in flight. Throw Closed.
  std::size_t qsize() const { return settled().rings().size(); }
  bool empty() const { return qsize() == 0; }
  bool full() const { return settled().rings().full(); }
  // 0: it grows. Of a closed handle, too.
  std::size_t maxsize() const { return local_->maxsize(); }
  // Values that OnFull::drop_oldest has dropped; of a killed put, one too few.
  std::uint64_t dropped() const {
    // relaxed: a statistic.
    return local_->rings().state().dropped.load(std::memory_order_relaxed);
  }

  // This handle only: later calls on it throw Closed, those blocked in it
  // wake and do so, too. They may still be on their way when this returns; the
  // handle is destroyed, as any object, after its last call.
  void close() {
    // seq_cst: the race closed is close/wake against announce/look.
    detour_.fetch_or(kClosed, std::memory_order_seq_cst);
    if (object_ == nullptr) return;
    // Again and again: one that announces itself on another handle meanwhile
    // can make the word look to a call of this one as if nothing had happened.
    do {
      cells_.wake_all();
      wake_others();
      sched_yield();
    } while (waiting_.any());
  }
  // Readable while the queue is not empty or is shut down: for poll, epoll and
  // event loops. Level-triggered; the same for all handles of this process
  // until the last of them goes. Costs a helper thread (bell.h). Another
  // process may be faster to take what it told of: follow it by try_get.
  int fileno() {
    require_open();
    const int descriptor = local_->descriptor();
    // From now on this handle takes it back when it has emptied the queue.
    detour_.fetch_or(kRings, std::memory_order_relaxed);
    return descriptor;
  }
  // For shoal::wait().
  WaitSource wait_source() {
    require_open();
    return WaitSource::of(*this);
  }
  bool ready_to_wait_for() const {
    require_open();
    return local_->looks_readable();
  }
  void announce_wait() const { waiting::announce_afar(local_->wait_state()); }
  void pass_on_wait() const {
    waiting::wake_everyone(local_->wait_state(), local_->domain());
  }
  liveness::Domain& domain_to_wait_in() const { return local_->domain(); }
  liveness::Who blocker_to_wait_for() const {
    return local_->holder_behind(waiting::Side::consumers);
  }
  // Kept for those who port: put() has published when it returns.
  void join_thread() {}
  void cancel_join_thread() {}

  // For everyone: puts throw ShutDown; gets drain, or with `immediate` do not,
  // and then throw ShutDown; all sleepers wake.
  void shutdown(bool immediate = false) {
    require_open();
    make_others_watch();
    // KILL: those who watch are woken by the kernel, and find it closed.
    local_->rings().close(immediate ? cells::kDiscarded : cells::kDraining);
    wake_others();
  }

 private:
  friend struct HandleAccess;
  template <class U>
  friend class JoinableQueue;
  using Content = std::conditional_t<kDirect, T, payload::Parcel>;
  using Cells = cells::Cells<Content>;
  using Local = QueueLocal<Content, !kDirect>;
  using AtOnce = typename Cells::AtOnce;
  using Status = waiting::Status;
  using Who = liveness::Who;
  using Passed = std::conditional_t<kDirect, T, const T&>;
  // What is here before it is a value, without its constructor.
  union Slot {
    Slot() {}
    Content value;
  };

  explicit Queue(std::shared_ptr<Object> object)
      : object_(std::move(object)),
        local_(&Local::of(*object_)),
        cells_(local_->rings().first()),
        detour_(local_->ledger() != nullptr ? kCounts : kStraight) {}

  static Spec object_spec();
  static Spec make_spec(QueueOptions options, bool joinable);
  template <class... Args>
  static QueueOptions options_of(const Args&... args);
  void require_size(QueueOptions options) const;

  Local& settled() const {
    require_open();
    local_->settle();
    return *local_;
  }
  // 0: the straight path is the right one.
  static constexpr std::uint8_t kStraight = 0;
  static constexpr std::uint8_t kClosed = 1;
  static constexpr std::uint8_t kCounts = 2;  // what is taken, in a ledger
  static constexpr std::uint8_t kRings = 4;   // a bell has to know of a get
  std::uint8_t detour() const {
    // relaxed: a caller that must see it is woken after it was stored.
    return detour_.load(std::memory_order_relaxed);
  }
  bool closed() const { return (detour() & kClosed) != 0; }
  void mark_closed() {
    // relaxed: as above.
    detour_.store(kClosed, std::memory_order_relaxed);
  }
  void require_open() const {
    if (__builtin_expect(closed(), 0)) throw_closed();
  }
  void wake_others();  // than those who wait for cells
  void make_others_watch();

  // By value where it is small, so that what the callers hold need not be in
  // memory.
  void put_slowly(Passed value, Timeout timeout);
  bool try_put_slowly(Passed value, Timeout timeout);
  T get_slowly(Timeout timeout);
  std::optional<T> try_get_slowly(Timeout timeout);

  // All of these: Status::closed also when this handle was closed, blocked
  // when the deadline has passed.
  Status send(const T& value, Deadline deadline);
  Status put_cell(const Content& content, Deadline deadline);
  Status find_room(std::size_t bytes, Who me, payload::BlockRef& block,
                   Deadline deadline);
  T unpack(payload::InHand& hand) const;
  bool receive(Content& content, Deadline deadline);
  template <class To>
  auto taking(To to);
  static void hold(Local& local, const payload::Parcel& parcel,
                   Who me) noexcept;
  bool drop_oldest();
  static Deadline sooner(Deadline deadline);
  // After an attempt that was blocked.
  template <class Attempt>
  Status wait_to_put(Deadline deadline, Who blocker, Attempt&& attempt);
  template <class Attempt>
  Status wait_to_get(Deadline deadline, Who blocker, Attempt&& attempt) {
    return wait_for(waiting::Side::consumers, deadline, blocker, attempt);
  }
  template <class Attempt>
  Status wait_for(waiting::Side side, Deadline deadline, Who blocker,
                  Attempt& attempt);
  void refuse_own_lease(waiting::Side side, Who blocker);

  [[noreturn]] void throw_closed() const;
  [[noreturn]] void throw_shut_down() const;
  [[noreturn]] void throw_closed_or_shut_down() const {
    require_open();
    throw_shut_down();
  }
  [[noreturn]] void throw_full() const;
  [[noreturn]] void throw_empty() const;
  [[noreturn]] void throw_too_long(std::size_t bytes) const;

  std::shared_ptr<Object> object_;
  Local* local_;  // the object's
  Cells cells_;   // the first ring
  std::atomic<std::uint8_t> detour_;
  CallCount waiting_;  // calls of this handle that sleep or are about to
};

template <class T>
struct HandleTraits<Queue<T>> : ObjectHandleTraits<Queue<T>> {};

}  // namespace shoal

#include "shoal/ipc/queue_slow.h"
#include "shoal/ipc/queue_transfer.h"
// With what is made of it.
#include "shoal/ipc/joinable_queue.h"
#include "shoal/ipc/simple_queue.h"
