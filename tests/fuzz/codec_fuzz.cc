// The codec under libFuzzer: tests/fuzz/run_codec_fuzz builds and runs it.

#include <cstddef>
#include <cstdint>

#include "tests/fuzz/codec_cases.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size) {
  shoal::fuzz::run(data, size);
  return 0;
}
