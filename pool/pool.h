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
#include <initializer_list>
#include <memory>
#include <ranges>
#include <span>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "shoal/ipc/cpu_count.h"
#include "shoal/pool/async_result.h"
#include "shoal/pool/call.h"
#include "shoal/pool/core.h"

namespace shoal {

class Pool {
  template <class Range>
  using Item = typename call::ItemOf<std::ranges::range_value_t<Range>>::type;

 public:
  // Forks the workers. Throws std::invalid_argument (fewer than 1), NoSpace,
  // std::system_error.
  explicit Pool(int processes = cpu_count())
      : core_(std::make_shared<pool::Core>(processes)) {}
  // terminate(), then join().
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  // Destroyed after its last call, as any object; results outlive it.
  // All of these throw NotRunning after close() or terminate(), NoSpace, and
  // std::invalid_argument for an object that was made after the pool.
  // Submitting never waits for a worker.

  template <class F, class... As>
  auto apply_async(F&& f, As&&... args) {
    return apply_as<std::decay_t<F>, call::Argument<As>...>(
        "apply_async", f, call::as_argument(std::forward<As>(args))...);
  }
  template <class F, class... As>
  auto submit(F&& f, As&&... args) {
    return apply_as<std::decay_t<F>, call::Argument<As>...>(
        "submit", f, call::as_argument(std::forward<As>(args))...);
  }
  template <class F, class... As>
  auto apply(F&& f, As&&... args) {
    return await<std::decay_t<F>, call::Argument<As>...>(
        "apply", f, call::as_argument(std::forward<As>(args))...);
  }

  // f(item) for each item, in order. Chunks are one task each; chunksize 0 is
  // ceil(n / (4 * workers)), a negative one std::invalid_argument. Throws the
  // first failing chunk's error after all chunks have ended.
  template <class F, std::ranges::input_range Range>
  auto map_async(F&& f, Range&& items, std::ptrdiff_t chunksize = 0) {
    return chunked<call::Whole>("map_async", f, items, chunksize);
  }
  template <class F, class T>
  auto map_async(F&& f, std::initializer_list<T> items,
                 std::ptrdiff_t chunksize = 0) {
    return chunked<call::Whole>("map_async", f, listed(items), chunksize);
  }
  template <class F, std::ranges::input_range Range>
  auto map(F&& f, Range&& items, std::ptrdiff_t chunksize = 0) {
    return chunked<call::Whole>("map", f, items, chunksize).get();
  }
  template <class F, class T>
  auto map(F&& f, std::initializer_list<T> items,
           std::ptrdiff_t chunksize = 0) {
    return chunked<call::Whole>("map", f, listed(items), chunksize).get();
  }

  // f(parts of item...) for each item, a tuple.
  template <class F, std::ranges::input_range Range>
  auto starmap_async(F&& f, Range&& items, std::ptrdiff_t chunksize = 0) {
    return chunked<call::Spread>("starmap_async", f, items, chunksize);
  }
  template <class F, class T>
  auto starmap_async(F&& f, std::initializer_list<T> items,
                     std::ptrdiff_t chunksize = 0) {
    return chunked<call::Spread>("starmap_async", f, listed(items), chunksize);
  }
  template <class F, std::ranges::input_range Range>
  auto starmap(F&& f, Range&& items, std::ptrdiff_t chunksize = 0) {
    return chunked<call::Spread>("starmap", f, items, chunksize).get();
  }
  template <class F, class T>
  auto starmap(F&& f, std::initializer_list<T> items,
               std::ptrdiff_t chunksize = 0) {
    return chunked<call::Spread>("starmap", f, listed(items), chunksize).get();
  }

  // No more submissions; what was submitted completes. May be repeated.
  void close() { core().close(); }
  // Completes queued and running results as Cancelled before it returns;
  // workers get SIGTERM, and SIGKILL after a second. May be repeated.
  void terminate() { core().terminate(); }
  // Waits until all workers have ended; false when the timeout ends first.
  // Throws NotRunning before close() or terminate(). May be repeated.
  bool join(Timeout timeout = forever) { return core().join(timeout); }

  // Of the workers that are alive now.
  std::vector<pid_t> workers() const { return core().pids(); }

 private:
  // The task's index.
  template <class F, class... As>
  std::uint32_t submit_call(const char* verb, const F& f, const As&... args);
  template <class F, class... As>
  auto apply_as(const char* verb, const F& f, const As&... args);
  template <class F, class... As>
  auto await(const char* verb, const F& f, const As&... args);
  template <class Mode, class F, class Range>
  auto chunked(const char* verb, const F& f, Range&& items,
               std::ptrdiff_t chunksize);
  template <class Mode, class F, class T>
  void submit_chunk(const char* verb, const F& f, std::span<const T> items,
                    pool::Tasks& tasks);
  // Literals in a braced list travel as strings.
  template <class T>
  static auto listed(std::initializer_list<T> items);
  std::size_t chunk_size(std::size_t items, std::ptrdiff_t wanted) const;

  pool::Core& core() const {
    // In its own workers, which were forked while it was being made.
    if (__builtin_expect(core_ == nullptr, 0)) pool::Core::throw_foreign();
    return *core_;
  }

