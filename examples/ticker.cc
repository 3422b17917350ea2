// Market data: one process makes ticks, three read all of them, each through a
// queue of its own, and print how long the ticks were on their way.
//   ./bazelw run -c opt //examples:ticker

#include <shoal/shoal.h>

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

struct Tick {
  std::array<char, 8> symbol;
  double price;
  std::int64_t sent;  // nanoseconds
};
using Queue = shoal::Queue<Tick>;
std::int64_t nanoseconds() {
  return std::chrono::steady_clock::now().time_since_epoch().count();
}

void consume(int number, Queue ticks) {
  std::array<int, 32> histogram{};  // latencies from 2^n ns on
  double highest = 0;
  try {
    for (;;) {
      const Tick tick = ticks.get();
      const auto latency = static_cast<unsigned>(nanoseconds() - tick.sent);
      ++histogram[static_cast<std::size_t>(std::bit_width(latency | 1) - 1)];
      highest = std::max(highest, tick.price);
    }
  } catch (const shoal::ShutDown&) {  // all ticks read
  }
  std::string text = "consumer " + std::to_string(number) + ", highest price " +
                     std::to_string(highest) + ":\n";
  for (std::size_t n = 0; n < histogram.size(); ++n)
    if (histogram[n] != 0)
      text += "  from " + std::to_string(1u << n) +
              " ns: " + std::to_string(histogram[n]) + " ticks\n";
  std::fputs(text.c_str(), stdout);
}

int main() {
  std::vector<Queue> queues;
  std::vector<shoal::Process> consumers;
  for (int n = 0; n < 3; ++n) {
    queues.emplace_back(1024);
    consumers.emplace_back(consume, n, queues.back()).start();
  }
  for (int i = 0; i < 50'000; ++i)
    for (Queue& queue : queues)
      queue.put({{"SHOAL"}, 100 + i % 997 / 10.0, nanoseconds()});
  for (Queue& queue : queues) queue.shutdown();  // they read what is left
  for (shoal::Process& consumer : consumers) consumer.join();
}
