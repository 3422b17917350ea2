#pragma once
// What must not compile, and what the compiler must say instead.
//
//   const Refusals kRefusals{.prelude = "#include ...", .refused = {...}};
//   TEST(Refusals, OfGcc) { check_refusals(kRefusals, Compiler::gcc); }

#include <string>
#include <utility>
#include <vector>

namespace shoal::support {

struct Refusals {
  std::string prelude;  // before all snippets, each of which has a namespace
  // {a snippet that must not compile, what the compiler must say}.
  std::vector<std::pair<std::string, std::string>> refused;
  std::vector<std::string> accepted;
};

enum class Compiler { gcc, clang };

// Skips the test where it is not installed. All of a kind at once: a compiler
// may complain only once of what occurs twice.
void check_refusals(const Refusals& refusals, Compiler compiler);

}  // namespace shoal::support
