// Value<T> in one process: against a plain T, by types, names and errors.

#include "shoal/shared/value.h"

#include <sys/stat.h>

#include <array>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <future>
#include <limits>
#include <map>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "shoal/ipc/codec.h"
#include "shoal/ipc/lock.h"
#include "tests/support/child.h"
#include "tests/support/name.h"
#include "tests/support/thread.h"

namespace {

using shoal::Access;
using shoal::LockFreeValue;
using shoal::now;
using shoal::TimeoutError;
using shoal::TypeMismatch;
using shoal::Value;
using shoal::support::Name;
using shoal::support::Thread;
using std::chrono::milliseconds;
using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

// ---- types ----

enum Plain { kLow, kHigh = 70000 };
enum class Colour : std::uint8_t { red, green };
struct Three {
  char c[3];
  bool operator==(const Three& other) const {
    return std::memcmp(c, other.c, sizeof c) == 0;
  }
};
struct Pair {
  int a;
  int b;
  bool operator==(const Pair&) const = default;
};
struct Padded {
  char c;
  int n;
  bool operator==(const Padded&) const = default;
};
struct Odd {  // of 4 words, the last one not full
  char c[25];
  bool operator==(const Odd& other) const {
    return std::memcmp(c, other.c, sizeof c) == 0;
  }
};
struct LongPadded {
  std::int64_t a;
  char b;
  double c;
  bool operator==(const LongPadded&) const = default;
};
struct alignas(8) WideAligned {
  char c;
  bool operator==(const WideAligned&) const = default;
};
struct alignas(256) OverAligned {
  int n;
  bool operator==(const OverAligned&) const = default;
};
struct WithDefaults {
  int a = 17;
  double b = 0.5;
};
struct WithConst {
  const int a;
  int b;
  bool operator==(const WithConst&) const = default;
};
class Point {  // no default constructor, private members
 public:
  Point(int x, int y) : x_(x), y_(y) {}
  bool operator==(const Point&) const = default;

 private:
  int x_;
  int y_;
};
class Vertex {  // the same, larger
 public:
  Vertex(double x, double y, double z) : x_(x), y_(y), z_(z) {}
  bool operator==(const Vertex&) const = default;

 private:
  double x_, y_, z_;
};
static_assert(!std::is_default_constructible_v<Point>);
static_assert(!std::is_default_constructible_v<Value<Point>>);
static_assert(std::is_default_constructible_v<Value<int>>);

template <std::size_t kSize>
std::array<std::byte, kSize> bytes(unsigned char byte) {
  std::array<std::byte, kSize> made;
  made.fill(std::byte{byte});
  return made;
}

// What all T have in common, for two values that differ.
template <class T>
void behaves(const T& a, const T& b) {
  Value<T> value(a);
  EXPECT_TRUE(value.get() == a);
  EXPECT_TRUE(static_cast<T>(value) == a);
  value.set(b);
  EXPECT_TRUE(value.get() == b);
  value = a;
  EXPECT_TRUE(value.get() == a);

  EXPECT_TRUE(value.exchange(b) == a);
  EXPECT_TRUE(value.get() == b);

  // As two variables: T need not be assignable.
  T expected = a;
  EXPECT_FALSE(value.compare_exchange(expected, a));
  EXPECT_TRUE(expected == b);
  EXPECT_TRUE(value.get() == b);
  EXPECT_TRUE(value.compare_exchange(expected, a));
  EXPECT_TRUE(value.get() == a);

  int calls = 0;
  const T updated = value.update([&](T found) {
    EXPECT_TRUE(found == a);
    ++calls;
    return b;
  });
  EXPECT_TRUE(updated == b);
  EXPECT_EQ(calls, 1);
  EXPECT_TRUE(value.get() == b);
  {
    auto held = value.lock();
    EXPECT_TRUE(*held == b);
  }
  EXPECT_TRUE(value.get() == b);
  if constexpr (std::is_copy_assignable_v<T>) {
    {
      auto held = value.lock();
      *held = a;
      EXPECT_TRUE(value.get() == b);
    }
    EXPECT_TRUE(value.get() == a);
  }

  const Name name("behaves");
  auto named = Value<T>::create(name, b);
  EXPECT_TRUE(Value<T>::open(name).get() == b);
}

TEST(ValueOf, Booleans) { behaves(false, true); }

TEST(ValueOf, Integers) {
  behaves('x', 'y');
  behaves<std::int8_t>(-128, 127);
  behaves<std::uint16_t>(0, 65535);
  behaves(std::numeric_limits<int>::min(), 5);
  behaves(std::uint32_t{7}, std::uint32_t{8});
  behaves(std::numeric_limits<std::int64_t>::min(), std::int64_t{-1});
  behaves(std::uint64_t{1} << 63, std::uint64_t{0});
  behaves(L'a', L'b');
  behaves(u'a', u'b');
}

TEST(ValueOf, FloatingPoint) {
  behaves(1.5f, -2.25f);
  behaves(0.0, 1e300);
  behaves(1.5L, -1e4000L);
  behaves(0.0, std::numeric_limits<double>::infinity());
}

TEST(ValueOf, Enumerations) {
  behaves(kLow, kHigh);
  behaves(Colour::red, Colour::green);
  behaves(std::byte{1}, std::byte{255});
}

TEST(ValueOf, SmallStructs) {
  behaves(Pair{1, 2}, Pair{3, 4});
  behaves(Three{{'a', 'b', 'c'}}, Three{{'a', 'b', 'd'}});
  behaves(Padded{'a', 1}, Padded{'a', 2});
  behaves(Point(1, 2), Point(1, 3));
  behaves(WithConst{1, 2}, WithConst{3, 4});
  behaves(WideAligned{'a'}, WideAligned{'b'});
  behaves(std::optional<int>(), std::optional<int>(4));
  behaves(std::chrono::nanoseconds(1), std::chrono::nanoseconds(2));
}

TEST(ValueOf, StructsOfEverySizeUpTo40) {
  [&]<std::size_t... kSizes>(std::index_sequence<kSizes...>) {
    (behaves(bytes<kSizes + 1>(0x11), bytes<kSizes + 1>(0xEE)), ...);
  }
  (std::make_index_sequence<40>{});
}

TEST(ValueOf, LargeStructs) {
  behaves(Odd{"first"}, Odd{"twenty-four characters.."});
  behaves(LongPadded{1, 'b', 0.5}, LongPadded{1, 'b', 0.25});
  behaves(Vertex(1, 2, 3), Vertex(1, 2, 4));
  behaves(bytes<64>(1), bytes<64>(2));
  behaves(bytes<4096>(1), bytes<4096>(2));
  behaves(bytes<4099>(1), bytes<4099>(2));
  behaves(bytes<256 << 10>(1), bytes<256 << 10>(2));
}

TEST(ValueOf, OverAlignedStructs) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "g++ 12 misaligns locals on AddressSanitizer's stack";
#endif
  behaves(OverAligned{1}, OverAligned{2});
  struct alignas(4096) Page {
    char bytes[4096];
  };
  Value<Page> value;
  const Page page = value.get();
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(&page) % 4096, 0u);
  auto held = value.lock();
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(&*held) % 4096, 0u);
}

