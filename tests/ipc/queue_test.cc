// Queue<T> in one process, against models.

#include "shoal/ipc/queue.h"

#include <stdlib.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <iostream>
#include <limits>
#include <map>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "tests/support/residue.h"
#include "tests/support/thread.h"

namespace {

using shoal::Empty;
using shoal::Full;
using shoal::Loan;
using shoal::NoSpace;
using shoal::now;
using shoal::Queue;
using shoal::QueueOptions;
using shoal::Taken;
using shoal::support::residue;
using shoal::support::Thread;
using shoal::support::unique_name;
using testing::AllOf;
using testing::HasSubstr;
using namespace std::chrono_literals;

const std::vector<std::size_t> kSizes = {1, 2, 3, 5, 7, 1000};

// ---- against a model ----

// What a queue is by its contract, leases included: a ring whose positions are
// claimed in order. A position is done when its value was consumed or dropped;
// a put waits for the position one lap earlier.
class Model {
 public:
  explicit Model(std::size_t maxsize) : maxsize_(maxsize) {}

  bool can_put() const {
    return tail_ < maxsize_ || state_of(tail_ - maxsize_) == State::done;
  }
  // The next position to be consumed; a loan that is open blocks.
  std::optional<std::uint64_t> next() {
    while (head_ != tail_ && state_of(head_) == State::done) ++head_;
    if (head_ == tail_ || state_of(head_) != State::full) return std::nullopt;
    return head_;
  }

  std::uint64_t put(int value) {
    cells_[tail_] = {State::full, value};
    return tail_++;
  }
  std::uint64_t loan() {
    cells_[tail_] = {State::open, 0};
    return tail_++;
  }
  void publish(std::uint64_t position, int value) {
    cells_[position] = {State::full, value};
  }
  // Hands out the value of next().
  int take() {
    cells_[head_].state = State::taken;
    return cells_[head_++].value;
  }
  int get() {
    const int value = take();
    finish(head_ - 1);
    return value;
  }
  void finish(std::uint64_t position) { cells_.erase(position); }

  std::size_t qsize() const {
    std::size_t count = 0;
    for (const auto& [position, cell] : cells_)
      count += cell.state == State::full;
    return count;
  }

 private:
  enum class State { done, open, full, taken };
  struct Cell {
    State state;
    int value;
  };
  State state_of(std::uint64_t position) const {
    const auto cell = cells_.find(position);
    return cell == cells_.end() ? State::done : cell->second.state;
  }

  std::size_t maxsize_;
  std::uint64_t head_ = 0;
  std::uint64_t tail_ = 0;
  std::map<std::uint64_t, Cell> cells_;  // those that are not done
};

// SHOAL_TEST_SEED repeats a run.
std::uint32_t fresh_seed() {
  const char* wanted = getenv("SHOAL_TEST_SEED");
  return wanted != nullptr
             ? static_cast<std::uint32_t>(std::strtoul(wanted, nullptr, 10))
             : std::random_device{}();
}

// One queue, its model, and the leases that are open.
class Trial {
 public:
  Trial(std::size_t maxsize, std::uint32_t seed)
      : queue_(maxsize), model_(maxsize), random_(seed) {}

  void steps(int count) {
    for (int i = 0; i < count && !testing::Test::HasFailure(); ++i) {
      step();
      const std::size_t size = model_.qsize();
      ASSERT_EQ(queue_.qsize(), size) << "after" << steps_;
      ASSERT_EQ(queue_.empty(), size == 0) << "after" << steps_;
      ASSERT_EQ(queue_.full(), !model_.can_put()) << "after" << steps_;
    }
    loans_.clear();
    taken_.clear();
  }

 private:
  template <class Lease>
  struct Open {
    Lease lease;
    std::uint64_t position;
  };

  int below(std::size_t limit) { return static_cast<int>(random_() % limit); }

