#include "tests/ipc/queue_scene.h"

#include <sched.h>

#include <algorithm>
#include <chrono>

#include "gtest/gtest.h"

namespace shoal::support {
namespace {

using std::chrono::milliseconds;

std::string listed(const Items& items) {
  std::string text = " in {";
  for (const Item item : items) text += " " + std::to_string(item);
  return text + " }";
}

}  // namespace

cells::Cells<Item> cells_of(const Queue<Item>& queue) {
  Object& object = *HandleAccess::object(queue);
  auto* ring = static_cast<cells::RingState*>(object.payload());
  return {*ring, static_cast<std::uint32_t>(queue.maxsize()), object.domain(),
          object.spin};
}

liveness::Domain& domain_of(const Queue<Item>& queue) {
  return HandleAccess::object(queue)->domain();
}

void die_with_claims(const Queue<Item>& queue, int puts, int gets) {
  Child child([&](Child& self) {
    auto cells = cells_of(queue);
    const liveness::Who me = cells.domain().seat();
    for (int i = 0; i < puts + gets; ++i) {
      cells::Cells<Item>::Claim claim;
      liveness::Who blocker = 0;
      const auto status = i < puts ? cells.claim_for_put(me, claim, blocker)
                                   : cells.claim_for_get(me, claim, blocker);
      self.expect(status == waiting::Status::ok, "claimed");
    }
    if (self.failures().empty()) raise(SIGKILL);
  });
  if (child.join() != -SIGKILL) throw Error("no claims: " + child.failures());
}

std::string exactly(const Items& items, const Items& must, const Items& may) {
  const auto count = [&](Item item) { return std::ranges::count(items, item); };
  for (const Item item : must)
    if (count(item) != 1)
      return "value " + std::to_string(item) + " not exactly once" +
             listed(items);
  for (const Item item : may)
    if (count(item) > 1)
      return "value " + std::to_string(item) + " twice" + listed(items);
  for (const Item item : items)
    if (std::ranges::count(must, item) + std::ranges::count(may, item) == 0)
      return "phantom value " + std::to_string(item) + listed(items);
  return {};
}

Scene::Scene(const Items& items, int turned) {
  for (int i = 0; i < turned; ++i) {
    queue.put_nowait(static_cast<Item>(i));
    queue.get_nowait();
  }
  for (const Item item : items) queue.put_nowait(item);
}

Victim::Body Scene::join() {
  return [this] { domain_of(queue).seat(); };
}

Victim::Body Scene::join_for_leases() {
  return [this] { domain_of(queue).process_seat(); };
}

Items Scene::drain() {
  Items items;
  // A call that finds nothing looks at eight seats more.
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

std::string Scene::whole() {
  for (int lap = 0; lap < 3; ++lap) {
    for (Item i = 0; i < kCapacity; ++i)
      if (!queue.try_put(9000 + i))
        return "capacity lost: full with " + std::to_string(i);
    if (queue.try_put(1)) return "holds more than its capacity";
    for (Item i = 0; i < kCapacity; ++i)
      if (const auto item = queue.try_get(); item != 9000 + i)
        return "lost or out of order: " +
               (item ? std::to_string(*item) : "nothing") + " at " +
               std::to_string(i);
    if (const auto item = queue.try_get())
      return "phantom value " + std::to_string(*item);
  }
  return seats_free();
}

std::string seats_free() {
  liveness::Domain& domain = *liveness::Domain::tree();
  domain.retire_all();
  // Whoever checks need not have used the scene before the victim did.
  const std::uint32_t own = liveness::index_of(domain.seat());
  const std::uint32_t taken = domain.seats_taken();
  if (taken != 1) return std::to_string(taken) + " seats taken";
  Shared<std::atomic<std::uint32_t>> index;
  Child next([&](Child&) { *index = liveness::index_of(domain.seat()); });
  if (next.join() != 0) return "no seat for the next: " + next.failures();
  if (*index != (own == 0 ? 1 : 0))
    return "the next gets seat " + std::to_string(*index);
  return {};
}

Partner::Partner(std::function<Item()> operation)
    : child_([&](Child&) {
        // Does not preempt whoever wakes it.
        const sched_param none{};
        sched_setscheduler(0, SCHED_BATCH, &none);
        shared_->ready = true;
        try {
          shared_->item = operation();
          shared_->state = State::done;
        } catch (const ShutDown&) {
          shared_->state = State::shut_down;
        }
      }) {
  eventually([&] { return shared_->ready.load(); });
  settle();
}

namespace {

// It sleeps, and there is nothing for it to do, or it has been asleep beside
// something to do for longer than any scheduling takes.
bool sleeps_on(const std::function<bool()>& done,
               const std::function<bool()>& asleep,
               const std::function<bool()>& possible) {
  eventually([&] { return done() || asleep(); });
  const Deadline lost(milliseconds(300));
  while (!done()) {
    if (asleep() && (!possible() || lost.passed())) return !done();
    yield_cpu();
  }
  return false;
}

}  // namespace

void Partner::settle() {
  eventually([&] { return done() || asleep(); });
}

void Partner::stop() {
  child_.kill(SIGSTOP);
  eventually([&] { return done() || is_stopped(pid()); });
}

bool Partner::ends(const std::function<bool()>& possible) {
  if (sleeps_on([&] { return done(); }, [&] { return asleep(); }, possible))
    return false;
  child_.join();
  return true;
}

Route Sleeper::route(const Items& items, const Operation& operation) {
  Route route;
  for (int warm = 0; warm < 2; ++warm) {
    route = {};
    Scene scene(items);
    Victim victim([&] { (void)operation(scene.queue); }, scene.join());
    EXPECT_EQ(victim.rehearse(route, 100000, false), Stop::asleep);
    victim.kill();
  }
  return route;
}

void Sleeper::settle() {
  eventually([&] { return victim_.done() || asleep(); });
}

bool Sleeper::ends(const std::function<bool()>& possible) {
  return !sleeps_on([&] { return victim_.done(); }, [&] { return asleep(); },
                    possible);
}

}  // namespace shoal::support
