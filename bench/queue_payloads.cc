#include "bench/queue_payloads.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <stdexcept>
#include <string>

#include "bench/baselines/byte_queues.h"
#include "bench/baselines/python.h"
#include "bench/support/machine.h"
#include "bench/support/report.h"
#include "shoal/ipc/queue.h"

namespace shoal::bench {
namespace {

constexpr std::array<std::size_t, 6> kSizes = {8,     64,     1024,
                                               16384, 131072, 1048576};
constexpr std::size_t kDepth = 32;

class ShoalBytes {
 public:
  ShoalBytes(std::size_t size, std::size_t) : queue_(size) {}
  void put(const std::string& value) { queue_.put(value); }
  std::string get() { return queue_.get(); }

 private:
  Queue<std::string> queue_;
};

void require(bool true_, const char* what) {
  if (!true_) throw std::runtime_error(what);
}

template <class Q>
double throughput(std::size_t bytes, std::uint64_t count) {
  Q queue(kDepth, bytes);
  const std::string value(bytes, 'x');
  const std::uint64_t warm_up = count / 10 + kDepth;
  const auto take = [&](std::uint64_t n) {
    for (; n != 0; --n) require(queue.get().size() == bytes, "another size");
  };
  return run_together({{0,
                        [&](const Start& start) {
                          for (std::uint64_t i = 0; i < warm_up; ++i)
                            queue.put(value);
                          start();
                          for (std::uint64_t i = 0; i < count; ++i)
                            queue.put(value);
                        }},
                       {1, [&](const Start& start) {
                          take(warm_up);
                          start();
                          take(count);
                        }}});
}

template <class Q>
double latency(std::size_t bytes, std::uint64_t count) {
  Q there(kDepth, bytes);
  Q back(kDepth, bytes);
  const std::string value(bytes, 'x');
  const std::uint64_t warm_up = count / 10 + 10;
  const auto ask = [&](std::uint64_t n) {
    for (; n != 0; --n) {
      there.put(value);
      require(back.get().size() == bytes, "another size");
    }
  };
  const auto answer = [&](std::uint64_t n) {
    for (; n != 0; --n) back.put(there.get());
  };
  return run_together({{0,
                        [&](const Start& start) {
                          ask(warm_up);
                          start();
                          ask(count);
                        }},
                       {1,
                        [&](const Start& start) {
                          answer(warm_up);
                          start();
                          answer(count);
                        }}}) /
         2;
}

std::uint64_t count_for(std::size_t bytes, std::uint64_t most) {
  constexpr std::uint64_t kBytes = 512 << 20;
  return std::max<std::uint64_t>(
      20, scaled(std::min<std::uint64_t>(most, kBytes / bytes)));
}

template <class Q>
void add_peer(const std::string& size, const char* peer, std::size_t bytes,
              std::uint64_t most) {
  const std::uint64_t items = count_for(bytes, most);
  add("string/" + size + "/stream/" + peer, items,
      [=] { return throughput<Q>(bytes, items); });
  const std::uint64_t rounds = count_for(bytes, most / 5);
  add("string/" + size + "/one_way/" + peer, rounds,
      [=] { return latency<Q>(bytes, rounds); });
}

void print(const char* what) {
  std::printf("\nstring, %s: ns, median (least)\n%-10s %18s %18s %18s %18s\n",
              what, "bytes", "shoal", "boost_mq", "posix_mq", "python");
  for (const std::size_t bytes : kSizes) {
    const std::string row =
        "string/" + std::to_string(bytes) + '/' + what + '/';
    std::printf("%-10zu %18s %18s %18s %18s\n", bytes,
                figure(row + "shoal").c_str(), figure(row + "boost_mq").c_str(),
                figure(row + "posix_mq").c_str(),
                figure(row + "python").c_str());
  }
}

}  // namespace

void add_payloads() {
  for (const std::size_t bytes : kSizes) {
    const std::string size = std::to_string(bytes);
    add_peer<ShoalBytes>(size, "shoal", bytes, 500'000);
    add_peer<BoostBytes>(size, "boost_mq", bytes, 100'000);
    if (bytes <= PosixBytes::kMostBytes)
      add_peer<PosixBytes>(size, "posix_mq", bytes, 100'000);
    if (!has_python()) continue;
    const std::uint64_t items = count_for(bytes, 10'000);
    for (const bool one_way : {false, true})
      add("string/" + size + (one_way ? "/one_way/python" : "/stream/python"),
          items, [=] { return python_queue(items, bytes, kDepth, one_way); });
  }
}

void report_payloads() {
  print("stream");
  print("one_way");
  if (!has_python())
    std::printf("python3 is not here: its Queue was left out\n");
  std::printf("\n");
  for (const char* what : {"stream", "one_way"})
    for (const std::size_t bytes : kSizes) {
      const std::string row =
          "string/" + std::to_string(bytes) + '/' + what + '/';
      at_least("string of " + std::to_string(bytes) + " B, " + what +
                   ", of Boost message_queue's rate",
               ratio(row + "boost_mq", row + "shoal"), 1);
    }
}

}  // namespace shoal::bench
