// Lock and RLock in one process.

#include "shoal/ipc/lock.h"

#include <signal.h>
#include <sys/stat.h>

#include <chrono>
#include <exception>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/queue.h"
#include "tests/support/child.h"
#include "tests/support/name.h"
#include "tests/support/residue.h"
#include "tests/support/thread.h"

namespace {

using shoal::Access;
using shoal::Lock;
using shoal::monotonic_now;
using shoal::now;
using shoal::Queue;
using shoal::RLock;
using shoal::Timeout;
using shoal::TypeMismatch;
using shoal::support::Name;
using shoal::support::residue;
using shoal::support::Thread;
using shoal::support::unique_name;
using testing::AllOf;
using testing::HasSubstr;
using namespace std::chrono_literals;

constexpr auto kShort = 40ms;
// Generous: other tests run beside this one.
constexpr auto kAbsurd = 10s;

template <class T>
class AnyLock : public testing::Test {};
using Kinds = testing::Types<Lock, RLock>;
TYPED_TEST_SUITE(AnyLock, Kinds);

// What another thread sees: whether it could have the lock.
template <class T>
bool free_for_others(T& lock) {
  bool got = false;
  Thread other([&] {
    got = lock.acquire(now);
    if (got) lock.release();
  });
  EXPECT_TRUE(other.ends());
  return got;
}

static_assert(std::is_copy_constructible_v<Lock>);
static_assert(std::is_copy_assignable_v<Lock>);
static_assert(!std::is_same_v<Lock, RLock>);

TYPED_TEST(AnyLock, StartsFree) {
  TypeParam lock;
  EXPECT_FALSE(lock.locked());
  EXPECT_FALSE(lock.owner_died());
  EXPECT_TRUE(free_for_others(lock));
}

TYPED_TEST(AnyLock, ExcludesOthersUntilReleased) {
  TypeParam lock;
  EXPECT_TRUE(lock.acquire());
  EXPECT_TRUE(lock.locked());
  EXPECT_FALSE(free_for_others(lock));
  lock.release();
  EXPECT_FALSE(lock.locked());
  EXPECT_TRUE(free_for_others(lock));
}

TYPED_TEST(AnyLock, IsWonAgainAndAgain) {
  TypeParam lock;
  for (int i = 0; i < 1000; ++i) {
    ASSERT_TRUE(lock.acquire(i % 2 == 0 ? shoal::forever : now));
    ASSERT_FALSE(lock.owner_died());
    lock.release();
  }
}

TYPED_TEST(AnyLock, WaitsForTheHolder) {
  TypeParam lock;
  lock.acquire();
  bool released = false;
  Thread waiter([&] {
    EXPECT_TRUE(lock.acquire());
    EXPECT_TRUE(released) << "what the last holder did is visible";
    EXPECT_FALSE(lock.owner_died());
    lock.release();
  });
  ASSERT_TRUE(waiter.falls_asleep());
  released = true;
  lock.release();
  EXPECT_TRUE(waiter.ends());
}

// ---- timeouts ----

TYPED_TEST(AnyLock, TimeoutIsNeitherEarlyNorAbsurdlyLate) {
  TypeParam lock;
  lock.acquire();
  Thread other([&] {
    const std::int64_t start = monotonic_now();
    EXPECT_FALSE(lock.acquire(kShort));
    const std::chrono::nanoseconds took(monotonic_now() - start);
    EXPECT_GE(took, kShort);
    EXPECT_LT(took, kAbsurd);
  });
  EXPECT_TRUE(other.ends());
  EXPECT_TRUE(lock.locked());
  lock.release();
}

TYPED_TEST(AnyLock, NowAndNegativeDoNotWait) {
  TypeParam lock;
  lock.acquire();
  Thread other([&] {
    for (const Timeout timeout : {now, Timeout(-1ns), Timeout(-1000h),
                                  Timeout(std::chrono::nanoseconds::min())})
      EXPECT_FALSE(lock.acquire(timeout));
  });
  EXPECT_TRUE(other.ends());
  lock.release();
  EXPECT_TRUE(lock.acquire(-1s)) << "a free lock is had at once";
  lock.release();
}

TYPED_TEST(AnyLock, ReleasedBeforeTheTimeoutIsHad) {
  TypeParam lock;
  lock.acquire();
  Thread waiter([&] {
    EXPECT_TRUE(lock.acquire(kAbsurd));
    lock.release();
  });
  ASSERT_TRUE(waiter.falls_asleep());
  lock.release();
  EXPECT_TRUE(waiter.ends());
}

// ---- as the standard library uses it ----

TYPED_TEST(AnyLock, LockGuard) {
  TypeParam lock;
  {
    const std::lock_guard guard(lock);
    EXPECT_FALSE(free_for_others(lock));
  }
  EXPECT_FALSE(lock.locked());
}

TYPED_TEST(AnyLock, UniqueLock) {
  TypeParam lock;
  std::unique_lock guard(lock);
  EXPECT_TRUE(guard.owns_lock());
  EXPECT_FALSE(free_for_others(lock));
  guard.unlock();
  EXPECT_FALSE(lock.locked());
  guard.lock();
  EXPECT_TRUE(lock.locked());
  guard.unlock();
  EXPECT_TRUE(guard.try_lock());
  guard.unlock();
  EXPECT_TRUE(guard.try_lock_for(1h));
  guard.unlock();
  EXPECT_TRUE(guard.try_lock_until(std::chrono::steady_clock::now() + 1h));
  guard.unlock();
  Thread other([&] {
    const std::lock_guard held(lock);
    Thread third([&] {
      std::unique_lock refused(lock, std::try_to_lock);
      EXPECT_FALSE(refused.owns_lock());
      std::unique_lock late(lock, kShort);
      EXPECT_FALSE(late.owns_lock());
      std::unique_lock past(lock, std::chrono::system_clock::now() - 1h);
      EXPECT_FALSE(past.owns_lock());
    });
    EXPECT_TRUE(third.ends());
  });
  EXPECT_TRUE(other.ends());
}

TYPED_TEST(AnyLock, ScopedLockOfTwo) {
  TypeParam first;
  TypeParam second;
  {
    const std::scoped_lock guard(first, second);
    EXPECT_FALSE(free_for_others(first));
    EXPECT_FALSE(free_for_others(second));
  }
  EXPECT_FALSE(first.locked());
  EXPECT_FALSE(second.locked());
}

TYPED_TEST(AnyLock, TryLockUntilOfAnyClock) {
  TypeParam lock;
  using std::chrono::steady_clock;
  using std::chrono::system_clock;
  lock.lock();
  Thread other([&] {
    EXPECT_FALSE(lock.try_lock());
    EXPECT_FALSE(lock.try_lock_for(-1s));
    EXPECT_FALSE(lock.try_lock_for(kShort));
    const auto steady = steady_clock::now() + kShort;
    EXPECT_FALSE(lock.try_lock_until(steady));
    EXPECT_GE(steady_clock::now(), steady);
    EXPECT_FALSE(lock.try_lock_until(system_clock::now() + kShort));
    EXPECT_FALSE(lock.try_lock_until(steady_clock::now() - 1h));
    EXPECT_FALSE(lock.try_lock_until(steady_clock::time_point()));
    EXPECT_FALSE(lock.try_lock_until(system_clock::time_point()));
    EXPECT_FALSE(lock.try_lock_until(steady_clock::time_point::min()));
    EXPECT_FALSE(lock.try_lock_until(system_clock::time_point::min()));
  });
  EXPECT_TRUE(other.ends());
  lock.unlock();
  EXPECT_TRUE(lock.try_lock_until(steady_clock::time_point::max()));
  lock.unlock();
  EXPECT_TRUE(lock.try_lock_until(system_clock::time_point::max()));
  lock.unlock();
}

// ---- misuse ----

template <class Call>
std::string text_of_logic_error(Call&& call) {
  try {
    call();
  } catch (const std::logic_error& error) {
    return error.what();
  }
  return "no logic_error";
}

TYPED_TEST(AnyLock, ReleaseOfAFreeLockIsALogicError) {
  TypeParam lock;
  EXPECT_THROW(lock.release(), std::logic_error);
  EXPECT_THROW(lock.unlock(), std::logic_error);
  EXPECT_THROW(lock.mark_consistent(), std::logic_error);
  lock.acquire();
  lock.release();
  EXPECT_THROW(lock.release(), std::logic_error) << "once too many";
  EXPECT_TRUE(free_for_others(lock)) << "and none the worse";
}

TYPED_TEST(AnyLock, ReleaseByAnotherThreadIsALogicError) {
  TypeParam lock;
  lock.acquire();
  Thread other([&] {
    EXPECT_THROW(lock.release(), std::logic_error);
    EXPECT_THROW(lock.mark_consistent(), std::logic_error);
  });
  EXPECT_TRUE(other.ends());
  EXPECT_FALSE(free_for_others(lock)) << "still held";
  lock.release();
}

TEST(Lock, MisuseIsNamed) {
  Lock lock;
  EXPECT_THAT(text_of_logic_error([&] { lock.release(); }),
              AllOf(HasSubstr("Lock::release"), HasSubstr("Semaphore")));
  EXPECT_THAT(text_of_logic_error([&] { RLock().mark_consistent(); }),
              HasSubstr("RLock::mark_consistent"));
  lock.acquire();
  EXPECT_THAT(text_of_logic_error([&] { lock.acquire(); }), HasSubstr("RLock"));
  lock.release();
}

TEST(Lock, SelfDeadlockIsALogicError) {
  Lock lock;
  lock.acquire();
  EXPECT_THROW(lock.acquire(), std::logic_error);
  EXPECT_THROW(lock.lock(), std::logic_error);
  EXPECT_FALSE(lock.acquire(now));
  EXPECT_FALSE(lock.try_lock());
  EXPECT_FALSE(lock.acquire(kShort)) << "ends by itself: no deadlock";
  EXPECT_FALSE(free_for_others(lock)) << "held all the time";
  lock.release();
  EXPECT_TRUE(free_for_others(lock));
}

// ---- recursion ----

TEST(RLock, IsHeldUntilTheLastRelease) {
  RLock lock;
  for (int depth = 0; depth < 100; ++depth) {
    EXPECT_TRUE(lock.acquire(depth % 2 == 0 ? shoal::forever : now));
    EXPECT_TRUE(lock.locked());
  }
  for (int depth = 0; depth < 100; ++depth) {
    EXPECT_FALSE(free_for_others(lock));
    lock.release();
  }
  EXPECT_FALSE(lock.locked());
  EXPECT_TRUE(free_for_others(lock));
  EXPECT_THROW(lock.release(), std::logic_error);
}

TEST(RLock, GuardsNest) {
  RLock lock;
  const std::lock_guard outer(lock);
  {
    const std::scoped_lock inner(lock);
    const std::unique_lock innermost(lock);
  }
  EXPECT_FALSE(free_for_others(lock));
}

TEST(RLock, DepthIsOfOneHolder) {
  RLock lock;
  lock.acquire();
  lock.acquire();
  lock.release();
  lock.release();
  Thread other([&] {
    lock.acquire();
    lock.release();
    EXPECT_THROW(lock.release(), std::logic_error);
  });
  EXPECT_TRUE(other.ends());
}

// ---- a holder that ends ----

TYPED_TEST(AnyLock, AThreadThatEndsHandsOn) {
  TypeParam lock;
  Thread holder([&] { lock.acquire(); });
  ASSERT_TRUE(holder.ends());
  EXPECT_TRUE(lock.acquire(10s));
  EXPECT_TRUE(lock.owner_died());
  EXPECT_TRUE(lock.locked());
  lock.release();
}

TYPED_TEST(AnyLock, AThreadThatEndsWakesTheNext) {
  TypeParam lock;
  Queue<int> end(1);
  Queue<int> held(1);
  Thread holder([&] {
    lock.acquire();
    held.put(1);
    end.get();
  });
  held.get();
  Thread waiter([&] {
    EXPECT_TRUE(lock.acquire());
    EXPECT_TRUE(lock.owner_died());
    lock.mark_consistent();
    lock.release();
  });
  ASSERT_TRUE(waiter.falls_asleep());
  end.put(1);
  EXPECT_TRUE(waiter.ends());
  EXPECT_TRUE(lock.acquire());
  EXPECT_FALSE(lock.owner_died());
  lock.release();
}

TYPED_TEST(AnyLock, OwnerDiedStaysUntilMarkedConsistent) {
  TypeParam lock;
  Thread holder([&] { lock.acquire(); });
  ASSERT_TRUE(holder.ends());
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(lock.acquire(10s));
    EXPECT_TRUE(lock.owner_died()) << "not repaired yet";
    lock.release();
    Thread other([&] {
      lock.acquire();
      EXPECT_TRUE(lock.owner_died());
      lock.release();
    });
    ASSERT_TRUE(other.ends());
  }
  ASSERT_TRUE(lock.acquire());
  lock.mark_consistent();
  EXPECT_FALSE(lock.owner_died());
  EXPECT_TRUE(lock.locked());
  EXPECT_FALSE(free_for_others(lock));
  lock.release();
  ASSERT_TRUE(lock.acquire());
  EXPECT_FALSE(lock.owner_died());
  lock.release();
}