  void step() {
    // Leases are rarer than plain calls, and their ends more frequent than
    // their begins, so that the ring does not stick.
    const int which = below(20);
    steps_ = (' ' + std::to_string(which) + steps_).substr(0, 60);
    switch (which) {
      case 0:
      case 1:
        return put_and_throw();
      case 2:
      case 3:
        return try_put();
      case 4:
        return put_many();
      case 5:
      case 6:
        return get_and_throw();
      case 7:
      case 8:
        return try_get();
      case 9:
        return get_many();
      case 10:
        return loan();
      case 11:
      case 12:
        return end_loan(true);
      case 13:
        return end_loan(false);
      case 14:
        return take();
      default:
        return end_take();
    }
  }

  void put_and_throw() {
    if (model_.can_put()) {
      EXPECT_NO_THROW(queue_.put_nowait(++value_));
      model_.put(value_);
    } else {
      EXPECT_THROW(queue_.put(-1, now), Full);
    }
  }
  void try_put() {
    ++value_;
    const bool expected = model_.can_put();
    EXPECT_EQ(queue_.try_put(value_), expected);
    if (expected) model_.put(value_);
  }
  void put_many() {
    std::vector<int> values(static_cast<std::size_t>(below(100)));
    std::size_t expected = 0;
    for (int& value : values) {
      value = ++value_;
      if (expected == static_cast<std::size_t>(&value - values.data()) &&
          model_.can_put()) {
        model_.put(value);
        ++expected;
      }
    }
    if (expected != 0 || values.empty())
      EXPECT_EQ(queue_.put_many(values, now), expected);
    else
      EXPECT_THROW(queue_.put_many(values, now), Full);
  }
  void get_and_throw() {
    if (model_.next())
      EXPECT_EQ(queue_.get_nowait(), model_.get());
    else
      EXPECT_THROW(queue_.get(now), Empty);
  }
  void try_get() {
    const std::optional<int> got = queue_.try_get();
    ASSERT_EQ(got.has_value(), model_.next().has_value());
    if (got) {
      EXPECT_EQ(*got, model_.get());
    }
  }
  void get_many() {
    std::vector<int> values(static_cast<std::size_t>(below(100)));
    std::vector<int> expected;
    while (expected.size() < values.size() && model_.next())
      expected.push_back(model_.get());
    if (expected.empty() && !values.empty()) {
      EXPECT_THROW(queue_.get_many(values, now), Empty);
      return;
    }
    values.resize(queue_.get_many(values, now));
    EXPECT_EQ(values, expected);
  }
  void loan() {
    if (!model_.can_put()) {
      EXPECT_THROW(queue_.loan(now), Full);
      return;
    }
    loans_.push_back({queue_.loan(now), model_.loan()});
    EXPECT_EQ(*loans_.back().lease, 0) << "built afresh";
  }
  void end_loan(bool publish) {
    if (loans_.empty()) return;
    const auto which = loans_.begin() + below(loans_.size());
    if (publish) {
      *which->lease = ++value_;
      which->lease.publish();
      model_.publish(which->position, value_);
    } else {
      model_.finish(which->position);
    }
    loans_.erase(which);
  }
  void take() {
    if (!model_.next()) {
      EXPECT_THROW(queue_.take(now), Empty);
      return;
    }
    const std::uint64_t position = *model_.next();
    taken_.push_back({queue_.take(now), position});
    EXPECT_EQ(*taken_.back().lease, model_.take());
  }
  void end_take() {
    if (taken_.empty()) return;
    const auto which = taken_.begin() + below(taken_.size());
    model_.finish(which->position);
    taken_.erase(which);
  }

