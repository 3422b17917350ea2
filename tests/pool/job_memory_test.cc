#include "shoal/pool/job_memory.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <new>
#include <set>
#include <thread>
#include <vector>

namespace {

// Blocks of 1 KiB that were asked of the heap.
std::atomic<std::size_t> from_heap{0};

}  // namespace

// Not inlined: or else GCC takes malloc and delete for a mismatch.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  if (bytes == 1024) ++from_heap;
  if (void* const memory = malloc(bytes)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept {
  free(memory);
}

namespace shoal::pool {
namespace {

using Owned = std::unique_ptr<JobMemory, JobMemory::LetGo>;

TEST(JobMemory, GivesWhatWasFreedAgainAndNothingTwice) {
  const Owned memory(new JobMemory);
  std::set<void*> first, second;
  std::vector<void*> blocks;
  for (int n = 0; n < 1000; ++n) {
    blocks.push_back(memory->allocate(200));
    memset(blocks.back(), n, 200);
    ASSERT_TRUE(first.insert(blocks.back()).second);
  }
  for (void* block : blocks) memory->free(block, 200);
  // Of the same 64 bytes' size.
  for (int n = 0; n < 1000; ++n)
    ASSERT_TRUE(second.insert(memory->allocate(256)).second);
  EXPECT_EQ(first, second);
  for (void* block : second) memory->free(block, 256);
}

TEST(JobMemory, EverySizeIsWhole) {
  const Owned memory(new JobMemory);
  for (int round = 0; round < 2; ++round) {
    std::vector<std::vector<std::byte*>> blocks(1200);
    for (std::size_t size = 1; size < blocks.size(); ++size)
      for (int n = 0; n < 3; ++n) {
        auto* const block = static_cast<std::byte*>(memory->allocate(size));
        ASSERT_EQ(reinterpret_cast<std::uintptr_t>(block) %
                      __STDCPP_DEFAULT_NEW_ALIGNMENT__,
                  0u);
        memset(block, static_cast<int>(size % 251), size);
        blocks[size].push_back(block);
      }
    for (std::size_t size = 1; size < blocks.size(); ++size)
      for (std::byte* const block : blocks[size]) {
        for (std::size_t n = 0; n < size; ++n)
          ASSERT_EQ(block[n], std::byte(size % 251)) << size << ' ' << n;
        memory->free(block, size);
      }
  }
}

TEST(JobMemory, KeepsSoMuchAndNoMore) {
  constexpr std::size_t kBlocks = 2 * JobMemory::kKept / 1024;
  const Owned memory(new JobMemory);
  std::vector<void*> blocks(kBlocks);
  const auto asked = [&] {
    const std::size_t before = from_heap;
    for (void*& block : blocks) block = memory->allocate(1024);
    for (void* block : blocks) memory->free(block, 1024);
    return from_heap - before;
  };
  EXPECT_EQ(asked(), kBlocks);
  for (int n = 0; n < 3; ++n) EXPECT_EQ(asked(), kBlocks / 2);
  blocks.resize(kBlocks / 2);
  EXPECT_EQ(asked(), 0u);
}

TEST(JobMemory, LastsAsLongAsItsLastJob) {
  struct Job {
    explicit Job(int* at) : ended(at) {}
    ~Job() { ++*ended; }
    int* const ended;
    std::array<char, 100> filling{};
  };
  struct alignas(64) Aligned : Job {
    using Job::Job;
  };
  struct Large : Job {
    using Job::Job;
    std::array<char, 5000> more{};
  };
  int ended = 0;
  Owned memory(new JobMemory);
  auto job = std::allocate_shared<Job>(JobAllocator<Job>(*memory), &ended);
  auto aligned =
      std::allocate_shared<Aligned>(JobAllocator<Aligned>(*memory), &ended);
  auto large =
      std::allocate_shared<Large>(JobAllocator<Large>(*memory), &ended);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(aligned.get()) % 64, 0u);
  const std::weak_ptr<Job> last = job;
  memory.reset();
  aligned.reset();
  large.reset();
  job.reset();
  EXPECT_EQ(ended, 3);
  EXPECT_TRUE(last.expired());  // in memory that is still there
}

// Blocks wander between threads that all take and free; each says whose it is.
TEST(JobMemory, AmongThreads) {
  constexpr int kThreads = 4;
  constexpr std::size_t kRounds = 20'000;
  constexpr std::size_t kWords = 16;
  struct Letter {
    std::array<std::size_t, kWords> words;
  };
  const Owned memory(new JobMemory);
  std::mutex mutex;
  std::deque<Letter*> sent;
  std::atomic<std::size_t> wrong{0}, received{0};
  const auto receive = [&] {
    Letter* letter;
    {
      const std::lock_guard lock(mutex);
      if (sent.empty()) return false;
      letter = sent.front();
      sent.pop_front();
    }
    for (const std::size_t word : letter->words)
      wrong += word != letter->words[0];
    memory->free(letter, sizeof *letter);
    ++received;
    return true;
  };
  {
    std::vector<std::jthread> threads;
    for (std::size_t mark = 1; mark <= kThreads; ++mark)
      threads.emplace_back([&, mark] {
        for (std::size_t n = 0; n < kRounds; ++n) {
          auto* const letter = ::new (memory->allocate(sizeof(Letter))) Letter;
          letter->words.fill(mark * kRounds + n);
          {
            const std::lock_guard lock(mutex);
            sent.push_back(letter);
          }
          // In bursts, so that there are many and few.
          while (n % 64 == 63 && receive()) {
          }
        }
      });
  }
  while (receive()) {
  }
  EXPECT_EQ(received, kThreads * kRounds);
  EXPECT_EQ(wrong, 0u);
}

}  // namespace
}  // namespace shoal::pool
