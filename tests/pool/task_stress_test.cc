// The task ledger under threads: whoever claims, cancels and completes a task
// at the same time, exactly one of them wins, and what the winner wrote is
// seen by whoever looks at the outcome. The second half runs the workers' own
// code, as threads over one mapping.

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "shoal/ipc/codec_stream.h"
#include "shoal/ipc/function.h"
#include "shoal/ipc/futex.h"
#include "shoal/ipc/liveness.h"
#include "shoal/ipc/waiting.h"
#include "shoal/pool/call.h"
#include "shoal/pool/pool_state.h"
#include "shoal/pool/task.h"
#include "shoal/pool/worker.h"
#include "tests/support/child.h"

namespace {

using namespace shoal;
using namespace std::chrono_literals;
using task::ClaimState;
using task::Outcome;
using task::TaskState;

// A task that is submitted is one or the other.
ClaimState pending_in(int round) {
  return round % 2 == 0 ? ClaimState::pending : ClaimState::alone;
}

bool is_alone(const TaskState& task, std::uint32_t generation) {
  return task.claim == task::claim_word(generation, ClaimState::alone);
}

// Threads that start each round together, as often as there is time for: where
// others want the processors, each round costs some time slices. They change
// roles, or the last one might be too late in every round.
class Rounds {
 public:
  Rounds(int rounds, const std::vector<std::function<void(int)>>& players,
         const std::function<void(int)>& before,
         const std::function<void(int)>& after) {
    const auto enough = std::chrono::steady_clock::now() + 5s;
    std::vector<std::thread> threads;
    for (std::size_t t = 0; t < players.size(); ++t)
      threads.emplace_back([&, t] {
        for (int n = 1;; ++n) {
          while (started_.load() < n) {
            if (over_.load()) return;
            support::yield_cpu();
          }
          players[(t + static_cast<std::size_t>(n)) % players.size()](n);
          ++done_;
        }
      });
    const int all = static_cast<int>(players.size());
    for (int n = 1; n <= rounds; ++n) {
      if (std::chrono::steady_clock::now() > enough) break;
      before(n);
      started_ = n;
      while (done_.load() != all * n) support::yield_cpu();
      after(n);
    }
    over_ = true;
    for (auto& thread : threads) thread.join();
  }

