// imap and imap_unordered: lazy, in order or as they come, over ranges without
// an end, with items that fail, and across the end of the pool.

#include <fcntl.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <iterator>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <ranges>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "gtest/gtest.h"
#include "shoal/ipc/fd.h"
#include "shoal/pool/pool.h"
#include "tests/pool/scene.h"

namespace {

using namespace shoal;
using namespace shoal::support;
using namespace std::chrono_literals;

class PoolStream : public PoolScene {
 protected:
  Pool pool_{2};
};

// 0, 1, 2, ... without an end; counts how far it was drawn.
class Counting {
 public:
  class Iterator {
   public:
    using value_type = int;
    using difference_type = std::ptrdiff_t;
    explicit Iterator(Counting& of) : of_(&of) {}
    int operator*() const { return of_->drawn - 1; }
    Iterator& operator++() {
      ++of_->drawn;
      if (of_->drawn > of_->fails_at)
        throw std::domain_error("the range has failed");
      return *this;
    }
    void operator++(int) { ++*this; }
    bool operator==(std::default_sentinel_t) const { return false; }

   private:
    Counting* of_;
  };
  Iterator begin() {
    drawn = 1;
    return Iterator(*this);
  }
  static std::default_sentinel_t end() { return {}; }

  int drawn = 0;
  int fails_at = 1 << 30;
};
static_assert(std::ranges::input_range<Counting>);

int twice(int x) { return 2 * x; }

TEST_F(PoolStream, InOrder) {
  std::vector<int> numbers(1000);
  std::iota(numbers.begin(), numbers.end(), 0);
  for (const std::ptrdiff_t chunk : {1, 7, 1000, 5000, 0}) {
    std::vector<int> found;
    for (const int n : pool_.imap(twice, numbers, chunk)) found.push_back(n);
    ASSERT_EQ(found.size(), numbers.size());
    for (int n = 0; n < 1000; ++n) ASSERT_EQ(found[n], 2 * n);
  }
}

TEST_F(PoolStream, UnorderedGivesAll) {
  std::vector<int> numbers(1000);
  std::iota(numbers.begin(), numbers.end(), 0);
  for (const std::ptrdiff_t chunk : {1, 7, 1000, 0}) {
    std::set<int> found;
    for (const int n : pool_.imap_unordered(twice, numbers, chunk))
      EXPECT_TRUE(found.insert(n).second);
    EXPECT_EQ(found.size(), 1000u);
    EXPECT_EQ(*found.rbegin(), 1998);
  }
}

// The first task is held; the others come by.
TEST_F(PoolStream, UnorderedWaitsForNobody) {
  auto stream = pool_.imap_unordered(
      [](int x) {
        if (x == 0 && !eventually([] { return marks->gate != 0; })) _exit(1);
        return x;
      },
      std::vector{0, 1, 2, 3, 4, 5});
  std::vector<int> found;
  for (int n = 0; n < 5; ++n) found.push_back(*stream.next(10s));
  EXPECT_EQ(std::ranges::count(found, 0), 0);
  EXPECT_THROW(stream.next(1ms), TimeoutError);
  marks->gate = 1;
  EXPECT_EQ(stream.next(10s), 0);
  EXPECT_EQ(stream.next(10s), std::nullopt);
  EXPECT_EQ(stream.next(10s), std::nullopt);
}

TEST_F(PoolStream, OrderedWaitsAndLosesNothingByATimeout) {
  auto stream = pool_.imap(
      [](int x) {
        if (x == 0 && !eventually([] { return marks->gate != 0; })) _exit(1);
        return x;
      },
      {0, 1, 2});
  for (int n = 0; n < 5; ++n) EXPECT_THROW(stream.next(1ms), TimeoutError);
  marks->gate = 1;
  for (int n = 0; n < 3; ++n) EXPECT_EQ(stream.next(10s), n);
  EXPECT_EQ(stream.next(), std::nullopt);
}

TEST_F(PoolStream, DrawsABoundedWayAhead) {
  for (const std::ptrdiff_t chunk : {1, 10}) {
    Counting endless;
    auto stream = pool_.imap(twice, endless, chunk);
    const auto most = static_cast<int>(8 * chunk);
    EXPECT_LE(endless.drawn, most);
    for (int n = 0; n < 500; ++n) {
      ASSERT_EQ(stream.next(10s), 2 * n);
      ASSERT_LE(endless.drawn, n + 1 + most + chunk);
    }
  }
  for (const int n : pool_.imap_unordered(twice, Counting(), 3))
    if (n > 300) break;
}

TEST_F(PoolStream, AnItemThatFailsCostsItselfOnly) {
  const auto odd_fails = [](int x) -> std::string {
    if (x % 2 == 1) throw std::out_of_range("odd " + std::to_string(x));
    return std::to_string(x);
  };
  for (const std::ptrdiff_t chunk : {1, 4, 100}) {
    std::vector<int> numbers(20);
    std::iota(numbers.begin(), numbers.end(), 0);
    auto stream = pool_.imap(odd_fails, numbers, chunk);
    for (int n = 0; n < 20; ++n) {
      if (n % 2 == 0) {
        EXPECT_EQ(stream.next(10s), std::to_string(n));
        continue;
      }
      try {
        stream.next(10s);
        ADD_FAILURE() << n;
      } catch (const std::out_of_range& error) {
        EXPECT_EQ(error.what(), "odd " + std::to_string(n));
      }
    }
    EXPECT_EQ(stream.next(), std::nullopt);
  }
  // A range-for throws, and ends.
  int seen = 0;
  EXPECT_THROW(for ([[maybe_unused]] const auto& text
                    : pool_.imap(odd_fails, {2, 4, 5, 6}))++ seen,
               std::out_of_range);
  EXPECT_EQ(seen, 2);
}

// Odd ones are not to be encoded.
struct Even {
  int number = 0;
  template <class A>
  void serialize(A& ar) {
    if (number % 2 != 0) throw std::domain_error("odd");
    ar(number);
  }
};

// The value of each item, or -1 for one that has failed.
std::vector<int> all_of(Stream<int> stream) {
  std::vector<int> all;
  for (;;) {
    try {
      const auto value = stream.next();
      if (!value) return all;
      all.push_back(*value);
    } catch (const std::domain_error& error) {
      EXPECT_STREQ(error.what(), "odd");
      all.push_back(-1);
    }
  }
}

TEST_F(PoolStream, AnItemThatCannotBeEncodedCostsItselfOnly) {
  const std::vector<Even> items = {{0}, {1}, {2}, {4}, {3}, {5}, {6}};
  const std::vector<int> expected = {0, -1, 2, 4, -1, -1, 6};
  const auto number = [](const Even& even) { return even.number; };
  for (const int chunk : {1, 2, 3, 7}) {
    EXPECT_EQ(all_of(pool_.imap(number, items, chunk)), expected);
    auto unordered = all_of(pool_.imap_unordered(number, items, chunk));
    std::ranges::sort(unordered);
    EXPECT_EQ(unordered, (std::vector{-1, -1, -1, 0, 2, 4, 6}));
  }
  EXPECT_EQ(all_of(pool_.imap(number, std::vector<Even>{{1}, {3}}, 2)),
            (std::vector{-1, -1}));
}

// Measured it is as any; it is refused where it is sent.
TEST_F(PoolStream, AHandleThatCannotBeSentCostsItselfOnly) {
  const auto readable = [](const Fd& fd) {
    return fcntl(fd.get(), F_GETFD) >= 0;
  };
  for (const int chunk : {1, 2, 4}) {
    std::vector<Fd> items;
    for (int n = 0; n < 4; ++n) items.emplace_back(eventfd(0, EFD_CLOEXEC));
    const Fd gone = std::move(items[1]);
    auto stream = pool_.imap(readable, std::move(items), chunk);
    EXPECT_EQ(stream.next(), true);
    EXPECT_ANY_THROW(stream.next());
    EXPECT_EQ(stream.next(), true);
    EXPECT_EQ(stream.next(), true);
    EXPECT_FALSE(stream.next());
  }
  auto results = pool_.imap(
      [](int n) { return n == 1 ? Fd() : Fd(eventfd(0, EFD_CLOEXEC)); },
      {0, 1, 2, 3}, 4);
  EXPECT_TRUE(results.next().has_value());
  EXPECT_ANY_THROW(results.next());
  EXPECT_TRUE(results.next().has_value());
  EXPECT_TRUE(results.next().has_value());
  EXPECT_FALSE(results.next().has_value());
}

TEST_F(PoolStream, AResultThatCannotBeEncodedCostsItselfOnly) {
  for (const int chunk : {1, 2, 4}) {
    auto stream =
        pool_.imap([](int n) { return Even{n}; }, {0, 1, 2, 4}, chunk);
    EXPECT_EQ(stream.next()->number, 0);
    EXPECT_THROW(stream.next(), std::domain_error);
    EXPECT_EQ(stream.next()->number, 2);
    EXPECT_EQ(stream.next()->number, 4);
    EXPECT_FALSE(stream.next());
  }
}

TEST_F(PoolStream, AWorkersDeathCostsItsChunkOnly) {
  auto stream = pool_.imap(
      [](int x) {
        if (x == 5) raise(SIGKILL);
        return x;
      },
      std::vector{0, 1, 2, 3, 4, 5, 6, 7, 8}, 3);
  for (int n = 0; n < 9; ++n) {
    if (n / 3 == 1)
      EXPECT_THROW(stream.next(10s), WorkerDied);
    else
      EXPECT_EQ(stream.next(10s), n);
  }
  EXPECT_EQ(stream.next(), std::nullopt);
}

// It comes at its place, as its own type; then the stream has ended.
TEST_F(PoolStream, ARangeThatFails) {
  for (const std::ptrdiff_t chunk : {1, 4}) {
    for (const bool ordered : {true, false}) {
      Counting failing;
      failing.fails_at = 10;
      auto stream = ordered ? pool_.imap(twice, failing, chunk)
                            : pool_.imap_unordered(twice, failing, chunk);
      std::set<int> found;
      for (int n = 0; n < 10; ++n) found.insert(*stream.next(10s));
      EXPECT_EQ(found.size(), 10u);
      EXPECT_THROW(stream.next(10s), std::domain_error);
      EXPECT_EQ(stream.next(10s), std::nullopt);
    }
  }
}

TEST_F(PoolStream, OfNothing) {
  auto stream = pool_.imap(twice, std::vector<int>());
  EXPECT_EQ(stream.next(), std::nullopt);
  for ([[maybe_unused]] const int n :
       pool_.imap_unordered(twice, std::vector<int>()))
    FAIL();
  EXPECT_THROW(pool_.imap(twice, {1, 2}, -1), std::invalid_argument);
}

TEST_F(PoolStream, OfAnyTypes) {
  // void
  int times = 0;
  for ([[maybe_unused]] const std::monostate done :
       pool_.imap([](int) { ++marks->ran; }, {1, 2, 3}))
    ++times;
  EXPECT_EQ(times, 3);
  EXPECT_EQ(marks->ran, 3);
  // bool, literals, move-only, a map's items
  for (const bool same : pool_.imap([](bool b) { return !b; }, {false, false}))
    EXPECT_TRUE(same);
  std::string all;
  for (const std::string& s :
       pool_.imap([](const std::string& text) { return text; }, {"a", "b"}))
    all += s;
  EXPECT_EQ(all, "ab");
  for (auto& pointer : pool_.imap(
           [](int x) { return std::make_unique<int>(x); }, std::vector{7, 7})) {
    const std::unique_ptr<int> mine = std::move(pointer);
    EXPECT_EQ(*mine, 7);
  }
  const std::map<int, std::string> texts{{1, "x"}, {2, "y"}};
  for (const int n : pool_.imap(
           [](const std::pair<int, std::string>& item) { return item.first; },
           texts))
    EXPECT_EQ(texts.count(n), 1u);
  const std::string large(1 << 20, 'x');
  for (const auto& text :
       pool_.imap([](const std::string& part) { return part + 'y'; },
                  std::vector(3, large), 2))
    EXPECT_EQ(text, large + 'y');
}

TEST_F(PoolStream, DestroyedItCancelsWhatWaits) {
  {
    auto stream = pool_.imap(
        [](int) {
          ++marks->ran;
          return wait_at_gate();
        },
        Counting());
    ASSERT_TRUE(started(2));
  }
  marks->gate = 1;
  EXPECT_EQ(pool_.apply([](int x) { return x; }, 1), 1);
  ASSERT_TRUE(eventually([&] { return pool_.stats().running == 0; }));
  EXPECT_EQ(marks->ran, 2);
  EXPECT_EQ(pool_.stats().queued, 0u);
}

TEST_F(PoolStream, MovedIntoAnother) {
  auto one = pool_.imap(twice, {1, 2, 3});
  EXPECT_EQ(one.next(), 2);
  auto other = std::move(one);
  EXPECT_EQ(other.next(), 4);
  other = pool_.imap(twice, {5});
  EXPECT_EQ(other.next(), 10);
  EXPECT_EQ(other.next(), std::nullopt);
}

// As in Python: close, then go through it.
TEST_F(PoolStream, GoesOnAfterClose) {
  std::vector<int> numbers(200);
  std::iota(numbers.begin(), numbers.end(), 0);
  auto stream = pool_.imap(twice, numbers);
  pool_.close();
  EXPECT_THROW(pool_.imap(twice, numbers), NotRunning);
  EXPECT_THROW(pool_.apply(twice, 1), NotRunning);
  for (int n = 0; n < 200; ++n) ASSERT_EQ(stream.next(10s), 2 * n);
  EXPECT_EQ(stream.next(), std::nullopt);
  EXPECT_TRUE(pool_.join(10s));
}

// join() does not wait for what nobody draws.
TEST_F(PoolStream, JoinEndsIt) {
  auto stream = pool_.imap(twice, Counting());
  pool_.close();
  EXPECT_TRUE(pool_.join(10s));
  int n = 0;
  try {
    for (;; ++n) ASSERT_EQ(stream.next(10s), 2 * n);
  } catch (const NotRunning&) {
  }
  EXPECT_EQ(n, 8);
  EXPECT_EQ(stream.next(), std::nullopt);
}

TEST_F(PoolStream, TerminateCancelsIt) {
  auto stream = pool_.imap([](int) { return wait_at_gate(); }, Counting());
  ASSERT_TRUE(started(2));
  pool_.terminate();
  for (int n = 0; n < 8; ++n) EXPECT_THROW(stream.next(10s), Cancelled);
  EXPECT_THROW(stream.next(10s), NotRunning);
  EXPECT_EQ(stream.next(10s), std::nullopt);
}

TEST_F(PoolStream, OutlivesThePool) {
  std::optional<Stream<int>> stream;
  {
    Pool pool(1);
    stream.emplace(pool.imap(twice, {1, 2}));
    EXPECT_EQ(stream->next(10s), 2);
    pool.close();
    pool.join();
  }
  EXPECT_EQ(stream->next(10s), 4);
  EXPECT_EQ(stream->next(10s), std::nullopt);
}

TEST_F(PoolStream, SeveralAtOnce) {
  auto a = pool_.imap(twice, Counting());
  auto b = pool_.imap_unordered(twice, Counting(), 5);
  std::set<int> of_b;
  for (int n = 0; n < 300; ++n) {
    ASSERT_EQ(a.next(10s), 2 * n);
    of_b.insert(*b.next(10s));
  }
  EXPECT_EQ(of_b.size(), 300u);
}

}  // namespace
