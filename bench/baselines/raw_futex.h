#pragma once
// A word each way, that one end waits for in the kernel and the other sets.
//
//   RawFutex channel(bytes);                     // before the fork
//   channel.send(0, from, n);  channel.receive(1, to, n);   // n <= 64

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "bench/support/machine.h"
#include "shoal/ipc/futex.h"

namespace shoal::bench {

class RawFutex {
 public:
  static constexpr std::size_t kMostBytes = 64;
  explicit RawFutex(std::size_t = kMostBytes) {}
  void send(int end, const std::byte* from, std::size_t n) {
    Slot& slot = slots_->at(end);
    std::memcpy(slot.bytes, from, n);
    slot.word.fetch_add(1, std::memory_order_release);  // SYNC(bench.word)
    futex::wake(slot.word, 1);
  }
  void receive(int end, std::byte* to, std::size_t n) {
    Slot& slot = slots_->at(1 - end);
    // SYNC(bench.word)
    while (slot.word.load(std::memory_order_acquire) == seen_)
      futex::wait(slot.word, seen_, Deadline::never());
    ++seen_;
    std::memcpy(to, slot.bytes, n);
  }

 private:
  struct alignas(64) Slot {
    futex::Word word{0};
    std::byte bytes[kMostBytes];
  };
  struct Both {
    Slot slots[2];
    Slot& at(int direction) { return slots[direction]; }
  };
  Shared<Both> slots_;
  std::uint32_t seen_ = 0;
};

}  // namespace shoal::bench
