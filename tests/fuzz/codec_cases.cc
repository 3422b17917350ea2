#include "tests/fuzz/codec_cases.h"

#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <filesystem>
#include <list>
#include <map>
#include <memory>
#include <new>
#include <optional>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <variant>
#include <vector>

#include "shoal/ipc/codec.h"
#include "shoal/ipc/codec_view.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/exception_codec.h"

namespace {

// Bytes asked of operator new so far.
std::atomic<std::size_t> allocated{0};

}  // namespace

// Not inlined, or g++ warns of a mismatch of malloc and delete.
[[gnu::noinline]] void* operator new(std::size_t size) {
  allocated.fetch_add(size, std::memory_order_relaxed);  // a tally only
  if (void* memory = std::malloc(size == 0 ? 1 : size)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void* operator new(std::size_t size,
                                     const std::nothrow_t&) noexcept {
  allocated.fetch_add(size, std::memory_order_relaxed);
  return std::malloc(size == 0 ? 1 : size);
}
[[gnu::noinline]] void operator delete(void* memory) noexcept {
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}

namespace shoal::fuzz {
namespace {

using Bytes = std::vector<std::byte>;

// Texts of errors, and blocks that containers start with.
constexpr std::size_t kFloor = 4096;
// A byte may stand for an element of sizeof(Page) in a vector that grows by
// doubling; 8 bytes for a deque, which starts with 576.
constexpr std::size_t kFactor = 256;
constexpr std::size_t kPageFactor = 3 * 4104;

void require(bool holds, const char* what, const char* type) {
  if (holds) return;
  std::fprintf(stderr, "codec, decoding a %s: %s\n", type, what);
  std::abort();
}

// ---- the types ----

enum class Colour : short { red = -3, green };
enum class Flag : bool { off, on };
struct Empty {
  bool operator==(const Empty&) const = default;
};
struct NoDefault {
  explicit NoDefault(int v) : value(v) {}
  int value;
  bool operator==(const NoDefault&) const = default;
};
struct Flags {
  bool a;
  char pad[2];
  std::array<bool, 3> b;
  Flag c;
  bool operator==(const Flags&) const = default;
};
struct Order {
  int id;
  char name[8];
  std::optional<std::string> note;
  std::vector<std::optional<NoDefault>> numbers;
  const Colour colour;
  bool operator==(const Order&) const = default;
};
struct Arrays {
  std::string lines[2][2];
  char name[5];
  std::optional<Flags> maybe;
  bool operator==(const Arrays&) const = default;
};
struct Tree {
  std::string label;
  std::vector<Tree> children;
  std::map<std::string, Tree> named;
  bool operator==(const Tree&) const = default;
};
struct Node {
  int value;
  std::unique_ptr<Node> next;
  bool operator==(const Node& other) const {
    return value == other.value &&
           (next == nullptr) == (other.next == nullptr) &&
           (next == nullptr || *next == *other.next);
  }
};
struct Page {
  std::array<char, 4096> bytes{};
  bool operator==(const Page&) const = default;
};
// Reads its own length, makes room, and may refuse what it reads.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(std::vector<int> values) : values_(std::move(values)) {}
  template <class Archive>
  void serialize(Archive& ar) {
    auto size = static_cast<std::uint8_t>(values_.size());
    ar(size);
    if (size > 99) throw std::length_error("99 at most");
    if constexpr (Archive::is_loading::value) values_.resize(size);
    for (int& value : values_) ar& value;
    ar(next_);
  }
  void push(Buffer next) { next_.push_back(std::move(next)); }
  bool operator==(const Buffer&) const = default;

 private:
  std::vector<int> values_;
  std::vector<Buffer> next_;
};

struct Nothing {
  std::vector<Empty> empty;
  std::vector<std::monostate> mono;
  std::list<std::tuple<>> tuples;
  std::vector<std::array<std::string, 0>> arrays;
  std::optional<std::optional<std::optional<Empty>>> chain;
  bool operator==(const Nothing&) const = default;
};
struct Texts {
  std::vector<std::string> narrow;
  std::u16string wide;
  std::filesystem::path path;
  std::chrono::nanoseconds time;
  bool operator==(const Texts&) const = default;
};
using Maps = std::tuple<std::map<std::string, std::map<int, std::vector<bool>>>,
                        std::multimap<Colour, bool>, std::set<std::string>,
                        std::multiset<std::pair<short, Flag>>>;
using Unordered =
    std::tuple<std::unordered_map<std::string, std::unordered_set<short>>,
               std::unordered_multimap<int, std::string>>;
using Inner = std::variant<std::monostate, int, std::string, int>;
using Variants =
    std::vector<std::variant<Inner, std::vector<Inner>, Flags, std::string,
                             std::pair<bool, std::string>, Inner>>;
using Pages = std::vector<std::optional<Page>>;
using Deques = std::vector<std::deque<int>>;
using Lists = std::pair<std::unique_ptr<Node>, std::list<std::unique_ptr<int>>>;

// ---- deep comparison ----

template <class T>
bool equal(const T& a, const T& b) {
  return a == b;
}
bool equal(const Lists& a, const Lists& b) {
  const auto same = [](const auto& x, const auto& y) {
    return (x == nullptr) == (y == nullptr) && (x == nullptr || *x == *y);
  };
  return same(a.first, b.first) &&
         std::equal(a.second.begin(), a.second.end(), b.second.begin(),
                    b.second.end(), same);
}

// ---- one case ----

template <class T, std::size_t kMost, bool kHasSerialize>
bool decode(std::span<const std::byte> bytes) {
  const std::string name = type_name<T>();
  const char* type = name.c_str();
  bool viewed = true;
  try {
    const std::size_t before = allocated;
    try {
      codec::view<T>(bytes);
      require(allocated == before, "a view allocated", type);
    } catch (const Corrupt&) {
      viewed = false;
    }
  } catch (...) {
    require(false, "a view threw something else than Corrupt", type);
  }

  const std::size_t before = allocated;
  const auto within_bounds = [&] {
    require(allocated - before <= kFloor + kMost * bytes.size(),
            "more was allocated than the bytes account for", type);
  };
  std::optional<T> value;
  try {
    value.emplace(codec::from_bytes<T>(bytes));
    within_bounds();
  } catch (const Corrupt&) {
    within_bounds();
    require(kHasSerialize || !viewed, "refused, but has a view", type);
    return false;
  } catch (const std::length_error&) {
    within_bounds();
    require(kHasSerialize, "threw length_error", type);
    return false;
  }
  require(viewed, "accepted, but has no view", type);

  const Bytes again = codec::to_bytes(*value);
  require(again.size() == codec::size(*value), "size() was wrong", type);
  require(equal(codec::from_bytes<T>(again), *value),
          "encoded and decoded it is another", type);
  return true;
}

bool decode_exception(std::span<const std::byte> bytes) {
  const std::size_t before = allocated;
  const std::exception_ptr error = exception_codec::decode(bytes);
  require(allocated - before <= kFloor + kFactor * bytes.size(),
          "more was allocated than the bytes account for", "exception");
  try {
    std::rethrow_exception(error);
  } catch (const Corrupt&) {
    return false;
  } catch (const std::exception& e) {
    require(e.what() != nullptr, "no text", "exception");
    const Bytes again = exception_codec::encode(error);
    try {
      std::rethrow_exception(exception_codec::decode(again));
    } catch (const std::exception& second) {
      require(std::strcmp(second.what(), e.what()) == 0, "another text",
              "exception");
    }
    return true;
  }
}

// ---- all cases ----

struct Case {
  const char* name;
  bool (*decode)(std::span<const std::byte>);
  Bytes (*empty)();
  Bytes (*full)();
};

template <class T>
Bytes empty() {
  return codec::to_bytes(T());
}

Bytes full_aggregate() {
  std::vector<Order> orders;
  orders.push_back(
      {1, "one", "note", {NoDefault(1), std::nullopt}, Colour::red});
  orders.push_back({2, "two", std::nullopt, {}, Colour::green});
  return codec::to_bytes(orders);
}
Bytes full_tree() {
  return codec::to_bytes(Tree{"root",
                              {{"a", {}, {}}, {"b", {{"c", {}, {}}}, {}}},
                              {{"k", {"d", {}, {}}}}});
}
Bytes full_lists() {
  Lists lists;
  for (int i = 0; i < 100; ++i)
    lists.first = std::make_unique<Node>(Node{i, std::move(lists.first)});
  lists.second.push_back(std::make_unique<int>(1));
  lists.second.push_back(nullptr);
  return codec::to_bytes(lists);
}
Bytes full_variants() {
  Variants variants;
  variants.emplace_back(std::in_place_index<0>,
                        Inner(std::in_place_index<3>, 4));
  variants.emplace_back(std::vector<Inner>{Inner("text"), Inner()});
  variants.emplace_back(Flags{});
  variants.emplace_back(std::string("text"));
  variants.emplace_back(std::pair<bool, std::string>(true, "text"));
  variants.emplace_back(std::in_place_index<5>,
                        Inner(std::in_place_index<1>, 5));
  return codec::to_bytes(variants);
}
Bytes full_serialize() {
  Buffer inner({4});
  inner.push(Buffer());
  Buffer buffer({1, 2, 3});
  buffer.push(inner);
  buffer.push(Buffer({5, 6}));
  return codec::to_bytes(buffer);
}

template <class T, std::size_t kMost = kFactor, bool kHasSerialize = false>
constexpr Case make(const char* name, Bytes (*full)()) {
  return {name, decode<T, kMost, kHasSerialize>, empty<T>, full};
}

const Case kCases[] = {
    make<std::vector<Order>>("aggregate", full_aggregate),
    make<Arrays>(
        "arrays",
        [] {
          return codec::to_bytes(Arrays{
              {{"a", "b"}, {"", "d"}}, "name", Flags{true, {}, {}, Flag::on}});
        }),
    make<Tree>("tree", full_tree),
    make<Lists>("lists", full_lists),
    make<std::vector<Flags>>(
        "flags", [] { return codec::to_bytes(std::vector<Flags>(5)); }),
    make<Texts>("texts",
                [] {
                  return codec::to_bytes(Texts{{"a", "", "bcd"},
                                               u"wide",
                                               "/a/../b",
                                               std::chrono::nanoseconds(7)});
                }),
    make<Maps>("maps",
               [] {
                 return codec::to_bytes(
                     Maps{{{"a", {{1, {true, false}}, {2, {}}}}, {"b", {}}},
                          {{Colour::red, true}, {Colour::red, false}},
                          {"x", "y"},
                          {{short{1}, Flag::on}, {short{1}, Flag::on}}});
               }),
    make<Unordered>("unordered",
                    [] {
                      return codec::to_bytes(
                          Unordered{{{"a", {1, 2}}, {"b", {}}},
                                    {{1, "x"}, {1, "y"}, {2, ""}}});
                    }),
    make<Variants>("variants", full_variants),
    make<Nothing>("nothing",
                  [] {
                    return codec::to_bytes(
                        Nothing{std::vector<Empty>(3),
                                std::vector<std::monostate>(2),
                                {{}, {}},
                                {{}},
                                std::optional<std::optional<Empty>>(
                                    std::optional<Empty>(Empty()))});
                  }),
    make<Pages, kPageFactor>("pages",
                             [] { return codec::to_bytes(Pages(10)); }),
    make<Deques>("deques",
                 [] {
                   return codec::to_bytes(Deques{{1, 2}, {}, {3}});
                 }),
    make<Buffer, kFactor, true>("serialize", full_serialize),
    {"exception", decode_exception,
     // Both hold a pid of their own: the same bytes in every process.
     [] {
       return exception_codec::encode(
           std::make_exception_ptr(RemoteError("", "", 0)));
     },
     [] {
       return exception_codec::encode(
           std::make_exception_ptr(WorkerDied("died", 12345, -9, 7)));
     }},
};

}  // namespace

bool run(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return false;
  // A block of just the message's size, so that the sanitizer sees a read
  // beyond it, at an address that is as odd as they come.
  const auto* bytes = reinterpret_cast<const std::byte*>(data);
  return kCases[data[0] % std::size(kCases)].decode(
      std::span(bytes + 1, size - 1));
}

std::vector<Seed> seeds() {
  std::vector<Seed> seeds;
  for (std::uint8_t i = 0; i < std::size(kCases); ++i) {
    const auto add = [&](const char* suffix, const Bytes& bytes) {
      Seed seed{kCases[i].name + std::string(suffix), {i}};
      for (const std::byte byte : bytes)
        seed.bytes.push_back(static_cast<std::uint8_t>(byte));
      seeds.push_back(std::move(seed));
    };
    add("_empty", kCases[i].empty());
    add("_full", kCases[i].full());
  }
  return seeds;
}

}  // namespace shoal::fuzz
