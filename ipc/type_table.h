#pragma once
// The types that have travelled through one direction of a Pipe, so that a
// frame names its type by a number and a mismatch can be told in words.
//
//   std::uint32_t number = types.number_of(layout_hash<T>(),
//   describe_layout<T>()); if (types.hash_of(number) != layout_hash<T>()) ...
//   types.text_of(number)
//
// A page of the object's tail for each, which gets its memory when the type is
// first sent.
//
// Sharing:  number_of() by the sender, the others by the receiver.
// Ordering: a frame that names a type is published after it.
// Death:    a type without its number is overwritten by the next one.
// Layout:   docs/layout.md#pipe

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "shoal/ipc/object.h"
#include "shoal/ipc/ring_state.h"

namespace shoal {

class TypeTable {
 public:
  static constexpr std::size_t kBytes = ring::kMostTypes * segment::kPage;

  TypeTable(const Object& object, ring::RingState& state, std::size_t start)
      : object_(&object), state_(&state), start_(start) {}

  // 1 or more. Throws NoSpace.
  std::uint32_t number_of(std::uint64_t hash, std::string_view text);
  // Throws Corrupt for a number that no sender has given.
  std::uint64_t hash_of(std::uint32_t number);
  std::string text_of(std::uint32_t number);

 private:
  struct Entry {
    std::uint64_t hash;
    std::uint32_t length;
    char text[segment::kPage - 16];
  };
  static_assert(sizeof(Entry) <= segment::kPage);

  Entry& entry(std::uint32_t number, bool reserve);
  Entry& known(std::uint32_t number);

  const Object* object_;
  ring::RingState* state_;
  std::size_t start_;
  std::vector<std::shared_ptr<void>> pages_;
};

}  // namespace shoal
