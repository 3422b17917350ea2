// More of everything than a program has: kills, workers, tasks, threads, pools.
// Every result is compared with a model.

#include <signal.h>
#include <sys/types.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <functional>
#include <memory>
#include <numeric>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "shoal/ipc/barrier.h"
#include "shoal/ipc/liveness.h"
#include "shoal/ipc/process.h"
#include "shoal/ipc/timeout.h"
#include "shoal/pool/pool.h"
#include "tests/pool/scene.h"
#include "tests/support/residue.h"
#include "tests/support/thread.h"

namespace {

using namespace shoal;
using namespace shoal::support;
using namespace std::chrono_literals;

using Number = std::uint64_t;

// The model of all tasks here.
Number mixed(Number n) {
  n = (n ^ n >> 31) * 0x9E3779B97F4A7C15u;
  return n ^ n >> 27;
}
// Beyond what fits a record.
std::string text_of(Number n) {
  std::string text = std::to_string(mixed(n));
  while (text.size() < 200) text += text;
  return text;
}
std::vector<Number> numbers_from(Number first, std::size_t count) {
  std::vector<Number> numbers(count);
  std::iota(numbers.begin(), numbers.end(), first);
  return numbers;
}

// ---- kills ----

// Kills a worker of the pool fifty times a second.
class Killer {
 public:
  explicit Killer(Pool& pool)
      : pool_(pool), thread_([this] {
          for (Number n = 0; !stop_; ++n) {
            kill_one(n);
            std::this_thread::sleep_for(20ms);
          }
        }) {}
  ~Killer() { stop_ = true; }

  int kills() const { return kills_; }

 private:
  // Not one that has not come up: those break the pool, as they should.
  void kill_one(Number n) {
    pool::Memory& memory = memory_of(pool_);
    const auto slot =
        static_cast<std::uint32_t>(mixed(n) % memory.state().settings.workers);
    const auto pid = static_cast<pid_t>(memory.slot(slot).pid.load());
    if (pid == 0 || memory.slot(slot).ready.load() == 0) return;
    if (kill(pid, SIGKILL) == 0) ++kills_;
  }

