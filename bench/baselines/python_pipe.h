#pragma once
// Python's multiprocessing.Pipe, by a python3 of its own; its figures are
// printed as it gives them.

#include <cstdio>

namespace shoal::bench {

inline void print_python_pipe() {
  static constexpr const char* kProgram =
      "python3 -c '\n"
      "import multiprocessing as m, os, time\n"
      "def answer(c):\n"
      "  os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[-1]})\n"
      "  while True:\n"
      "    b = c.recv_bytes()\n"
      "    if not b: return\n"
      "    c.send_bytes(b)\n"
      "if __name__ == \"__main__\":\n"
      "  x = m.get_context(\"fork\")\n"
      "  a, b = x.Pipe()\n"
      "  p = x.Process(target=answer, args=(b,)); p.start()\n"
      "  os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[0]})\n"
      "  for n, k in ((8, 2000), (64, 2000), (4096, 2000), (1 << 20, 50)):\n"
      "    s = bytes(n); best = []\n"
      "    for r in range(5):\n"
      "      t = time.perf_counter_ns()\n"
      "      for i in range(k): a.send_bytes(s); a.recv_bytes()\n"
      "      best.append((time.perf_counter_ns() - t) / k)\n"
      "    print(\"rtt/%d python_pipe %.1f us\" % (n, sorted(best)[2] / 1e3))\n"
      "  a.send_bytes(b\"\"); p.join()\n"
      "' 2>/dev/null";
  FILE* python = popen(kProgram, "r");
  char line[256];
  bool any = false;
  while (python != nullptr && std::fgets(line, sizeof line, python)) {
    std::fputs(line, stdout);
    any = true;
  }
  if (python != nullptr) pclose(python);
  if (!any) std::printf("Python's Pipe: no python3 here\n");
}

}  // namespace shoal::bench
