#pragma once
// ProgressBar: how far a loop, a stream or a map has come, on the terminal.
//
//   for (int& n : shoal::progress(pool.imap(f, xs), xs.size(), "squares"))
//     use(n);
//   auto all = shoal::progress(pool.map_async(f, xs), "squares");
//
//   shoal::ProgressBar bar("steps", 100);
//   for (int n = 1; n <= 100; ++n) step(), bar.update(n);
//
//   squares [##################                      ]  450/1000  45 %
//
// It is drawn on stderr if that is a terminal; otherwise nothing is written.
//
// Sharing: one thread at a time.
// Cost:    an update reads the clock; at most 20 a second are drawn, with two
//          system calls each.

#include <chrono>
#include <cstddef>
#include <exception>
#include <iterator>
#include <ranges>
#include <string>
#include <type_traits>
#include <utility>

#include "shoal/pool/async_result.h"

namespace shoal {

class ProgressBar {
 public:
  ProgressBar(std::string title, std::size_t total);
  // One that came to its end stays; any other leaves an empty line, as does an
  // exception that passes.
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  // `done` of `total`, of which more is all.
  void update(std::size_t done);

  static constexpr std::chrono::milliseconds kPause{50};  // between two drawn

 private:
  void draw() const;

  const std::string title_;
  const std::size_t total_;
  const bool shown_;
  const int exceptions_ = std::uncaught_exceptions();
  std::size_t done_ = 0;
  std::chrono::steady_clock::time_point drawn_;
};

// The elements of a range, each of which is done when the next is asked for.
template <class Range>
class Watched {
  using Inner = std::ranges::iterator_t<std::remove_reference_t<Range>>;
  using End = std::ranges::sentinel_t<std::remove_reference_t<Range>>;

 public:
  class Iterator {
   public:
    using value_type = std::iter_value_t<Inner>;
    using difference_type = std::iter_difference_t<Inner>;
    Iterator(Watched& from, Inner at) : from_(&from), at_(std::move(at)) {}
    decltype(auto) operator*() const { return *at_; }
    Iterator& operator++() {
      from_->bar_.update(++from_->done_);
      ++at_;
      return *this;
    }
    void operator++(int) { ++*this; }
    bool operator==(const End& end) const { return at_ == end; }

   private:
    Watched* from_;
    Inner at_;
  };

  Watched(Range&& range, std::size_t total, std::string title)
      : range_(std::forward<Range>(range)), bar_(std::move(title), total) {}

  // To be gone through once.
  Iterator begin() { return Iterator(*this, std::ranges::begin(range_)); }
  End end() { return std::ranges::end(range_); }

 private:
  Range range_;  // or a reference
  ProgressBar bar_;
  std::size_t done_ = 0;
};

// `total`: how many there will be. An lvalue stays where it is.
template <std::ranges::input_range Range>
Watched<Range> progress(Range&& range, std::size_t total, std::string title) {
  return {std::forward<Range>(range), total, std::move(title)};
}
template <std::ranges::input_range Range>
requires std::ranges::sized_range<Range> Watched<Range> progress(
    Range&& range, std::string title) {
  const std::size_t total = std::ranges::size(range);
  return {std::forward<Range>(range), total, std::move(title)};
}

// result.get(), and meanwhile how many of its tasks, or chunks, are done. Does
// not run a ThreadPool's tasks while it waits.
template <class Result>
requires pool::kIsAsyncResult<std::remove_cvref_t<Result>>
auto progress(Result&& result, std::string title) {
  ProgressBar bar(std::move(title), result.progress().second);
  do {
    bar.update(result.progress().first);
  } while (!result.wait(ProgressBar::kPause));
  bar.update(result.progress().first);
  return result.get();
}

}  // namespace shoal
