// Array<T> between processes: the same memory for all, and a lock that
// outlives its holders.

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <numeric>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

#include "gmock/gmock.h"
#include "shoal/ipc/object.h"
#include "shoal/ipc/process.h"
#include "shoal/shared/array.h"
#include "tests/support/child.h"
#include "tests/support/name.h"
#include "tests/support/reexec.h"
#include "tests/support/thread.h"

namespace {

using shoal::Access;
using shoal::Array;
using shoal::now;
using shoal::Process;
using shoal::TimeoutError;
using shoal::support::Child;
using shoal::support::eventually;
using shoal::support::exec_tests;
using shoal::support::given;
using shoal::support::kPatience;
using shoal::support::Name;
using shoal::support::Shared;
using shoal::support::Thread;
using std::chrono::milliseconds;
using testing::Each;
using testing::ElementsAre;

TEST(ArrayProcess, ChangesByAChildAreSeen) {
  Array<int> array{1, 2, 3};
  Child child([&](Child& self) {
    self.expect(array[1] == 2, "initial");
    array[1] = 20;
    std::sort(array.begin(), array.end(), std::greater<>());
  });
  EXPECT_EQ(child.join(), 0) << child.failures();
  EXPECT_THAT(array, ElementsAre(20, 3, 1));
}

TEST(ArrayProcess, PassedAsAnArgument) {
  Array<double> field(1'000'000);
  Process process([](Array<double> theirs, double with) { theirs.fill(with); },
                  field, 2.5);
  process.start();
  ASSERT_TRUE(process.join(kPatience));
  EXPECT_EQ(process.exitcode(), 0);
  EXPECT_TRUE(std::all_of(field.begin(), field.end(),
                          [](double x) { return x == 2.5; }));
}

TEST(ArrayProcess, EachFillsItsPart) {
  constexpr std::size_t kParts = 4, kPart = 100'000;
  Array<std::uint32_t> array(kParts * kPart);
  std::deque<Child> children;
  for (std::size_t part = 0; part < kParts; ++part)
    children.emplace_back([&, part](Child&) {
      const auto mine = array.span().subspan(part * kPart, kPart);
      std::iota(mine.begin(), mine.end(),
                static_cast<std::uint32_t>(part * kPart));
    });
  for (Child& child : children) EXPECT_EQ(child.join(), 0) << child.failures();
  for (std::size_t i = 0; i < array.size(); ++i) ASSERT_EQ(array[i], i);
}

TEST(ArrayProcess, SparseIsShared) {
  Array<char> array(std::size_t{20} << 30, {.reserve = false});
  Child child([&](Child& self) {
    self.expect(array.back() == 0, "zero");
    array.back() = 'z';
  });
  EXPECT_EQ(child.join(), 0) << child.failures();
  EXPECT_EQ(array.back(), 'z');
}

TEST(ArrayProcess, OutlivesTheProcessThatNamedIt) {
  const Name name("array");
  Child child([&](Child&) {
    (void)Array<int>::create(name, {1, 2, 3});
    raise(SIGKILL);
  });
  EXPECT_EQ(child.join(), -SIGKILL);
  EXPECT_THAT(Array<int>::open(name), ElementsAre(1, 2, 3));
}

// ---- other programs, other addresses ----

TEST(ArrayProcess, OpenedByNameInAnotherProgram) {
  const Name name("array");
  auto array = Array<std::int64_t>::create(name, 1000);
  Child other([&](Child&) {
    exec_tests("DISABLED_ArrayOther.CountsUnderTheLock",
               {"ARRAY=" + name.text()});
  });
  for (int i = 0; i < 300; ++i) {
    const auto held = array.lock();
    for (std::int64_t& element : array) ++element;
  }
  EXPECT_EQ(other.join(), 0);
  EXPECT_THAT(array, Each(600));
}

TEST(DISABLED_ArrayOther, CountsUnderTheLock) {
  auto array = Array<std::int64_t>::open(given("ARRAY"));
  ASSERT_EQ(array.size(), 1000u);
  for (int i = 0; i < 300; ++i) {
    auto held = array.lock();
    for (std::int64_t& element : *held) ++element;
  }
  EXPECT_THROW((void)Array<double>::open(given("ARRAY")), shoal::TypeMismatch);
}

// ---- read-only ----

TEST(ArrayReadOnly, AWriteIsTheDeathOfTheWriterOnly) {
  const Name name("array");
  auto array = Array<int>::create(name, {1, 2, 3});
  Child reader([&](Child& self) {
    auto theirs = Array<int>::open(name, Access{.read_only = true});
    self.expect(theirs[1] == 2, "reads");
    self.expect(theirs.size() == 3, "size");
  });
  EXPECT_EQ(reader.join(), 0) << reader.failures();
  Child writer([&](Child&) {
    signal(SIGSEGV, SIG_DFL);  // a sanitizer's handler would exit instead
    auto theirs = Array<int>::open(name, Access{.read_only = true});
    *static_cast<volatile int*>(&theirs[1]) = 20;
  });
  EXPECT_EQ(writer.join(), -SIGSEGV);
  EXPECT_THAT(array, ElementsAre(1, 2, 3));
  array[1] = 5;
  EXPECT_EQ(array[1], 5);
}

// ---- the lock ----

TEST(ArrayLockProcess, CountsOfManyAddUp) {
  Array<std::int64_t> array(100);
  std::deque<Child> children;
  for (int i = 0; i < 4; ++i)
    children.emplace_back([&](Child&) {
      for (int n = 0; n < 1000; ++n) {
        const auto held = array.lock();
        for (std::int64_t& element : array) ++element;
      }
    });
  for (Child& child : children) EXPECT_EQ(child.join(), 0) << child.failures();
  EXPECT_THAT(array, Each(4000));
}

// A child that holds the lock and has half changed the array.
class Holder {
 public:
  explicit Holder(Array<int> array)
      : child_([this, array](Child&) mutable {
          const auto held = array.lock();
          array[0] = 1;
          holds_->store(true);
          for (;;) pause();
        }) {
    EXPECT_TRUE(eventually([&] { return holds_->load(); }));
  }
  Child& child() { return child_; }

