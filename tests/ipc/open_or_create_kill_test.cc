// SIGKILL in open_or_create() and in unlink() of what has a name: it is there
// whole or not at all, there is one of it, and the next one to ask has it.

#include <array>
#include <atomic>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "gtest/gtest.h"
#include "shoal/ipc/event.h"
#include "shoal/ipc/liveness.h"
#include "shoal/ipc/lock.h"
#include "shoal/ipc/queue.h"
#include "shoal/ipc/semaphore.h"
#include "shoal/shared/array.h"
#include "shoal/shared/value.h"
#include "tests/support/child.h"
#include "tests/support/name.h"
#include "tests/support/step.h"

namespace {

using namespace shoal::support;
using shoal::now;

// How one of each kind is made, what a new one is like, and how it is marked,
// so that another process knows it again.
template <class T>
struct Kind;

template <>
struct Kind<shoal::Queue<int>> {
  static auto make(std::string_view name) {
    return shoal::Queue<int>::open_or_create(name, 3);
  }
  static bool is_new(shoal::Queue<int>& queue) {
    return queue.maxsize() == 3 && queue.qsize() == 0;
  }
  static void mark(shoal::Queue<int>& queue) {
    for (int i = 0; i < 3; ++i) queue.put_nowait(i);
  }
  static bool is_marked(shoal::Queue<int>& queue) {
    return queue.maxsize() == 3 && queue.full();
  }
};

template <>
struct Kind<shoal::Lock> {
  static auto make(std::string_view name) {
    return shoal::Lock::open_or_create(name);
  }
  static bool is_new(shoal::Lock& lock) { return !lock.locked(); }
  // Its holder dies.
  static void mark(shoal::Lock& lock) { lock.acquire(now); }
  static bool is_marked(shoal::Lock& lock) {
    if (!lock.acquire(now)) return false;
    if (lock.owner_died()) return true;
    lock.release();
    return false;
  }
};

template <>
struct Kind<shoal::Event> {
  static auto make(std::string_view name) {
    return shoal::Event::open_or_create(name);
  }
  static bool is_new(shoal::Event& event) { return !event.is_set(); }
  static void mark(shoal::Event& event) { event.set(); }
  static bool is_marked(shoal::Event& event) { return event.wait(now); }
};

template <>
struct Kind<shoal::Semaphore> {
  static auto make(std::string_view name) {
    return shoal::Semaphore::open_or_create(name, 3);
  }
  static bool is_new(shoal::Semaphore& semaphore) {
    return semaphore.get_value() == 3;
  }
  static void mark(shoal::Semaphore& semaphore) { semaphore.acquire(now); }
  static bool is_marked(shoal::Semaphore& semaphore) {
    return semaphore.get_value() == 2;
  }
};

// Of one word, and of several.
template <class T>
struct Kind<shoal::Value<T>> {
  static constexpr T filled(long with) {
    T value{};
    if constexpr (std::is_same_v<T, long>)
      value = with;
    else
      value.fill(with);
    return value;
  }
  static auto make(std::string_view name) {
    return shoal::Value<T>::open_or_create(name, filled(5));
  }
  static bool is_new(shoal::Value<T>& value) {
    return value.get() == filled(5);
  }
  static void mark(shoal::Value<T>& value) { value.set(filled(6)); }
  static bool is_marked(shoal::Value<T>& value) {
    return value.get() == filled(6);
  }
};

template <>
struct Kind<shoal::Array<long>> {
  static auto make(std::string_view name) {
    return shoal::Array<long>::open_or_create(name, shoal::Shape(2, 3));
  }
  static bool is_new(shoal::Array<long>& array) {
    return array.shape() == shoal::Shape(2, 3) && array(1, 2) == 0;
  }
  static void mark(shoal::Array<long>& array) { array(1, 2) = 6; }
  static bool is_marked(shoal::Array<long>& array) {
    return array.shape() == shoal::Shape(2, 3) && array(1, 2) == 6;
  }
};

// How many files there are of that name, whole or in the making.
std::size_t files_of(const Name& name) {
  std::size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/dev/shm"))
    count += entry.path().native().find(name.text()) != std::string::npos;
  return count;
}

// An own process does it; `what` if it fails, or takes too long.
void in_a_child(Round& round, const std::string& what,
                const std::function<bool()>& does) {
  Child child([&](Child& self) { self.expect(does(), what); });
  round.expect(child.join(std::chrono::seconds(10)) == 0,
               what + ": " + child.failures());
}

template <class T>
class OpenOrCreateKill : public testing::Test {
 protected:
  void SetUp() override {
    use_one_processor();
    shoal::waiting::set_slices(false);
  }
  // Of a victim. Asking the kernel takes a thread.
  static void prepare() { shoal::liveness::kernel_passes_wakes(); }

