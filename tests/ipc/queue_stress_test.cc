// Queue<T> under many threads.

#include <sched.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "shoal/ipc/liveness.h"
#include "shoal/ipc/queue.h"
#include "tests/support/child.h"
#include "tests/support/name.h"
#include "tests/support/thread.h"

namespace {

using shoal::Closed;
using shoal::Queue;
using shoal::ShutDown;
using shoal::Taken;
using shoal::Timeout;
using shoal::support::eventually;
using shoal::support::Name;
using shoal::support::Thread;
using namespace std::chrono_literals;

// Says who put it, and shows when it is not whole.
struct Item {
  std::uint32_t producer = 0;
  std::uint32_t number = 0;
  std::array<std::uint64_t, 6> copies = {};

  static Item make(std::uint32_t producer, std::uint32_t number) {
    Item item{.producer = producer, .number = number};
    item.copies.fill(std::uint64_t{producer} << 32 | number);
    return item;
  }
  bool whole() const {
    return std::all_of(copies.begin(), copies.end(), [this](auto copy) {
      return copy == (std::uint64_t{producer} << 32 | number);
    });
  }
};

// What came out, counted by all consumers.
class Ledger {
 public:
  Ledger(std::uint32_t producers, std::uint32_t each)
      : each_(each), seen_(std::size_t{producers} * each) {}

  // One consumer's look: the numbers of each producer must rise.
  class Page {
   public:
    explicit Page(Ledger& ledger)
        : ledger_(&ledger), next_(ledger.seen_.size() / ledger.each_) {}
    void add(const Item& item) {
      if (!item.whole() || item.producer >= next_.size() ||
          item.number >= ledger_->each_) {
        ++ledger_->torn_;
        return;
      }
      if (item.number < next_[item.producer]) ++ledger_->disordered_;
      next_[item.producer] = item.number + 1;
      ++ledger_->seen_[item.producer * ledger_->each_ + item.number];
      ++ledger_->total_;
    }

   private:
    Ledger* ledger_;
    std::vector<std::uint32_t> next_;
  };

  std::size_t total() const { return total_.load(); }
  std::size_t wanted() const { return seen_.size(); }

  // `dropped`: what the producers have withdrawn themselves.
  void check(std::size_t dropped = 0) const {
    EXPECT_EQ(torn_.load(), 0u);
    EXPECT_EQ(disordered_.load(), 0u);
    std::size_t never = 0;
    std::size_t twice = 0;
    for (const auto& count : seen_) {
      never += count.load() == 0;
      twice += count.load() > 1;
    }
    EXPECT_EQ(never, dropped);
    EXPECT_EQ(twice, 0u);
  }

