// wide_copy against memcpy, at sizes around each of its limits and at every
// alignment of the two sides.

#include "shoal/shared/wide_copy.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <array>
#include <cstddef>
#include <utility>

#include "gtest/gtest.h"

namespace shoal {
namespace {

constexpr std::size_t kRoom = 3 * 4096;
using Memory = std::array<unsigned char, kRoom>;

// Bytes that no shift of them resembles.
Memory noise(unsigned seed) {
  Memory memory;
  for (unsigned char& byte : memory) {
    seed = seed * 1664525 + 1013904223;
    byte = static_cast<unsigned char>(seed >> 24);
  }
  return memory;
}

template <std::size_t kSize>
void copies_as_memcpy() {
  SCOPED_TRACE(kSize);
  // Both begin at a page: some copies cross the next, and large ones go in both
  // directions.
  alignas(4096) const Memory from = noise(1);
  for (const std::size_t of : {0, 1, 8, 31, 40, 63})
    for (const std::size_t to : {0, 1, 8, 31, 40, 63, 2048, 3000, 4056, 4095}) {
      alignas(4096) Memory copied = noise(2);
      Memory wanted = copied;
      std::copy_n(from.begin() + of, kSize, wanted.begin() + to);
      wide_copy<kSize>(copied.data() + to, from.data() + of);
      ASSERT_TRUE(copied == wanted) << "from +" << of << " to +" << to;
    }
}

TEST(WideCopy, CopiesAllAndNothingElse) {
  [&]<std::size_t... kSizes>(std::index_sequence<kSizes...>) {
    (copies_as_memcpy<kSizes>(), ...);
  }
  (std::index_sequence<0, 1, 8, 63, 64, 65, 96, 100, 127, 128, 129, 191, 192,
                       1000, 4032, 4095, 4096, 4097, 5000>());
}

#if defined(__x86_64__)
// A caller that is compiled for AVX has whole registers to lose (-O2: BUILD).
[[gnu::target("avx")]] void sum_around_copies(const double* numbers,
                                              double* sums, void* to,
                                              const void* from) {
  __m256d a = _mm256_loadu_pd(numbers);
  __m256d b = _mm256_loadu_pd(numbers + 4);
  __m256d c = _mm256_loadu_pd(numbers + 8);
  for (int round = 0; round < 10; ++round) {
    wide_copy<128>(to, from);
    a = _mm256_add_pd(a, b);
    b = _mm256_add_pd(b, c);
    c = _mm256_add_pd(c, a);
  }
  _mm256_storeu_pd(sums, _mm256_add_pd(a, _mm256_add_pd(b, c)));
}

TEST(WideCopy, LeavesTheCallersRegistersAlone) {
  if (!__builtin_cpu_supports("avx")) GTEST_SKIP() << "no AVX here";
  const std::array<double, 12> numbers{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
  const Memory from = noise(3);
  Memory to = noise(4);
  std::array<double, 4> sums;
  sum_around_copies(numbers.data(), sums.data(), to.data(), from.data());
  for (std::size_t i = 0; i < sums.size(); ++i) {
    double a = numbers[i];
    double b = numbers[i + 4];
    double c = numbers[i + 8];
    for (int round = 0; round < 10; ++round) {
      a += b;
      b += c;
      c += a;
    }
    EXPECT_EQ(sums[i], a + b + c) << "in lane " << i;
  }
}
#endif

}  // namespace
}  // namespace shoal
