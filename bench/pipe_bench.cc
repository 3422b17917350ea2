// Pipe between two processes, beside everything else that carries bytes and
// what nothing can be faster than.

#include <dlfcn.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "bench/baselines/byte_channels.h"
#include "bench/baselines/ping_pong.h"
#include "bench/baselines/python_pipe.h"
#include "bench/baselines/raw_futex.h"
#include "bench/baselines/zmq_pair.h"
#include "bench/support/machine.h"
#include "bench/support/report.h"
#include "shoal/ipc/pipe.h"

namespace shoal::bench {
namespace {

constexpr std::size_t kSmall = 64;
constexpr std::size_t kPage = 4096;
constexpr std::size_t kMega = 1 << 20;

void require(bool true_, const char* what) {
  if (!true_) throw std::runtime_error(what);
}

// ---- a Pipe as a channel ----

class BytesPipe {
 public:
  explicit BytesPipe(std::size_t) : ends_(Pipe()) {}
  void send(int end, const std::byte* from, std::size_t n) {
    at(end).send_bytes(std::span(from, n));
  }
  void receive(int end, std::byte* to, std::size_t n) {
    at(end).recv_bytes_into(std::span(to, n));
  }

 private:
  Connection& at(int end) { return end == 0 ? ends_.first : ends_.second; }
  std::pair<Connection, Connection> ends_;
};

// By send(T) and recv<T>().
template <std::size_t kBytes>
class TypedPipe {
 public:
  using T = std::array<std::uint64_t, kBytes / 8>;
  explicit TypedPipe(std::size_t) : ends_(Pipe()) {}
  void send(int end, const std::byte* from, std::size_t) {
    T value;
    std::memcpy(&value, from, kBytes);
    at(end).send(value);
  }
  void receive(int end, std::byte* to, std::size_t) {
    const T value = at(end).template recv<T>();
    std::memcpy(to, &value, kBytes);
  }

 private:
  Connection& at(int end) { return end == 0 ? ends_.first : ends_.second; }
  std::pair<Connection, Connection> ends_;
};

// ---- measuring ----

// A message whose first and last words are its number.
class Message {
 public:
  explicit Message(std::size_t bytes) : bytes_(bytes) {}
  std::byte* data() { return bytes_.data(); }
  std::size_t size() const { return bytes_.size(); }
  void number(std::uint64_t n) {
    std::memcpy(bytes_.data(), &n, sizeof n);
    std::memcpy(bytes_.data() + bytes_.size() - sizeof n, &n, sizeof n);
  }
  bool has(std::uint64_t n) const {
    std::uint64_t first, last;
    std::memcpy(&first, bytes_.data(), sizeof first);
    std::memcpy(&last, bytes_.data() + bytes_.size() - sizeof last,
                sizeof last);
    return first == n && last == n;
  }

