#pragma once
// PayloadScene: a queue of texts in blocks for one kill, and what its survivors
// must find afterwards. As Scene.

#include <cstdint>
#include <string>

#include "tests/ipc/payload_scene.h"
#include "tests/ipc/queue_scene.h"

namespace shoal::support {

inline constexpr std::size_t kBytes = 300;

class PayloadScene {
 public:
  explicit PayloadScene(std::uint64_t queued, bool warm = true,
                        QueueOptions options = {.maxsize = 4})
      : queue(options) {
    // The first block of its size, with its pages, stays.
    if (warm) {
      queue.put(text(99, kBytes));
      queue.get();
    }
    for (std::uint64_t i = 1; i <= queued; ++i) queue.put(text(i, kBytes));
  }

  Queue<std::string> queue;

  Victim::Body join() {
    return [this] {
      auto& domain = local_of(queue).domain();
      domain.seat();
      domain.process_seat();
    };
  }
  // All that can be got.
  Items drain(Round& round) {
    Items items;
    for (int misses = 0; misses < 8;) {
      const auto got = queue.try_get();
      if (!got) {
        ++misses;
        continue;
      }
      const auto number = number_in(*got);
      round.expect(number.has_value() && got->size() == kBytes, "torn");
      items.push_back(number.value_or(0));
      misses = 0;
    }
    return items;
  }
  // Nothing of it is in use, and it works as ever.
  void expect_whole(Round& round) {
    round.expect_none(blocks_in_use(queue) == 0
                          ? ""
                          : std::to_string(blocks_in_use(queue)) +
                                " blocks in use in an empty queue");
    for (int lap = 0; lap < 3; ++lap) {
      for (std::uint64_t i = 0; i < 4; ++i)
        round.expect(queue.try_put(text(i, kBytes)), "capacity lost");
      for (std::uint64_t i = 0; i < 4; ++i) {
        const auto got = queue.try_get();
        round.expect(got == text(i, kBytes), "lost or out of order");
      }
    }
    round.expect(blocks_in_use(queue) == 0, "a block is in use");
    round.expect(store_of(queue).used() <= 2 * (kBytes + 8),
                 "what the dead had in hands was not counted out");
    round.expect_none(seats_free());
  }
};

}  // namespace shoal::support
