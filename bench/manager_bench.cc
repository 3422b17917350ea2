// Calls of a Manager beside Python's, and beside Boost's map in shared memory.

#include <boost/container/map.hpp>
#include <boost/interprocess/allocators/allocator.hpp>
#include <boost/interprocess/sync/interprocess_mutex.hpp>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "bench/baselines/boost_memory.h"
#include "bench/baselines/python.h"
#include "bench/support/machine.h"
#include "bench/support/report.h"
#include "shoal/shared/manager.h"

namespace shoal::bench {
namespace {

// The server on one CPU, the only client on the other.
class Pair {
 public:
  Pair() : client_(0) { pin(1, manager_.pid()); }
  Manager& operator*() { return manager_; }

 private:
  Manager manager_;
  Pinned client_;
};

double repeat(std::uint64_t times, const std::function<void()>& one) {
  for (int n = 0; n < 200; ++n) one();
  const double begin = clock_ns();
  for (std::uint64_t n = 0; n < times; ++n) one();
  return clock_ns() - begin;
}

double get(std::uint64_t times) {
  Pair pair;
  auto dict = (*pair).dict<std::string, int>({{"a", 1}});
  return repeat(times, [&] { (void)dict.at("a"); });
}
double set(std::uint64_t times) {
  Pair pair;
  auto dict = (*pair).dict<std::string, int>();
  int n = 0;
  return repeat(times, [&] { dict.set("a", ++n); });
}
double update(std::uint64_t times) {
  Pair pair;
  auto dict = (*pair).dict<std::string, int>({{"a", 1}});
  return repeat(times, [&] { dict.update("a", [](int k) { return k + 1; }); });
}
double append(std::uint64_t times) {
  Pair pair;
  auto list = (*pair).list<int>();
  return repeat(times, [&] { list.append(1); });
}

// Boost's map in a managed_shared_memory, behind a mutex: no server, but a
// place that is as large as it will ever be, and a mutex that a dead process
// keeps. Used by one process or by two at once.
class BoostMap {
 public:
  int get(int key) {
    const std::lock_guard held(state_.mutex);
    return state_.map.at(key);
  }
  void set(int key, int value) {
    const std::lock_guard held(state_.mutex);
    state_.map[key] = value;
  }

 private:
  using Item = std::pair<const int, int>;
  using Allocator =
      boost::interprocess::allocator<Item, BoostMemory::segment_manager>;
  struct State {
    explicit State(BoostMemory& memory) : map(memory.get_segment_manager()) {}
    boost::interprocess::interprocess_mutex mutex;
    boost::container::map<int, int, std::less<int>, Allocator> map;
  };

  BoostMemory memory_ = boost_memory(std::size_t{64} << 10);
  State& state_ =
      *memory_.construct<State>(boost::interprocess::unique_instance)(memory_);
};

double boost_map(std::uint64_t times, int processes,
                 const std::function<void(BoostMap&)>& one) {
  BoostMap map;
  map.set(1, 1);
  std::vector<Role> roles;
  for (int cpu = 0; cpu < processes; ++cpu)
    roles.push_back({cpu, [&](const Start& start) {
                       one(map);
                       start();
                       for (std::uint64_t n = 0; n < times; ++n) one(map);
                     }});
  return run_together(roles);
}

constexpr const char* kPython = R"(
import multiprocessing as m, os, sys, time
what, times = sys.argv[1], int(sys.argv[2])
with m.Manager() as manager:
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(manager._process.pid, {cpus[1]})
    os.sched_setaffinity(0, {cpus[0]})
    d, l = manager.dict(a=1), manager.list()
    def one():
        if what == 'get': d['a']
        elif what == 'set': d['a'] = 1
        else: l.append(1)
    for _ in range(200): one()
    start = time.perf_counter_ns()
    for _ in range(times): one()
    print(time.perf_counter_ns() - start)
)";

}  // namespace

void add_benchmarks() {
  const std::uint64_t times = scaled(50'000);
  add("get/shoal", times, [=] { return get(times); });
  add("set/shoal", times, [=] { return set(times); });
  add("update/shoal", times, [=] { return update(times); });
  add("append/shoal", times, [=] { return append(times); });
  for (const int processes : {1, 2}) {
    const std::string peer = "boost_map_x" + std::to_string(processes);
    const std::uint64_t all = times * static_cast<std::uint64_t>(processes);
    add("get/" + peer, all, [=] {
      return boost_map(times, processes,
                       [](BoostMap& map) { (void)map.get(1); });
    });
    add("set/" + peer, all, [=] {
      return boost_map(times, processes, [](BoostMap& map) { map.set(1, 2); });
    });
  }
  if (!has_python()) return;
  const std::uint64_t few = scaled(5'000);
  for (const char* what : {"get", "set", "append"})
    add(std::string(what) + "/python", few, [=] {
      return python_number(kPython,
                           std::string(what) + ' ' + std::to_string(few));
    });
}

void report() {
  for (const char* row : {"get", "set", "append", "update"})
    print_peers(row, {"shoal", "boost_map_x1", "boost_map_x2", "python"});
  for (const char* row : {"get", "set", "append"})
    at_least(std::string(row) + ": rate of Python's Manager",
             ratio(std::string(row) + "/python", std::string(row) + "/shoal"),
             20);
  if (!has_python())
    std::printf("python3 is not here: its Manager was left out\n");
}

}  // namespace shoal::bench