 private:
  std::uint32_t each_;
  std::deque<std::atomic<std::uint32_t>> seen_;
  std::atomic<std::size_t> total_{0};
  std::atomic<std::size_t> torn_{0};
  std::atomic<std::size_t> disordered_{0};
};

// ---- ways to put and to get ----

enum class Verb { plain, many, lease, mixed, timed };
constexpr Verb kVerbs[] = {Verb::plain, Verb::many, Verb::lease, Verb::mixed,
                           Verb::timed};

Verb choose(Verb verb, std::mt19937& random) {
  return verb == Verb::mixed ? kVerbs[random() % 3] : verb;
}

Timeout some_microseconds(std::mt19937& random) {
  return std::chrono::microseconds(random() % 200);
}

void produce(Queue<Item>& queue, std::uint32_t producer, std::uint32_t each,
             Verb verb) {
  std::mt19937 random(producer);
  for (std::uint32_t number = 0; number < each;) {
    switch (choose(verb, random)) {
      case Verb::many: {
        std::vector<Item> items;
        const std::size_t most = random() % 70 + 1;
        for (std::uint32_t n = number; n < each && items.size() < most; ++n)
          items.push_back(Item::make(producer, n));
        number += static_cast<std::uint32_t>(queue.put_many(items));
        break;
      }
      case Verb::lease: {
        auto loan = queue.loan();
        *loan = Item::make(producer, number++);
        loan.publish();
        break;
      }
      case Verb::timed:
        number += queue.try_put(Item::make(producer, number),
                                some_microseconds(random));
        break;
      default:
        queue.put(Item::make(producer, number++));
    }
  }
}

// Until the queue is shut down.
void consume(Queue<Item>& queue, Ledger& ledger, std::uint32_t consumer,
             Verb verb) {
  std::mt19937 random(consumer);
  Ledger::Page page(ledger);
  try {
    for (;;) {
      switch (choose(verb, random)) {
        case Verb::many: {
          std::array<Item, 70> items;
          const std::size_t most = random() % items.size() + 1;
          const std::size_t count =
              queue.get_many(std::span(items).first(most));
          for (std::size_t i = 0; i < count; ++i) page.add(items[i]);
          break;
        }
        case Verb::lease:
          page.add(*queue.take());
          break;
        case Verb::timed:
          if (const auto item = queue.try_get(some_microseconds(random)))
            page.add(*item);
          break;
        default:
          page.add(queue.get());
      }
    }
  } catch (const ShutDown&) {
  }
}

// `producers` and `consumers` at once; nothing is lost, doubled, torn or out
// of its producer's order.
void run(Queue<Item> in, Queue<Item> out, std::uint32_t producers,
         std::uint32_t consumers, Verb verb, std::uint32_t items) {
  Ledger ledger(producers, items / producers);
  std::deque<Thread> putters;
  std::deque<Thread> getters;
  for (std::uint32_t c = 0; c < consumers; ++c)
    getters.emplace_back([&, c] { consume(out, ledger, c, verb); });
  for (std::uint32_t p = 0; p < producers; ++p)
    putters.emplace_back([&, p] { produce(in, p, items / producers, verb); });
  for (auto& putter : putters) ASSERT_TRUE(putter.ends());
  in.shutdown();
  for (auto& getter : getters) ASSERT_TRUE(getter.ends());
  ledger.check();
  EXPECT_TRUE(out.empty());
}

class QueueStress : public testing::TestWithParam<std::size_t> {};
INSTANTIATE_TEST_SUITE_P(Maxsize, QueueStress,
                         testing::Values(1, 2, 3, 5, 7, 1000),
                         testing::PrintToStringParamName());

constexpr std::uint32_t kItems = 2000;

TEST_P(QueueStress, EveryValueOnceInOrder) {
  for (const auto& [producers, consumers] :
       {std::pair(1u, 1u), std::pair(1u, 4u), std::pair(4u, 1u),
        std::pair(3u, 3u)})
    for (const Verb verb : kVerbs) {
      SCOPED_TRACE(std::to_string(producers) + " producers, " +
                   std::to_string(consumers) + " consumers, verb " +
                   std::to_string(static_cast<int>(verb)));
      const Queue<Item> queue(GetParam());
      run(queue, queue, producers, consumers, verb, kItems);
    }
}

TEST_P(QueueStress, TwoHandlesOfOneName) {
  const Name name("two-handles");
  const auto in = Queue<Item>::create(name, GetParam());
  const auto out = Queue<Item>::open(name);
  run(in, out, 2, 2, Verb::mixed, kItems);
}

TEST_P(QueueStress, DroppedLoansLeaveNoGap) {
  Queue<Item> queue(GetParam());
  Ledger ledger(3, kItems / 3);
  std::atomic<std::size_t> dropped{0};
  std::deque<Thread> putters;
  std::deque<Thread> getters;
  for (std::uint32_t c = 0; c < 3; ++c)
    getters.emplace_back([&, c] { consume(queue, ledger, c, Verb::mixed); });
  for (std::uint32_t p = 0; p < 3; ++p)
    putters.emplace_back([&, p] {
      std::mt19937 random(p);
      for (std::uint32_t number = 0; number < kItems / 3; ++number) {
        auto loan = queue.loan();
        *loan = Item::make(p, number);
        if (random() % 8 == 0) sched_yield();
        if (random() % 3 == 0)
          ++dropped;
        else
          loan.publish();
      }
    });
  for (auto& putter : putters) ASSERT_TRUE(putter.ends());
  queue.shutdown();
  for (auto& getter : getters) ASSERT_TRUE(getter.ends());
  EXPECT_GT(dropped.load(), 0u);
  ledger.check(dropped.load());
}

// Several leases at once, so that later positions end before earlier ones.
TEST_P(QueueStress, LeasesEndInAnyOrder) {
  Queue<Item> queue(GetParam());
  Ledger ledger(2, kItems / 2);
  std::deque<Thread> putters;
  std::deque<Thread> getters;
  for (std::uint32_t c = 0; c < 2; ++c)
    getters.emplace_back([&, c] {
      std::mt19937 random(c);
      Ledger::Page page(ledger);
      std::vector<Taken<Item>> held;
      try {
        for (;;) {
          // To wait with values in one's hands could be to wait for oneself.
          try {
            held.push_back(held.empty() ? queue.take()
                                        : queue.take(shoal::now));
            page.add(*held.back());
          } catch (const shoal::Empty&) {
            held.clear();
          }
          while (held.size() > random() % 4)
            held.erase(held.begin() +
                       static_cast<long>(random() % held.size()));
        }
      } catch (const ShutDown&) {
      }
    });
  for (std::uint32_t p = 0; p < 2; ++p)
    putters.emplace_back([&, p] {
      std::mt19937 random(p);
      std::vector<shoal::Loan<Item>> held;
      for (std::uint32_t number = 0; number < kItems / 2;) {
        try {
          held.push_back(held.empty() ? queue.loan() : queue.loan(shoal::now));
          *held.back() = Item::make(p, number++);
        } catch (const shoal::Full&) {
        }
        if (random() % 3 != 0 || held.size() > 3) {
          // The latest first.
          while (!held.empty()) {
            held.back().publish();
            held.pop_back();
          }
        }
      }
      while (!held.empty()) {
        held.back().publish();
        held.pop_back();
      }
    });
  for (auto& putter : putters) ASSERT_TRUE(putter.ends());
  queue.shutdown();
  for (auto& getter : getters) ASSERT_TRUE(getter.ends());
  ledger.check();
}

TEST_P(QueueStress, SizesStayWithinBounds) {
  Queue<Item> queue(GetParam());
  std::atomic<bool> done{false};
  std::atomic<std::size_t> looks{0};
  Thread observer([&] {
    while (!done.load()) {
      EXPECT_LE(queue.qsize(), queue.maxsize());
      queue.empty();
      queue.full();
      ++looks;
    }
  });
  run(queue, queue, 2, 2, Verb::mixed, kItems);
  EXPECT_TRUE(eventually([&] { return looks.load() != 0; }));
  done.store(true);
}

// ---- shutdown ----

TEST_P(QueueStress, ShutdownUnderLoadLosesNothingThatWasPut) {
  for (int round = 0; round < 30; ++round) {
    Queue<Item> queue(GetParam());
    std::array<std::atomic<std::uint32_t>, 2> put{};
    std::atomic<std::size_t> got{0};
    std::deque<Thread> threads;
    for (std::uint32_t c = 0; c < 2; ++c)
      threads.emplace_back([&] {
        try {
          for (;; ++got) EXPECT_TRUE(queue.get().whole());
        } catch (const ShutDown&) {
        }
      });
    for (std::uint32_t p = 0; p < 2; ++p)
      threads.emplace_back([&, p] {
        try {
          for (std::uint32_t number = 0;; ++number) {
            queue.put(Item::make(p, number));
            ++put[p];
          }
        } catch (const ShutDown&) {
        }
      });
    ASSERT_TRUE(eventually([&] { return got.load() > 20; }));
    queue.shutdown();
    for (auto& thread : threads) ASSERT_TRUE(thread.ends()) << round;
    EXPECT_EQ(got.load(), put[0].load() + put[1].load()) << round;
    EXPECT_TRUE(queue.empty());
  }
}

TEST_P(QueueStress, ImmediateShutdownUnderLoadEndsEveryCall) {
  for (int round = 0; round < 30; ++round) {
    Queue<Item> queue(GetParam());
    std::atomic<std::size_t> got{0};
    std::deque<Thread> threads;
    for (int c = 0; c < 2; ++c)
      threads.emplace_back([&] {
        try {
          for (;; ++got) EXPECT_TRUE(queue.take()->whole());
        } catch (const ShutDown&) {
        }
      });
    for (std::uint32_t p = 0; p < 2; ++p)
      threads.emplace_back([&, p] {
        try {
          for (std::uint32_t number = 0;; ++number) {
            auto loan = queue.loan();
            *loan = Item::make(p, number);
            loan.publish();
          }
        } catch (const ShutDown&) {
        }
      });
    ASSERT_TRUE(eventually([&] { return got.load() > 20; }));
    queue.shutdown(true);
    for (auto& thread : threads) ASSERT_TRUE(thread.ends()) << round;
    EXPECT_EQ(queue.qsize(), 0u);
    EXPECT_THROW(queue.get(), ShutDown);
  }
}

// ---- close ----

// One that waits on another handle, and lies down again at the wrong moment,
// must not hide the end of this handle.
TEST(QueueCloseStress, WakesAmongOthersThatComeAndGo) {
  Queue<int> queue(2);
  std::atomic<bool> done{false};
  std::deque<Thread> others;
  for (int i = 0; i < 2; ++i)
    others.emplace_back([&] {
      Queue<int> other(queue);
      while (!done.load()) other.try_get(20us);
    });
  for (int round = 0; round < 300 && !HasFailure(); ++round) {
    Queue<int> mine(queue);
    Thread blocked([&] { EXPECT_THROW(mine.get(), Closed); });
    for (int i = 0; i < round % 64; ++i) sched_yield();
    mine.close();
    EXPECT_TRUE(blocked.ends()) << "round " << round;
    while (!blocked.ended()) queue.shutdown();  // or the test would hang, too
  }
  done.store(true);
}

// ---- threads ----

TEST(QueueThreads, TwoHundredComeAndGo) {
  Queue<int> queue(16);
  const auto& domain = shoal::liveness::Domain::tree();
  const std::uint32_t seats = domain->seats_taken();
  for (int wave = 0; wave < 3; ++wave) {
    std::atomic<int> sum{0};
    std::deque<Thread> threads;
    for (int i = 0; i < 200; ++i)
      threads.emplace_back([&, i] {
        queue.put(i);
        sum += queue.get();
      });
    threads.clear();
    EXPECT_EQ(sum.load(), 199 * 200 / 2);
    EXPECT_TRUE(queue.empty());
    EXPECT_LE(domain->seats_taken(), seats + 1) << "each gives its seat back";
  }
}

TEST(QueueThreads, TwoHundredWaitAtOnce) {
  Queue<int> queue(300);
  std::atomic<int> sum{0};
  std::deque<Thread> threads;
  for (int i = 0; i < 200; ++i)
    threads.emplace_back([&] { sum += queue.get(); });
  for (auto& thread : threads) ASSERT_TRUE(thread.falls_asleep());
  for (int i = 0; i < 200; ++i) queue.put(i);
  threads.clear();
  EXPECT_EQ(sum.load(), 199 * 200 / 2);
}

// The seats of a named object go when it goes, also those of threads that know
// many of them.
TEST(QueueThreads, ManyNamedQueuesInManyThreads) {
  std::deque<Name> names;
  for (int i = 0; i < 8; ++i) names.emplace_back("many");
  std::deque<Thread> threads;
  std::atomic<int> got{0};
  for (std::size_t t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      std::mt19937 random(static_cast<unsigned>(t));
      for (int round = 0; round < 100; ++round) {
        auto queue =
            Queue<int>::open_or_create(names[random() % names.size()], 8);
        if (queue.try_put(1)) got += queue.get(10s);
      }
    });
  threads.clear();
  EXPECT_GT(got.load(), 0);
}

// One thread makes, the other destroys.
TEST(QueueThreads, CreateAndDestroyInTwoThreadsThatAlternate) {
  Queue<int> made(1);
  Queue<int> gone(1);
  std::optional<Queue<int>> shared;
  constexpr int kRounds = 1000;
  const Name name("alternating");
  Thread destroyer([&] {
    for (int round = 0; round < kRounds; ++round) {
      ASSERT_EQ(made.get(), round);
      EXPECT_EQ(shared->get(10s), round);
      shared.reset();
      gone.put(round);
    }
  });
  for (int round = 0; round < kRounds; ++round) {
    if (round % 2 == 0) {
      shared.emplace(3);
    } else {
      shared.emplace(Queue<int>::create(name, 3));
      ASSERT_TRUE(shoal::unlink(name));
    }
    shared->put(round);
    made.put(round);
    ASSERT_EQ(gone.get(), round);
  }
  EXPECT_TRUE(destroyer.ends());
}

}  // namespace
