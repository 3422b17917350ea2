#include "bench/support/report.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <numeric>
#include <stdexcept>
#include <utility>

#include "bench/support/machine.h"
#include "benchmark/benchmark.h"

namespace shoal::bench {
namespace {

// Of one repetition.
struct Sample {
  double trip_before;  // of a cache line between the CPUs
  double trip_after;
  std::vector<double> figures;
};

struct Results {
  std::map<std::string, std::vector<Sample>> samples;
  int missed = 0;
  bool smoke = false;
};

Results& results() {
  static Results all;
  return all;
}

void run_benchmark(benchmark::State& state, const std::string& name,
                   std::int64_t count,
                   const std::function<std::vector<double>()>& run) {
  while (state.KeepRunningBatch(count)) {
    Sample sample;
    sample.trip_before = line_round_trip();
    sample.figures = run();
    sample.trip_after = line_round_trip();
    // The mean of nothing would have the benchmark run for ever.
    if (sample.figures.empty())
      throw std::logic_error(name + " measured nothing");
    const double mean =
        std::accumulate(sample.figures.begin(), sample.figures.end(), 0.0) /
        static_cast<double>(sample.figures.size());
    // Less than --benchmark_min_time would have it run for ever, too.
    state.SetIterationTime(
        std::max(mean * static_cast<double>(count) * 1e-9, 1e-6));
    results().samples[name].push_back(std::move(sample));
  }
}

std::vector<double> round_trips() {
  std::vector<double> all;
  for (const auto& [name, samples] : results().samples)
    for (const Sample& sample : samples) {
      all.push_back(sample.trip_before);
      all.push_back(sample.trip_after);
    }
  return all;
}

bool usual(const Sample& sample, double usual_trip) {
  const auto near = [usual_trip](double trip) {
    return trip < 1.6 * usual_trip && usual_trip < 1.6 * trip;
  };
  return near(sample.trip_before) && near(sample.trip_after);
}

void add_benchmark(const std::string& name, std::uint64_t count,
                   std::function<std::vector<double>()> run) {
  const auto signed_count = static_cast<std::int64_t>(count);
  benchmark::RegisterBenchmark(name.c_str(), [name, signed_count,
                                              run = std::move(run)](
                                                 benchmark::State& state) {
    run_benchmark(state, name, signed_count, run);
  })->UseManualTime();
}

std::vector<double> figures_of(const std::string& name) {
  std::vector<double> kept;
  const auto found = results().samples.find(name);
  if (found == results().samples.end()) return kept;
  const double usual_trip = median(round_trips());
  for (const Sample& sample : found->second)
    if (usual(sample, usual_trip))
      kept.insert(kept.end(), sample.figures.begin(), sample.figures.end());
  return kept;
}

void judge(const std::string& name, std::optional<double> figure,
           const char* bound, double target, const std::string& unit,
           bool passed) {
  if (!figure) {
    std::printf("----  %-52s  not run\n", name.c_str());
    return;
  }
  results().missed += !passed;
  std::printf("%s  %-52s  %7.3f%s  (%s %g%s)\n", passed ? "PASS" : "MISS",
              name.c_str(), *figure, unit.c_str(), bound, target, unit.c_str());
}

}  // namespace

bool smoke() { return results().smoke; }
void set_smoke() { results().smoke = true; }

std::uint64_t scaled(std::uint64_t full) {
  return smoke() ? std::max<std::uint64_t>(full / 100, 1) : full;
}

void add(const std::string& name, std::uint64_t count,
         std::function<double()> run) {
  add_benchmark(name, count, [count, run = std::move(run)] {
    return std::vector{run() / static_cast<double>(count)};
  });
}

void add_each(const std::string& name,
              std::function<std::vector<double>()> run) {
  add_benchmark(name, 1, std::move(run));
}

std::optional<double> median_of(const std::string& name) {
  const auto figures = figures_of(name);
  if (figures.empty()) return std::nullopt;
  return median(figures);
}

std::optional<double> least_of(const std::string& name) {
  const auto figures = figures_of(name);
  if (figures.empty()) return std::nullopt;
  return *std::min_element(figures.begin(), figures.end());
}

std::optional<double> ratio(const std::string& a, const std::string& b) {
  const auto over = median_of(a);
  const auto under = median_of(b);
  if (!over || !under) return std::nullopt;
  return *over / *under;
}

std::string best_of(const std::string& row,
                    const std::vector<const char*>& peers) {
  std::string best;
  for (const char* peer : peers) {
    const std::string name = row + '/' + peer;
    const auto middle = median_of(name);
    if (middle && (best.empty() || *middle < *median_of(best))) best = name;
  }
  return best;
}

std::string figure(const std::string& name) {
  const auto middle = median_of(name);
  if (!middle) return "-";
  char text[64];
  const int digits = *middle < 10 ? 2 : 1;
  std::snprintf(text, sizeof text, "%.*f (%.*f)", digits, *middle, digits,
                *least_of(name));
  return text;
}

void print_peers(const std::string& name,
                 const std::vector<const char*>& peers) {
  std::printf("%-14s", name.c_str());
  for (const char* peer : peers)
    if (median_of(name + '/' + peer))
      std::printf("  %s %s", peer, figure(name + '/' + peer).c_str());
  std::printf("\n");
}

void at_most(const std::string& name, std::optional<double> figure,
             double target, const std::string& unit) {
  judge(name, figure, "at most", target, unit, figure && *figure <= target);
}
void at_least(const std::string& name, std::optional<double> figure,
              double target, const std::string& unit) {
  judge(name, figure, "at least", target, unit, figure && *figure >= target);
}

int missed() { return results().missed; }

std::string placement() {
  const std::vector<double> trips = round_trips();
  if (trips.empty()) return "nothing was measured";
  const auto [least, most] = std::minmax_element(trips.begin(), trips.end());
  const double usual_trip = median(trips);
  std::size_t repetitions = 0;
  std::size_t left_out = 0;
  for (const auto& [name, samples] : results().samples) {
    repetitions += samples.size();
    left_out += static_cast<std::size_t>(std::count_if(
        samples.begin(), samples.end(),
        [&](const Sample& sample) { return !usual(sample, usual_trip); }));
  }
  char text[200];
  std::snprintf(text, sizeof text,
                "a cache line to and fro between the CPUs: %.0f ns "
                "(%.0f-%.0f)%s; left out: %zu of %zu repetitions",
                usual_trip, *least, *most,
                usual_trip < kOneCore ? ", threads of one core" : "", left_out,
                repetitions);
  return text;
}

}  // namespace shoal::bench
