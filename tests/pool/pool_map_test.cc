// map and starmap over every kind of range, cut into the chunks that are
// promised.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <forward_list>
#include <iterator>
#include <limits>
#include <list>
#include <map>
#include <memory>
#include <numeric>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shoal/ipc/queue.h"
#include "shoal/pool/pool.h"
#include "shoal/shared/value.h"
#include "tests/pool/scene.h"

namespace {

using namespace shoal;
using namespace shoal::support;
using testing::ElementsAre;
using testing::ElementsAreArray;
using testing::HasSubstr;
using testing::IsEmpty;

class PoolMap : public PoolScene {
 protected:
  Pool pool{2};
};
using PoolChunk = PoolMap;
using PoolMapError = PoolMap;

const auto kSquare = [](auto x) { return x * x; };

// 0, 1, ... count - 1, each of which can be looked at once.
class Counting {
 public:
  class Iterator {
   public:
    using iterator_concept = std::input_iterator_tag;
    using difference_type = std::ptrdiff_t;
    using value_type = int;
    explicit Iterator(Counting* range) : range_(range) {}
    int operator*() const { return range_->at_; }
    Iterator& operator++() {
      if (++range_->at_ == range_->throws_at_)
        throw std::runtime_error("the range broke");
      return *this;
    }
    void operator++(int) { ++*this; }
    bool operator==(std::default_sentinel_t) const {
      return range_->at_ == range_->count_;
    }

   private:
    Counting* range_;
  };

  explicit Counting(int count, int throws_at = -1)
      : count_(count), throws_at_(throws_at) {}
  Iterator begin() { return Iterator(this); }
  std::default_sentinel_t end() const { return {}; }

 private:
  int at_ = 0;
  int count_;
  int throws_at_;
};
static_assert(std::ranges::input_range<Counting>);
static_assert(!std::ranges::forward_range<Counting>);

// ---- ranges ----

TEST_F(PoolMap, ContiguousRanges) {
  const std::vector<int> vector = {1, 2, 3};
  EXPECT_THAT(pool.map(kSquare, vector), ElementsAre(1, 4, 9));
  EXPECT_THAT(pool.map(kSquare, std::vector<double>{0.5}), ElementsAre(0.25));
  EXPECT_THAT(pool.map(kSquare, std::array<int, 2>{3, 4}), ElementsAre(9, 16));
  const int c_array[] = {5, 6};
  EXPECT_THAT(pool.map(kSquare, c_array), ElementsAre(25, 36));
  EXPECT_THAT(pool.map([](char c) { return c; }, std::string("abc")),
              ElementsAre('a', 'b', 'c'));
  EXPECT_THAT(pool.map([](const std::string& s) { return s + "!"; },
                       std::vector<std::string>{"a", std::string(100, 'b')}),
              ElementsAre("a!", std::string(100, 'b') + "!"));
}

TEST_F(PoolMap, BracedLists) {
  EXPECT_THAT(pool.map(kSquare, {1, 2, 3}), ElementsAre(1, 4, 9));
  EXPECT_THAT(pool.map([](std::string s) { return s + s; }, {"a", "bc"}),
              ElementsAre("aa", "bcbc"));
  EXPECT_THAT(pool.map([](bool b) { return !b; }, {true, false, true}),
              ElementsAre(false, true, false));
  EXPECT_THAT(pool.map(kSquare, {2.5}, 1), ElementsAre(6.25));
  auto later = pool.map_async(kSquare, {4, 5}, 1);
  EXPECT_THAT(later.get(), ElementsAre(16, 25));
  EXPECT_THAT(pool.starmap(
                  [](int a, const std::string& b) { return b + char('0' + a); },
                  {std::tuple<int, std::string>(1, "x"), {2, "y"}}),
              ElementsAre("x1", "y2"));
  auto star_later =
      pool.starmap_async(std::plus<>{}, {std::pair(1, 2), std::pair(3, 4)});
  EXPECT_THAT(star_later.get(), ElementsAre(3, 7));
}

TEST_F(PoolMap, RangesThatAreNotContiguous) {
  EXPECT_THAT(pool.map(kSquare, std::list<int>{1, 2}), ElementsAre(1, 4));
  const std::deque<int> deque = {3, 4};
  EXPECT_THAT(pool.map(kSquare, deque), ElementsAre(9, 16));
  EXPECT_THAT(pool.map(kSquare, std::set<int>{5, 3}), ElementsAre(9, 25));
  EXPECT_THAT(pool.map(kSquare, std::forward_list<int>{6}), ElementsAre(36));
  EXPECT_THAT(pool.map(
                  [](const std::pair<std::string, int>& entry) {
                    return entry.first + std::to_string(entry.second);
                  },
                  std::map<std::string, int>{{"b", 2}, {"a", 1}}),
              ElementsAre("a1", "b2"));
}

TEST_F(PoolMap, RangesOfBool) {
  const std::vector<bool> bits = {true, false, true, true};
  EXPECT_THAT(pool.map([](bool b) { return b ? 1 : 0; }, bits),
              ElementsAre(1, 0, 1, 1));
  const std::vector<bool> turned = pool.map([](bool b) { return !b; }, bits);
  EXPECT_EQ(turned, (std::vector<bool>{false, true, false, false}));
  std::vector<bool> changeable = bits;
  EXPECT_EQ(pool.map([](bool b) { return b; }, changeable), bits);
}

TEST_F(PoolMap, RangesThatCanBeSeenOnce) {
  Counting counting(100);
  const auto squares = pool.map(kSquare, counting);
  ASSERT_EQ(squares.size(), 100u);
  for (int i = 0; i < 100; ++i)
    ASSERT_EQ(squares[static_cast<std::size_t>(i)], i * i);
  EXPECT_EQ(pool.map(kSquare, Counting(3)).size(), 3u) << "an rvalue";
  // No subrange: clang 14 cannot use libstdc++'s.
  struct Words {
    std::istringstream text;
    auto begin() { return std::istream_iterator<std::string>(text); }
    auto end() { return std::istream_iterator<std::string>(); }
  } words{std::istringstream("to be or not")};
  EXPECT_THAT(pool.map([](std::string word) { return word.size(); }, words),
              ElementsAre(2u, 2u, 2u, 3u));
}

TEST_F(PoolMap, RangeThatThrowsIsTheCallersError) {
  EXPECT_THROW(pool.map([](int) { ++marks->ran; }, Counting(10, 4)),
               std::runtime_error);
  EXPECT_EQ(marks->ran, 0);
  EXPECT_EQ(pool.apply(kSquare, 3), 9);
}

TEST_F(PoolMap, MoveOnlyItems) {
  std::vector<std::unique_ptr<int>> items;
  for (int i = 0; i < 10; ++i) items.push_back(std::make_unique<int>(i));
  const auto values =
      pool.map([](std::unique_ptr<int> p) { return *p; }, items);
  EXPECT_THAT(values, ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8, 9));
  EXPECT_EQ(*items[9], 9) << "the range is still whole";
}

