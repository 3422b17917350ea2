// What Semaphore, BoundedSemaphore, Condition, Event and Barrier have in
// common: names, refusals, and travelling in messages.

#include "shoal/ipc/sync.h"

#include <string>
#include <system_error>
#include <type_traits>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/message.h"
#include "tests/support/child.h"
#include "tests/support/name.h"
#include "tests/support/residue.h"
#include "tests/support/thrown.h"

namespace {

using shoal::Access;
using shoal::Barrier;
using shoal::BoundedSemaphore;
using shoal::BrokenBarrier;
using shoal::Condition;
using shoal::Event;
using shoal::HandleTraits;
using shoal::Semaphore;
using shoal::support::belongings;
using shoal::support::Child;
using shoal::support::is_system_error;
using shoal::support::Name;
using shoal::support::text_of_mismatch;
using testing::HasSubstr;

// touch() leaves a trace that touched() sees through any handle of the object.
template <class T>
struct Made {
  static T anonymous() { return T(); }
  static T create(std::string_view name) { return T::create(name); }
  static T open_or_create(std::string_view name) {
    return T::open_or_create(name);
  }
};
template <>
struct Made<Barrier> {
  static Barrier anonymous() { return Barrier(2); }
  static Barrier create(std::string_view name) {
    return Barrier::create(name, 2);
  }
  static Barrier open_or_create(std::string_view name) {
    return Barrier::open_or_create(name, 2);
  }
};
void touch(Event& event) { event.set(); }
bool touched(Event& event) { return event.is_set(); }
void touch(Semaphore& semaphore) { semaphore.release(6); }
bool touched(Semaphore& semaphore) { return semaphore.get_value() == 7; }
// A unit that lives as long as this process.
void touch(BoundedSemaphore& semaphore) { semaphore.acquire(); }
bool touched(BoundedSemaphore& semaphore) { return semaphore.get_value() == 0; }
void touch(Condition& condition) { condition.acquire(); }
bool touched(Condition& condition) { return condition.locked(); }
void touch(Barrier& barrier) { barrier.abort(); }
bool touched(Barrier& barrier) { return barrier.broken(); }

template <class T>
class Sync : public testing::Test {};
using Kinds =
    testing::Types<Event, Semaphore, BoundedSemaphore, Condition, Barrier>;
TYPED_TEST_SUITE(Sync, Kinds);

TYPED_TEST(Sync, IsAHandleAndAMessage) {
  static_assert(std::is_copy_constructible_v<TypeParam>);
  static_assert(std::is_copy_assignable_v<TypeParam>);
  static_assert(shoal::Message<TypeParam>);
}

TYPED_TEST(Sync, IsFoundByItsName) {
  const Name name("sync");
  auto created = Made<TypeParam>::create(name);
  auto opened = TypeParam::open(name);
  EXPECT_FALSE(touched(opened));
  touch(created);
  EXPECT_TRUE(touched(opened));
  auto again = Made<TypeParam>::open_or_create(name);
  EXPECT_TRUE(touched(again));
  if constexpr (std::is_same_v<TypeParam, Condition>) created.release();
}

TYPED_TEST(Sync, RefusesNames) {
  const Name name("sync");
  is_system_error([&] { TypeParam::open(name); },
                  std::errc::no_such_file_or_directory, name.text());
  auto made = Made<TypeParam>::open_or_create(name);
  is_system_error([&] { Made<TypeParam>::create(name); },
                  std::errc::file_exists, name.text());
  EXPECT_THROW(TypeParam::open("no/slash"), std::invalid_argument);
  EXPECT_THROW(TypeParam::open(name, Access{.read_only = true}),
               std::logic_error);
}

TYPED_TEST(Sync, RefusesAnotherKind) {
  const Name name("sync");
  auto lock = shoal::Lock::create(name);
  EXPECT_THAT(text_of_mismatch([&] { TypeParam::open(name); }),
              HasSubstr("Lock"));
  EXPECT_THROW(Made<TypeParam>::open_or_create(name), shoal::TypeMismatch);
}

TYPED_TEST(Sync, OutlivesItsUsers) {
  const Name name("sync");
  Child maker([&](Child&) { Made<TypeParam>::create(name); });
  ASSERT_EQ(maker.join(), 0) << maker.failures();
  auto opened = TypeParam::open(name);
  EXPECT_FALSE(touched(opened));
}

TYPED_TEST(Sync, TravelsAsAReference) {
  auto sent = Made<TypeParam>::anonymous();
  const auto reference = HandleTraits<TypeParam>::reference(sent, nullptr);
  Child receiver([&](Child& self) {
    auto received = HandleTraits<TypeParam>::resolve(reference, nullptr);
    self.expect(!touched(received), "as it was");
    touch(received);
    self.expect(touched(sent), "the same object");
  });
  EXPECT_EQ(receiver.join(), 0) << receiver.failures();
}

TYPED_TEST(Sync, LeavesNothingBehind) {
  { Made<TypeParam>::anonymous(); }
  const auto before = belongings();
  for (int i = 0; i < 3; ++i) {
    const Name name("sync");
    auto created = Made<TypeParam>::create(name);
    auto copy = created;
    touch(copy);
    if constexpr (std::is_same_v<TypeParam, Condition>) copy.release();
    auto anonymous = Made<TypeParam>::anonymous();
    touch(anonymous);
    if constexpr (std::is_same_v<TypeParam, Condition>) anonymous.release();
  }
  EXPECT_EQ(belongings(), before);
}

TEST(SyncBarrier, ItsPartyLeavesNoMappingBehind) {
  {
    Barrier barrier(1);
    barrier.wait();
  }
  const auto before = belongings();
  for (int i = 0; i < 3; ++i) {
    Barrier barrier(1);
    barrier.wait();
  }
  EXPECT_EQ(belongings(), before);
}

TEST(SyncBarrier, AnActionIsFoundByAHandleThatArrives) {
  int actions = 0;
  const Barrier barrier(1, [&] { ++actions; });
  const auto reference = HandleTraits<Barrier>::reference(barrier, nullptr);
  HandleTraits<Barrier>::resolve(reference, nullptr).wait();
  EXPECT_EQ(actions, 1);
  Child receiver([&](Child& self) {
    HandleTraits<Barrier>::resolve(reference, nullptr).wait();
    self.expect(actions == 2, "its copy of the action ran");
  });
  EXPECT_EQ(receiver.join(), 0) << receiver.failures();
}

}  // namespace