TEST(ValueOf, EmptyClass) {
  struct Nothing {};
  Value<Nothing> value;
  value.set({});
  Nothing expected;
  EXPECT_TRUE(value.compare_exchange(expected, {}));
  (void)value.get();
}

// "Lock-free where std::atomic<T> is."
template <class T>
constexpr bool kAsAtomic = LockFreeValue<T> ==
                           (std::atomic<T>::is_always_lock_free &&
                            sizeof(T) <= 8);
static_assert(kAsAtomic<bool> && kAsAtomic<char> && kAsAtomic<int> &&
              kAsAtomic<std::uint64_t> && kAsAtomic<float> &&
              kAsAtomic<double> && kAsAtomic<Colour> && kAsAtomic<Pair> &&
              kAsAtomic<Padded> && kAsAtomic<Point>);
static_assert(LockFreeValue<int> && LockFreeValue<double> &&
              LockFreeValue<Pair> && LockFreeValue<Padded>);
static_assert(!LockFreeValue<Three> && !LockFreeValue<long double> &&
              !LockFreeValue<std::array<int, 4>>);

TEST(ValueOf, WhatCannotLiveInSharedMemoryIsRefused) {
  static_assert(shoal::Shareable<Vertex> && shoal::Shareable<WithConst>);
  static_assert(!shoal::Shareable<std::string>);
  static_assert(!shoal::Shareable<int*>);
  static_assert(!shoal::Shareable<std::vector<int>>);
  static_assert(!shoal::Shareable<const int>);
  struct Linked {
    int value;
    Linked* next;
  };
  static_assert(!shoal::Shareable<Linked>);
  static_assert(!shoal::Shareable<Value<int>>);
}

// ---- the model: a variable ----

template <class T>
class ValueModel : public testing::Test {};

struct Counters {  // counts like a number and takes 48 bytes
  std::array<std::int64_t, 6> all;
  Counters() : Counters(0) {}
  explicit Counters(std::int64_t n) { all.fill(n); }
  bool operator==(const Counters&) const = default;
  Counters operator+(int n) const { return Counters(all[0] + n); }
};

using Models =
    testing::Types<std::int64_t, std::uint8_t, double, long double, Counters>;
TYPED_TEST_SUITE(ValueModel, Models);

