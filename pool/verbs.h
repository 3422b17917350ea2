#pragma once
// The verbs that all kinds of pools have, in one place.
//
//   class Pool : public pool::Verbs<Pool> { friend class pool::Verbs<Pool>; …
//   };
//
// A pool brings, as private members, what it does its own way:
//   core_                                           a std::shared_ptr
//   call_async(verb, callbacks, f, args…)           -> AsyncResult<R>
//   chunked<Mode>(verb, callbacks, f, items, size)  -> AsyncResult<all of them>
//   send_chunk<R>(core, f, items), static           -> AsyncResult<attempts>
//   require_item<Mode, F, Item>(), static: sentences for what cannot be called

#include <cstddef>
#include <initializer_list>
#include <memory>
#include <optional>
#include <ranges>
#include <type_traits>
#include <utility>
#include <vector>

#include "shoal/pool/async_result.h"
#include "shoal/pool/attempt.h"
#include "shoal/pool/call.h"
#include "shoal/pool/callbacks.h"
#include "shoal/pool/stream.h"
#include "shoal/pool/submission.h"

namespace shoal::pool {

using NoFunction = call::overloaded_function_or_template_wrap_it_in_a_lambda;

template <class Derived>
class Verbs {
 public:
  // Each of them, with Callbacks in front: those are called before the result
  // is ready.

  template <NotCallbacks F = NoFunction, class... As>
  auto apply_async(F&& f, As&&... args) {
    return derived().call_async("apply_async", nullptr, std::forward<F>(f),
                                std::forward<As>(args)...);
  }
  template <class F = NoFunction, class... As>
  auto apply_async(const Callbacks& callbacks, F&& f, As&&... args) {
    return derived().call_async("apply_async", &callbacks, std::forward<F>(f),
                                std::forward<As>(args)...);
  }
  template <NotCallbacks F = NoFunction, class... As>
  auto submit(F&& f, As&&... args) {
    return derived().call_async("submit", nullptr, std::forward<F>(f),
                                std::forward<As>(args)...);
  }
  template <class F = NoFunction, class... As>
  auto submit(const Callbacks& callbacks, F&& f, As&&... args) {
    return derived().call_async("submit", &callbacks, std::forward<F>(f),
                                std::forward<As>(args)...);
  }

  // f(item) for each item, in order. Chunks are one task each; chunksize 0 is
  // ceil(n / (4 * workers)), a negative one std::invalid_argument. Throws the
  // first failing chunk's error after all chunks have ended. Where not all can
  // be submitted, as after close(), those that can still be withdrawn are; map
  // and starmap throw when the others have ended.
  template <class F = NoFunction, std::ranges::input_range Range>
  auto map_async(F&& f, Range&& items, std::ptrdiff_t chunksize = 0) {
    return chunked<call::Whole>("map_async", nullptr, f,
                                std::forward<Range>(items), chunksize);
  }
  template <class F = NoFunction, class T>
  auto map_async(F&& f, std::initializer_list<T> items,
                 std::ptrdiff_t chunksize = 0) {
    return map_async(f, listed(items), chunksize);
  }
  template <class F = NoFunction, std::ranges::input_range Range>
  auto map_async(const Callbacks& callbacks, F&& f, Range&& items,
                 std::ptrdiff_t chunksize = 0) {
    return chunked<call::Whole>("map_async", &callbacks, f,
                                std::forward<Range>(items), chunksize);
  }
  template <class F = NoFunction, class T>
  auto map_async(const Callbacks& callbacks, F&& f,
                 std::initializer_list<T> items, std::ptrdiff_t chunksize = 0) {
    return map_async(callbacks, f, listed(items), chunksize);
  }
  template <std::ranges::input_range Range,
            class F = call::UntoldFunction<Range>>
  auto map(F&& f, Range&& items, std::ptrdiff_t chunksize = 0) {
    return chunked<call::Whole>("map", nullptr, f, std::forward<Range>(items),
                                chunksize, true)
        .get();
  }
  template <class T, class F = call::UntoldFunction<T>>
  auto map(F&& f, std::initializer_list<T> items,
           std::ptrdiff_t chunksize = 0) {
    return map(f, listed(items), chunksize);
  }

