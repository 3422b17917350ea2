// Pipe between processes: who owns an end after a fork, what the other end
// sees when its owner exits, is killed or is stopped.

#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <functional>
#include <random>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/event.h"
#include "shoal/ipc/pipe.h"
#include "shoal/ipc/process.h"
#include "tests/support/child.h"
#include "tests/support/step.h"
#include "tests/support/thread.h"

namespace {

using namespace shoal;
using namespace std::chrono_literals;
using support::Child;
using support::eventually;
using support::Shared;
using support::Thread;

using Bytes = std::vector<std::byte>;

Bytes pattern(std::size_t n, unsigned seed = 1) {
  Bytes bytes(n);
  for (std::size_t i = 0; i < n; ++i)
    bytes[i] = static_cast<std::byte>((i * 31 + i / 253 + seed) & 0xFF);
  return bytes;
}

// A process that has an end of a Pipe and does not exit by itself.
class Holder {
 public:
  explicit Holder(Connection end)
      : process_(
            [](Connection, std::atomic<bool>* began) {
              *began = true;
              for (;;) pause();
            },
            std::move(end), &*began_) {
    process_.start();
    eventually([this] { return began_->load(); });
  }
  Holder(const Holder&) = delete;
  Holder& operator=(const Holder&) = delete;
  ~Holder() { kill(); }
  void kill() {
    process_.kill();
    process_.join();
  }
  void signal(int number) { ::kill(process_.pid(), number); }
  pid_t pid() { return process_.pid(); }

