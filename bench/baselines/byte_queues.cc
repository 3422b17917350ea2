#include "bench/baselines/byte_queues.h"

#include <string>

#include "bench/baselines/python.h"

namespace shoal::bench {
namespace {

constexpr const char* kProgram = R"(
import multiprocessing as mp, os, sys, time
count, size, depth, one_way = (int(a) for a in sys.argv[1:])
def pin(cpu):
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpus[cpu % len(cpus)]})
def peer(there, back):
    pin(1)
    if one_way:
        for _ in range(count + 10): back.put(there.get())
    else:
        for _ in range(10): there.get()
        back.put(b'')
        for _ in range(count): there.get()
        back.put(b'')
mp.set_start_method('fork')
there, back = mp.Queue(depth), mp.Queue(depth)
p = mp.Process(target=peer, args=(there, back))
p.start()
pin(0)
data = bytes(size)
def trips(n):
    for _ in range(n):
        there.put(data)
        if one_way: back.get()
trips(10)
if not one_way: back.get()
begin = time.perf_counter_ns()
trips(count)
if not one_way: back.get()
took = time.perf_counter_ns() - begin
p.join()
print(took // 2 if one_way else took)
)";

}  // namespace

double python_queue(std::uint64_t count, std::size_t bytes, std::size_t size,
                    bool one_way) {
  return python_number(
      kProgram, std::to_string(count) + ' ' + std::to_string(bytes) + ' ' +
                    std::to_string(size) + (one_way ? " 1" : " 0"));
}

}  // namespace shoal::bench