TYPED_TEST(AnyLock, ADeadHoldersLockIsNotLocked) {
  TypeParam lock;
  Thread holder([&] {
    lock.acquire();
    EXPECT_TRUE(lock.locked());
  });
  ASSERT_TRUE(holder.ends());
  // The thread is gone when the system thread is, a moment after its body.
  EXPECT_TRUE(shoal::support::eventually([&] { return !lock.locked(); }));
}

TEST(RLock, DepthOfADeadHolderIsForgotten) {
  RLock lock;
  Thread holder([&] {
    for (int i = 0; i < 5; ++i) lock.acquire();
  });
  ASSERT_TRUE(holder.ends());
  ASSERT_TRUE(lock.acquire(10s));
  lock.release();
  EXPECT_TRUE(free_for_others(lock)) << "one release is enough";
}

// ---- handles and names ----

TYPED_TEST(AnyLock, ACopyIsTheSameLock) {
  TypeParam lock;
  TypeParam copy(lock);
  TypeParam assigned;
  assigned = lock;
  lock.acquire();
  EXPECT_TRUE(copy.locked());
  EXPECT_TRUE(assigned.locked());
  EXPECT_FALSE(free_for_others(copy));
  copy.release();
  EXPECT_FALSE(lock.locked());
  {
    const TypeParam& constant = assigned;
    EXPECT_FALSE(constant.locked());
    EXPECT_FALSE(constant.owner_died());
  }
  std::vector<TypeParam> many(3, lock);
  many[0].acquire();
  EXPECT_TRUE(lock.locked());
  many[2].release();
}