TEST_F(PoolMap, EmptyRangeIsReadyAtOnce) {
  auto held = pool.apply_async(&wait_at_gate);
  auto held_too = pool.apply_async(&wait_at_gate);
  auto result = pool.map_async(kSquare, std::vector<int>());
  EXPECT_TRUE(result.ready());
  EXPECT_TRUE(result.successful());
  EXPECT_THAT(result.get(), IsEmpty());
  EXPECT_THAT(pool.map(kSquare, std::list<int>()), IsEmpty());
  EXPECT_THAT(pool.map(kSquare, Counting(0)), IsEmpty());
  EXPECT_THAT(pool.starmap(std::plus<>{}, std::vector<std::pair<int, int>>()),
              IsEmpty());
  auto nothing = pool.map_async([](int) {}, std::vector<int>(), 5);
  EXPECT_TRUE(nothing.ready());
  nothing.get();
  marks->gate = 1;
}

// ---- callables and results of a map ----

struct Word {
  std::string text;
  int weight;
  int doubled() const { return 2 * weight; }
};

TEST_F(PoolMap, Members) {
  const std::vector<Word> words = {{"a", 1}, {"b", 2}};
  EXPECT_THAT(pool.map(&Word::doubled, words), ElementsAre(2, 4));
  EXPECT_THAT(pool.map(&Word::text, words), ElementsAre("a", "b"));
}

TEST_F(PoolMap, VoidResultsAndSideEffects) {
  static_assert(std::is_void_v<decltype(pool.map([](int) {}, {1}))>);
  pool.map([](int i) { marks->ran += i; }, {1, 2, 3});
  EXPECT_EQ(marks->ran, 6);
  auto result = pool.map_async([](int i) { marks->ran += i; }, {10, 20});
  result.get();
  EXPECT_EQ(marks->ran, 36);
}

