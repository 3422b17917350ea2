#pragma once
// JobQueue<Job>: pointers to jobs, first-in first-out, without a bound: what
// one thread pushes is popped in that order.
//
//   JobQueue<ThreadJob> queue;
//   queue.push(job);
//   if (ThreadJob* const next = queue.pop()) run(*next);
//
// The first kCells go through a ring, one cache line in four jobs, where
// boost::lockfree::queue moves four or five lines a job between the CPUs; what
// finds the ring full goes through the latter, and what comes after it, too,
// until that is empty again.
//
// Source:  the ring is Dmitry Vyukov's "Bounded MPMC queue", 1024cores.net.
// Sharing: any thread; lock-free but for one that stops between the two steps
//          of push(): what comes after it waits for it.

#include <atomic>
#include <boost/lockfree/queue.hpp>
#include <cstddef>
#include <cstdint>
#include <new>
#include <vector>

namespace shoal::pool {

template <class Job>
class JobQueue {
 public:
  static constexpr std::size_t kCells = 1024;

  JobQueue() : cells_(kCells), overflow_(0) {
    for (std::size_t n = 0; n < kCells; ++n)
      cells_[n].turn.store(n, std::memory_order_relaxed);
  }

  // Throws std::bad_alloc.
  void push(Job* job) {
    // acquire: SYNC(job_queue.overflowing): when nothing is left there, it has
    // been popped.
    if (overflowing_.load(std::memory_order_acquire) == 0 && push_to_ring(job))
      return;
    // relaxed: who pushes next is this thread, or is not ordered after it.
    overflowing_.fetch_add(1, std::memory_order_relaxed);
    if (overflow_.push(job)) return;
    overflowing_.fetch_sub(1, std::memory_order_relaxed);
    throw std::bad_alloc();
  }

  // nullptr: there is none, or what is next is only about to be pushed.
  Job* pop() {
    Job* job;
    if (pop_from_ring(job)) return job;
    // Boost's pop() may have written `job` when it returns false.
    if (overflowing_.load(std::memory_order_relaxed) == 0 ||
        !overflow_.pop(job))
      return nullptr;
    // SYNC(job_queue.overflowing)
    overflowing_.fetch_sub(1, std::memory_order_release);
    return job;
  }

  // A guess.
  bool empty() const {
    const std::uint64_t position = head_.load(std::memory_order_relaxed);
    // relaxed: pop() looks again.
    return cell(position).turn.load(std::memory_order_relaxed) !=
               position + 1 &&
           overflowing_.load(std::memory_order_relaxed) == 0;
  }

 private:
  // Free for the push at `turn`, or full for the pop at `turn` - 1.
  struct Cell {
    std::atomic<std::uint64_t> turn;
    Job* job;
  };

  Cell& cell(std::uint64_t position) { return cells_[position % kCells]; }
  const Cell& cell(std::uint64_t position) const {
    return cells_[position % kCells];
  }

  bool push_to_ring(Job* job) {
    std::uint64_t position = tail_.load(std::memory_order_relaxed);
    for (;;) {
      Cell& at = cell(position);
      // SYNC(job_queue.turn)
      const std::uint64_t turn = at.turn.load(std::memory_order_acquire);
      if (turn == position) {
        // relaxed: the cell publishes.
        if (!tail_.compare_exchange_weak(position, position + 1,
                                         std::memory_order_relaxed))
          continue;
        at.job = job;
        // SYNC(job_queue.turn)
        at.turn.store(position + 1, std::memory_order_release);
        return true;
      }
      if (turn < position) return false;
      position = tail_.load(std::memory_order_relaxed);
    }
  }

  bool pop_from_ring(Job*& job) {
    std::uint64_t position = head_.load(std::memory_order_relaxed);
    for (;;) {
      Cell& at = cell(position);
      // SYNC(job_queue.turn)
      const std::uint64_t turn = at.turn.load(std::memory_order_acquire);
      if (turn == position + 1) {
        // relaxed: as above.
        if (!head_.compare_exchange_weak(position, position + 1,
                                         std::memory_order_relaxed))
          continue;
        job = at.job;
        // SYNC(job_queue.turn)
        at.turn.store(position + kCells, std::memory_order_release);
        return true;
      }
      if (turn <= position) return false;
      position = head_.load(std::memory_order_relaxed);
    }
  }

  std::vector<Cell> cells_;
  boost::lockfree::queue<Job*> overflow_;
  // Pushed there, or about to be, and not popped.
  alignas(64) std::atomic<std::size_t> overflowing_{0};
  alignas(64) std::atomic<std::uint64_t> tail_{0};
  alignas(64) std::atomic<std::uint64_t> head_{0};
};

}  // namespace shoal::pool
