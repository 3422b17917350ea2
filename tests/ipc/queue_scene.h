#pragma once
// Scene: a queue for one kill, and what its survivors must find afterwards.
//
//   Scene scene({1, 2});                            // two values queued
//   Victim victim([&] { scene.queue.put(7); }, scene.join());
//   ...
//   const auto items = scene.drain();
//   round.expect_none(exactly(items, {1, 2}, {7}));
//   round.expect_none(scene.whole());

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "shoal/ipc/queue.h"
#include "tests/support/child.h"
#include "tests/support/step.h"

namespace shoal::support {

using Item = std::uint64_t;
using Items = std::vector<Item>;
inline constexpr std::size_t kCapacity = 4;

// The ring itself, for claims that are left open.
cells::Cells<Item> cells_of(const Queue<Item>& queue);
liveness::Domain& domain_of(const Queue<Item>& queue);

// An own process that makes claims and dies before it ends them.
void die_with_claims(const Queue<Item>& queue, int puts, int gets);

// Empty, or which of `must` are not there exactly once, which of `may` more
// than once, what else is there.
std::string exactly(const Items& items, const Items& must, const Items& may);

class Scene {
 public:
  // `turned` values go through first, so that the ring is in a later lap.
  explicit Scene(const Items& items = {}, int turned = 0);

  Queue<Item> queue{kCapacity};

  // As the cells are: Queue::empty and full look for the dead first, which
  // would heal what is to be found.
  bool has_item() const { return cells_of(queue).size() != 0; }
  bool has_room() const { return !cells_of(queue).full(); }
  bool is_open() const { return cells_of(queue).closed() == cells::kOpen; }

  // Of a victim: it takes its thread's seat, and for leases its process's,
  // before it is traced.
  Victim::Body join();
  Victim::Body join_for_leases();
  // All that can be got, looking for the dead again and again.
  Items drain();
  // Empty, or what is broken for those who live: three laps of full capacity
  // in order, nothing beyond it, and seats_free().
  std::string whole();
};

// Empty, or what is wrong with the seats of the tree: all but ours are free,
// and the next process gets the lowest.
std::string seats_free();

// A process that sleeps in an operation without a timeout.
class Partner {
 public:
  enum class State { waiting, done, shut_down };

  static Partner getter(const Queue<Item>& queue) {
    return Partner([queue = queue]() mutable { return queue.get(); });
  }
  static Partner putter(const Queue<Item>& queue, Item item) {
    return Partner([queue = queue, item]() mutable {
      queue.put(item);
      return item;
    });
  }
  explicit Partner(std::function<Item()> operation);

  // Until its operation has ended, or it sleeps while `possible` says that
  // there is nothing for it to do. Asleep beside something to do for longer
  // than any scheduling takes: a lost wake-up, and false as well.
  bool ends(const std::function<bool()>& possible = [] { return true; });
  // Until it ends or sleeps.
  void settle();
  pid_t pid() const { return child_.pid(); }
  bool asleep() const { return sleeps_on_futex(pid()); }
  State state() const { return shared_->state; }
  bool done() const { return state() != State::waiting; }
  Item item() const { return shared_->item; }
  // Stops it where it is, unless it is done before; lets it go on.
  void stop();
  void let_go() { child_.kill(SIGCONT); }

 private:
  struct Result {
    std::atomic<State> state;
    std::atomic<Item> item;
    std::atomic<bool> ready;
  };
  Shared<Result> shared_;
  Child child_;
};

// The same, traced: stops at the very instruction.
class Sleeper {
 public:
  using Operation = std::function<Item(Queue<Item>&)>;
  Sleeper(Scene& scene, const Operation& operation)
      : victim_([this, &scene, operation] { *item_ = operation(scene.queue); },
                scene.join()) {
    victim_.await_prepared();
  }

  // How it comes to sleep when nobody disturbs it.
  static Route route(const Items& items, const Operation& operation);
  // To the system call in which it would sleep, by a route written down before.
  bool step(const Route& route) {
    return victim_.go(route, route.size() - 1) == Stop::at_step;
  }
  // The same where the route is not known.
  bool step() { return victim_.go_to_sleep(); }
  // From there: it sleeps, wake() wakes it, and it has not run since.
  bool wake_and_stop(const Victim::Body& wake) {
    return victim_.step_over_sleep(wake);
  }
  void let_go() { victim_.let_go(); }

  // As Partner's.
  bool ends(const std::function<bool()>& possible = [] { return true; });
  void settle();
  Item item() const { return *item_; }
  void kill() { victim_.kill(); }

 private:
  bool asleep() const { return sleeps_on_futex(victim_.pid()); }

  Shared<std::atomic<Item>> item_;
  Victim victim_;
};

}  // namespace shoal::support
