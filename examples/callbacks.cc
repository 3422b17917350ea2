// Callbacks: workers do the slow part, and this process does with each result
// what it wants as soon as it is there. Callbacks run one at a time, so that
// the table needs no lock.
//   ./bazelw run -c opt //examples:callbacks

#include <shoal/shoal.h>
#include <unistd.h>

#include <cstdio>
#include <exception>
#include <map>
#include <stdexcept>

struct Share {
  int first, primes;
  pid_t by;
};

// In a worker: by trial division.
Share count_primes(int first, int last) {
  if (first < 2) throw std::invalid_argument("the first prime is 2");
  Share share{first, 0, getpid()};
  for (int n = first; n < last; ++n) {
    bool prime = true;
    for (int d = 2; prime && d * d <= n; ++d) prime = n % d != 0;
    share.primes += prime;
  }
  return share;
}

int main() {
  constexpr int kStep = 50'000, kSteps = 8;
  std::map<int, int> primes;
  const shoal::Callbacks callbacks{
      .callback =
          [&](const Share& share) {
            primes[share.first] = share.primes;
            std::printf("%6d primes from %6d on, by %d, known to %d\n",
                        share.primes, share.first, share.by, getpid());
          },
      .error_callback =
          [](std::exception_ptr error) {
            try {
              std::rethrow_exception(error);
            } catch (const std::exception& why) {
              std::printf("%d hears of a failure: %s\n", getpid(), why.what());
            }
          }};
  shoal::Pool pool;
  for (int n = 0; n < kSteps; ++n)  // the first one fails
    pool.apply_async(callbacks, count_primes, n * kStep, (n + 1) * kStep);
  pool.apply_async(callbacks, count_primes, 2, kStep);
  pool.close();
  pool.join();  // also for the callbacks
  int all = 0;
  for (const auto& [first, count] : primes) all += count;
  std::printf("%d primes below %d\n", all, kSteps * kStep);
  return all == 33'860 ? 0 : 1;
}
