#pragma once
// The task records of a pool, as the owner keeps account of them: which are
// free, and which are let go of while their task is not done yet.
//
//   const std::uint32_t index = records.take();
//   ...                          // submitted, collected
//   records.release(index);
//
// Sharing: any thread of the owner.
// Cost:    who submits and collects in turn pays one exchange on either side.

#include <atomic>
#include <cstdint>
#include <deque>
#include <mutex>
#include <vector>

#include "shoal/pool/pool_state.h"

namespace shoal::pool {

class Records {
 public:
  explicit Records(Memory& memory) : memory_(memory) {}
  Records(const Records&) = delete;
  Records& operator=(const Records&) = delete;

  // A record that nobody else knows. Throws NoSpace.
  std::uint32_t take() {
    std::uint32_t index = kNone;
    // relaxed: those that come later are recycled later.
    if (!abandoned_any_.load(std::memory_order_relaxed))
      // acquire: the record as its last user has left it.
      index = spare_.exchange(kNone, std::memory_order_acquire);
    return index != kNone ? index : take_free();
  }
  // Of one who has taken a record: all others are free, and what was submitted
  // before is done.
  bool only_one() const {
    // relaxed: a submission that happened before and is still open has been
    // counted before; any other one is concurrent, and has no order.
    return out_.load(std::memory_order_relaxed) == 1;
  }
  // The record is used again, at once or when its task is done. `small`: its
  // arguments were inline.
  void release(std::uint32_t index, bool small);
  // The task is done; its arguments are not needed any more.
  void free_arguments(std::uint32_t index);

  // From now on tasks are completed over their workers' heads: what these read
  // stays until the whole arena goes.
  void keep_arguments();
  // Completes whatever was submitted and is open, begun or not; how many.
  std::uint64_t complete_open(task::Outcome outcome);

 private:
  static constexpr std::uint32_t kNone = ~0u;

  std::uint32_t take_free();
  // Both under the mutex.
  void put_free(std::uint32_t index);
  void count_out();
  void clear(std::uint32_t index);
  void recycle_abandoned();

  Memory& memory_;
  // The record that was freed last: who submits and collects in turn needs
  // neither the mutex nor a second record.
  std::atomic<std::uint32_t> spare_{kNone};
  std::atomic<std::uint32_t> out_{0};         // not in `free_`; under the mutex
  std::atomic<bool> abandoned_any_{false};    // changed under the mutex
  std::atomic<bool> keeps_arguments_{false};  // changed under the mutex

  std::mutex mutex_;  // of the rest; this process only
  std::vector<std::uint32_t> free_;
  std::deque<std::uint32_t> abandoned_;
  std::uint32_t used_ = 0;  // ever
  std::uint32_t populated_ = 0;
};

}  // namespace shoal::pool
