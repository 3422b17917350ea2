// Array<T> in one process: what it is made of, its elements, its file.

#include "shoal/shared/array.h"

#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <forward_list>
#include <fstream>
#include <future>
#include <iterator>
#include <limits>
#include <list>
#include <numeric>
#include <optional>
#include <regex>
#include <set>
#include <span>
#include <sstream>
#include <stdexcept>
#include <string>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "shoal/ipc/codec.h"
#include "tests/support/child.h"
#include "tests/support/name.h"
#include "tests/support/thread.h"

namespace {

using shoal::Access;
using shoal::Array;
using shoal::ArrayOptions;
using shoal::NoSpace;
using shoal::now;
using shoal::TimeoutError;
using shoal::TypeMismatch;
using shoal::support::Name;
using shoal::support::Thread;
using std::chrono::milliseconds;
using testing::AllOf;
using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using testing::ThrowsMessage;

struct Point {
  double x, y, z;
  bool operator==(const Point&) const = default;
};
class Id {  // no default constructor
 public:
  explicit Id(int n) : n_(n) {}
  bool operator==(const Id&) const = default;

 private:
  int n_;
};
enum class Colour : std::int16_t { red, green };

// ---- a contiguous range ----

static_assert(std::ranges::contiguous_range<Array<int>>);
static_assert(std::ranges::contiguous_range<const Array<Point>>);
static_assert(std::ranges::sized_range<Array<int>>);
static_assert(std::ranges::common_range<Array<int>>);
static_assert(std::is_same_v<std::ranges::range_reference_t<Array<int>>, int&>);
static_assert(std::is_same_v<std::ranges::range_reference_t<const Array<int>>,
                             const int&>);
static_assert(std::is_same_v<Array<int>::value_type, int>);
static_assert(std::is_convertible_v<Array<int>&, std::span<int>>);
static_assert(std::is_convertible_v<const Array<int>&, std::span<const int>>);
static_assert(!std::is_convertible_v<const Array<int>&, std::span<int>>);
static_assert(!std::is_convertible_v<std::size_t, Array<int>>);  // explicit
static_assert(!std::is_convertible_v<std::vector<int>, Array<int>>);
static_assert(!std::is_constructible_v<Array<int>, std::string>
                  ? false
                  : std::is_constructible_v<Array<int>, std::vector<short>>);
static_assert(!std::is_constructible_v<Array<int>, std::vector<std::string>>);
static_assert(!std::is_default_constructible_v<Array<int>>);

TEST(Array, HasTheElementsOfAVector) {
  std::vector<int> model(1000);
  std::iota(model.begin(), model.end(), -500);
  Array<int> array(model.size());
  std::copy(model.begin(), model.end(), array.begin());
  EXPECT_EQ(array.size(), model.size());
  EXPECT_FALSE(array.empty());
  EXPECT_TRUE(std::equal(array.begin(), array.end(), model.begin()));
  for (std::size_t i = 0; i < model.size(); ++i) {
    EXPECT_EQ(array[i], model[i]);
    EXPECT_EQ(array.at(i), model[i]);
    EXPECT_EQ(&array[i], array.data() + i);
  }
  EXPECT_EQ(array.front(), -500);
  EXPECT_EQ(array.back(), 499);
  array.front() = 7;
  array.back() = 8;
  EXPECT_EQ(array[0], 7);
  EXPECT_EQ(array[999], 8);
  const Array<int>& constant = array;
  EXPECT_EQ(constant.front(), 7);
  EXPECT_EQ(constant.back(), 8);
  EXPECT_EQ(constant[999], constant.at(999));
  EXPECT_EQ(constant.data(), array.data());
  EXPECT_EQ(constant.end() - constant.begin(), 1000);
  EXPECT_EQ(constant.cend() - constant.cbegin(), 1000);
}

TEST(Array, WorksWithAlgorithms) {
  Array<int> array(1000);
  std::iota(array.begin(), array.end(), 0);
  std::reverse(array.begin(), array.end());
  std::sort(array.begin(), array.end());
  EXPECT_TRUE(std::is_sorted(array.begin(), array.end()));
  std::ranges::sort(array, std::greater<>());
  EXPECT_EQ(array.front(), 999);
  EXPECT_EQ(std::accumulate(array.cbegin(), array.cend(), 0), 499500);
  for (int& element : array) element *= 2;
  EXPECT_EQ(array[1], 1996);
  array.fill(3);
  EXPECT_THAT(array, Each(3));
  EXPECT_THAT(array, SizeIs(1000));
}

TEST(Array, Spans) {
  Array<int> array{1, 2, 3, 4};
  std::span<int> all = array;
  all[1] = 20;
  EXPECT_EQ(array[1], 20);
  EXPECT_EQ(array.span().data(), array.data());
  EXPECT_THAT(array.span().subspan(2), ElementsAre(3, 4));
  const Array<int> constant = array;
  static_assert(
      std::is_same_v<decltype(constant.span()), std::span<const int>>);
  EXPECT_THAT(constant.span(), ElementsAre(1, 20, 3, 4));
}

TEST(Array, AtNamesIndexAndShape) {
  Array<int> array(12);
  const Array<int>& constant = array;
  const auto message = AllOf(HasSubstr("12 "), HasSubstr("(12)"));
  EXPECT_THAT([&] { array.at(12) = 1; },
              ThrowsMessage<std::out_of_range>(message));
  EXPECT_THAT([&] { (void)constant.at(12); },
              ThrowsMessage<std::out_of_range>(message));
  EXPECT_THAT([&] { (void)array.at(4711); },
              ThrowsMessage<std::out_of_range>(
                  AllOf(HasSubstr("4711"), HasSubstr("(12)"))));
  EXPECT_THROW((void)array.at(static_cast<std::size_t>(-1)), std::out_of_range);
  EXPECT_EQ(array.at(11), 0);
  EXPECT_THROW((void)Array<int>(0).at(0), std::out_of_range);
}

// ---- from a size ----

template <class T>
bool is_zero(const Array<T>& array) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(array.data());
  return std::all_of(bytes, bytes + array.size() * sizeof(T),
                     [](unsigned char byte) { return byte == 0; });
}

