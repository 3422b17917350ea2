// Value beside a bare atomic, a seqlock, mutexes, and Python's Value.

#include <array>
#include <atomic>
#include <boost/interprocess/sync/interprocess_mutex.hpp>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "bench/baselines/boost_memory.h"
#include "bench/baselines/python.h"
#include "bench/baselines/robust_mutex.h"
#include "bench/support/machine.h"
#include "bench/support/report.h"
#include "benchmark/benchmark.h"
#include "shoal/shared/value.h"

namespace shoal::bench {
namespace {

// ---- behind a mutex ----

template <class T, class Mutex, template <class> class Memory>
class Guarded {
 public:
  T get() {
    const std::lock_guard held(state_->mutex);
    return state_->value;
  }
  void set(const T& to) {
    const std::lock_guard held(state_->mutex);
    state_->value = to;
  }
  void increment() {
    const std::lock_guard held(state_->mutex);
    ++state_->value;
  }

 private:
  struct State {
    Mutex mutex;
    T value{};
  };
  Memory<State> state_;
};

template <class T>
using OfPthread = Guarded<T, RobustMutex, Shared>;
template <class T>
using OfBoost =
    Guarded<T, boost::interprocess::interprocess_mutex, BoostShared>;

// ---- counting ----

struct Atomic {
  struct State {
    alignas(64) std::atomic<std::int64_t> count{0};
  };
  Shared<State> state;
  void increment() { state->count.fetch_add(1); }
  std::int64_t get() { return state->count; }
};

struct OfShoal {
  Value<std::int64_t> value{0};
  void increment() { value.fetch_add(1); }
  std::int64_t get() { return value; }
};

struct Updated {
  Value<std::int64_t> value{0};
  void increment() {
    value.update([](std::int64_t n) { return n + 1; });
  }
  std::int64_t get() { return value; }
};

// Nanoseconds of all increments, by one process or by two at once.
template <class Counter>
double count(std::uint64_t times, int processes) {
  Counter counter;
  std::vector<Role> roles;
  for (int cpu = 0; cpu < processes; ++cpu)
    roles.push_back({cpu, [&](const Start& start) {
                       for (int i = 0; i < 1000; ++i) counter.increment();
                       start();
                       for (std::uint64_t i = 0; i < times; ++i)
                         counter.increment();
                     }});
  const double ns = run_together(roles);
  if (counter.get() != static_cast<std::int64_t>(times + 1000) * processes)
    throw std::runtime_error("increments are lost");
  return ns;
}

constexpr const char* kPython = R"(
import multiprocessing as m, os, sys, time
times, processes = int(sys.argv[1]), int(sys.argv[2])
v = m.Value('q', 0)
b = m.Barrier(processes)
def work(n):
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[n]})
    b.wait()
    start = time.perf_counter_ns()
    for _ in range(times):
        with v.get_lock(): v.value += 1
    return start
ps = [m.Process(target=work, args=(n,)) for n in range(1, processes)]
for p in ps: p.start()
start = work(0)
for p in ps: p.join()
print(time.perf_counter_ns() - start)
)";

// ---- reading a large struct ----

template <std::size_t kWords>
struct Record {
  std::array<std::uint64_t, kWords> words;
  bool whole() const {
    for (const std::uint64_t word : words)
      if (word != words[0]) return false;
    return true;
  }
};

// The textbook's: a reader retries while a writer writes.
template <class T>
class Seqlock {
 public:
  T get() const {
    T copy;
    for (;;) {
      const auto before = version_.load(std::memory_order_acquire);
      std::memcpy(&copy, const_cast<const T*>(&value_), sizeof copy);
      std::atomic_thread_fence(std::memory_order_acquire);
      if (before % 2 == 0 && version_.load(std::memory_order_relaxed) == before)
        return copy;
    }
  }
  void set(const T& value) {
    const auto before = version_.load(std::memory_order_relaxed);
    version_.store(before + 1, std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_release);
    std::memcpy(&value_, &value, sizeof value);
    version_.store(before + 2, std::memory_order_release);
  }

 private:
  alignas(64) std::atomic<std::uint64_t> version_{0};
  alignas(64) T value_{};
};

template <class T>
struct ShoalRecord {
  Value<T> value{T{}};
  T get() { return value.get(); }
  void set(const T& to) { value.set(to); }
};
template <class T>
struct SeqlockRecord {
  Shared<Seqlock<T>> value;
  T get() { return value->get(); }
  void set(const T& to) { value->set(to); }
};

