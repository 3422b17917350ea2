#pragma once
// What a bench has measured, and what was expected of it.
//
// A bench program defines two functions that main() calls:
//
//   void add_benchmarks() {
//     add("ring/8/shoal", 1'000'000, [] { return run(1'000'000); });
//     add("ring/8/vyukov", 1'000'000, [] { return run_vyukov(1'000'000); });
//   }
//   void report() {
//     at_least("rate of Vyukov's", ratio("ring/8/vyukov", "ring/8/shoal"),
//              0.9);
//   }
//
// Repetitions of all benchmarks are interleaved at random, so that a slow
// spell of the machine falls on all of them.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace shoal::bench {

// ---- what a bench program defines ----

void add_benchmarks();
void report();

// ---- measuring ----

// --smoke was given: everything once and briefly.
bool smoke();
void set_smoke();
// `full`, or a hundredth of it for --smoke.
std::uint64_t scaled(std::uint64_t full);

// A benchmark: `run` does `count` operations and returns the nanoseconds that
// they took together. Every repetition calls it once.
void add(const std::string& name, std::uint64_t count,
         std::function<double()> run);
// `run` returns what each operation took; all of them count alike.
void add_each(const std::string& name,
              std::function<std::vector<double>()> run);

// ---- reporting ----

// Nanoseconds an operation, over the repetitions before and after which the
// CPUs were as far apart as for most of the run. Nothing for a benchmark that
// was filtered out.
std::optional<double> median_of(const std::string& name);
std::optional<double> least_of(const std::string& name);
std::optional<double> ratio(const std::string& a, const std::string& b);
// "row/peer" of the peer with the least median; none was run: "".
std::string best_of(const std::string& row,
                    const std::vector<const char*>& peers);
// "28.1 (26.0)": median and least, or "-".
std::string figure(const std::string& name);

// One line: the figures of a row's peers, "name/peer", that were run.
void print_peers(const std::string& name,
                 const std::vector<const char*>& peers);

// One line each: name, figure, target, PASS or MISS.
void at_most(const std::string& name, std::optional<double> figure,
             double target, const std::string& unit = "");
void at_least(const std::string& name, std::optional<double> figure,
              double target, const std::string& unit = "");
int missed();

// How far apart the CPUs were, and what was left out because of it.
std::string placement();

}  // namespace shoal::bench
