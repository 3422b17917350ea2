// What a Queue<T> carries, and its handles.

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "shoal/ipc/queue.h"
#include "tests/support/residue.h"

namespace {

using shoal::Closed;
using shoal::Loan;
using shoal::now;
using shoal::Queue;
using shoal::Taken;
using shoal::support::residue;
using testing::ElementsAre;

// ---- values ----

struct Order {
  int id;
  double price;
  char symbol[8];
};

class Point {  // no default constructor, private members
 public:
  Point(int x, int y) : x_(x), y_(y) {}
  bool operator==(const Point&) const = default;

 private:
  int x_;
  int y_;
};
static_assert(!std::is_default_constructible_v<Point>);

struct WithDefaults {
  int a = 17;
  double b = 0.5;
};

enum class Colour : std::uint8_t { red, green };

template <class T>
void goes_through(const T& value) {
  Queue<T> queue(3);
  queue.put(value);
  EXPECT_TRUE(queue.try_put(value));
  EXPECT_EQ(queue.put_many(std::span<const T>(&value, 1)), 1u);
  EXPECT_EQ(queue.get(), value);
  EXPECT_EQ(queue.try_get(), value);
  EXPECT_EQ(*queue.take(), value);
  auto loan = queue.loan();
  *loan = value;
  loan.publish();
  EXPECT_EQ(*queue.take(), value);
}

TEST(QueueValue, OfManyTypes) {
  goes_through(true);
  goes_through('x');
  goes_through(std::int64_t{-1} << 62);
  goes_through(3.25);
  goes_through(Colour::green);
  goes_through(std::array<short, 3>{1, 2, 3});
  goes_through(std::optional<int>(5));
  goes_through(Point(3, 4));
  goes_through(std::chrono::nanoseconds(11));
}

TEST(QueueValue, AggregateWithArray) {
  Queue<Order> orders(2);
  orders.put({.id = 7, .price = 2.5, .symbol = "SHOAL"});
  const Order order = orders.get();
  EXPECT_EQ(order.id, 7);
  EXPECT_EQ(order.price, 2.5);
  EXPECT_STREQ(order.symbol, "SHOAL");
}

TEST(QueueValue, WithoutDefaultConstructorInBatches) {
  Queue<Point> points(4);
  const std::vector<Point> in = {{1, 2}, {3, 4}, {5, 6}};
  std::vector<Point> out(3, Point(0, 0));
  EXPECT_EQ(points.put_many(in), 3u);
  EXPECT_EQ(points.get_many(out), 3u);
  EXPECT_EQ(out, in);
}

TEST(QueueValue, LoanIsBuiltByTheDefaultConstructor) {
  Queue<WithDefaults> queue(1);
  for (int lap = 0; lap < 3; ++lap) {
    auto loan = queue.loan();
    EXPECT_EQ(loan->a, 17);
    EXPECT_EQ(loan->b, 0.5);
    loan->a = lap;
    loan->b = lap;
    loan.publish();
    EXPECT_EQ(queue.get().a, lap);
  }
}

TEST(QueueValue, LoanWithoutDefaultConstructorIsZeroed) {
  Queue<Point> queue(1);
  for (int lap = 0; lap < 3; ++lap) {
    auto loan = queue.loan();
    EXPECT_EQ(*loan, Point(0, 0));
    *loan = Point(8, 9);
    loan.publish();
    EXPECT_EQ(queue.get(), Point(8, 9));
  }
}

struct Page {
  std::array<unsigned char, 4096> bytes;
};

TEST(QueueValue, PagesAreWhole) {
  Queue<Page> queue(3);
  std::deque<unsigned char> model;
  for (int i = 0; i < 500; ++i) {
    const auto fill = static_cast<unsigned char>(i);
    Page page;
    page.bytes.fill(fill);
    while (!queue.try_put(page)) {
      const Page got = queue.get();
      for (const unsigned char byte : got.bytes) ASSERT_EQ(byte, model.front());
      model.pop_front();
    }
    model.push_back(fill);
  }
}

template <std::size_t kAlignment>
struct alignas(kAlignment) Aligned {
  char text[kAlignment];
};

template <class T>
class QueueAlignment : public testing::Test {};
using Alignments =
    testing::Types<Aligned<1>, Aligned<8>, Aligned<16>, Aligned<32>,
                   Aligned<64>, Aligned<128>, Aligned<256>, Aligned<4096>>;
TYPED_TEST_SUITE(QueueAlignment, Alignments);

TYPED_TEST(QueueAlignment, ValuesInPlaceAreAligned) {
  Queue<TypeParam> queue(3);
  for (int i = 0; i < 5; ++i) {
    auto loan = queue.loan();
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(&*loan) % alignof(TypeParam),
              0u);
    loan->text[0] = static_cast<char>('a' + i);
    loan.publish();
    auto taken = queue.take();
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(&*taken) % alignof(TypeParam),
              0u);
    EXPECT_EQ(taken->text[0], 'a' + i);
  }
}

