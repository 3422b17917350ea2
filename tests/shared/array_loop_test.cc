// A loop over an Array compiles as one over plain memory: vectorised. Built
// with -O3; reads the machine code of this very program.

#include <stdio.h>

#include <array>
#include <regex>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "shoal/shared/array.h"

using shoal::Array;

// Found by their names in the symbol table.
extern "C" {
[[gnu::noinline]] void shoal_loop_range(Array<double>& array) {
  for (double& x : array) x *= 3;
}
[[gnu::noinline]] void shoal_loop_index(Array<double>& array) {
  const std::size_t size = array.size();
  double* const data = array.data();
  for (std::size_t i = 0; i < size; ++i) data[i] *= 3;
}
[[gnu::noinline]] void shoal_loop_span(Array<double>& array) {
  for (double& x : array.span()) x *= 3;
}
[[gnu::noinline]] void shoal_loop_two(const Array<double>& from,
                                      Array<double>& to) {
  double* out = to.begin();
  for (const double& x : from) *out++ = x * 3;
}
[[gnu::noinline]] void shoal_loop_vector(std::vector<double>& vector) {
  for (double& x : vector) x *= 3;
}
// One that cannot be: each depends on the one before.
[[gnu::noinline]] void shoal_loop_chain(Array<double>& array) {
  double product = 1;
  for (double& x : array) product = x = product * x;
}
}

namespace {

std::string code_of(const std::string& function) {
  const std::string command =
      "objdump -d --no-show-raw-insn --disassemble=" + function + " /proc/" +
      std::to_string(getpid()) + "/exe";
  FILE* const pipe = popen(command.c_str(), "re");
  if (pipe == nullptr) return {};
  std::string code;
  std::array<char, 4096> buffer;
  while (fgets(buffer.data(), buffer.size(), pipe) != nullptr)
    code += buffer.data();
  pclose(pipe);
  return code;
}

bool multiplies_packed(const std::string& code) {
#if defined(__x86_64__)
  static const std::regex packed(R"(\tv?mulpd\b)");
#else
  static const std::regex packed(R"(\tfmul\tv\d+\.2d)");
#endif
  return std::regex_search(code, packed);
}

TEST(ArrayLoop, IsVectorised) {
  // The control, first: what it looks like where it is, and where it is not.
  const std::string vector = code_of("shoal_loop_vector");
  ASSERT_TRUE(multiplies_packed(vector))
      << "not built with -O3, or no objdump (binutils):\n"
      << vector;
  const std::string chain = code_of("shoal_loop_chain");
  ASSERT_NE(chain.find("mul"), std::string::npos) << chain;
  ASSERT_FALSE(multiplies_packed(chain)) << chain;
  for (const char* function : {"shoal_loop_range", "shoal_loop_index",
                               "shoal_loop_span", "shoal_loop_two"})
    EXPECT_TRUE(multiplies_packed(code_of(function))) << code_of(function);
}

TEST(ArrayLoop, Multiplies) {
  Array<double> array(1001), other(1001);
  array.fill(1);
  shoal_loop_range(array);
  shoal_loop_index(array);
  shoal_loop_span(array);
  shoal_loop_two(array, other);
  // The linker drops what nobody calls.
  std::vector<double> ones(3, 1);
  shoal_loop_vector(ones);
  EXPECT_EQ(ones, std::vector<double>(3, 3));
  Array<double> twos(3);
  twos.fill(2);
  shoal_loop_chain(twos);
  EXPECT_EQ(twos[2], 8);
  for (std::size_t i = 0; i < array.size(); ++i) {
    ASSERT_EQ(array[i], 27);
    ASSERT_EQ(other[i], 81);
  }
}

}  // namespace