 private:
  std::atomic<int> started_{0};
  std::atomic<int> done_{0};
  std::atomic<bool> over_{false};
};

// ---- the words alone ----

TEST(TaskStress, OneCompleterWinsAndItsResultIsSeen) {
  constexpr int kRounds = 3000;
  const auto shared = std::make_unique<TaskState>();  // on its own lines
  TaskState& task = *shared;
  std::atomic<int> winners{0};
  std::atomic<int> stale_winners{0};
  std::atomic<int> torn{0};
  const auto generation = [](int n) { return static_cast<std::uint32_t>(n); };
  // Those who write a result take turns, as a worker and its nursery do.
  std::atomic<std::uint64_t> writer{0};
  const auto worker = [&](int n) {
    std::uint64_t none = 0;
    if (writer.compare_exchange_strong(none, 1)) {
      task.result_bytes = generation(n);
      memset(task.inline_result, n & 0xFF, sizeof task.inline_result);
      winners += task::complete(task, generation(n), Outcome::value);
    }
  };
  const auto breaker = [&](int n) {
    winners += task::complete(task, generation(n), Outcome::broken);
  };
  const auto canceller = [&](int n) {
    winners += task::complete(task, generation(n), Outcome::cancelled);
  };
  const auto late = [&](int n) {
    stale_winners += task::complete(task, generation(n - 1), Outcome::died);
    stale_winners += task::complete(task, generation(n + 1), Outcome::died);
  };
  const auto waiter = [&](int n) {
    std::uint64_t word;
    while (task::outcome_of(word = task.done.load(std::memory_order_acquire)) ==
           Outcome::open)
      support::yield_cpu();
    if (word >> 32 != generation(n)) ++torn;
    if (task::outcome_of(word) != Outcome::value) return;
    if (task.result_bytes != generation(n)) ++torn;
    for (const std::byte b : task.inline_result)
      if (b != static_cast<std::byte>(n & 0xFF)) ++torn;
  };
  Rounds(
      kRounds, {worker, worker, breaker, canceller, late, waiter, waiter},
      [&](int n) {
        writer = 0;
        winners = 0;
        task.done.store(task::done_word(generation(n), Outcome::open));
      },
      [&](int n) {
        ASSERT_EQ(winners, 1) << n;
        ASSERT_EQ(stale_winners, 0) << n;
        ASSERT_EQ(torn, 0) << n;
      });
}

TEST(TaskStress, OneClaimerWinsOverOthersAndOverACancel) {
  constexpr int kRounds = 3000;
  const auto shared = std::make_unique<TaskState>();  // on its own lines
  TaskState& task = *shared;
  std::atomic<int> claimed{0};
  std::atomic<int> cancelled{0};
  std::atomic<int> torn{0};
  const auto claimer = [&](std::uint32_t slot) {
    return [&, slot](int n) {
      const auto generation = static_cast<std::uint32_t>(n);
      // One comes ahead of the handle, and looks first.
      if (slot == 2 && !is_alone(task, generation)) return;
      if (!task::claim(task, generation, slot,
                       slot == 2 ? ClaimState::alone : ClaimState::pending))
        return;
      ++claimed;
      // The submitter's fields are visible.
      if (task.arguments_bytes != generation) ++torn;
    };
  };
  const auto canceller = [&](int) { cancelled += task::withdraw(task); };
  const auto submitter = [&](int n) {
    task.arguments_bytes = static_cast<std::uint64_t>(n);
    task.claim.store(
        task::claim_word(static_cast<std::uint32_t>(n), pending_in(n)),
        std::memory_order_release);
  };
  int cancels = 0;
  Rounds(kRounds, {claimer(1), claimer(2), claimer(3), canceller}, submitter,
         [&](int n) {
           ASSERT_EQ(claimed + cancelled, 1) << n;
           ASSERT_EQ(torn, 0) << n;
           cancels += cancelled;
           claimed = cancelled = 0;
         });
  RecordProperty("cancels", cancels);
}

// Two chunks of a map, whose first record is used again at once.
TEST(TaskStress, MapIsCancelledWholeOrNotAtAll) {
  constexpr int kRounds = 60000;
  const auto shared = std::make_unique<std::array<TaskState, 2>>();
  TaskState& first = (*shared)[0];
  TaskState& other = (*shared)[1];
  const auto generation = [](int n) {
    return static_cast<std::uint32_t>(2 * n);
  };
  std::atomic<int> began{0};
  std::atomic<int> skipped{0};
  std::atomic<int> withdrawn{0};
  std::atomic<bool> cancelled{false};
  const auto runs_first = [&](int n) {
    if (task::claim(first, generation(n), 1)) ++began;
  };
  const auto runs_other = [&](int n) {
    if (!task::claim(other, generation(n), 2)) return;
    if (task::begin_after(first, generation(n), other))
      ++began;
    else
      ++skipped;
  };
  const auto canceller = [&](int n) {
    if (!task::withdraw(first)) return;
    cancelled = true;
    withdrawn += task::doom(other) == task::Doom::withdrawn;
    first.claim.store(task::claim_word(generation(n) + 1, ClaimState::pending),
                      std::memory_order_release);
  };
  int cancels = 0;
  int dooms = 0;
  Rounds(
      kRounds, {runs_first, runs_other, canceller},
      [&](int n) {
        began = skipped = withdrawn = 0;
        cancelled = false;
        first.claim.store(task::claim_word(generation(n), pending_in(n)),
                          std::memory_order_release);
        other.claim.store(task::claim_word(generation(n), ClaimState::pending),
                          std::memory_order_release);
      },
      [&](int n) {
        // The other one is withdrawn, or its worker has been told, or it comes
        // to it later and finds nothing.
        ASSERT_EQ(began, cancelled ? 0 : 2) << n;
        ASSERT_EQ(withdrawn + skipped, cancelled ? 1 : 0) << n;
        cancels += cancelled;
        dooms += skipped;
      });
  EXPECT_GT(cancels, 0);
  RecordProperty("dooms", dooms);
}

// Of a task that may be claimed ahead.
TEST(TaskStress, AloneIsAsPending) {
  TaskState task{};
  TaskState other{};
  const auto submit = [&](std::uint32_t generation) {
    task.claim = task::claim_word(generation, ClaimState::alone);
  };
  submit(7);
  EXPECT_TRUE(is_alone(task, 7));
  EXPECT_FALSE(is_alone(task, 6));
  EXPECT_TRUE(task::claim(task, 7, 1)) << "by its handle";
  EXPECT_FALSE(is_alone(task, 7));
  EXPECT_FALSE(task::claim(task, 7, 1, ClaimState::alone));
  submit(8);
  EXPECT_TRUE(task::claim(task, 8, 1, ClaimState::alone));
  EXPECT_FALSE(task::claim(task, 8, 1)) << "the handle comes later";
  submit(9);
  EXPECT_TRUE(task::withdraw(task));
  EXPECT_FALSE(is_alone(task, 9));
  submit(10);
  task::withdraw_completed(task);
  EXPECT_FALSE(task::claim(task, 10, 1));
  submit(11);
  EXPECT_EQ(task::doom(task), task::Doom::withdrawn);
  submit(12);
  EXPECT_TRUE(task::begin_after(task, 12, other));
  EXPECT_FALSE(is_alone(task, 12)) << "joined: its handle comes";
  EXPECT_FALSE(task::withdraw(task));
  EXPECT_TRUE(task::claim(task, 12, 1));
  task.claim = task::claim_word(13, ClaimState::pending);
  EXPECT_FALSE(is_alone(task, 13)) << "others may come before";
}

// The worker that holds the other one comes too late to ask the first one.
TEST(TaskStress, DoomedTaskDoesNotBeginWhenTheFirstRecordIsUsedAgain) {
  TaskState first{};
  TaskState other{};
  for (TaskState* task : {&first, &other})
    task->claim = task::claim_word(7, ClaimState::pending);
  ASSERT_TRUE(task::claim(other, 7, 2));
  ASSERT_TRUE(task::withdraw(first));
  EXPECT_EQ(task::doom(other), task::Doom::in_hand);
  EXPECT_FALSE(task::begin_after(first, 7, other));
  first.claim = task::claim_word(8, ClaimState::pending);
  EXPECT_FALSE(task::begin_after(first, 7, other));
  EXPECT_EQ(first.claim, task::claim_word(8, ClaimState::pending));
}

// One that has begun keeps the whole map from being withdrawn, whether the
// first record is used again or not.
TEST(TaskStress, JoinedTaskIsNotWithdrawnUnlessItIsComplete) {
  TaskState first{};
  TaskState other{};
  for (TaskState* task : {&first, &other})
    task->claim = task::claim_word(7, ClaimState::pending);
  ASSERT_TRUE(task::claim(other, 7, 2));
  EXPECT_TRUE(task::begin_after(first, 7, other));
  EXPECT_FALSE(task::withdraw(first));
  EXPECT_TRUE(task::begin_after(first, 7, other)) << "another attempt";
  EXPECT_TRUE(task::claim(first, 7, 1)) << "a worker takes it";
  EXPECT_TRUE(task::begin_after(first, 7, other));
  first.claim = task::claim_word(8, ClaimState::pending);
  EXPECT_TRUE(task::begin_after(first, 7, other));
  first.claim = task::claim_word(8, ClaimState::joined);
  task::withdraw_completed(first);
  EXPECT_FALSE(task::claim(first, 8, 1));
}

// ---- the workers' own code ----

std::array<std::atomic<int>, 4096> runs;

// Three times its argument, as so many bytes as the argument says.
void triple(codec::Reader& reader, call::Reply& reply) {
  const auto index = reader.read<std::uint64_t>();
  const auto bytes = reader.read<std::uint64_t>();
  reader.finish();
  ++runs[index];
  const auto room = reply.allocate(bytes);
  std::fill(room.begin(), room.end(), static_cast<std::byte>(3 * index));
}

pool::Settings settings(std::uint32_t workers) {
  pool::Settings settings{};
  settings.workers = workers;
  return settings;
}

// What an owner does.
class Owner {
 public:
  explicit Owner(std::uint32_t workers)
      : memory_(settings(workers), liveness::Domain::use_tree()),
        thunk_(function::reference(reinterpret_cast<const void*>(&triple))) {
    memory_.populate_tasks(0, runs.size());
    // This thread is the nursery: who looks finds it alive.
    memory_.state().nursery = memory_.domain().seat();
    // The first ring with room for all: the workers come to it through those
    // before, as after their owner's growing.
    while (pool::kFirstRing << ring_ < runs.size()) {
      memory_.populate_ring(ring_ + 1);
      memory_.state().ring.store(ring_ + 1, std::memory_order_release);
      memory_.ring(ring_++).close(cells::kDraining);
    }
    for (auto& count : runs) count = 0;
    for (std::uint32_t slot = 0; slot < workers; ++slot) {
      threads_.emplace_back(
          [this, slot] { run_worker(memory_, slot, nullptr); });
      // Admits it.
      memory_.slot(slot).pid.store(static_cast<std::uint32_t>(getpid()),
                                   std::memory_order_release);
      futex::wake(memory_.slot(slot).pid, 1);
    }
  }
  ~Owner() { end(); }

