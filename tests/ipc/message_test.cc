// Which types are Messages and Shareable, how many fields they have, and how
// they are named.

#include "shoal/ipc/message.h"

#include <gtest/gtest.h>

#include <any>
#include <bitset>
#include <complex>
#include <functional>
#include <random>

#include "shoal/ipc/type_name.h"

namespace message_test {

using shoal::Message;
using shoal::Shareable;

struct Empty {};
struct Order {
  int id;
  double price;
  char symbol[8];
};
struct Pointer {
  int* p;
};
struct PointersInArray {
  char name[3];
  int* p[2];
};
struct DeepPointer {
  struct {
    int x;
    Pointer p;
  } inner;
};
struct Reference {
  int& r;
};
struct ConstReference {
  const int& r;
};
struct RvalueReference {
  int&& r;
};
int global;
struct DefaultedReference {
  int a;
  int& r = global;
  int b;
};
struct View {
  std::string_view text;
};
struct Node {
  int value;
  std::unique_ptr<Node> next;
};
struct Tree {
  std::string label;
  std::vector<Tree> children;
  std::map<std::string, Tree> named;
};
struct PointerNode {
  std::unique_ptr<PointerNode> next;
  void* p;
};
struct Derived : Order {
  int more;
};
struct DerivedText : Empty {
  std::string text;
};
struct Tagged {
  int tag;
  union {
    int i;
    double d;
  };
};
struct TextAndArrays {
  std::string text;
  char name[600];
  std::string lines[2][2];
};
struct ConstArray {
  std::string text;
  const int n[2];
};
struct NoDefault {
  explicit NoDefault(int v) : value(v) {}
  int value;
};
struct Immovable {
  Immovable() = default;
  Immovable(const Immovable&) = delete;
  int value = 0;
};
class Private {
 public:
  int visible() const { return hidden_; }

 private:
  int hidden_ = 0;
};
struct Abstract {
  virtual void f() = 0;
};
struct Incomplete;
union Union {
  int i;
  float f;
};
enum class Colour { red };
struct Handle {
  std::shared_ptr<int> object;
};
struct HandleHolder {
  std::string text;
  Handle handle;
};
struct TupleLike {
  int a, b;
};
struct Optionals {
  std::optional<int> o;
  char name[4];
  bool b;
};
struct Large {
  char bytes[1 << 20];
};
struct A100 {
  std::array<int, 2> a[100];
  std::string s;
};
// 101 fields, more than PFR binds.
template <class T>
struct Many {
  T f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, g0, g1, g2, g3, g4, g5, g6, g7, g8,
      g9, h0, h1, h2, h3, h4, h5, h6, h7, h8, h9, i0, i1, i2, i3, i4, i5, i6,
      i7, i8, i9, j0, j1, j2, j3, j4, j5, j6, j7, j8, j9, k0, k1, k2, k3, k4,
      k5, k6, k7, k8, k9, l0, l1, l2, l3, l4, l5, l6, l7, l8, l9, m0, m1, m2,
      m3, m4, m5, m6, m7, m8, m9, n0, n1, n2, n3, n4, n5, n6, n7, n8, n9, o0,
      o1, o2, o3, o4, o5, o6, o7, o8, o9, p0;
};

}  // namespace message_test

template <>
struct std::tuple_size<message_test::TupleLike>
    : std::integral_constant<std::size_t, 1> {};
template <>
struct shoal::HandleTraits<message_test::Handle> {
  static HandleRef reference(const message_test::Handle&, Passage*) {
    return {};
  }
  static message_test::Handle resolve(const HandleRef&, Arrival*) { return {}; }
};

