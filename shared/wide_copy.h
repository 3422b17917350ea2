#pragma once
// wide_copy: memcpy of a size known at compile time, for copies of a few cache
// lines that programs make millions of times a second. Where the processor has
// AVX it moves 32 bytes at once, whatever the program is compiled for; from
// 64 bytes to 4 KiB that is faster than what g++ makes of memcpy (see
// value_bench, which has memcpy in its seqlock).
//
// Each aligned 8-byte word is read and written as one, as by memcpy.

#include <cstddef>
#include <cstring>

namespace shoal {

// In a program compiled for AVX memcpy does the same.
#if defined(__x86_64__) && !defined(__AVX__)
#define SHOAL_WIDE_COPY 1
#endif

template <std::size_t kSize>
[[gnu::always_inline]] inline void wide_copy(void* to, const void* from) {
#if defined(SHOAL_WIDE_COPY)
  struct Half {
    std::byte bytes[32];
  };
  constexpr std::size_t kHalves = kSize / sizeof(Half) / 2 * 2;
  if constexpr (kHalves != 0 && kSize <= 4096) {
    if (__builtin_cpu_supports("avx")) {
      auto* into = static_cast<Half*>(to);
      auto* of = static_cast<const Half*>(from);
      for (std::size_t i = 0; i < kHalves; i += 2)
        asm volatile(
            "vmovdqu %2, %%ymm0\n\t"
            "vmovdqu %3, %%ymm1\n\t"
            "vmovdqu %%ymm0, %0\n\t"
            "vmovdqu %%ymm1, %1"
            : "=m"(into[i]), "=m"(into[i + 1])
            : "m"(of[i]), "m"(of[i + 1])
            : "xmm0", "xmm1");
      // It changes all that are named, should the caller be compiled for AVX.
      asm volatile("vzeroupper" ::
                       : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6",
                         "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",
                         "xmm13", "xmm14", "xmm15");
      std::memcpy(into + kHalves, of + kHalves, kSize % (2 * sizeof(Half)));
      return;
    }
  }
#endif
  std::memcpy(to, from, kSize);
}

}  // namespace shoal