TYPED_TEST(ValueModel, RandomOperationsAgree) {
  using T = TypeParam;
  std::minstd_rand random(1);
  const auto draw = [&](int n) { return static_cast<int>(random() % n); };
  T model{};
  Value<T> value;
  Value<T> other = value;  // used in turn with it
  for (int round = 0; round < 20'000; ++round) {
    Value<T>& handle = draw(2) == 0 ? value : other;
    const T drawn(static_cast<T>(draw(4)));
    switch (draw(7)) {
      case 0:
        handle.set(drawn);
        model = drawn;
        break;
      case 1:
        ASSERT_EQ(handle.exchange(drawn), model);
        model = drawn;
        break;
      case 2: {
        T expected(static_cast<T>(draw(4)));
        const bool same = expected == model;
        ASSERT_EQ(handle.compare_exchange(expected, drawn), same);
        ASSERT_EQ(expected, model);  // as it was, or as was found
        if (same) model = drawn;
        break;
      }
      case 3:
        model = static_cast<T>(model + 1);
        ASSERT_EQ(handle.update([](T v) { return static_cast<T>(v + 1); }),
                  model);
        break;
      case 4: {
        auto held = handle.lock();
        ASSERT_EQ(*held, model);
        model = *held = drawn;
        break;
      }
      case 5:
        if constexpr (shoal::Arithmetic<T>) {
          ASSERT_EQ(handle.fetch_add(drawn), model);
          model = static_cast<T>(model + drawn);
        }
        break;
      case 6:
        if constexpr (shoal::Arithmetic<T>) {
          ASSERT_EQ(handle.fetch_sub(drawn), model);
          model = static_cast<T>(model - drawn);
        }
        break;
    }
    ASSERT_EQ(handle.get(), model) << "round " << round;
  }
}

// ---- construction, conversion, handles ----

TEST(Value, StartsAsT) {
  EXPECT_EQ(Value<int>().get(), 0);
  EXPECT_EQ(Value<double>().get(), 0.0);
  EXPECT_EQ(Value<bool>().get(), false);
  EXPECT_EQ(Value<WithDefaults>().get().a, 17);
  EXPECT_EQ(Value<WithDefaults>().get().b, 0.5);
  EXPECT_EQ((Value<std::array<int, 50>>().get()), (std::array<int, 50>{}));
  EXPECT_EQ(Value<int>(5).get(), 5);
  static_assert(!std::is_convertible_v<int, Value<int>>);  // explicit
}

TEST(Value, ConvertsToT) {
  Value<int> value;
  int x = value;
  EXPECT_EQ(x, 0);
  value = 41;
  x = value + 1;
  EXPECT_EQ(x, 42);
  const Value<int> constant = value;
  EXPECT_EQ(constant + 0, 41);
  EXPECT_TRUE(constant == 41);
}

TEST(Value, CopyIsTheSameObjectAndAssignmentOfTStores) {
  Value<int> a(1);
  Value<int> b = a;
  b = 2;
  EXPECT_EQ(a.get(), 2);
  Value<int> c(3);
  c = a;  // the handle, not the value
  c = 4;
  EXPECT_EQ(a.get(), 4);
  EXPECT_EQ(b.get(), 4);
  const Value<int> d = std::move(c);
  c = 5;  // a moved handle stays good
  EXPECT_EQ(d.get(), 5);
}

TEST(Value, ObjectsAreApart) {
  Value<int> a(1);
  Value<int> b(1);
  a = 2;
  EXPECT_EQ(b.get(), 1);
}

TEST(Value, OutlivesTheHandleThatMadeIt) {
  std::optional<Value<int>> first(std::in_place, 6);
  Value<int> second = *first;
  first.reset();
  EXPECT_EQ(second.fetch_add(1), 6);
  EXPECT_EQ(second.get(), 7);
}

// ---- arithmetic ----

template <class T>
void wraps() {
  constexpr T kMost = std::numeric_limits<T>::max();
  constexpr T kLeast = std::numeric_limits<T>::min();
  Value<T> value(kMost);
  EXPECT_EQ(value.fetch_add(1), kMost);
  EXPECT_EQ(value.get(), kLeast);
  EXPECT_EQ(value.fetch_sub(1), kLeast);
  EXPECT_EQ(value.get(), kMost);
}

TEST(ValueArithmetic, WrapsAsAtomicsDo) {
  wraps<std::int8_t>();
  wraps<std::uint8_t>();
  wraps<std::int16_t>();
  wraps<int>();
  wraps<unsigned>();
  wraps<std::int64_t>();
  wraps<std::uint64_t>();
}

TEST(ValueArithmetic, GivesTheValueBefore) {
  Value<int> value(10);
  EXPECT_EQ(value.fetch_add(-3), 10);
  EXPECT_EQ(value.fetch_sub(-1), 7);
  EXPECT_EQ(value.get(), 8);
  Value<float> small(1.5f);
  EXPECT_EQ(small.fetch_add(0.25f), 1.5f);
  EXPECT_EQ(small.fetch_sub(1.0f), 1.75f);
  EXPECT_EQ(small.get(), 0.75f);
  Value<long double> wide(1.0L);
  EXPECT_EQ(wide.fetch_add(2), 1.0L);
  EXPECT_EQ(wide.fetch_sub(0.5L), 3.0L);
  EXPECT_EQ(wide.get(), 2.5L);
}