TYPED_TEST(AnyLock, LivesAsLongAsAnyHandle) {
  std::optional<TypeParam> first(std::in_place);
  TypeParam second(*first);
  first->acquire();
  first.reset();
  EXPECT_TRUE(second.locked()) << "the thread holds it, not the handle";
  second.release();
}

TYPED_TEST(AnyLock, TwoAreTwo) {
  TypeParam first;
  TypeParam second;
  first.acquire();
  EXPECT_FALSE(second.locked());
  first.release();
}

TYPED_TEST(AnyLock, MovedToIsTheSameLock) {
  TypeParam lock;
  TypeParam copy(lock);
  lock.acquire();
  TypeParam moved(std::move(lock));
  EXPECT_TRUE(moved.locked());
  moved.release();
  EXPECT_FALSE(copy.locked());
}

TYPED_TEST(AnyLock, MovedFromIsNoWayToCrash) {
  shoal::support::Child child([](shoal::support::Child&) {
    signal(SIGSEGV, SIG_DFL);  // not a sanitizer's
    TypeParam lock;
    const TypeParam moved(std::move(lock));
    try {
      if (lock.acquire(now)) lock.release();
      lock.locked();
      lock.owner_died();
    } catch (const std::exception&) {
    }
    TypeParam other;
    other = std::move(lock);
  });
  EXPECT_EQ(child.join(), 0) << child.failures();
}

