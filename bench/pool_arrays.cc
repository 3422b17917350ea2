// 64 MiB of doubles as an argument, and back: an Array that a worker sums or
// fills, beside the same function called here, on the worker's CPU.

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "bench/baselines/python.h"
#include "bench/baselines/python_pool.h"
#include "bench/pool_parts.h"
#include "bench/support/machine.h"
#include "bench/support/report.h"
#include "shoal/pool/pool.h"
#include "shoal/shared/array.h"

namespace shoal::bench {
namespace {

constexpr std::size_t kDoubles = (std::size_t{64} << 20) / sizeof(double);

// Not inlined: the worker and this process run the same instructions.
[[gnu::noinline]] double sum(const Array<double>& array) {
  const std::span<const double> all(array.data(), array.size());
  // One alone would wait for the addition before, not for memory.
  std::array<double, 8> sums{};
  for (std::size_t i = 0; i < all.size(); i += sums.size())
    for (std::size_t k = 0; k < sums.size(); ++k) sums[k] += all[i + k];
  double whole = 0;
  for (const double part : sums) whole += part;
  return whole;
}

[[gnu::noinline]] void fill(Array<double> array, double value) {
  for (double& x : array) x = value;
}

// The same for all that are compared: how fast it is depends on its pages.
const Array<double>& numbers() {
  static const Array<double> array(kDoubles);
  return array;
}

struct ByPool {
  template <class F, class... As>
  auto operator()(F f, const As&... args) {
    return pool.apply(f, args...);
  }
  Pool pool{1};
  Pinned pinned = pin_apart(pool);
};

struct Alone {
  template <class F, class... As>
  auto operator()(F f, const As&... args) {
    return f(args...);
  }
  Pinned pinned{1};
};

template <class By>
std::vector<double> sums() {
  const Array<double>& array = numbers();
  fill(array, 1);
  By call;
  return times_of(scaled(20), [&] {
    require(call(&sum, array) == kDoubles, "a wrong sum");
  });
}

template <class By>
std::vector<double> fills() {
  const Array<double>& array = numbers();
  fill(array, 0);
  By call;
  double value = 0;
  auto each = times_of(scaled(20), [&] { call(&fill, array, ++value); });
  require(array[0] == value && array[kDoubles - 1] == value, "not filled");
  return each;
}

}  // namespace

void add_arrays() {
  add_each("sum_64MiB/pool", sums<ByPool>);
  add_each("sum_64MiB/alone", sums<Alone>);
  add_each("fill_64MiB/pool", fills<ByPool>);
  add_each("fill_64MiB/alone", fills<Alone>);
  if (!has_python("numpy")) return;
  for (const std::string verb : {"sum", "fill"})
    add(verb + "_64MiB/Pool.py", 1,
        [=] { return python_pool("Pool", verb, 1, 1); });
}

void report_arrays() {
  for (const char* row : {"sum_64MiB", "fill_64MiB"})
    print_peers(row, {"pool", "alone", "Pool.py"});
  at_most("64 MiB in, of the sum alone",
          ratio("sum_64MiB/pool", "sum_64MiB/alone"), 1.1);
  at_most("64 MiB back, of the fill alone",
          ratio("fill_64MiB/pool", "fill_64MiB/alone"), 1.1);
}

}  // namespace shoal::bench
