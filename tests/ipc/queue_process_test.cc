// Queue<T> between processes: forked, and on their own.

#include <sched.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include "gtest/gtest.h"
#include "shoal/ipc/handle.h"
#include "shoal/ipc/liveness.h"
#include "shoal/ipc/queue.h"
#include "tests/ipc/block.h"
#include "tests/support/child.h"
#include "tests/support/name.h"
#include "tests/support/reexec.h"
#include "tests/support/thread.h"

namespace {

using shoal::Closed;
using shoal::now;
using shoal::Queue;
using shoal::ShutDown;
using shoal::support::Block;
using shoal::support::Child;
using shoal::support::eventually;
using shoal::support::exec_tests;
using shoal::support::falls_asleep;
using shoal::support::given;
using shoal::support::Name;
using shoal::support::Shared;
using shoal::support::Tally;
using shoal::support::Thread;
using namespace std::chrono_literals;

// ---- forked ----

TEST(QueueProcess, ToAChildAndBack) {
  Queue<int> there(3);
  Queue<int> back(3);
  Child child([&](Child&) {
    for (int i = 0; i < 10'000; ++i) back.put(2 * there.get());
  });
  Thread feeder([&] {
    for (int i = 0; i < 10'000; ++i) there.put(i);
  });
  for (int i = 0; i < 10'000; ++i) ASSERT_EQ(back.get(), 2 * i);
  EXPECT_EQ(child.join(), 0) << child.failures();
  EXPECT_TRUE(feeder.ends());
}

TEST(QueueProcess, ManyProducersAndConsumers) {
  constexpr std::uint32_t kEach = 5000;
  Queue<Block> queue(7);
  Shared<Tally<3 * kEach>> tally;
  std::deque<Child> producers;
  std::deque<Child> consumers;
  for (std::uint32_t p = 0; p < 3; ++p)
    producers.emplace_back([&, p](Child&) {
      for (std::uint32_t i = 0; i < kEach; ++i)
        queue.put(Block::of(p * kEach + i));
    });
  for (int c = 0; c < 3; ++c)
    consumers.emplace_back([&](Child& self) {
      std::array<std::uint32_t, 3> next{};
      try {
        for (;;) {
          const Block block = queue.get();
          self.expect(block.whole(), "torn");
          const std::uint32_t producer = block.number() / kEach;
          self.expect(block.number() % kEach >= next[producer], "order");
          next[producer] = block.number() % kEach + 1;
          tally->add(block.number());
        }
      } catch (const ShutDown&) {
      }
    });
  for (auto& child : producers) ASSERT_EQ(child.join(), 0) << child.failures();
  queue.shutdown();
  for (auto& child : consumers) ASSERT_EQ(child.join(), 0) << child.failures();
  EXPECT_EQ(tally->times(1), 3 * kEach);
}

// Row j of notes/multiprocessing.md §2.
TEST(QueueProcess, AChildExitsWithoutWaitingForConsumers) {
  using Megabyte = std::array<char, 1 << 20>;
  Queue<Megabyte> queue(2);
  Child child([&](Child&) {
    auto loan = queue.loan();
    loan->fill('m');
    loan.publish();
  });
  ASSERT_EQ(child.join(), 0) << "before anybody reads";
  const auto taken = queue.take(now);
  EXPECT_TRUE(std::all_of(taken->begin(), taken->end(),
                          [](char c) { return c == 'm'; }));
}

TEST(QueueProcess, ShutdownWakesEveryProcess) {
  for (const bool immediate : {false, true}) {
    Queue<int> empty(2);
    Queue<int> full(1);
    full.put(1);
    std::deque<Child> children;
    const auto expect_shut_down = [](Child& self, auto&& call) {
      try {
        call();
        self.expect(false, "not shut down");
      } catch (const ShutDown&) {
      }
    };
    for (int i = 0; i < 2; ++i) {
      children.emplace_back(
          [&](Child& self) { expect_shut_down(self, [&] { empty.get(); }); });
      children.emplace_back(
          [&](Child& self) { expect_shut_down(self, [&] { full.put(2); }); });
    }
    for (auto& child : children)
      ASSERT_TRUE(falls_asleep(child.pid(), child.pid()));
    empty.shutdown(immediate);
    full.shutdown(immediate);
    for (auto& child : children) EXPECT_EQ(child.join(), 0) << child.failures();
  }
}

TEST(QueueProcess, CloseIsOfOneProcess) {
  Queue<int> queue(2);
  Child child([&](Child& self) {
    self.expect(queue.get() == 1, "the child's handle is open");
    queue.close();
    try {
      queue.get();
      self.expect(false, "not closed");
    } catch (const Closed&) {
    }
  });
  Queue<int> mine(queue);
  mine.close();
  queue.put(1);
  EXPECT_EQ(child.join(), 0) << child.failures();
  queue.put(2);
  EXPECT_EQ(queue.get(), 2);
}

// ---- fork ----

TEST(QueueFork, AChildJoinsOnItsOwn) {
  Queue<int> queue(4);
  auto& domain = *shoal::liveness::Domain::tree();
  queue.put(1);  // this thread has a seat
  const auto mine = domain.seat();
  Child child([&](Child& self) {
    self.expect(domain.seat() != mine, "a seat of its own");
    self.expect(!domain.dead(mine), "the parent lives");
    self.expect(queue.get() == 1, "the same queue");
    queue.put(2);
  });
  EXPECT_EQ(child.join(), 0) << child.failures();
  EXPECT_EQ(domain.seat(), mine);
  EXPECT_EQ(queue.get(), 2);
}

TEST(QueueFork, GrandchildrenToo) {
  Queue<int> queue(4);
  Child child([&](Child& self) {
    queue.put(1);
    Child inner([&](Child& innermost) {
      innermost.expect(queue.get() == 1, "from the parent");
      queue.put(2);
    });
    self.expect(inner.join() == 0, inner.failures());
    self.expect(queue.get() == 2, "from the child");
    queue.put(3);
  });
  EXPECT_EQ(child.join(), 0) << child.failures();
  EXPECT_EQ(queue.get(now), 3);
}

TEST(QueueFork, InheritedLeasesAreTheParents) {
  Queue<int> queue(3);
  queue.put(1);
  std::optional loan(queue.loan());
  std::optional taken(queue.take());
  **loan = 2;
  Child child([&](Child& self) {
    try {
      loan->publish();
      self.expect(false, "published what the parent holds");
    } catch (const std::logic_error&) {
    }
    loan.reset();
    taken.reset();
    self.expect(queue.qsize() == 0, "nothing has happened");
  });
  ASSERT_EQ(child.join(), 0) << child.failures();
  EXPECT_FALSE(queue.try_get().has_value());
  loan->publish();
  taken.reset();
  EXPECT_EQ(queue.get(), 2);
}

// The other threads are in the midst of anything, and in the child they are
// gone. Neither must disturb the other.
void fork_amidst(const std::function<void(Queue<int>&)>& work) {
  if (shoal::support::kAddressSanitizer)
    GTEST_SKIP() << "its allocator does not survive a fork amidst threads";
  Queue<int> busy(4);
  Queue<int> spare(1);
  std::atomic<bool> done{false};
  std::deque<Thread> threads;
  for (int t = 0; t < 3; ++t)
    threads.emplace_back([&] {
      while (!done.load()) work(busy);
    });
  for (int i = 0; i < 150 && !testing::Test::HasFailure(); ++i) {
    Child child([&](Child& self) {
      work(busy);
      spare.put(i);
      self.expect(spare.get(10s) == i, "usable");
    });
    EXPECT_EQ(child.join(10s), 0) << "fork " << i << ": " << child.failures();
  }
  done.store(true);
  busy.shutdown(true);  // also wakes those behind a child that has failed
  for (auto& thread : threads) EXPECT_TRUE(thread.ends());
}

// Whatever is open by now, and never behind others for long.
template <class Call>
void leniently(Call&& call) {
  try {
    call();
  } catch (const shoal::Error&) {
  }
}

TEST(QueueFork, AmidstPlainCalls) {
  fork_amidst([](Queue<int>& queue) {
    leniently([&] { queue.put(1, 1s); });
    leniently([&] { queue.get(1s); });
  });
}

TEST(QueueFork, AmidstLeases) {
  fork_amidst([](Queue<int>& queue) {
    leniently([&] { queue.loan(now).publish(); });
    leniently([&] { queue.take(now); });
  });
}

TEST(QueueFork, AmidstCreateAndDestroy) {
  fork_amidst([](Queue<int>&) {
    Queue<int> queue(2);
    queue.put(1);
    auto taken = queue.take();
  });
}

TEST(QueueFork, AmidstNamedQueues) {
  const Name name("amidst");
  Queue<int>::create(name, 64);
  fork_amidst([&](Queue<int>&) {
    auto queue = Queue<int>::open(name);
    leniently([&] { queue.put(1, now); });
    leniently([&] { queue.take(now); });
  });
}

// ---- on their own ----

const void* address_of(const auto& queue) {
  return shoal::HandleAccess::object(queue)->payload();
}

class DISABLED_QueueElsewhere : public testing::Test {};

TEST_F(DISABLED_QueueElsewhere, Echo) {
  // Another process maps them the other way round.
  auto back = Queue<Block>::open(given("BACK"));
  auto there = Queue<Block>::open(given("THERE"));
  try {
    for (;;) {
      const Block block = there.get();
      EXPECT_TRUE(block.whole());
      back.put(Block::of(block.number() + 1));
    }
  } catch (const ShutDown&) {
  }
}

TEST(QueueElsewhere, ToAnotherProgramAndBack) {
  const Name there_name("there");
  const Name back_name("back");
  auto there = Queue<Block>::create(there_name, 3);
  auto back = Queue<Block>::create(back_name, 2);
  Child other([&](Child&) {
    exec_tests("DISABLED_QueueElsewhere.Echo",
               {"THERE=" + there_name.text(), "BACK=" + back_name.text()});
  });
  Thread feeder([&] {
    for (std::uint32_t i = 0; i < 5000; ++i) there.put(Block::of(i));
    there.shutdown();
  });
  for (std::uint32_t i = 0; i < 5000; ++i) {
    const Block block = back.get(30s);
    ASSERT_TRUE(block.whole());
    ASSERT_EQ(block.number(), i + 1);
  }
  EXPECT_EQ(other.join(), 0);
}

// Forked alike and with nothing mapped, they map two queues in either order.
TEST(QueueElsewhere, AtAnotherAddressInEachProcess) {
  const Name one_name("one");
  const Name two_name("two");
  Queue<Block>::create(one_name, 2);
  Queue<Block>::create(two_name, 40);
  Shared<std::array<std::atomic<const void*>, 2>> addresses;
  constexpr std::uint32_t kBlocks = 3000;
  Child first([&](Child&) {
    auto one = Queue<Block>::open(one_name);
    auto two = Queue<Block>::open(two_name);
    (*addresses)[0] = address_of(one);
    for (std::uint32_t i = 0; i < kBlocks; ++i) {
      one.put(Block::of(i));
      two.put(one.get());
    }
  });
  Child second([&](Child& self) {
    auto two = Queue<Block>::open(two_name);
    auto one = Queue<Block>::open(one_name);
    (*addresses)[1] = address_of(one);
    for (std::uint32_t i = 0; i < kBlocks; ++i) {
      const Block block = two.get();
      self.expect(block.whole() && block.number() == i, "in order");
    }
  });
  EXPECT_EQ(first.join(), 0) << first.failures();
  EXPECT_EQ(second.join(), 0) << second.failures();
  EXPECT_NE((*addresses)[0].load(), (*addresses)[1].load());
}

TEST(QueueElsewhere, OpenOrCreateRacedMakesOneQueue) {
  for (int round = 0; round < 30; ++round) {
    const Name name("raced");
    Shared<std::atomic<int>> at_the_line;
    Shared<std::atomic<bool>> go;
    std::deque<Child> children;
    for (int c = 0; c < 8; ++c)
      children.emplace_back([&, c](Child&) {
        ++*at_the_line;
        while (!go->load()) sched_yield();
        Queue<int>::open_or_create(name, 8).put(c);
      });
    ASSERT_TRUE(eventually([&] { return at_the_line->load() == 8; }));
    go->store(true);
    for (auto& child : children) ASSERT_EQ(child.join(), 0) << child.failures();
    auto queue = Queue<int>::open(name);
    std::vector<int> all(8);
    ASSERT_EQ(queue.get_many(all, now), 8u) << "each put into the same one";
    std::sort(all.begin(), all.end());
    EXPECT_EQ(all, (std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7}));
  }
}

// Openers never see what creators have not finished.
TEST(QueueElsewhere, NobodySeesAHalfMadeQueue) {
  const Name name("half-made");
  Shared<std::atomic<bool>> done;
  Shared<std::array<std::atomic<int>, 2>> opened;
  std::deque<Child> openers;
  for (std::size_t c = 0; c < 2; ++c)
    openers.emplace_back([&, c](Child& self) {
      while (!done->load()) {
        try {
          auto queue = Queue<int>::open(name);
          self.expect(queue.maxsize() == 8, "whole");
          ++(*opened)[c];
        } catch (const std::system_error& error) {
          self.expect(error.code() == std::errc::no_such_file_or_directory,
                      error.what());
        }
      }
    });
  for (int round = 0; round < 1000; ++round) {
    auto queue = Queue<int>::create(name, 8);
    if (round % 8 == 0) sched_yield();
    ASSERT_TRUE(shoal::unlink(name));
  }
  auto last = Queue<int>::create(name, 8);
  EXPECT_TRUE(
      eventually([&] { return (*opened)[0] != 0 && (*opened)[1] != 0; }));
  done->store(true);
  for (auto& child : openers) EXPECT_EQ(child.join(), 0) << child.failures();
}

// ---- without what the kernel may lack ----

// Two programs that disagree: the object knows how it was made.
TEST(QueueFallback, ProgramsThatDisagree) {
  for (const std::string setting :
       {"SHOAL_BARRIER=fence", "SHOAL_PASSED_WAKE=0"}) {
    const Name there_name("there");
    const Name back_name("back");
    auto there = Queue<Block>::create(there_name, 1);
    auto back = Queue<Block>::create(back_name, 1);
    Child other([&](Child&) {
      exec_tests(
          "DISABLED_QueueElsewhere.Echo",
          {"THERE=" + there_name.text(), "BACK=" + back_name.text(), setting});
    });
    for (std::uint32_t i = 0; i < 2000; ++i) {
      there.put(Block::of(i));
      ASSERT_EQ(back.get(30s).number(), i + 1);
    }
    there.shutdown();
    EXPECT_EQ(other.join(), 0);
  }
}

}  // namespace
