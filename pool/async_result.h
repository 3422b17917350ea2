#pragma once
// AsyncResult<R>: what will become of a task, or of a map.
//
//   auto result = pool.apply_async(f, 7);
//   if (result.wait(10ms) && result.successful()) use(result.get());
//
// Sharing:  movable; any number of threads may wait and get. Outlives its
//           pool. Belongs to the process that made the pool.
// Death:    every result completes: with a value, the task's error,
//           WorkerDied, Cancelled or BrokenPool.
// Cost:     get() decodes the result where it lies: one copy each time.

#include <atomic>
#include <cstdint>
#include <iterator>
#include <memory>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "shoal/ipc/codec.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/timeout.h"
#include "shoal/ipc/waitable.h"
#include "shoal/pool/call.h"
#include "shoal/pool/core.h"

namespace shoal {

namespace pool {

// The tasks that make up one result, in order.
class Tasks {
 public:
  explicit Tasks(std::shared_ptr<Core> core) : core_(std::move(core)) {}
  void reserve(std::size_t tasks) { indices_.reserve(tasks); }
  Tasks(Tasks&&) noexcept = default;
  Tasks& operator=(Tasks&& other) noexcept;
  ~Tasks() { release(); }

  void add(std::uint32_t index) { indices_.push_back(index); }
  void add_one(std::uint32_t index) { one_ = index; }
  std::uint32_t one() const { return one_; }
  // Throws std::logic_error when moved from.
  Core& core() const {
    if (core_ == nullptr) throw_moved_from();
    return *core_;
  }
  template <class F>
  void for_each(F&& f) const {
    if (one_ != kNone) f(one_);
    for (const std::uint32_t index : indices_) f(index);
  }

  bool wait(Deadline deadline) const;
  bool ready() const;
  bool successful() const;  // of ready ones
  bool cancel();
  // Throws the error of the first task, in order, that failed.
  void rethrow_first() const;

 private:
  static constexpr std::uint32_t kNone = ~0u;
  [[noreturn]] static void throw_moved_from();
  void release();

  std::shared_ptr<Core> core_;
  std::uint32_t one_ = kNone;  // apply: no allocation
  std::vector<std::uint32_t> indices_;
};

// How a result is put together from its tasks.
template <class R>
using Collect = R (*)(const Tasks&);

template <class R>
R decode_result(std::span<const std::byte> bytes) {
  if constexpr (!std::is_void_v<R>) {
    Arrival arrival;
    return codec::from_bytes<R>(bytes, &arrival);
  }
}

template <class R>
R collect_one(const Tasks& tasks) {
  return decode_result<R>(tasks.core().result(tasks.one()));
}

template <class R>
std::vector<R> collect_chunks(const Tasks& tasks) {
  using Chunk = std::vector<call::Stored<R>>;
  std::vector<R> results;
  tasks.for_each([&](std::uint32_t index) {
    Arrival arrival;
    codec::Reader reader(tasks.core().result(index), &arrival);
    Chunk chunk = codec::decode<Chunk>(reader);
    reader.finish();
    if constexpr (std::is_same_v<Chunk, std::vector<R>>)
      if (results.empty()) {
        results = std::move(chunk);
        return;
      }
    results.insert(results.end(), std::make_move_iterator(chunk.begin()),
                   std::make_move_iterator(chunk.end()));
  });
  return results;
}

inline void collect_nothing(const Tasks&) {}

}  // namespace pool

template <class R>
class AsyncResult {
 public:
  AsyncResult(AsyncResult&& other) noexcept
      : tasks_(std::move(other.tasks_)),
        collect_(other.collect_),
        // relaxed: a moved-from result is used by nobody else.
        handed_out_(other.handed_out_.load(std::memory_order_relaxed)) {}
  AsyncResult& operator=(AsyncResult&& other) noexcept {
    tasks_ = std::move(other.tasks_);
    collect_ = other.collect_;
    handed_out_.store(other.handed_out_.load(std::memory_order_relaxed),
                      std::memory_order_relaxed);
    return *this;
  }

  // The value; may be repeated where R copies, else NotReady the second time.
  // Throws TimeoutError, and what the task failed with: its own exception,
  // RemoteError, WorkerDied, Cancelled, BrokenPool.
  R get(Timeout timeout = forever) {
    if (!tasks_.wait(timeout))
      throw TimeoutError("shoal: AsyncResult::get timed out");
    tasks_.rethrow_first();
    if constexpr (!std::is_void_v<R> && !std::is_copy_constructible_v<R>)
      // relaxed: only one caller may have it; the value is ordered by `done`.
      if (handed_out_.exchange(true, std::memory_order_relaxed))
        throw NotReady(
            "shoal: this result was handed out already; it cannot "
            "be copied");
    return collect_(tasks_);
  }
  // Nothing while it is not ready; else as get().
  std::optional<R> try_get() requires(!std::is_void_v<R>) {
    if (!ready()) return std::nullopt;
    return get(now);
  }

  // False when the timeout ends first.
  bool wait(Timeout timeout = forever) const { return tasks_.wait(timeout); }
  bool ready() const { return tasks_.ready(); }
  // Whether it ended without an error. Throws NotReady before.
  bool successful() const {
    if (!ready()) throw NotReady("shoal: AsyncResult::successful before ready");
    return tasks_.successful();
  }
  // True only if none of it had started; get() then throws Cancelled.
  bool cancel() { return tasks_.cancel(); }

  // For shoal::wait().
  WaitSource wait_source() { return WaitSource::of(*this); }
  bool ready_to_wait_for() const { return ready(); }
  void announce_wait() const {
    tasks_.for_each(
        [this](std::uint32_t index) { tasks_.core().announce(index); });
  }
  liveness::Domain& domain_to_wait_in() const { return tasks_.core().domain(); }
  static liveness::Who blocker_to_wait_for() { return 0; }

 private:
  friend class Pool;
  AsyncResult(pool::Tasks tasks, pool::Collect<R> collect)
      : tasks_(std::move(tasks)), collect_(collect) {}

  pool::Tasks tasks_;
  pool::Collect<R> collect_;
  std::atomic<bool> handed_out_{false};
};

}  // namespace shoal