TEST_F(PoolMap, EveryItemOnceAndInOrder) {
  std::vector<int> numbers(3000);
  std::iota(numbers.begin(), numbers.end(), 0);
  int round = 0;
  for (const std::ptrdiff_t chunksize :
       {std::ptrdiff_t{0}, std::ptrdiff_t{1}, std::ptrdiff_t{7},
        std::ptrdiff_t{3000}, std::ptrdiff_t{5000},
        std::numeric_limits<std::ptrdiff_t>::max()}) {
    const auto strings = pool.map(
        [](int i) {
          ++marks->of[static_cast<std::size_t>(i)];
          return std::to_string(i) +
                 std::string(static_cast<std::size_t>(i % 50), '.');
        },
        numbers, chunksize);
    ++round;
    ASSERT_EQ(strings.size(), numbers.size());
    for (std::size_t i = 0; i < strings.size(); ++i) {
      ASSERT_EQ(strings[i], std::to_string(i) + std::string(i % 50, '.'));
      ASSERT_EQ(marks->of[i], round) << i;
    }
  }
}

TEST_F(PoolMap, LargeResults) {
  const auto all = pool.map([](int i) { return std::vector<int>(100'000, i); },
                            {1, 2, 3, 4, 5});
  ASSERT_EQ(all.size(), 5u);
  for (int i = 0; i < 5; ++i)
    EXPECT_THAT(all[static_cast<std::size_t>(i)],
                testing::AllOf(testing::SizeIs(100'000), testing::Each(i + 1)));
}

TEST_F(PoolMap, StarmapSpreadsTuplesPairsAndArrays) {
  const auto sum = [](auto... all) { return (all + ...); };
  EXPECT_THAT(
      pool.starmap(
          sum, std::vector<std::tuple<int, int, int>>{{1, 2, 3}, {4, 5, 6}}),
      ElementsAre(6, 15));
  EXPECT_THAT(pool.starmap(sum, std::list<std::pair<double, int>>{{0.5, 1}}),
              ElementsAre(1.5));
  EXPECT_THAT(pool.starmap(sum, std::vector<std::array<int, 2>>{{7, 8}}),
              ElementsAre(15));
  EXPECT_THAT(pool.starmap(sum, std::map<int, int>{{1, 2}, {3, 4}}, 1),
              ElementsAre(3, 7));
  pool.starmap(
      [](int i, const std::string& text) {
        marks->ran += i * static_cast<int>(text.size());
      },
      std::vector<std::tuple<int, std::string>>{{2, "abc"}, {1, "d"}});
  EXPECT_EQ(marks->ran, 7);
  EXPECT_EQ(pool.starmap([](std::unique_ptr<int> p, int i) { return *p + i; },
                         [] {
                           std::vector<std::tuple<std::unique_ptr<int>, int>> v;
                           v.emplace_back(std::make_unique<int>(3), 4);
                           return v;
                         }())
                .at(0),
            7);
}

TEST(PoolMapHandle, HandlesInItems) {
  Queue<int> queue(64);
  Value<int> total;
  Pool pool(2);
  std::vector<std::tuple<Queue<int>, Value<int>, int>> items;
  for (int i = 0; i < 20; ++i) items.emplace_back(queue, total, i);
  pool.starmap(
      [](Queue<int>& q, Value<int>& t, int i) {
        q.put(i);
        t.fetch_add(i);
      },
      items);
  EXPECT_EQ(total.get(), 190);
  EXPECT_EQ(queue.qsize(), 20u);
  pool.map([](Queue<int> q) { q.get(); }, std::vector<Queue<int>>(20, queue));
  EXPECT_TRUE(queue.empty());
}

// ---- chunks ----

// Counts from 0 in each chunk, since each chunk has its own copy.
struct Numbering {
  int next = 0;
  int operator()(int) { return next++; }
};

// Sizes of the chunks that a map of n items is cut into.
std::vector<std::size_t> chunks(Pool& pool, std::size_t n,
                                std::ptrdiff_t chunksize = 0) {
  std::vector<std::size_t> sizes;
  for (const int number : pool.map(Numbering(), std::vector<int>(n), chunksize))
    if (number == 0)
      sizes.push_back(1);
    else
      ++sizes.back();
  return sizes;
}

std::vector<std::size_t> expected_chunks(std::size_t n, std::size_t size) {
  std::vector<std::size_t> sizes(n / size, size);
  if (n % size != 0) sizes.push_back(n % size);
  return sizes;
}

TEST_F(PoolChunk, DefaultIsPythonsFormula) {
  const std::map<std::size_t, std::size_t> of_two_workers = {
      {1, 1}, {7, 1}, {8, 1}, {9, 2}, {16, 2}, {17, 3}, {100, 13}, {1000, 125}};
  for (const auto& [n, size] : of_two_workers)
    EXPECT_THAT(chunks(pool, n), ElementsAreArray(expected_chunks(n, size)))
        << n;
  Pool of_three(3);
  EXPECT_THAT(chunks(of_three, 100), ElementsAreArray(expected_chunks(100, 9)));
}

TEST_F(PoolChunk, AsAskedFor) {
  for (const std::size_t size : {1, 2, 5, 99, 100})
    EXPECT_THAT(chunks(pool, 100, static_cast<std::ptrdiff_t>(size)),
                ElementsAreArray(expected_chunks(100, size)));
  EXPECT_THAT(chunks(pool, 100, 101), ElementsAre(100u));
}

TEST_F(PoolChunk, EachIsOneTask) {
  const std::uint32_t before = records_of(pool);
  auto held = pool.apply_async(&wait_at_gate);
  auto held_too = pool.apply_async(&wait_at_gate);
  auto results = pool.map_async(kSquare, std::vector<int>(100), 10);
  EXPECT_EQ(records_of(pool), before + 12);
  marks->gate = 1;
  EXPECT_EQ(results.get().size(), 100u);
}

TEST_F(PoolChunk, NegativeIsRefused) {
  const std::vector<int> numbers = {1, 2};
  const std::vector<std::pair<int, int>> pairs = {{1, 2}};
  EXPECT_THROW(pool.map(kSquare, numbers, -1), std::invalid_argument);
  EXPECT_THROW(pool.map_async(kSquare, numbers, -1), std::invalid_argument);
  EXPECT_THROW(pool.starmap(std::plus<>{}, pairs, -1), std::invalid_argument);
  EXPECT_THROW(pool.starmap_async(std::plus<>{}, pairs, -1),
               std::invalid_argument);
  EXPECT_THROW(pool.map(kSquare, {1, 2}, -7), std::invalid_argument);
  EXPECT_THROW(pool.map(kSquare, std::vector<int>(), -1),
               std::invalid_argument);
  EXPECT_THROW(pool.map(kSquare, Counting(3),
                        std::numeric_limits<std::ptrdiff_t>::min()),
               std::invalid_argument);
  try {
    pool.map(kSquare, numbers, -7);
  } catch (const std::invalid_argument& error) {
    EXPECT_THAT(error.what(), HasSubstr("Pool::map with chunksize -7"));
  }
}

// ---- errors ----

TEST_F(PoolMapError, RestOfTheFailingChunkIsSkipped) {
  auto result = pool.map_async(
      [](int i) {
        ++marks->of[static_cast<std::size_t>(i)];
        if (i == 12) throw std::out_of_range("twelve");
        return i;
      },
      [] {
        std::vector<int> numbers(40);
        std::iota(numbers.begin(), numbers.end(), 0);
        return numbers;
      }(),
      10);
  EXPECT_THROW(result.get(), std::out_of_range);
  EXPECT_FALSE(result.successful());
  for (std::size_t i = 0; i < 40; ++i)
    EXPECT_EQ(marks->of[i], i > 12 && i < 20 ? 0 : 1) << i;
}

// The first chunk in order fails last, and is the one that is thrown.
TEST_F(PoolMapError, IsThatOfTheFirstFailingChunkAfterAllHaveEnded) {
  auto result = pool.map_async(
      [](int i) {
        if (i == 3) {
          ++marks->ran;
          throw std::length_error("later chunk");
        }
        if (i != 0) {
          ++marks->ran;
          return;
        }
        wait_at_gate();
        throw std::domain_error("first chunk");
      },
      {0, 1, 2, 3, 4, 5, 6, 7}, 1);
  // The other worker has done all other chunks, one of which has failed.
  ASSERT_TRUE(eventually([] { return marks->ran == 7; }));
  EXPECT_FALSE(result.ready());
  EXPECT_FALSE(result.wait(std::chrono::milliseconds(1)));
  EXPECT_THROW(result.get(now), TimeoutError);
  marks->gate = 1;
  try {
    result.get();
    FAIL();
  } catch (const std::domain_error& error) {
    EXPECT_STREQ(error.what(), "first chunk");
  }
  EXPECT_THROW(result.get(), std::domain_error) << "again";
}

TEST_F(PoolMapError, AllOtherChunksHaveEndedWhenItIsThrown) {
  for (int round = 0; round < 50; ++round) {
    marks->ran = 0;
    EXPECT_THROW(pool.map(
                     [](int i) {
                       if (i == 0) throw std::runtime_error("at once");
                       ++marks->ran;
                     },
                     std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, 1),
                 std::runtime_error);
    ASSERT_EQ(marks->ran, 9);
  }
}

TEST_F(PoolMapError, DroppedMapRunsAllTheSame) {
  {
    auto dropped =
        pool.map_async([](int) { ++marks->ran; }, std::vector<int>(1000), 1);
  }
  EXPECT_TRUE(eventually([] { return marks->ran == 1000; }));
}

}  // namespace
