// NumPy looks on: the field of the heat equation is a named Array, which is a
// NumPy file; a Python program maps it while it changes and prints its mean.
//   ./bazelw run -c opt //examples:live_plot

#include <shoal/shoal.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "shoal/examples/heat_equation.h"

// The same memory: nothing is copied, nobody waits for anybody.
constexpr char kPython[] = R"(
import sys, time, numpy
field, steps = (numpy.load(path, mmap_mode='r') for path in sys.argv[1:])
while steps[0] < steps[1]:
    print(f'  step {steps[0]:5d}: mean {field.mean():.6f}, hottest {field.max():.3f}', flush=True)
    time.sleep(0.2)
print(f'  step {steps[0]:5d}: mean {field.mean():.6f}')
)";

int main() {
  if (std::system("/usr/bin/python3 -c 'import numpy' 2>/dev/null") != 0) {
    std::puts("no NumPy here: apt-get install python3-numpy");
    return 0;
  }
  constexpr int kSteps = 2000;
  constexpr int kProcesses = 2;
  const std::string name = "live." + std::to_string(getpid());
  auto field = heat::Field::create(name, shoal::Shape{800, 800});
  auto steps = shoal::Array<long>::create(name + ".steps", {0L, long{kSteps}});
  heat::Field other(field.shape());
  heat::set_up(field);
  heat::set_up(other);
  shoal::Process numpy([name] {
    const std::string path = "/dev/shm/shoal." + name;
    execl("/usr/bin/python3", "python3", "-c", kPython, path.c_str(),
          (path + ".steps").c_str(), nullptr);
  });
  numpy.start();
  const shoal::Barrier all(kProcesses);
  shoal::Value<int> done(0);
  std::vector<shoal::Process> workers;
  for (int n = 0; n < kProcesses; ++n)
    workers
        .emplace_back(heat::run_strip, field, other, all, done, n, kProcesses,
                      kSteps)
        .start();
  for (shoal::Process& worker : workers)
    while (!worker.join(std::chrono::milliseconds(10))) steps[0] = done.get();
  steps[0] = kSteps;
  numpy.join();
  shoal::unlink(name);
  shoal::unlink(name + ".steps");
  return numpy.exitcode().value_or(1);
}
