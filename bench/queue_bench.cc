// Queue<T> between processes, beside Vyukov's ring, Boost.Interprocess'
// message_queue and the bare cache line.

#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "bench/baselines/boost_queue.h"
#include "bench/baselines/ping_pong.h"
#include "bench/baselines/vyukov.h"
#include "bench/queue_payloads.h"
#include "bench/support/machine.h"
#include "bench/support/report.h"
#include "shoal/ipc/queue.h"

namespace shoal::bench {
namespace {

template <std::size_t kBytes>
struct Item {
  std::uint64_t number;
  std::array<std::uint64_t, kBytes / 8 - 1> rest;
};
template <>
struct Item<8> {
  std::uint64_t number;
};

constexpr std::size_t kSize = 1024;
constexpr std::size_t kLatencySize = 64;

// As in notes/rings.md: attempts before a yield, for a CPU of one's own and
// for a shared one.
constexpr int kSpinsAlone = 200;
constexpr int kSpinsShared = 60;

template <class T>
std::unique_ptr<Queue<T>> make_shoal(std::size_t size, bool) {
  return std::make_unique<Queue<T>>(size);
}
template <class T>
std::unique_ptr<Vyukov<T>> make_vyukov(std::size_t size, bool shared_cpus) {
  return std::make_unique<Vyukov<T>>(size,
                                     shared_cpus ? kSpinsShared : kSpinsAlone);
}
template <class T>
std::unique_ptr<BoostQueue<T>> make_boost(std::size_t size, bool) {
  return std::make_unique<BoostQueue<T>>(size);
}

void require(bool true_, const char* what) {
  if (!true_) throw std::runtime_error(what);
}

// ---- throughput ----

template <class T>
void produce(auto& queue, std::uint64_t count) {
  for (std::uint64_t i = 0; i < count; ++i) {
    T item{};
    item.number = i;
    queue.put(item);
  }
}
template <class T>
std::uint64_t consume(auto& queue, std::uint64_t count) {
  std::uint64_t sum = 0;
  for (std::uint64_t i = 0; i < count; ++i) sum += T(queue.get()).number;
  return sum;
}

// `pairs` producers and as many consumers; each CPU carries as many of both.
template <class T>
double throughput(auto make, std::uint64_t pairs, std::uint64_t items) {
  const auto queue = make(kSize, pairs > 1);
  const Shared<std::atomic<std::uint64_t>> sum;
  const std::uint64_t each = items / pairs;
  const std::uint64_t warm_up = each / 20 + 1;
  std::vector<Role> roles;
  for (std::uint64_t i = 0; i < pairs; ++i) {
    roles.push_back({static_cast<int>(i % 2), [&](const Start& start) {
                       produce<T>(*queue, warm_up);
                       start();
                       produce<T>(*queue, each);
                     }});
    roles.push_back({static_cast<int>((i + 1) % 2), [&](const Start& start) {
                       consume<T>(*queue, warm_up);
                       start();
                       sum->fetch_add(consume<T>(*queue, each));
                     }});
  }
  const double ns = run_together(roles);
  require(*sum == pairs * (each * (each - 1) / 2), "items were lost");
  return ns;
}

// put_many and get_many of up to 64 at a time.
double throughput_many(std::uint64_t items) {
  constexpr std::size_t kBatch = 64;
  Queue<std::uint64_t> queue(kSize);
  const Shared<std::uint64_t> sum;
  const auto produce_many = [&](std::uint64_t count) {
    std::array<std::uint64_t, kBatch> batch;
    for (std::uint64_t done = 0; done < count;) {
      const auto n = std::min<std::uint64_t>(kBatch, count - done);
      for (std::uint64_t i = 0; i < n; ++i) batch[i] = done + i;
      for (std::span<const std::uint64_t> rest(batch.data(), n); !rest.empty();)
        rest = rest.subspan(queue.put_many(rest));
      done += n;
    }
  };
  const auto consume_many = [&](std::uint64_t count) {
    std::array<std::uint64_t, kBatch> batch;
    std::uint64_t total = 0;
    for (std::uint64_t done = 0; done < count;) {
      const auto n = queue.get_many(std::span(batch).first(
          std::min<std::uint64_t>(kBatch, count - done)));
      for (std::size_t i = 0; i < n; ++i) total += batch[i];
      done += n;
    }
    return total;
  };
  const std::uint64_t warm_up = items / 20 + 1;
  const double ns = run_together({{0,
                                   [&](const Start& start) {
                                     produce_many(warm_up);
                                     start();
                                     produce_many(items);
                                   }},
                                  {1, [&](const Start& start) {
                                     consume_many(warm_up);
                                     start();
                                     *sum = consume_many(items);
                                   }}});
  require(*sum == items * (items - 1) / 2, "items were lost");
  return ns;
}

// ---- latency ----

// Half of the time to and fro, by two queues.
template <class T>
double latency(auto make, std::uint64_t rounds) {
  const auto there = make(kLatencySize, false);
  const auto back = make(kLatencySize, false);
  const auto ask = [&](std::uint64_t count) {
    for (std::uint64_t i = 0; i < count; ++i) {
      T item{};
      item.number = i;
      there->put(item);
      require(T(back->get()).number == i, "another item came back");
    }
  };
  const auto answer = [&](std::uint64_t count) {
    for (std::uint64_t i = 0; i < count; ++i) back->put(there->get());
  };
  const std::uint64_t warm_up = rounds / 10 + 1;
  return run_together({{0,
                        [&](const Start& start) {
                          ask(warm_up);
                          start();
                          ask(rounds);
                        }},
                       {1,
                        [&](const Start& start) {
                          answer(warm_up);
                          start();
                          answer(rounds);
                        }}}) /
         2;
}

template <std::size_t kBytes>
double raw_latency(std::uint64_t rounds) {
  const Shared<Lines<kBytes>> lines;
  const std::uint64_t warm_up = rounds / 10 + 1;
  return run_together({{0,
                        [&](const Start& start) {
                          ask(*lines, 0, warm_up);
                          start();
                          ask(*lines, warm_up, rounds);
                        }},
                       {1,
                        [&](const Start& start) {
                          answer(*lines, 0, warm_up);
                          start();
                          answer(*lines, warm_up, rounds);
                        }}}) /
         2;
}

// From before put() until get() has returned in a process that was asleep.
std::vector<double> parked_latencies(std::uint64_t rounds) {
  constexpr std::size_t kMost = 64;
  Queue<double> queue(kLatencySize);
  const Shared<std::array<double, kMost>> each;
  const std::size_t count = std::min<std::uint64_t>(rounds, kMost);
  run_together({{0,
                 [&](const Start& start) {
                   start();
                   for (std::size_t i = 0; i < count; ++i) {
                     std::this_thread::sleep_for(std::chrono::milliseconds(2));
                     queue.put(clock_ns());
                   }
                 }},
                {1, [&](const Start& start) {
                   start();
                   for (std::size_t i = 0; i < count; ++i) {
                     const double sent = queue.get();
                     each->at(i) = clock_ns() - sent;
                   }
                 }}});
  return {each->begin(), each->begin() + count};
}

// ---- what a refusal costs, in one process ----

double empty_shoal(std::uint64_t count) {
  Queue<std::uint64_t> queue(kSize);
  const double begin = clock_ns();
  for (std::uint64_t i = 0; i < count; ++i)
    require(!queue.try_get(), "not empty");
  return clock_ns() - begin;
}
double full_shoal(std::uint64_t count) {
  Queue<std::uint64_t> queue(kLatencySize);
  while (queue.try_put(0)) {
  }
  const double begin = clock_ns();
  for (std::uint64_t i = 0; i < count; ++i)
    require(!queue.try_put(i), "not full");
  return clock_ns() - begin;
}
double empty_vyukov(std::uint64_t count) {
  Vyukov<std::uint64_t> queue(kSize, kSpinsAlone);
  std::uint64_t value;
  const double begin = clock_ns();
  for (std::uint64_t i = 0; i < count; ++i)
    require(!queue.try_get(value), "not empty");
  return clock_ns() - begin;
}
double full_vyukov(std::uint64_t count) {
  Vyukov<std::uint64_t> queue(kLatencySize, kSpinsAlone);
  while (queue.try_put(0)) {
  }
  const double begin = clock_ns();
  for (std::uint64_t i = 0; i < count; ++i)
    require(!queue.try_put(i), "not full");
  return clock_ns() - begin;
}

template <std::size_t kBytes>
void add_sized() {
  using T = Item<kBytes>;
  const std::string size = std::to_string(kBytes) + "B/";
  const auto items = scaled(2'000'000);
  const auto boost_items = scaled(200'000);
  const auto rounds = scaled(200'000);
  for (const std::uint64_t pairs : {1, 2}) {
    const std::string which = size + (pairs == 1 ? "1P1C/" : "2P2C/");
    add(which + "shoal", items,
        [=] { return throughput<T>(make_shoal<T>, pairs, items); });
    add(which + "vyukov", items,
        [=] { return throughput<T>(make_vyukov<T>, pairs, items); });
    add(which + "boost_mq", boost_items,
        [=] { return throughput<T>(make_boost<T>, pairs, boost_items); });
  }
  add(size + "one_way/shoal", rounds,
      [=] { return latency<T>(make_shoal<T>, rounds); });
  add(size + "one_way/vyukov", rounds,
      [=] { return latency<T>(make_vyukov<T>, rounds); });
  add(size + "one_way/raw_line", rounds,
      [=] { return raw_latency<kBytes>(rounds); });
}

void print_row(const std::string& what, const std::string& third) {
  std::printf("%-14s %18s %18s %18s\n", what.c_str(),
              figure(what + "/shoal").c_str(), figure(what + "/vyukov").c_str(),
              figure(what + "/" + third).c_str());
}

}  // namespace

void add_benchmarks() {
  add_sized<8>();
  add_sized<64>();
  const auto items = scaled(2'000'000);
  add("8B/many/shoal", items, [=] { return throughput_many(items); });
  const auto refusals = scaled(1'000'000);
  add("empty/shoal", refusals, [=] { return empty_shoal(refusals); });
  add("empty/vyukov", refusals, [=] { return empty_vyukov(refusals); });
  add("full/shoal", refusals, [=] { return full_shoal(refusals); });
  add("full/vyukov", refusals, [=] { return full_vyukov(refusals); });
  add_each("8B/parked/shoal", [] { return parked_latencies(scaled(2000)); });
  add_payloads();
}

void report() {
  std::printf("\nns an item or one way, median (least)\n");
  std::printf("%-14s %18s %18s %18s\n", "", "shoal", "vyukov", "boost_mq");
  for (const char* what :
       {"8B/1P1C", "8B/2P2C", "8B/many", "64B/1P1C", "64B/2P2C"})
    print_row(what, "boost_mq");
  std::printf("%-14s %18s %18s %18s\n", "", "shoal", "vyukov", "raw_line");
  for (const char* what :
       {"8B/one_way", "64B/one_way", "8B/parked", "empty", "full"})
    print_row(what, "raw_line");
  std::printf("\n");
  at_least("8 B 1P1C, of Vyukov's rate",
           ratio("8B/1P1C/vyukov", "8B/1P1C/shoal"), 0.9);
  at_least("8 B 1P1C, of Boost message_queue's rate",
           ratio("8B/1P1C/boost_mq", "8B/1P1C/shoal"), 3);
  at_least("8 B 2P2C, of Vyukov's rate",
           ratio("8B/2P2C/vyukov", "8B/2P2C/shoal"), 1.0);
  at_most("8 B one way, of the raw cache line",
          ratio("8B/one_way/shoal", "8B/one_way/raw_line"), 1.4);
  report_payloads();
}

}  // namespace shoal::bench
