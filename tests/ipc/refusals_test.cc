// What cannot travel does not compile, and the compiler says what to send
// instead. Every snippet is given to each compiler that is installed.

#include <gtest/gtest.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

namespace {

struct Compiler {
  std::string name;
  std::string path;
  std::string make_prefix;  // options that compile prefix.h
  std::string use_prefix;
};
const Compiler kGcc{"g++", "/usr/bin/g++",
                    "-x c++-header -o prefix.h.gch prefix.h",
                    "-include prefix.h"};
const Compiler kClang{"clang++", "/usr/bin/clang++",
                      "-x c++-header -o prefix.pch prefix.h",
                      "-include-pch prefix.pch"};

struct Outcome {
  bool compiles;
  std::string text;
};

// One directory per compiler, with the headers compiled once.
class Workshop {
 public:
  explicit Workshop(const Compiler& compiler)
      : compiler_(compiler),
        folder_(std::filesystem::path(getenv("TEST_TMPDIR")) / compiler.name) {
    std::filesystem::create_directories(folder_);
    write("prefix.h",
          "#include <any>\n#include <thread>\n"
          "#include \"shoal/ipc/codec.h\"\n"
          "using namespace shoal;\n"
          "template <class T> constexpr bool send = "
          "codec::require_message<T>();\n");
    const Outcome made = run(compiler.make_prefix);
    EXPECT_TRUE(made.compiles) << made.text;
  }

  Outcome compile(const std::string& snippet) const {
    write("snippet.cc", snippet);
    return run("-fsyntax-only " + compiler_.use_prefix + " snippet.cc");
  }

 private:
  void write(const std::string& name, const std::string& text) const {
    std::ofstream(folder_ / name) << text << "\n";
  }
  // The repository is called shoal, and so is its folder among the runfiles.
  Outcome run(const std::string& options) const {
    const std::string command =
        "cd '" + folder_.string() + "' && LC_ALL=C " + compiler_.path +
        " -std=c++20 -I'" + getenv("TEST_SRCDIR") + "' " + options + " 2>&1";
    FILE* pipe = popen(command.c_str(), "r");
    std::string text;
    for (int c; (c = getc(pipe)) != EOF;) text += static_cast<char>(c);
    return {pclose(pipe) == 0, text};
  }

  const Compiler& compiler_;
  std::filesystem::path folder_;
};

// {a snippet that must not compile, what the compiler must say}
const std::pair<std::string, std::string> kRefused[] = {
    {"static_assert(send<int*>);", "std::unique_ptr or std::optional"},
    {"static_assert(send<const char*>);", "std::string for text"},
    {"static_assert(send<void (*)()>);", "give the function to a Pool"},
    {"struct X { int a; }; static_assert(send<int X::*>);",
     "a raw pointer points into this process only"},
    {"static_assert(send<int&>);",
     "a reference refers to an object of this process only: send the value"},
    {"static_assert(send<const int>);", "drop the qualifier"},
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
    {"struct Inner { int a; const char* text; };\n"
     "struct Outer { std::map<int, std::vector<Inner>> all; };\n"
     "static_assert(send<Outer>);",
     "std::string for text"},
    {"static_assert(send<std::variant<int, std::optional<std::string_view>>>);",
     "send std::string."},
    // serialize
    {"struct X { explicit X(int); template <class A> void serialize(A&) {} };\n"
     "static_assert(send<X>);",
     "needs a default constructor"},
    {"struct X { X(); X(const X&) = delete;\n"
     "  template <class A> void serialize(A&) {} };\n"
     "static_assert(send<X>);",
     "must be movable"},
    {"struct X { const char* p; template <class A> void serialize(A& a) "
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
const std::string kAccepted[] = {
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

void check(const Compiler& compiler) {
  if (access(compiler.path.c_str(), X_OK) != 0)
    GTEST_SKIP() << compiler.path << " is not installed";
  const Workshop workshop(compiler);
  for (const auto& [snippet, sentence] : kRefused) {
    const Outcome outcome = workshop.compile(snippet);
    EXPECT_FALSE(outcome.compiles) << snippet;
    EXPECT_NE(outcome.text.find(sentence), std::string::npos) << snippet << "\n"
                                                              << outcome.text;
  }
  for (const std::string& snippet : kAccepted) {
    const Outcome outcome = workshop.compile(snippet);
    EXPECT_TRUE(outcome.compiles) << snippet << "\n" << outcome.text;
  }
}

TEST(Refusals, OfGcc) { check(kGcc); }
TEST(Refusals, OfClang) { check(kClang); }

}  // namespace
