#pragma once
// ThreadPool: functions run by threads of this process; Pool's interface.
//
//   shoal::ThreadPool pool(4);
//   int n = pool.apply(count, text, 7);
//
// What differs from Pool: callables and arguments are moved in, and may be any
// that can be moved; get() throws the very exception object; workers() are
// thread ids; a thread that waits for a task runs it itself when none has begun
// it (only without a timeout and an initializer), so that tasks may wait for
// tasks; terminate() waits for those that run, and cancels the others. A task
// cannot be killed: task_deadline is std::invalid_argument; maxtasksperchild,
// start_method, on_worker_death and ignore_sigint do not apply. map, imap and
// for_each give each chunk a copy of the callable. pthread_exit in a task ends
// the program.
//
// Sharing:  any thread, its own included.
// Ordering: as Pool.
// Cost:     a task is a push and a pop of a queue, and a block of memory, of
//           which the pool keeps up to 32 MiB until it and its last result have
//           gone; a map, one allocation a chunk.

#include <sys/types.h>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <functional>
#include <memory>
#include <ranges>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "shoal/ipc/cpu_count.h"
#include "shoal/pool/async_result.h"
#include "shoal/pool/attempt.h"
#include "shoal/pool/call.h"
#include "shoal/pool/callbacks.h"
#include "shoal/pool/options.h"
#include "shoal/pool/submission.h"
#include "shoal/pool/thread_core.h"
#include "shoal/pool/thread_jobs.h"
#include "shoal/pool/verbs.h"

namespace shoal {

class ThreadPool : public pool::Verbs<ThreadPool> {
 public:
  explicit ThreadPool(int threads = cpu_count())
      : ThreadPool(PoolOptions{.processes = threads}) {}
  explicit ThreadPool(const PoolOptions& options)
      : ThreadPool(Made(), options, nullptr) {}
  // Each thread runs `initializer` first. What it throws breaks the pool.
  template <class F, class... As>
  requires detail::Runs<F, As...> ThreadPool(int threads, F&& initializer,
                                             As&&... initargs)
      : ThreadPool(PoolOptions{.processes = threads},
                   std::forward<F>(initializer),
                   std::forward<As>(initargs)...) {}
  template <class F, class... As>
  requires detail::Runs<F, As...> ThreadPool(const PoolOptions& options,
                                             F&& initializer, As&&... initargs)
      : ThreadPool(Made(), options,
                   [f = std::decay_t<F>(std::forward<F>(initializer)),
                    args = std::tuple<call::Argument<As>...>(
                        std::forward<As>(initargs)...)] {
                     auto own = f;
                     std::apply(
                         [&own](auto... copies) {
                           std::invoke(own, std::move(copies)...);
                         },
                         args);
                   }) {}
  // terminate(), then join().
  ~ThreadPool() {
    // A fork's copy has no threads; what they may have held stays as it is.
    if (core_->foreign())
      static_cast<void>(new std::shared_ptr(std::move(core_)));
    else
      core_->terminate();
  }
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  // All of these throw NotRunning after close() or terminate(), and BrokenPool.

  // Those of pool::Verbs: apply_async, submit, map, map_async, starmap,
  // starmap_async, imap, imap_unordered; and
  template <class... As, class F = call::UntoldFunction<As...>>
  auto apply(F&& f, As&&... args) {
    return call_async("apply", nullptr, std::forward<F>(f),
                      std::forward<As>(args)...)
        .get();
  }

