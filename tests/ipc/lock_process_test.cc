// Lock and RLock between processes.

#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>

#include "gtest/gtest.h"
#include "shoal/ipc/handle.h"
#include "shoal/ipc/lock.h"
#include "shoal/ipc/queue.h"
#include "tests/support/child.h"
#include "tests/support/name.h"
#include "tests/support/reexec.h"
#include "tests/support/thread.h"

namespace {

using shoal::Lock;
using shoal::now;
using shoal::Queue;
using shoal::RLock;
using shoal::support::Child;
using shoal::support::eventually;
using shoal::support::exec_tests;
using shoal::support::falls_asleep;
using shoal::support::given;
using shoal::support::Name;
using shoal::support::Shared;
using shoal::support::Thread;
using namespace std::chrono_literals;

template <class T>
class AnyLock : public testing::Test {};
using Kinds = testing::Types<Lock, RLock>;
TYPED_TEST_SUITE(AnyLock, Kinds);

// In plain memory: only the lock keeps its halves equal.
struct Guarded {
  std::uint64_t first;
  std::uint64_t second;

  bool consistent() const { return first == second; }
  void add() {
    ++first;
    if (first % 8 == 0) sched_yield();  // with the lock held
    ++second;
  }
  void repair() { second = first; }
};

TYPED_TEST(AnyLock, OneProcessAtATime) {
  TypeParam lock;
  Shared<Guarded> guarded;
  constexpr int kRounds = 5000;
  const auto work = [&] {
    bool consistent = true;
    for (int i = 0; i < kRounds; ++i) {
      const std::lock_guard guard(lock);
      consistent &= guarded->consistent();
      guarded->add();
    }
    return consistent;
  };
  const auto body = [&](Child& self) { self.expect(work(), "excluded"); };
  std::deque<Child> children;
  for (int i = 0; i < 3; ++i) children.emplace_back(body);
  EXPECT_TRUE(work());
  for (auto& child : children) EXPECT_EQ(child.join(), 0) << child.failures();
  EXPECT_EQ(guarded->first, 4u * kRounds);
  EXPECT_FALSE(lock.locked());
  EXPECT_FALSE(lock.owner_died());
}

// ---- fork ----

TYPED_TEST(AnyLock, AForkedChildHoldsNothing) {
  TypeParam lock;
  lock.acquire();
  {
    Child child([&](Child& self) {
      self.expect(lock.locked(), "the parent holds it");
      self.expect(!lock.acquire(now), "not to be had");
      self.expect(!lock.acquire(20ms), "nor after a while");
      try {
        lock.release();
        self.expect(false, "released what another process holds");
      } catch (const std::logic_error&) {
      }
    });
    EXPECT_EQ(child.join(), 0) << child.failures();
  }
  EXPECT_TRUE(lock.locked()) << "the child's end is not the holder's";
  Child waiter([&](Child& self) {
    self.expect(lock.acquire(), "when the parent lets go");
    self.expect(!lock.owner_died(), "nobody has died");
    lock.release();
  });
  ASSERT_TRUE(falls_asleep(waiter.pid(), waiter.pid()));
  lock.release();
  EXPECT_EQ(waiter.join(), 0) << waiter.failures();
}

TYPED_TEST(AnyLock, AForkWhileAThreadHoldsIt) {
  TypeParam lock;
  Queue<int> held(1);
  Queue<int> end(1);
  Thread holder([&] {
    const std::lock_guard guard(lock);
    held.put(1);
    end.get();
  });
  held.get();
  Child child([&](Child& self) {
    self.expect(!lock.acquire(now), "held by a thread of the parent");
    end.put(1);
    self.expect(lock.acquire(), "released by it");
    self.expect(!lock.owner_died(), "which lives");
    lock.release();
  });
  EXPECT_EQ(child.join(), 0) << child.failures();
  EXPECT_TRUE(holder.ends());
}

TYPED_TEST(AnyLock, GrandchildrenSeeTheSameLock) {
  TypeParam lock;
  Child child([&](Child& self) {
    lock.acquire();
    Child grandchild([&](Child& inner) {
      inner.expect(lock.locked(), "held by the child");
      inner.expect(!lock.acquire(now), "not to be had");
    });
    self.expect(grandchild.join() == 0, grandchild.failures());
    lock.release();
  });
  EXPECT_EQ(child.join(), 0) << child.failures();
  EXPECT_TRUE(lock.acquire(now));
  EXPECT_FALSE(lock.owner_died());
  lock.release();
}

// ---- death ----

enum class End { killed, exited, returned };

// A child that takes the lock, says so, and ends when `end` gets a value.
void hold_and_end(Queue<int>& held, Queue<int>& end, auto& lock, End how) {
  lock.acquire();
  held.put(1);
  end.get();
  if (how == End::killed) raise(SIGKILL);
  if (how == End::exited) _exit(0);
}

TYPED_TEST(AnyLock, OfADeadProcessIsHadAndTold) {
  for (const End how : {End::killed, End::exited, End::returned}) {
    SCOPED_TRACE(static_cast<int>(how));
    TypeParam lock;
    Queue<int> held(1);
    Queue<int> end(1);
    Child holder([&](Child&) { hold_and_end(held, end, lock, how); });
    held.get();
    EXPECT_TRUE(lock.locked());
    EXPECT_FALSE(lock.acquire(now));
    end.put(1);
    ASSERT_EQ(holder.join(), how == End::killed ? -SIGKILL : 0);
    EXPECT_FALSE(lock.locked());
    ASSERT_TRUE(lock.acquire(10s));
    EXPECT_TRUE(lock.owner_died());
    lock.release();
    ASSERT_TRUE(lock.acquire());
    EXPECT_TRUE(lock.owner_died());
    lock.mark_consistent();
    EXPECT_FALSE(lock.owner_died());
    lock.release();
  }
}

TYPED_TEST(AnyLock, ADeathWakesTheNext) {
  for (const End how : {End::killed, End::exited, End::returned}) {
    SCOPED_TRACE(static_cast<int>(how));
    TypeParam lock;
    Queue<int> held(1);
    Queue<int> end(1);
    Child holder([&](Child&) { hold_and_end(held, end, lock, how); });
    held.get();
    Thread thread([&] {
      EXPECT_TRUE(lock.acquire());
      EXPECT_TRUE(lock.owner_died());
      lock.release();
    });
    Child process([&](Child& self) {
      self.expect(lock.acquire(), "acquired");
      self.expect(lock.owner_died(), "told");
      lock.release();
    });
    ASSERT_TRUE(thread.falls_asleep());
    ASSERT_TRUE(falls_asleep(process.pid(), process.pid()));
    end.put(1);
    EXPECT_TRUE(thread.ends());
    EXPECT_EQ(process.join(), 0) << process.failures();
  }
}

TYPED_TEST(AnyLock, ADeadWaiterIsNotWaitedFor) {
  TypeParam lock;
  lock.acquire();
  {
    Child waiter([&](Child&) { lock.acquire(); });
    ASSERT_TRUE(falls_asleep(waiter.pid(), waiter.pid()));
    waiter.kill();
    ASSERT_EQ(waiter.join(), -SIGKILL);
  }
  Child other([&](Child& self) {
    self.expect(lock.acquire(), "acquired");
    self.expect(!lock.owner_died(), "it was not the owner");
    lock.release();
  });
  ASSERT_TRUE(falls_asleep(other.pid(), other.pid()));
  lock.release();
  EXPECT_EQ(other.join(), 0) << other.failures();
}

TYPED_TEST(AnyLock, AThreadThatEndsInAnotherProcessHandsOn) {
  TypeParam lock;
  Queue<int> ended(1);
  Child child([&](Child&) {
    std::thread([&] { lock.acquire(); }).join();
    ended.put(1);
    Queue<int>(1).get();  // the process lives on
  });
  ended.get();
  EXPECT_TRUE(lock.acquire(10s));
  EXPECT_TRUE(lock.owner_died());
  lock.release();
}

TEST(RLock, DepthOfADeadProcessIsForgotten) {
  RLock lock;
  Child child([&](Child&) {
    for (int i = 0; i < 7; ++i) lock.acquire();
    raise(SIGKILL);
  });
  ASSERT_EQ(child.join(), -SIGKILL);
  EXPECT_TRUE(lock.acquire(10s));
  lock.release();
  EXPECT_FALSE(lock.locked());
}

TYPED_TEST(AnyLock, AStoppedHolderIsNotADeadOne) {
  TypeParam lock;
  Queue<int> held(1);
  Queue<int> end(1);
  Child holder([&](Child&) {
    lock.acquire();
    held.put(1);
    end.get();
    lock.release();
  });
  held.get();
  holder.kill(SIGSTOP);
  int status = 0;
  ASSERT_EQ(waitpid(holder.pid(), &status, WUNTRACED), holder.pid());
  ASSERT_TRUE(WIFSTOPPED(status));
  EXPECT_TRUE(lock.locked());
  EXPECT_FALSE(lock.acquire(300ms)) << "longer than any slice of a wait";
  EXPECT_TRUE(lock.locked());
  holder.kill(SIGCONT);
  end.put(1);
  EXPECT_TRUE(lock.acquire(10s));
  EXPECT_FALSE(lock.owner_died());
  EXPECT_EQ(holder.join(), 0);
  lock.release();
}

// Children work, are killed at any moment, and are replaced; whoever is told of
// a death repairs. What was killed half-way must be told of.
TYPED_TEST(AnyLock, RandomKills) {
  TypeParam lock;
  Shared<Guarded> guarded;
  Shared<std::atomic<std::uint64_t>> rounds;
  const auto work = [&](Child& self) {
    for (;;) {
      const std::lock_guard guard(lock);
      if (lock.owner_died()) {
        guarded->repair();
        lock.mark_consistent();
      }
      self.expect(guarded->consistent(), "nobody has died, nothing is half");
      guarded->add();
      ++*rounds;
    }
  };
  std::mt19937 random(3);
  std::array<std::optional<Child>, 3> children;
  int kills = 0;
  for (; kills < 150; ++kills) {
    for (auto& child : children)
      if (!child) child.emplace(work);
    const std::uint64_t before = rounds->load();
    ASSERT_TRUE(
        eventually([&] { return rounds->load() > before + random() % 50; }));
    auto& victim = children[random() % children.size()];
    victim->kill();
    ASSERT_EQ(victim->join(), -SIGKILL) << victim->failures();
    EXPECT_EQ(victim->failures(), "");
    victim.reset();
  }
  for (auto& child : children) {
    if (!child) continue;
    child->kill();
    ASSERT_EQ(child->join(), -SIGKILL);
    EXPECT_EQ(child->failures(), "");
  }
  ASSERT_TRUE(lock.acquire(10s));
  EXPECT_TRUE(lock.owner_died() || guarded->consistent());
  lock.release();
}

// ---- other addresses ----

const void* address_of(const auto& handle) {
  return shoal::HandleAccess::object(handle)->payload();
}

// Under `lock`, a value that is nowhere for a moment.
bool take_turns(Lock& lock, Queue<int>& counter, int rounds) {
  for (int i = 0; i < rounds; ++i) {
    const std::lock_guard guard(lock);
    const auto count = counter.try_get();
    if (!count) return false;
    counter.put_nowait(*count + 1);
  }
  return true;
}

class DISABLED_LockElsewhere : public testing::Test {};

TEST_F(DISABLED_LockElsewhere, TakesTurns) {
  auto lock = Lock::open(given("LOCK"));
  auto counter = Queue<int>::open(given("COUNTER"));
  EXPECT_TRUE(take_turns(lock, counter, 2000));
}

TEST_F(DISABLED_LockElsewhere, DiesWithIt) {
  auto lock = RLock::open(given("LOCK"));
  lock.acquire();
  lock.acquire();
  Queue<int>::open(given("HELD")).put(1);
  Queue<int>(1).get();
}

TEST(LockElsewhere, ExcludesProcessesThatMapItOnTheirOwn) {
  const Name lock_name("lock");
  const Name counter_name("counter");
  auto lock = Lock::create(lock_name);
  auto counter = Queue<int>::create(counter_name, 1);
  counter.put(0);
  Child other([&](Child&) {
    exec_tests("DISABLED_LockElsewhere.TakesTurns",
               {"LOCK=" + lock_name.text(), "COUNTER=" + counter_name.text()});
  });
  EXPECT_TRUE(take_turns(lock, counter, 2000));
  EXPECT_EQ(other.join(), 0);
  EXPECT_EQ(counter.get(now), 4000);
}

// Forked alike and with nothing mapped, they map both in either order.
TEST(LockElsewhere, AtAnotherAddressInEachProcess) {
  const Name lock_name("lock");
  const Name counter_name("counter");
  Lock::create(lock_name);
  Queue<int>::create(counter_name, 1).put(0);
  Shared<std::array<std::atomic<const void*>, 2>> addresses;
  const auto work = [&](Child& self, std::size_t which, auto& lock,
                        auto& counter) {
    (*addresses)[which] = address_of(lock);
    self.expect(take_turns(lock, counter, 2000), "excluded");
  };
  Child first([&](Child& self) {
    auto lock = Lock::open(lock_name);
    auto counter = Queue<int>::open(counter_name);
    work(self, 0, lock, counter);
  });
  Child second([&](Child& self) {
    auto counter = Queue<int>::open(counter_name);
    auto lock = Lock::open(lock_name);
    work(self, 1, lock, counter);
  });
  EXPECT_EQ(first.join(), 0) << first.failures();
  EXPECT_EQ(second.join(), 0) << second.failures();
  EXPECT_NE((*addresses)[0].load(), (*addresses)[1].load());
  EXPECT_EQ(Queue<int>::open(counter_name).get(now), 4000);
}

TEST(LockElsewhere, AStrangersDeathIsTold) {
  const Name name("stranger");
  const Name held_name("held");
  auto lock = RLock::create(name);
  auto held = Queue<int>::create(held_name, 1);
  Child stranger([&](Child&) {
    exec_tests("DISABLED_LockElsewhere.DiesWithIt",
               {"LOCK=" + name.text(), "HELD=" + held_name.text()});
  });
  ASSERT_EQ(held.get(30s), 1);
  Thread waiter([&] {
    EXPECT_TRUE(lock.acquire());
    EXPECT_TRUE(lock.owner_died());
    lock.release();
  });
  ASSERT_TRUE(waiter.falls_asleep());
  stranger.kill();
  EXPECT_TRUE(waiter.ends());
  EXPECT_EQ(stranger.join(), -SIGKILL);
}

}  // namespace