constexpr double kWriteEvery = 10'000;  // ns

// One reads; the other writes now and then, or does nothing.
template <class Store, class T>
double read(std::uint64_t times, bool writing) {
  Store store;
  Shared<std::atomic<bool>> over;
  std::vector<Role> roles{{0, [&](const Start& start) {
                             for (int i = 0; i < 100; ++i)
                               benchmark::DoNotOptimize(store.get());
                             start();
                             bool whole = true;
                             for (std::uint64_t i = 0; i < times; ++i) {
                               const T copy = store.get();
                               benchmark::DoNotOptimize(copy);
                               if (i % 1024 == 0) whole = whole && copy.whole();
                             }
                             *over = true;
                             if (!whole) throw std::runtime_error("torn");
                           }}};
  if (writing)
    roles.push_back({1, [&](const Start& start) {
                       T value{};
                       store.set(value);
                       start();
                       for (std::uint64_t n = 0; !*over; ++n) {
                         value.words.fill(n);
                         store.set(value);
                         // At full speed a seqlock's reader never comes
                         // through.
                         const double next = clock_ns() + kWriteEvery;
                         while (clock_ns() < next) {
                         }
                       }
                     }});
  return run_together(roles);
}

template <std::size_t kWords>
void add_reads(const std::string& size, std::uint64_t full) {
  using T = Record<kWords>;
  const std::uint64_t times = scaled(full);
  for (const bool writing : {false, true}) {
    const std::string name =
        "read/" + size + (writing ? "/beside_a_writer" : "/alone");
    add(name + "/shoal", times,
        [=] { return read<ShoalRecord<T>, T>(times, writing); });
    add(name + "/seqlock", times,
        [=] { return read<SeqlockRecord<T>, T>(times, writing); });
    add(name + "/robust_mutex", times,
        [=] { return read<OfPthread<T>, T>(times, writing); });
    add(name + "/boost_interprocess", times,
        [=] { return read<OfBoost<T>, T>(times, writing); });
  }
}

template <class Counter>
void add_count(const std::string& peer, std::uint64_t full) {
  const std::uint64_t times = scaled(full);
  for (const int processes : {1, 2})
    add("count_x" + std::to_string(processes) + "/" + peer, times * processes,
        [=] { return count<Counter>(times, processes); });
}

}  // namespace

void add_benchmarks() {
  add_count<OfShoal>("shoal", 5'000'000);
  add_count<Atomic>("atomic", 5'000'000);
  add_count<Updated>("shoal_update", 1'000'000);
  add_count<OfPthread<std::int64_t>>("robust_mutex", 1'000'000);
  add_count<OfBoost<std::int64_t>>("boost_interprocess", 1'000'000);
  if (has_python())
    for (const int processes : {1, 2}) {
      const std::uint64_t times = scaled(50'000);
      add("count_x" + std::to_string(processes) + "/python", times * processes,
          [=] {
            return python_number(kPython, std::to_string(times) + ' ' +
                                              std::to_string(processes));
          });
    }
  add_reads<8>("64", 2'000'000);
  add_reads<512>("4096", 200'000);
}

void report() {
  constexpr const char* kCounts[] = {"count_x1", "count_x2"};
  constexpr const char* kReads[] = {"read/64/alone", "read/64/beside_a_writer",
                                    "read/4096/alone",
                                    "read/4096/beside_a_writer"};
  for (const char* row : kCounts)
    print_peers(row, {"shoal", "atomic", "shoal_update", "robust_mutex",
                      "boost_interprocess", "python"});
  for (const char* row : kReads)
    print_peers(row,
                {"shoal", "seqlock", "robust_mutex", "boost_interprocess"});
  for (const char* row : kCounts)
    at_most(std::string(row) + ": fetch_add of std::atomic's",
            ratio(std::string(row) + "/shoal", std::string(row) + "/atomic"),
            1.05);
  for (const char* row : kReads)
    at_least(std::string(row) + ": rate of a seqlock's",
             ratio(std::string(row) + "/seqlock", std::string(row) + "/shoal"),
             1);
  if (!has_python())
    std::printf("python3 is not here: its Value was left out\n");
}

}  // namespace shoal::bench
