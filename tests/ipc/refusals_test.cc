// What cannot travel does not compile, and the compiler says what to send
// instead. Every snippet is given to each compiler that is installed.

#include <gtest/gtest.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iostream>
#include <optional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace {

// Each snippet is compiled as the file that is named after its number.
std::string file_of(std::size_t snippet) {
  return "snippet" + std::to_string(snippet);
}

struct Outcome {
  bool compiles;
  std::string text;
};

// All of them at once, each in a namespace of its own.
Outcome compile(const std::string& compiler, const std::string& options,
                const std::vector<std::string>& snippets) {
  const auto path =
      std::filesystem::path(getenv("TEST_TMPDIR")) / "snippets.cc";
  {
    std::ofstream file(path);
    file << "#include <any>\n#include <thread>\n"
            "#include \"shoal/ipc/codec.h\"\n"
            "using namespace shoal;\n"
            "template <class T> constexpr bool send = "
            "codec::require_message<T>();\n";
    for (std::size_t i = 0; i < snippets.size(); ++i)
      file << "namespace n" << i << " {\n#line 1 \"" << file_of(i) << "\"\n"
           << snippets[i] << "\n}\n";
  }
  // The repository is called shoal, and so is its folder among the runfiles.
  const std::string command =
      "LC_ALL=C " + compiler + " -std=c++20 -fsyntax-only -I'" +
      getenv("TEST_SRCDIR") + "' " + options + " '" + path.string() + "' 2>&1";
  FILE* pipe = popen(command.c_str(), "r");
  std::string text;
  for (int c; (c = getc(pipe)) != EOF;) text += static_cast<char>(c);
  return {pclose(pipe) == 0, text};
}

// The number of the snippet that a line of the compiler's begins with.
std::optional<std::size_t> mentioned(const std::string& line) {
  std::size_t number = 0;
  if (sscanf(line.c_str(), "snippet%zu:", &number) == 1) return number;
  return std::nullopt;
}

// The errors in each snippet: g++ says before an error where it comes from,
// clang afterwards.
std::vector<std::string> errors_by_snippet(const std::string& text,
                                           bool says_before,
                                           std::size_t snippets) {
  std::vector<std::string> errors(snippets + 1);  // the last: of none
  std::string waiting;
  std::size_t at = snippets;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const auto number = mentioned(line);
    if (number) at = *number;
    const bool is_error = line.find("error: ") != line.npos;
    if (is_error && (says_before || number))
      errors.at(at) += line + "\n";
    else if (is_error)
      waiting += line + "\n";
    else if (number && !waiting.empty())
      errors.at(at) += std::exchange(waiting, {});
  }
  return errors;
}

// {a snippet that must not compile, what the compiler must say}. What cannot
// travel occurs once in all of them: the compilers complain once of each.
const std::pair<std::string, std::string> kRefused[] = {
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

void check(const std::string& compiler, const std::string& no_limit,
           bool says_before) {
  if (access(compiler.c_str(), X_OK) != 0)
    GTEST_SKIP() << compiler << " is not installed";

  const Outcome accepted =
      compile(compiler, "", {std::begin(kAccepted), std::end(kAccepted)});
  EXPECT_TRUE(accepted.compiles) << accepted.text;

  std::vector<std::string> snippets;
  for (const auto& [snippet, sentence] : kRefused) snippets.push_back(snippet);
  const Outcome refused = compile(compiler, no_limit, snippets);
  EXPECT_FALSE(refused.compiles);
  const auto errors =
      errors_by_snippet(refused.text, says_before, snippets.size());
  for (std::size_t i = 0; i < snippets.size(); ++i)
    EXPECT_NE(errors[i].find(kRefused[i].second), std::string::npos)
        << snippets[i] << "\n"
        << errors[i];
  if (testing::Test::HasFailure()) std::cout << refused.text;
}

TEST(Refusals, OfGcc) { check("/usr/bin/g++", "-fmax-errors=0", true); }
TEST(Refusals, OfClang) { check("/usr/bin/clang++", "-ferror-limit=0", false); }

}  // namespace