 private:
  std::vector<std::byte> bytes_;
};

template <class Channel>
void finish(Channel& channel) {
  if constexpr (requires { channel.finish(); }) channel.finish();
}

template <class Channel>
void drain(Channel& channel, int end) {
  if constexpr (requires { channel.drain(end); }) channel.drain(end);
}

// To and fro, ends on `cpus`.
template <class Channel>
double round_trips(std::size_t bytes, std::uint64_t rounds, int cpu_a = 0,
                   int cpu_b = 1) {
  Channel channel(bytes);
  const std::uint64_t warm_up = rounds / 10 + 2;
  return run_together(
      {{cpu_a,
        [&](const Start& start) {
          Message out(bytes), in(bytes);
          const auto ask = [&](std::uint64_t first, std::uint64_t count) {
            for (std::uint64_t i = first; i < first + count; ++i) {
              out.number(i);
              channel.send(0, out.data(), bytes);
              channel.receive(0, in.data(), bytes);
              require(in.has(i), "another message came back");
            }
          };
          ask(0, warm_up);
          start();
          ask(warm_up, rounds);
        }},
       {cpu_b, [&](const Start& start) {
          Message message(bytes);
          const auto answer = [&](std::uint64_t count) {
            for (std::uint64_t i = 0; i < count; ++i) {
              channel.receive(1, message.data(), bytes);
              channel.send(1, message.data(), bytes);
            }
          };
          answer(warm_up);
          start();
          answer(rounds);
          finish(channel);
        }}});
}

// One way, as fast as they come.
template <class Channel>
double stream(std::size_t bytes, std::uint64_t count) {
  Channel channel(bytes);
  const std::uint64_t warm_up = count / 20 + 2;
  return run_together(
      {{0,
        [&](const Start& start) {
          Message message(bytes);
          const auto produce = [&](std::uint64_t first, std::uint64_t n) {
            for (std::uint64_t i = first; i < first + n; ++i) {
              message.number(i);
              channel.send(0, message.data(), bytes);
            }
          };
          produce(0, warm_up);
          start();
          produce(warm_up, count);
          drain(channel, 0);
        }},
       {1, [&](const Start& start) {
          Message message(bytes);
          const auto consume = [&](std::uint64_t first, std::uint64_t n) {
            for (std::uint64_t i = first; i < first + n; ++i) {
              channel.receive(1, message.data(), bytes);
              require(message.has(i), "another message");
            }
          };
          consume(0, warm_up);
          start();
          consume(warm_up, count);
          drain(channel, 1);
        }}});
}

template <std::size_t kBytes>
double raw_round_trips(std::uint64_t rounds) {
  const Shared<Lines<kBytes>> lines;
  const std::uint64_t warm_up = rounds / 10 + 1;
  return run_together({{0,
                        [&](const Start& start) {
                          ask(*lines, 0, warm_up);
                          start();
                          ask(*lines, warm_up, rounds);
                        }},
                       {1, [&](const Start& start) {
                          answer(*lines, 0, warm_up);
                          start();
                          answer(*lines, warm_up, rounds);
                        }}});
}

// ---- asleep ----

// From before send() until receive() has returned in a process that slept.
template <class Channel>
std::vector<double> parked(std::uint64_t rounds) {
  constexpr std::size_t kMost = 64;
  const std::size_t count = std::min<std::uint64_t>(rounds, kMost);
  const Shared<std::array<double, kMost>> each;
  Channel channel(8);
  run_together({{0,
                 [&](const Start& start) {
                   start();
                   for (std::size_t i = 0; i < count; ++i) {
                     std::this_thread::sleep_for(std::chrono::milliseconds(2));
                     const double now = clock_ns();
                     std::byte bytes[8];
                     std::memcpy(bytes, &now, 8);
                     channel.send(0, bytes, 8);
                   }
                 }},
                {1, [&](const Start& start) {
                   start();
                   for (std::size_t i = 0; i < count; ++i) {
                     std::byte bytes[8];
                     channel.receive(1, bytes, 8);
                     double sent;
                     std::memcpy(&sent, bytes, 8);
                     each->at(i) = clock_ns() - sent;
                   }
                 }}});
  return {each->begin(), each->begin() + count};
}

double idle() {
  auto ends = Pipe();
  return blocked_cpu(
      smoke() ? 0.05 : 1, [&] { ends.second.recv<int>(); },
      [&] { ends.first.send(1); });
}

template <class Channel>
void add_round_trips(const std::string& name, std::size_t bytes,
                     std::uint64_t rounds) {
  rounds = scaled(rounds);
  add("rtt/" + std::to_string(bytes) + "/" + name, rounds,
      [=] { return round_trips<Channel>(bytes, rounds); });
}
template <class Channel>
void add_stream(const std::string& name, std::size_t bytes,
                std::uint64_t count) {
  count = scaled(count);
  add("stream/" + std::to_string(bytes) + "/" + name, count,
      [=] { return stream<Channel>(bytes, count); });
}

template <std::size_t kBytes>
void add_sized(std::uint64_t rounds, std::uint64_t count) {
  const std::uint64_t few = rounds / 20 + 20;
  const std::uint64_t slow = count / 10 + 20;
  add_round_trips<BytesPipe>("shoal_bytes", kBytes, rounds);
  add_round_trips<BoostSpsc<kBytes>>("boost_spsc", kBytes, rounds);
  add_round_trips<PosixPipe<true>>("pipe_busy", kBytes, few);
  add_round_trips<PosixPipe<false>>("pipe", kBytes, few);
  add_round_trips<UnixStream<true>>("unix_busy", kBytes, few);
  add_round_trips<UnixStream<false>>("unix", kBytes, few);
  add_round_trips<BoostMessages>("boost_mq", kBytes, few);
  add_stream<BytesPipe>("shoal_bytes", kBytes, count);
  add_stream<BoostSpsc<kBytes>>("boost_spsc", kBytes, count);
  add_stream<PosixPipe<false>>("pipe", kBytes, slow);
  add_stream<UnixStream<false>>("unix", kBytes, slow);
  add_stream<BoostMessages>("boost_mq", kBytes, slow);
  if constexpr (kBytes <= kPage) {
    add_round_trips<TypedPipe<kBytes>>("shoal", kBytes, rounds);
    add_round_trips<PosixQueue>("posix_mq", kBytes, few);
    add_stream<TypedPipe<kBytes>>("shoal", kBytes, count);
    add_stream<PosixQueue>("posix_mq", kBytes, slow);
    const std::uint64_t all = scaled(rounds);
    add("rtt/" + std::to_string(kBytes) + "/raw", all,
        [=] { return raw_round_trips<kBytes>(all); });
  } else {
    add_round_trips<RawChunks>("raw", kBytes, rounds);
    add_stream<RawChunks>("raw", kBytes, count);
  }
  if (ZmqPair::available()) {
    add_round_trips<ZmqPair>("zmq", kBytes, few);
    add_stream<ZmqPair>("zmq", kBytes, slow);
  }
}

const std::vector<const char*> kPeers = {"boost_spsc", "pipe_busy", "pipe",
                                         "unix_busy",  "unix",      "boost_mq",
                                         "posix_mq",   "zmq"};

void print_row(const std::string& what) {
  std::vector<const char*> names = {"shoal", "shoal_bytes", "raw"};
  names.insert(names.end(), kPeers.begin(), kPeers.end());
  print_peers(what, names);
}

}  // namespace

void add_benchmarks() {
  add_sized<8>(200'000, 4'000'000);
  add_sized<kSmall>(200'000, 2'000'000);
  add_sized<kPage>(50'000, 200'000);
  add_sized<kMega>(500, 1'000);
  const std::uint64_t rounds = scaled(20'000);
  add("same_cpu/64/shoal", rounds,
      [=] { return round_trips<TypedPipe<kSmall>>(kSmall, rounds, 0, 0); });
  add("same_cpu/64/pipe", rounds,
      [=] { return round_trips<PosixPipe<false>>(kSmall, rounds, 0, 0); });
  add_each("parked/8/shoal", [] { return parked<TypedPipe<8>>(scaled(2000)); });
  add_each("parked/8/raw", [] { return parked<RawFutex>(scaled(2000)); });
  add_each("parked/8/pipe",
           [] { return parked<PosixPipe<false>>(scaled(2000)); });
  add("idle/shoal", 1, [] { return idle(); });
}

void report() {
  for (const char* size : {"8", "64", "4096", "1048576"})
    for (const char* kind : {"rtt/", "stream/"})
      print_row(std::string(kind) + size);
  for (const char* what : {"same_cpu/64", "parked/8", "idle"}) print_row(what);
  if (!ZmqPair::available()) std::printf("ZeroMQ: libzmq is not installed\n");
  print_python_pipe();
  std::printf("\n");
  const auto against = [](const std::string& what, const char* ours) {
    return ratio(what + "/" + ours, best_of(what, kPeers));
  };
  const auto rate_of = [](const std::string& what, const char* ours,
                          const std::string& theirs) {
    return ratio(theirs, what + "/" + ours);
  };
  at_most("64 B to and fro, of the raw slot",
          ratio("rtt/64/shoal", "rtt/64/raw"), 1.35);
  at_most("64 B to and fro, of the best peer", against("rtt/64", "shoal"), 1);
  at_most("4 KiB to and fro, of the raw slot",
          ratio("rtt/4096/shoal_bytes", "rtt/4096/raw"), 1.15);
  at_most("1 MiB to and fro, of the raw pipeline",
          ratio("rtt/1048576/shoal_bytes", "rtt/1048576/raw"), 1.3);
  at_most("1 MiB to and fro, of the best peer",
          against("rtt/1048576", "shoal_bytes"), 1);
  at_least("8 B one way, of boost spsc's rate",
           rate_of("stream/8", "shoal", "stream/8/boost_spsc"), 1);
  at_least("64 B one way, of boost spsc's rate",
           rate_of("stream/64", "shoal", "stream/64/boost_spsc"), 2);
  at_least(
      "4 KiB one way, of the best peer's rate",
      rate_of("stream/4096", "shoal_bytes", best_of("stream/4096", kPeers)), 1);
  at_least("1 MiB one way, of the best peer's rate",
           rate_of("stream/1048576", "shoal_bytes",
                   best_of("stream/1048576", kPeers)),
           1);
  at_most("64 B on one CPU, of pipe(2)",
          ratio("same_cpu/64/shoal", "same_cpu/64/pipe"), 1.3);
  at_most("8 B to a sleeper, of a raw futex",
          ratio("parked/8/shoal", "parked/8/raw"), 1.1);
  const auto idle_ns = median_of("idle/shoal");
  at_most("CPU of a blocked recv, ms a second",
          idle_ns ? std::optional<double>(*idle_ns / 1e6) : std::nullopt, 1);
}

}  // namespace shoal::bench
