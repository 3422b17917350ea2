#pragma once
// Vyukov's bounded queue in shared memory, the one to compare with: as fast as
// a ring for many producers and consumers gets, and stuck for ever when one of
// them is killed between its two steps. Waiting is spinning.
//
// Source: Dmitry Vyukov, "Bounded MPMC queue", 1024cores.net. A cell is a word
// and a payload, as in ipc/cells.h; spin_limit is that of notes/rings.md.

#include <sched.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "bench/support/machine.h"
#include "shoal/ipc/waiting.h"

namespace shoal::bench {

template <class T>
class Vyukov {
 public:
  // `size` is a power of two. After `spin_limit` attempts each yields once.
  Vyukov(std::size_t size, int spin_limit)
      : bytes_(sizeof(Ring) + size * sizeof(Cell)),
        spin_limit_(spin_limit),
        ring_(new (map_shared(bytes_)) Ring),
        cells_(reinterpret_cast<Cell*>(ring_ + 1)) {
    ring_->mask = size - 1;
    for (std::uint64_t i = 0; i < size; ++i) (new (&cells_[i]) Cell)->word = i;
  }
  ~Vyukov() { unmap_shared(ring_, bytes_); }
  Vyukov(const Vyukov&) = delete;
  Vyukov& operator=(const Vyukov&) = delete;

  bool try_put(const T& value) {
    std::uint64_t position = ring_->tail.load(std::memory_order_relaxed);
    Cell* cell;
    for (;;) {
      cell = &cells_[position & ring_->mask];
      // SYNC(bench.cell)
      const auto lead = static_cast<std::int64_t>(
          cell->word.load(std::memory_order_acquire) - position);
      if (lead < 0) return false;
      if (lead > 0)
        position = ring_->tail.load(std::memory_order_relaxed);
      else if (ring_->tail.compare_exchange_weak(position, position + 1,
                                                 std::memory_order_relaxed))
        break;
    }
    std::memcpy(cell->data, &value, sizeof value);
    cell->word.store(position + 1,
                     std::memory_order_release);  // SYNC(bench.cell)
    return true;
  }

  bool try_get(T& value) {
    std::uint64_t position = ring_->head.load(std::memory_order_relaxed);
    Cell* cell;
    for (;;) {
      cell = &cells_[position & ring_->mask];
      // SYNC(bench.cell)
      const auto lead = static_cast<std::int64_t>(
          cell->word.load(std::memory_order_acquire) - (position + 1));
      if (lead < 0) return false;
      if (lead > 0)
        position = ring_->head.load(std::memory_order_relaxed);
      else if (ring_->head.compare_exchange_weak(position, position + 1,
                                                 std::memory_order_relaxed))
        break;
    }
    std::memcpy(&value, cell->data, sizeof value);
    // SYNC(bench.cell)
    cell->word.store(position + ring_->mask + 1, std::memory_order_release);
    return true;
  }

  void put(const T& value) {
    Backoff wait(spin_limit_);
    while (!try_put(value)) wait();
  }
  T get() {
    Backoff wait(spin_limit_);
    T value;
    while (!try_get(value)) wait();
    return value;
  }

 private:
  struct Ring {
    alignas(64) std::atomic<std::uint64_t> tail{0};
    alignas(64) std::atomic<std::uint64_t> head{0};
    alignas(64) std::uint64_t mask;
  };
  struct Cell {
    std::atomic<std::uint64_t> word;
    std::byte data[sizeof(T)];
  };

  class Backoff {
   public:
    explicit Backoff(int limit) : limit_(limit) {}
    void operator()() {
      if (++count_ < limit_) {
        waiting::pause();
      } else {
        sched_yield();
        count_ = 0;
      }
    }

   private:
    int limit_;
    int count_ = 0;
  };

  std::size_t bytes_;
  int spin_limit_;
  Ring* ring_;
  Cell* cells_;
};

}  // namespace shoal::bench