  // f(parts of item...) for each item, a tuple.
  template <class F = NoFunction, std::ranges::input_range Range>
  auto starmap_async(F&& f, Range&& items, std::ptrdiff_t chunksize = 0) {
    return chunked<call::Spread>("starmap_async", nullptr, f,
                                 std::forward<Range>(items), chunksize);
  }
  template <class F = NoFunction, class T>
  auto starmap_async(F&& f, std::initializer_list<T> items,
                     std::ptrdiff_t chunksize = 0) {
    return starmap_async(f, listed(items), chunksize);
  }
  template <class F = NoFunction, std::ranges::input_range Range>
  auto starmap_async(const Callbacks& callbacks, F&& f, Range&& items,
                     std::ptrdiff_t chunksize = 0) {
    return chunked<call::Spread>("starmap_async", &callbacks, f,
                                 std::forward<Range>(items), chunksize);
  }
  template <class F = NoFunction, class T>
  auto starmap_async(const Callbacks& callbacks, F&& f,
                     std::initializer_list<T> items,
                     std::ptrdiff_t chunksize = 0) {
    return starmap_async(callbacks, f, listed(items), chunksize);
  }
  template <std::ranges::input_range Range,
            class F = call::UntoldFunction<Range>>
  auto starmap(F&& f, Range&& items, std::ptrdiff_t chunksize = 0) {
    return chunked<call::Spread>("starmap", nullptr, f,
                                 std::forward<Range>(items), chunksize, true)
        .get();
  }
  template <class T, class F = call::UntoldFunction<T>>
  auto starmap(F&& f, std::initializer_list<T> items,
               std::ptrdiff_t chunksize = 0) {
    return starmap(f, listed(items), chunksize);
  }

  // f(item) for each item of a range that may be endless, as a Stream: in
  // order, or as they come. At most 4 * workers chunks are drawn ahead, by the
  // calling thread; an lvalue must outlive the stream. chunksize 0 is as map's
  // for a range that knows its size, and 1 for others.
  template <std::ranges::input_range Range,
            class F = call::UntoldFunction<Range>>
  auto imap(F&& f, Range&& items, std::ptrdiff_t chunksize = 1) {
    return stream("imap", f, std::forward<Range>(items), chunksize, true);
  }
  template <class T, class F = call::UntoldFunction<T>>
  auto imap(F&& f, std::initializer_list<T> items,
            std::ptrdiff_t chunksize = 1) {
    return imap(f, owned(items), chunksize);
  }
  template <std::ranges::input_range Range,
            class F = call::UntoldFunction<Range>>
  auto imap_unordered(F&& f, Range&& items, std::ptrdiff_t chunksize = 1) {
    return stream("imap_unordered", f, std::forward<Range>(items), chunksize,
                  false);
  }
  template <class T, class F = call::UntoldFunction<T>>
  auto imap_unordered(F&& f, std::initializer_list<T> items,
                      std::ptrdiff_t chunksize = 1) {
    return imap_unordered(f, owned(items), chunksize);
  }

 protected:
  Verbs() = default;
  ~Verbs() = default;

 private:
  Derived& derived() { return static_cast<Derived&>(*this); }

  template <class Mode, class F, class Range>
  auto chunked(const char* verb, const Callbacks* callbacks, const F& f,
               Range&& items, std::ptrdiff_t chunksize, bool waits = false) {
    if constexpr (Derived::template require_item<Mode, std::decay_t<F>,
                                                 ItemIn<Range>>())
      return derived().template chunked<Mode>(
          verb, callbacks, f, std::forward<Range>(items), chunksize, waits);
    else
      return call::Refused();
  }

  template <class F, class Range>
  auto stream(const char* verb, const F& f, Range&& items,
              std::ptrdiff_t chunksize, bool ordered) {
    using Callable = std::decay_t<F>;
    using T = ItemIn<Range>;
    if constexpr (Derived::template require_item<call::Whole, Callable, T>())
      return stream_of<T>(verb, f, std::forward<Range>(items), chunksize,
                          ordered);
    else
      return call::Refused();
  }

  template <class T, class F, class Range>
  auto stream_of(const char* verb, const F& f, Range&& items,
                 std::ptrdiff_t chunksize, bool ordered) {
    using Callable = std::decay_t<F>;
    using R = call::ItemResult<call::Whole, Callable, T>;
    auto& core = derived().core();
    std::size_t known = 0;
    if constexpr (std::ranges::sized_range<Range>)
      known = std::ranges::size(items);
    using Core = std::remove_reference_t<decltype(core)>;
    struct Feeder {
      Feeder(std::shared_ptr<Core> in, const F& called, Range&& range,
             const char* by, std::size_t chunk)
          : core(std::move(in)),
            lease(core->open_stream(by)),
            callable(called),
            source(std::forward<Range>(range)),
            size(chunk) {}
      std::optional<SentChunk<R>> operator()() {
        auto drawn = source.draw(size);
        if (drawn.empty()) return std::nullopt;
        return Derived::template send_chunk<R>(core, callable,
                                               std::move(drawn));
      }
      std::shared_ptr<Core> core;
      std::shared_ptr<void> lease;
      const Callable callable;
      Source<Range> source;
      const std::size_t size;
    };
    const std::size_t size =
        chunk_size(Derived::kName, verb, core.workers(), known, chunksize);
    auto feeder = std::make_shared<Feeder>(
        derived().core_, f, std::forward<Range>(items), verb, size);
    return Stream<R>([feeder] { return (*feeder)(); },
                     4 * std::size_t{core.workers()}, ordered);
  }
};

}  // namespace shoal::pool