  static void expect_new(Round& round, const Name& name) {
    in_a_child(round, "it is there, and new", [&] {
      T object = Kind<T>::make(name);
      const bool is_new = Kind<T>::is_new(object);
      Kind<T>::mark(object);
      return is_new;
    });
    expect_marked(round, name);
  }
  static void expect_marked(Round& round, const Name& name) {
    round.expect(files_of(name) == 1, "there is not one of it");
    in_a_child(round, "it is the same for the next", [&] {
      T object = Kind<T>::make(name);
      return Kind<T>::is_marked(object);
    });
    round.expect(shoal::unlink(name), "its name");
    round.expect(files_of(name) == 0, "something is left");
  }
};

using Kinds =
    testing::Types<shoal::Queue<int>, shoal::Lock, shoal::Event,
                   shoal::Semaphore, shoal::Value<long>,
                   shoal::Value<std::array<long, 4>>, shoal::Array<long>>;
TYPED_TEST_SUITE(OpenOrCreateKill, Kinds);

constexpr SweepOptions kAroundSystemCalls{.around_system_calls = true,
                                          .strays = 30};

TYPED_TEST(OpenOrCreateKill, ThatCreates) {
  kill_at_every_step(
      "AP",
      [&](Round& round) {
        const Name name("created");
        std::optional<TypeParam> object;
        Victim victim([&] { object.emplace(Kind<TypeParam>::make(name)); },
                      this->prepare);
        round.step(victim);
        const std::size_t files = files_of(name);
        round.outcome(files == 0 ? 'A' : 'P');
        round.kill(victim);
        round.expect(files_of(name) == files, "made by the dead");
        this->expect_new(round, name);
      },
      kAroundSystemCalls);
}

// Another is faster while the victim stands still; let go, it finds that one.
TYPED_TEST(OpenOrCreateKill, ThatIsOvertaken) {
  kill_at_every_step(
      "AP",
      [&](Round& round) {
        const Name name("overtaken");
        Shared<std::atomic<bool>> same;
        std::optional<TypeParam> object;
        Victim victim(
            [&] {
              object.emplace(Kind<TypeParam>::make(name));
              *same = Kind<TypeParam>::is_marked(*object);
            },
            this->prepare);
        round.step(victim);
        const bool absent = files_of(name) == 0;
        round.outcome(absent ? 'A' : 'P');
        in_a_child(round, "made beside one who makes it", [&] {
          TypeParam other = Kind<TypeParam>::make(name);
          const bool is_new = Kind<TypeParam>::is_new(other);
          Kind<TypeParam>::mark(other);
          return is_new;
        });
        if (absent && round.stop() == Stop::at_step) {
          round.expect(victim.resume(), "stuck after it was let go");
          round.expect(*same, "two of one name");
        }
        round.kill(victim);
        this->expect_marked(round, name);
      },
      kAroundSystemCalls);
}

TYPED_TEST(OpenOrCreateKill, ThatOpens) {
  kill_at_every_step(
      "P",
      [&](Round& round) {
        const Name name("opened");
        in_a_child(round, "made", [&] {
          TypeParam made = Kind<TypeParam>::make(name);
          Kind<TypeParam>::mark(made);
          return true;
        });
        std::optional<TypeParam> object;
        Victim victim([&] { object.emplace(Kind<TypeParam>::make(name)); },
                      this->prepare);
        round.step(victim);
        round.kill(victim);
        round.outcome('P');
        this->expect_marked(round, name);
      },
      kAroundSystemCalls);
}

template <class T>
class UnlinkKill : public OpenOrCreateKill<T> {};

using UnlinkKinds = testing::Types<shoal::Queue<int>, shoal::Array<long>>;
TYPED_TEST_SUITE(UnlinkKill, UnlinkKinds);

TYPED_TEST(UnlinkKill, Unlink) {
  kill_at_every_step("PA", [&](Round& round) {
    const Name name("unlinked");
    in_a_child(round, "made", [&] {
      TypeParam made = Kind<TypeParam>::make(name);
      Kind<TypeParam>::mark(made);
      return true;
    });
    Victim victim([&] { shoal::unlink(name); });
    round.step(victim);
    round.kill(victim);
    const std::size_t files = files_of(name);
    round.outcome(files == 1 ? 'P' : 'A');
    files == 1 ? this->expect_marked(round, name)
               : this->expect_new(round, name);
  });
}

}  // namespace
