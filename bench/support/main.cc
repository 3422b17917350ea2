// The main of every bench; options are Google Benchmark's, and --smoke:
// each benchmark once and briefly, to show that it runs.

#include <cstdio>
#include <string_view>
#include <vector>

#include "bench/support/machine.h"
#include "bench/support/report.h"
#include "benchmark/benchmark.h"

namespace {

using namespace shoal::bench;

// Options on the command line come after these and win.
std::vector<char*> arguments_with_defaults(int argc, char** argv) {
  static char interleaving[] = "--benchmark_enable_random_interleaving=true";
  // Once through `run` is a repetition; it does as much as is needed.
  static char once[] = "--benchmark_min_time=0.000001";
  static char many[] = "--benchmark_repetitions=9";
  static char one[] = "--benchmark_repetitions=1";
  static char aggregates[] = "--benchmark_report_aggregates_only=true";
  std::vector<char*> arguments = {argv[0], interleaving, once};
  for (int i = 1; i < argc; ++i)
    if (std::string_view(argv[i]) == "--smoke") set_smoke();
  if (smoke())
    arguments.push_back(one);
  else
    arguments.insert(arguments.end(), {many, aggregates});
  for (int i = 1; i < argc; ++i)
    if (std::string_view(argv[i]) != "--smoke") arguments.push_back(argv[i]);
  return arguments;
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<char*> arguments = arguments_with_defaults(argc, argv);
  int count = static_cast<int>(arguments.size());
  benchmark::Initialize(&count, arguments.data());
  if (benchmark::ReportUnrecognizedArguments(count, arguments.data())) return 1;
  if (!has_two_cpus()) {
    std::puts("Benches need two CPUs; nothing was measured.");
    return smoke() ? 0 : 1;
  }
  std::printf("%s\n", machine().c_str());
  add_benchmarks();
  if (benchmark::RunSpecifiedBenchmarks() == 0) return 1;
  std::printf("\n%s\n%s\n", machine().c_str(), placement().c_str());
  report();
  return missed() == 0 || smoke() ? 0 : 1;
}
