#pragma once
// Stream<R>: the results of imap and imap_unordered, as they come.
//
//   for (int n : pool.imap(f, numbers)) use(n);
//   while (auto n = stream.next(1s)) use(*n);
//
// The range is drawn by whoever calls next(), and that far ahead as keeps the
// workers busy, so that it may have no end.
//
// Sharing:  one thread at a time.
// Death:    of a worker: WorkerDied at the positions of its chunk; the rest
//           goes on.
// Cost:     a chunk is a task.

#include <cstddef>
#include <deque>
#include <exception>
#include <functional>
#include <iterator>
#include <optional>
#include <ranges>
#include <span>
#include <utility>
#include <vector>

#include "shoal/ipc/errors.h"
#include "shoal/ipc/timeout.h"
#include "shoal/pool/async_result.h"
#include "shoal/pool/attempt.h"
#include "shoal/pool/call.h"
#include "shoal/pool/submission.h"

namespace shoal {

namespace pool {

template <class Derived>
class Verbs;

template <class R>
struct SentChunk {
  AsyncResult<std::vector<Attempt<R>>> result;
  std::size_t items;
  // Those that are not in it, as they could not be encoded; ascending.
  std::vector<std::pair<std::size_t, std::exception_ptr>> refused;
};

// Draws and submits the next chunk; nothing at the end of the range. What the
// range, or the submission, throws comes after what was drawn before it.
template <class R>
using Feed = std::function<std::optional<SentChunk<R>>()>;

}  // namespace pool

// A stream of void yields std::monostate.
template <class R>
class Stream {
 public:
  using value_type = Streamed<R>;

  class Iterator {
   public:
    using value_type = Streamed<R>;
    using difference_type = std::ptrdiff_t;
    explicit Iterator(Stream& from) : from_(&from) {}
    // May be moved from, once.
    value_type& operator*() const { return *from_->current_; }
    value_type* operator->() const { return &*from_->current_; }
    Iterator& operator++() {
      from_->current_ = from_->next();
      return *this;
    }
    void operator++(int) { ++*this; }
    bool operator==(std::default_sentinel_t) const {
      return !from_->current_.has_value();
    }

   private:
    Stream* from_;
  };

  Stream(Stream&&) = default;
  Stream& operator=(Stream&& other) noexcept {
    cancel();
    feed_ = std::move(other.feed_);
    limit_ = other.limit_;
    ordered_ = other.ordered_;
    sent_ = std::move(other.sent_);
    here_ = std::move(other.here_);
    failure_ = std::move(other.failure_);
    current_ = std::move(other.current_);
    return *this;
  }
  // Cancels what no worker has begun.
  ~Stream() { cancel(); }

  // The next result; nothing at the end. Throws what an item failed with, at
  // its position, and goes on behind it with the next call; TimeoutError loses
  // nothing. What the range throws ends the stream.
  std::optional<value_type> next(Timeout timeout = forever) {
    if (here_.empty()) {
      top_up();
      if (sent_.empty()) {
        if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
        return std::nullopt;
      }
      fetch(Deadline(timeout));
      top_up();
    }
    pool::Attempt<R> one = std::move(here_.front());
    here_.pop_front();
    if (one.error != nullptr) std::rethrow_exception(one.error);
    return std::move(one.value);
  }

  // To be gone through once. What an item failed with comes out of begin() or
  // ++.
  Iterator begin() {
    current_ = next();
    return Iterator(*this);
  }
  static std::default_sentinel_t end() { return {}; }

 private:
  template <class Derived>
  friend class pool::Verbs;
  using Chunk = pool::SentChunk<R>;

  // At most `limit` chunks are ahead.
  Stream(pool::Feed<R> feed, std::size_t limit, bool ordered)
      : feed_(std::move(feed)), limit_(limit), ordered_(ordered) {
    top_up();
  }

  void top_up() {
    while (feed_ && sent_.size() < limit_) {
      try {
        if (auto chunk = feed_()) {
          sent_.push_back(std::move(*chunk));
          continue;
        }
      } catch (...) {
        failure_ = std::current_exception();
      }
      feed_ = nullptr;
    }
  }

  // What has become of the items of one chunk.
  void fetch(Deadline deadline) {
    std::size_t index = 0;
    if (!ordered_) {
      std::vector<AsyncResult<std::vector<pool::Attempt<R>>>*> all;
      for (Chunk& chunk : sent_) all.push_back(&chunk.result);
      const auto ready = pool::wait_some(
          std::span<AsyncResult<std::vector<pool::Attempt<R>>>* const>(all),
          deadline);
      if (ready.empty()) throw_timed_out();
      index = ready.front();
    } else if (!sent_.front().result.wait(deadline.remaining())) {
      throw_timed_out();
    }
    const auto at = sent_.begin() + static_cast<std::ptrdiff_t>(index);
    Chunk chunk = std::move(*at);
    sent_.erase(at);
    try {
      auto attempts = chunk.result.get(now);
      auto refused = chunk.refused.begin();
      auto attempt = attempts.begin();
      for (std::size_t n = 0; n < chunk.items; ++n)
        if (refused != chunk.refused.end() && refused->first == n)
          here_.push_back({std::nullopt, (refused++)->second});
        else
          here_.push_back(std::move(*attempt++));
    } catch (...) {
      for (std::size_t n = 0; n < chunk.items; ++n)
        here_.push_back({std::nullopt, std::current_exception()});
    }
  }
  [[noreturn]] static void throw_timed_out() {
    throw TimeoutError("shoal: Stream::next timed out");
  }

  void cancel() noexcept {
    feed_ = nullptr;
    for (Chunk& chunk : sent_) {
      try {
        chunk.result.cancel();
      } catch (const std::exception&) {
        // In a forked child: they are the parent's.
      }
    }
    sent_.clear();
  }

  pool::Feed<R> feed_;
  std::size_t limit_;
  bool ordered_;
  std::deque<Chunk> sent_;
  std::deque<pool::Attempt<R>> here_;
  std::exception_ptr failure_;  // of the range; thrown behind all results
  std::optional<value_type> current_;
};

namespace pool {

// A range and how far it was drawn. One that is an lvalue stays where it is.
template <class Range>
class Source {
 public:
  using Item = ItemIn<Range>;

  explicit Source(Range&& range) : range_(std::forward<Range>(range)) {}
  Source(const Source&) = delete;
  Source& operator=(const Source&) = delete;

  // The next items, at most `most`; what the range throws comes when all drawn
  // before it were returned.
  std::vector<call::Boxed<Item>> draw(std::size_t most) {
    std::vector<call::Boxed<Item>> items;
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
    try {
      if (!at_) at_.emplace(std::ranges::begin(range_));
      // An input range is not asked for more than is wanted.
      while (items.size() < most) {
        if (drawn_) ++*at_;
        drawn_ = false;
        if (*at_ == std::ranges::end(range_)) break;
        items.push_back(boxed<Item, Range>(**at_));
        drawn_ = true;
      }
    } catch (...) {
      if (items.empty()) throw;
      failure_ = std::current_exception();
    }
    return items;
  }

 private:
  Range range_;  // or a reference
  std::optional<std::ranges::iterator_t<std::remove_reference_t<Range>>> at_;
  bool drawn_ = false;  // what at_ is at
  std::exception_ptr failure_;
};

}  // namespace pool
}  // namespace shoal
