#pragma once
// Python's multiprocessing.Pipe; its figures are printed as it gives them.

#include <cstdio>

#include "bench/baselines/python.h"

namespace shoal::bench {

inline void print_python_pipe() {
  static constexpr const char* kProgram = R"(
import multiprocessing as m, os, time
def answer(c):
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[-1]})
    while True:
        b = c.recv_bytes()
        if not b: return
        c.send_bytes(b)
x = m.get_context("fork")
a, b = x.Pipe()
p = x.Process(target=answer, args=(b,)); p.start()
os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[0]})
for n, k in ((8, 2000), (64, 2000), (4096, 2000), (1 << 20, 50)):
    s = bytes(n); best = []
    for r in range(5):
        t = time.perf_counter_ns()
        for i in range(k): a.send_bytes(s); a.recv_bytes()
        best.append((time.perf_counter_ns() - t) / k)
    print("rtt/%d python_pipe %.1f us" % (n, sorted(best)[2] / 1e3))
a.send_bytes(b""); p.join()
)";
  if (has_python())
    std::fputs(run_python(kProgram).c_str(), stdout);
  else
    std::printf("Python's Pipe: no python3 here\n");
}

}  // namespace shoal::bench