namespace message_test {

template <class... Ts>
constexpr bool kMessages = (Message<Ts> && ...);
template <class... Ts>
constexpr bool kNoMessages = (!Message<Ts> && ...);
template <class... Ts>
constexpr bool kShareable = (Shareable<Ts> && ...);
template <class... Ts>
constexpr bool kNotShareable = (!Shareable<Ts> && ...);

static_assert(kMessages<bool, char, int, double, long double, Colour, std::byte,
                        Union, Empty, Order, Private, NoDefault, Derived,
                        Tagged, TupleLike, Large, Optionals, Many<int>>);
static_assert(kMessages<std::complex<double>, std::chrono::nanoseconds,
                        std::chrono::system_clock::time_point, std::bitset<9>,
                        std::mt19937, std::monostate>);
static_assert(
    kMessages<
        std::string, std::u32string, std::vector<int>, std::vector<bool>,
        std::deque<std::string>, std::list<NoDefault>, std::set<int>,
        std::multiset<int>, std::map<int, std::string>, std::multimap<int, int>,
        std::unordered_set<int>, std::unordered_multiset<int>,
        std::unordered_map<std::string, int>, std::unordered_multimap<int, int>,
        std::array<std::string, 3>, std::pair<int, std::string>, std::tuple<>,
        std::tuple<int, std::string>, std::optional<std::string>,
        std::variant<std::monostate, int, std::string>, std::filesystem::path,
        std::unique_ptr<std::string>>);
static_assert(kMessages<TextAndArrays, ConstArray, Node, Tree, A100, Handle,
                        HandleHolder, std::vector<Handle>>);

static_assert(kNoMessages<void, int(), int(int) const, int&, int&&, const int,
                          volatile int, int[3], int[], const std::string>);
static_assert(
    kNoMessages<int*, const char*, void (*)(), int Order::*,
                void (Abstract::*)(), std::nullptr_t, std::string_view,
                std::span<int>, std::span<const std::byte, 4>,
                std::reference_wrapper<int>, std::initializer_list<int>,
                std::vector<int>::iterator, std::error_code, std::type_index>);
static_assert(
    kNoMessages<Pointer, PointersInArray, DeepPointer, Reference,
                ConstReference, RvalueReference, DefaultedReference, View,
                PointerNode, DerivedText, Immovable, Abstract, Incomplete,
                std::vector<Incomplete*>, Many<std::string>>);
static_assert(
    kNoMessages<
        std::vector<int*>, std::optional<const char*>, std::pair<int, View>,
        std::tuple<int, int*>, std::variant<int, std::string_view>,
        std::map<int*, int>, std::map<int, int*>, std::array<int*, 2>,
        std::unique_ptr<int[]>, std::unique_ptr<Abstract>,
        std::unique_ptr<const int>, std::unique_ptr<int, void (*)(int*)>,
        std::shared_ptr<int>, std::weak_ptr<int>, std::any,
        std::function<void()>, std::set<int, bool (*)(int, int)>>);

static_assert(kShareable<bool, int, Colour, Union, Empty, Order, Private,
                         NoDefault, Derived, Tagged, Optionals, Large,
                         std::array<std::array<Order, 2>, 2>,
                         std::optional<int>, std::complex<float>>);
static_assert(
    kNotShareable<void, int(), int&, const int, volatile int, int[3], int*,
                  Pointer, PointersInArray, DeepPointer, Reference,
                  ConstReference, RvalueReference, View, std::string,
                  std::string_view, Node, Abstract, Incomplete,
                  std::optional<int*>, std::array<int*, 2>, Handle>);

static_assert(shoal::fields::kCount<Order> == 3);
static_assert(shoal::fields::kCount<TextAndArrays> == 3);
static_assert(shoal::fields::kCount<A100> == 2);
static_assert(shoal::fields::kCount<Empty> == 0);
static_assert(shoal::fields::kCount<Node> == 2);
static_assert(shoal::fields::kCount<Private> == shoal::fields::kOpaque);
static_assert(shoal::fields::kCount<Derived> == shoal::fields::kOpaque);
static_assert(shoal::fields::kCount<Tagged> == shoal::fields::kOpaque);
static_assert(shoal::fields::kCount<TupleLike> == shoal::fields::kOpaque);
static_assert(shoal::fields::kCount<Reference> == shoal::fields::kRefused);
static_assert(
    std::is_same_v<shoal::fields::TypesOf<TextAndArrays>,
                   std::tuple<std::string, char[600], std::string[2][2]>>);

// Whatever a class is like, asking does no harm.
namespace hard {
class PrivateConstructor {
  PrivateConstructor();
  std::string text_;
};
class PrivateDestructor {
  ~PrivateDestructor();
  std::string text_;
};
struct DeletedCopy {
  DeletedCopy(const DeletedCopy&) = delete;
  std::string text;
};
struct DeletedAll {
  DeletedAll() = delete;
  DeletedAll(const DeletedAll&) = delete;
  std::string text;
};
struct DeletedDestructor {
  ~DeletedDestructor() = delete;
};
struct Virtual {
  virtual ~Virtual() = default;
  std::string text;
};
struct VirtualBase : virtual Virtual {};
struct HoldsIncomplete {
  std::unique_ptr<Incomplete> pointer;
};
struct TextAndReference {
  std::string text;
  int& r;
};
struct Greedy {
  template <class T>
  Greedy(T&&) {}  // NOLINT
  std::string text;
};
struct HoldsGreedy {
  Greedy greedy;
  int i;
};
struct Explicit {
  explicit Explicit(int) {}
  std::string text;
};
struct HoldsExplicit {
  Explicit e;
};
class Protected {
 protected:
  std::string text_;
};
struct Anything {
  std::any any;
  int i;
};
struct TextAndUnion {
  union {
    int a;
    float b;
  };
  std::string text;
};
union NotTrivial {
  NotTrivial() {}
  ~NotTrivial() {}
  int a;
  std::string text;
};
struct HoldsUnion {
  NotTrivial value;
};
struct List {
  List(std::initializer_list<int>) {}
  std::string text;
};
struct HoldsList {
  List list;
  std::string text;
};
struct Cycle {
  std::shared_ptr<Cycle> next;
};
// And those that are Messages all the same.
struct Constants {
  const std::string text;
  const int i;
};
struct ArraysWithoutDefault {
  NoDefault pairs[2][2];
  std::string text;
  const NoDefault three[3];
};
struct Overloads {
  void operator&() const = delete;
  template <class T>
  void operator,(T&&) = delete;
  std::string text;
};
struct HoldsOverloads {
  Overloads a, b;
};
struct Defaults {
  int i = 3;
  std::string text = "x";
  std::vector<int> numbers = {1, 2};
};
struct MoveOnly {
  std::unique_ptr<int> one;
  std::optional<std::unique_ptr<int>> maybe;
  std::map<int, std::unique_ptr<std::string>> many;
};
struct Aligned {
  alignas(64) std::string text;
};
struct SelfInVariant {
  std::variant<int, std::vector<SelfInVariant>,
               std::map<std::string, SelfInVariant>>
      value;
};
struct B;
struct A {
  std::vector<B> many;
};
struct B {
  std::unique_ptr<A> one;
  std::string text;
};
}  // namespace hard
namespace {
struct Local {
  std::string text;
};
struct HoldsLocal {
  std::optional<Local> local;
  std::vector<std::optional<Local>> more;
};
}  // namespace
static_assert(
    kNoMessages<hard::PrivateConstructor, hard::PrivateDestructor,
                hard::DeletedCopy, hard::DeletedAll, hard::DeletedDestructor,
                hard::Virtual, hard::VirtualBase, hard::HoldsIncomplete,
                hard::TextAndReference, hard::Greedy, hard::HoldsGreedy,
                hard::Explicit, hard::HoldsExplicit, hard::Protected,
                hard::Anything, hard::TextAndUnion, hard::NotTrivial,
                hard::HoldsUnion, hard::List, hard::HoldsList, hard::Cycle>);
static_assert(kMessages<hard::Constants, hard::ArraysWithoutDefault,
                        hard::Overloads, hard::HoldsOverloads, hard::Defaults,
                        hard::MoveOnly, hard::Aligned, hard::SelfInVariant,
                        hard::A, hard::B, HoldsLocal>);

// A closure is bytes, unless it captures by reference or holds more than bytes.
TEST(Message, Closures) {
  int x = 1;
  std::string text;
  const auto nothing = [](int y) { return y; };
  const auto value = [x] { return x; };
  const auto reference = [&x] { return x; };
  const auto owner = [text] { return text.size(); };
  EXPECT_TRUE(Message<std::remove_const_t<decltype(nothing)>>);
  EXPECT_TRUE(Message<std::remove_const_t<decltype(value)>>);
  EXPECT_FALSE(Message<std::remove_const_t<decltype(reference)>>);
  EXPECT_FALSE(Message<std::remove_const_t<decltype(owner)>>);
  EXPECT_EQ(nothing(1) + value() + reference() + static_cast<int>(owner()), 3);
}

TEST(Fields, ApplyGivesTheFieldsThemselves) {
  TextAndArrays value{"text", "name", {{"a", "b"}, {"c", "d"}}};
  shoal::fields::apply(
      [&value](auto& text, auto& name, auto& lines) {
        EXPECT_EQ(&text, &value.text);
        EXPECT_EQ(&name, &value.name);
        EXPECT_EQ(&lines, &value.lines);
      },
      value);
}

TEST(TypeName, IsReadable) {
  using shoal::type_name;
  EXPECT_EQ(type_name<int>(), "int");
  EXPECT_EQ(type_name<std::string>(), "std::string");
  EXPECT_EQ((type_name<std::map<std::string, std::vector<Order>>>()),
            "std::map<std::string, std::vector<message_test::Order>>");
  EXPECT_EQ((type_name<std::unordered_map<int, std::unique_ptr<int>>>()),
            "std::unordered_map<int, std::unique_ptr<int>>");
  EXPECT_EQ((type_name<std::map<int, int, std::greater<>>>()),
            "std::map<int, int, std::greater<void>>");
}

TEST(DescribeLayout, ListsFieldsWithOffsets) {
  using shoal::describe_layout;
  EXPECT_EQ(describe_layout<int>(), "int (4 bytes, align 4)");
  EXPECT_EQ(describe_layout<Order>(),
            "message_test::Order (24 bytes, align 8): 0 int, 8 double, 16 "
            "char[8]");
  struct Line {
    Order order;
    Order two[2];
    std::vector<Order> more;
    Private p;
  };
  EXPECT_NE(describe_layout<Line>().find(
                "0 int, 8 double, 16 char[8], 24 {0 int, 8 double, 16 "
                "char[8]}[2], 72 std::vector<message_test::Order> of {0 int, 8 "
                "double, 16 char[8]}, 96 message_test::Private"),
            std::string::npos)
      << describe_layout<Line>();
  EXPECT_EQ(describe_layout<Tree>(),
            "message_test::Tree (104 bytes, align 8): 0 std::string, 32 "
            "std::vector<message_test::Tree>, 56 std::map<std::string, "
            "message_test::Tree>");
  EXPECT_EQ(describe_layout<NoDefault>(),
            "message_test::NoDefault (4 bytes, align 4)");
}

namespace one {
struct Point {
  int x, y;
};
}  // namespace one

TEST(LayoutHash, TellsLayoutsApart) {
  struct Same {
    int x, y;
  };
  struct Other {
    int x;
    float y;
  };
  EXPECT_EQ(shoal::layout_hash<Same>(), shoal::layout_hash<Same>());
  EXPECT_NE(shoal::layout_hash<Same>(), shoal::layout_hash<Other>());
  EXPECT_NE(shoal::layout_hash<int>(), shoal::layout_hash<unsigned>());
  // The same with g++ and clang, in every build: it lies in named segments.
  EXPECT_EQ(shoal::layout::hash(""), 0xcbf29ce484222325);
  EXPECT_EQ(shoal::layout_hash<one::Point>(),
            shoal::layout::hash("message_test::one::Point (8 bytes, align 4): "
                                "0 int, 4 int"));
}

}  // namespace message_test
