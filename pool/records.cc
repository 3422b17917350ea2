#include "shoal/pool/records.h"

#include <algorithm>
#include <string>

#include "shoal/ipc/errors.h"

namespace shoal::pool {

using task::Outcome;
using task::TaskState;

namespace {

constexpr std::uint32_t kBatch = 4096;  // that get pages together

}  // namespace

std::uint32_t Records::take_free() {
  const std::lock_guard guard(mutex_);
  recycle_abandoned();
  if (free_.empty()) {
    // acquire: see take().
    const std::uint32_t spare =
        spare_.exchange(kNone, std::memory_order_acquire);
    if (spare != kNone) return spare;
    if (used_ == kMaxTasks)
      throw NoSpace("shoal: " + std::to_string(kMaxTasks) +
                        " tasks are outstanding or uncollected; collect some",
                    kMaxTasks + 1, kMaxTasks);
    if (used_ == populated_) {
      // The first records alone keep a small pool small.
      const std::uint32_t more =
          std::min(std::max(populated_, kBatch / 64), kBatch);
      memory_.populate_tasks(populated_,
                             std::min(populated_ + more, kMaxTasks));
      populated_ = std::min(populated_ + more, kMaxTasks);
    }
    // Room for all, so that giving one back never fails.
    if (free_.capacity() <= used_) free_.reserve(2 * (used_ + 64));
    free_.push_back(used_++);
  }
  const std::uint32_t index = free_.back();
  free_.pop_back();
  count_out();
  return index;
}

void Records::put_free(std::uint32_t index) {
  free_.push_back(index);
  count_out();
}

void Records::count_out() {
  out_.store(used_ - static_cast<std::uint32_t>(free_.size()),
             std::memory_order_relaxed);
}

void Records::clear(std::uint32_t index) {
  TaskState& task = memory_.task(index);
  task::withdraw_completed(task);
  if (task.arguments != 0) {
    // relaxed: written by this process.
    if (!keeps_arguments_.load(std::memory_order_relaxed))
      memory_.arena().release(task.arguments);
    task.arguments = 0;
  }
  if (task.result != 0) {
    const Outcome outcome = task::outcome_of(task);
    if (outcome == Outcome::value || outcome == Outcome::error)
      memory_.arena().release(task.result);
    task.result = 0;
  }
}

void Records::release(std::uint32_t index, bool small) {
  const TaskState& task = memory_.task(index);
  const Outcome outcome = task::outcome_of(task);
  if (outcome == Outcome::open) {
    const std::lock_guard guard(mutex_);
    abandoned_.push_back(index);
    abandoned_any_.store(true, std::memory_order_relaxed);
    return;
  }
  // Who has a value was claimed, and holds nothing but what is in the record:
  // its first line, which the worker has, is not waited for.
  if (!small || outcome != Outcome::value || task.result != 0) clear(index);
  std::uint32_t none = kNone;
  // release: see take().
  if (spare_.load(std::memory_order_relaxed) == kNone &&
      spare_.compare_exchange_strong(none, index, std::memory_order_release,
                                     std::memory_order_relaxed))
    return;
  const std::lock_guard guard(mutex_);
  put_free(index);
}

void Records::recycle_abandoned() {
  // A few at a time; the oldest are done first.
  for (int n = 0; n < 4 && !abandoned_.empty(); ++n) {
    const std::uint32_t index = abandoned_.front();
    abandoned_.pop_front();
    if (task::outcome_of(memory_.task(index)) != Outcome::open) {
      clear(index);
      put_free(index);
    } else {
      abandoned_.push_back(index);
    }
  }
  abandoned_any_.store(!abandoned_.empty(), std::memory_order_relaxed);
}

void Records::free_arguments(std::uint32_t index) {
  // relaxed: not 0 only under the mutex, for whoever comes first.
  const std::atomic_ref<BlockRef> arguments(memory_.task(index).arguments);
  if (arguments.load(std::memory_order_relaxed) == 0) return;
  const std::lock_guard guard(mutex_);
  const BlockRef block = arguments.load(std::memory_order_relaxed);
  if (block == 0 || keeps_arguments_.load(std::memory_order_relaxed)) return;
  memory_.arena().release(block);
  arguments.store(0, std::memory_order_relaxed);
}

void Records::keep_arguments() {
  const std::lock_guard guard(mutex_);
  keeps_arguments_.store(true, std::memory_order_relaxed);
}

std::uint64_t Records::complete_open(Outcome outcome) {
  std::uint64_t completed = 0;
  const std::lock_guard guard(mutex_);
  for (std::uint32_t index = 0; index < used_; ++index) {
    TaskState& task = memory_.task(index);
    // SYNC(task.claim)
    const auto claim =
        task::claim_state(task.claim.load(std::memory_order_acquire));
    // What was never submitted looks open.
    if (claim == task::ClaimState::free ||
        task::outcome_of(task) != Outcome::open)
      continue;
    task::withdraw_completed(task);
    completed += task::complete(task, task::generation_of(task), outcome);
  }
  return completed;
}

}  // namespace shoal::pool
