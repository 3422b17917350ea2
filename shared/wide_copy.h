#pragma once
// wide_copy: memcpy of a size known at compile time, for copies of a few cache
// lines that programs make millions of times a second. Where the processor has
// AVX it moves 32 bytes at once, whatever the program is compiled for; from
// 64 bytes to 4 KiB that is faster than what g++ makes of memcpy (see
// value_bench, which has memcpy in its seqlock).
//
// Each aligned 8-byte word is read and written as one, as by memcpy.

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace shoal {

// Sanitizers know memcpy.
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(memory_sanitizer)
#define SHOAL_WIDE_COPY 0
#endif
#endif
#if !defined(SHOAL_WIDE_COPY)
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__)
#define SHOAL_WIDE_COPY 1
#else
#define SHOAL_WIDE_COPY 0
#endif
#endif

#if SHOAL_WIDE_COPY

// A small copy that crosses a page is left to memcpy, since one wide store
// across it takes as long as hundreds of bytes.
template <std::size_t kSize>
[[gnu::always_inline]] inline bool pays_widely(const void* to) {
  constexpr std::size_t kPage = 4096;
  return kSize >= 512 ||
         reinterpret_cast<std::uintptr_t>(to) % kPage <= kPage - kSize;
}

// A load waits for an earlier store whose address ends in the same 12 bits: in
// this direction no load follows such a store closely.
[[gnu::always_inline]] inline bool goes_backwards(const void* to,
                                                  const void* from) {
  return (reinterpret_cast<std::uintptr_t>(to) -
          reinterpret_cast<std::uintptr_t>(from)) %
             4096 <
         2048;
}

// Memory is an operand: fences order it as they do any access.
[[gnu::always_inline]] inline void copy_line(std::byte* to,
                                             const std::byte* from) {
  struct Half {
    std::byte bytes[32];
  };
  auto* const into = reinterpret_cast<Half*>(to);
  auto* const of = reinterpret_cast<const Half*>(from);
  asm volatile(
      "vmovdqu %2, %%ymm0\n\t"
      "vmovdqu %3, %%ymm1\n\t"
      "vmovdqu %%ymm0, %0\n\t"
      "vmovdqu %%ymm1, %1"
      : "=m"(into[0]), "=m"(into[1])
      : "m"(of[0]), "m"(of[1])
      : "xmm0", "xmm1");
}
#endif

template <std::size_t kSize>
[[gnu::always_inline]] inline void wide_copy(void* to, const void* from) {
#if SHOAL_WIDE_COPY
  constexpr std::size_t kLine = 64;
  if constexpr (kSize >= kLine && kSize <= 4096) {
    if (__builtin_expect(
            __builtin_cpu_supports("avx") && pays_widely<kSize>(to), 1)) {
      auto* const into = static_cast<std::byte*>(to);
      auto* const of = static_cast<const std::byte*>(from);
      constexpr std::size_t kLines = kSize / kLine * kLine;
      if (kSize >= 512 && goes_backwards(to, from)) {
        for (std::size_t at = kLines; at != 0; at -= kLine)
          copy_line(into + at - kLine, of + at - kLine);
      } else {
        for (std::size_t at = 0; at != kLines; at += kLine)
          copy_line(into + at, of + at);
      }
      // It changes all that are named, should the caller be compiled for AVX.
      asm volatile("vzeroupper" ::
                       : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6",
                         "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",
                         "xmm13", "xmm14", "xmm15");
      std::memcpy(into + kLines, of + kLines, kSize % kLine);
      return;
    }
  }
#endif
  std::memcpy(to, from, kSize);
}

}  // namespace shoal
