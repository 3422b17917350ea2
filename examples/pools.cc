// Threads or processes? Both kinds of pools have the same verbs; here each does
// work that computes and work that waits, as one thread alone does before.
// Threads start faster; a process may crash, or call what is not thread-safe.
//   ./bazelw run -c opt //examples:pools

#include <poll.h>
#include <shoal/shoal.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <numeric>
#include <vector>

constexpr int kWorkers = 8, kParts = 32;

// How many steps a number of this part needs at most to come to 1 (Collatz).
int compute(int part) {
  int longest = 0;
  for (long start = part + 1; start < 2'000'000; start += kParts) {
    int steps = 0;
    for (long n = start; n != 1; n = n % 2 ? 3 * n + 1 : n / 2) ++steps;
    longest = std::max(longest, steps);
  }
  return longest;
}

// A peer that takes its time.
int wait(int part) {
  poll(nullptr, 0, 20);
  return part;
}

double seconds(const auto& f) {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  f();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

bool compare(const char* what, int (*task)(int)) {
  std::vector<int> parts(kParts), here, threads, processes;
  std::iota(parts.begin(), parts.end(), 0);
  const double alone = seconds([&] {
    for (int n : parts) here.push_back(task(n));
  });
  const double in_threads =
      seconds([&] { threads = shoal::ThreadPool(kWorkers).map(task, parts); });
  const double in_processes =
      seconds([&] { processes = shoal::Pool(kWorkers).map(task, parts); });
  std::printf("%-9s  %.3f s alone, ThreadPool %.3f s, Pool %.3f s\n", what,
              alone, in_threads, in_processes);
  return here == threads && here == processes;
}

int main() {
  std::printf("%d CPUs, pools of %d\n", shoal::cpu_count(), kWorkers);
  return compare("computing", compute) && compare("waiting", wait) ? 0 : 1;
}
