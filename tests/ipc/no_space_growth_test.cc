// Named queues that grow in a /dev/shm that is full or nearly so: what was put
// is there, what was refused is not, and it goes on when there is room again.

#include <string>

#include "gtest/gtest.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/queue.h"
#include "tests/support/child.h"
#include "tests/support/name.h"
#include "tests/support/small_shm.h"

namespace {

using shoal::NoSpace;
using shoal::now;
using shoal::Queue;
using shoal::support::Child;
using shoal::support::kPatience;
using shoal::support::Name;
using shoal::support::SmallShm;
using shoal::support::with_small_shm;

constexpr std::size_t kMiB = 1 << 20;

template <class T>
T value(int n);
template <>
int value(int n) {
  return n;
}
// Inline, and in blocks of all sizes.
template <>
std::string value(int n) {
  constexpr std::size_t kBytes[] = {10, 200, 3'000, 20'000, 90'000};
  return std::string(kBytes[n % 5], static_cast<char>('a' + n % 26));
}

// Until NoSpace, from `first` on; the next one.
template <class T>
int fill(Child& self, Queue<T>& queue, int first) {
  for (int n = first; n < first + 1'000'000; ++n) {
    try {
      queue.put(value<T>(n), now);
    } catch (const NoSpace& error) {
      self.expect(error.wanted() > error.available(), error.what());
      return n;
    }
  }
  self.expect(false, "never full");
  return first;
}

template <class T>
void drain(Child& self, Queue<T>& queue, int first, int end) {
  for (int n = first; n < end; ++n)
    if (queue.get(now) != value<T>(n)) return self.expect(false, "not in turn");
  self.expect(queue.empty(), "a value too many");
}

template <class T>
void grow_in_each_room() {
  const Name name("grows");
  const bool could = with_small_shm(2 * kMiB, [&](Child& self, SmallShm& shm) {
    auto queue = Queue<T>::create(name);
    auto opened = Queue<T>::open(name);
    int first = 0;
    for (std::size_t pages = 0; pages < 25; ++pages) {
      shm.leave(pages);
      const int end = fill(self, queue, first);
      drain(self, opened, first, end);
      first = end;
    }
    // What is free in the queue is used again, in no more room.
    shm.leave(0);
    for (int n = 0; n < 3; ++n) {
      queue.put(value<T>(0), now);
      self.expect(opened.get(now) == value<T>(0), "another value");
    }
    const int full = fill(self, queue, 0);
    shm.empty();
    self.expect(shm.free_pages() > 100, "nothing is left to grow into");
    const int more = fill(self, queue, full);
    self.expect(more > full, "no more room is used");
    drain(self, opened, 0, more);
  });
  if (!could) GTEST_SKIP() << "no mount namespace";
}

TEST(NoSpaceGrowth, Cells) { grow_in_each_room<int>(); }
TEST(NoSpaceGrowth, Payloads) { grow_in_each_room<std::string>(); }

// A producer in another process is refused while a consumer holds the room,
// and not once that has made some.
TEST(NoSpaceGrowth, OneMakesRoomForTheOther) {
  const Name name("shared");
  const bool could = with_small_shm(kMiB, [&](Child& self, SmallShm&) {
    auto queue = Queue<std::string>::create(name);
    auto refused = Queue<int>(1u);
    auto again = Queue<int>(1u);
    const std::string text(40'000, 'x');
    Child producer([&](Child& other) {
      auto mine = Queue<std::string>::open(name);
      int count = 0;
      try {
        for (;; ++count) mine.put(text, now);
      } catch (const NoSpace&) {
      }
      refused.put(count);
      again.get(kPatience);
      mine.put(text, now);
      other.expect(count > 3, "refused too early");
    });
    const int count = refused.get(kPatience);
    self.expect(queue.get(now) == text, "another text");
    again.put(1);
    for (int n = 0; n < count; ++n)
      self.expect(queue.get(kPatience) == text, "another text");
    self.expect(producer.join() == 0, producer.failures());
  });
  if (!could) GTEST_SKIP() << "no mount namespace";
}

}  // namespace
