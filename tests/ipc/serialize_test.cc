// Types with a serialize of their own: what they give travels, and one that
// misbehaves fails its own call only.

// A type here serializes itself without end; g++ sees that at -O2.
#pragma GCC diagnostic ignored "-Winfinite-recursion"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <variant>
#include <vector>

#include "shoal/ipc/codec.h"
#include "shoal/ipc/type_name.h"

namespace serialize_test {

using shoal::Corrupt;
using shoal::Message;
namespace codec = shoal::codec;
using Bytes = std::vector<std::byte>;

// ---- as users write them ----

struct Order {
  int id = 0;
  std::string symbol;
  std::vector<double> prices;
  template <class Archive>
  void serialize(Archive& ar) {
    ar(id, symbol, prices);
  }
  bool operator==(const Order&) const = default;
};

// Chained, and returning what ar gives.
struct Chained {
  int a = 0;
  std::string b;
  int c[3] = {};
  template <class Archive>
  auto& serialize(Archive& ar) {
    return ar & a & b & c;
  }
  bool operator==(const Chained&) const = default;
};

class Account {
 public:
  static Account of(std::string owner, long balance) {
    Account account;
    account.owner_ = std::move(owner);
    account.balance_ = balance;
    return account;
  }
  bool operator==(const Account&) const = default;

 private:
  friend struct shoal::SerializeAccess;
  Account() = default;
  template <class Archive>
  void serialize(Archive& ar) {
    ar(owner_);
    ar& balance_;
  }
  std::string owner_;
  long balance_ = 0;
};

namespace geometry {
struct Point {
  double x = 0, y = 0;
  double norm = -1;  // cached, made anew
  bool operator==(const Point& other) const {
    return x == other.x && y == other.y;
  }
};
template <class Archive>
void serialize(Archive& ar, Point& point) {
  ar(point.x, point.y);
}
}  // namespace geometry
using geometry::Point;

class Virtual {
 public:
  virtual ~Virtual() = default;
  virtual int kind() const { return 1; }
  template <class Archive>
  void serialize(Archive& ar) {
    ar(value);
  }
  int value = 0;
};
class VirtualDerived : public Virtual {
 public:
  int kind() const override { return 2; }
};
struct WithBase : Order {
  bool urgent = false;
  template <class Archive>
  void serialize(Archive& ar) {
    ar(static_cast<Order&>(*this), urgent);
  }
  bool operator==(const WithBase&) const = default;
};

// A size first, then as many values into memory of its own.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(std::size_t size) : size_(size), data_(new int[size]) {
    for (std::size_t i = 0; i < size; ++i) data_[i] = static_cast<int>(i * i);
  }
  template <class Archive>
  void serialize(Archive& ar) {
    ar(size_);
    if constexpr (Archive::is_loading::value) {
      if (size_ > 1000) throw std::length_error("Buffer of 1000 at most");
      data_.reset(new int[size_]);
    }
    for (std::size_t i = 0; i < size_; ++i) ar(data_[i]);
  }
  bool operator==(const Buffer& other) const {
    return size_ == other.size_ &&
           std::equal(data_.get(), data_.get() + size_, other.data_.get());
  }

 private:
  std::size_t size_ = 0;
  std::unique_ptr<int[]> data_;
};

struct List {
  int value = 0;
  std::unique_ptr<List> next;
  template <class Archive>
  void serialize(Archive& ar) {
    ar(value, next);
  }
};
struct Nothing {
  template <class Archive>
  void serialize(Archive&) {}
  bool operator==(const Nothing&) const = default;
};
struct Mixed {
  std::string label;
  Order orders[2];
  std::optional<Point> point;
  std::optional<Account> account;
  bool operator==(const Mixed&) const = default;
};
struct MixedWithoutArrays {
  Order order;
  const Account account;
  std::variant<int, Point, Order> any;
  bool operator==(const MixedWithoutArrays&) const = default;
};