  void end() {
    memory_.ring(ring_).close(cells::kDraining);
    for (auto& thread : threads_) thread.join();
    threads_.clear();
  }

  // False when the ring is full.
  bool submit(std::uint32_t index, std::uint64_t bytes) {
    write(index, bytes, ClaimState::pending);
    return push(index);
  }
  // One that no other is open beside; push() comes later.
  void write_alone(std::uint32_t index, std::uint64_t bytes) {
    write(index, bytes, ClaimState::alone);
  }
  bool push(std::uint32_t index) {
    liveness::Who blocker = 0;
    return memory_.ring(ring_).try_put(
               {task::make_handle(index, generation_of(index))}, blocker) ==
           waiting::Status::ok;
  }
  bool is_open(std::uint32_t index) {
    return task::outcome_of(memory_.task(index)) == Outcome::open;
  }
  bool cancel(std::uint32_t index) {
    TaskState& task = memory_.task(index);
    if (!task::withdraw(task)) return false;
    EXPECT_TRUE(task::complete(task, generation_of(index), Outcome::cancelled));
    return true;
  }
  bool give_up(std::uint32_t index) {
    return task::complete(memory_.task(index), generation_of(index),
                          Outcome::broken);
  }
  Outcome await(std::uint32_t index) {
    const TaskState& task = memory_.task(index);
    Outcome outcome;
    while ((outcome = task::outcome_of(
                task.done.load(std::memory_order_acquire))) == Outcome::open)
      support::yield_cpu();
    return outcome;
  }
  // The result is what triple() makes of this; the block is given back.
  bool right(std::uint32_t index, std::uint64_t bytes) {
    TaskState& task = memory_.task(index);
    if (task.result_bytes != bytes) return false;
    const std::byte* data = task.result != 0
                                ? memory_.arena().data(task.result, bytes)
                                : task.inline_result;
    const bool all = std::all_of(data, data + bytes, [index](std::byte b) {
      return b == static_cast<std::byte>(3 * index);
    });
    if (task.result != 0) memory_.arena().release(task.result);
    return all;
  }
  std::size_t blocks() const { return memory_.arena().blocks_in_use(); }