TYPED_TEST(AnyLock, NamedIsFoundByItsName) {
  const Name name("lock");
  auto created = TypeParam::create(name);
  auto opened = TypeParam::open(name);
  auto either = TypeParam::open_or_create(name);
  created.acquire();
  EXPECT_TRUE(opened.locked());
  EXPECT_TRUE(either.locked());
  opened.release();
  EXPECT_FALSE(created.locked());
  try {
    TypeParam::create(name);
    ADD_FAILURE() << "made twice";
  } catch (const std::system_error& error) {
    EXPECT_EQ(error.code(), std::errc::file_exists);
    EXPECT_THAT(error.what(), HasSubstr(name.text()));
  }
}

// However often it was opened, it is one lock, and the thread one holder.
TEST(RLock, RecursionThroughAnotherHandle) {
  const Name name("recursion");
  auto lock = RLock::create(name);
  lock.acquire();
  auto again = RLock::open(name);
  ASSERT_TRUE(again.acquire(now));
  lock.release();
  EXPECT_FALSE(free_for_others(lock));
  again.release();
  EXPECT_TRUE(free_for_others(lock));
}

TYPED_TEST(AnyLock, MissingNameIsEnoentAndABadOneInvalid) {
  const Name name("missing");
  try {
    TypeParam::open(name);
    ADD_FAILURE() << "there is none";
  } catch (const std::system_error& error) {
    EXPECT_EQ(error.code(), std::errc::no_such_file_or_directory);
    EXPECT_THAT(error.what(), HasSubstr(name.text()));
  }
  EXPECT_THROW(TypeParam::create("a/b"), std::invalid_argument);
  EXPECT_THROW(TypeParam::open(""), std::invalid_argument);
  EXPECT_THROW(TypeParam::open_or_create("a b"), std::invalid_argument);
}