template <class T>
concept Adds = requires(Value<T> value, T amount) {
  value.fetch_add(amount);
};
static_assert(Adds<int> && Adds<char> && Adds<double> && Adds<long double>);
static_assert(!Adds<bool> && !Adds<Pair> && !Adds<Colour>);

// ---- compare_exchange ----

TEST(ValueCompare, ComparesBytes) {
  Value<double> value(0.0);
  double expected = -0.0;
  EXPECT_FALSE(value.compare_exchange(expected, 1));
  EXPECT_FALSE(std::signbit(expected));
  EXPECT_TRUE(value.compare_exchange(expected, std::nan("")));
  expected = std::nan("");
  EXPECT_TRUE(value.compare_exchange(expected, 2));
  EXPECT_EQ(value.get(), 2);
}

template <class T>
T with_padding(const T& value, int byte) {
  T made;
  std::memset(static_cast<void*>(&made), byte, sizeof made);
  made = value;
  return made;
}

// With whatever lies in the padding it ends, and without another store in
// between a second try succeeds.
TEST(ValueCompare, PaddingIsNoObstacle) {
  for (const int dirt : {0x00, 0xAA, 0xFF}) {
    Value<Padded> value(with_padding(Padded{'a', 1}, dirt));
    Padded expected = with_padding(Padded{'a', 1}, 0x55);
    EXPECT_TRUE(value.compare_exchange(expected, {'b', 2}) ||
                value.compare_exchange(expected, {'b', 2}));
    EXPECT_EQ(value.get(), (Padded{'b', 2}));
    Value<LongPadded> large(with_padding(LongPadded{1, 'a', 2}, dirt));
    LongPadded wanted = with_padding(LongPadded{1, 'a', 2}, 0x55);
    EXPECT_TRUE(large.compare_exchange(wanted, {3, 'b', 4}) ||
                large.compare_exchange(wanted, {3, 'b', 4}));
    EXPECT_EQ(large.get(), (LongPadded{3, 'b', 4}));
  }
}

// ---- update ----

TEST(ValueUpdate, IsCalledAgainAfterAStoreInBetween) {
  Value<int> value(1);
  std::vector<int> found;
  const int result = value.update([&](int n) {
    found.push_back(n);
    if (found.size() == 1) value.set(10);  // takes no lock
    return n + 1;
  });
  EXPECT_THAT(found, testing::ElementsAre(1, 10));
  EXPECT_EQ(result, 11);
  EXPECT_EQ(value.get(), 11);
}

template <class T>
void is_left_alone_by_a_throwing_update(const T& start) {
  Value<T> value(start);
  EXPECT_THROW(value.update([](T) -> T { throw std::runtime_error("no"); }),
               std::runtime_error);
  EXPECT_EQ(value.get(), start);
  auto held = value.lock(now);  // it has let go
}

TEST(ValueUpdate, WhatThrowsChangesNothing) {
  is_left_alone_by_a_throwing_update(7);
  is_left_alone_by_a_throwing_update(Counters(7));
}

template <class T>
void refuses_to_wait_for_itself(T start) {
  Value<T> value(start);
  EXPECT_THROW(value.update([&](T) {
    return value.update([](T inner) { return inner; });
  }),
               std::logic_error);
  EXPECT_EQ(value.get(), start);
  auto held = value.lock();
  EXPECT_THROW((void)value.update([](T v) { return v; }), std::logic_error);
  EXPECT_THROW((void)value.lock(), std::logic_error);
  EXPECT_THROW((void)value.lock(now), TimeoutError);
}

TEST(ValueUpdate, RefusesToWaitForItself) {
  refuses_to_wait_for_itself(1);
  refuses_to_wait_for_itself(Counters(1));
}

// ---- lock ----

TEST(ValueLock, PublishesAtItsEndAndWhole) {
  Value<Pair> small(Pair{1, 1});
  {
    auto held = small.lock();
    held->a = 2;
    EXPECT_EQ(small.get(), (Pair{1, 1}));
    held->b = 2;
    EXPECT_EQ(small.get(), (Pair{1, 1}));
  }
  EXPECT_EQ(small.get(), (Pair{2, 2}));
  Value<Counters> large(Counters(1));
  {
    auto held = large.lock();
    held->all[5] = 2;
    EXPECT_EQ(large.get(), Counters(1));
  }
  EXPECT_EQ(large.get().all[5], 2);
  EXPECT_EQ(large.get().all[4], 1);
}