 private:
  Shared<std::atomic<bool>> holds_;
  Child child_;
};

TEST(ArrayLockProcess, OfTheDeadIsHandedOnAndTold) {
  Array<int> array(2);
  for (int i = 0; i < 3; ++i) {
    array.fill(0);
    Holder holder(array);
    EXPECT_THROW((void)array.lock(now), TimeoutError);
    holder.child().kill();
    EXPECT_EQ(holder.child().join(), -SIGKILL);
    {
      auto held = array.lock(kPatience);
      EXPECT_TRUE(held.owner_died());
      EXPECT_THAT(array, ElementsAre(1, 0));  // what it had stored stands
      array[1] = 1;
      held.mark_consistent();
      EXPECT_FALSE(held.owner_died());
    }
    EXPECT_FALSE(array.lock(kPatience).owner_died());
  }
}

TEST(ArrayLockProcess, OwnerDiedStaysUntilItIsMarked) {
  Array<int> array(2);
  Holder holder(array);
  holder.child().kill();
  EXPECT_EQ(holder.child().join(), -SIGKILL);
  EXPECT_TRUE(array.lock(kPatience).owner_died());
  Child other([&](Child& self) {
    auto held = array.lock(kPatience);
    self.expect(held.owner_died(), "in another process, too");
    held.mark_consistent();
  });
  EXPECT_EQ(other.join(), 0) << other.failures();
  EXPECT_FALSE(array.lock(kPatience).owner_died());
}

TEST(ArrayLockProcess, WhoSleepsIsWokenByTheDeathOfTheHolder) {
  Array<int> array(2);
  Holder holder(array);
  Thread sleeper([&] { EXPECT_TRUE(array.lock(kPatience).owner_died()); });
  EXPECT_TRUE(sleeper.falls_asleep());
  holder.child().kill();
  EXPECT_TRUE(sleeper.ends());
}

TEST(ArrayLockProcess, OfOneThatExitedIsHandedOn) {
  Array<int> array(2);
  Child child([&](Child&) {
    const auto held = array.lock();
    _exit(0);
  });
  EXPECT_EQ(child.join(), 0);
  EXPECT_TRUE(array.lock(kPatience).owner_died());
}

TEST(ArrayLockProcess, OfTheStoppedIsKept) {
  Array<int> array(2);
  Holder holder(array);
  holder.child().kill(SIGSTOP);
  int status = 0;
  ASSERT_EQ(waitpid(holder.child().pid(), &status, WUNTRACED),
            holder.child().pid());
  ASSERT_TRUE(WIFSTOPPED(status));
  EXPECT_THROW((void)array.lock(now), TimeoutError);
  EXPECT_THROW((void)array.lock(milliseconds(300)), TimeoutError);
}

// The copy of a Locked that fork makes holds nothing.
TEST(ArrayLockProcess, ForkedCopyOfLockedDoesNotLetGo) {
  Array<int> array(2);
  std::optional held(array.lock());
  Child child([&](Child& self) {
    held.reset();
    try {
      (void)array.lock(now);
      self.expect(false, "let go");
    } catch (const TimeoutError&) {
    }
  });
  EXPECT_EQ(child.join(), 0) << child.failures();
  EXPECT_THROW((void)array.lock(shoal::forever), std::logic_error);  // ours
  held.reset();
  EXPECT_FALSE(array.lock(kPatience).owner_died());
}

// Whoever dies between two stores under the lock is found out.
TEST(ArrayLockProcess, RandomKillsNeverGoUnnoticed) {
  Array<std::uint64_t> pair(2);  // equal, but for those who hold the lock
  Shared<std::atomic<std::uint64_t>> repaired;
  Shared<std::atomic<std::uint64_t>> rounds_of_victims;
  const auto count = [&](Child& self, bool victim) {
    for (;;) {
      if (victim) ++*rounds_of_victims;
      auto held = pair.lock(kPatience);
      volatile std::uint64_t* elements = pair.data();
      if (held.owner_died()) {
        elements[1] = elements[0];
        held.mark_consistent();
        ++*repaired;
      }
      self.expect(elements[0] == elements[1], "unnoticed");
      if (!self.failures().empty()) return;
      elements[0] = elements[0] + 1;
      for (int i = 0; i < 50; ++i) (void)elements[0];
      elements[1] = elements[1] + 1;
    }
  };
  Child witness([&](Child& self) { count(self, false); });
  for (int i = 0; i < 200; ++i) {
    const std::uint64_t start = *rounds_of_victims;
    Child victim([&](Child& self) { count(self, true); });
    EXPECT_TRUE(eventually([&] { return *rounds_of_victims > start + 20; }));
  }  // killed
  EXPECT_FALSE(witness.join(now).has_value()) << witness.failures();
  EXPECT_GT(repaired->load(), 0u);
}

// The search looks at each object of the process, and may have the last
// reference to one.
TEST(ArrayProcess, AreSearchedWhileTheyGo) {
  Child child([](Child& self) {
    std::atomic<int> gone{0};
    std::thread other([&] {
      for (; gone < 5'000; ++gone) const Array<int> array(1);
    });
    const int elsewhere = 0;
    while (gone < 5'000)
      self.expect(shoal::Object::find_at(&elsewhere) == nullptr, "none");
    other.join();
  });
  EXPECT_EQ(child.join(), 0) << child.failures();
}

}  // namespace
