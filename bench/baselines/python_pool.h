#pragma once
// Python's multiprocessing.Pool and concurrent.futures.ProcessPoolExecutor, by
// fork: their owner on CPU 0, the workers on 1, 0.

#include <cstdint>
#include <string>

#include "bench/baselines/python.h"

namespace shoal::bench {

// Nanoseconds in which `kind` ("Pool", "ProcessPoolExecutor") with so many
// workers does `count` times, after as many to warm up,
//   apply   a number there and back, one at a time
//   batch   all submitted, then all collected
//   map     all by one map, in default chunks
//   sum     8 Mi doubles there (needs NumPy), their sum back
//   fill    8 Mi doubles back
//   start   a pool started and stopped
inline double python_pool(const std::string& kind, const std::string& verb,
                          int workers, std::uint64_t count) {
  static constexpr const char* kProgram = R"(
import multiprocessing as m, os, sys, time
from concurrent.futures import ProcessPoolExecutor
kind, verb, (workers, count) = sys.argv[1], sys.argv[2], map(int, sys.argv[3:])
cpus = sorted(os.sched_getaffinity(0))
context = m.get_context('fork')
places = context.Value('i', 0)
def pin():
    with places.get_lock():
        n = places.value
        places.value += 1
    os.sched_setaffinity(0, {cpus[1 - n % 2]})
def make(*initializer):
    if kind == 'Pool': return context.Pool(workers, *initializer)
    return ProcessPoolExecutor(workers, context, *initializer)
def stop(pool):
    if kind == 'Pool': pool.terminate(); pool.join()
    else: pool.shutdown()
def submit(f, *args):
    if kind == 'Pool': return pool.apply_async(f, args)
    return pool.submit(f, *args)
def get(result):
    return result.get() if kind == 'Pool' else result.result()
def empty(n): return n
numbers = list(range(count))
def apply(): return [get(submit(empty, n)) for n in numbers]
def batch(): return [get(r) for r in [submit(empty, n) for n in numbers]]
def map_(): return list(pool.map(empty, numbers))
def sum_():
    for _ in numbers: get(submit(numpy.sum, array))
    return numbers
def filled(n): return numpy.full(n, 1.0)
def fill():
    for _ in numbers: get(submit(filled, len(array)))
    return numbers
def start():
    for _ in numbers: stop(make())
    return numbers
if verb in ('sum', 'fill'):
    import numpy
    array = numpy.full(8 << 20, 1.0)
do = {'apply': apply, 'batch': batch, 'map': map_, 'sum': sum_, 'fill': fill,
      'start': start}[verb]
pool = make(pin)
if verb != 'start':
    os.sched_setaffinity(0, {cpus[0]})
    do()
begin = time.perf_counter_ns()
assert do() == numbers
print(time.perf_counter_ns() - begin)
stop(pool)
)";
  return python_number(kProgram, kind + ' ' + verb + ' ' +
                                     std::to_string(workers) + ' ' +
                                     std::to_string(count));
}

}  // namespace shoal::bench
