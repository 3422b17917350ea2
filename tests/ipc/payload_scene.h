#pragma once
// What tests look at in a queue beside its interface: its blocks and rings.

#include <cstddef>
#include <cstdint>
#include <string>

#include "shoal/ipc/queue.h"

namespace shoal::support {

template <class T>
auto& local_of(const Queue<T>& queue) {
  Object& object = *HandleAccess::object(queue);
  if constexpr (std::is_trivially_copyable_v<T>)
    return QueueLocal<T, false>::of(object);
  else
    return QueueLocal<payload::Parcel, true>::of(object);
}
template <class T>
payload::Store& store_of(const Queue<T>& queue) {
  return local_of(queue).store();
}
// After a look for the dead.
template <class T>
std::size_t blocks_in_use(const Queue<T>& queue) {
  local_of(queue).settle();
  return store_of(queue).blocks_in_use();
}
template <class T>
std::uint32_t rings_of(const Queue<T>& queue) {
  std::uint32_t rings = 0;
  local_of(queue).rings().each([&](auto&, std::uint32_t) { ++rings; });
  return rings;
}

// `bytes` of text that says which it is, in every byte.
inline std::string text(std::uint64_t number, std::size_t bytes) {
  std::string text = std::to_string(number) + ':';
  text.reserve(bytes);
  std::uint64_t state = number * 0x9E3779B97F4A7C15 + bytes;
  while (text.size() < bytes) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    text += static_cast<char>('a' + state % 26);
  }
  text.resize(bytes);
  return text;
}
// The number, or nothing when a byte is another.
inline std::optional<std::uint64_t> number_in(const std::string& got) {
  std::uint64_t number = 0;
  for (const char c : got) {
    if (c < '0' || c > '9') break;
    number = number * 10 + static_cast<std::uint64_t>(c - '0');
  }
  if (got != text(number, got.size())) return std::nullopt;
  return number;
}

}  // namespace shoal::support
