// Array beside bare memory: loops over it, making it, and the heat equation
// solved in it; beside Boost's managed_shared_memory, and Python's Array and
// shared_memory with NumPy.

#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <functional>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include "bench/baselines/boost_memory.h"
#include "bench/baselines/python.h"
#include "bench/baselines/spinning_barrier.h"
#include "bench/support/machine.h"
#include "bench/support/report.h"
#include "benchmark/benchmark.h"
#include "shoal/examples/heat_equation.h"
#include "shoal/shared/array.h"

namespace shoal::bench {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;

// ---- scaling doubles in place ----

// Each works on its half, or one on all of it.
double scale(std::span<double> all, int processes, int times) {
  std::vector<Role> roles;
  const std::size_t part = all.size() / static_cast<std::size_t>(processes);
  for (int cpu = 0; cpu < processes; ++cpu)
    roles.push_back({cpu, [=](const Start& start) {
                       const auto mine = all.subspan(
                           part * static_cast<std::size_t>(cpu), part);
                       for (double& x : mine) x = 1;
                       start();
                       for (int n = 0; n < times; ++n) {
                         for (double& x : mine) x *= 1.0000001;
                         benchmark::ClobberMemory();
                       }
                     }});
  return run_together(roles);
}

double scale_shoal(std::size_t bytes, int processes, int times) {
  Array<double> array(bytes / sizeof(double));
  std::vector<Role> roles;
  // The handle itself, by the range-for that a user writes.
  for (int cpu = 0; cpu < processes; ++cpu)
    roles.push_back({cpu, [=](const Start& start) mutable {
                       const std::size_t part =
                           array.size() / static_cast<std::size_t>(processes);
                       const auto n = static_cast<std::size_t>(cpu);
                       auto mine = array.slice(n * part, (n + 1) * part);
                       for (double& x : mine) x = 1;
                       start();
                       for (int k = 0; k < times; ++k) {
                         for (double& x : mine) x *= 1.0000001;
                         benchmark::ClobberMemory();
                       }
                     }});
  return run_together(roles);
}

double scale_raw(std::size_t bytes, int processes, int times) {
  void* const memory = map_shared(bytes);
  const double ns = scale(
      {static_cast<double*>(memory), bytes / sizeof(double)}, processes, times);
  unmap_shared(memory, bytes);
  return ns;
}

double scale_boost(std::size_t bytes, int processes, int times) {
  BoostMemory memory = boost_memory(bytes + kMiB);
  auto* const first =
      memory.construct<double>("field")[bytes / sizeof(double)](0.0);
  return scale({first, bytes / sizeof(double)}, processes, times);
}

double scale_vector(std::size_t bytes, int times) {
  std::vector<double> vector(bytes / sizeof(double));
  return scale(vector, 1, times);
}

// NumPy over shared_memory; NumPy over an Array, whose lock is taken; an Array
// by its elements, each of which takes the lock twice.
constexpr const char* kPython = R"(
import contextlib, multiprocessing as m, os, sys, time
from multiprocessing import shared_memory
what, (size, processes, times) = sys.argv[1], map(int, sys.argv[2:])
lock = contextlib.nullcontext()
if what == 'numpy':
    import numpy
    s = shared_memory.SharedMemory(create=True, size=size)
    a = numpy.ndarray((size // 8,), dtype='f8', buffer=s.buf)
    a[:] = 1
else:
    a = m.Array('d', size // 8)
    if what == 'array':
        import numpy
        lock, a = a.get_lock(), numpy.frombuffer(a.get_obj())
b = m.Barrier(processes)
def scale(first, last):
    if what == 'elements':
        for i in range(first, last): a[i] *= 1.0000001
    else:
        part = a[first:last]
        with lock: part *= 1.0000001
def work(n):
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[n]})
    mine = n * size // 8 // processes, (n + 1) * size // 8 // processes
    scale(*mine)
    b.wait()
    start = time.perf_counter_ns()
    for _ in range(times): scale(*mine)
    return start
ps = [m.Process(target=work, args=(n,)) for n in range(1, processes)]
for p in ps: p.start()
start = work(0)
for p in ps: p.join()
print(time.perf_counter_ns() - start)
if what == 'numpy':
    del a
    s.close(); s.unlink()
)";

double scale_python(const std::string& what, std::size_t bytes, int processes,
                    int times) {
  return python_number(kPython, what + ' ' + std::to_string(bytes) + ' ' +
                                    std::to_string(processes) + ' ' +
                                    std::to_string(times));
}

// ---- making and touching ----

void touch(std::byte* memory, std::size_t bytes) {
  for (std::size_t at = 0; at < bytes; at += 4096)
    reinterpret_cast<volatile std::byte*>(memory)[at] = std::byte{1};
}

// CPUs are both this program's there, as for a user.
double make_shoal(std::size_t bytes, ArrayOptions options) {
  const double begin = clock_ns();
  Array<std::byte> array(bytes, options);
  touch(array.data(), bytes);
  return clock_ns() - begin;
}

double make_mapped(std::size_t bytes) {
  const double begin = clock_ns();
  void* const memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                            MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (memory == MAP_FAILED)
    throw std::system_error(errno, std::generic_category(), "mmap");
  touch(static_cast<std::byte*>(memory), bytes);
  const double ns = clock_ns() - begin;
  munmap(memory, bytes);
  return ns;
}

// ---- the heat equation ----

constexpr int kHeatSteps = 20;

// All steps by each of the processes at once; run(n, steps) is one's part.
double heat(int processes, const std::function<void(int n, int steps)>& run) {
  std::vector<Role> roles;
  for (int n = 0; n < processes; ++n)
    roles.push_back({n, [&run, n](const Start& start) {
                       run(n, 2);  // each maps its pages of both fields
                       start();
                       run(n, kHeatSteps);
                     }});
  return run_together(roles);
}

double heat_shoal(std::size_t rows, int processes) {
  heat::Field a(Shape(rows, rows)), b(Shape(rows, rows));
  heat::set_up(a);
  heat::set_up(b);
  const Barrier all(processes);
  const Value<int> done(0);
  return heat(processes, [=](int n, int steps) {
    heat::run_strip(a, b, all, done, n, processes, steps);
  });
}

// The same loops over memory without shoal: what the machine can do.
double heat_raw(std::size_t rows, int processes) {
  const std::size_t bytes = 2 * rows * rows * sizeof(double);
  auto* const memory = static_cast<double*>(map_shared(bytes));
  const heat::Plate a(memory, rows, rows), b(a.row(rows), rows, rows);
  heat::set_up(a);
  heat::set_up(b);
  const Shared<SpinningBarrier> all;
  const double ns = heat(processes, [&](int n, int steps) {
    heat::advance_strip(a, b, n, processes, steps,
                        [&] { all->wait(processes); });
  });
  unmap_shared(memory, bytes);
  return ns;
}

}  // namespace

