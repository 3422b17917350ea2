#pragma once
// Pool: functions run by worker processes.
//
//   shoal::Pool pool(4);
//   int n = pool.apply(count, "text", 7);
//   std::vector<int> all = pool.map([](int x) { return x * x; }, numbers);
//   auto later = pool.apply_async(count, "more", 9);   later.get(1s);
//
// Sharing:  any thread of the process that made it.
// Ordering: what happened before the call is visible to the function; what the
//           function did before it returned, to whoever gets the result.
// Death:    a worker that dies costs its own task (WorkerDied) and is
//           replaced. The owner dead, no worker is left.
// Cost:     a task is a CAS on each side and two copies of its bytes; no
//           system call unless someone sleeps.
// Layout:   docs/layout.md#pool
//
// Callables: functions and pointers to them, members, captureless and generic
// lambdas, function objects that are Messages, closures over trivially
// copyable values. Arguments are decayed and copied before the call returns; a
// string literal travels as std::string.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <ranges>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "shoal/ipc/cpu_count.h"
#include "shoal/ipc/process.h"
#include "shoal/pool/async_result.h"
#include "shoal/pool/attempt.h"
#include "shoal/pool/call.h"
#include "shoal/pool/callbacks.h"
#include "shoal/pool/core.h"
#include "shoal/pool/in_place.h"
#include "shoal/pool/options.h"
#include "shoal/pool/remote.h"
#include "shoal/pool/submission.h"
#include "shoal/pool/tasks.h"
#include "shoal/pool/verbs.h"
#include "shoal/shared/array.h"
#include "shoal/shared/shape.h"

namespace shoal {

class Pool : public pool::Verbs<Pool> {
 public:
  // Starts the workers and does not wait for them: workers() does. Throws
  // std::invalid_argument (fewer than 1, other options), NoSpace,
  // std::system_error; a worker that cannot be forked breaks the pool, as an
  // initializer that throws does: BrokenPool, with the reason, from then on.
  explicit Pool(int processes = cpu_count())
      : Pool(PoolOptions{.processes = processes}) {}
  explicit Pool(const PoolOptions& options)
      : core_(std::make_shared<pool::Core>(options, nullptr)) {}
  // Each worker runs `initializer` first, once, in the thread that runs its
  // tasks. What it throws breaks the pool: BrokenPool, with that nested in it,
  // from every use. For a worker that is started anew it must be a callable
  // that travels, and arguments that do: std::invalid_argument else.
  template <class F, class... As>
  requires detail::Runs<F, As...> Pool(int processes, F&& initializer,
                                       As&&... initargs)
      : Pool(PoolOptions{.processes = processes}, std::forward<F>(initializer),
             std::forward<As>(initargs)...) {}
  template <class F, class... As>
  requires detail::Runs<F, As...> Pool(const PoolOptions& options,
                                       F&& initializer, As&&... initargs)
      : core_(std::make_shared<pool::Core>(
            options, detail::make_body(std::forward<F>(initializer),
                                       std::forward<As>(initargs)...))) {}
  // terminate(), then join().
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  // Destroyed after its last call, as any object; results outlive it.
  // All of these throw NotRunning after close() or terminate(), NoSpace, and
  // BrokenPool. Submitting never waits for a worker.

  // Those of pool::Verbs: apply_async, submit, map, map_async, starmap,
  // starmap_async, imap, imap_unordered; and
  template <class... As, class F = call::UntoldFunction<As...>>
  auto apply(F&& f, As&&... args) {
    return await<std::decay_t<F>, call::Argument<As>...>(
        "apply", f, call::as_argument(std::forward<As>(args))...);
  }

  // f(element) for each element, a T&, of an Array, or of its span, row, slice
  // or column, in place, without a copy; returns when all are done. Chunks and
  // errors as map. Throws std::invalid_argument for other memory,
  // std::logic_error for an Array that is mapped read-only.
  template <class T, class F = call::UntoldFunction<T>>
  void for_each(const Array<T>& array, F&& f, std::ptrdiff_t chunksize = 0) {
    in_place(pool::elements_of(array), f, chunksize);
  }
  template <class T, class F = call::UntoldFunction<T>>
  void for_each(std::span<T> span, F&& f, std::ptrdiff_t chunksize = 0) {
    in_place(pool::elements_of(span), f, chunksize);
  }
  template <class T, class F = call::UntoldFunction<T>>
  void for_each(const Strided<T>& column, F&& f, std::ptrdiff_t chunksize = 0) {
    in_place(pool::elements_of(column), f, chunksize);
  }

