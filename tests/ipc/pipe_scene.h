#pragma once
// PipeScene: a Pipe for one kill, and what its survivor must find afterwards.
//
//   PipeScene scene;
//   Victim victim([&] { scene.theirs.send(Item{7}); }, scene.claim());
//   ...
//   round.outcome(scene.drain(round).empty() ? 'A' : 'P');

#include <memory>
#include <utility>
#include <vector>

#include "shoal/ipc/pipe.h"
#include "tests/ipc/queue_scene.h"
#include "tests/support/step.h"

namespace shoal::support {

inline constexpr std::size_t kRing = 4096;
// Bytes that lie aside; few enough to be copied without a repeated instruction,
// each turn of which is a step.
inline constexpr std::size_t kLong = 1100;
inline constexpr Item kDied = 1000;
inline constexpr Item kEnded = 1001;
inline constexpr Item kBroken = 1002;

std::vector<std::byte> long_message(unsigned seed = 0, std::size_t n = kLong);

class PipeScene {
 public:
  // Describing a type takes thousands of instructions, once a program.
  PipeScene() : PipeScene(Pipe({.capacity = kRing})) {
    (void)pipe_end::type_info<Item>();
  }

  Connection mine;
  Connection theirs;

  // Of a victim: their end is its own before it is traced.
  Victim::Body claim() {
    return [this] { (void)theirs.poll(); };
  }
  // All that comes until it is seen that the victim has died, which must be;
  // a long message counts as its first byte. Then sending is refused, too.
  Items drain(Round& round);
  void expect_gone(Round& round);

 private:
  explicit PipeScene(std::pair<Connection, Connection> ends)
      : mine(std::move(ends.first)), theirs(std::move(ends.second)) {}
};

// One message, kDied or kEnded. Throws TimeoutError.
Item receive_one(Connection& from, Timeout timeout = forever);
// A process that has the end and sleeps in recv() until then.
std::unique_ptr<Partner> receiver(Connection& end);
// The same in send(), of a ring that is full.
std::unique_ptr<Partner> sender(Connection& end);

}  // namespace shoal::support