// A template that would take everything must not catch numbers and
// enumerations, nor what is of the standard library.
namespace greedy {
enum class Colour { red, green };
struct Paint {
  Colour colour{};
  std::vector<Colour> more;
  bool operator==(const Paint&) const = default;
};
template <class Archive, class T>
void serialize(Archive& ar, T& value) {
  ar(value.colour, value.more);
}
}  // namespace greedy

static_assert(Message<Order> && Message<Chained> && Message<Account> &&
              Message<Point> && Message<Virtual> && Message<WithBase> &&
              Message<Buffer> && Message<List> && Message<Nothing> &&
              Message<Mixed> && Message<std::map<int, Account>>);
static_assert(codec::kKind<Point> == codec::Kind::serialize);
static_assert(codec::kKind<greedy::Paint> == codec::Kind::serialize);
static_assert(codec::kKind<greedy::Colour> == codec::Kind::bytes);
static_assert(codec::kKind<std::vector<greedy::Colour>> ==
              codec::Kind::standard);
static_assert(shoal::Shareable<Point> && !shoal::Shareable<Order>);

struct NoDefault {
  explicit NoDefault(int v) : value(v) {}
  int value;
  template <class Archive>
  void serialize(Archive& ar) {
    ar(value);
  }
};
struct Immovable {
  Immovable() = default;
  Immovable(const Immovable&) = delete;
  template <class Archive>
  void serialize(Archive&) {}
};
struct Abstract {
  virtual void f() = 0;
  template <class Archive>
  void serialize(Archive&) {}
};
class Private {  // without SerializeAccess
  std::string text_;
  template <class Archive>
  void serialize(Archive&) {}
};
struct OtherSerialize {
  std::string text;
  void serialize(std::string& out) const { out += text; }
};
static_assert(!Message<NoDefault> && !Message<Immovable> &&
              !Message<Abstract> && !Message<Private> &&
              !Message<std::vector<NoDefault>>);
static_assert(codec::kKind<OtherSerialize> == codec::Kind::aggregate);

template <class T>
void check(const T& value) {
  const Bytes bytes = codec::to_bytes(value);
  EXPECT_EQ(bytes.size(), codec::size(value));
  EXPECT_TRUE(codec::from_bytes<T>(bytes) == value);
  for (std::size_t size = 0; size < bytes.size(); ++size)
    EXPECT_THROW(codec::from_bytes<T>(std::span(bytes).first(size)), Corrupt)
        << size;
  Bytes longer = bytes;
  longer.push_back(std::byte{0});
  EXPECT_THROW(codec::from_bytes<T>(longer), Corrupt);
}

Mixed mixed() {
  return {"label",
          {{1, "a", {1.5}}, {2, "b", {}}},
          Point{3, 4, 5},
          Account::of("me", 7)};
}

TEST(Serialize, RoundTrip) {
  check(Order{1, "x", {1, 2}});
  check(Chained{1, "b", {1, 2, 3}});
  check(Account::of("me", 7));
  check(Point{1, 2, 3});
  check(WithBase{{1, "x", {2}}, true});
  check(Buffer(17));
  check(Buffer());
  check(Nothing());
  check(mixed());
  check(MixedWithoutArrays{{1, "x", {}}, Account::of("a", 1), Point{1, 2, 0}});
  check(greedy::Paint{greedy::Colour::green, {greedy::Colour::red}});
}

TEST(Serialize, Nested) {
  check(std::vector<Order>{{1, "x", {1}}, {}, {2, "y", {}}});
  check(std::vector<Nothing>(5));
  check(std::map<std::string, Account>{{"a", Account::of("b", 1)}});
  check(std::optional<Point>(Point{1, 2, 0}));
  check(std::pair<Point, Order>({1, 2, 0}, {3, "z", {}}));
  check(std::array<Buffer, 2>{Buffer(1), Buffer(2)});
  check(std::variant<Nothing, Order, Nothing>(std::in_place_index<2>));
  check(std::vector<std::vector<Mixed>>{{mixed()}, {}, {mixed(), mixed()}});
  auto pointer = std::make_unique<Order>(Order{4, "p", {}});
  const auto copy =
      codec::from_bytes<std::unique_ptr<Order>>(codec::to_bytes(pointer));
  EXPECT_EQ(*copy, *pointer);
}

