// What cannot travel does not compile, and the compiler says what to send
// instead. Every snippet is given to each compiler that is installed.

#include "tests/support/refusals.h"

#include "gtest/gtest.h"

namespace {

using shoal::support::check_refusals;
using shoal::support::Compiler;

// What cannot travel occurs once in all of them: the compilers complain once of
// each.
const std::vector<std::pair<std::string, std::string>> kRefused = {
    {"static_assert(send<int*>);", "std::unique_ptr or std::optional"},
    {"static_assert(send<const char*>);", "std::string for text"},
    {"static_assert(send<void (*)()>);", "give the function to a Pool"},
    {"struct X { int a; }; static_assert(send<int X::*>);",
     "a raw pointer points into this process only"},
    {"static_assert(send<int&>);",
     "a reference refers to an object of this process only: send the value"},
    {"static_assert(send<const long>);", "drop the qualifier"},
    {"static_assert(send<int[3]>);", "send std::array"},
    {"static_assert(send<std::string_view>);", "send std::string."},
    {"static_assert(send<std::span<const double>>);", "send std::vector, or"},
    {"static_assert(send<std::span<char, 8>>);", "send std::vector, or"},
    {"static_assert(send<std::reference_wrapper<int>>);",
     "share it by a shoal handle"},
    {"static_assert(send<std::function<void()>>);",
     "give the function or lambda itself"},
    {"static_assert(send<std::unique_ptr<int[]>>);",
     "does not know its length"},
    {"static_assert(send<std::shared_ptr<int>>);",
     "send std::unique_ptr or the value for a copy, a shoal handle"},
    {"static_assert(send<std::vector<int>::iterator>);",
     "send the value that it stands for"},
    {"static_assert(send<std::any>);", "void serialize(A& ar)"},
    {"static_assert(send<std::thread>);", "void serialize(A& ar)"},
    {"struct X; static_assert(send<X>);", "only declared"},
    {"auto f(int x) { return [&x] { return x; }; }\n"
     "static_assert(send<decltype(f(1))>);",
     "a lambda that captures by reference points into this process only"},
    {"auto f(std::string s) { return [s] { return s; }; }\n"
     "static_assert(send<decltype(f({}))>);",
     "pass the rest as arguments"},
    {"class X { X(const X&); int x; }; static_assert(send<X>);",
     "neither trivially copyable nor an aggregate"},
    {"struct X { virtual void f() = 0; }; static_assert(send<X>);",
     "private or virtual members"},
    {"struct X { std::string s; int& r; }; static_assert(send<X>);",
     "references"},
    // The innermost part that cannot travel is what the sentence is about.
    {"struct Inner { int a; const wchar_t* text; };\n"
     "struct Outer { std::map<int, std::vector<Inner>> all; };\n"
     "static_assert(send<Outer>);",
     "std::string for text"},
    {"static_assert(send<std::variant<int, "
     "std::optional<std::u16string_view>>>);",
     "send std::string."},
    // serialize
    {"struct X { explicit X(int); template <class A> void serialize(A&) {} };\n"
     "static_assert(send<X>);",
     "needs a default constructor"},
    {"struct X { X(); X(const X&) = delete;\n"
     "  template <class A> void serialize(A&) {} };\n"
     "static_assert(send<X>);",
     "must be movable"},
    {"struct X { double* p; template <class A> void serialize(A& a) "
     "{ a(p); } };\n"
     "auto bytes = codec::to_bytes(X());",
     "std::string for text"},
    {"struct X { const int n = 0; template <class A> void serialize(A& a) "
     "{ a(n); } };\n"
     "auto x = codec::from_bytes<X>({});",
     "into which nothing can be read"},
    {"struct X { template <class A> void serialize(A& a) { a(1); } };\n"
     "auto x = codec::from_bytes<X>({});",
     "into which nothing can be read"},
    // Bit-fields cannot be told apart before the compiler stumbles over them.
    {"struct X { std::string s; unsigned bit : 1; };\n"
     "static_assert(send<X>);",
     "bit-field"},
};

// The same but for what is wrong there.
const std::vector<std::string> kAccepted = {
    "static_assert(send<int>);",
    "static_assert(send<std::string>);",
    "static_assert(send<std::array<int, 3>>);",
    "static_assert(send<std::unique_ptr<int>>);",
    "auto f(int x) { return [x] { return x; }; }\n"
    "static_assert(send<decltype(f(1))>);",
    "struct X { std::string s; int n[2]; }; static_assert(send<X>);",
    "struct Inner { int a; std::string text; };\n"
    "struct Outer { std::map<int, std::vector<Inner>> all; };\n"
    "static_assert(send<Outer>);",
    "struct X { int n = 0; template <class A> void serialize(A& a) { a(n); } "
    "};\n"
    "auto x = codec::from_bytes<X>(codec::to_bytes(X()));",
    // A private constructor and a private serialize.
    "class X { friend struct SerializeAccess; X(); int n;\n"
    "  template <class A> void serialize(A& a) { a(n); } };\n"
    "static_assert(send<X>);",
};

const shoal::support::Refusals kRefusals{
    .prelude =
        "#include <any>\n#include <thread>\n"
        "#include \"shoal/ipc/codec.h\"\n"
        "using namespace shoal;\n"
        "template <class T> constexpr bool send = "
        "codec::require_message<T>();\n",
    .refused = kRefused,
    .accepted = kAccepted};

TEST(Refusals, OfGcc) { check_refusals(kRefusals, Compiler::gcc); }
TEST(Refusals, OfClang) { check_refusals(kRefusals, Compiler::clang); }

}  // namespace
