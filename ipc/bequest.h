#pragma once
// bequest: what belongs to one process at a time, when the process forks.
//
//   bequest::Parcel parcel;                 // before the fork
//   ... in the child:  parcel.receive(parent), before anything of the user's
//   ... in the parent: parcel.give([&] { body.reset(); }, child)
//
// An Item (the end of a Pipe) that is destroyed inside give() is not closed
// but becomes the child's. When give() has returned, that has happened, or the
// child is dead and its items are closed as those of the dead.
//
// After a bare fork() both processes have a copy of each item, and it belongs
// to the one that uses it first; the epoch is how the other one finds out.
//
// Sharing:  a Parcel is the thread's that forks; Items as they say.
// Death:    of the child, at any instruction: the parent sees it by the pidfd
//           and tells the items. Of the parent: the child goes on with what
//           it has got; what it has not got goes with the parent.
// Cost:     a load for who uses an item; two descriptors and a round trip for
//           a start() while the process has items.

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "shoal/ipc/descriptor.h"
#include "shoal/ipc/pidfd.h"

namespace shoal::bequest {

// Forks << 16 | forks in progress. Changes before and after each.
extern std::atomic<std::uint64_t> fork_epoch;
inline constexpr std::uint64_t kInProgress = 0xFFFF;
// What nothing is of.
inline constexpr std::uint64_t kNoEpoch = 0;

inline std::uint64_t epoch() {
  // relaxed: a fork by another thread is ordered by what it does to memory.
  return fork_epoch.load(std::memory_order_relaxed);
}
// What an item may remember: kNoEpoch while somebody forks.
inline std::uint64_t settled_epoch() {
  const std::uint64_t now = epoch();
  return (now & kInProgress) == 0 ? now : kNoEpoch;
}

class Item {
 public:
  Item();
  virtual ~Item();
  Item(const Item&) = delete;
  Item& operator=(const Item&) = delete;

  // In the child: from now on it is this process's.
  virtual void receive() noexcept = 0;
  // In the parent: the child has received it, or has died.
  virtual void was_given(bool received) noexcept = 0;

  static bool any();
};

class Parcel {
 public:
  // Throws std::system_error.
  Parcel();
  Parcel(const Parcel&) = delete;
  Parcel& operator=(const Parcel&) = delete;

  // In the child. Also returns when the parent has died.
  void receive(const Pidfd& parent) noexcept;
  // In the parent.
  void give(const std::function<void()>& destroy, const Pidfd& child);

  // The one whose give() this thread is in, or nullptr.
  static Parcel* current();
  void add(std::shared_ptr<Item> item) { items_.push_back(std::move(item)); }

 private:
  Descriptor parents_;  // both are none in a process without items
  Descriptor childs_;
  std::vector<std::shared_ptr<Item>> items_;
};

}  // namespace shoal::bequest
