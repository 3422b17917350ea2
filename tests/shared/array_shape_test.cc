// Arrays of several dimensions, their rows, slices and columns, locks by
// stripes, and the options of their memory.

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <numeric>
#include <optional>
#include <ranges>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shoal/ipc/process.h"
#include "shoal/shared/array.h"
#include "tests/support/child.h"
#include "tests/support/name.h"
#include "tests/support/thread.h"

namespace {

using shoal::Access;
using shoal::Array;
using shoal::ArrayOptions;
using shoal::now;
using shoal::Shape;
using shoal::Strided;
using shoal::TimeoutError;
using shoal::support::Child;
using shoal::support::Name;
using shoal::support::Thread;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;
using namespace std::chrono_literals;

static_assert(std::ranges::random_access_range<Strided<int>> &&
              std::ranges::sized_range<Strided<int>> &&
              std::ranges::borrowed_range<Strided<int>> &&
              std::ranges::view<Strided<int>> &&
              std::ranges::common_range<Strided<const int>>);
static_assert(std::ranges::contiguous_range<Array<int>>);

Array<int> counted(const Shape& shape) {
  Array<int> array(shape);
  std::iota(array.begin(), array.end(), 0);
  return array;
}

TEST(Shape, IsAFewNumbers) {
  const int rows = 3;
  const std::size_t columns = 4;
  const Shape shape{rows, columns};
  EXPECT_THAT(shape, ElementsAre(3, 4));
  EXPECT_EQ(shape.size(), 2u);
  EXPECT_EQ(shape[1], 4u);
  EXPECT_EQ(shape.to_string(), "(3, 4)");
  EXPECT_EQ(shape, Shape(3, 4));
  EXPECT_NE(shape, Shape(3, 4, 1));
  EXPECT_EQ(Shape(std::vector<std::size_t>{3, 4}), shape);
  EXPECT_THROW(Shape(3, -1), std::invalid_argument);
  EXPECT_THROW(Shape(std::vector<std::size_t>{}), std::invalid_argument);
  EXPECT_THROW(Shape(std::vector<std::size_t>(9, 1)), std::invalid_argument);
  EXPECT_EQ(Shape(1, 2, 3, 4, 5, 6, 7, 8).size(), 8u);
}

TEST(ArrayOfShape, AgainstIndicesByHand) {
  Array<int> array = counted(Shape(3, 4, 5));
  EXPECT_EQ(array.size(), 60u);
  EXPECT_THAT(array.shape(), ElementsAre(3, 4, 5));
  EXPECT_THAT(array.strides(), ElementsAre(20, 5, 1));
  EXPECT_FALSE(array.fortran_order());
  const Array<int>& constant = array;
  for (int i = 0; i < 3; ++i)
    for (int j = 0; j < 4; ++j)
      for (int k = 0; k < 5; ++k) {
        EXPECT_EQ(array(i, j, k), 20 * i + 5 * j + k);
        EXPECT_EQ(constant.at(i, j, k), 20 * i + 5 * j + k);
        EXPECT_EQ(&constant(i, j, k), array.data() + 20 * i + 5 * j + k);
      }
  array(2, 3, 4) = -1;
  EXPECT_EQ(array.back(), -1);
  Array<int> one(7);
  EXPECT_THAT(one.shape(), ElementsAre(7));
  EXPECT_THAT(one.strides(), ElementsAre(1));
  one(3) = 5;
  EXPECT_EQ(one[3], 5);
}

TEST(ArrayOfShape, AtNamesIndicesAndShape) {
  Array<int> array(Shape{3, 4});
  const auto message = [](const char* index) {
    return ThrowsMessage<std::out_of_range>(
        AllOf(HasSubstr(index), HasSubstr("(3, 4)")));
  };
  EXPECT_THAT([&] { array.at(3, 0) = 1; }, message("(3, 0)"));
  EXPECT_THAT([&] { array.at(0, 4) = 1; }, message("(0, 4)"));
  EXPECT_THAT([&] { array.at(0, -1) = 1; }, message("(0, -1)"));
  EXPECT_THAT([&] { array.at(12) = 1; }, message("12"));
  EXPECT_THAT([&] { array.at(1, 1, 1) = 1; }, message("(1, 1, 1)"));
  EXPECT_THAT([&] { (void)array.row(3); }, message("row 3"));
  EXPECT_THAT([&] { (void)array.column(4); }, message("column 4"));
  EXPECT_THAT([&] { (void)array.slice(1, 4); }, message("[1, 4)"));
  EXPECT_THAT([&] { (void)array.slice(2, 1); }, message("[2, 1)"));
  array.at(2, 3) = 8;
  EXPECT_EQ(array.at(11), 8);
}

TEST(ArrayOfShape, RowsSlicesAndColumnsAreTheSameMemory) {
  Array<int> array = counted(Shape(3, 4));
  EXPECT_THAT(array.row(1), ElementsAre(4, 5, 6, 7));
  EXPECT_THAT(array.slice(1, 3), ElementsAre(4, 5, 6, 7, 8, 9, 10, 11));
  EXPECT_THAT(array.column(2), ElementsAre(2, 6, 10));
  EXPECT_TRUE(array.slice(3, 3).empty());
  for (int& x : array.row(0)) x = 50;
  for (int& x : array.column(3)) x += 100;
  array.slice(2, 3)[0] = -8;
  EXPECT_THAT(array,
              ElementsAre(50, 50, 50, 150, 4, 5, 6, 107, -8, 9, 10, 111));
  const Array<int>& constant = array;
  static_assert(
      std::is_same_v<decltype(constant.row(0)), std::span<const int>>);
  static_assert(
      std::is_same_v<decltype(constant.column(0)), Strided<const int>>);
  EXPECT_THAT(constant.column(0), ElementsAre(50, 4, -8));
  Array<int> line = counted(Shape(6));
  EXPECT_THAT(line.slice(2, 4), ElementsAre(2, 3));
  EXPECT_THROW((void)line.row(0), std::logic_error);
  EXPECT_THROW((void)line.column(0), std::logic_error);
  Array<int> cube = counted(Shape(2, 3, 2));
  EXPECT_THAT(cube.row(1), ElementsAre(6, 7, 8, 9, 10, 11));
  EXPECT_THROW((void)cube.column(0), std::logic_error);
}

TEST(ArrayOfShape, ColumnsWorkWithAlgorithms) {
  Array<int> array(Shape(100, 3));
  auto column = array.column(1);
  std::iota(column.begin(), column.end(), 0);
  std::ranges::reverse(column);
  EXPECT_EQ(array(0, 1), 99);
  std::ranges::sort(column);
  EXPECT_TRUE(std::ranges::is_sorted(array.column(1)));
  EXPECT_EQ(std::ranges::count(array.column(0), 0), 100);
  EXPECT_EQ(*std::ranges::lower_bound(column, 42), 42);
  EXPECT_EQ(column.front() + column.back(), 99);
  EXPECT_EQ(column.end() - column.begin(), 100);
  EXPECT_EQ(column.begin()[7], 7);
  const std::vector<int> copy(column.begin(), column.end());
  EXPECT_EQ(copy.size(), 100u);
}

TEST(ArrayOfShape, Empty) {
  const Array<int> array(Shape(3, 0, 2));
  EXPECT_TRUE(array.empty());
  EXPECT_TRUE(array.row(2).empty());
  EXPECT_TRUE(array.slice(0, 3).empty());
  const Array<int> none(Shape(0, 5));
  EXPECT_TRUE(none.slice(0, 0).empty());
  EXPECT_TRUE(none.column(4).empty());
}

TEST(ArrayOfShape, AbsurdIsRefused) {
  EXPECT_THROW((void)Array<int>(Shape(std::size_t{1} << 40, 1 << 30)),
               shoal::NoSpace);
  EXPECT_THROW(
      (void)Array<int>(Shape(std::size_t{1} << 62, std::size_t{1} << 62)),
      shoal::NoSpace);
  EXPECT_THROW((void)Array<int>(Shape(3, static_cast<std::size_t>(-1))),
               std::invalid_argument);
  EXPECT_EQ(Array<int>(Shape(std::size_t{1} << 62, 4, 0)).size(), 0u);
}

TEST(ArrayOfShape, IsKeptByName) {
  const Name name("field");
  auto made = Array<double>::create(name, Shape(3, 4), ArrayOptions{});
  made(2, 1) = 7;
  auto opened = Array<double>::open(name);
  EXPECT_EQ(opened.shape(), Shape(3, 4));
  EXPECT_EQ(opened(2, 1), 7);
  EXPECT_EQ((Array<double>::open_or_create(name, Shape(3, 4))(2, 1)), 7);
  EXPECT_THAT([&] { (void)Array<double>::open_or_create(name, Shape(4, 3)); },
              ThrowsMessage<shoal::TypeMismatch>(
                  AllOf(HasSubstr("(4, 3)"), HasSubstr("(3, 4)"))));
  EXPECT_THROW((void)Array<double>::open_or_create(name, 12),
               shoal::TypeMismatch);
}

TEST(ArrayOfShape, ArrivesInAnotherProcess) {
  Array<int> array = counted(Shape(3, 4));
  shoal::Process child(
      {.start_method = shoal::StartMethod::spawn},
      [](Array<int> got) {
        if (got.shape() == Shape(3, 4)) got(2, 3) += got(1, 0);
      },
      array);
  child.start();
  EXPECT_TRUE(child.join(shoal::support::kPatience));
  EXPECT_EQ(array(2, 3), 15);
}

TEST(ArrayCopy, FromAndTo) {
  Array<int> array(Shape(2, 3));
  array.copy_from(std::vector<int>{1, 2, 3, 4, 5, 6});
  EXPECT_THAT(array.row(1), ElementsAre(4, 5, 6));
  array.copy_from(std::array<short, 6>{6, 5, 4, 3, 2, 1});
  std::vector<int> out(6);
  array.copy_to(out);
  EXPECT_THAT(out, ElementsAre(6, 5, 4, 3, 2, 1));
  EXPECT_THAT([&] { array.copy_from(std::vector<int>(5)); },
              ThrowsMessage<std::invalid_argument>(
                  AllOf(HasSubstr("5 elements"), HasSubstr("6"))));
  out.resize(7);
  EXPECT_THROW(array.copy_to(out), std::invalid_argument);
  const Array<int> other{1, 2, 3, 4, 5, 6};
  array.copy_from(other);
  EXPECT_EQ(array(1, 2), 6);
}

// ---- stripes ----

TEST(ArrayStripes, ExcludeTheSameAndTheWhole) {
  Array<int> array(10);
  {
    const auto three = array.lock(3);
    Thread other([&] {
      const auto four = array.lock(4, now);
      EXPECT_THROW((void)array.lock(3, now), TimeoutError);
      EXPECT_THROW((void)array.lock(3 + 64, now), TimeoutError);
    });
    EXPECT_TRUE(other.ends());
    Thread whole([&] { EXPECT_THROW((void)array.lock(20ms), TimeoutError); });
    EXPECT_TRUE(whole.ends());
  }
  const auto whole = array.lock(now);  // what it had taken was let go
  Thread other([&] {
    EXPECT_THROW((void)array.lock(3, now), TimeoutError);
    EXPECT_THROW((void)array.lock(20ms), TimeoutError);
  });
  EXPECT_TRUE(other.ends());
}

// The first stripe is locked while the whole is held.
TEST(ArrayStripes, TheFirstWaitsForTheWhole) {
  Array<int> array(10);
  std::optional<Array<int>::Locked> whole(array.lock());
  Thread other([&] {
    const auto stripe = array.lock(3);
    array[3] = 1;
  });
  EXPECT_TRUE(other.falls_asleep());
  EXPECT_EQ(array[3], 0);
  whole.reset();
  EXPECT_TRUE(other.ends());
  EXPECT_EQ(array[3], 1);
}

TEST(ArrayStripes, NobodyWaitsForHimself) {
  Array<int> array(10);
  {
    const auto stripe = array.lock(3);
    EXPECT_THROW((void)array.lock(), std::logic_error);
    EXPECT_THROW((void)array.lock(3), std::logic_error);
    EXPECT_THROW((void)array.lock(67), std::logic_error);
    const auto other = array.lock(4);
  }
  {
    const auto whole = array.lock();
    EXPECT_THROW((void)array.lock(3), std::logic_error);
    EXPECT_THROW((void)array.lock(), std::logic_error);
  }
  Array<int> fresh(10);
  const auto whole = fresh.lock();
  EXPECT_THROW((void)fresh.lock(3), std::logic_error);
}

TEST(ArrayStripes, OfTheDeadAreHandedOn) {
  Array<int> array(10);
  for (const bool all : {false, true}) {
    Child child([&](Child& self) {
      auto held = all ? array.lock() : array.lock(5);
      self.expect(!held.owner_died(), "nobody died");
      _exit(0);
    });
    EXPECT_EQ(child.join(), 0) << child.failures();
    if (all) {
      EXPECT_TRUE(array.lock(9).owner_died());
      auto held = array.lock();
      EXPECT_TRUE(held.owner_died());
      held.mark_consistent();
    } else {
      EXPECT_FALSE(array.lock(6).owner_died());
      auto held = array.lock(5);
      EXPECT_TRUE(held.owner_died());
      held.mark_consistent();
    }
    EXPECT_FALSE(array.lock().owner_died());
  }
}

TEST(ArrayStripes, CountsOfManyAddUp) {
  constexpr int kRounds = 3000;
  Array<int> array(Shape(4, 1000));
  std::vector<std::unique_ptr<Child>> children;
  for (int n = 0; n < 3; ++n)
    children.push_back(std::make_unique<Child>([&, n](Child&) {
      for (int i = 0; i < kRounds; ++i) {
        const std::size_t row = static_cast<std::size_t>(i + n) % 4;
        const bool whole = i % 50 == 0;
        const auto held = whole ? array.lock() : array.lock(row);
        for (std::size_t r = whole ? 0 : row; r < (whole ? 4 : row + 1); ++r)
          array(r, 500) = array(r, 500) + 1;
      }
    }));
  for (auto& child : children) EXPECT_EQ(child->join(), 0) << child->failures();
  int sum = 0;
  for (const int count : array.column(500)) sum += count;
  EXPECT_EQ(sum, 3 * (kRounds + kRounds / 50 * 3));
}

// ---- where its memory is ----

template <class T>
std::uintptr_t address(const Array<T>& array) {
  return reinterpret_cast<std::uintptr_t>(array.data());
}

TEST(ArrayMemory, IsAlignedInEveryProcess) {
  for (const std::size_t alignment :
       {std::size_t{64}, std::size_t{4096}, std::size_t{1} << 16,
        std::size_t{2} << 20, std::size_t{64} << 20}) {
    const Name name("aligned");
    const auto array =
        Array<double>::create(name, 1000, ArrayOptions{.alignment = alignment});
    EXPECT_EQ(address(array) % alignment, 0u) << alignment;
    Child child([&](Child& self) {
      // Of a mapping of its own.
      const auto opened = Array<double>::open(name, Access{.read_only = true});
      self.expect(address(opened) != address(array), "mapped again");
      self.expect(address(opened) % alignment == 0, "aligned");
    });
    EXPECT_EQ(child.join(), 0) << child.failures();
  }
  for (const std::size_t alignment :
       {std::size_t{0}, std::size_t{3}, std::size_t{2} << 30})
    EXPECT_THAT(
        [&] { (void)Array<int>(3, ArrayOptions{.alignment = alignment}); },
        ThrowsMessage<std::invalid_argument>(
            HasSubstr(std::to_string(alignment))));
}

TEST(ArrayMemory, WhatCannotBeHadIsTold) {
  EXPECT_TRUE(Array<int>(3).unmet().empty());
  testing::internal::CaptureStderr();
  const Array<int> far(3, ArrayOptions{.numa_node = 1000});
  const Array<int> again(3, ArrayOptions{.numa_node = 1000});
  const std::string told = testing::internal::GetCapturedStderr();
  ASSERT_EQ(far.unmet().size(), 1u);
  EXPECT_THAT(far.unmet()[0], HasSubstr("NUMA node 1000"));
  EXPECT_THAT(told, HasSubstr(far.unmet()[0]));
  EXPECT_EQ(told.find("NUMA"), told.rfind("NUMA")) << "told twice";
  EXPECT_THROW((void)Array<int>(3, ArrayOptions{.numa_node = -1}),
               std::invalid_argument);
  // Node 0 is everywhere.
  const Array<int> near(1000, ArrayOptions{.numa_node = 0});
  for (const std::string& what : near.unmet())
    EXPECT_THAT(what, HasSubstr("mbind")) << "not by this kernel";
  // Huge pages are there or it is said that they are not.
  testing::internal::CaptureStderr();
  const Array<int> huge(4 << 20, ArrayOptions{.huge_pages = true});
  testing::internal::GetCapturedStderr();
  if (!huge.unmet().empty())
    EXPECT_THAT(huge.unmet()[0], HasSubstr("huge pages: "));
  else
    EXPECT_EQ((address(huge) - 4096) % (2 << 20), 0u);
  EXPECT_EQ(std::count(huge.begin(), huge.end(), 0), 4 << 20);
}

// Pages that are there, by the kernel's word.
std::size_t resident(const void* start, std::size_t bytes) {
  std::vector<unsigned char> pages(bytes / 4096);
  EXPECT_EQ(mincore(const_cast<void*>(start), bytes, pages.data()), 0);
  return static_cast<std::size_t>(
      std::count_if(pages.begin(), pages.end(),
                    [](unsigned char page) { return (page & 1) != 0; }));
}

TEST(ArrayMemory, ALongOneGetsAllItsPages) {
  constexpr std::size_t kBytes = std::size_t{200} << 20;
  const Array<std::uint64_t> array(kBytes / 8);
  EXPECT_EQ(resident(array.data(), kBytes), kBytes / 4096);
  EXPECT_EQ(array.back(), 0u);
  const Array<std::uint64_t> sparse(kBytes / 8, ArrayOptions{.reserve = false});
  EXPECT_LT(resident(sparse.data(), kBytes), 10u);
}

TEST(ArrayMemory, AHugeOneIsIndexedAtItsEnd) {
  constexpr std::size_t kSize = (std::size_t{20} << 30) / 8;
  Array<double> array(Shape(kSize / 1024, 1024),
                      ArrayOptions{.reserve = false});
  array(kSize / 1024 - 1, 1023) = 7;
  EXPECT_EQ(array[kSize - 1], 7);
  EXPECT_EQ(array.row(kSize / 1024 - 1).back(), 7);
  EXPECT_EQ(array.column(1023).back(), 7);
  const auto held = array.lock(12345);
}

}  // namespace