TEST(ValueLock, OfATemporary) {
  Value<int> value(1);
  *value.lock() += 1;
  EXPECT_EQ(value.get(), 2);
}

TEST(ValueLock, UnlockEndsIt) {
  Value<int> value(1);
  auto held = value.lock();
  *held = 2;
  held.unlock();
  EXPECT_EQ(value.get(), 2);
  EXPECT_THROW(held.unlock(), std::logic_error);
  *value.lock(now) += 1;  // free
  value = 9;              // no store "in between" any more
}

TEST(ValueLock, MovesWithItsChange) {
  Value<Counters> value(Counters(1));
  {
    auto held = value.lock();
    held->all[0] = 7;
    const auto moved = std::move(held);
    EXPECT_THROW((void)value.lock(now), TimeoutError);
  }
  EXPECT_EQ(value.get().all[0], 7);
  (void)value.lock(now);
}

TEST(ValueLock, OutlivesItsHandle) {
  Value<int> value(1);
  {
    std::optional<Value<int>> handle(value);
    auto held = handle->lock();
    handle.reset();
    *held = 5;
  }
  EXPECT_EQ(value.get(), 5);
}

// The padding of T says nothing about a store in between.
TEST(ValueLock, PaddingIsNoStoreInBetween) {
  for (const int dirt : {0x00, 0xAA, 0xFF}) {
    Value<Padded> value(with_padding(Padded{'a', 1}, dirt));
    EXPECT_NO_THROW(value.lock()->n = 2);
    value.set(with_padding(Padded{'b', 1}, dirt));
    EXPECT_NO_THROW({
      auto held = value.lock();
      const auto moved = std::move(held);
    });
    EXPECT_NO_THROW(value.lock()->n = 3);
    EXPECT_EQ(value.get(), (Padded{'b', 3}));
  }
}

void is_overtaken_by(const std::function<void(Value<int>&)>& store,
                     int stored) {
  Value<int> value(1);
  const auto change = [&] {
    auto held = value.lock();
    *held = 100;
    store(value);
    EXPECT_EQ(value.get(), stored);
  };
  EXPECT_THAT(change, ThrowsMessage<std::logic_error>(
                          AllOf(HasSubstr("a store to the Value came in"),
                                HasSubstr("update()"))));
  EXPECT_EQ(value.get(), stored);
  (void)value.lock(now);  // it has let go all the same
}

TEST(ValueLock, StoreInBetweenIsDetectedAndStands) {
  is_overtaken_by([](Value<int>& value) { value.set(5); }, 5);
  is_overtaken_by([](Value<int>& value) { value = 6; }, 6);
  is_overtaken_by([](Value<int>& value) { (void)value.exchange(7); }, 7);
  is_overtaken_by([](Value<int>& value) { (void)value.fetch_add(7); }, 8);
  is_overtaken_by([](Value<int>& value) { (void)value.fetch_sub(1); }, 0);
  is_overtaken_by(
      [](Value<int>& value) {
        int expected = 1;
        EXPECT_TRUE(value.compare_exchange(expected, 9));
      },
      9);
}

TEST(ValueLock, StoreInBetweenIsDetectedByUnlock) {
  Value<double> value(1);
  auto held = value.lock();
  value = 2;
  EXPECT_THROW(held.unlock(), std::logic_error);
  EXPECT_EQ(value.get(), 2);
}  // and not a second time

TEST(ValueLock, AnErrorInFlightIsNotReplaced) {
  Value<int> value(1);
  const auto fail = [&](bool store) {
    auto held = value.lock();
    *held = 2;
    if (store) value.set(3);
    throw std::runtime_error("the program's own");
  };
  EXPECT_THAT([&] { fail(true); },
              ThrowsMessage<std::runtime_error>("the program's own"));
  EXPECT_EQ(value.get(), 3);
  EXPECT_THAT([&] { fail(false); },
              ThrowsMessage<std::runtime_error>("the program's own"));
  EXPECT_EQ(value.get(), 2);  // published at its end, however it came
  (void)value.lock(now);
}

// A destructor that runs because of an error is no error in flight for a
// Locked that it makes.
TEST(ValueLock, DetectsAStoreInBetweenWithinADestructor) {
  Value<int> value(1);
  bool detected = false;
  struct Cleanup {
    Value<int>& value;
    bool& detected;
    ~Cleanup() {
      try {
        auto held = value.lock();
        value.set(2);
      } catch (const std::logic_error&) {
        detected = true;
      }
    }
  };
  const auto fail = [&] {
    const Cleanup cleanup{value, detected};
    throw std::runtime_error("no");
  };
  EXPECT_THROW(fail(), std::runtime_error);
  EXPECT_TRUE(detected);
}

