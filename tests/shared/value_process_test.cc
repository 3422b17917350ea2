// Value<T> between processes: seen by all, whole, and through the death and
// the standstill of those who write it.

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <stdexcept>
#include <string>
#include <utility>

#include "gtest/gtest.h"
#include "shoal/ipc/process.h"
#include "shoal/shared/value.h"
#include "tests/support/child.h"
#include "tests/support/name.h"
#include "tests/support/reexec.h"
#include "tests/support/thread.h"

namespace {

using shoal::now;
using shoal::Process;
using shoal::TimeoutError;
using shoal::Value;
using shoal::support::Child;
using shoal::support::eventually;
using shoal::support::exec_tests;
using shoal::support::given;
using shoal::support::kPatience;
using shoal::support::Name;
using shoal::support::Shared;
using shoal::support::Thread;
using std::chrono::milliseconds;

// All of its words say the same; 4 KiB.
struct Page {
  std::array<std::uint64_t, 512> words;

  explicit Page(std::uint64_t n = 0) { words.fill(n); }
  bool operator==(const Page&) const = default;
  bool whole() const {
    return std::all_of(words.begin(), words.end(),
                       [this](std::uint64_t n) { return n == words[0]; });
  }
  std::uint64_t number() const { return words[0]; }
};

template <class T>
std::uint64_t number_of(const T& value) {
  if constexpr (std::is_same_v<T, Page>)
    return value.number();
  else
    return static_cast<std::uint64_t>(value);
}

template <class T>
class ValueProcess : public testing::Test {};
using Types = testing::Types<std::uint64_t, Page>;
TYPED_TEST_SUITE(ValueProcess, Types);

TYPED_TEST(ValueProcess, ChangeByAChildIsSeen) {
  using T = TypeParam;
  Value<T> value(T(1));
  Child child([&](Child& self) {
    self.expect(value.get() == T(1), "initial value");
    value = T(2);
  });
  EXPECT_EQ(child.join(), 0) << child.failures();
  EXPECT_EQ(value.get(), T(2));
}

TYPED_TEST(ValueProcess, ChangeByTheParentIsSeen) {
  using T = TypeParam;
  Value<T> value(T(1));
  Child child([&](Child& self) {
    self.expect(eventually([&] { return value.get() == T(2); }), "change");
    value = T(3);
  });
  value = T(2);
  EXPECT_EQ(child.join(), 0) << child.failures();
  EXPECT_EQ(value.get(), T(3));
}

TEST(ValueInProcess, PassedAsAnArgument) {
  Value<int> hits(1);
  Value<Page> page;
  Process process(
      [](Value<int> counter, Value<Page> text, int more) {
        counter.fetch_add(more);
        text = Page(9);
      },
      hits, page, 41);
  process.start();
  ASSERT_TRUE(process.join(kPatience));
  EXPECT_EQ(process.exitcode(), 0);
  EXPECT_EQ(hits.get(), 42);
  EXPECT_EQ(page.get(), Page(9));
}

// In each of n processes.
void in_children(int n, const std::function<void(Child&)>& body) {
  std::deque<Child> children;
  for (int i = 0; i < n; ++i) children.emplace_back(body);
  for (Child& child : children) EXPECT_EQ(child.join(), 0) << child.failures();
}

TEST(ValueInProcess, FetchAddLosesNothing) {
  Value<int> small;
  Value<double> number;
  Value<long double> wide;
  in_children(4, [&](Child&) {
    for (int i = 0; i < 2000; ++i) {
      small.fetch_add(1);
      number.fetch_sub(1);
      wide.fetch_add(2);
    }
  });
  EXPECT_EQ(small.get(), 8000);
  EXPECT_EQ(number.get(), -8000);
  EXPECT_EQ(wide.get(), 16000);
}

TYPED_TEST(ValueProcess, UpdateAndLockLoseNothing) {
  using T = TypeParam;
  Value<T> value;
  in_children(4, [&](Child&) {
    for (int i = 0; i < 1000; ++i) {
      value.update([](const T& v) { return T(number_of(v) + 1); });
      auto held = value.lock();
      *held = T(number_of(*held) + 1);
    }
  });
  EXPECT_EQ(value.get(), T(8000));
}

TYPED_TEST(ValueProcess, OutlivesTheProcessThatChangedItLast) {
  using T = TypeParam;
  Value<T> value(T(1));
  Child child([&](Child&) {
    value = T(2);
    raise(SIGKILL);
  });
  EXPECT_EQ(child.join(), -SIGKILL);
  EXPECT_EQ(value.get(), T(2));
  value = T(3);
  EXPECT_EQ(value.update([](const T& v) { return T(number_of(v) + 1); }), T(4));
}

// ---- other programs, other addresses ----

TYPED_TEST(ValueProcess, OpenedByNameInAnotherProgram) {
  using T = TypeParam;
  const Name name("value");
  auto value = Value<T>::create(name, T(100));
  Child other([&](Child&) {
    exec_tests(std::is_same_v<T, Page> ? "DISABLED_ValueOther.Page"
                                       : "DISABLED_ValueOther.Number",
               {"VALUE=" + name.text()});
  });
  for (int i = 0; i < 1000; ++i)
    value.update([](const T& v) { return T(number_of(v) + 1); });
  EXPECT_EQ(other.join(), 0);
  EXPECT_EQ(value.get(), T(100 + 2000));
}

template <class T>
void add_1000() {
  auto value = Value<T>::open(given("VALUE"));
  EXPECT_GE(number_of(value.get()), 100u);
  for (int i = 0; i < 500; ++i)
    value.update([](const T& v) { return T(number_of(v) + 1); });
  for (int i = 0; i < 500; ++i) {
    auto held = value.lock();
    *held = T(number_of(*held) + 1);
  }
  EXPECT_THROW((void)Value<float>::open(given("VALUE")), shoal::TypeMismatch);
}
TEST(DISABLED_ValueOther, Number) { add_1000<std::uint64_t>(); }
TEST(DISABLED_ValueOther, Page) { add_1000<Page>(); }

// ---- the dead ----

// A child that holds the lock, with a change that is not published.
template <class T>
class Holder {
 public:
  explicit Holder(Value<T> value, T changed)
      : child_([this, value, changed](Child&) mutable {
          auto held = value.lock();
          *held = changed;
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

TYPED_TEST(ValueProcess, LockOfTheDeadIsHandedOnAndNothingPublished) {
  using T = TypeParam;
  Value<T> value(T(1));
  for (int i = 0; i < 3; ++i) {
    Holder<T> holder(value, T(50));
    EXPECT_THROW((void)value.lock(now), TimeoutError);
    EXPECT_EQ(value.get(), T(1));
    holder.child().kill();
    EXPECT_EQ(holder.child().join(), -SIGKILL);
    EXPECT_EQ(value.get(), T(1));
    {
      auto held = value.lock(kPatience);
      EXPECT_EQ(*held, T(1));
    }
    EXPECT_EQ(value.update([](const T& v) { return v; }), T(1));
  }
  value.set(T(2));
  EXPECT_EQ(value.get(), T(2));
}

TYPED_TEST(ValueProcess, WhoSleepsInLockIsWokenByTheDeathOfTheHolder) {
  using T = TypeParam;
  Value<T> value(T(1));
  Holder<T> holder(value, T(50));
  Thread sleeper([&] {
    auto held = value.lock(kPatience);
    EXPECT_EQ(*held, T(1));
    *held = T(2);
  });
  EXPECT_TRUE(sleeper.falls_asleep());
  holder.child().kill();
  EXPECT_TRUE(sleeper.ends());
  EXPECT_EQ(value.get(), T(2));
}

// A child that ends without letting go.
TYPED_TEST(ValueProcess, LockOfOneThatExitedIsHandedOn) {
  using T = TypeParam;
  Value<T> value(T(1));
  Child child([&](Child&) {
    auto held = value.lock();
    *held = T(50);
    _exit(0);
  });
  EXPECT_EQ(child.join(), 0);
  EXPECT_EQ(*value.lock(kPatience), T(1));
}

// ---- the stopped ----

bool stop(Child& child) {
  child.kill(SIGSTOP);
  int status = 0;
  return waitpid(child.pid(), &status, WUNTRACED) == child.pid() &&
         WIFSTOPPED(status);
}

TYPED_TEST(ValueProcess, StoppedHolderKeepsItsLock) {
  using T = TypeParam;
  Value<T> value(T(1));
  Holder<T> holder(value, T(50));
  ASSERT_TRUE(stop(holder.child()));
  EXPECT_THROW((void)value.lock(now), TimeoutError);
  const auto start = std::chrono::steady_clock::now();
  EXPECT_THROW((void)value.lock(milliseconds(300)), TimeoutError);
  EXPECT_GE(std::chrono::steady_clock::now() - start, milliseconds(300));
  EXPECT_EQ(value.get(), T(1));
}

// A child that does nothing but set 4 KiB, and its standstills in the midst.
class PageWriter {
 public:
  explicit PageWriter(Value<Page> value)
      : value_(value), child_([this](Child&) {
          for (std::uint64_t n = 1;; ++n) value_.set(Page(n));
        }) {}

  // Stopped within set(): it holds the lock.
  bool stop_midway() {
    return eventually([this] {
      if (!stop(child_)) return false;
      try {
        (void)value_.lock(now);
      } catch (const TimeoutError&) {
        return true;
      }
      child_.kill(SIGCONT);
      return false;
    });
  }
  Child& child() { return child_; }

 private:
  Value<Page> value_;
  Child child_;
};

TEST(ValueInProcess, ReadersNeverWaitForAStoppedWriter) {
  Value<Page> value;
  PageWriter writer(value);
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(writer.stop_midway());
    Thread reader([&] {
      const Page first = value.get();
      EXPECT_TRUE(first.whole());
      for (int n = 0; n < 1000; ++n)
        if (value.get() != first) {
          ADD_FAILURE() << "changed although its writer is stopped";
          break;
        }
    });
    ASSERT_TRUE(reader.ends());
    writer.child().kill(SIGCONT);
  }
}

TEST(ValueInProcess, SetGoesOnAfterAWriterWasKilledMidway) {
  Value<Page> value;
  for (int i = 0; i < 20; ++i) {
    std::uint64_t before;
    {
      PageWriter writer(value);
      ASSERT_TRUE(writer.stop_midway());
      before = value.get().number();
      writer.child().kill();
      EXPECT_EQ(writer.child().join(), -SIGKILL);
    }
    const Page found = value.get();
    EXPECT_TRUE(found.whole());
    EXPECT_EQ(found.number(), before);
    for (std::uint64_t n = 1'000'000; n < 1'000'010; ++n) {
      value.set(Page(n));
      ASSERT_EQ(value.get(), Page(n));
    }
  }
}

// Writers that die at any moment, others that take over, readers all the time.
TEST(ValueInProcess, ReadersOfDyingWritersSeeWholeValues) {
  Value<Page> value;
  Shared<std::atomic<bool>> done;
  Shared<std::atomic<int>> reads;
  Child reader([&](Child& self) {
    while (!done->load()) {
      self.expect(value.get().whole(), "torn");
      ++*reads;
    }
  });
  for (int i = 0; i < 100; ++i) {
    const auto write = [&](Child&) {
      for (std::uint64_t n = 1;; ++n) value.set(Page(n));
    };
    Child first(write), second(write);
    const Page start = value.get();
    EXPECT_TRUE(eventually([&] { return value.get() != start; }));
    const int seen = reads->load();
    EXPECT_TRUE(eventually([&] { return reads->load() != seen; }));
  }  // both are killed
  done->store(true);
  EXPECT_EQ(reader.join(), 0) << reader.failures();
  EXPECT_GT(reads->load(), 100);
  value.set(Page(5));
  EXPECT_EQ(value.get(), Page(5));
}

// ---- a store in between, and a fork in between ----

TEST(ValueInProcess, StoreByAnotherProcessInBetweenStands) {
  Value<int> value(1);
  auto held = value.lock();
  *held = 100;
  Child child([&](Child&) { value = 7; });
  EXPECT_EQ(child.join(), 0) << child.failures();
  EXPECT_THROW(held.unlock(), std::logic_error);
  EXPECT_EQ(value.get(), 7);
}

// The copy of a Locked that fork makes holds nothing.
TYPED_TEST(ValueProcess, ForkedCopyOfLockedNeitherPublishesNorLetsGo) {
  using T = TypeParam;
  Value<T> value(T(1));
  auto held = value.lock();
  *held = T(2);
  Child child([&](Child& self) {
    bool refused = false;
    try {
      held.unlock();
    } catch (const std::logic_error&) {
      refused = true;
    }
    self.expect(refused, "no error");
    self.expect(value.get() == T(1), "published");
    try {
      (void)value.lock(now);
      self.expect(false, "let go");
    } catch (const TimeoutError&) {
    }
  });
  EXPECT_EQ(child.join(), 0) << child.failures();
  EXPECT_EQ(value.get(), T(1));
  held.unlock();
  EXPECT_EQ(value.get(), T(2));
}

}  // namespace
