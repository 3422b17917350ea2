// Lock, Semaphore, Event, Condition and wait() beside what the C library and
// the kernel offer between processes.

#include <semaphore.h>
#include <sys/eventfd.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "bench/baselines/robust_mutex.h"
#include "bench/support/machine.h"
#include "bench/support/report.h"
#include "shoal/ipc/fd.h"
#include "shoal/ipc/futex.h"
#include "shoal/ipc/pipe.h"
#include "shoal/ipc/queue.h"
#include "shoal/ipc/sync.h"
#include "shoal/ipc/wait.h"

namespace shoal::bench {
namespace {

void require(bool holds, const char* what) {
  if (!holds) throw std::runtime_error(what);
}

// By the verbs of Lock.
class SharedRobustMutex {
 public:
  void acquire() const { mutex_->lock(); }
  void release() const { mutex_->unlock(); }

 private:
  Shared<RobustMutex> mutex_;
};

class PosixSemaphore {
 public:
  PosixSemaphore() { sem_init(&*semaphore_, 1, 1); }
  void acquire() const {
    while (sem_wait(&*semaphore_) != 0) {
    }
  }
  void release() const { sem_post(&*semaphore_); }

 private:
  Shared<sem_t> semaphore_;
};

// ---- nobody else ----

template <class L>
double uncontended(std::uint64_t count) {
  const L lock;
  const Pinned pinned(0);
  const auto run = [&](std::uint64_t n) {
    for (std::uint64_t i = 0; i < n; ++i) {
      lock.acquire();
      lock.release();
    }
  };
  run(count / 20 + 1);
  const double begin = clock_ns();
  run(count);
  return clock_ns() - begin;
}

double set_and_clear(std::uint64_t count) {
  const Event event;
  const Pinned pinned(0);
  const double begin = clock_ns();
  for (std::uint64_t i = 0; i < count; ++i) {
    event.set();
    event.clear();
  }
  return clock_ns() - begin;
}

// ---- two processes ----

template <class L>
double contended(std::uint64_t count) {
  const L lock;
  const Shared<std::uint64_t> sum;  // the lock keeps it right
  const auto work = [&](const Start& start) {
    const auto run = [&](std::uint64_t n) {
      for (std::uint64_t i = 0; i < n; ++i) {
        lock.acquire();
        ++*sum;
        lock.release();
      }
    };
    run(count / 40 + 1);
    start();
    run(count / 2);
  };
  const double ns = run_together({{0, work}, {1, work}});
  require(*sum == 2 * (count / 2 + count / 40 + 1), "not excluded");
  return ns;
}

// From before tell(i) until hear(i) has returned in a process that slept; then
// it calls after(i); before() comes once, in that process.
constexpr std::size_t kMost = 32;
std::vector<double> parked(std::uint64_t rounds, auto tell, auto hear,
                           const std::function<void(std::size_t)>& after = {},
                           const std::function<void()>& before = {}) {
  const Shared<std::array<std::atomic<double>, kMost>> sent;
  const Shared<std::array<double, kMost>> each;
  const std::size_t count = std::min<std::uint64_t>(rounds, kMost);
  run_together({{0,
                 [&](const Start& start) {
                   start();
                   for (std::size_t i = 0; i < count; ++i) {
                     std::this_thread::sleep_for(std::chrono::milliseconds(2));
                     sent->at(i) = clock_ns();
                     tell(i);
                   }
                 }},
                {1, [&](const Start& start) {
                   if (before) before();
                   start();
                   for (std::size_t i = 0; i < count; ++i) {
                     hear(i);
                     each->at(i) = clock_ns() - sent->at(i);
                     if (after) after(i);
                   }
                 }}});
  return {each->begin(), each->begin() + count};
}

std::vector<double> parked_event(std::uint64_t rounds) {
  const std::vector<Event> events(kMost);
  return parked(
      rounds, [&](std::size_t i) { events[i].set(); },
      [&](std::size_t i) { events[i].wait(); });
}

std::vector<double> parked_semaphore(std::uint64_t rounds) {
  const Semaphore semaphore(0);
  return parked(
      rounds, [&](std::size_t) { semaphore.release(); },
      [&](std::size_t) { semaphore.acquire(); });
}

std::vector<double> parked_condition(std::uint64_t rounds) {
  const Condition condition;
  const Shared<std::size_t> told;
  return parked(
      rounds,
      [&](std::size_t i) {
        const std::lock_guard guard(condition);
        *told = i + 1;
        condition.notify();
      },
      [&](std::size_t i) {
        const std::lock_guard guard(condition);
        condition.wait_for([&] { return *told > i; });
      });
}

std::vector<double> parked_futex(std::uint64_t rounds) {
  const Shared<futex::Word> word;
  return parked(
      rounds,
      [&](std::size_t i) {
        word->store(static_cast<std::uint32_t>(i + 1));
        futex::wake(*word, 1);
      },
      [&](std::size_t i) {
        const auto expected = static_cast<std::uint32_t>(i);
        while (word->load() == expected)
          futex::wait(*word, expected, Deadline::never());
      });
}

// 1,000 things of four kinds, and how each kind is made ready and unready.
class Things {
 public:
  Things() {
    rlimit files{};
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    for (std::size_t i = 0; i < kEach; ++i) {
      pipes_.push_back(Pipe(false));
      descriptors_.emplace_back(eventfd(0, EFD_CLOEXEC));
      require(descriptors_.back().get() >= 0, "no eventfd left");
      all_.emplace_back(queues_.emplace_back(1));
      all_.emplace_back(events_.emplace_back());
      all_.emplace_back(pipes_.back().first);
      all_.emplace_back(descriptors_.back().get());
    }
  }
  void tell(std::size_t i) {
    const std::size_t n = i % kEach;
    if (i % 4 == 0) queues_[n].put(1);
    if (i % 4 == 1) events_[n].set();
    if (i % 4 == 2) pipes_[n].second.send(1);
    if (i % 4 == 3) eventfd_write(descriptors_[n].get(), 1);
  }
  void hear(std::size_t i) {
    const auto ready = shoal::wait(all_);
    const std::size_t n = i % kEach;
    require(std::ranges::binary_search(ready, 4 * n + i % 4), "another thing");
  }
  // What is inherited from before a fork comes page by page.
  void look() { require(shoal::wait(all_, now).empty(), "ready"); }
  void take(std::size_t i) {
    const std::size_t n = i % kEach;
    eventfd_t count;
    if (i % 4 == 0) queues_[n].get();
    if (i % 4 == 1) events_[n].clear();
    if (i % 4 == 2) pipes_[n].first.recv<int>();
    if (i % 4 == 3) eventfd_read(descriptors_[n].get(), &count);
  }

