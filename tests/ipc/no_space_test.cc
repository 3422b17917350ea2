// A /dev/shm of 1 MiB with room for 0, 1, 2 ... pages: what is made there
// either works or is NoSpace, and never SIGBUS.

#include <chrono>
#include <functional>
#include <stdexcept>
#include <string>
#include <utility>

#include "gtest/gtest.h"
#include "shoal/ipc/queue.h"
#include "shoal/ipc/sync.h"
#include "shoal/shared/array.h"
#include "shoal/shared/value.h"
#include "tests/support/child.h"
#include "tests/support/residue.h"
#include "tests/support/small_shm.h"

namespace {

using namespace shoal;
using support::Child;
using support::SmallShm;
using support::unique_name;
using support::with_each_room;
using support::with_small_shm;

constexpr std::size_t kMiB = 1 << 20;

struct Record {
  int number;
  double values[100];
};

// Each makes its thing, opens it again, uses it and takes its name away.
template <class T, class Use, class... A>
std::function<void()> made(Use use, A... arguments) {
  return [=, name = unique_name("small")] {
    struct Unlink {
      const std::string& name;
      ~Unlink() { shoal::unlink(name); }
    } const unlink{name};
    T made = T::create(name, arguments...);
    T opened = T::open(name);
    use(made, opened);
  };
}

// A thing that is made of at least so many pages: its seats, its header.
constexpr std::size_t kLeast = 19;

class NoSpaceAt
    : public testing::TestWithParam<
          std::pair<const char*, std::function<std::function<void()>()>>> {};

TEST_P(NoSpaceAt, EachRoom) {
  const bool could = with_small_shm(kMiB, [&](Child& self, SmallShm& shm) {
    with_each_room(self, shm, GetParam().first, kLeast, GetParam().second());
  });
  if (!could) GTEST_SKIP() << "no mount namespace";
}

void use_queue(Queue<int>& made, Queue<int>& opened) {
  for (int n = 0; n < 50; ++n) made.put(n);
  for (int n = 0; n < 50; ++n)
    if (opened.get(now) != n) throw std::logic_error("another value");
}
void use_texts(Queue<std::string>& made, Queue<std::string>& opened) {
  // Inline, and in blocks of several sizes.
  for (const std::size_t bytes : {10, 300, 5'000, 70'000}) {
    const std::string text(bytes, 'a');
    made.put(text);
    if (opened.get(now) != text) throw std::logic_error("another text");
  }
}
void use_lock(const LockHandle& made, const LockHandle& opened) {
  made.acquire();
  made.release();
  opened.acquire();
  opened.release();
}
template <class S>
void use_units(S& made, S& opened) {
  made.acquire();
  opened.release();
}
void use_condition(Condition& made, Condition& opened) {
  made.acquire();
  made.wait(std::chrono::milliseconds(1));
  opened.notify_all();
  made.release();
}
void use_event(Event& made, Event& opened) {
  made.set();
  opened.wait();
}
void use_barrier(Barrier& made, Barrier& opened) {
  made.wait();
  opened.wait();
}
template <class T>
void use_value(Value<T>& made, Value<T>& opened) {
  made.set(T{});
  opened.get();
  *opened.lock() = T{};
}
void use_array(Array<double>& made, Array<double>& opened) {
  made.fill(1.5);
  for (const double value : opened)
    if (value != 1.5) throw std::logic_error("another value");
  auto locked = opened.lock();
}

INSTANTIATE_TEST_SUITE_P(
    Of, NoSpaceAt,
    testing::Values(
        std::pair("FixedQueue",
                  [] { return made<Queue<int>>(use_queue, 60u); }),
        std::pair("GrowingQueue", [] { return made<Queue<int>>(use_queue); }),
        std::pair("Texts", [] { return made<Queue<std::string>>(use_texts); }),
        std::pair("FixedTexts",
                  [] { return made<Queue<std::string>>(use_texts, 3u); }),
        std::pair("Lock", [] { return made<Lock>(use_lock); }),
        std::pair("RLock", [] { return made<RLock>(use_lock); }),
        std::pair("Semaphore",
                  [] { return made<Semaphore>(use_units<Semaphore>, 3u); }),
        std::pair("BoundedSemaphore",
                  [] {
                    return made<BoundedSemaphore>(use_units<BoundedSemaphore>,
                                                  3u);
                  }),
        std::pair("Condition", [] { return made<Condition>(use_condition); }),
        std::pair("Event", [] { return made<Event>(use_event); }),
        std::pair("Barrier", [] { return made<Barrier>(use_barrier, 1); }),
        std::pair("Value", [] { return made<Value<int>>(use_value<int>); }),
        std::pair("LargeValue",
                  [] { return made<Value<Record>>(use_value<Record>); }),
        std::pair("Array",
                  [] {
                    return made<Array<double>>(use_array, std::size_t{30'000});
                  })),
    [](const auto& info) { return std::string(info.param.first); });

}  // namespace