TEST(ArrayOfSize, IsZeroed) {
  EXPECT_TRUE(is_zero(Array<double>(1)));
  EXPECT_TRUE(is_zero(Array<char>(12345)));
  EXPECT_TRUE(is_zero(Array<Point>(1'000'000)));
  EXPECT_TRUE(is_zero(Array<Id>(10)));
  EXPECT_TRUE(is_zero(Array<bool>(77)));
  EXPECT_TRUE(is_zero(Array<Colour>(3)));
  for (int i = 0; i < 20; ++i) {  // also where another one lay before
    Array<int> array(100'000);
    EXPECT_TRUE(is_zero(array));
    array.fill(-1);
  }
}

TEST(ArrayOfSize, MayBeEmpty) {
  Array<int> array(0);
  EXPECT_TRUE(array.empty());
  EXPECT_EQ(array.size(), 0u);
  EXPECT_EQ(array.begin(), array.end());
  EXPECT_TRUE(array.span().empty());
  array.fill(1);
  std::sort(array.begin(), array.end());
  { const auto held = array.lock(); }
  EXPECT_THAT(Array<int>(std::vector<int>()), IsEmpty());
  const Name name("empty");
  (void)Array<int>::create(name, 0);
  EXPECT_THAT(Array<int>::open(name), IsEmpty());
}

TEST(ArrayOfSize, NegativeIsRefused) {
  const Name name("negative");
  const int size = -3;
  const auto message = AllOf(HasSubstr("negative"), HasSubstr("-3"));
  EXPECT_THAT([&] { Array<int> array(size); },
              ThrowsMessage<std::invalid_argument>(message));
  EXPECT_THAT([&] { (void)Array<char>::create(name, size); },
              ThrowsMessage<std::invalid_argument>(message));
  EXPECT_THAT([&] { (void)Array<Point>::open_or_create(name, -3L); },
              ThrowsMessage<std::invalid_argument>(message));
  EXPECT_FALSE(shoal::unlink(name));
}

TEST(ArrayOfSize, AbsurdIsNoSpace) {
  const Name name("absurd");
  const auto shoal_has_none = [&](std::size_t size) {
    EXPECT_THROW(Array<Point> array(size), NoSpace) << size;
    EXPECT_THROW((void)Array<Point>::create(name, size), NoSpace) << size;
    EXPECT_FALSE(shoal::unlink(name));
  };
  for (unsigned bit = 36; bit < 63; ++bit) {  // 1.6 TB and more
    shoal_has_none(std::size_t{1} << bit);
    shoal_has_none((std::size_t{1} << bit) - 1);
  }
  shoal_has_none(std::numeric_limits<std::ptrdiff_t>::max());
  try {
    Array<double> array(std::size_t{1} << 40);
    ADD_FAILURE() << "8 TiB";
  } catch (const NoSpace& error) {
    EXPECT_GE(error.wanted(), std::uint64_t{1} << 43);
    EXPECT_LT(error.available(), error.wanted());
    EXPECT_GT(error.available(), 0u);
    EXPECT_THAT(error.what(), AllOf(HasSubstr("Array"), HasSubstr("bytes")));
  }
  EXPECT_THROW(Array<double>(std::size_t{1} << 61, {.reserve = false}),
               NoSpace);
  // Within 64 bits, beyond what this processor addresses.
  EXPECT_THROW(Array<double>(std::size_t{1} << 50, {.reserve = false}),
               std::system_error);
}

// ---- from a list or a range ----

TEST(ArrayOfList, HoldsItsElements) {
  EXPECT_THAT((Array<int>{1, 2, 3}), ElementsAre(1, 2, 3));
  EXPECT_THAT((Array<double>{1, 2.5}), ElementsAre(1, 2.5));
  EXPECT_THAT((Array<bool>{true, false, true}), ElementsAre(true, false, true));
  EXPECT_THAT((Array<std::size_t>{7}), ElementsAre(7u));  // no size
  EXPECT_EQ((Array<Point>{{1, 2, 3}, {4, 5, 6}})[1], (Point{4, 5, 6}));
  EXPECT_EQ((Array<Id>{Id(1), Id(2)})[1], Id(2));
  const std::initializer_list<int> list = {4, 5};
  EXPECT_THAT(Array<int>(list), ElementsAre(4, 5));
}

// Can be read once, by one who may change it; its iterators cannot be copied.
class Countdown {
 public:
  class Iterator {
   public:
    using value_type = int;
    using difference_type = std::ptrdiff_t;
    explicit Iterator(Countdown& range) : range_(&range) {}
    Iterator(Iterator&&) = default;
    Iterator& operator=(Iterator&&) = default;
    int operator*() const { return range_->next_; }
    Iterator& operator++() {
      --range_->next_;
      return *this;
    }
    void operator++(int) { --range_->next_; }
    bool operator==(std::default_sentinel_t) const {
      return range_->next_ == 0;
    }

   private:
    Countdown* range_;
  };
  explicit Countdown(int from) : next_(from) {}
  Countdown(const Countdown&) = delete;
  Iterator begin() { return Iterator(*this); }
  std::default_sentinel_t end() { return {}; }

 private:
  int next_;
};
static_assert(std::ranges::input_range<Countdown>);
static_assert(!std::ranges::forward_range<Countdown>);
static_assert(!std::ranges::range<const Countdown>);

class SizedCountdown : public Countdown {
 public:
  SizedCountdown(int from, std::size_t size) : Countdown(from), size_(size) {}
  std::size_t size() const { return size_; }

 private:
  std::size_t size_;
};
static_assert(std::ranges::sized_range<SizedCountdown>);

TEST(ArrayOfRange, Contiguous) {
  std::vector<int> vector{1, 2, 3};
  const std::vector<int> constant = vector;
  int c_array[] = {1, 2, 3};
  const std::array<int, 3> array{1, 2, 3};
  const std::span<const int> span = vector;
  EXPECT_THAT(Array<int>(vector), ElementsAre(1, 2, 3));
  EXPECT_THAT(Array<int>(constant), ElementsAre(1, 2, 3));
  EXPECT_THAT(Array<int>(std::vector<int>{1, 2, 3}), ElementsAre(1, 2, 3));
  EXPECT_THAT(Array<int>(c_array), ElementsAre(1, 2, 3));
  EXPECT_THAT(Array<int>(array), ElementsAre(1, 2, 3));
  EXPECT_THAT(Array<int>(span), ElementsAre(1, 2, 3));
  EXPECT_THAT(Array<int>(span.subspan(1)), ElementsAre(2, 3));
  EXPECT_THAT(Array<char>(std::string("abc")), ElementsAre('a', 'b', 'c'));
  const Array<short> other{1, 2, 3};
  EXPECT_THAT(Array<int>(other), ElementsAre(1, 2, 3));
  EXPECT_EQ(Array<Id>(std::vector<Id>{Id(1), Id(2)})[1], Id(2));
}

TEST(ArrayOfRange, NotContiguous) {
  const std::list<int> list{3, 1, 2};
  std::deque<short> deque{3, 1, 2};
  std::forward_list<char> forward{3, 1, 2};
  EXPECT_THAT(Array<int>(list), ElementsAre(3, 1, 2));
  EXPECT_THAT(Array<int>(deque), ElementsAre(3, 1, 2));
  EXPECT_THAT(Array<int>(forward), ElementsAre(3, 1, 2));
  EXPECT_THAT(Array<int>(std::set<int>{3, 1, 2}), ElementsAre(1, 2, 3));
  EXPECT_THAT(Array<double>(list), ElementsAre(3.0, 1.0, 2.0));
  EXPECT_EQ(Array<Id>(std::list<Id>{Id(1), Id(2)})[1], Id(2));
  const std::vector<bool> bits{true, false, true};
  EXPECT_THAT(Array<bool>(bits), ElementsAre(true, false, true));
}

TEST(ArrayOfRange, ReadOnce) {
  EXPECT_THAT(Array<int>(Countdown(4)), ElementsAre(4, 3, 2, 1));
  Countdown countdown(2);
  EXPECT_THAT(Array<long>(countdown), ElementsAre(2, 1));
  EXPECT_THAT(Array<long>(countdown), IsEmpty());
  // No subrange: clang 14 cannot use libstdc++'s.
  struct Numbers {
    std::istringstream text;
    auto begin() { return std::istream_iterator<int>(text); }
    auto end() { return std::istream_iterator<int>(); }
  } numbers{std::istringstream("5 6 7")};
  EXPECT_THAT(Array<int>(numbers), ElementsAre(5, 6, 7));
  const Name name("countdown"), other("other");
  EXPECT_THAT(Array<int>::create(name, Countdown(3)), ElementsAre(3, 2, 1));
  EXPECT_THAT(Array<int>::open_or_create(other, Countdown(3)),
              ElementsAre(3, 2, 1));
}

TEST(ArrayOfRange, ItsSizeIsBelieved) {
  EXPECT_THAT(Array<int>(SizedCountdown(3, 3)), ElementsAre(3, 2, 1));
  // and what it gives beyond is not written behind the end.
  Array<int> longer(SizedCountdown(3000, 2));
  EXPECT_THAT(longer, ElementsAre(3000, 2999));
  (void)longer.lock(now);
  EXPECT_THAT(Array<int>(SizedCountdown(1, 3)), ElementsAre(1, 0, 0));
}

TEST(ArrayOfRange, ThatThrowsLeavesNothing) {
  const Name name("throws");
  const auto before = shoal::support::residue();
  struct Failing {
    int n;
    operator int() const {
      if (n == 2) throw std::runtime_error("no");
      return n;
    }
  };
  const std::list<Failing> range{{1}, {2}, {3}};
  EXPECT_THAT([&] { Array<int> array(range); },
              ThrowsMessage<std::runtime_error>("no"));
  EXPECT_THAT([&] { (void)Array<int>::create(name, range); },
              ThrowsMessage<std::runtime_error>("no"));
  EXPECT_EQ(shoal::support::residue(), before);
}

TEST(ArrayOfRange, IsACopy) {
  std::vector<int> vector{1, 2, 3};
  const Array<int> array(vector);
  vector[0] = 9;
  EXPECT_EQ(array[0], 1);
}

// ---- handles ----

TEST(ArrayHandle, CopyIsTheSameObject) {
  Array<int> a{1, 2, 3};
  Array<int> b = a;
  b[0] = 7;
  EXPECT_EQ(a[0], 7);
  EXPECT_EQ(a.data(), b.data());
  Array<int> c{4};
  c = a;
  EXPECT_THAT(c, ElementsAre(7, 2, 3));
  Array<int> d = std::move(c);
  d[2] = 8;
  EXPECT_EQ(a[2], 8);
  EXPECT_EQ(c[2], 8);  // a moved handle stays good
  { const auto held = c.lock(); }
  std::optional<Array<int>> last(std::move(d));
  const auto held = last->lock();
  EXPECT_THROW((void)a.lock(now), TimeoutError);
}

TEST(ArrayHandle, OutlivesTheOneThatMadeIt) {
  std::optional<Array<int>> first(std::in_place, 100'000u);
  Array<int> second = *first;
  first.reset();
  second.fill(5);
  EXPECT_THAT(second, Each(5));
}

TEST(ArrayHandle, ObjectsAreApart) {
  Array<int> a(10), b(10);
  a.fill(1);
  EXPECT_THAT(b, Each(0));
}

// ---- options ----

TEST(ArrayOptions, SparseIsLargerThanMemory) {
  constexpr std::size_t kBytes = std::size_t{20} << 30;
  Array<double> array(kBytes / sizeof(double), {.reserve = false});
  EXPECT_EQ(array.size() * sizeof(double), kBytes);
  array.back() = 1.5;
  array[array.size() / 2] = 2.5;
  EXPECT_EQ(array.at(array.size() - 1), 1.5);
  EXPECT_EQ(array[array.size() - 2], 0);
  EXPECT_EQ(array[array.size() / 2], 2.5);
  EXPECT_EQ(array.front(), 0);
  { const auto held = array.lock(); }
  const Name name("sparse");
  auto named =
      Array<char>::create(name, kBytes, ArrayOptions{.reserve = false});
  named.back() = 'z';
  struct stat status;
  ASSERT_EQ(stat(name.path().c_str(), &status), 0);
  EXPECT_GT(static_cast<std::size_t>(status.st_size), kBytes);
  EXPECT_LT(status.st_blocks * 512, 4 << 20);
  auto opened = Array<char>::open(name);
  EXPECT_EQ(opened.back(), 'z');
}

TEST(ArrayOptions, ReservedByDefault) {
  const Name name("reserved");
  (void)Array<char>::create(name, 8 << 20);
  struct stat status;
  ASSERT_EQ(stat(name.path().c_str(), &status), 0);
  EXPECT_GE(status.st_blocks * 512, 8 << 20);
}

long minor_faults() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_minflt;
}

long faults_when_touched(ArrayOptions options) {
  Array<char> array(32 << 20, options);
  volatile char* data = array.data();
  const long before = minor_faults();
  for (std::size_t i = 0; i < array.size(); i += 4096) data[i] = 1;
  return minor_faults() - before;
}

TEST(ArrayOptions, PopulateMapsAllPagesAtOnce) {
  // 8,192 pages, of which the kernel may map 16 and more at a fault.
  const long lazily = faults_when_touched({});
  const long populated = faults_when_touched({.populate = true});
  EXPECT_GE(lazily, 16);
  EXPECT_LE(populated, lazily / 4);
  const long unreserved =
      faults_when_touched({.reserve = false, .populate = true});
  EXPECT_LE(unreserved, lazily / 4);
}

TEST(ArrayOptions, OfARange) {
  const std::vector<int> vector(100, 7);
  EXPECT_THAT(Array<int>(vector, {.reserve = false}), Each(7));
  EXPECT_THAT(Array<int>(vector, {.populate = true}), Each(7));
  const Name name("range");
  EXPECT_THAT(Array<int>::create(name, ArrayOptions{.populate = true}, vector,
                                 Access{.mode = 0640}),
              Each(7));
}

// ---- lock ----

TEST(ArrayLock, ExcludesOtherHolders) {
  Array<int> array(3);
  std::optional held(array.lock());
  (*held)[0] = 5;
  (**held)[1] = 6;
  (*held)->back() = 7;
  Thread other([copy = array]() mutable {
    auto held = copy.lock();
    EXPECT_THAT(*held, ElementsAre(5, 6, 7));
    EXPECT_FALSE(held.owner_died());
    held[0] = 8;
  });
  EXPECT_TRUE(other.falls_asleep());
  EXPECT_EQ(array[0], 5);  // no lock is needed to look
  held.reset();
  EXPECT_TRUE(other.ends());
  EXPECT_EQ(array[0], 8);
}

TEST(ArrayLock, TimesOut) {
  Array<int> array(3);
  std::promise<void> locked, enough;
  Thread holder([&] {
    const auto held = array.lock();
    locked.set_value();
    enough.get_future().wait();
  });
  locked.get_future().wait();
  EXPECT_THAT([&] { (void)array.lock(now); },
              ThrowsMessage<TimeoutError>(HasSubstr("Array::lock timed out")));
  const auto start = std::chrono::steady_clock::now();
  EXPECT_THROW((void)array.lock(milliseconds(30)), TimeoutError);
  EXPECT_GE(std::chrono::steady_clock::now() - start, milliseconds(30));
  enough.set_value();
  const auto held = array.lock(shoal::support::kPatience);
  EXPECT_FALSE(held.owner_died());
}

TEST(ArrayLock, RefusesToWaitForItself) {
  Array<int> array(3);
  auto held = array.lock();
  EXPECT_THROW((void)array.lock(), std::logic_error);
  auto moved = std::move(held);
  EXPECT_THROW((void)array.lock(now), TimeoutError);
}

TEST(ArrayLock, EndsOnceWhenMoved) {
  Array<int> array(3);
  {
    auto held = array.lock();
    { const auto moved = std::move(held); }
    const auto again = array.lock();
  }
  (void)array.lock(now);
}

TEST(ArrayLock, IsHandedOnByAThreadThatEnds) {
  Array<int> array(3);
  std::optional<Array<int>::Locked> left;
  Thread holder([&] { left.emplace(array.lock()); });
  EXPECT_TRUE(holder.ends());
  {
    auto held = array.lock(shoal::support::kPatience);
    EXPECT_TRUE(held.owner_died());
    left.reset();  // is no holder any more
    EXPECT_THROW((void)array.lock(now), TimeoutError);
  }
  {
    auto held = array.lock();
    EXPECT_TRUE(held.owner_died());  // until somebody says otherwise
    held.mark_consistent();
    EXPECT_FALSE(held.owner_died());
  }
  EXPECT_FALSE(array.lock().owner_died());
}

// The lock lies behind the elements and shares no byte with them.
template <class T>
void lock_is_apart() {
  for (std::size_t size = 0; size < 300; ++size) {
    Array<T> array(size);
    auto held = array.lock();
    if (size != 0)
      std::memset(static_cast<void*>(array.data()), 0xFF, size * sizeof(T));
    ASSERT_FALSE(held.owner_died()) << size;
    ASSERT_THROW((void)array.lock(now), TimeoutError) << size;
    { auto ended = std::move(held); }
    ASSERT_NO_THROW((void)array.lock(now)) << size;
  }
}

TEST(ArrayLock, LiesApartFromTheElements) {
  lock_is_apart<char>();
  lock_is_apart<std::array<char, 3>>();
  lock_is_apart<double>();
  lock_is_apart<std::array<char, 1000>>();
}

// ---- names ----

TEST(ArrayNamed, IsTheSameForAllWhoOpenIt) {
  const Name name("array");
  auto made = Array<int>::create(name, {1, 2, 3});
  auto opened = Array<int>::open(name);
  EXPECT_THAT(opened, ElementsAre(1, 2, 3));
  opened[1] = 20;
  EXPECT_EQ(made[1], 20);
  auto again = Array<int>::open_or_create(name, 3);
  again[2] = 30;
  EXPECT_THAT(made, ElementsAre(1, 20, 30));
  const auto held = made.lock();
  EXPECT_THROW((void)opened.lock(now), TimeoutError);
}

TEST(ArrayNamed, TakesWhatTheConstructorsTake) {
  const Name a("a"), b("b"), c("c"), d("d"), e("e");
  EXPECT_TRUE(is_zero(Array<Point>::create(a, 1000)));
  EXPECT_THAT(Array<int>::create(b, std::vector<int>{1, 2}), ElementsAre(1, 2));
  EXPECT_THAT(Array<int>::create(c, {1, 2}, Access{.mode = 0644}),
              ElementsAre(1, 2));
  EXPECT_THAT(Array<int>::open_or_create(d, {4, 5}), ElementsAre(4, 5));
  EXPECT_THAT(Array<int>::open_or_create(d, {6, 7}), ElementsAre(4, 5));
  const std::list<int> list{8, 9};
  EXPECT_THAT(Array<int>::open_or_create(e, list, Access{.mode = 0640}),
              ElementsAre(8, 9));
  const auto mode = [](const Name& name) {
    struct stat status;
    EXPECT_EQ(stat(name.path().c_str(), &status), 0);
    return status.st_mode & 0777;
  };
  EXPECT_EQ(mode(a), 0600u);
  EXPECT_EQ(mode(c), 0644u);
  EXPECT_EQ(mode(e), 0640u);
}

TEST(ArrayNamed, NamesThatExistOrDoNot) {
  const Name name("array");
  const auto code_of = [](auto&& call) -> int {
    try {
      call();
    } catch (const std::system_error& error) {
      return error.code().value();
    }
    return 0;
  };
  EXPECT_EQ(code_of([&] { (void)Array<int>::open(name); }), ENOENT);
  Array<int> made = Array<int>::create(name, {1});
  EXPECT_EQ(code_of([&] { (void)Array<int>::create(name, {2}); }), EEXIST);
  EXPECT_EQ(code_of([&] { (void)Array<int>::create(name, 5); }), EEXIST);
  EXPECT_EQ(made[0], 1);
  EXPECT_TRUE(shoal::unlink(name));
  EXPECT_EQ(made[0], 1);
  EXPECT_EQ(code_of([&] { (void)Array<int>::open(name); }), ENOENT);
  EXPECT_THROW((void)Array<int>::create("a b", 1), std::invalid_argument);
}

TEST(ArrayNamed, OtherTypesAndSizesAreRefusedAndBothPrinted) {
  const Name name("array");
  (void)Array<Point>::create(name, 5);
  EXPECT_THAT([&] { (void)Array<double>::open(name); },
              ThrowsMessage<TypeMismatch>(
                  AllOf(HasSubstr(name.path()), HasSubstr("double (8 bytes"),
                        HasSubstr("Point (24 bytes"), HasSubstr("16 double"))));
  EXPECT_THROW((void)Array<double>::open_or_create(name, 15), TypeMismatch);
  EXPECT_THAT([&] { (void)Array<Point>::open_or_create(name, 6); },
              ThrowsMessage<TypeMismatch>(AllOf(HasSubstr(name.path()),
                                                HasSubstr("6 elements"),
                                                HasSubstr("5 elements"))));
  EXPECT_THROW((void)Array<Point>::open_or_create(name, {Point{1, 2, 3}}),
               TypeMismatch);
  EXPECT_EQ(Array<Point>::open_or_create(name, 5).size(), 5u);
}

TEST(ArrayNamed, ReadOnly) {
  const Name name("array");
  auto made = Array<int>::create(name, {1, 2, 3});
  auto reader = Array<int>::open(name, Access{.read_only = true});
  EXPECT_THAT(reader, ElementsAre(1, 2, 3));
  made[1] = 20;
  EXPECT_EQ(reader[1], 20);
  EXPECT_THAT([&] { (void)reader.lock(); },
              ThrowsMessage<std::logic_error>(
                  AllOf(HasSubstr(name.path()), HasSubstr("read-only"))));
  EXPECT_THROW((void)reader.lock(now), std::logic_error);
  // No write is needed to open it.
  const auto held = made.lock();
  EXPECT_THAT(Array<int>::open(name, Access{.read_only = true}),
              ElementsAre(1, 20, 3));
}

// A number in the file that no creator wrote.
void damage(const Name& name, std::uint64_t from, std::uint64_t to) {
  std::fstream file(name.path(),
                    std::ios::in | std::ios::out | std::ios::binary);
  std::string all(std::istreambuf_iterator<char>(file), {});
  const auto bytes = [](const std::uint64_t& number) {
    return std::string(reinterpret_cast<const char*>(&number), sizeof number);
  };
  const std::size_t at = all.find(bytes(from), 8192);
  ASSERT_NE(at, std::string::npos);
  file.seekp(static_cast<std::streamoff>(at));
  file << bytes(to);
}

TEST(ArrayNamed, ALengthThatDoesNotFitIsCorrupt) {
  constexpr std::uint64_t kSize = 1234;  // up to 1240 fit before the lock
  const std::uint64_t wrong[] = {0,
                                 1241,
                                 5000,
                                 std::uint64_t{1} << 40,
                                 (std::uint64_t{1} << 61) + kSize,
                                 std::numeric_limits<std::uint64_t>::max()};
  for (const std::uint64_t size : wrong) {
    const Name name("corrupt");
    (void)Array<double>::create(name, kSize);
    damage(name, kSize, size);
    EXPECT_THROW((void)Array<double>::open(name), shoal::Corrupt) << size;
    EXPECT_THROW((void)Array<double>::open(name, Access{.read_only = true}),
                 shoal::Corrupt)
        << size;
  }
  const Name name("whole");  // the control
  (void)Array<double>::create(name, kSize);
  damage(name, kSize, kSize);
  EXPECT_EQ(Array<double>::open(name).size(), kSize);
}

// ---- a NumPy file ----

// By the words of numpy.lib.format, as far as Array uses them.
struct NumpyFile {
  std::string dtype;
  std::string shape;
  std::string data;
};

void parse(const Name& name, std::size_t data_bytes, NumpyFile& parsed) {
  std::ifstream file(name.path(), std::ios::binary);
  const std::string all(std::istreambuf_iterator<char>(file), {});
  ASSERT_GE(all.size(), 4096 + data_bytes);
  ASSERT_EQ(all.substr(0, 6), "\x93NUMPY");
  ASSERT_EQ(all[6], 1);
  ASSERT_EQ(all[7], 0);
  const std::size_t length = static_cast<unsigned char>(all[8]) +
                             256u * static_cast<unsigned char>(all[9]);
  ASSERT_EQ(10 + length, 4096u);
  ASSERT_LT(length, 10'000u);  // numpy.load's limit
  const std::string header = all.substr(10, length);
  ASSERT_EQ(header.back(), '\n');
  const std::size_t end = header.find('}');
  ASSERT_NE(end, std::string::npos);
  ASSERT_EQ(header.find_first_not_of(' ', end + 1), header.size() - 1);
  const std::string dictionary = header.substr(0, end + 1);
  static const std::regex entries(
      R"(\{'descr': (.*), 'fortran_order': False, 'shape': \((.*),\), \})");
  std::smatch found;
  ASSERT_TRUE(std::regex_match(dictionary, found, entries)) << dictionary;
  parsed = {found[1], found[2], all.substr(4096, data_bytes)};
}

template <class T>
void is_numpy_file(const std::vector<T>& elements, const std::string& dtype) {
  const Name name("numpy");
  Array<T> array = Array<T>::create(name, elements);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(array.data()) % 4096, 0u);
  std::string bytes(elements.size() * sizeof(T), '\0');
  for (std::size_t i = 0; i < elements.size(); ++i) {
    const T element = elements[i];
    std::memcpy(&bytes[i * sizeof(T)], &element, sizeof(T));
  }
  NumpyFile file;
  ASSERT_NO_FATAL_FAILURE(parse(name, bytes.size(), file)) << dtype;
  EXPECT_EQ(file.dtype, dtype);
  EXPECT_EQ(file.shape, std::to_string(elements.size())) << dtype;
  EXPECT_EQ(file.data, bytes) << dtype;
}

TEST(ArrayNumpy, HeaderAndDataOfEachType) {
  is_numpy_file<double>({1.5, -2, 1e300}, "'<f8'");
  is_numpy_file<float>({1.5f, -2}, "'<f4'");
  is_numpy_file<std::int8_t>({-1, 2, 3}, "'|i1'");
  is_numpy_file<std::uint8_t>({1, 2, 255}, "'|u1'");
  is_numpy_file<std::int16_t>({-1, 2}, "'<i2'");
  is_numpy_file<std::uint16_t>({1, 65535}, "'<u2'");
  is_numpy_file<int>({-1, 2, 3}, "'<i4'");
  is_numpy_file<unsigned>({1, 2, 3}, "'<u4'");
  is_numpy_file<std::int64_t>({-1, 2, 3}, "'<i8'");
  is_numpy_file<std::uint64_t>({1, 2, 3}, "'<u8'");
  is_numpy_file<char>({'a', 'b'}, "'|i1'");
  is_numpy_file<bool>({true, false, true}, "'|b1'");
  is_numpy_file<Point>({{1, 2, 3}, {4, 5, 6}},
                       "[('f0', '<f8'), ('f1', '<f8'), ('f2', '<f8')]");
  is_numpy_file<double>({}, "'<f8'");
  is_numpy_file<int>(std::vector<int>(100'000, 77), "'<i4'");
}

bool python_has_numpy() {
  return std::system("/usr/bin/python3 -c 'import numpy' 2>/dev/null") == 0;
}

// What Debian's NumPy sees and changes, where it is installed. (Where not, the
// test above has read the same bytes by hand.)
TEST(ArrayNumpy, LoadedByNumpyItself) {
  const Name name("numpy"), structs("structs");
  auto array = Array<double>::create(name, {1.5, 2.5, 3.5});
  auto points = Array<Point>::create(structs, 4);
  points[3].x = 7;
  if (!python_has_numpy()) {
    NumpyFile file;
    ASSERT_NO_FATAL_FAILURE(parse(name, 24, file));
    EXPECT_EQ(file.dtype + file.shape, "'<f8'3");
    return;
  }
  std::printf("with NumPy\n");
  std::fflush(stdout);
  const std::string script =
      "import numpy, sys\n"
      "a = numpy.load(sys.argv[1], mmap_mode='r+')\n"
      "assert a.dtype == numpy.float64 and a.shape == (3,), a\n"
      "assert a.tolist() == [1.5, 2.5, 3.5], a\n"
      "a[1] = -7.25\n"
      "assert numpy.load(sys.argv[1]).tolist() == [1.5, -7.25, 3.5]\n"
      "p = numpy.load(sys.argv[2], mmap_mode='r')\n"
      "assert p.dtype.itemsize == 24 and p.shape == (4,), p\n"
      "assert p['f0'].tolist() == [0, 0, 0, 7], p\n";
  const std::string command = "/usr/bin/python3 -c \"" + script + "\" " +
                              name.path() + " " + structs.path();
  ASSERT_EQ(std::system(command.c_str()), 0);
  EXPECT_THAT(array, ElementsAre(1.5, -7.25, 3.5));  // the very same memory
  const auto held = array.lock();
}

// ---- in messages ----

static_assert(shoal::Message<Array<int>> && shoal::Message<Array<Point>>);
static_assert(!shoal::Shareable<Array<int>>);

template <class T>
T round_trip(const T& value) {
  return shoal::codec::from_bytes<T>(shoal::codec::to_bytes(value));
}

TEST(ArrayInMessage, IsTheSameObject) {
  Array<int> array{1, 2, 3};
  auto came = round_trip(array);
  came[1] = 20;
  EXPECT_THAT(array, ElementsAre(1, 20, 3));
  const auto held = came.lock();
  EXPECT_THROW((void)array.lock(now), TimeoutError);
  auto pair = round_trip(std::pair<Array<int>, std::string>(array, "x"));
  pair.first[0] = 10;
  EXPECT_EQ(array[0], 10);
  EXPECT_EQ(pair.first.size(), 3u);
}

TEST(ArrayInMessage, OfAnotherTypeOrGone) {
  std::vector<std::byte> message;
  {
    const Array<int> array(3);
    message = shoal::codec::to_bytes(array);
    EXPECT_THROW((void)shoal::codec::from_bytes<Array<float>>(message),
                 TypeMismatch);
    EXPECT_EQ(shoal::codec::from_bytes<Array<int>>(message).size(), 3u);
  }
  EXPECT_THROW((void)shoal::codec::from_bytes<Array<int>>(message),
               shoal::Error);
}

// ---- nothing is left ----

TEST(ArrayCycles, LeaveNothing) {
  const Name name("array");
  const auto use = [](Array<int> array) {
    const auto held = array.lock();
    array.back() = 1;
  };
  use(Array<int>(1));
  const auto before = shoal::support::belongings();
  for (int i = 0; i < 1000; ++i) {
    use(Array<int>(1000));
    use(Array<int>{1, 2, 3});
    use(Array<int>(1 << 20, {.reserve = false}));
    use(Array<int>::create(name, 1000));
    use(Array<int>::open(name));
    EXPECT_TRUE(shoal::unlink(name));
    EXPECT_THROW((void)Array<int>::open(name), std::system_error);
  }
  EXPECT_THAT(shoal::support::belongings(), testing::ContainerEq(before));
  const Array<int> kept(1);  // the control: it would be seen
  EXPECT_GT(shoal::support::belongings().size(), before.size());
}

}  // namespace
