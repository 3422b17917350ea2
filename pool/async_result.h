#pragma once
// AsyncResult<R>: what will become of a task, or of a map.
//
//   auto result = pool.apply_async(f, 7);
//   if (result.wait(10ms) && result.successful()) use(result.get());
//
//   for (auto& one : shoal::as_completed(results)) use(one.get());
//   use(results[shoal::wait_any(results, 1s)].get());
//
// Sharing:  movable; any number of threads may wait and get. Outlives its
//           pool. Belongs to the process that made the pool.
// Death:    every result completes: with a value, the task's error,
//           WorkerDied, Cancelled or BrokenPool.
// Cost:     get() decodes the result where it lies: one copy each time. One
//           with a handle to an object that is new to this process is kept, and
//           with it the object, until the AsyncResult goes.

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <iterator>
#include <memory>
#include <optional>
#include <ranges>
#include <span>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "shoal/ipc/errors.h"
#include "shoal/ipc/timeout.h"
#include "shoal/ipc/wait.h"
#include "shoal/ipc/waitable.h"
#include "shoal/pool/completion.h"
#include "shoal/pool/tasks.h"

namespace shoal {

template <class R>
class AsyncResult {
 public:
  AsyncResult(AsyncResult&& other) noexcept
      : tasks_(std::move(other.tasks_)),
        collect_(other.collect_),
        kept_(std::move(other.kept_)),
        local_(std::move(other.local_)),
        // relaxed: a moved-from result is used by nobody else.
        handed_out_(other.handed_out_.load(std::memory_order_relaxed)) {}
  AsyncResult& operator=(AsyncResult&& other) noexcept {
    tasks_ = std::move(other.tasks_);
    collect_ = other.collect_;
    kept_ = std::move(other.kept_);
    local_ = std::move(other.local_);
    handed_out_.store(other.handed_out_.load(std::memory_order_relaxed),
                      std::memory_order_relaxed);
    return *this;
  }

  // The value; may be repeated where R copies, else NotReady the second time.
  // Throws TimeoutError, and what the task failed with: its own exception,
  // RemoteError, WorkerDied, Cancelled, BrokenPool; what a callback has thrown.
  R get(Timeout timeout = forever) {
    if (!wait(timeout)) throw TimeoutError("shoal: AsyncResult::get timed out");
    local_ != nullptr ? local_->rethrow() : tasks_.rethrow_first();
    if constexpr (std::is_void_v<R>) {
      if (local_ == nullptr) collect();
    } else if constexpr (pool::kCopies<R>) {
      if (local_ != nullptr) return local_->value();
      if constexpr (pool::MayHoldHandles<R>)
        return kept_->get(collect_, tasks_);
      else
        return collect();
    } else {
      // relaxed: only one caller may have it; the value is ordered by `done`.
      if (handed_out_.exchange(true, std::memory_order_relaxed))
        throw NotReady(
            "shoal: this result was handed out already; it cannot "
            "be copied");
      return local_ != nullptr ? std::move(local_->value()) : collect();
    }
  }
  // Nothing while it is not ready; else as get().
  std::optional<R> try_get() requires(!std::is_void_v<R>) {
    if (!ready()) return std::nullopt;
    return get(now);
  }

  // False when the timeout ends first.
  bool wait(Timeout timeout = forever) const {
    return local_ != nullptr ? local_->wait(timeout) : tasks_.wait(timeout);
  }
  bool ready() const {
    return local_ != nullptr ? local_->ready() : tasks_.ready();
  }
  // How many of its tasks are done, and how many there are: 1, or the chunks
  // of a map. With callbacks, it is ready a little after all are done.
  std::pair<std::size_t, std::size_t> progress() const {
    return local_ != nullptr ? local_->progress() : tasks_.progress();
  }
  // Whether it ended without an error. Throws NotReady before.
  bool successful() const {
    if (!ready()) throw NotReady("shoal: AsyncResult::successful before ready");
    return local_ != nullptr ? local_->successful() : tasks_.successful();
  }
  // True only if none of it had started; get() then throws Cancelled.
  bool cancel() {
    return local_ != nullptr ? local_->cancel() : tasks_.cancel();
  }

  // Runs here what of it no thread has begun, if that is possible; whether it
  // is ready then.
  bool assist() const { return local_ != nullptr ? local_->assist() : ready(); }

  // The calling thread is in a task that brings it about.
  bool is_brought_here() const {
    return local_ != nullptr && local_->is_brought_here();
  }

  // For shoal::wait().
  WaitSource wait_source() { return WaitSource::of(*this); }
  bool ready_to_wait_for() const { return ready(); }
  void announce_wait() const {
    if (local_ != nullptr)
      local_->announce();
    else
      tasks_.for_each(
          [this](std::uint32_t index) { tasks_.core().announce(index); });
  }
  liveness::Domain& domain_to_wait_in() const {
    return local_ != nullptr ? local_->domain() : tasks_.core().domain();
  }
  static liveness::Who blocker_to_wait_for() { return 0; }

 private:
  friend class Pool;
  friend class ThreadPool;
  AsyncResult(pool::Tasks tasks, pool::Collect<R> collect)
      : tasks_(std::move(tasks)), collect_(collect) {
    if constexpr (pool::MayHoldHandles<R>)
      kept_ = std::make_unique<pool::Kept<R>>();
  }
  explicit AsyncResult(std::shared_ptr<pool::LocalResult<R>> local)
      : tasks_(nullptr), collect_(nullptr), local_(std::move(local)) {}

