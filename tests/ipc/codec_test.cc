// The codec against what went in, and against bytes that no encoder wrote.

#include "shoal/ipc/codec.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <complex>
#include <cstdlib>
#include <functional>
#include <new>
#include <numeric>
#include <random>

namespace {

// Bytes asked of operator new since it was last set to 0.
std::atomic<std::size_t> allocated{0};

}  // namespace

// Not inlined, or g++ warns of a mismatch of malloc and delete.
[[gnu::noinline]] void* operator new(std::size_t size) {
  allocated.fetch_add(size, std::memory_order_relaxed);  // a tally only
  if (void* memory = std::malloc(size == 0 ? 1 : size)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept {
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}

namespace codec_test {

using shoal::Corrupt;
namespace codec = shoal::codec;
using Bytes = std::vector<std::byte>;

struct Order {
  int id;
  char name[16];
  double x[3];
  bool operator==(const Order&) const = default;
};
struct NoDefault {
  explicit NoDefault(int v) : value(v) {}
  int value;
  bool operator==(const NoDefault&) const = default;
};
class Private {
 public:
  explicit Private(long v = 0) : hidden_(v) {}
  bool operator==(const Private&) const = default;

 private:
  long hidden_;
};
enum class Colour : short { red = -3 };
enum class Flag : bool { off, on };
struct Empty {
  bool operator==(const Empty&) const = default;
};
struct EmptyWithDestructor {
  ~EmptyWithDestructor() {
  }  // NOLINT(modernize-use-equals-default): not trivial
  bool operator==(const EmptyWithDestructor&) const = default;
};
struct Flags {
  bool a;
  char pad[2];
  std::array<bool, 3> b;
  Flag c;
  bool operator==(const Flags&) const = default;
};
struct Mixed {
  int id;
  std::string name;
  std::vector<std::optional<Order>> orders;
  const int constant = 0;
  bool operator==(const Mixed&) const = default;
};
struct Arrays {
  std::string lines[2][2];
  char name[5];
  std::optional<int> maybe;
  bool operator==(const Arrays&) const = default;
};
// No default constructor, not to be assigned.
struct ConstArrays {
  std::string text;
  const char name[6];
  const NoDefault pairs[2][2];
  std::string lines[2];
  NoDefault last;
  bool operator==(const ConstArrays&) const = default;
};
struct Node {
  int value;
  std::unique_ptr<Node> next;
};
struct Tree {
  std::string label;
  std::vector<Tree> children;
  std::map<std::string, Tree> named;
  bool operator==(const Tree&) const = default;
};
struct Owner {
  std::unique_ptr<std::string> text;
  std::vector<std::unique_ptr<int>> numbers;
};
using Everything = std::tuple<
    Mixed, Arrays, std::variant<std::monostate, int, std::string, Tree>,
    std::map<std::string, std::vector<std::pair<int, std::string>>>,
    std::unordered_map<int, std::set<std::string>>,
    std::list<std::array<std::string, 2>>, std::vector<bool>, Flags,
    std::deque<std::optional<NoDefault>>, std::u16string, std::vector<double>,
    std::filesystem::path, std::multimap<Colour, bool>>;

// Refers to an entry of a table, as a Queue in a message does to a segment.
struct Handle {
  std::uint64_t created;
  std::shared_ptr<int> local;
  bool operator==(const Handle& other) const {
    return created == other.created;
  }
};

Tree some_tree() {
  return {"root",
          {{"a", {}, {}}, {"b", {{"c", {}, {}}}, {}}},
          {{"k", {"d", {}, {}}}}};
}

Everything everything() {
  const Order order{7, "seven", {1, 2, 3}};
  return {{1, "mixed", {order, std::nullopt, order}, 4},
          {{{"a", "b"}, {"", "d"}}, "five", 5},
          some_tree(),
          {{"one", {{1, "x"}, {2, ""}}}, {"none", {}}},
          {{3, {"p", "q"}}, {4, {}}},
          {{"l", "m"}, {"", ""}},
          {true, false, true, true, false, false, true, false, true},
          {true, {1, 2}, {true, false, true}, Flag::on},
          {NoDefault(1), std::nullopt},
          u"wide",
          {1.5, -2.5},
          "/tmp/x y",
          {{Colour::red, true}, {Colour::red, false}}};
}

}  // namespace codec_test

template <>
struct shoal::HandleTraits<codec_test::Handle> {
  static HandleRef reference(const codec_test::Handle& handle, Passage*) {
    return {1, 2, 3, handle.created, 0, 0};
  }
  static codec_test::Handle resolve(const HandleRef& reference, Arrival*) {
    if (reference.object != 1 || reference.part != 2 || reference.type != 3)
      throw Corrupt("no such object");
    return {reference.domain, nullptr};
  }
};

namespace codec_test {

template <class T>
Bytes expect_round_trip(const T& value) {
  const Bytes bytes = codec::to_bytes(value);
  EXPECT_EQ(bytes.size(), codec::size(value));
  EXPECT_FALSE(bytes.empty());
  EXPECT_TRUE(codec::from_bytes<T>(bytes) == value);

  // At every alignment.
  Bytes shifted(bytes.size() + 16);
  for (std::size_t shift = 1; shift<16; shift += bytes.size()> 4096 ? 7 : 1) {
    std::ranges::copy(bytes, shifted.begin() + static_cast<long>(shift));
    const auto part = std::span(shifted).subspan(shift, bytes.size());
    EXPECT_TRUE(codec::from_bytes<T>(part) == value);
  }
  return bytes;
}

// Each prefix is Corrupt, and so is a byte too many.
template <class T>
void expect_exact(const Bytes& bytes) {
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    // A block of just this size, so that the sanitizer sees a read beyond it.
    const Bytes prefix(bytes.begin(), bytes.begin() + static_cast<long>(size));
    EXPECT_THROW(codec::from_bytes<T>(prefix), Corrupt) << size;
  }
  Bytes longer = bytes;
  longer.push_back(std::byte{0});
  EXPECT_THROW(codec::from_bytes<T>(longer), Corrupt);
}

template <class T>
void check(const T& value) {
  expect_exact<T>(expect_round_trip(value));
}

Bytes raw(std::initializer_list<int> values) {
  Bytes bytes;
  for (const int value : values) bytes.push_back(static_cast<std::byte>(value));
  return bytes;
}
Bytes count(std::uint64_t n, std::size_t followed_by = 64) {
  Bytes bytes(sizeof(n) + followed_by);
  std::memcpy(bytes.data(), &n, sizeof(n));
  return bytes;
}

TEST(Codec, TriviallyCopyable) {
  check(true);
  check('x');
  check(-7);
  check(1.5L);
  check(Colour::red);
  check(Flag::on);
  check(Order{1, "name", {1, 2, 3}});
  check(Flags{true, {}, {true, false, true}, Flag::off});
  check(NoDefault(3));
  check(Private(4));
  check(Empty{});
  check(std::complex<double>(1, 2));
  check(std::chrono::nanoseconds(5));
  check(std::chrono::system_clock::now());
  check(std::array<int, 3>{1, 2, 3});
}

TEST(Codec, Standard) {
  check(std::string("text"));
  check(std::string("a\0b", 3));
  check(std::wstring(L"wide"));
  check(std::u8string(u8"eight"));
  check(std::u32string(U"wider"));
  check(std::filesystem::path("/a/../b"));
  check(std::vector<int>{1, 2, 3});
  check(std::vector<NoDefault>{NoDefault(1), NoDefault(2)});
  check(std::vector<std::string>{"a", "", "c"});
  check(std::vector<std::vector<std::vector<int>>>{{{1}, {}}, {}, {{2, 3}}});
  check(std::deque<std::string>{"a", "b"});
  check(std::list<Order>{{1, "x", {}}, {2, "y", {}}});
  check(std::array<std::string, 2>{"a", "b"});
  check(std::array<std::optional<NoDefault>, 2>{NoDefault(1), std::nullopt});
  check(std::array<std::pair<NoDefault, std::string>, 2>{
      {{NoDefault(1), "a"}, {NoDefault(2), "b"}}});
  check(std::pair<int, std::string>(1, "a"));
  check(std::tuple<int, std::string, double>(1, "a", 2.5));
  check(std::optional<std::string>("a"));
  check(std::optional<std::optional<bool>>(std::optional<bool>()));
  check(std::variant<int, std::string, int>(std::in_place_index<2>, 4));
  check(std::map<std::string, int>{{"a", 1}, {"b", 2}});
  check(std::map<int, int, std::greater<>>{{1, 1}, {2, 2}});
  check(std::multimap<int, std::string>{{1, "a"}, {1, "b"}});
  check(std::set<std::string>{"a", "b"});
  check(std::multiset<int>{1, 1, 2});
  check(std::unordered_map<std::string, int>{{"a", 1}, {"b", 2}});
  check(std::unordered_multimap<int, int>{{1, 1}, {1, 2}});
  check(std::unordered_set<int>{1, 2, 3});
  check(std::unordered_multiset<int>{1, 1});
  check(Mixed{1, "a", {Order{}, std::nullopt}, 9});
  check(Arrays{{{"a", "b"}, {"c", "d"}}, "name", 3});
  check(
      ConstArrays{"text",
                  "array",
                  {{NoDefault(1), NoDefault(2)}, {NoDefault(3), NoDefault(4)}},
                  {"a", "b"},
                  NoDefault(5)});
  check(some_tree());
  check(everything());
}

TEST(Codec, EmptyValuesTakeAByteOrTheirCount) {
  EXPECT_EQ(codec::size(std::monostate{}), 1u);
  EXPECT_EQ(codec::size(std::tuple<>{}), 1u);
  EXPECT_EQ(codec::size(EmptyWithDestructor{}), 1u);
  EXPECT_EQ((codec::size(std::array<std::string, 0>{})), 1u);
  EXPECT_EQ(codec::size(std::string{}), 8u);
  check(std::monostate{});
  check(std::tuple<>{});
  check(std::tuple<std::tuple<>>{});
  check(std::tuple<std::tuple<int>>{1});
  check(EmptyWithDestructor{});
  check(std::array<int, 0>{});
  check(std::array<std::string, 0>{});
  struct alignas(8) Aligned {
    bool operator==(const Aligned&) const = default;
  };
  EXPECT_EQ(codec::to_bytes(std::vector<Aligned>(2)),
            codec::to_bytes(std::pair(std::uint64_t{2}, std::array<int, 4>{})));
  check(std::vector<Aligned>(2));
  check(std::vector<EmptyWithDestructor>(3));
  check(std::vector<std::monostate>(3));
  check(std::string{});
  check(std::vector<int>{});
  check(std::vector<bool>{});
  check(std::map<int, std::string>{});
  check(std::optional<int>{});
  check(Everything{});
}

TEST(Codec, BitsAtEveryLength) {
  std::mt19937 random(1);
  for (std::size_t size = 0; size < 70; ++size) {
    std::vector<bool> bits(size);
    for (auto&& bit : bits) bit = random() % 2 == 0;
    EXPECT_EQ(codec::size(bits), 8 + (size + 7) / 8);
    check(bits);
  }
}

TEST(Codec, LargeValues) {
  std::vector<double> numbers(1 << 20);
  std::iota(numbers.begin(), numbers.end(), 0.5);
  expect_round_trip(numbers);
  expect_round_trip(std::string(5'000'000, 'x'));
  std::map<int, std::string> map;
  for (int i = 0; i < 20'000; ++i) map[i * 7] = std::to_string(i);
  expect_round_trip(map);
  expect_round_trip(std::vector<Tree>(1000, some_tree()));
}

TEST(Codec, MoveOnly) {
  Owner owner{std::make_unique<std::string>("text"), {}};
  owner.numbers.push_back(std::make_unique<int>(3));
  owner.numbers.push_back(nullptr);
  const Bytes bytes = codec::to_bytes(owner);
  const auto copy = codec::from_bytes<Owner>(bytes);
  EXPECT_EQ(*copy.text, "text");
  ASSERT_EQ(copy.numbers.size(), 2u);
  EXPECT_EQ(*copy.numbers[0], 3);
  EXPECT_EQ(copy.numbers[1], nullptr);
  expect_exact<Owner>(bytes);

  std::map<int, std::unique_ptr<int>> map;
  map[1] = std::make_unique<int>(2);
  EXPECT_EQ(*codec::from_bytes<decltype(map)>(codec::to_bytes(map)).at(1), 2);
}

TEST(Codec, SizeFoldsForTriviallyCopyable) {
  static_assert(codec::size(7) == 4);
  static_assert(codec::size(std::pair<char, double>{}) == 9);
  static_assert(codec::size(Order{}) == sizeof(Order));
}

TEST(Codec, ListsOfNodesUpToALimit) {
  const auto list = [](unsigned length) {
    std::unique_ptr<Node> first;
    for (unsigned i = 0; i < length; ++i)
      first =
          std::make_unique<Node>(Node{static_cast<int>(i), std::move(first)});
    return first;
  };
  const Bytes bytes = codec::to_bytes(list(codec::kMaxDepth));
  auto copy = codec::from_bytes<std::unique_ptr<Node>>(bytes);
  unsigned length = 0;
  for (const Node* node = copy.get(); node != nullptr; node = node->next.get())
    EXPECT_EQ(node->value, static_cast<int>(codec::kMaxDepth - ++length));
  EXPECT_EQ(length, codec::kMaxDepth);
  EXPECT_THROW(codec::to_bytes(list(codec::kMaxDepth + 1)),
               std::invalid_argument);

  Bytes forged;  // 100,000 times {there is one, its value}
  for (int i = 0; i < 100'000; ++i)
    for (const std::byte byte : raw({1, 0, 0, 0, 0})) forged.push_back(byte);
  EXPECT_THROW(codec::from_bytes<std::unique_ptr<Node>>(forged), Corrupt);
  // Depth is not spent by what lies side by side.
  std::vector<Tree> flat(3 * codec::kMaxDepth);
  expect_round_trip(flat);
}

TEST(Codec, TreesUpToALimit) {
  Tree by_child, by_name;
  for (unsigned i = 1; i < codec::kMaxDepth; ++i) {
    Tree outer;
    outer.children.push_back(std::move(by_child));
    by_child = std::move(outer);
    Tree named;
    named.named.emplace("x", std::move(by_name));
    by_name = std::move(named);
  }
  for (Tree* tree : {&by_child, &by_name}) {
    const Bytes bytes = codec::to_bytes(*tree);
    EXPECT_TRUE(codec::from_bytes<Tree>(bytes) == *tree);
    Tree outer;
    outer.children.push_back(std::move(*tree));
    EXPECT_THROW(codec::to_bytes(outer), std::invalid_argument);
  }
}

// Each level of decoding holds one on the stack.
struct LargeNode {
  std::array<char, 16 * 1024> bytes{};
  std::unique_ptr<LargeNode> next;
};

TEST(Codec, ListsOfLargeNodesUpToALowerLimit) {
  static_assert(codec::level_cost<Node>() == 1);
  static_assert(codec::level_cost<Order>() == 0);  // never nests by its data
  static_assert(codec::level_cost<Mixed>() == 0);
  constexpr unsigned kCost = codec::level_cost<LargeNode>();
  static_assert(kCost == 1 + sizeof(LargeNode) / 256);
  std::unique_ptr<LargeNode> list;
  for (unsigned i = 0; i < codec::kMaxDepth / kCost; ++i) {
    auto node = std::make_unique<LargeNode>();
    node->next = std::move(list);
    list = std::move(node);
  }
  const Bytes bytes = codec::to_bytes(list);
  const auto copy = codec::from_bytes<std::unique_ptr<LargeNode>>(bytes);
  EXPECT_EQ(codec::to_bytes(copy), bytes);
  auto node = std::make_unique<LargeNode>();
  node->next = std::move(list);
  EXPECT_THROW(codec::size(node), std::invalid_argument);

  Bytes forged(1000 * (1 + sizeof(LargeNode::bytes)));
  for (std::size_t i = 0; i < 1000; ++i)
    forged[i * (1 + sizeof(LargeNode::bytes))] = std::byte{1};
  EXPECT_THROW(codec::from_bytes<std::unique_ptr<LargeNode>>(forged), Corrupt);
}

// A large struct that cannot nest is no deeper for it.
TEST(Codec, LargeStructsAreNotDeep) {
  struct Inner {
    std::string text;
    std::array<std::array<char, 1024>, 1024> bytes{};
  };
  struct Outer {
    std::vector<Inner> inner;
    std::unique_ptr<Inner> one;
  };
  Outer value;
  value.inner.resize(2);
  value.inner[1].bytes[1023][1023] = 'x';
  const auto copy = codec::from_bytes<Outer>(codec::to_bytes(value));
  EXPECT_EQ(copy.inner.at(1).bytes[1023][1023], 'x');
}

struct ThrowsFrom {
  ThrowsFrom() = default;
  explicit ThrowsFrom(int) { throw std::domain_error("no"); }
  template <class Archive>
  void serialize(Archive& ar) {
    ar(text);
  }
  std::string text;
};

TEST(Codec, VariantWithoutAValue) {
  std::variant<int, ThrowsFrom> value(1);
  EXPECT_THROW(value.emplace<ThrowsFrom>(2), std::domain_error);
  ASSERT_TRUE(value.valueless_by_exception());
  EXPECT_THROW(codec::to_bytes(value), std::invalid_argument);
  EXPECT_THROW(codec::to_bytes(std::vector<decltype(value)>(3, value)),
               std::invalid_argument);
}

TEST(Codec, Handles) {
  check(Handle{5, nullptr});
  check(std::vector<Handle>{{1, nullptr}, {2, nullptr}});
  check(std::map<std::string, Handle>{{"a", {1, nullptr}}});
  EXPECT_EQ(codec::size(Handle{}), sizeof(shoal::HandleRef));

  EXPECT_THROW(codec::from_bytes<Handle>(Bytes(sizeof(shoal::HandleRef))),
               Corrupt);
}

TEST(Codec, SeveralInARow) {
  const int a = 1;
  const std::string b = "two";
  const std::vector<double> c{3};
  Bytes bytes(codec::size_of_all(a, b, c));
  codec::Writer writer(bytes);
  codec::encode_all(writer, a, b, c);
  EXPECT_EQ(writer.remaining(), 0u);
  codec::Reader reader(bytes);
  const auto values =
      codec::decode_tuple<int, std::string, std::vector<double>>(reader);
  reader.finish();
  EXPECT_EQ(values, std::tuple(a, b, c));

  EXPECT_EQ(codec::size_of_all(), 0u);
  codec::Reader none(std::span<const std::byte>{});
  EXPECT_EQ(codec::decode_tuple<>(none), std::tuple<>());
  none.finish();
}

TEST(Codec, WriterKeepsToItsMemory) {
  Bytes bytes(codec::size(std::string("four")) - 1);
  codec::Writer writer(bytes);
  EXPECT_THROW(codec::encode(writer, std::string("four")), std::logic_error);
}

TEST(Corrupt, ValuesThatNoTypeHas) {
  EXPECT_THROW(codec::from_bytes<bool>(raw({2})), Corrupt);
  EXPECT_THROW(codec::from_bytes<Flag>(raw({2})), Corrupt);
  EXPECT_EQ(codec::from_bytes<Colour>(raw({5, 0})), static_cast<Colour>(5));
  EXPECT_THROW((codec::from_bytes<std::optional<char>>(raw({2, 0}))), Corrupt);
  EXPECT_THROW((codec::from_bytes<std::unique_ptr<char>>(raw({2, 0}))),
               Corrupt);
  EXPECT_THROW((codec::from_bytes<std::variant<char, bool>>(raw({2, 0}))),
               Corrupt);
  EXPECT_THROW((codec::from_bytes<std::variant<char, bool>>(raw({1, 2}))),
               Corrupt);

  // Bools within what is copied as bytes.
  static_assert(codec::kKind<Flags> == codec::Kind::bytes);
  Bytes flags = codec::to_bytes(Flags{});
  Bytes many = codec::to_bytes(std::vector<Flags>(3));
  for (const std::size_t at : {0u, 3u, 4u, 5u, 6u}) {
    flags[at] = std::byte{2};
    EXPECT_THROW(codec::from_bytes<Flags>(flags), Corrupt) << at;
    flags[at] = std::byte{1};
    EXPECT_NO_THROW(codec::from_bytes<Flags>(flags));
    const std::size_t second = 8 + sizeof(Flags) + at;
    many[second] = std::byte{255};
    EXPECT_THROW(codec::from_bytes<std::vector<Flags>>(many), Corrupt) << at;
    many[second] = std::byte{0};
  }
  flags[1] = std::byte{77};  // not a bool
  EXPECT_NO_THROW(codec::from_bytes<Flags>(flags));
}

template <class T>
void expect_refused_cheaply(std::uint64_t claim) {
  const Bytes bytes = count(claim);
  allocated = 0;
  EXPECT_THROW(codec::from_bytes<T>(bytes), Corrupt) << claim;
  EXPECT_LT(allocated, 4096u) << claim;
}
template <class... Ts>
void expect_all_refused_cheaply() {
  // 2^61 + 1: times 8 it is 8 again.
  for (const std::uint64_t claim :
       {std::uint64_t{65}, std::uint64_t{1} << 32, std::uint64_t{1} << 60,
        (std::uint64_t{1} << 61) + 1, ~std::uint64_t{0} / 24 + 1,
        ~std::uint64_t{0}})
    (expect_refused_cheaply<Ts>(claim), ...);
}

TEST(Corrupt, CountsBeyondTheBytes) {
  expect_all_refused_cheaply<
      std::string, std::u32string, std::filesystem::path, std::vector<char>,
      std::vector<double>, std::vector<Order>, std::vector<std::string>,
      std::vector<std::monostate>, std::vector<std::tuple<>>,
      std::vector<Empty>, std::vector<EmptyWithDestructor>,
      std::vector<std::array<std::string, 0>>, std::vector<Tree>,
      std::vector<std::optional<Order>>, std::deque<char>,
      std::list<std::monostate>, std::set<char>, std::unordered_set<char>,
      std::map<char, char>, std::unordered_map<char, std::monostate>>();
  for (const std::uint64_t claim :
       {std::uint64_t{513}, std::uint64_t{1} << 60, ~std::uint64_t{0}})
    expect_refused_cheaply<std::vector<bool>>(claim);
}

TEST(Corrupt, CountsThatOverflow) {
  const Bytes bytes = count((std::uint64_t{1} << 61) + 1);  // times 8 is 8
  codec::Reader reader(bytes);
  EXPECT_THROW(reader.read_count(8), Corrupt);
}

// A count that the bytes allow, of elements that are larger in memory.
TEST(Corrupt, MemoryGrowsWithWhatWasDecoded) {
  using Page = std::array<char, 4096>;
  Bytes bytes = count(1000, 1000);
  bytes[8 + 1] = std::byte{2};  // the second optional is none
  allocated = 0;
  EXPECT_THROW(codec::from_bytes<std::vector<std::optional<Page>>>(bytes),
               Corrupt);
  EXPECT_LT(allocated, 8 * sizeof(Page));
}

TEST(Corrupt, SaysWhatWasWantedAndWhatWasLeft) {
  try {
    codec::from_bytes<std::vector<double>>(count(1000, 16));
    FAIL();
  } catch (const Corrupt& e) {
    EXPECT_STREQ(e.what(),
                 "message: 1000 elements of 8 bytes or more announced, 16 "
                 "bytes left");
  }
  try {
    codec::from_bytes<double>(raw({1, 2, 3}));
    FAIL();
  } catch (const Corrupt& e) {
    EXPECT_STREQ(e.what(), "message: 8 bytes wanted, 3 left");
  }
}

// Decodes, and encodes again what came out: reads every part of it.
template <class T>
bool survives(const Bytes& bytes) {
  // A byte may stand for an empty optional of the largest element, in a vector
  // that doubles as it grows.
  const std::size_t bound = 4096 + 1024 * bytes.size();
  allocated = 0;
  try {
    const T value = codec::from_bytes<T>(bytes);
    EXPECT_LT(allocated, bound);
    EXPECT_EQ(codec::to_bytes(value).size(), codec::size(value));
    return true;
  } catch (const Corrupt&) {
    EXPECT_LT(allocated, bound);
    return false;
  }
}

TEST(Fuzz, RandomBytes) {
  std::mt19937 random(2);
  int decoded = 0;
  for (int i = 0; i < 100'000; ++i) {
    Bytes bytes(random() % 96);
    // Small numbers often, so that counts and flags are now and then right.
    const unsigned mask = random() % 2 == 0 ? 0xff : 0x03;
    for (std::byte& byte : bytes)
      byte = random() % 3 == 0 ? static_cast<std::byte>(random() & mask)
                               : std::byte{0};
    decoded += survives<Everything>(bytes);
    decoded += survives<Tree>(bytes);
    decoded += survives<std::vector<Mixed>>(bytes);
    decoded += survives<std::unique_ptr<Node>>(bytes);
    decoded += survives<std::vector<std::optional<Order>>>(bytes);
    decoded += survives<std::variant<Flags, std::vector<bool>, Owner>>(bytes);
  }
  EXPECT_GT(decoded, 100);
}

template <class T>
void mutate(const T& value, int times) {
  const Bytes valid = codec::to_bytes(value);
  std::mt19937 random(3);
  int decoded = 0;
  for (int i = 0; i < times; ++i) {
    Bytes bytes = valid;
    for (auto changes = random() % 4; changes > 0; --changes)
      bytes[random() % bytes.size()] =
          static_cast<std::byte>(random() % 2 == 0 ? random() % 4 : random());
    if (random() % 4 == 0) bytes.resize(random() % (bytes.size() + 8));
    decoded += survives<T>(bytes);
  }
  EXPECT_GT(decoded, times / 100);
  EXPECT_LT(decoded, times);
}

TEST(Fuzz, MutatedMessages) {
  mutate(everything(), 10'000);
  mutate(some_tree(), 5'000);
  mutate(std::vector<Flags>(5), 5'000);
  mutate(std::vector<std::string>{"a", "bc", "", "defg"}, 5'000);
  mutate(std::map<std::string, std::vector<bool>>{{"a", {true}}, {"b", {}}},
         5'000);
}

}  // namespace codec_test