  // Of any range that can be indexed.
  template <std::ranges::random_access_range Range,
            class F = call::UntoldFunction<Range>>
  requires std::ranges::sized_range<Range>
  void for_each(Range&& elements, F&& f, std::ptrdiff_t chunksize = 0) {
    static_assert(
        std::invocable<std::decay_t<F>&, std::ranges::range_reference_t<Range>>,
        "shoal: for_each calls the function with an element, a T&, and nothing "
        "else.");
    const auto begin = std::ranges::begin(elements);
    const std::size_t count = std::ranges::size(elements);
    const std::size_t size =
        pool::chunk_size(kName, "for_each", core_->workers(), count, chunksize);
    std::vector<std::size_t> chunks;
    for (std::size_t first = 0; first < count; first += size)
      chunks.push_back(first);
    chunked<call::Whole>(
        "for_each", nullptr,
        [begin, count, size, callable = std::decay_t<F>(f)](std::size_t first) {
          auto own = callable;
          using Difference = std::iter_difference_t<decltype(begin)>;
          const std::size_t last = std::min(count, first + size);
          for (std::size_t n = first; n < last; ++n)
            std::invoke(own, begin[static_cast<Difference>(n)]);
        },
        chunks, 1, true)
        .get();
  }

  void close() { core_->close(); }
  void terminate() { core_->terminate(); }
  bool join(Timeout timeout = forever) { return core_->join(timeout); }

  std::vector<pid_t> workers() const { return core_->ids(); }
  PoolStats stats() const { return core_->stats(); }

 private:
  friend class pool::Verbs<ThreadPool>;
  static constexpr const char* kName = "ThreadPool";

  struct Made {};
  ThreadPool(Made, const PoolOptions& options,
             std::function<void()> initializer)
      : core_(std::make_shared<pool::ThreadCore>(options,
                                                 std::move(initializer))) {
    core_->start();
  }

  template <class F, class... As>
  auto call_async(const char* verb, const Callbacks* callbacks, F&& f,
                  As&&... args) {
    using Callable = std::decay_t<F>;
    static_assert(call::require_invocable<Callable, call::Argument<As>...>());
    using R = call::Result<Callable, call::Argument<As>...>;
    call::require_function<Callable>(f);
    if (callbacks != nullptr) callbacks->callback.template require<R>();
    auto job = pool::ThreadCall<R, Callable, call::Argument<As>...>::make(
        core_, callbacks, std::forward<F>(f), std::forward<As>(args)...);
    core_->submit(verb, job);
    return AsyncResult<R>(std::move(job));
  }

  template <class Mode, class F, class Range>
  auto chunked(const char* verb, const Callbacks* callbacks, const F& f,
               Range&& items, std::ptrdiff_t chunksize, bool waits) {
    using Callable = std::decay_t<F>;
    using T = pool::ItemIn<Range>;
    static_assert(require_item<Mode, Callable, T>());
    using R = call::ItemResult<Mode, Callable, T>;
    using Map = pool::ThreadMap<Mode, Callable, T, R>;
    using All = pool::AllOf<R>;
    core_->require_running(verb);
    call::require_function<Callable>(f);
    if (callbacks != nullptr) callbacks->callback.template require<All>();
    auto copied = pool::copied<T, Range>(items);
    const std::size_t size = pool::chunk_size(kName, verb, core_->workers(),
                                              copied.size(), chunksize);
    auto map = std::make_shared<Map>(core_, callbacks, Callable(f),
                                     std::move(copied), size);
    map->submit(verb, waits);
    return AsyncResult<All>(std::move(map));
  }

  template <class R, class F, class T>
  static auto send_chunk(const std::shared_ptr<pool::ThreadCore>& core,
                         const F& f, std::vector<T> items) {
    using Attempts = std::vector<pool::Attempt<R>>;
    call::require_function(f);
    struct Run {
      Attempts operator()(F called, std::vector<T> all) const {
        return pool::attempt_all<F, call::Unboxed<T>, R>(called, all);
      }
    };
    const std::size_t count = items.size();
    auto job = pool::ThreadCall<Attempts, Run, F, std::vector<T>>::make(
        core, nullptr, Run(), f, std::move(items));
    core->submit(nullptr, job);
    return pool::SentChunk<R>{AsyncResult<Attempts>(std::move(job)), count, {}};
  }
  template <class Mode, class F, class T>
  static consteval bool require_item() {
    return call::require_item_invocable<Mode, F, T>();
  }

  pool::ThreadCore& core() const { return *core_; }

  std::shared_ptr<pool::ThreadCore> core_;
};

}  // namespace shoal