  // No more submissions; what was submitted completes. May be repeated.
  void close() { core().close(); }
  // Completes queued and running results as Cancelled before it returns;
  // workers get SIGTERM, and SIGKILL after a second. May be repeated.
  void terminate() { core().terminate(); }
  // Waits until all workers have ended; false when the timeout ends first.
  // Throws NotRunning before close() or terminate(). May be repeated.
  bool join(Timeout timeout = forever) { return core().join(timeout); }

  // Of the workers that are not known to have ended.
  std::vector<pid_t> workers() const { return core().pids(); }
  PoolStats stats() const { return core().stats(); }

 private:
  friend class pool::Verbs<Pool>;
  static constexpr const char* kName = "Pool";

  template <class F, class... As>
  auto call_async(const char* verb, const Callbacks* callbacks, const F& f,
                  As&&... args);
  template <class F, class... As>
  auto await(const char* verb, const F& f, const As&... args);
  template <class Mode, class F, class Range>
  auto chunked(const char* verb, const Callbacks* callbacks, const F& f,
               Range&& items, std::ptrdiff_t chunksize, bool waits);
  template <class R, class F, class T>
  static pool::SentChunk<R> send_chunk(const std::shared_ptr<pool::Core>& core,
                                       const F& f, const std::vector<T>& items);
  template <class Mode, class F, class T>
  static consteval bool require_item() {
    return call::require_item_call<Mode, F, T>();
  }
  template <class T, class F>
  void in_place(const pool::Elements<T>& elements, const F& f,
                std::ptrdiff_t chunksize) {
    using Callable = std::decay_t<F>;
    static_assert(pool::require_in_place<Callable, T>());
    static_assert(call::require_callable<Callable>());
    const Callable& callable = f;
    core().require_running("for_each");
    pool::Tasks tasks(core_);
    pool::submit_in_place<Callable>(core(), callable, elements, chunksize,
                                    tasks);
    AsyncResult<void>(std::move(tasks), &pool::collect_nothing).get();
  }
  template <class R>
  AsyncResult<R> result_of(pool::Tasks tasks, pool::Collect<R> collect,
                           const Callbacks* callbacks);

  pool::Core& core() const {
    // In its own workers, which were forked while it was being made.
    if (__builtin_expect(core_ == nullptr, 0)) pool::Core::throw_foreign();
    return *core_;
  }