TYPED_TEST(AnyLock, ModeOfTheName) {
  const Name name("mode");
  TypeParam::create(name, Access{.mode = 0660});
  struct stat status;
  ASSERT_EQ(stat(name.path().c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, mode_t{0660});
}

TYPED_TEST(AnyLock, ReadOnlyIsALogicErrorThatSaysWhy) {
  const Name name("read-only");
  TypeParam::create(name);
  EXPECT_THAT(text_of_logic_error(
                  [&] { TypeParam::open(name, Access{.read_only = true}); }),
              AllOf(HasSubstr(name.text()), HasSubstr("read-only")));
}

TEST(Lock, OtherKindsAreAMismatchThatShowsBoth) {
  const Name name("kind");
  RLock::create(name);
  const auto text = [&](auto&& open) {
    try {
      open();
    } catch (const TypeMismatch& error) {
      return std::string(error.what());
    }
    return std::string("no TypeMismatch");
  };
  EXPECT_THAT(text([&] { Lock::open(name); }),
              AllOf(HasSubstr("Lock"), HasSubstr("RLock")));
  EXPECT_THAT(text([&] { Queue<int>::open(name); }),
              AllOf(HasSubstr("Queue"), HasSubstr("RLock"), HasSubstr("int")));
  EXPECT_THAT(text([&] { Lock::open_or_create(name); }), HasSubstr("RLock"));
}

TYPED_TEST(AnyLock, AThousandLeaveNothing) {
  const auto before = residue();
  for (int i = 0; i < 1000; ++i) {
    TypeParam lock;
    const std::lock_guard guard(lock);
  }
  for (int i = 0; i < 1000; ++i) {
    const std::string name = unique_name("cycle");
    auto lock = TypeParam::create(name);
    lock.acquire();
    auto opened = TypeParam::open(name);
    opened.release();
    ASSERT_TRUE(shoal::unlink(name));
  }
  EXPECT_EQ(residue(), before);
}

}  // namespace