 private:
  static constexpr std::size_t kEach = 250;
  std::deque<Queue<int>> queues_;
  std::deque<Event> events_;
  std::deque<std::pair<Connection, Connection>> pipes_;
  std::deque<Fd> descriptors_;
  std::vector<Waitable> all_;
};

std::vector<double> parked_wait(std::uint64_t rounds) {
  Things things;
  return parked(
      rounds, [&](std::size_t i) { things.tell(i); },
      [&](std::size_t i) { things.hear(i); },
      [&](std::size_t i) { things.take(i); }, [&] { things.look(); });
}

double idle_wait() {
  Things things;
  return blocked_cpu(
      smoke() ? 0.05 : 1, [&] { things.hear(0); }, [&] { things.tell(0); });
}

double idle() {
  const Event event;
  return blocked_cpu(
      smoke() ? 0.05 : 1, [&] { event.wait(); }, [&] { event.set(); });
}

template <class L>
void add_lock(const std::string& what) {
  const auto count = scaled(4'000'000);
  add("uncontended/" + what, count, [=] { return uncontended<L>(count); });
}

std::optional<double> half(std::optional<double> x) {
  return x ? std::optional(*x / 2) : std::nullopt;
}
std::optional<double> milliseconds(std::optional<double> ns) {
  return ns ? std::optional(*ns / 1e6) : std::nullopt;
}

}  // namespace

void add_benchmarks() {
  add_lock<Lock>("lock");
  add_lock<RLock>("rlock");
  add_lock<SharedRobustMutex>("pthread_robust");
  add_lock<Semaphore>("semaphore");
  add_lock<BoundedSemaphore>("bounded");
  add_lock<PosixSemaphore>("sem_t");
  const auto sets = scaled(2'000'000);
  add("uncontended/event", sets, [=] { return set_and_clear(sets); });
  const auto fights = scaled(1'000'000);
  add("contended/lock", fights, [=] { return contended<Lock>(fights); });
  add("contended/pthread_robust", fights,
      [=] { return contended<SharedRobustMutex>(fights); });
  add("contended/semaphore", fights,
      [=] { return contended<Semaphore>(fights); });
  add("contended/sem_t", fights,
      [=] { return contended<PosixSemaphore>(fights); });
  const std::uint64_t wakes = smoke() ? 4 : kMost;
  add_each("parked/event", [=] { return parked_event(wakes); });
  add_each("parked/semaphore", [=] { return parked_semaphore(wakes); });
  add_each("parked/condition", [=] { return parked_condition(wakes); });
  add_each("parked/futex", [=] { return parked_futex(wakes); });
  add_each("parked/wait", [=] { return parked_wait(wakes); });
  add("idle/wait", 1, [] { return idle_wait(); });
  add("idle/event", 1, [] { return idle(); });
}

void report() {
  std::printf(
      "\nns, median (least): an acquire and a release, a set and a "
      "clear; one way to a process that sleeps\n");
  print_peers("uncontended", {"lock", "rlock", "pthread_robust"});
  print_peers("uncontended", {"semaphore", "bounded", "sem_t", "event"});
  print_peers("contended", {"lock", "pthread_robust", "semaphore", "sem_t"});
  print_peers("parked", {"event", "semaphore", "condition", "wait", "futex"});
  std::printf("\n");
  at_most("Lock uncontended, of a pthread robust mutex",
          ratio("uncontended/lock", "uncontended/pthread_robust"), 1.0);
  at_most("Semaphore uncontended, of sem_t",
          ratio("uncontended/semaphore", "uncontended/sem_t"), 1.5);
  at_least("Lock contended, of a pthread robust mutex's rate",
           ratio("contended/pthread_robust", "contended/lock"), 1.0);
  at_most("Event to a sleeper, of a raw futex",
          ratio("parked/event", "parked/futex"), 1.1);
  at_most("Condition to a sleeper, of a raw futex",
          ratio("parked/condition", "parked/futex"), 1.3);
  // A round trip is twice the way to a sleeper.
  at_most("wait() for 1,000 things, of a raw futex round trip",
          half(ratio("parked/wait", "parked/futex")), 2);
  at_most("CPU of a process blocked on an Event, ms a second",
          milliseconds(median_of("idle/event")), 1);
  // One look a second at each of them.
  at_most("CPU of a process blocked in wait() for 1,000, ms a second",
          milliseconds(median_of("idle/wait")), 2);
}

}  // namespace shoal::bench
