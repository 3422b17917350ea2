#include "tests/support/refusals.h"

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

#include "gtest/gtest.h"

namespace shoal::support {
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
                const std::string& prelude,
                const std::vector<std::string>& snippets) {
  const auto path =
      std::filesystem::path(getenv("TEST_TMPDIR")) / "snippets.cc";
  {
    std::ofstream file(path);
    file << prelude;
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

// The errors in each snippet, with the notes that follow: g++ says before an
// error where it comes from, clang afterwards.
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
    const bool is_note = line.find("note: ") != line.npos && waiting.empty();
    if (is_note || (is_error && (says_before || number)))
      errors.at(at) += line + "\n";
    else if (is_error)
      waiting += line + "\n";
    else if (number && !waiting.empty())
      errors.at(at) += std::exchange(waiting, {});
  }
  return errors;
}

}  // namespace

void check_refusals(const Refusals& refusals, Compiler kind) {
  const bool gcc = kind == Compiler::gcc;
  const std::string compiler = gcc ? "/usr/bin/g++" : "/usr/bin/clang++";
  if (access(compiler.c_str(), X_OK) != 0)
    GTEST_SKIP() << compiler << " is not installed";

  const Outcome accepted =
      compile(compiler, "", refusals.prelude, refusals.accepted);
  EXPECT_TRUE(accepted.compiles) << accepted.text;

  std::vector<std::string> snippets;
  for (const auto& [snippet, sentence] : refusals.refused)
    snippets.push_back(snippet);
  const Outcome refused =
      compile(compiler, gcc ? "-fmax-errors=0" : "-ferror-limit=0",
              refusals.prelude, snippets);
  EXPECT_FALSE(refused.compiles);
  const auto errors = errors_by_snippet(refused.text, gcc, snippets.size());
  for (std::size_t i = 0; i < snippets.size(); ++i)
    EXPECT_NE(errors[i].find(refusals.refused[i].second), std::string::npos)
        << snippets[i] << "\n"
        << errors[i];
  if (testing::Test::HasFailure()) std::cout << refused.text;
}

}  // namespace shoal::support