TEST(QueueValue, RefusedPutLeavesTheArgument) {
  Queue<std::array<int, 4>> queue(1);
  std::array<int, 4> value = {1, 2, 3, 4};
  EXPECT_TRUE(queue.try_put(std::move(value)));
  EXPECT_FALSE(queue.try_put(std::move(value)));
  EXPECT_THAT(value, ElementsAre(1, 2, 3, 4));
}

// ---- handles ----

static_assert(std::is_copy_constructible_v<Queue<int>>);
static_assert(std::is_copy_assignable_v<Queue<int>>);
static_assert(std::is_nothrow_move_constructible_v<Queue<int>>);
static_assert(!std::is_convertible_v<std::size_t, Queue<int>>);
static_assert(std::is_move_constructible_v<Loan<int>>);
static_assert(!std::is_copy_constructible_v<Loan<int>>);
static_assert(std::is_move_constructible_v<Taken<int>>);
static_assert(!std::is_copy_constructible_v<Taken<int>>);
static_assert(std::is_same_v<Queue<Order>::value_type, Order>);

TEST(QueueHandle, ACopyIsTheSameQueue) {
  Queue<int> queue(2);
  Queue<int> copy = queue;
  const Queue<int>& constant = queue;
  copy.put(1);
  EXPECT_EQ(constant.qsize(), 1u);
  EXPECT_FALSE(constant.empty());
  EXPECT_FALSE(constant.full());
  EXPECT_EQ(constant.maxsize(), 2u);
  Queue<int> of_constant(constant);
  EXPECT_EQ(of_constant.get(), 1);
}

TEST(QueueHandle, TheQueueLivesAsLongAsAnyHandle) {
  std::optional<Queue<int>> first(std::in_place, 2);
  first->put(1);
  Queue<int> second(*first);
  first.reset();
  EXPECT_EQ(second.get(), 1);
}

TEST(QueueHandle, MovedFromIsClosed) {
  Queue<int> queue(2);
  Queue<int> moved(std::move(queue));
  EXPECT_THROW(queue.put(1, now), Closed);
  EXPECT_THROW(queue.get(now), Closed);
  moved.put(1);
  EXPECT_EQ(moved.get(), 1);
}

TEST(QueueHandle, MoveAssignedFromIsClosed) {
  Queue<int> queue(2);
  Queue<int> moved(1);
  moved = std::move(queue);
  EXPECT_EQ(moved.maxsize(), 2u);
  EXPECT_THROW(queue.put(1, now), Closed);
  EXPECT_THROW(queue.get(now), Closed);
  moved.put(2);
  EXPECT_EQ(moved.get(), 2);
}

TEST(QueueHandle, AssignmentOpensAClosedOne) {
  Queue<int> queue(2);
  Queue<int> closed(1);
  closed.close();
  closed = queue;
  closed.put(1);
  EXPECT_EQ(queue.get(), 1);
}

TEST(QueueHandle, SelfAssignmentChangesNothing) {
  Queue<int> queue(2);
  Queue<int>& same = queue;
  queue = same;
  queue.put(1);
  EXPECT_EQ(queue.get(), 1);
}

TEST(QueueHandle, LiveInContainers) {
  std::vector<Queue<int>> queues;
  for (int i = 0; i < 10; ++i) queues.emplace_back(2);
  for (std::size_t i = 0; i < 10; ++i) queues[i].put(static_cast<int>(i));
  std::swap(queues[0], queues[9]);
  EXPECT_EQ(queues[0].get(), 9);
  EXPECT_EQ(queues[9].get(), 0);
}

TEST(QueueHandle, AThousandLeaveNothing) {
  const auto before = residue();
  for (int i = 0; i < 1000; ++i) {
    Queue<int> queue(3);
    queue.put(i);
    auto taken = queue.take();
    ASSERT_EQ(*taken, i);
  }
  EXPECT_EQ(residue(), before);
}

}  // namespace