  Pool& pool_;
  std::atomic<bool> stop_{false};
  std::atomic<int> kills_{0};
  Thread thread_;
};

// Long enough that most kills hit a task.
void take_a_while() {
  const Deadline end = Timeout(50us);
  while (!end.passed()) {
  }
}

// Some of each kind; how many tasks they were.
std::size_t run_and_compare(Pool& pool, Number first) {
  constexpr std::size_t kOfEach = 500;
  const auto numbers = numbers_from(first, kOfEach);
  std::vector<AsyncResult<Number>> small;
  std::vector<AsyncResult<std::string>> large;
  for (const Number n : numbers) {
    small.push_back(pool.apply_async([n] {
      take_a_while();
      return mixed(n);
    }));
    large.push_back(pool.apply_async(
        [](Number number, const std::string& text) {
          take_a_while();
          return text + text_of(number);
        },
        n, text_of(n)));
  }
  const auto one = [](Number n) {
    take_a_while();
    return mixed(n);
  };
  auto map = pool.map_async(one, numbers, 1);
  Number next = first;
  for (const Number result : pool.imap(one, numbers, 5))
    EXPECT_EQ(result, mixed(next++));
  EXPECT_EQ(next, first + kOfEach);
  const auto all = map.get(kPatience);
  for (std::size_t i = 0; i < kOfEach; ++i) {
    EXPECT_EQ(all[i], mixed(first + i));
    EXPECT_EQ(small[i].get(kPatience), mixed(first + i));
    EXPECT_EQ(large[i].get(kPatience), text_of(first + i) + text_of(first + i));
  }
  return 3 * kOfEach + kOfEach / 5;
}

class PoolStress : public PoolScene {};

TEST_F(PoolStress, RandomKillsWithRetry) {
  constexpr std::size_t kTasks = 100'000;
  constexpr int kKills = 100;
  Pool pool(PoolOptions{.processes = 4, .on_worker_death = retry(100)});
  std::size_t tasks = 0;
  int kills = 0;
  {
    Killer killer(pool);
    while ((tasks < kTasks || killer.kills() < kKills) && !HasFailure())
      tasks += run_and_compare(pool, tasks);
    kills = killer.kills();
  }
  EXPECT_TRUE(back_to_size(pool));
  const PoolStats stats = pool.stats();
  printf("[  KILLS   ] %zu tasks, %d kills, %llu retried\n", tasks, kills,
         static_cast<unsigned long long>(stats.retried));
  EXPECT_GT(stats.retried, 0u);
  EXPECT_EQ(stats.failed, 0u);
  EXPECT_EQ(stats.done, tasks);
  EXPECT_EQ(stats.queued, 0u);
  EXPECT_EQ(blocks_of(pool), 0u);
}

// ---- workers ----

TEST_F(PoolStress, TwoHundredWorkers) {
  constexpr std::size_t kWorkers = 200;
  Pool pool(kWorkers);
  // All of them at once, or it would not end.
  const auto meet = [](Barrier& all) {
    all.wait();
    return getpid();
  };
  const auto pids =
      pool.map(meet, std::vector<Barrier>(kWorkers, Barrier(kWorkers)), 1);
  EXPECT_EQ(std::set<pid_t>(pids.begin(), pids.end()).size(), kWorkers);
  const auto numbers = numbers_from(0, 50'000);
  const auto results = pool.map(&mixed, numbers, 1);
  for (const Number n : numbers) ASSERT_EQ(results[n], mixed(n));
  pool.close();
  EXPECT_TRUE(pool.join(kPatience));
}

// ---- tasks ----

TEST_F(PoolStress, AMillionTinyTasks) {
  constexpr std::size_t kTasks = 1'000'000;
  Pool pool(2);
  const auto numbers = numbers_from(0, kTasks);
  for (const std::ptrdiff_t chunksize : {0, 1}) {
    const auto results = pool.map(&mixed, numbers, chunksize);
    ASSERT_EQ(results.size(), kTasks);
    for (const Number n : numbers) ASSERT_EQ(results[n], mixed(n));
  }
  constexpr std::size_t kBatch = 10'000;
  std::vector<AsyncResult<Number>> batch;
  for (Number first = 0; first < kTasks; first += kBatch) {
    batch.clear();
    for (std::size_t i = 0; i < kBatch; ++i)
      batch.push_back(pool.apply_async(&mixed, first + i));
    for (std::size_t i = 0; i < kBatch; ++i)
      ASSERT_EQ(batch[i].get(kPatience), mixed(first + i));
  }
  EXPECT_EQ(blocks_of(pool), 0u);
}

// ---- threads ----

TEST_F(PoolStress, TenThreadsShareIt) {
  constexpr std::size_t kThreads = 10;
  constexpr std::size_t kOfEach = 5'000;
  Pool pool(3);
  {
    std::vector<std::unique_ptr<Thread>> threads;
    for (std::size_t t = 0; t < kThreads; ++t)
      threads.push_back(std::make_unique<Thread>([&pool, t] {
        const auto numbers = numbers_from(t * kOfEach, kOfEach);
        auto map = pool.map_async(&mixed, numbers, 7);
        std::vector<AsyncResult<std::string>> texts;
        for (const Number n : numbers)
          texts.push_back(pool.apply_async(&text_of, n));
        for (const Number n : numbers)
          EXPECT_EQ(pool.apply(&mixed, n), mixed(n));
        Number next = numbers.front();
        for (const Number result : pool.imap(&mixed, numbers, 3))
          EXPECT_EQ(result, mixed(next++));
        EXPECT_EQ(next, numbers.back() + 1);
        const auto mapped = map.get(kPatience);
        for (std::size_t i = 0; i < kOfEach; ++i) {
          EXPECT_EQ(mapped[i], mixed(numbers[i]));
          EXPECT_EQ(texts[i].get(kPatience), text_of(numbers[i]));
        }
      }));
    for (auto& thread : threads)
      EXPECT_TRUE(eventually([&] { return thread->ended(); }, 5 * 60s));
  }
  EXPECT_EQ(blocks_of(pool), 0u);
}

// ---- pools ----

std::size_t resident_kib() {
  std::ifstream file("/proc/self/status");
  std::string word;
  while (file >> word)
    if (word == "RssAnon:") {
      std::size_t kib = 0;
      file >> kib;
      return kib;
    }
  return 0;
}

TEST_F(PoolStress, AThousandPools) {
  const auto cycle = [](Number n) {
    const bool anew = n % 50 == 0;
    Pool pool(PoolOptions{
        .processes = static_cast<int>(1 + n % 3),
        .start_method = anew ? StartMethod::spawn : StartMethod::fork});
    ASSERT_EQ(pool.apply(&text_of, n), text_of(n));
    const auto left = pool.apply_async(&mixed, n);
    if (n % 4 == 0) pool.close();
    if (n % 8 == 0) {
      ASSERT_TRUE(pool.join(kPatience));
    }
    // A worker that dies as the pool does.
    if (n % 7 == 0 && !pool.workers().empty()) kill(pool.workers()[0], SIGKILL);
  };
  // What stays for good is there after some.
  for (Number n = 0; n < 100; ++n) ASSERT_NO_FATAL_FAILURE(cycle(n));
  const auto before = kinds_of_belongings();
  const std::size_t memory = resident_kib();
  for (Number n = 0; n < 1000; ++n) ASSERT_NO_FATAL_FAILURE(cycle(n));
  EXPECT_EQ(kinds_of_belongings(), before);
  printf("[  MEMORY  ] %zu KiB, then %zu KiB\n", memory, resident_kib());
  EXPECT_LE(resident_kib(), memory + 512);
  liveness::Domain::tree()->retire_all();
  EXPECT_LE(liveness::Domain::tree()->seats_taken(), 2u);
}

}  // namespace