  R collect() const {
    Arrival arrival;
    return collect_(tasks_, arrival);
  }

  pool::Tasks tasks_;
  pool::Collect<R> collect_;
  [[no_unique_address]] std::conditional_t<
      pool::MayHoldHandles<R>, std::unique_ptr<pool::Kept<R>>, std::monostate>
      kept_;
  // One that becomes ready in this process; tasks_ has nothing then.
  std::shared_ptr<pool::LocalResult<R>> local_;
  std::atomic<bool> handed_out_{false};
};

namespace pool {

template <class Results>
using ResultIn = std::ranges::range_value_t<Results>;
template <class T>
inline constexpr bool kIsAsyncResult = false;
template <class R>
inline constexpr bool kIsAsyncResult<AsyncResult<R>> = true;
// An lvalue, or a view such as std::span. Not of const ones, which nobody could
// get the value of.
template <class Results>
concept AsyncResults = std::ranges::contiguous_range<Results> &&
    std::ranges::sized_range<Results> && std::ranges::borrowed_range<Results> &&
    kIsAsyncResult<ResultIn<Results>> &&
    std::is_same_v<std::ranges::range_reference_t<Results>,
                   std::add_lvalue_reference_t<ResultIn<Results>>>;

// Those of `results` that are ready; waits for one. None when the deadline
// passes first. Ascending.
template <class R>
std::vector<std::size_t> wait_some(std::span<AsyncResult<R>* const> results,
                                   Deadline deadline) {
  std::vector<std::size_t> ready;
  for (std::size_t i = 0; i < results.size(); ++i)
    if (results[i]->ready()) ready.push_back(i);
  if (!ready.empty()) return ready;
  if (!deadline.passed() &&
      std::ranges::all_of(results, [](const AsyncResult<R>* result) {
        return result->is_brought_here();
      }))
    Completion::throw_waits_for_itself();
  // Only who would wait for ever has the time to run one.
  if (deadline.is_never())
    for (std::size_t i = 0; i < results.size(); ++i)
      if (results[i]->assist()) return {i};
  std::vector<Waitable> things;
  things.reserve(results.size());
  for (AsyncResult<R>* result : results) things.emplace_back(*result);
  return shoal::wait(things, deadline.remaining());
}

}  // namespace pool

// The index of one that is ready. Throws TimeoutError, std::invalid_argument
// for none.
template <pool::AsyncResults Results>
std::size_t wait_any(Results&& results, Timeout timeout = forever) {
  using Result = std::ranges::range_value_t<Results>;
  if (std::ranges::empty(results))
    throw std::invalid_argument("shoal: wait_any of no results");
  std::vector<Result*> all;
  for (Result& result : results) all.push_back(&result);
  const auto ready =
      pool::wait_some(std::span<Result* const>(all), Deadline(timeout));
  if (ready.empty()) throw TimeoutError("shoal: wait_any timed out");
  return ready.front();
}

// What as_completed() gives: a range of AsyncResult<R>&, to be gone through
// once.
template <class R>
class AsCompleted {
 public:
  class Iterator {
   public:
    using value_type = AsyncResult<R>;
    using difference_type = std::ptrdiff_t;
    explicit Iterator(AsCompleted& from) : from_(&from) {}
    AsyncResult<R>& operator*() const { return *from_->current_; }
    AsyncResult<R>* operator->() const { return from_->current_; }
    Iterator& operator++() {
      from_->advance();
      return *this;
    }
    void operator++(int) { from_->advance(); }
    bool operator==(std::default_sentinel_t) const {
      return from_->current_ == nullptr;
    }

   private:
    AsCompleted* from_;
  };

  AsCompleted(std::span<AsyncResult<R>> results, Timeout timeout)
      : deadline_(timeout) {
    for (AsyncResult<R>& result : results) open_.push_back(&result);
  }

  // Throws TimeoutError, as ++ does.
  Iterator begin() {
    if (!begun_) advance();
    begun_ = true;
    return Iterator(*this);
  }
  static std::default_sentinel_t end() { return {}; }

 private:
  void advance() {
    current_ = nullptr;
    if (ready_.empty() && !open_.empty()) {
      const auto found =
          pool::wait_some(std::span<AsyncResult<R>* const>(open_), deadline_);
      if (found.empty())
        throw TimeoutError("shoal: as_completed timed out; " +
                           std::to_string(open_.size()) +
                           " results are not ready");
      for (const std::size_t i : found)
        ready_.push_back(std::exchange(open_[i], nullptr));
      std::erase(open_, nullptr);
    }
    if (ready_.empty()) return;
    current_ = ready_.front();
    ready_.pop_front();
  }

  Deadline deadline_;  // for all of them
  std::vector<AsyncResult<R>*> open_;
  std::deque<AsyncResult<R>*> ready_;
  AsyncResult<R>* current_ = nullptr;
  bool begun_ = false;
};

// Each of them as soon as it is ready, those that failed too. `results` stay
// where they are meanwhile.
template <pool::AsyncResults Results>
auto as_completed(Results&& results, Timeout timeout = forever) {
  return AsCompleted(
      std::span(std::ranges::data(results), std::ranges::size(results)),
      timeout);
}

}  // namespace shoal
