#include "shoal/shared/npy.h"

#include <cstring>

namespace shoal::npy {

void write_header(void* page, const std::string& dtype, std::uint64_t size) {
  constexpr std::size_t kPreamble = 10;  // magic, version, length of the text
  constexpr std::size_t kText = kHeaderBytes - kPreamble;
  std::string text = "{'descr': '" + dtype +
                     "', 'fortran_order': False, 'shape': (" +
                     std::to_string(size) + ",), }";
  text.resize(kText - 1, ' ');
  text += '\n';
  auto* out = static_cast<unsigned char*>(page);
  std::memcpy(out, "\x93NUMPY\x01\x00", 8);
  out[8] = static_cast<unsigned char>(kText & 0xFF);
  out[9] = static_cast<unsigned char>(kText >> 8);
  std::memcpy(out + kPreamble, text.data(), text.size());
}

}  // namespace shoal::npy