TEST(ValueLock, LargeValuesAreStoredUnderTheLock) {
  Value<Counters> value(Counters(1));
  auto held = value.lock();
  EXPECT_THROW(value.set(Counters(2)), std::logic_error);
  EXPECT_THROW((void)value.exchange(Counters(2)), std::logic_error);
  Counters expected(1);
  EXPECT_THROW((void)value.compare_exchange(expected, Counters(2)),
               std::logic_error);
  Value<long double> wide;
  const auto wide_held = wide.lock();
  EXPECT_THROW((void)wide.fetch_add(1), std::logic_error);
  EXPECT_THROW((void)wide.fetch_sub(1), std::logic_error);
}

// Each waits for the holder, and acts on what the holder has published.
template <class T>
void waits_for_the_holder(const std::function<void(Value<T>&)>& operation,
                          const T& result) {
  Value<T> value(T(1));
  auto held = value.lock();
  *held = T(10);
  Thread other([&] { operation(value); });
  EXPECT_TRUE(other.falls_asleep());
  EXPECT_EQ(value.get(), T(1));
  held.unlock();
  EXPECT_TRUE(other.ends());
  EXPECT_EQ(value.get(), result);
}

TEST(ValueLock, ExcludesOtherHoldersAndUpdate) {
  const auto update = [](auto& value) {
    value.update([](auto v) { return v + 1; });
  };
  const auto lock = [](auto& value) {
    auto held = value.lock();
    *held = *held + 1;
  };
  waits_for_the_holder<int>(update, 11);
  waits_for_the_holder<int>(lock, 11);
  waits_for_the_holder<Counters>(update, Counters(11));
  waits_for_the_holder<Counters>(lock, Counters(11));
  waits_for_the_holder<Counters>(
      [](Value<Counters>& value) { value.set(Counters(5)); }, Counters(5));
  waits_for_the_holder<Counters>(
      [](Value<Counters>& value) {
        EXPECT_EQ(value.exchange(Counters(5)), Counters(10));
      },
      Counters(5));
  waits_for_the_holder<Counters>(
      [](Value<Counters>& value) {
        Counters expected(10);
        EXPECT_TRUE(value.compare_exchange(expected, Counters(6)));
      },
      Counters(6));
}

TEST(ValueLock, KeepsOutNeitherReadersNorStoresOfLockFreeValues) {
  Value<int> small(1);
  Value<Counters> large(Counters(1));
  const auto small_held = small.lock();
  const auto large_held = large.lock();
  Thread other([&] {
    EXPECT_EQ(small.get(), 1);
    EXPECT_EQ(large.get(), Counters(1));
    small.set(1);  // what was there: no store in between that matters
    EXPECT_EQ(small.exchange(1), 1);
    EXPECT_EQ(small.fetch_add(0), 1);
    EXPECT_EQ(small.fetch_sub(0), 1);
    int expected = 1;
    EXPECT_TRUE(small.compare_exchange(expected, 1));
  });
  EXPECT_TRUE(other.ends());
}

TEST(ValueLock, TimesOut) {
  Value<int> value;
  std::promise<void> locked, enough;
  Thread holder([&] {
    const auto held = value.lock();
    locked.set_value();
    enough.get_future().wait();
  });
  locked.get_future().wait();
  EXPECT_THAT([&] { (void)value.lock(now); },
              ThrowsMessage<TimeoutError>(HasSubstr("Value::lock timed out")));
  EXPECT_THROW((void)value.lock(milliseconds(-5)), TimeoutError);
  const auto start = std::chrono::steady_clock::now();
  EXPECT_THROW((void)value.lock(milliseconds(30)), TimeoutError);
  EXPECT_GE(std::chrono::steady_clock::now() - start, milliseconds(30));
  enough.set_value();
  auto held = value.lock(shoal::support::kPatience);
  *held = 3;
  held.unlock();
  EXPECT_EQ(value.get(), 3);
}

TEST(ValueLock, AnotherThreadCannotUnlockIt) {
  Value<int> value(1);
  auto held = value.lock();
  *held = 2;
  Thread other([&] { EXPECT_THROW(held.unlock(), std::logic_error); });
  EXPECT_TRUE(other.ends());
  EXPECT_EQ(value.get(), 1);
  held.unlock();
  EXPECT_EQ(value.get(), 2);
  value.lock(now).unlock();
}

// A thread that ends while it holds the lock hands it on; its change, which
// nobody has published, is gone.
template <class T>
void is_handed_on_by_a_thread_that_ends() {
  Value<T> value(T(1));
  std::optional<typename Value<T>::Locked> left;
  Thread holder([&] {
    left.emplace(value.lock());
    **left = T(2);
  });
  EXPECT_TRUE(holder.ends());
  auto held = value.lock(shoal::support::kPatience);
  EXPECT_EQ(*held, T(1));
  // The leftover is no holder: it neither publishes nor lets go.
  EXPECT_THROW(left->unlock(), std::logic_error);
  left.reset();
  EXPECT_EQ(value.get(), T(1));
  EXPECT_THROW((void)value.lock(now), TimeoutError);
  *held = T(3);
  held.unlock();
  EXPECT_EQ(value.get(), T(3));
}

