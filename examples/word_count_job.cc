#include "shoal/examples/word_count_job.h"

#include <shoal/pool/pool.h>
#include <shoal/pool/progress.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <iomanip>
#include <iostream>

namespace word_count {
namespace {

using identifiers::Batch;
using identifiers::Counts;
using identifiers::File;

Counts count_alone(const std::vector<File>& files) {
  Batch all;
  for (const File& file : files) all.push_back(file.path);
  return identifiers::count(all);
}

// A batch is a task, and travels as a vector of strings; its Counts come back.
// Many batches keep the workers busy until the end, few are quickly merged.
Counts count_in_pool(const std::vector<File>& files, int processes) {
  const int batches = std::max(processes, std::min(32 * processes, 256));
  shoal::Pool pool(processes);
  return identifiers::merge(shoal::progress(
      pool.map_async(
          identifiers::count,
          identifiers::make_batches(files, static_cast<std::size_t>(batches)),
          /*chunksize=*/1),
      "counting"));
}

struct Run {
  Counts counts;
  double seconds = 0;
};

template <class Count>
Run timed(Count&& count) {
  const auto start = std::chrono::steady_clock::now();
  Run run = {count()};
  const std::chrono::duration<double> passed =
      std::chrono::steady_clock::now() - start;
  run.seconds = passed.count();
  return run;
}

void append(std::vector<std::string>& to,
            const std::vector<std::string>& from) {
  to.insert(to.end(), from.begin(), from.end());
}

void print_counts(const Counts& counts, const identifiers::Ranked& ranked) {
  std::uint64_t total = 0;
  for (const auto& [name, count] : ranked) total += count;
  std::cout << "  " << counts.files << " files, " << std::setprecision(1)
            << static_cast<double>(counts.bytes) / 1e6 << " MB, " << total
            << " identifiers, " << ranked.size() << " different ones\n\n";
  const std::size_t shown = std::min<std::size_t>(20, ranked.size());
  for (std::size_t i = 0; i < shown; ++i)
    std::cout << std::setw(11) << ranked[i].second << "  " << ranked[i].first
              << '\n';
}

}  // namespace

std::vector<std::string> directories(std::vector<std::string> arguments) {
  if (arguments.empty()) return {"/usr/include"};
  // NOLINTNEXTLINE(concurrency-mt-unsafe): before there are other threads
  if (const char* start = std::getenv("BUILD_WORKING_DIRECTORY"))
    for (std::string& argument : arguments)
      argument = (std::filesystem::path(start) / argument).native();
  return arguments;
}

bool run(std::vector<File> files, int processes) {
  std::cout << std::fixed;
  Run alone, pooled;
  std::vector<std::string> skipped;
  // Once more if a file went away after one count and before the other.
  for (int attempt = 0; attempt < 3; ++attempt) {
    append(skipped, identifiers::read_once(files));
    if (files.empty()) throw identifiers::NoInput(skipped.front());
    alone = timed([&] { return count_alone(files); });
    pooled = timed([&] { return count_in_pool(files, processes); });
    if (alone.counts.skipped == pooled.counts.skipped) break;
  }
  append(skipped, alone.counts.skipped);
  if (!skipped.empty())
    std::cerr << "files skipped, they cannot be read: " << skipped.size()
              << ", the first " << skipped.front() << std::endl;

  const identifiers::Ranked ranked = identifiers::ranked(alone.counts);
  print_counts(alone.counts, ranked);
  std::cout << std::setprecision(3) << "\n  one process    " << alone.seconds
            << " s\n  a pool of " << std::setw(3) << std::left << processes
            << std::right << "  " << pooled.seconds << " s\n  ratio          "
            << std::setprecision(2) << alone.seconds / pooled.seconds << "\n";
  const bool agree = ranked == identifiers::ranked(pooled.counts);
  if (agree)
    std::cout << "  both counted the same" << std::endl;
  else
    std::cerr << "the two counts differ"
              << (alone.counts.bytes != pooled.counts.bytes
                      ? ": the files changed in between"
                      : "")
              << std::endl;
  return agree;
}

}  // namespace word_count
