// Value<T> under many threads: nobody sees half a value, no change is lost.

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <latch>
#include <stdexcept>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "shoal/shared/value.h"
#include "tests/support/child.h"
#include "tests/support/name.h"

namespace {

using shoal::Deadline;
using shoal::Value;
using shoal::support::kPatience;
using shoal::support::Name;

// Runs them all at once.
void together(const std::vector<std::function<void()>>& bodies) {
  std::latch start(static_cast<std::ptrdiff_t>(bodies.size()));
  std::vector<std::thread> threads;
  for (const auto& body : bodies)
    threads.emplace_back([&start, &body] {
      start.arrive_and_wait();
      body();
    });
  for (std::thread& thread : threads) thread.join();
}

std::vector<std::function<void()>> times(int n,
                                         const std::function<void()>& body) {
  return std::vector<std::function<void()>>(static_cast<std::size_t>(n), body);
}

// All of its fields say the same.
template <std::size_t kSize>
struct Uniform {
  std::array<std::uint32_t, kSize / 4> fields;

  Uniform() : Uniform(0) {}
  explicit Uniform(std::uint32_t n) { fields.fill(n); }
  bool whole() const {
    return std::all_of(fields.begin(), fields.end(),
                       [this](std::uint32_t n) { return n == fields[0]; });
  }
  std::uint32_t number() const { return fields[0]; }
};

template <class T>
class ValueStress : public testing::Test {};
// Lock-free; 4 buffers, of one line, of several, and with a last word that is
// not full.
using Sizes = testing::Types<Uniform<8>, Uniform<24>, Uniform<64>, Uniform<100>,
                             Uniform<4096>>;
TYPED_TEST_SUITE(ValueStress, Sizes);

// Readers go on for this long, and until each has seen this many changes.
constexpr std::chrono::milliseconds kWhile{100};
constexpr int kChanges = 10;

// Readers see whole values, and those of each writer in order. Writer w stores
// numbers that are w modulo kWriters, growing.
template <class T>
void readers_see_whole_values(
    std::uint32_t writers,
    const std::function<void(Value<T>&, std::uint32_t)>& write) {
  constexpr int kReaders = 2;
  Value<T> value;
  std::atomic<int> reading = kReaders, torn = 0, backwards = 0;
  const Deadline enough(kWhile), deadline(kPatience);
  auto bodies = times(kReaders, [&] {
    std::vector<std::uint32_t> last(writers);
    std::uint32_t latest = 0;
    int changes = 0;
    while ((changes < kChanges && !deadline.passed()) || !enough.passed()) {
      const T found = value.get();
      torn += !found.whole();
      changes += found.number() != latest;
      latest = found.number();
      std::uint32_t& before = last[latest % writers];
      backwards += latest < before;
      before = latest;
    }
    EXPECT_GE(changes, kChanges) << "the writers have not been seen";
    --reading;
  });
  std::atomic<std::uint32_t> next = 0;
  for (std::uint32_t n = 0; n < writers; ++n)
    bodies.push_back([&] {
      const std::uint32_t me = next++;
      for (std::uint32_t number = me + writers; reading != 0; number += writers)
        write(value, number);
    });
  together(bodies);
  EXPECT_EQ(torn, 0);
  EXPECT_EQ(backwards, 0);
}

TYPED_TEST(ValueStress, SetIsNeverTorn) {
  using T = TypeParam;
  for (const std::uint32_t writers : {1, 2})
    readers_see_whole_values<T>(
        writers, [](Value<T>& value, std::uint32_t n) { value.set(T(n)); });
}

TYPED_TEST(ValueStress, LockIsNeverTorn) {
  using T = TypeParam;
  for (const std::uint32_t writers : {1, 2})
    readers_see_whole_values<T>(writers, [](Value<T>& value, std::uint32_t n) {
      *value.lock() = T(n);
    });
}

TYPED_TEST(ValueStress, UpdateIsNeverTorn) {
  using T = TypeParam;
  for (const std::uint32_t writers : {1, 2})
    readers_see_whole_values<T>(writers, [](Value<T>& value, std::uint32_t n) {
      value.update([n](const T&) { return T(n); });
    });
}

TYPED_TEST(ValueStress, UpdateLosesNothing) {
  Value<TypeParam> value;
  together(times(4, [&] {
    for (int n = 0; n < 2'000; ++n)
      value.update([](TypeParam v) { return TypeParam(v.number() + 1); });
  }));
  EXPECT_EQ(value.get().number(), 8'000u);
  EXPECT_TRUE(value.get().whole());
}

TYPED_TEST(ValueStress, LockUpdateAndCompareLoseNothing) {
  Value<TypeParam> value;
  std::atomic<int> overtaken = 0;
  const auto update = [&] {
    for (int n = 0; n < 2'000; ++n)
      value.update([](TypeParam v) { return TypeParam(v.number() + 1); });
  };
  const auto lock = [&] {
    for (int n = 0; n < 2'000; ++n) {
      auto held = value.lock();
      *held = TypeParam(held->number() + 1);
      try {
        held.unlock();
      } catch (const std::logic_error&) {
        ++overtaken;
        --n;  // it was not written
      }
    }
  };
  const auto compare = [&] {
    for (int n = 0; n < 2'000; ++n) {
      TypeParam expected = value.get();
      while (
          !value.compare_exchange(expected, TypeParam(expected.number() + 1))) {
      }
    }
  };
  together({update, update, lock, lock, compare, compare});
  EXPECT_EQ(value.get().number(), 12'000u);
  EXPECT_TRUE(value.get().whole());
  // The lock keeps all others out of a value that is stored under it.
  if constexpr (!shoal::LockFreeValue<TypeParam>) {
    EXPECT_EQ(overtaken, 0);
  }
}

TYPED_TEST(ValueStress, ExchangeHandsOutEachValueOnce) {
  constexpr int kThreads = 4, kEach = 2'000;
  Value<TypeParam> value;
  std::vector<std::atomic<int>> out(kThreads * kEach + 1);
  std::atomic<std::uint32_t> next = 1;
  together(times(kThreads, [&] {
    for (int n = 0; n < kEach; ++n) {
      const TypeParam before = value.exchange(TypeParam(next++));
      EXPECT_TRUE(before.whole());
      ++out.at(before.number());
    }
  }));
  ++out.at(value.get().number());
  for (std::size_t n = 0; n < out.size(); ++n) ASSERT_EQ(out[n], 1) << n;
}

template <class T>
void fetch_add_loses_nothing() {
  Value<T> value;
  auto bodies = times(3, [&] {
    for (int n = 0; n < 5'000; ++n) value.fetch_add(2);
  });
  bodies.push_back([&] {
    for (int n = 0; n < 5'000; ++n) value.fetch_sub(1);
  });
  together(bodies);
  EXPECT_EQ(value.get(), static_cast<T>(25'000));
}

TEST(ValueStressNumbers, FetchAddLosesNothing) {
  fetch_add_loses_nothing<int>();
  fetch_add_loses_nothing<std::uint16_t>();
  fetch_add_loses_nothing<std::uint8_t>();
  fetch_add_loses_nothing<float>();
  fetch_add_loses_nothing<double>();
  fetch_add_loses_nothing<long double>();
}

// fetch_add takes no lock: what the lockers could not write they are told of.
TEST(ValueStressNumbers, LockersLoseNothingSilently) {
  Value<std::int64_t> value;
  std::atomic<std::int64_t> written = 0, overtaken = 0;
  auto bodies = times(2, [&] {
    for (int n = 0; n < 20'000; ++n) value.fetch_add(1);
  });
  for (int locker = 0; locker < 2; ++locker)
    bodies.push_back([&] {
      for (int n = 0; n < 5'000; ++n) try {
          auto held = value.lock();
          *held += 1'000'000;
          held.unlock();
          ++written;
        } catch (const std::logic_error&) {
          ++overtaken;
        }
    });
  together(bodies);
  EXPECT_EQ(written + overtaken, 10'000);
  EXPECT_EQ(value.get(), 40'000 + written * 1'000'000);
}

// What happened before set() is visible after a get() that found it; under
// TSan, plain memory says whether it is so.
template <class T>
void orders_plain_memory() {
  constexpr std::uint32_t kRounds = 2'000;
  Value<T> flag;
  std::uint32_t plain = 0;
  const auto player = [&](std::uint32_t parity) {
    for (std::uint32_t n = parity; n < kRounds; n += 2) {
      while (flag.get().number() != n) std::this_thread::yield();
      EXPECT_EQ(plain, n);
      plain = n + 1;
      flag.set(T(n + 1));
    }
  };
  together({[&] { player(0); }, [&] { player(1); }});
  EXPECT_EQ(plain, kRounds);
}

TYPED_TEST(ValueStress, SetAndGetOrderPlainMemory) {
  orders_plain_memory<TypeParam>();
}

TYPED_TEST(ValueStress, LockOrdersPlainMemory) {
  Value<TypeParam> value;
  int plain = 0;
  together(times(4, [&] {
    for (int n = 0; n < 1'000; ++n) {
      const auto held = value.lock();
      ++plain;
    }
  }));
  EXPECT_EQ(plain, 4'000);
}

TEST(ValueStressNames, AllWhoOpenOrCreateHaveTheSame) {
  for (int round = 0; round < 50; ++round) {
    const Name name("race");
    together(times(4, [&] {
      auto value = Value<int>::open_or_create(name, 100);
      EXPECT_GE(value.fetch_add(1), 100);
    }));
    EXPECT_EQ(Value<int>::open(name).get(), 104);
  }
}

}  // namespace
