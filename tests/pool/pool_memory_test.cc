// Arguments and results of a size that matters: they arrive whole, they stay
// until they are collected, and their memory is used again.

#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <fstream>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "shoal/ipc/errors.h"
#include "shoal/pool/pool.h"
#include "tests/pool/scene.h"

namespace {

using namespace shoal;
using namespace shoal::support;
using namespace std::chrono_literals;

constexpr std::size_t kMiB = std::size_t{1} << 20;
constexpr std::size_t kGiB = std::size_t{1} << 30;

std::size_t available_memory() {
  std::ifstream file("/proc/meminfo");
  std::string key;
  std::size_t kib = 0;
  while (file >> key >> kib) {
    if (key == "MemAvailable:") return kib * 1024;
    file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  return 0;
}

long page_faults() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_minflt + usage.ru_majflt;
}

class PoolMemory : public PoolScene {
 protected:
  Pool pool{1};  // who has seen all of the memory after one round
};

// First, last, and a page in the middle of each MiB.
template <class Bytes>
bool is_filled(const Bytes& bytes, char with) {
  for (std::size_t at = 0; at < bytes.size(); at += kMiB / 2)
    if (bytes[at] != with) return false;
  return bytes.empty() || bytes.back() == with;
}

TEST_F(PoolMemory, ArgumentOfOneGiB) {
  if (available_memory() < 6 * kGiB) GTEST_SKIP() << "needs 6 GiB of memory";
  const std::string bytes(kGiB, 'x');
  const auto look = [](const std::string& s) {
    return std::pair(s.size(), is_filled(s, 'x'));
  };
  EXPECT_EQ(pool.apply(look, bytes), std::pair(kGiB, true));
  EXPECT_EQ(blocks_of(pool), 0u);
}

TEST_F(PoolMemory, ResultOfOneGiB) {
  if (available_memory() < 6 * kGiB) GTEST_SKIP() << "needs 6 GiB of memory";
  const std::string bytes = pool.apply([] { return std::string(kGiB, 'y'); });
  EXPECT_EQ(bytes.size(), kGiB);
  EXPECT_TRUE(is_filled(bytes, 'y'));
  EXPECT_EQ(blocks_of(pool), 0u);
}

// 10,000 results of 1 MiB, none of which is collected before all are there.
TEST_F(PoolMemory, ManyUncollectedResultsTwice) {
  constexpr std::size_t kResults = 10'000;
  const std::size_t count =
      std::min(kResults, available_memory() / 4 * 3 / kMiB);
  struct Round {
    long owner, worker;
  };
  std::vector<Round> rounds;
  for (int round = 0; round < 2; ++round) {
    const auto faults_of_worker = [&] { return pool.apply(&page_faults); };
    const Round before = {page_faults(), faults_of_worker()};
    {
      std::vector<AsyncResult<std::string>> results;
      for (std::size_t i = 0; i < count; ++i)
        results.push_back(
            pool.apply_async([](char c) { return std::string(kMiB, c); },
                             static_cast<char>('a' + i % 26)));
      for (auto& result : results) ASSERT_TRUE(result.wait(Timeout(60s)));
      EXPECT_GE(blocks_of(pool), count);
      for (std::size_t i = 0; i < count; ++i) {
        const std::string bytes = results[i].get();
        ASSERT_EQ(bytes.size(), kMiB);
        ASSERT_TRUE(is_filled(bytes, static_cast<char>('a' + i % 26))) << i;
      }
    }
    EXPECT_EQ(blocks_of(pool), 0u);
    rounds.push_back(
        {page_faults() - before.owner, faults_of_worker() - before.worker});
    printf(
        "[  MEMORY  ] round %d: %zu results, page faults %ld in the owner, "
        "%ld in the worker\n",
        round, count, rounds.back().owner, rounds.back().worker);
  }
  EXPECT_LT(rounds[1].owner, rounds[0].owner / 10);
  EXPECT_LT(rounds[1].worker, rounds[0].worker / 10);
}

}  // namespace
