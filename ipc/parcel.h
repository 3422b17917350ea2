#pragma once
// Parcel: what a queue's cell carries of a message that is not copied as it
// lies: its bytes, or where they are.
//
// Layout: docs/layout.md#queue

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>
#include <utility>

#include "shoal/ipc/codec.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/passage.h"
#include "shoal/ipc/payload_store.h"

namespace shoal::payload {

struct Parcel {
  static constexpr std::size_t kInside = 48;

  std::uint64_t bytes;  // of the message
  union {
    std::byte inside[kInside];  // up to kInside
    BlockRef block;             // more
  };
};
static_assert(std::is_trivially_copyable_v<Parcel> && sizeof(Parcel) == 56);

// A parcel in this thread's hands: frees its block when it goes, unless it was
// sent.
class InHand {
 public:
  explicit InHand(Store& store) : store_(store) {}
  InHand(const InHand&) = delete;
  InHand& operator=(const InHand&) = delete;
  ~InHand() {
    if (mine_) store_.release(parcel.block);
  }

  // Its block is this thread's.
  void received() { mine_ = parcel.bytes > Parcel::kInside; }
  void sent() { mine_ = false; }

  // Where the message is to be written, or lies. Throws Corrupt.
  std::span<std::byte> memory() {
    return {parcel.bytes > Parcel::kInside
                ? store_.data(parcel.block, parcel.bytes)
                : parcel.inside,
            parcel.bytes};
  }

  Parcel parcel{};

 private:
  Store& store_;
  bool mine_ = false;
};

template <class T>
T unpack(InHand& hand) {
  Arrival arrival;
  codec::Reader reader(hand.memory(), &arrival);
  T value = codec::decode<T>(reader);
  reader.finish();
  return value;
}

// What handles are inside is let go of. Never throws: what cannot be decoded
// holds none.
template <class T>
void discard(InHand& hand) noexcept {
  try {
    unpack<T>(hand);
  } catch (...) {
  }
}

}  // namespace shoal::payload