 private:
  std::uint32_t generation_of(std::uint32_t index) {
    return static_cast<std::uint32_t>(
        memory_.task(index).done.load(std::memory_order_relaxed) >> 32);
  }
  void write(std::uint32_t index, std::uint64_t bytes, ClaimState state) {
    TaskState& task = memory_.task(index);
    const std::uint32_t generation = generation_of(index) + 1;
    const std::array<std::uint64_t, 2> arguments = {index, bytes};
    memcpy(task.inline_arguments, arguments.data(), sizeof arguments);
    task.arguments_bytes = sizeof arguments;
    task.arguments = 0;
    task.thunk = thunk_;
    task.result = 0;
    task.done.store(task::done_word(generation, Outcome::open),
                    std::memory_order_relaxed);
    task.claim.store(task::claim_word(generation, state),
                     std::memory_order_release);
  }

  pool::Memory memory_;
  std::uint32_t ring_ = 0;
  FunctionRef thunk_;
  std::vector<std::thread> threads_;
};

TEST(WorkerStress, EveryTaskCompletesOnce) {
  constexpr std::uint32_t kTasks = 1000;
  Owner owner(4);
  for (int round = 1; round <= 5; ++round) {
    const auto bytes = [round](std::uint32_t i) {
      return (i + static_cast<std::uint32_t>(round)) % 7 * 20;
    };
    for (std::uint32_t i = 0; i < kTasks; ++i)
      ASSERT_TRUE(owner.submit(i, bytes(i)));
    for (std::uint32_t i = 0; i < kTasks; ++i) {
      ASSERT_EQ(owner.await(i), Outcome::value);
      ASSERT_TRUE(owner.right(i, bytes(i))) << i;
      ASSERT_EQ(runs[i], round) << i;
    }
    ASSERT_EQ(owner.blocks(), 0u);
  }
}

// Records of tasks that are alone are looked at by a worker that spins, before
// their handles are in the ring; all of these come later.
TEST(WorkerStress, TaskIsTakenAheadOfItsHandleAndRunsOnce) {
  constexpr int kTasks = 20'000;
  Owner owner(2);
  int ahead = 0;
  int cancelled = 0;
  int n = 1;
  // Beside other load the workers may sleep at each of that many.
  const Deadline patience(support::kPatience);
  for (; n <= kTasks || (ahead == 0 && !patience.passed()); ++n) {
    // The last two each time, so that both workers have one to look at.
    const std::uint32_t index = static_cast<std::uint32_t>(n / 16 % 2);
    const std::uint64_t bytes = static_cast<std::uint64_t>(n % 50);
    const int before = runs[index];
    owner.write_alone(index, bytes);
    // Time for a worker to come first, now and then none.
    for (int turn = 0; turn < n % 64 && owner.is_open(index); ++turn)
      waiting::pause();
    ahead += !owner.is_open(index);
    const bool withdrawn = n % 7 == 0 && owner.cancel(index);
    cancelled += withdrawn;
    ASSERT_TRUE(owner.push(index));
    ASSERT_EQ(owner.await(index),
              withdrawn ? Outcome::cancelled : Outcome::value);
    ASSERT_EQ(runs[index], before + !withdrawn) << n;
    if (!withdrawn) {
      ASSERT_TRUE(owner.right(index, bytes)) << n;
    }
  }
  owner.end();
  EXPECT_EQ(runs[0] + runs[1], n - 1 - cancelled);
  EXPECT_EQ(owner.blocks(), 0u);
  RecordProperty("ahead", ahead);
  RecordProperty("cancelled", cancelled);
  EXPECT_GT(ahead, 0);
}

TEST(WorkerStress, CancelOrRun) {
  constexpr std::uint32_t kTasks = 4000;
  Owner owner(3);
  std::array<std::atomic<int>, kTasks> cancelled{};
  std::atomic<std::uint32_t> submitted{0};
  std::vector<std::thread> cancellers;
  // The first is not cancelled: its worker is awake when the race begins.
  ASSERT_TRUE(owner.submit(0, 0));
  ASSERT_EQ(owner.await(0), Outcome::value);
  ++submitted;
  for (unsigned t = 0; t < 2; ++t)
    cancellers.emplace_back([&, t] {
      for (std::uint32_t i = 1; i < kTasks; ++i) {
        while (submitted.load() <= i) support::yield_cpu();
        if (i % 3 != t) cancelled[i] += owner.cancel(i);
      }
    });
  for (std::uint32_t i = 1; i < kTasks; ++i) {
    ASSERT_TRUE(owner.submit(i, i % 100));
    ++submitted;
  }
  int values = 0;
  for (auto& thread : cancellers) thread.join();
  for (std::uint32_t i = 0; i < kTasks; ++i) {
    const Outcome outcome = owner.await(i);
    ASSERT_EQ(cancelled[i], outcome == Outcome::cancelled);
    ASSERT_EQ(runs[i], outcome == Outcome::value);
    if (outcome == Outcome::value) {
      ASSERT_TRUE(owner.right(i, i % 100)) << i;
      ++values;
    }
  }
  EXPECT_EQ(owner.blocks(), 0u);
  EXPECT_GT(values, 0);
}

// As at terminate(): the owner completes tasks over the workers' heads, which
// then let go of what they have made.
TEST(WorkerStress, GivenUpWhileItRuns) {
  constexpr std::uint32_t kTasks = 3000;
  Owner owner(3);
  std::atomic<std::uint32_t> submitted{0};
  std::array<std::atomic<int>, kTasks> given_up{};
  std::thread breaker([&] {
    std::mt19937 random(5);
    for (std::uint32_t i = 0; i < kTasks; ++i) {
      while (submitted.load() <= i) support::yield_cpu();
      if (random() % 2 == 0) given_up[i] = owner.give_up(i);
    }
  });
  for (std::uint32_t i = 0; i < kTasks; ++i) {
    ASSERT_TRUE(owner.submit(i, 10 + i % 90));
    ++submitted;
  }
  breaker.join();
  std::vector<Outcome> outcomes;
  for (std::uint32_t i = 0; i < kTasks; ++i) outcomes.push_back(owner.await(i));
  owner.end();
  for (std::uint32_t i = 0; i < kTasks; ++i) {
    ASSERT_EQ(given_up[i], outcomes[i] == Outcome::broken);
    ASSERT_LE(runs[i], 1);
    if (outcomes[i] == Outcome::value) {
      ASSERT_EQ(runs[i], 1);
      ASSERT_TRUE(owner.right(i, 10 + i % 90)) << i;
    }
  }
  EXPECT_EQ(owner.blocks(), 0u) << "results of tasks that were given up";
}

}  // namespace
