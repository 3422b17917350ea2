// Lock, Semaphore, Event and Condition beside what the C library and the kernel
// offer between processes.

#include <pthread.h>
#include <semaphore.h>
#include <time.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "bench/support/machine.h"
#include "bench/support/report.h"
#include "shoal/ipc/futex.h"
#include "shoal/ipc/sync.h"

namespace shoal::bench {
namespace {

void require(bool holds, const char* what) {
  if (!holds) throw std::runtime_error(what);
}

// A pthread mutex as robust and as shared as Lock is.
class RobustMutex {
 public:
  RobustMutex() {
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&*mutex_, &attributes);
    pthread_mutexattr_destroy(&attributes);
  }
  void acquire() const { pthread_mutex_lock(&*mutex_); }
  void release() const { pthread_mutex_unlock(&*mutex_); }

 private:
  Shared<pthread_mutex_t> mutex_;
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

// From before tell(i) until hear(i) has returned in a process that slept.
constexpr std::size_t kMost = 64;
std::vector<double> parked(std::uint64_t rounds, auto tell, auto hear) {
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
                   start();
                   for (std::size_t i = 0; i < count; ++i) {
                     hear(i);
                     each->at(i) = clock_ns() - sent->at(i);
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

// The part of a CPU, in millionths, that a process takes to wait for a second,
// with its way to sleep and back.
double idle() {
  const Event event;
  const Shared<double> part;
  const double window = smoke() ? 0.05 : 1.0;
  const auto sleep = [](double seconds) {
    std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  };
  const auto used = [] {
    timespec time;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) +
           static_cast<double>(time.tv_nsec) * 1e-9;
  };
  run_together({{0,
                 [&](const Start& start) {
                   start();
                   sleep(window);
                   event.set();
                 }},
                {1, [&](const Start& start) {
                   event.wait(std::chrono::milliseconds(1));
                   start();
                   const double before = used();
                   event.wait();
                   *part = (used() - before) / window;
                 }}});
  return *part * 1e6;
}

template <class L>
void add_lock(const std::string& what) {
  const auto count = scaled(10'000'000);
  add("uncontended/" + what, count, [=] { return uncontended<L>(count); });
}

void print_row(const std::string& what, const std::vector<const char*>& names) {
  std::printf("%-14s", what.c_str());
  for (const char* name : names)
    std::printf("  %s %s", name, figure(what + "/" + name).c_str());
  std::printf("\n");
}

}  // namespace

void add_benchmarks() {
  add_lock<Lock>("lock");
  add_lock<RLock>("rlock");
  add_lock<RobustMutex>("pthread_robust");
  add_lock<Semaphore>("semaphore");
  add_lock<BoundedSemaphore>("bounded");
  add_lock<PosixSemaphore>("sem_t");
  const auto sets = scaled(2'000'000);
  add("uncontended/event", sets, [=] { return set_and_clear(sets); });
  const auto fights = scaled(2'000'000);
  add("contended/lock", fights, [=] { return contended<Lock>(fights); });
  add("contended/pthread_robust", fights,
      [=] { return contended<RobustMutex>(fights); });
  add("contended/semaphore", fights,
      [=] { return contended<Semaphore>(fights); });
  add("contended/sem_t", fights,
      [=] { return contended<PosixSemaphore>(fights); });
  const std::uint64_t wakes = smoke() ? 4 : kMost;
  add_each("parked/event", [=] { return parked_event(wakes); });
  add_each("parked/semaphore", [=] { return parked_semaphore(wakes); });
  add_each("parked/condition", [=] { return parked_condition(wakes); });
  add_each("parked/futex", [=] { return parked_futex(wakes); });
  add("idle/event", 1, [] { return idle(); });
}

void report() {
  std::printf(
      "\nns, median (least): an acquire and a release, a set and a "
      "clear; one way to a process that sleeps\n");
  print_row("uncontended", {"lock", "rlock", "pthread_robust"});
  print_row("uncontended", {"semaphore", "bounded", "sem_t", "event"});
  print_row("contended", {"lock", "pthread_robust", "semaphore", "sem_t"});
  print_row("parked", {"event", "semaphore", "condition", "futex"});
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
  at_most("CPU of a blocked waiter, millionths", median_of("idle/event"), 100);
}

}  // namespace shoal::bench
