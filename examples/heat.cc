// Heat in a plate: one process a strip of the field, which lies in two shared
// Arrays by turns, with a Barrier between the steps. The result is compared
// with that of one process, to the last bit, and drawn.
//   ./bazelw run -c opt //examples:heat                       # 2 processes
//   ./bazelw run -c opt //examples:heat -- PROCESSES ROWS STEPS heat.png

#include <shoal/shoal.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "shoal/examples/heat_equation.h"

namespace {

// Seconds; the result is in `a`.
double solve(heat::Field& a, heat::Field& b, int processes, int steps) {
  heat::set_up(a);
  heat::set_up(b);
  const auto start = std::chrono::steady_clock::now();
  const shoal::Barrier all(processes);
  shoal::Value<int> done(0);
  std::vector<shoal::Process> workers;
  for (int n = 0; n < processes; ++n)
    workers.emplace_back(heat::run_strip, a, b, all, done, n, processes, steps)
        .start();
  shoal::ProgressBar bar(std::to_string(processes) + " processes", steps);
  for (shoal::Process& worker : workers)
    while (!worker.join(bar.kPause)) bar.update(done.get());
  bar.update(done.get());
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
      .count();
}

}  // namespace

int main(int argc, char** argv) {
  const int processes = argc > 1 ? std::atoi(argv[1]) : 2;
  const int rows = argc > 2 ? std::atoi(argv[2]) : 1000;
  const int steps = (argc > 3 ? std::atoi(argv[3]) : 1000) / 2 * 2;
  const std::string picture = argc > 4 ? argv[4] : "/tmp/heat.png";
  const shoal::Shape shape{rows, rows};
  heat::Field a(shape), b(shape), c(shape), d(shape);
  const double alone = solve(a, b, 1, steps);
  const double together = solve(c, d, processes, steps);
  const bool same = std::memcmp(a.data(), c.data(), a.span().size_bytes()) == 0;
  heat::write_png(c, picture);
  std::printf(
      "1 process    %.3f s\n%d processes  %.3f s: %.2f times as fast\n"
      "%s\nthe field is drawn in %s\n",
      alone, processes, together, alone / together,
      same ? "the same to the last bit" : "DIFFERENT", picture.c_str());
  return same ? 0 : 1;
}