TEST(ValueLock, IsHandedOnByAThreadThatEnds) {
  is_handed_on_by_a_thread_that_ends<int>();
  is_handed_on_by_a_thread_that_ends<Counters>();
}

// ---- names ----

TEST(ValueNamed, IsTheSameForAllWhoOpenIt) {
  const Name name("value");
  auto made = Value<Pair>::create(name, Pair{1, 2});
  auto opened = Value<Pair>::open(name);
  EXPECT_EQ(opened.get(), (Pair{1, 2}));
  opened = Pair{3, 4};
  EXPECT_EQ(made.get(), (Pair{3, 4}));
  auto again = Value<Pair>::open_or_create(name, Pair{5, 6});
  EXPECT_EQ(again.get(), (Pair{3, 4}));
  const auto held = made.lock();
  EXPECT_THROW((void)opened.lock(now), TimeoutError);
}

TEST(ValueNamed, TakesAnInitialValueAndAnAccess) {
  const Name plain("a"), initial("b"), access("c"), both("d"), other("e");
  EXPECT_EQ(Value<int>::create(plain).get(), 0);
  EXPECT_EQ(Value<int>::create(initial, 5).get(), 5);
  EXPECT_EQ(Value<int>::create(access, Access{.mode = 0640}).get(), 0);
  EXPECT_EQ(Value<int>::create(both, 5, Access{.mode = 0644}).get(), 5);
  EXPECT_EQ(Value<long>::open_or_create(other, Access{.mode = 0644}, 5).get(),
            5);
  const auto mode = [](const Name& name) {
    struct stat status;
    EXPECT_EQ(stat(name.path().c_str(), &status), 0);
    return status.st_mode & 0777;
  };
  EXPECT_EQ(mode(plain), 0600u);
  EXPECT_EQ(mode(access), 0640u);
  EXPECT_EQ(mode(both), 0644u);
  EXPECT_EQ(mode(other), 0644u);
}

TEST(ValueNamed, OfATypeWithoutDefaultConstructor) {
  const Name name("vertex"), other("point");
  EXPECT_EQ(Value<Vertex>::create(name, Vertex(1, 2, 3)).get(),
            Vertex(1, 2, 3));
  EXPECT_EQ(Value<Vertex>::open(name).get(), Vertex(1, 2, 3));
  EXPECT_EQ(Value<Point>::open_or_create(other, Point(1, 2)).get(),
            Point(1, 2));
}

auto has_code(std::errc code) {
  return testing::Property(&std::system_error::code,
                           testing::Eq(std::make_error_code(code)));
}

TEST(ValueNamed, NamesThatExistOrDoNot) {
  const Name name("value");
  EXPECT_THAT([&] { (void)Value<int>::open(name); },
              testing::Throws<std::system_error>(
                  AllOf(has_code(std::errc::no_such_file_or_directory),
                        testing::Property(&std::system_error::what,
                                          HasSubstr(name.path())))));
  const auto made = Value<int>::create(name, 1);
  EXPECT_THAT(
      [&] { (void)Value<int>::create(name, 2); },
      testing::Throws<std::system_error>(has_code(std::errc::file_exists)));
  EXPECT_EQ(made.get(), 1);
  EXPECT_TRUE(shoal::unlink(name));
  EXPECT_FALSE(shoal::unlink(name));
  EXPECT_EQ(made.get(), 1);  // lives on for those who have it
  const auto next = Value<int>::create(name, 3);
  EXPECT_EQ(made.get(), 1);
  EXPECT_THROW((void)Value<int>::open("a/b"), std::invalid_argument);
  EXPECT_THROW((void)Value<int>::create("", 1), std::invalid_argument);
  EXPECT_THROW((void)Value<int>::create(std::string(201, 'x'), 1),
               std::invalid_argument);
}

TEST(ValueNamed, OtherTypesAreRefusedAndBothPrinted) {
  const Name name("value");
  const auto made = Value<LongPadded>::create(name);
  EXPECT_THAT(
      [&] { (void)Value<Vertex>::open(name); },
      ThrowsMessage<TypeMismatch>(AllOf(
          HasSubstr(name.path()), HasSubstr("Vertex"), HasSubstr("LongPadded"),
          HasSubstr("8 char"), HasSubstr("16 double"))));
  EXPECT_THAT([&] { (void)Value<int>::open_or_create(name, 1); },
              ThrowsMessage<TypeMismatch>(
                  AllOf(HasSubstr("LongPadded"), HasSubstr("int (4 bytes"))));
  EXPECT_THAT([&] { (void)shoal::Lock::open(name); },
              ThrowsMessage<TypeMismatch>(
                  AllOf(HasSubstr("Value"), HasSubstr("Lock"))));
  const Name lock_name("lock");
  const auto lock = shoal::Lock::create(lock_name);
  EXPECT_THROW((void)Value<int>::open(lock_name), TypeMismatch);
  const Name foreign("foreign");
  std::ofstream(foreign.path()) << std::string(1 << 20, 'x');
  EXPECT_THROW((void)Value<int>::open(foreign), TypeMismatch);
}