TEST(Serialize, WinsOverBytesAndOverFields) {
  const Point copy =
      codec::from_bytes<Point>(codec::to_bytes(Point{1, 2, /*norm=*/99}));
  EXPECT_EQ(copy.norm, -1);  // what serialize leaves out is made anew
  EXPECT_EQ(codec::size(Point{}), 8 + 2 * sizeof(double));
  EXPECT_EQ(codec::size(Nothing{}), 8u);
}

TEST(Serialize, VirtualIsNotSliced) {
  EXPECT_EQ(codec::from_bytes<Virtual>(codec::to_bytes(Virtual())).kind(), 1);
  std::unique_ptr<Virtual> whole = std::make_unique<Virtual>();
  whole->value = 3;
  EXPECT_EQ(codec::from_bytes<std::unique_ptr<Virtual>>(codec::to_bytes(whole))
                ->value,
            3);
  const std::unique_ptr<Virtual> derived = std::make_unique<VirtualDerived>();
  try {
    codec::to_bytes(derived);
    FAIL();
  } catch (const std::invalid_argument& e) {
    EXPECT_NE(std::string(e.what()).find("VirtualDerived"), std::string::npos)
        << e.what();
  }
}

TEST(Serialize, ListsUpToALimit) {
  const auto list = [](unsigned length) {
    List first;
    for (unsigned i = 1; i < length; ++i) {
      auto next = std::make_unique<List>(std::move(first));
      first = List{static_cast<int>(i), std::move(next)};
    }
    return first;
  };
  const Bytes bytes = codec::to_bytes(list(codec::kMaxDepth));
  const List copy = codec::from_bytes<List>(bytes);
  unsigned length = 0;
  for (const List* at = &copy; at != nullptr; at = at->next.get()) ++length;
  EXPECT_EQ(length, codec::kMaxDepth);
  EXPECT_THROW(codec::size(list(codec::kMaxDepth + 1)), std::invalid_argument);
}

TEST(Serialize, IsNamedAndNotTakenApart) {
  EXPECT_EQ(shoal::describe_layout<Point>(),
            "serialize_test::geometry::Point (24 bytes, align 8)");
  struct Line {
    int n;
    Point from, to;
  };
  EXPECT_NE(shoal::describe_layout<Line>().find(
                "0 int, 8 serialize_test::geometry::Point, 32 "
                "serialize_test::geometry::Point"),
            std::string::npos)
      << shoal::describe_layout<Line>();
}

// ---- those that misbehave ----

enum class Pass { none, size, write, read };
Pass failing = Pass::none;
int alive = 0;

template <class Archive>
constexpr Pass kPass =
    std::is_same_v<Archive, codec::SizeArchive>    ? Pass::size
    : std::is_same_v<Archive, codec::WriteArchive> ? Pass::write
                                                   : Pass::read;

// Throws half-way in one of the passes.
struct Throwing {
  Throwing() { ++alive; }
  Throwing(const Throwing& other) : text(other.text) { ++alive; }
  ~Throwing() { --alive; }
  std::string text = "text";
  template <class Archive>
  void serialize(Archive& ar) {
    ar(text);
    if (failing == kPass<Archive>) throw std::domain_error("no");
    ar(text);
  }
};

TEST(Misbehaving, WhatItThrowsLeavesTheCall) {
  const std::vector<Throwing> values(3);
  failing = Pass::none;
  const Bytes bytes = codec::to_bytes(values);
  failing = Pass::size;
  EXPECT_THROW(codec::size(values), std::domain_error);
  failing = Pass::write;
  Bytes memory(bytes.size());
  codec::Writer writer(memory);
  EXPECT_THROW(codec::encode(writer, values), std::domain_error);
  failing = Pass::read;
  EXPECT_THROW(codec::from_bytes<std::vector<Throwing>>(bytes),
               std::domain_error);
  EXPECT_EQ(alive, 3);
  failing = Pass::none;
  EXPECT_EQ(codec::from_bytes<std::vector<Throwing>>(bytes).size(), 3u);
}

