// The codec into memory that is there and out of it, beside memcpy written by
// hand for the very type.

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <numeric>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "bench/support/machine.h"
#include "bench/support/report.h"
#include "benchmark/benchmark.h"
#include "shoal/ipc/codec.h"
#include "shoal/ipc/codec_view.h"

namespace shoal::bench {
namespace {

// About 1 KiB: 16 texts, of which half fit into a std::string itself, and some
// numbers.
struct Order {
  std::uint64_t id;
  double price;
  std::vector<std::string> texts;
  std::vector<double> history;
  std::string note;
};
Order some_order() {
  Order order{7, 1.5, {}, std::vector<double>(32, 2.5), std::string(100, 'n')};
  for (std::size_t i = 0; i < 16; ++i)
    order.texts.emplace_back(i % 2 == 0 ? 12 : 50, 't');
  return order;
}

// Trivially copyable, of the same size.
struct Plain {
  std::uint64_t id = 7;
  std::array<double, 127> numbers{};
};

using Bytes = std::vector<std::byte>;

// ---- by hand, bounds unchecked ----

void put(std::byte*& to, const void* from, std::size_t size) {
  std::memcpy(to, from, size);
  to += size;
}
void put_text(std::byte*& to, const std::string& text) {
  const std::uint64_t size = text.size();
  put(to, &size, sizeof(size));
  put(to, text.data(), size);
}
void encode_by_hand(const Order& order, Bytes& bytes) {
  std::byte* to = bytes.data();
  put(to, &order.id, sizeof(order.id));
  put(to, &order.price, sizeof(order.price));
  const std::uint64_t texts = order.texts.size();
  put(to, &texts, sizeof(texts));
  for (const std::string& text : order.texts) put_text(to, text);
  const std::uint64_t numbers = order.history.size();
  put(to, &numbers, sizeof(numbers));
  put(to, order.history.data(), numbers * sizeof(double));
  put_text(to, order.note);
}

template <class T>
T take(const std::byte*& from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  from += sizeof(T);
  return value;
}
std::string take_text(const std::byte*& from) {
  const auto size = take<std::uint64_t>(from);
  const auto* text = reinterpret_cast<const char*>(from);
  from += size;
  return std::string(text, size);
}
Order decode_by_hand(const Bytes& bytes) {
  const std::byte* from = bytes.data();
  Order order;
  order.id = take<std::uint64_t>(from);
  order.price = take<double>(from);
  const auto texts = take<std::uint64_t>(from);
  order.texts.reserve(texts);
  for (std::uint64_t i = 0; i < texts; ++i)
    order.texts.push_back(take_text(from));
  const auto numbers = take<std::uint64_t>(from);
  order.history.resize(numbers);
  std::memcpy(order.history.data(), from, numbers * sizeof(double));
  from += numbers * sizeof(double);
  order.note = take_text(from);
  return order;
}

// ---- measuring ----

// `one` again and again, on one CPU.
double repeat(std::uint64_t count, const std::function<void()>& one) {
  const Pinned pinned(0);
  for (std::uint64_t i = 0; i < count / 20 + 1; ++i) one();
  const double begin = clock_ns();
  for (std::uint64_t i = 0; i < count; ++i) one();
  return clock_ns() - begin;
}
void add_repeated(const std::string& name, std::uint64_t full,
                  std::function<void()> one) {
  const std::uint64_t count = scaled(full);
  add(name, count, [=] { return repeat(count, one); });
}

template <class T>
void encode(const T& value, Bytes& bytes) {
  if (codec::size(value) != bytes.size()) throw std::logic_error("size");
  codec::Writer writer(bytes);
  codec::encode(writer, value);
  benchmark::DoNotOptimize(bytes.data());
  benchmark::ClobberMemory();
}

template <class T>
void add_of(const std::string& name, std::uint64_t count, const T& value) {
  add_repeated(name + "/encode/shoal", count,
               [value, bytes = codec::to_bytes(value)]() mutable {
                 encode(value, bytes);
               });
  add_repeated(name + "/decode/shoal", count, [bytes = codec::to_bytes(value)] {
    auto copy = codec::from_bytes<T>(bytes);
    benchmark::DoNotOptimize(copy);
  });
}

constexpr std::size_t kNumbers = 1 << 17;  // 1 MiB

double gigabytes_a_second(const std::string& name, std::size_t bytes) {
  const auto ns = median_of(name);
  return ns ? static_cast<double>(bytes) / *ns : 0;
}

void print_row(const std::string& what, std::size_t bytes) {
  std::printf("%-16s %18s %18s %12.2f\n", what.c_str(),
              figure(what + "/shoal").c_str(),
              figure(what + "/by_hand").c_str(),
              gigabytes_a_second(what + "/shoal", bytes));
}

}  // namespace

void add_benchmarks() {
  const Order order = some_order();
  add_of("order", 200'000, order);
  add_repeated("order/encode/by_hand", 200'000,
               [order, bytes = codec::to_bytes(order)]() mutable {
                 encode_by_hand(order, bytes);
                 benchmark::DoNotOptimize(bytes.data());
                 benchmark::ClobberMemory();
               });
  add_repeated("order/decode/by_hand", 200'000,
               [bytes = codec::to_bytes(order)] {
                 auto copy = decode_by_hand(bytes);
                 benchmark::DoNotOptimize(copy);
               });
  add_repeated("order/view/shoal", 200'000, [bytes = codec::to_bytes(order)] {
    auto view = codec::view<Order>(std::span(bytes));
    benchmark::DoNotOptimize(view);
  });

  add_of("plain", 2'000'000, Plain());
  for (const char* way : {"encode", "decode"})
    add_repeated(std::string("plain/") + way + "/by_hand", 2'000'000,
                 [from = Plain(), to = Plain()]() mutable {
                   benchmark::DoNotOptimize(from);
                   std::memcpy(&to, &from, sizeof(Plain));
                   benchmark::DoNotOptimize(to);
                 });

  std::vector<double> numbers(kNumbers);
  std::iota(numbers.begin(), numbers.end(), 0.5);
  add_of("numbers", 500, numbers);
  add_repeated("numbers/encode/by_hand", 500,
               [numbers, to = Bytes(kNumbers * 8)]() mutable {
                 std::memcpy(to.data(), numbers.data(), to.size());
                 benchmark::DoNotOptimize(to.data());
                 benchmark::ClobberMemory();
               });
  add_repeated("numbers/decode/by_hand", 500, [numbers] {
    std::vector<double> copy(numbers);
    benchmark::DoNotOptimize(copy.data());
  });
}

void report() {
  const std::size_t order = codec::size(some_order());
  std::printf("\nns each, median (least); an order is %zu bytes\n", order);
  std::printf("%-16s %18s %18s %12s\n", "", "shoal", "by_hand", "GB/s");
  for (const char* way : {"order/encode", "order/decode", "order/view"})
    print_row(way, order);
  for (const char* way : {"plain/encode", "plain/decode"})
    print_row(way, sizeof(Plain));
  for (const char* way : {"numbers/encode", "numbers/decode"})
    print_row(way, kNumbers * 8);
  std::printf("\n");
  at_most("order, encode, of memcpy by hand",
          ratio("order/encode/shoal", "order/encode/by_hand"), 1.5);
  at_most("order, decode, of the same by hand",
          ratio("order/decode/shoal", "order/decode/by_hand"), 1.3);
  at_most("1 KiB trivially copyable, encode, of memcpy",
          ratio("plain/encode/shoal", "plain/encode/by_hand"), 1.3);
  at_most("1 MiB of doubles, encode, of memcpy",
          ratio("numbers/encode/shoal", "numbers/encode/by_hand"), 1.2);
}

}  // namespace shoal::bench
