// partial() and by_value() as tasks.

#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shoal/ipc/partial.h"
#include "shoal/ipc/queue.h"
#include "shoal/pool/pool.h"

namespace shoal {
namespace {

using testing::ElementsAre;

std::string joined(const std::string& a, std::string b, int n) {
  return a + b + std::to_string(n);
}
struct Scale {
  int factor;
  int times(int n) const { return factor * n; }
};

static_assert(call::kCallableTravels<Partial<int (*)(int), int>>);
static_assert(
    call::kCallableTravels<Partial<int (*)(int), std::vector<std::string>>>);
static_assert(!call::kCallableTravels<Partial<int (*)(int), const char*>>);
static_assert(std::is_same_v<
              decltype(partial(joined, "a")),
              Partial<std::string (*)(const std::string&, std::string, int),
                      std::string>>);

TEST(PoolPartial, GoesInFront) {
  Pool pool(2);
  EXPECT_EQ(pool.apply(partial(joined, "a", "b"), 3), "ab3");
  EXPECT_EQ(pool.apply(partial(partial(joined, "a"), "b", 4)), "ab4");
  EXPECT_EQ(pool.apply(partial(&Scale::times, Scale{5}), 6), 30);
  EXPECT_THAT(pool.map(partial(joined, "x", "y"), {1, 2, 3}, 3),
              ElementsAre("xy1", "xy2", "xy3"));
  EXPECT_THAT(pool.starmap(partial(joined, "x"),
                           std::vector<std::tuple<std::string, int>>{{"y", 1},
                                                                     {"z", 2}}),
              ElementsAre("xy1", "xz2"));
}

TEST(PoolPartial, OfALambdaAndWhatOnlyMoves) {
  Pool pool(1);
  const auto sum = [](const std::unique_ptr<int>& p, auto n) { return *p + n; };
  EXPECT_EQ(pool.apply(partial(sum, std::make_unique<int>(4)), 5), 9);
}

TEST(PoolPartial, CarriesHandles) {
  Queue<int> queue(8);
  Pool pool(1);
  pool.map(partial([](Queue<int>& q, int n) { q.put(n); }, queue), {1, 2, 3},
           3);
  EXPECT_EQ(queue.get() + queue.get() + queue.get(), 6);
}

struct Base {
  int a;
};
struct Derived : Base {
  int b;
};

TEST(PoolByValue, LiftsTheRuleOfLayout) {
  Derived derived;
  derived.a = 1;
  derived.b = 2;
  const auto closure = [derived](int n) {
    return derived.a + 10 * derived.b + n;
  };
  static_assert(!call::kCallableTravels<decltype(closure)>);
  Pool pool(1);
  EXPECT_EQ(pool.apply(by_value(closure), 100), 121);
  EXPECT_THAT(pool.map(by_value(closure), {0, 1}), ElementsAre(21, 22));
  EXPECT_EQ(pool.apply(partial(by_value(closure), 7)), 28);
}

TEST(PartialCalls, GiveBoundArgumentsForGoodOnlyToTheLast) {
  auto f = partial([](std::unique_ptr<int> p) { return p; },
                   std::make_unique<int>(4));
  static_assert(!std::is_invocable_v<decltype(f)&>);
  EXPECT_EQ(*std::move(f)(), 4);
}

}  // namespace
}  // namespace shoal
