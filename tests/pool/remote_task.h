#pragma once
// Tasks between two programs, over a pair of pipes.

#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <stdexcept>
#include <vector>

#include "shoal/pool/call.h"

namespace shoal::support {

struct VectorReply final : call::Reply {
  std::span<std::byte> allocate(std::size_t size) override {
    bytes.resize(size);
    return bytes;
  }
  std::vector<std::byte> bytes;
};

inline bool read_all(int from, void* to, std::size_t size) {
  auto* at = static_cast<std::byte*>(to);
  while (size != 0) {
    const ssize_t n = read(from, at, size);
    if (n <= 0) return false;
    at += n;
    size -= static_cast<std::size_t>(n);
  }
  return true;
}
// Empty at the end.
inline std::vector<std::byte> read_message(int from) {
  std::uint64_t size = 0;
  if (!read_all(from, &size, sizeof size)) return {};
  std::vector<std::byte> bytes(size);
  if (!read_all(from, bytes.data(), size)) return {};
  return bytes;
}
inline void write_message(int to, std::span<const std::byte> bytes) {
  const std::uint64_t size = bytes.size();
  std::vector<std::byte> all(sizeof size);
  std::memcpy(all.data(), &size, sizeof size);
  all.insert(all.end(), bytes.begin(), bytes.end());
  std::span<const std::byte> rest = all;
  while (!rest.empty()) {
    const ssize_t n = write(to, rest.data(), rest.size());
    if (n <= 0) throw std::runtime_error("the other program is gone");
    rest = rest.subspan(static_cast<std::size_t>(n));
  }
}

}  // namespace shoal::support