// Gives more or less in one pass than in the others.
int extra_in_size, extra_in_write, extra_in_read;
struct Uneven {
  int value = 5;
  template <class Archive>
  void serialize(Archive& ar) {
    const int extra = kPass<Archive> == Pass::size    ? extra_in_size
                      : kPass<Archive> == Pass::write ? extra_in_write
                                                      : extra_in_read;
    for (int i = 0; i < 2 + extra; ++i) ar(value);
  }
};
void set_extra(int size, int write, int read) {
  extra_in_size = size;
  extra_in_write = write;
  extra_in_read = read;
}

TEST(Misbehaving, MoreOrLessWrittenThanMeasured) {
  const std::pair<Uneven, std::string> value{{}, "after"};
  set_extra(0, 0, 0);
  EXPECT_NO_THROW(codec::to_bytes(value));
  for (const int extra : {1, 2, 1000}) {
    set_extra(0, extra, 0);
    EXPECT_THROW(codec::to_bytes(value), std::logic_error) << extra;
    EXPECT_THROW(codec::to_bytes(Uneven{}), std::logic_error) << extra;
    set_extra(extra, 0, 0);
    EXPECT_THROW(codec::to_bytes(value), std::logic_error) << extra;
    EXPECT_THROW(codec::to_bytes(Uneven{}), std::logic_error) << extra;
  }
}

TEST(Misbehaving, MoreOrLessReadThanWritten) {
  using Value = std::pair<Uneven, std::string>;
  set_extra(0, 0, 0);
  const Bytes bytes = codec::to_bytes(Value({}, "after"));
  EXPECT_EQ(codec::from_bytes<Value>(bytes).second, "after");
  set_extra(0, 0, 1);
  EXPECT_THROW(codec::from_bytes<Value>(bytes), Corrupt);
  set_extra(0, 0, -1);
  try {
    codec::from_bytes<Value>(bytes);
    FAIL();
  } catch (const Corrupt& e) {
    EXPECT_STREQ(e.what(),
                 "message: serialize of serialize_test::Uneven left 4 bytes of "
                 "its own unread");
  }
}

// Measures itself without end.
struct Endless {
  template <class Archive>
  void serialize(Archive& ar) {
    ar(*this);
  }
};

TEST(Misbehaving, EndlessRecursionIsRefused) {
  EXPECT_THROW(codec::size(Endless{}), std::invalid_argument);
  Bytes forged;  // 30,000 lengths, each of what follows
  for (std::uint64_t left = 30'000; left-- > 0;) {
    const std::uint64_t length = left * sizeof(left);
    const auto* first = reinterpret_cast<const std::byte*>(&length);
    forged.insert(forged.end(), first, first + sizeof(length));
  }
  EXPECT_THROW(codec::from_bytes<Endless>(forged), Corrupt);
}

// ---- bytes that no encoder wrote ----

TEST(Forged, Lengths) {
  Bytes bytes = codec::to_bytes(Order{1, "x", {1, 2}});
  for (const std::uint64_t length :
       {std::uint64_t{0}, std::uint64_t{bytes.size() - 9},
        std::uint64_t{bytes.size() - 7}, std::uint64_t{1} << 63,
        ~std::uint64_t{0}}) {
    std::memcpy(bytes.data(), &length, sizeof(length));
    EXPECT_THROW(codec::from_bytes<Order>(bytes), Corrupt) << length;
  }
}

TEST(Forged, WhatSerializeItselfRefuses) {
  Bytes bytes = codec::to_bytes(Buffer(3));
  const std::uint64_t size = 1001;
  std::memcpy(bytes.data() + 8, &size, sizeof(size));
  EXPECT_THROW(codec::from_bytes<Buffer>(bytes), std::length_error);
}

}  // namespace serialize_test