  std::shared_ptr<pool::Core> core_;
};

// ---- inline ----

template <class F, class... As>
std::uint32_t Pool::submit_call(const char* verb, const F& f,
                                const As&... args) {
  static_assert(call::require_call<F, As...>());
  constexpr call::Thunk kThunk = &call::run_call<F, As...>;
  const auto draft =
      core().draft(verb, call::thunk_reference<kThunk>(),
                   call::callable_size(f) + codec::size_of_all(args...));
  Deposits passage = core().passage();
  try {
    codec::Writer writer(draft.arguments, &passage);
    call::encode_callable(writer, f);
    codec::encode_all(writer, args...);
  } catch (...) {
    core().discard(draft);
    throw;
  }
  core().submit(verb, draft);
  passage.sent();
  return draft.index;
}

template <class F, class... As>
auto Pool::apply_as(const char* verb, const F& f, const As&... args) {
  pool::Tasks tasks(core_);
  tasks.add_one(submit_call(verb, f, args...));
  using R = call::Result<F, As...>;
  return AsyncResult<R>(std::move(tasks), &pool::collect_one<R>);
}

// The same and get(), without an AsyncResult between.
template <class F, class... As>
auto Pool::await(const char* verb, const F& f, const As&... args) {
  struct Task {
    ~Task() { core.release(index); }
    pool::Core& core;
    std::uint32_t index;
  };
  const Task task{core(), submit_call(verb, f, args...)};
  return pool::decode_result<call::Result<F, As...>>(
      task.core.await(task.index));
}

template <class Mode, class F, class T>
void Pool::submit_chunk(const char* verb, const F& f, std::span<const T> items,
                        pool::Tasks& tasks) {
  constexpr call::Thunk kThunk = &call::run_chunk<Mode, F, T>;
  constexpr bool kFixed = std::is_trivially_copyable_v<T> &&
                          !codec::Handle<T> && !std::is_empty_v<T>;
  std::size_t bytes = call::callable_size(f) + sizeof(std::uint64_t);
  if constexpr (kFixed)
    bytes += items.size_bytes();
  else
    for (const T& item : items) bytes += codec::size(item);
  const auto draft = core().draft(verb, call::thunk_reference<kThunk>(), bytes);
  Deposits passage = core().passage();
  try {
    codec::Writer writer(draft.arguments, &passage);
    call::encode_callable(writer, f);
    writer.write(std::uint64_t{items.size()});
    if constexpr (kFixed)
      writer.write(items.data(), items.size_bytes());
    else
      for (const T& item : items) codec::encode(writer, item);
  } catch (...) {
    core().discard(draft);
    throw;
  }
  core().submit(verb, draft);
  passage.sent();
  tasks.add(draft.index);
}

template <class Mode, class F, class Range>
auto Pool::chunked(const char* verb, const F& f, Range&& items,
                   std::ptrdiff_t chunksize) {
  using Callable = std::decay_t<F>;
  using T = Item<Range>;
  static_assert(call::require_item_call<Mode, Callable, T>());
  using R = call::ItemResult<Mode, Callable, T>;
  if (chunksize < 0)
    throw std::invalid_argument(std::string("shoal: Pool::") + verb +
                                " with chunksize " + std::to_string(chunksize) +
                                "; give 0 for the default, or more");
  core().require_running(verb);
  const Callable callable = f;
  pool::Tasks tasks(core_);
  const auto submit_all = [&](std::span<const T> all) {
    const std::size_t size = chunk_size(all.size(), chunksize);
    tasks.reserve((all.size() + size - 1) / size);
    for (std::size_t first = 0; first < all.size(); first += size)
      submit_chunk<Mode>(verb, callable,
                         all.subspan(first, std::min(size, all.size() - first)),
                         tasks);
  };
  if constexpr (std::ranges::contiguous_range<Range> &&
                std::ranges::sized_range<Range> &&
                std::is_same_v<T, std::ranges::range_value_t<Range>>) {
    submit_all({std::ranges::data(items), std::ranges::size(items)});
  } else {
    std::vector<call::Boxed<T>> copied;
    for (auto&& item : items)
      copied.push_back(call::Boxed<T>{T(std::forward<decltype(item)>(item))});
    submit_all(call::unboxed<T>(copied));
  }
  if constexpr (std::is_void_v<R>)
    return AsyncResult<void>(std::move(tasks), &pool::collect_nothing);
  else
    return AsyncResult<std::vector<R>>(std::move(tasks),
                                       &pool::collect_chunks<R>);
}

template <class T>
auto Pool::listed(std::initializer_list<T> items) {
  if constexpr (std::is_same_v<T, const char*>)
    return std::vector<std::string>(items.begin(), items.end());
  else
    return std::span<const T>(items.begin(), items.size());
}

inline std::size_t Pool::chunk_size(std::size_t items,
                                    std::ptrdiff_t wanted) const {
  if (wanted > 0) return static_cast<std::size_t>(wanted);
  const std::size_t parts = 4 * std::size_t{core().workers()};
  return std::max<std::size_t>((items + parts - 1) / parts, 1);
}

}  // namespace shoal