void add_benchmarks() {
  const std::size_t bytes = scaled(256) * kMiB;
  const int times = 4;
  for (const int processes : {1, 2}) {
    const std::string row = "scale_x" + std::to_string(processes) + "/";
    const std::uint64_t elements = bytes / sizeof(double) * times;
    add(row + "shoal", elements,
        [=] { return scale_shoal(bytes, processes, times); });
    add(row + "raw", elements,
        [=] { return scale_raw(bytes, processes, times); });
    add(row + "boost", elements,
        [=] { return scale_boost(bytes, processes, times); });
    if (processes == 1)
      add(row + "vector", elements, [=] { return scale_vector(bytes, times); });
    if (has_python("numpy"))
      for (const char* what : {"numpy", "array"})
        add(row + "python_" + what, elements,
            [=] { return scale_python(what, bytes, processes, times); });
  }
  const std::size_t few = scaled(200) << 10;
  if (has_python())
    add("scale_x1/python_elements", few / sizeof(double),
        [=] { return scale_python("elements", few, 1, 1); });
  const std::size_t much = scaled(1024) * kMiB;
  add("make/shoal", 1, [=] { return make_shoal(much, {}); });
  add("make/shoal_populate", 1,
      [=] { return make_shoal(much, {.populate = true}); });
  add("make/mmap_populate", 1, [=] { return make_mapped(much); });
  // 2 × 72 MiB.
  const std::size_t rows = smoke() ? 300 : 3000;
  for (const int processes : {1, 2}) {
    const std::string row = "heat_x" + std::to_string(processes) + "/";
    add(row + "shoal", kHeatSteps, [=] { return heat_shoal(rows, processes); });
    add(row + "raw", kHeatSteps, [=] { return heat_raw(rows, processes); });
  }
}

void report() {
  for (const char* row : {"scale_x1", "scale_x2"})
    print_peers(row, {"shoal", "raw", "boost", "vector", "python_numpy",
                      "python_array", "python_elements"});
  print_peers("make", {"shoal", "shoal_populate", "mmap_populate"});
  for (const char* row : {"heat_x1", "heat_x2"})
    print_peers(row, {"shoal", "raw"});
  for (const char* row : {"scale_x1", "scale_x2"})
    at_least(std::string(row) + ": rate of a raw loop's",
             ratio(std::string(row) + "/raw", std::string(row) + "/shoal"),
             0.97);
  at_most("1 GiB made and touched, of mmap with MAP_POPULATE",
          ratio("make/shoal", "make/mmap_populate"), 1.05);
  at_most("the same with populate",
          ratio("make/shoal_populate", "make/mmap_populate"), 1.05);
  at_least("heat by two processes, of one",
           ratio("heat_x1/shoal", "heat_x2/shoal"), 1.8);
  if (const auto raw = ratio("heat_x1/raw", "heat_x2/raw"))
    std::printf("the same loops over memory without shoal: %.2f\n", *raw);
  if (!has_python("numpy")) std::printf("NumPy is not here: it was left out\n");
}

}  // namespace shoal::bench
