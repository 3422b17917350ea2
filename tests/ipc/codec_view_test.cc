// A message read in place says what decoding it says, wherever it lies.

#include "shoal/ipc/codec_view.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <new>
#include <random>
#include <ranges>

namespace {
std::atomic<std::size_t> allocations{0};
}

// Not inlined, or g++ warns of a mismatch of malloc and delete.
[[gnu::noinline]] void* operator new(std::size_t size) {
  allocations.fetch_add(1, std::memory_order_relaxed);  // a tally only
  if (void* memory = std::malloc(size == 0 ? 1 : size)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept {
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}

namespace codec_view_test {

using shoal::Corrupt;
namespace codec = shoal::codec;
using codec::Bits;
using codec::Elements;
using codec::Encoded;
using codec::Sequence;
using codec::View;
using Bytes = std::vector<std::byte>;

struct Order {
  int id;
  std::string symbol;
  std::vector<double> prices;
};
struct Plain {
  int a;
  bool b;
};
struct Wide {
  std::string lines[2][2];
  char name[5];
  int number;
};
struct Tree {
  std::string label;
  std::vector<Tree> children;
  std::map<std::string, Tree> named;
};
struct Node {
  int value;
  std::unique_ptr<Node> next;
};
struct Serialized {
  int a = 0;
  std::string b;
  template <class Archive>
  void serialize(Archive& ar) {
    ar(a, b);
  }
  bool operator==(const Serialized&) const = default;
};

template <class T, class U>
constexpr bool kSame = std::is_same_v<T, U>;
static_assert(kSame<View<int>, int> && kSame<View<Plain>, Plain> &&
              kSame<View<std::string>, std::string_view> &&
              kSame<View<std::u8string>, std::u8string_view> &&
              kSame<View<std::wstring>, Elements<wchar_t>> &&
              kSame<View<std::filesystem::path>, std::string_view>);
static_assert(kSame<View<std::vector<double>>, Elements<double>> &&
              kSame<View<std::deque<Plain>>, Elements<Plain>> &&
              kSame<View<std::set<int>>, Elements<int>> &&
              kSame<View<std::vector<bool>>, Bits> &&
              kSame<View<std::vector<std::string>>, Sequence<std::string>> &&
              kSame<View<std::array<int, 3>>, std::array<int, 3>> &&
              kSame<View<std::array<std::string, 3>>, Sequence<std::string>>);
static_assert(kSame<View<std::map<int, std::string>>,
                    Sequence<std::pair<int, std::string>>> &&
              kSame<View<std::unordered_multimap<int, int>>,
                    Sequence<std::pair<int, int>>>);
static_assert(
    kSame<View<std::pair<int, std::string>>,
          std::pair<int, std::string_view>> &&
    kSame<View<std::variant<std::string, int, std::string>>,
          std::variant<std::string_view, int, std::string_view>> &&
    kSame<View<std::optional<std::string>>, std::optional<std::string_view>> &&
    kSame<View<std::unique_ptr<Node>>, std::optional<Encoded<Node>>>);
static_assert(
    kSame<View<Order>, std::tuple<int, std::string_view, Elements<double>>> &&
    kSame<View<Wide>, std::tuple<Sequence<std::string>, Elements<char>, int>> &&
    kSame<View<Serialized>, Encoded<Serialized>>);
static_assert(std::ranges::random_access_range<Elements<double>> &&
              std::ranges::random_access_range<Bits> &&
              std::ranges::forward_range<Sequence<std::string>>);

// ---- a view says what the value says ----

bool same(const auto& view, const auto& value);

template <class V, class... Ts>
bool same_fields(const V& view, const Ts&... fields) {
  return std::apply(
      [&](const auto&... views) { return (same(views, fields) && ...); }, view);
}

// Whether an Encoded, Sequence and so on matches the value that was encoded.
bool same(const auto& view, const auto& value) {
  using T = std::remove_cvref_t<decltype(value)>;
  using V = std::remove_cvref_t<decltype(view)>;
  if constexpr (requires { view.decode(); }) {
    if constexpr (codec::kKind<T> == codec::Kind::serialize)
      return view.decode() == value;
    else
      return same(view.view(), value) && same(view.view(), view.decode());
  } else if constexpr (codec::kKind<T> == codec::Kind::aggregate) {
    return shoal::fields::apply(
        [&](const auto&... field) { return same_fields(view, field...); },
        value);
  } else if constexpr (requires { value.index(); }) {
    return view.index() == value.index() &&
           std::visit(
               [](const auto& v, const auto& x) {
                 if constexpr (requires {
                                 requires kSame<
                                     View<std::remove_cvref_t<decltype(x)>>,
                                     std::remove_cvref_t<decltype(v)>>;
                               })
                   return same(v, x);
                 else
                   return false;
               },
               view, value);
  } else if constexpr (requires { value.has_value(); }) {
    return view.has_value() == value.has_value() &&
           (!value || same(*view, *value));
  } else if constexpr (requires { value.get_deleter(); }) {
    return view.has_value() == (value != nullptr) &&
           (!value || same(*view, *value));
  } else if constexpr (requires {
                         typename std::tuple_size<T>::type;
                         typename std::tuple_size<V>::type;
                       } &&
                       !kSame<T, V>) {
    return std::apply(
        [&](const auto&... part) { return same_fields(view, part...); }, value);
  } else if constexpr (requires { view == value; }) {
    return view == value;
  } else if constexpr (requires { value.native(); }) {
    return view == value.native();
  } else if constexpr (std::rank_v<T> == 2) {
    return std::equal(view.begin(), view.end(), value[0],
                      value[0] + sizeof(value) / sizeof(value[0][0]),
                      [](const auto& v, const auto& x) { return same(v, x); });
  } else {
    return std::ranges::equal(
        view, value, [](const auto& v, const auto& x) { return same(v, x); });
  }
}

template <class T>
void check(const T& value) {
  const Bytes bytes = codec::to_bytes(value);
  EXPECT_TRUE(same(codec::view<T>(std::span(bytes)), value));
  // At every alignment, each in a block of just this size.
  for (std::size_t shift = 1; shift < 16; ++shift) {
    Bytes shifted(shift);
    shifted.insert(shifted.end(), bytes.begin(), bytes.end());
    EXPECT_TRUE(same(codec::view<T>(std::span(shifted).subspan(shift)), value))
        << shift;
  }
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    const Bytes prefix(bytes.begin(), bytes.begin() + static_cast<long>(size));
    EXPECT_THROW(codec::view<T>(std::span(prefix)), Corrupt) << size;
  }
  Bytes longer = bytes;
  longer.push_back(std::byte{0});
  EXPECT_THROW(codec::view<T>(std::span(longer)), Corrupt);
}

Tree some_tree() {
  return {"root",
          {{"a", {}, {}}, {"b", {{"c", {}, {}}}, {}}},
          {{"k", {"d", {}, {}}}}};
}

TEST(View, SaysWhatTheValueSays) {
  check(7);
  check(Plain{1, true}.b);
  check(std::string("text"));
  check(std::string());
  check(std::u8string(u8"eight"));
  check(std::wstring(L"wide"));
  check(std::filesystem::path("/a/b"));
  check(std::vector<double>{1, 2, 3});
  check(std::vector<bool>{true, false, true, true, true, false, false, true,
                          false, true});
  check(std::vector<std::string>{"a", "", "ccc"});
  check(std::deque<int>{1, 2});
  check(std::list<std::string>{"a", "b"});
  check(std::set<int>{1, 2, 3});
  check(std::array<std::string, 2>{"a", "b"});
  check(std::array<std::string, 0>{});
  check(std::array<int, 2>{1, 2});
  check(std::map<std::string, std::vector<int>>{{"a", {1}}, {"b", {}}});
  check(std::multimap<int, std::string>{{1, "a"}, {1, "b"}});
  check(std::pair<int, std::string>(1, "a"));
  check(std::tuple<>());
  check(std::tuple<std::string, std::tuple<int, std::string>>("a", {1, "b"}));
  check(std::optional<std::string>("a"));
  check(std::optional<std::string>());
  check(std::optional<std::optional<bool>>(std::optional<bool>()));
  check(
      std::variant<std::string, int, std::string>(std::in_place_index<2>, "x"));
  check(Order{1, "x", {1.5, 2.5}});
  check(std::vector<Order>{{1, "x", {1.5, 2.5}}, {2, "", {}}});
  check(Wide{{{"a", "b"}, {"", "d"}}, "name", 5});
  check(some_tree());
  check(Serialized{3, "b"});
  check(std::vector<Serialized>{{3, "b"}, {4, ""}});
  check(std::unique_ptr<int>());
  check(std::make_unique<std::string>("text"));
  check(Node{1, std::make_unique<Node>(Node{2, nullptr})});
}

TEST(View, FieldsByStructuredBinding) {
  const Bytes bytes = codec::to_bytes(Order{7, "ACME", {1.5, 2.5}});
  const auto [id, symbol, prices] = codec::view<Order>(std::span(bytes));
  EXPECT_EQ(id, 7);
  EXPECT_EQ(symbol, "ACME");
  EXPECT_EQ(prices[1], 2.5);
  EXPECT_EQ(prices.to_vector(), (std::vector<double>{1.5, 2.5}));
  // In place: the text lies within the message.
  const auto* text = reinterpret_cast<const std::byte*>(symbol.data());
  EXPECT_TRUE(text >= bytes.data() && text < bytes.data() + bytes.size());
}

TEST(View, AllocatesNothing) {
  const Bytes bytes = codec::to_bytes(std::tuple(
      std::vector<Order>(100, {7, "a long text beyond any small buffer", {1}}),
      some_tree(),
      std::map<std::string, std::optional<std::string>>{{"a", "b"}},
      std::vector<bool>(100), Node{1, std::make_unique<Node>(Node{2, {}})}));
  using T = std::tuple<std::vector<Order>, Tree,
                       std::map<std::string, std::optional<std::string>>,
                       std::vector<bool>, Node>;
  const std::size_t before = allocations;
  const auto [orders, tree, map, bits, node] = codec::view<T>(std::span(bytes));
  std::size_t sum = 0;
  for (const auto& [id, symbol, prices] : orders)
    sum += symbol.size() + prices.size();
  for (const auto& [key, value] : map) sum += key.size() + value->size();
  for (const auto& child : std::get<1>(tree)) sum += std::get<0>(child).size();
  for (const bool bit : bits) sum += bit;
  sum += static_cast<std::size_t>(std::get<0>(std::get<1>(node)->view()));
  EXPECT_EQ(allocations - before, 0u);
  EXPECT_EQ(sum, 100 * 36 + 2 + 2 + 2u);
}

TEST(View, InPlaceWhereAligned) {
  const std::vector<double> values{1, 2, 3};
  const Bytes bytes = codec::to_bytes(values);
  alignas(16) std::byte memory[64];
  int aligned = 0;
  for (std::size_t shift = 0; shift < 16; ++shift) {
    std::ranges::copy(bytes, memory + shift);
    const auto view = codec::view<std::vector<double>>(
        std::span(memory).subspan(shift, bytes.size()));
    const auto span = view.in_place();
    EXPECT_EQ(span.has_value(), shift % alignof(double) == 0);
    if (!span) continue;
    ++aligned;
    EXPECT_TRUE(std::ranges::equal(*span, values));
    EXPECT_EQ(static_cast<const void*>(span->data()), memory + shift + 8);
  }
  EXPECT_EQ(aligned, 2);
  const Bytes text = codec::to_bytes(std::vector<char>{'a', 'b'});
  EXPECT_TRUE(codec::view<std::vector<char>>(std::span(text)).in_place());
}

TEST(View, ElementsAreRandomAccess) {
  const Bytes bytes = codec::to_bytes(std::vector<int>{5, 1, 4});
  const auto view = codec::view<std::vector<int>>(std::span(bytes));
  auto it = view.begin();
  EXPECT_EQ(*it++, 5);
  EXPECT_EQ(it[1], 4);
  EXPECT_EQ(*--it, 5);
  EXPECT_EQ(view.end() - it, 3);
  EXPECT_EQ(*(1 + it), 1);
  EXPECT_TRUE(it < view.end());
  EXPECT_EQ(std::ranges::max(view), 5);
  EXPECT_EQ(*std::ranges::find(view, 4), 4);
}

TEST(View, ListsAsDeepAsDecodeTakesThem) {
  std::unique_ptr<Node> list;
  for (unsigned i = 0; i < codec::kMaxDepth; ++i)
    list = std::make_unique<Node>(Node{static_cast<int>(i), std::move(list)});
  const Bytes bytes = codec::to_bytes(list);
  unsigned length = 0;
  for (auto at = codec::view<std::unique_ptr<Node>>(std::span(bytes)); at;
       at = std::get<1>(at->view()))
    ++length;
  EXPECT_EQ(length, codec::kMaxDepth);
  Bytes forged;
  for (int i = 0; i < 100'000; ++i)
    for (const int byte : {1, 0, 0, 0, 0})
      forged.push_back(static_cast<std::byte>(byte));
  EXPECT_THROW(codec::view<std::unique_ptr<Node>>(std::span(forged)), Corrupt);
}

// ---- bytes that no encoder wrote: as decode takes them ----

template <class T>
void mutate(const T& value, int times) {
  const Bytes valid = codec::to_bytes(value);
  std::mt19937 random(3);
  int viewed = 0;
  for (int i = 0; i < times; ++i) {
    Bytes bytes = valid;
    for (auto changes = random() % 4; changes > 0; --changes)
      bytes[random() % bytes.size()] =
          static_cast<std::byte>(random() % 2 == 0 ? random() % 4 : random());
    if (random() % 4 == 0) bytes.resize(random() % (bytes.size() + 8));
    bool decodes = true, views = true;
    try {
      codec::from_bytes<T>(bytes);
    } catch (const Corrupt&) {
      decodes = false;
    }
    const std::size_t before = allocations;
    try {
      codec::view<T>(std::span(bytes));
      EXPECT_EQ(allocations, before);
    } catch (const Corrupt&) {
      views = false;
    }
    EXPECT_EQ(views, decodes);
    viewed += views;
  }
  EXPECT_GT(viewed, times / 100);
  EXPECT_LT(viewed, times);
}

TEST(View, RefusesWhatDecodeRefuses) {
  mutate(std::vector<Order>{{1, "x", {1.5, 2.5}}, {2, "", {}}}, 5'000);
  mutate(some_tree(), 5'000);
  mutate(std::vector<Plain>(5), 5'000);
  mutate(std::map<std::string, std::vector<bool>>{{"a", {true}}, {"b", {}}},
         5'000);
  mutate(
      std::vector<std::variant<bool, std::string, std::optional<Plain>>>{
          true, "text", std::optional<Plain>()},
      5'000);
  mutate(std::vector<std::array<std::string, 2>>(2), 5'000);
}

// A peer that changes the bytes after the view was made.
TEST(View, BytesThatChangeAreNotReadBeyond) {
  const std::vector<std::string> value(3, "text");
  const Bytes valid = codec::to_bytes(value);
  std::mt19937 random(4);
  for (int i = 0; i < 5'000; ++i) {
    Bytes bytes = valid;
    const auto view = codec::view<std::vector<std::string>>(std::span(bytes));
    bytes[random() % bytes.size()] = static_cast<std::byte>(random());
    try {
      std::size_t sum = 0;
      for (const std::string_view text : view)
        for (const char c : text) sum += static_cast<unsigned char>(c);
      EXPECT_GT(sum, 0u);
    } catch (const Corrupt&) {
    }
  }
}

}  // namespace codec_view_test