  Queue<int> queue_;
  Model model_;
  std::mt19937 random_;
  int value_ = 0;
  std::string steps_;  // the last ones, latest first
  std::vector<Open<Loan<int>>> loans_;
  std::vector<Open<Taken<int>>> taken_;
};

TEST(QueueModel, RandomCallsDoWhatTheModelDoes) {
  const std::uint32_t fresh = fresh_seed();
  std::cout << "SHOAL_TEST_SEED=" << fresh << '\n';
  for (const std::size_t maxsize : kSizes)
    for (const std::uint32_t seed : {1u, 2u, 3u, fresh}) {
      SCOPED_TRACE("maxsize " + std::to_string(maxsize) + ", seed " +
                   std::to_string(seed));
      Trial(maxsize, seed).steps(10'000);
    }
}

TEST(QueueModel, PlainCallsAreThoseOfADeque) {
  const std::uint32_t seed = fresh_seed();
  SCOPED_TRACE("SHOAL_TEST_SEED=" + std::to_string(seed));
  std::mt19937 random(seed);
  for (const std::size_t maxsize : kSizes) {
    Queue<std::uint64_t> queue(maxsize);
    std::deque<std::uint64_t> model;
    for (std::uint64_t i = 0; i < 20'000; ++i) {
      // Long rises and falls, so that both ends are met.
      if (random() % 100 < ((i / (4 * maxsize) % 2 == 0) ? 80 : 20)) {
        const bool fits = model.size() < maxsize;
        ASSERT_EQ(queue.try_put(i), fits);
        if (fits) model.push_back(i);
      } else {
        const auto got = queue.try_get();
        ASSERT_EQ(got.has_value(), !model.empty());
        if (got) {
          ASSERT_EQ(*got, model.front());
          model.pop_front();
        }
      }
      ASSERT_EQ(queue.qsize(), model.size());
    }
  }
}

// ---- maxsize ----

TEST(QueueMaxsize, IsExact) {
  for (const std::size_t maxsize : kSizes) {
    Queue<int> queue(maxsize);
    EXPECT_EQ(queue.maxsize(), maxsize);
    for (int lap = 0; lap < 3; ++lap) {
      EXPECT_TRUE(queue.empty());
      for (std::size_t i = 0; i < maxsize; ++i) {
        EXPECT_FALSE(queue.full());
        EXPECT_EQ(queue.qsize(), i);
        queue.put_nowait(static_cast<int>(i));
      }
      EXPECT_TRUE(queue.full());
      EXPECT_FALSE(queue.empty());
      EXPECT_EQ(queue.qsize(), maxsize);
      EXPECT_FALSE(queue.try_put(-1));
      for (std::size_t i = 0; i < maxsize; ++i)
        EXPECT_EQ(queue.get_nowait(), static_cast<int>(i));
      EXPECT_FALSE(queue.try_get().has_value());
    }
  }
}

TEST(QueueMaxsize, ZeroAndDefaultGrow) {
  EXPECT_EQ(Queue<int>().maxsize(), 0u);
  EXPECT_EQ(Queue<int>(0).maxsize(), 0u);
  EXPECT_EQ(Queue<int>(QueueOptions{}).maxsize(), 0u);
  EXPECT_EQ(Queue<int>(QueueOptions{.maxsize = 3}).maxsize(), 3u);
}

TEST(QueueMaxsize, NegativeIsAnInvalidArgument) {
  for (const std::ptrdiff_t maxsize :
       {std::ptrdiff_t{-1}, std::ptrdiff_t{-7},
        std::numeric_limits<std::ptrdiff_t>::min()}) {
    const auto unsigned_maxsize = static_cast<std::size_t>(maxsize);
    EXPECT_THROW(Queue<int>{unsigned_maxsize}, std::invalid_argument);
    EXPECT_THROW(Queue<int>(QueueOptions{.maxsize = unsigned_maxsize}),
                 std::invalid_argument);
    EXPECT_THROW(Queue<int>::create(unique_name("negative"), maxsize),
                 std::invalid_argument);
    EXPECT_THROW(Queue<int>::open_or_create(unique_name("negative"), -1),
                 std::invalid_argument);
    try {
      Queue<int> queue(unsigned_maxsize);
    } catch (const std::invalid_argument& error) {
      EXPECT_THAT(error.what(), HasSubstr(std::to_string(maxsize)));
    }
  }
}

struct Page {
  std::array<unsigned char, 4096> bytes;
};

TEST(QueueMaxsize, MoreThanMemoryIsNoSpace) {
  const auto before = residue();
  const std::uint64_t available = shoal::available_memory();
  const std::size_t maxsize = available / sizeof(Page) + 1000;
  for (const bool named : {false, true}) {
    try {
      const auto queue = named
                             ? Queue<Page>::create(unique_name("huge"), maxsize)
                             : Queue<Page>(maxsize);
      ADD_FAILURE() << "made a queue of " << maxsize << " pages";
    } catch (const NoSpace& error) {
      EXPECT_GE(error.wanted(), maxsize * sizeof(Page));
      EXPECT_LT(error.available(), error.wanted());
      EXPECT_THAT(error.what(),
                  AllOf(HasSubstr(std::to_string(error.wanted())),
                        HasSubstr(std::to_string(error.available()))));
    }
  }
  EXPECT_EQ(residue(), before);
}

TEST(QueueMaxsize, AbsurdIsNoSpace) {
  for (const std::size_t maxsize :
       {std::size_t{1} << 32, std::size_t{1} << 48,
        std::size_t{std::numeric_limits<std::ptrdiff_t>::max()}}) {
    try {
      const Queue<Page> queue(maxsize);
      ADD_FAILURE() << "made a queue of " << maxsize << " pages";
    } catch (const NoSpace& error) {
      EXPECT_EQ(error.wanted(), maxsize);
      EXPECT_LT(error.available(), maxsize);
      EXPECT_THAT(error.what(), HasSubstr(std::to_string(maxsize)));
    }
  }
}

// ---- many ----

TEST(QueueMany, EmptySpanIsNothingAtOnce) {
  Queue<int> queue(1);
  EXPECT_EQ(queue.get_many({}), 0u) << "even though the queue is empty";
  queue.put(1);
  EXPECT_EQ(queue.put_many({}), 0u) << "even though the queue is full";
  EXPECT_EQ(queue.qsize(), 1u);
}

TEST(QueueMany, AsManyAsFitAndAsAreThere) {
  Queue<int> queue(100);
  std::vector<int> in(250);
  for (std::size_t i = 0; i < in.size(); ++i) in[i] = static_cast<int>(i);
  EXPECT_EQ(queue.put_many(in), 100u) << "does not wait for more room";
  EXPECT_THROW(queue.put_many(in, now), Full);
  EXPECT_THROW(queue.put_many(in, 10ms), Full);
  std::vector<int> out(60);
  EXPECT_EQ(queue.get_many(out), 60u);
  EXPECT_TRUE(std::equal(out.begin(), out.end(), in.begin()));
  EXPECT_EQ(queue.get_many(out), 40u) << "does not wait for more values";
  EXPECT_TRUE(std::equal(out.begin(), out.begin() + 40, in.begin() + 60));
  EXPECT_THROW(queue.get_many(out, now), Empty);
  EXPECT_THROW(queue.get_many(out, 10ms), Empty);
}

TEST(QueueMany, WaitsForTheFirst) {
  Queue<int> queue(2);
  std::array<int, 5> values{};
  Thread getter([&] { EXPECT_EQ(queue.get_many(values), 1u); });
  ASSERT_TRUE(getter.falls_asleep());
  queue.put(6);
  ASSERT_TRUE(getter.ends());
  EXPECT_EQ(values[0], 6);

  queue.put(7);
  queue.put(8);
  Thread putter([&] {
    EXPECT_EQ(queue.put_many(std::array<int, 2>{9, 10}), 1u);
  });
  ASSERT_TRUE(putter.falls_asleep());
  EXPECT_EQ(queue.get(), 7);
  ASSERT_TRUE(putter.ends());
  EXPECT_EQ(queue.get(), 8);
  EXPECT_EQ(queue.get(), 9);
  EXPECT_TRUE(queue.empty());
}

}  // namespace
