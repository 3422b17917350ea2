#pragma once
// JobQueue<Job>: pointers to jobs, first-in first-out, without a bound: what
// one thread pushes is popped in that order.
//
//   JobQueue<ThreadJob> queue;
//   queue.push(job);
//   if (ThreadJob* const next = queue.pop()) run(*next);
//
// They go through a ring, one cache line in four jobs, where
// boost::lockfree::queue moves four or five lines a job between the CPUs. What
// finds the ring full waits in the latter, and so does what comes after it,
// until consumers have moved all of it into the ring.
//
// Source:  the ring is Dmitry Vyukov's "Bounded MPMC queue", 1024cores.net.
// Sharing: any thread. No call waits; but what comes behind a push() that has
//          stopped between its two steps, or a pop() that has stopped while it
//          moves jobs, is not found before that goes on.

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
  static constexpr std::size_t kRefill = 32;

  JobQueue() : cells_(kCells), overflow_(0) {
    for (std::size_t n = 0; n < kCells; ++n)
      cells_[n].turn.store(n, std::memory_order_relaxed);
  }

  // Throws std::bad_alloc.
  void push(Job* job) {
    // acquire: SYNC(job_queue.overflowing): what came before is in the ring.
    if (overflowing_.load(std::memory_order_acquire) == 0 && push_to_ring(job))
      return;
    // relaxed: whoever pushes after this sees it, or a later count.
    overflowing_.fetch_add(1, std::memory_order_relaxed);
    if (overflow_.push(job)) return;
    overflowing_.fetch_sub(1, std::memory_order_relaxed);
    throw std::bad_alloc();
  }

  // nullptr: there is none, or what is next is not to be found yet.
  Job* pop() {
    Job* job;
    do {
      if (pop_from_ring(job)) return job;
      // relaxed: a refill looks again.
    } while (overflowing_.load(std::memory_order_relaxed) != 0 && refill());
    return nullptr;
  }

  // A guess of one who looks again and again, at no line that push() writes
  // while there is nothing.
  bool looks_empty() const {
    const std::uint64_t position = head_.load(std::memory_order_relaxed);
    // relaxed: pop() looks again.
    return cell(position).turn.load(std::memory_order_relaxed) !=
               position + 1 &&
           overflowing_.load(std::memory_order_relaxed) == 0;
  }
  // What is next and not to be found yet is there.
  bool empty() const {
    // acquire: SYNC(job_queue.overflowing): first, as it moves to the ring.
    if (overflowing_.load(std::memory_order_acquire) != 0) return false;
    std::uint64_t position = head_.load(std::memory_order_relaxed);
    for (;;) {
      // acquire: SYNC(job_queue.turn): who has popped it has moved the head.
      const std::uint64_t turn =
          cell(position).turn.load(std::memory_order_acquire);
      if (turn <= position) break;
      if (turn == position + 1) return false;
      position = head_.load(std::memory_order_relaxed);
    }
    return tail_.load(std::memory_order_relaxed) == position;
  }

 private:
  friend class JobQueueSteps;  // tests stop between the two steps of push()

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
    std::uint64_t position;
    if (!claim(position)) return false;
    publish(position, job);
    return true;
  }
  bool claim(std::uint64_t& position) {
    position = tail_.load(std::memory_order_relaxed);
    for (;;) {
      // SYNC(job_queue.turn)
      const std::uint64_t turn =
          cell(position).turn.load(std::memory_order_acquire);
      if (turn < position) return false;
      if (turn > position) position = tail_.load(std::memory_order_relaxed);
      // relaxed: the cell publishes.
      else if (tail_.compare_exchange_weak(position, position + 1,
                                           std::memory_order_relaxed))
        return true;
    }
  }
  void publish(std::uint64_t position, Job* job) {
    Cell& at = cell(position);
    at.job = job;
    // SYNC(job_queue.turn)
    at.turn.store(position + 1, std::memory_order_release);
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

  // From what overflowed to the end of the ring, by one thread at a time, so
  // that it stays in order. Whether there is more in the ring then: when it was
  // empty and is full now, or the one at its head is only about to be pushed,
  // who pushes wakes whoever sleeps.
  bool refill() {
    // SYNC(job_queue.refilling): `held_`. seq_cst: whoever leaves it to another
    // one here is seen by that one, if it has announced itself before.
    if (refilling_.exchange(true, std::memory_order_seq_cst)) return false;
    std::size_t moved = 0;
    while (moved < kRefill) {
      Job* next;  // Boost's pop() may have written it when it returns false
      if (held_ == nullptr && overflow_.pop(next)) held_ = next;
      if (held_ == nullptr || !push_to_ring(held_)) break;
      held_ = nullptr;
      ++moved;
      // SYNC(job_queue.overflowing)
      overflowing_.fetch_sub(1, std::memory_order_release);
    }
    // SYNC(job_queue.refilling)
    refilling_.store(false, std::memory_order_seq_cst);
    return moved != 0;
  }

  std::vector<Cell> cells_;
  boost::lockfree::queue<Job*> overflow_;
  // Of what overflowed, what is not in the ring yet; or about to overflow.
  alignas(64) std::atomic<std::size_t> overflowing_{0};
  std::atomic<bool> refilling_{false};
  Job* held_ = nullptr;  // of who refills: in neither of them
  alignas(64) std::atomic<std::uint64_t> tail_{0};
  alignas(64) std::atomic<std::uint64_t> head_{0};
};

}  // namespace shoal::pool