  std::shared_ptr<pool::Core> core_;
};

// ---- inline ----

template <class R>
AsyncResult<R> Pool::result_of(pool::Tasks tasks, pool::Collect<R> collect,
                               const Callbacks* callbacks) {
  if (callbacks == nullptr) return AsyncResult<R>(std::move(tasks), collect);
  auto job = std::make_shared<pool::CalledBack<R>>(std::move(tasks), collect,
                                                   *callbacks);
  core().callbacks().add(job);
  return AsyncResult<R>(std::move(job));
}

template <class F, class... As>
auto Pool::call_async(const char* verb, const Callbacks* callbacks, const F& f,
                      As&&... args) {
  using Callable = std::decay_t<F>;
  static_assert(call::require_call<Callable, call::Argument<As>...>());
  using R = call::Result<Callable, call::Argument<As>...>;
  if (callbacks != nullptr) callbacks->callback.template require<R>();
  pool::Tasks tasks(core_);
  tasks.add_one(pool::submit_call<Callable, call::Argument<As>...>(
      core(), verb, f, call::as_argument(std::forward<As>(args))...));
  return result_of<R>(std::move(tasks), &pool::collect_one<R>, callbacks);
}

// The same and get(), without an AsyncResult between.
template <class F, class... As>
auto Pool::await(const char* verb, const F& f, const As&... args) {
  struct Task {
    ~Task() { core.release(index, small); }
    pool::Core& core;
    std::uint32_t index;
    bool small;
  };
  bool small = false;
  // To ask what has no fixed size again would call a user's serialize again.
  if constexpr (call::kHasFixedSize<F> &&
                ((codec::kKind<As> == codec::Kind::bytes) && ...))
    small = call::callable_size(f) + codec::size_of_all(args...) <=
            task::kInlineArguments;
  const Task task{core(), pool::submit_call(core(), verb, f, args...), small};
  Arrival arrival;
  return pool::decode_result<call::Result<F, As...>>(
      task.core.await(task.index), arrival);
}

template <class Mode, class F, class Range>
auto Pool::chunked(const char* verb, const Callbacks* callbacks, const F& f,
                   Range&& items, std::ptrdiff_t chunksize, bool waits) {
  using Callable = std::decay_t<F>;
  using T = pool::ItemIn<Range>;
  static_assert(require_item<Mode, Callable, T>());
  using R = call::ItemResult<Mode, Callable, T>;
  using All = pool::AllOf<R>;
  core().require_running(verb);
  if (callbacks != nullptr) callbacks->callback.template require<All>();
  const Callable callable = f;
  pool::Tasks tasks(core_);
  const auto submit_all = [&]<class Item>(std::span<const Item> all) {
    constexpr call::Thunk kThunk = &call::run_chunk<Mode, Callable, T>;
    const std::size_t size =
        pool::chunk_size(kName, verb, core().workers(), all.size(), chunksize);
    tasks.add_all((all.size() + size - 1) / size, waits, [&](std::size_t n) {
      const std::size_t from = n * size;
      const task::Handle first = n == 0 ? 0 : core().handle(tasks.first());
      return pool::submit_chunk<kThunk, T>(
          core(), verb, callable,
          all.subspan(from, std::min(size, all.size() - from)), &first);
    });
  };
  if constexpr (std::ranges::contiguous_range<Range> &&
                std::ranges::sized_range<Range> &&
                std::is_same_v<T, std::ranges::range_value_t<Range>>) {
    submit_all(
        std::span<const T>(std::ranges::data(items), std::ranges::size(items)));
  } else if constexpr (
      !std::is_copy_constructible_v<T> && std::ranges::forward_range<Range> &&
      std::is_same_v<std::remove_cvref_t<std::ranges::range_reference_t<Range>>,
                     T> &&
      std::is_lvalue_reference_v<std::ranges::range_reference_t<Range>>) {
    // Where they lie, as they cannot be copied.
    using Item = std::reference_wrapper<const T>;
    std::vector<Item> all;
    for (const T& item : items) all.push_back(item);
    submit_all(std::span<const Item>(all));
  } else {
    const auto all = pool::copied<T, Range>(items);
    submit_all(call::unboxed<T>(all));
  }
  if constexpr (std::is_void_v<R>)
    return result_of<void>(std::move(tasks), &pool::collect_nothing, callbacks);
  else
    return result_of<All>(std::move(tasks), &pool::collect_chunks<R>,
                          callbacks);
}

template <class R, class F, class T>
pool::SentChunk<R> Pool::send_chunk(const std::shared_ptr<pool::Core>& core,
                                    const F& f, const std::vector<T>& items) {
  using Item = call::Unboxed<T>;
  constexpr call::Thunk kThunk = &call::run_attempts<call::Whole, F, Item>;
  const std::span<const Item> all = call::unboxed<Item>(items);
  pool::Tasks tasks(core);
  std::vector<std::pair<std::size_t, std::exception_ptr>> refused;
  try {
    tasks.add_one(pool::submit_chunk<kThunk, Item>(*core, nullptr, f, all));
  } catch (...) {
    // What an item throws that cannot be encoded costs that item.
    std::vector<std::reference_wrapper<const Item>> others;
    refused = pool::refused_of(*core, all, others);
    if (refused.empty()) throw;
    tasks.add_one(pool::submit_chunk<kThunk, Item>(*core, nullptr, f, others));
  }
  return {{std::move(tasks), &pool::collect_attempts<R>},
          items.size(),
          std::move(refused)};
}

}  // namespace shoal
