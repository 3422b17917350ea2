#pragma once
// JoinScene: a JoinableQueue for one kill, and what its survivors must find.
//
//   JoinScene scene(1);                             // one value in it
//   const OwnPartner joiner = scene.joiner();
//   ...
//   scene.expect_joined(round, *joiner);

#include <chrono>
#include <memory>
#include <stdexcept>

#include "shoal/ipc/joinable_queue.h"
#include "tests/ipc/queue_scene.h"

namespace shoal::support {

using OwnPartner = std::unique_ptr<Partner>;

class JoinScene {
 public:
  // Ours are the first seats.
  explicit JoinScene(Item values, QueueOptions options = {kCapacity})
      : queue(options) {
    domain_of(queue).process_seat();
    for (Item i = 1; i <= values; ++i) queue.put_nowait(i);
  }

  JoinableQueue<Item> queue;

  // Of a victim: its seats.
  Victim::Body join() {
    return [this] { domain_of(queue).process_seat(); };
  }
  Victim::Body take(int values) {
    return [this, values] {
      for (int i = 0; i < values; ++i) queue.get();
    };
  }
  OwnPartner joiner() {
    return OwnPartner(new Partner([this] {
      queue.join();
      return Item{1};
    }));
  }
  // As the cells are: looking at the queue would heal what is to be found.
  bool has_value() const {
    const auto cells = cells_of(queue);
    return cells.anything_left() && cells.putter() == 0;
  }
  // All that is there, each reported; how many.
  Item finish() {
    Item values = 0;
    // A call that finds nothing looks at eight seats more.
    for (int misses = 0; misses < 8;) {
      if (queue.try_get()) {
        queue.task_done();
        ++values;
        misses = 0;
      } else {
        ++misses;
      }
    }
    return values;
  }
  // Of nothing that was ever put anything is left to do, and what is put from
  // now on is counted exactly.
  void expect_whole(Round& round) {
    round.expect(queue.join(std::chrono::milliseconds(500)),
                 "LOST: join() waits on");
    round.expect(!reports(), "one too many was taken as done");
    const Item capacity = queue.maxsize();
    for (int lap = 0; lap < 2; ++lap) {
      for (Item i = 0; i < capacity; ++i)
        round.expect(queue.try_put(i), "capacity lost");
      for (Item i = 0; i < capacity; ++i)
        round.expect(queue.try_get() == i, "lost or out of order");
      for (Item i = 0; i < capacity; ++i) {
        round.expect(!queue.join(now), "joined too early");
        round.expect(reports(), "a value is not counted");
      }
      round.expect(queue.join(now), "joined too late");
      round.expect(!reports(), "one too many is counted");
    }
    domain_of(queue).retire_all();
    round.expect(domain_of(queue).seats_taken() == 2, "a seat of the dead");
  }

  // Nobody tells the joiner but the kernel, unless the value comes back.
  void expect_joined(Round& round, Partner& joiner) {
    const bool again = has_value();
    round.outcome(again ? 'R' : 'C');
    if (again) {
      joiner.settle();
      round.expect(!joiner.done(), "joined beside one that came back");
      round.expect(finish() == 1, "not delivered again");
    }
    round.expect(joiner.ends(), "LOST: who joins sleeps on");
    expect_whole(round);
  }

 private:
  bool reports() {
    try {
      queue.task_done();
      return true;
    } catch (const std::logic_error&) {
      return false;
    }
  }
};

}  // namespace shoal::support
