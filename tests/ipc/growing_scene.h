#pragma once
// GrowingScene: a queue that grows once, for one kill, and what its survivors
// must find afterwards. As Scene.

#include <cstddef>
#include <string>

#include "tests/ipc/payload_scene.h"
#include "tests/ipc/queue_scene.h"

namespace shoal::support {

// Rings of 4 and 8 values, and no more.
inline constexpr std::size_t kFirst = 4;
inline constexpr std::size_t kSecond = 8;
inline QueueOptions small() {
  using Ring = shoal::cells::Cells<Item>;
  return {.max_bytes = Ring::bytes(kFirst) + Ring::bytes(kSecond)};
}

class GrowingScene {
 public:
  explicit GrowingScene(std::size_t queued) : queue(small()) {
    for (Item i = 1; i <= queued; ++i) queue.put_nowait(i);
  }
  Queue<Item> queue;

  Victim::Body join() {
    return [this] {
      domain_of(queue).seat();
      domain_of(queue).process_seat();
    };
  }
  Items drain() {
    Items items;
    for (int misses = 0; misses < 8;) {
      if (const auto item = queue.try_get()) {
        items.push_back(*item);
        misses = 0;
      } else {
        ++misses;
      }
    }
    return items;
  }
  // It grows still, holds what fits, and the last ring goes round.
  // `mine`: this process has a seat of its own, too.
  std::string whole(bool mine = false) {
    for (int lap = 0; lap < 3; ++lap) {
      Item put = 0;
      while (put < 100 && queue.try_put(9000 + put)) ++put;
      if (put != kSecond && put != kFirst + kSecond)
        return "full with " + std::to_string(put);
      if (lap != 0 && put != kSecond) return "the first ring is used again";
      for (Item i = 0; i < put; ++i)
        if (const auto item = queue.try_get(); item != 9000 + i)
          return "lost or out of order: " +
                 (item ? std::to_string(*item) : "nothing") + " at " +
                 std::to_string(i);
      if (queue.try_get()) return "phantom value";
    }
    return mine ? std::string() : seats_free();
  }
};

}  // namespace shoal::support