 private:
  Shared<std::atomic<bool>> began_;
  Process process_;
};

template <class F>
bool says_peer_died(F f) {
  try {
    f();
  } catch (const PeerDied&) {
    return true;
  } catch (const EndOfFile&) {
  }
  return false;
}

// Its own threads, asleep as well, are not those whom the kernel tells.
TEST(PipeProcess, DeathIsToldPastThreadsOfTheDead) {
  for (int round = 0; round < 6; ++round) {
    auto ends = Pipe();
    Connection& parent = ends.first;
    const Event never;
    Shared<std::atomic<int>> asleep;
    Process process([&, child = std::move(ends.second)]() mutable {
      child.send(1);
      std::vector<std::thread> threads;
      for (int i = 0; i < 6; ++i)
        threads.emplace_back([&] { ++*asleep, never.wait(); });
      for (;;) pause();
    });
    process.start();
    EXPECT_EQ(parent.recv<int>(), 1);
    std::chrono::steady_clock::time_point told;
    Thread receiver([&] {
      EXPECT_TRUE(says_peer_died([&] { parent.recv<int>(); }));
      told = std::chrono::steady_clock::now();
    });
    ASSERT_TRUE(receiver.falls_asleep());
    ASSERT_TRUE(eventually([&] { return *asleep == 6; }));
    // They sleep before it looks again, and stand in front of it then.
    std::this_thread::sleep_for(1100ms);
    const auto killed = std::chrono::steady_clock::now();
    process.kill();
    process.join();
    ASSERT_TRUE(receiver.ends());
    EXPECT_LT(told - killed, 750ms) << round;
  }
}

// ---- moved into a Process ----

TEST(PipeProcess, AnswersFromAChild) {
  auto [parent, child] = Pipe();
  Process process([child = std::move(child)]() mutable {
    child.send(child.recv<int>() + 1);
    child.send(child.recv<std::string>() + "!");
    child.send_bytes(child.recv_bytes());
  });
  process.start();
  parent.send(41);
  EXPECT_EQ(parent.recv<int>(), 42);
  parent.send("hello");
  EXPECT_EQ(parent.recv<std::string>(), "hello!");
  parent.send_bytes(pattern(3000000));
  EXPECT_EQ(parent.recv_bytes(), pattern(3000000));
  EXPECT_THROW(parent.recv<int>(), EndOfFile);
  EXPECT_THROW(parent.send(1), BrokenPipe);
  EXPECT_TRUE(process.join());
  EXPECT_EQ(process.exitcode(), 0);
}

TEST(PipeProcess, AsAnArgument) {
  auto [reader, writer] = Pipe(false);
  Process process(
      [](Connection out, int n) {
        for (int i = 0; i < n; ++i) out.send(i);
      },
      std::move(writer), 5000);
  process.start();
  for (int i = 0; i < 5000; ++i) ASSERT_EQ(reader.recv<int>(), i);
  EXPECT_FALSE(says_peer_died([&, &reader = reader] { reader.recv<int>(); }));
  EXPECT_THROW(reader.recv<int>(), EndOfFile);
}

// Both ends go to children; neither is the parent's.
TEST(PipeProcess, BetweenTwoChildren) {
  auto [reader, writer] = Pipe(false);
  Shared<std::atomic<long>> sum;
  Process consumer(
      [&sum](Connection in) {
        try {
          for (;;) *sum += in.recv<int>();
        } catch (const EndOfFile&) {
        }
      },
      std::move(reader));
  consumer.start();
  Process producer(
      [](Connection out) {
        for (int i = 1; i <= 20000; ++i) out.send(i);
      },
      std::move(writer));
  producer.start();
  EXPECT_TRUE(producer.join(20s));
  EXPECT_TRUE(consumer.join(20s));
  EXPECT_EQ(*sum, 20000L * 20001 / 2);
}

// Down a line of processes, each of which hands it on unused.
TEST(PipeProcess, HandedOnFromChildToChild) {
  auto [mine, theirs] = Pipe();
  std::function<void(Connection, int)> hand_on = [&](Connection end,
                                                     int depth) {
    if (depth == 0) return end.send("from below");
    Process next([&hand_on, end = std::move(end), depth]() mutable {
      hand_on(std::move(end), depth - 1);
    });
    next.start();
    next.join();
  };
  Process first([&hand_on, end = std::move(theirs)]() mutable {
    hand_on(std::move(end), 3);
  });
  first.start();
  EXPECT_EQ(mine.recv<std::string>(), "from below");
  EXPECT_THROW(mine.recv<int>(), EndOfFile);
}

TEST(PipeProcess, SeveralInContainers) {
  std::vector<Connection> mine, theirs;
  for (int i = 0; i < 20; ++i) {
    auto [a, b] = Pipe({.capacity = 4096});
    mine.push_back(std::move(a));
    theirs.push_back(std::move(b));
  }
  Process process([theirs = std::move(theirs)]() mutable {
    for (auto& end : theirs) end.send(end.recv<int>() * 2);
    theirs.erase(theirs.begin(), theirs.begin() + 10);
    for (;;) pause();
  });
  process.start();
  for (int i = 0; i < 20; ++i) mine[static_cast<std::size_t>(i)].send(i);
  for (int i = 0; i < 20; ++i)
    EXPECT_EQ(mine[static_cast<std::size_t>(i)].recv<int>(), 2 * i);
  for (std::size_t i = 0; i < 10; ++i)
    EXPECT_FALSE(says_peer_died([&] { mine[i].recv<int>(); }));
  process.kill();
  for (std::size_t i = 10; i < 20; ++i)
    EXPECT_TRUE(says_peer_died([&] { mine[i].recv<int>(); }));
}

TEST(PipeProcess, WhatWasSentBeforeIsThere) {
  auto [mine, theirs] = Pipe();
  mine.send(1);
  theirs.send(10);
  Process process([end = std::move(theirs)]() mutable {
    end.send(end.recv<int>() + end.recv<int>());
  });
  mine.send(2);
  process.start();
  EXPECT_EQ(mine.recv<int>(), 10);
  EXPECT_EQ(mine.recv<int>(), 3);
}

// An end that goes with an unstarted Process is closed.
TEST(PipeProcess, UnstartedProcessCloses) {
  auto [mine, theirs] = Pipe();
  {
    const Process process([end = std::move(theirs)] {});
  }
  EXPECT_THROW(mine.recv<int>(), EndOfFile);
}

TEST(PipeProcess, UnusedEndOfAChildThatEnds) {
  auto [mine, theirs] = Pipe();
  Process process([end = std::move(theirs)] {});
  process.start();
  // It was not used, but the child has let it go before it ended.
  EXPECT_THROW(mine.recv<int>(), EndOfFile);
}

// ---- the other end dies ----

TEST(PipeProcess, KilledOwnerIsSeenWithinMilliseconds) {
  auto [mine, theirs] = Pipe();
  Holder holder(std::move(theirs));
  EXPECT_FALSE(mine.poll(5ms));
  Thread killer([&] {
    while (!support::asleep(getpid(), getpid())) support::yield_cpu();
    holder.signal(SIGKILL);
  });
  EXPECT_TRUE(says_peer_died([&, &mine = mine] { mine.recv<int>(); }));
  EXPECT_TRUE(killer.ends());
  EXPECT_TRUE(mine.poll());
  EXPECT_THROW(mine.send(1), BrokenPipe);
  EXPECT_TRUE(says_peer_died([&, &mine = mine] { mine.recv_bytes(); }));
}

TEST(PipeProcess, BrokenPipeAtOnceAfterADeath) {
  auto [mine, theirs] = Pipe();
  Holder holder(std::move(theirs));
  mine.send(1);
  holder.kill();
  EXPECT_THROW(mine.send(1), BrokenPipe);
}

TEST(PipeProcess, DeathOfTheReceiverWakesASender) {
  auto [mine, theirs] = Pipe({.capacity = 4096});
  Holder holder(std::move(theirs));
  Thread sender(
      [&, &mine = mine] { EXPECT_THROW(for (;;) mine.send(1), BrokenPipe); });
  ASSERT_TRUE(sender.falls_asleep());
  holder.kill();
  EXPECT_TRUE(sender.ends());
}

TEST(PipeProcess, WhatTheDeadSentIsThere) {
  auto [mine, theirs] = Pipe();
  Process process([end = std::move(theirs)]() mutable {
    end.send(1);
    end.send_bytes(pattern(700000));
    end.send(2);
    raise(SIGKILL);
  });
  process.start();
  process.join();
  EXPECT_EQ(mine.recv<int>(), 1);
  EXPECT_EQ(mine.recv_bytes(), pattern(700000));
  EXPECT_EQ(mine.recv<int>(), 2);
  EXPECT_TRUE(says_peer_died([&, &mine = mine] { mine.recv<int>(); }));
}

TEST(PipeProcess, KilledWithAFrameAndWithAView) {
  auto [mine, theirs] = Pipe();
  mine.send(5);
  Process process([end = std::move(theirs)]() mutable {
    auto view = end.peek();
    auto frame = end.reserve(600000);
    raise(SIGKILL);
  });
  process.start();
  EXPECT_TRUE(says_peer_died([&, &mine = mine] { mine.recv<int>(); }));
}

// ---- a bare fork ----

TEST(PipeProcess, BareForkFirstUseDecides) {
  auto [a, b] = Pipe();
  Shared<std::atomic<int>> step;
  Child child([&, &a = a, &b = b](Child& self) {
    b.send(b.recv<int>() + 1);
    while (*step == 0) support::yield_cpu();
    try {
      a.send(1);
      self.expect(false, "the parent's end");
    } catch (const std::logic_error&) {
    }
    a.close();  // of a copy: nothing
    self.expect(a.closed(), "the copy is closed");
  });
  a.send(1);
  EXPECT_EQ(a.recv<int>(), 2);
  EXPECT_THROW(b.send(1), std::logic_error);
  EXPECT_THROW(b.recv<int>(), std::logic_error);
  b.close();  // of a copy: nothing
  *step = 1;
  EXPECT_EQ(child.join(), 0) << child.failures();
  EXPECT_TRUE(says_peer_died([&, &a = a] { a.recv<int>(); }));
}

TEST(PipeProcess, CopiesMadeByForkDelayNothing) {
  auto [a, b] = Pipe();
  Shared<std::atomic<bool>> go;
  Child child([&](Child&) {
    while (!*go) support::yield_cpu();
  });
  b.close();
  EXPECT_FALSE(says_peer_died([&, &a = a] { a.recv<int>(1s); }));
  *go = true;
  EXPECT_EQ(child.join(), 0) << child.failures();
}

// The parent goes on with both ends; the child ends with its copies.
TEST(PipeProcess, ForkedChildrenTakeNothing) {
  auto [a, b] = Pipe();
  a.send(1);
  for (int i = 0; i < 3; ++i) {
    Child child([&](Child&) {});
    EXPECT_EQ(child.join(), 0);
    a.send(2 + i);
  }
  for (int i = 1; i <= 4; ++i) EXPECT_EQ(b.recv<int>(), i);
}

TEST(PipeProcess, InUseAtTheFork) {
  auto [a, b] = Pipe();
  Thread receiver([&b = b] { EXPECT_EQ(b.recv<int>(), 1); });
  ASSERT_TRUE(receiver.falls_asleep());
  Child child([&b = b](Child& self) {
    try {
      b.recv<int>(now);
      self.expect(false, "a thread of the parent was receiving");
    } catch (const std::logic_error&) {
    }
  });
  EXPECT_EQ(child.join(), 0) << child.failures();
  a.send(1);
  EXPECT_TRUE(receiver.ends());
}

// ---- stopped ----

TEST(PipeProcess, AStoppedPeerIsWaitedFor) {
  auto [mine, theirs] = Pipe({.capacity = 4096});
  Process process([end = std::move(theirs)]() mutable {
    for (;;) {
      Bytes bytes = end.recv_bytes();
      if (bytes.empty()) return;
      end.send_bytes(bytes);
    }
  });
  process.start();
  std::mt19937 random(1);
  for (int i = 0; i < 40; ++i) {
    const Bytes bytes = pattern(1 + random() % (i % 2 == 0 ? 500 : 300000));
    mine.send_bytes(bytes);
    for (auto n = random() % 3000; n != 0; --n) waiting::pause();
    kill(process.pid(), SIGSTOP);
    eventually([&] { return support::is_stopped(process.pid()); });
    EXPECT_NO_THROW(mine.poll(3ms));
    kill(process.pid(), SIGCONT);
    ASSERT_EQ(mine.recv_bytes(), bytes);
  }
  mine.send_bytes(Bytes());
  EXPECT_TRUE(process.join());
  EXPECT_EQ(process.exitcode(), 0);
}

// ---- no memory ----

TEST(PipeProcess, NoSpaceAndThenAgain) {
  auto [a, b] = Pipe();
  if (support::kAddressSanitizer) GTEST_SKIP() << "no address space to limit";
  Child child([&a = a, &b = b](Child& self) {
    const rlimit small{1 << 20, RLIM_INFINITY};
    rlimit before;
    getrlimit(RLIMIT_AS, &before);
    setrlimit(RLIMIT_AS, &small);
    bool refused = false;
    try {
      auto frame = a.reserve(64 << 20);
    } catch (const std::system_error&) {
      refused = true;
    } catch (const NoSpace&) {
      refused = true;
    }
    setrlimit(RLIMIT_AS, &before);
    self.expect(refused, "no room for a block");
    a.send(1);
    a.send_bytes(pattern(5 << 20));
    self.expect(b.recv<int>() == 1, "the next one works");
    self.expect(b.recv_bytes() == pattern(5 << 20), "and the long one");
  });
  EXPECT_EQ(child.join(), 0) << child.failures();
}

}  // namespace