template <class T>
void is_readable_only(const T& first, const T& second) {
  const Name name("value");
  auto made = Value<T>::create(name, first);
  auto reader = Value<T>::open(name, Access{.read_only = true});
  EXPECT_EQ(reader.get(), first);
  EXPECT_EQ(static_cast<T>(reader), first);
  const auto refused = [&](const char* what, auto&& operation) {
    EXPECT_THAT(operation, ThrowsMessage<std::logic_error>(AllOf(
                               HasSubstr(name.path()), HasSubstr("read-only"))))
        << what;
    EXPECT_EQ(made.get(), first) << what;
  };
  T expected = first;
  refused("set", [&] { reader.set(second); });
  refused("=", [&] { reader = second; });
  refused("exchange", [&] { (void)reader.exchange(second); });
  refused("compare", [&] { (void)reader.compare_exchange(expected, second); });
  refused("update", [&] { (void)reader.update([&](T) { return second; }); });
  refused("lock", [&] { (void)reader.lock(); });
  refused("lock", [&] { (void)reader.lock(now); });
  if constexpr (shoal::Arithmetic<T>) {
    refused("add", [&] { (void)reader.fetch_add(second); });
    refused("sub", [&] { (void)reader.fetch_sub(second); });
  }
  made = second;
  EXPECT_EQ(reader.get(), second);  // follows the writers
  const auto held = made.lock();
  EXPECT_EQ(reader.get(), second);
}

TEST(ValueNamed, ReadOnly) {
  is_readable_only(1, 2);
  is_readable_only(1.5, 2.5);
  is_readable_only(1.5L, 2.5L);
  is_readable_only(Counters(1), Counters(2));
}

// ---- in messages ----

static_assert(shoal::Message<Value<int>> && shoal::Message<Value<Counters>>);
static_assert(shoal::Message<std::map<std::string, Value<double>>>);

template <class T>
T round_trip(const T& value) {
  return shoal::codec::from_bytes<T>(shoal::codec::to_bytes(value));
}

TEST(ValueInMessage, IsTheSameObject) {
  Value<int> small(1);
  round_trip(small) = 2;
  EXPECT_EQ(small.get(), 2);
  Value<Counters> large(Counters(1));
  auto came = round_trip(large);
  came = Counters(3);
  EXPECT_EQ(large.get(), Counters(3));
  const auto held = came.lock();
  EXPECT_THROW((void)large.lock(now), TimeoutError);
  const Name name("value");
  auto named = Value<int>::create(name, 4);
  round_trip(named) = 5;
  EXPECT_EQ(Value<int>::open(name).get(), 5);
}

TEST(ValueInMessage, WithinContainers) {
  Value<int> a(1), b(2);
  auto came = round_trip(std::vector<Value<int>>{a, b, a});
  came.at(1) = 7;
  came.at(2) = 8;
  EXPECT_EQ(b.get(), 7);
  EXPECT_EQ(a.get(), 8);
  EXPECT_EQ(came.at(0).get(), 8);
}

TEST(ValueInMessage, OfAnotherTypeOrGone) {
  std::vector<std::byte> message;
  {
    const Value<int> value(1);
    message = shoal::codec::to_bytes(value);
    EXPECT_THROW((void)shoal::codec::from_bytes<Value<float>>(message),
                 TypeMismatch);
    EXPECT_EQ(shoal::codec::from_bytes<Value<int>>(message).get(), 1);
  }
  EXPECT_THROW((void)shoal::codec::from_bytes<Value<int>>(message),
               shoal::Error);
}

// ---- nothing is left ----

TEST(ValueCycles, LeaveNothing) {
  const Name name("value");
  const auto use = [](auto value) {
    *value.lock() = value.get();
    return value;
  };
  use(Value<int>());
  const auto before = shoal::support::belongings();
  for (int i = 0; i < 1000; ++i) {
    use(Value<int>(i));
    use(Value<Counters>(Counters(i)));
    use(Value<int>::create(name, i));
    use(Value<int>::open(name, Access()));
    EXPECT_TRUE(shoal::unlink(name));
    EXPECT_THROW((void)Value<int>::open(name), std::system_error);
  }
  EXPECT_THAT(shoal::support::belongings(), testing::ContainerEq(before));
  const Value<int> kept;  // the control: it would be seen
  EXPECT_GT(shoal::support::belongings().size(), before.size());
}

}  // namespace
