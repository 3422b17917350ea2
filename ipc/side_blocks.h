#pragma once
// Side blocks: where messages lie that are long for the ring.
//
//   if (auto block = blocks.find_free()) {
//     std::byte* to = blocks.take(*block, n);       // NoSpace: nothing changed
//     ... a frame that names the block ...
//     memcpy(to, from, n); blocks.set_progress(*block, n);
//   }
//
// Four a direction, each with a range of the object's tail to itself: it gets
// pages when a message needs them, and keeps them and its mappings for the
// next, since touching pages for the first time costs more than the copy.
//
// Sharing:  the sending side is one thread's, and so is the receiving one.
// Ordering: what was written before set_progress() is visible to whoever sees
//           the number; what was read before free(), before it is used again.
// Death:    of the sender half-way: the message never is whole, and is
//           discarded. Pages live as long as the Pipe.
// Cost:     nothing but the copy, once it has pages.
// Layout:   docs/layout.md#pipe

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

#include "shoal/ipc/object.h"
#include "shoal/ipc/ring_state.h"

namespace shoal {

class SideBlocks {
 public:
  // Block b may use [start + b * span, start + (b + 1) * span) of the tail.
  SideBlocks(const Object& object, ring::RingState& state, std::size_t start,
             std::size_t span)
      : object_(&object), state_(&state), start_(start), span_(span) {}

  std::size_t most() const { return span_; }

  // ---- the sender ----

  std::optional<unsigned> find_free() const;
  // Memory of `bytes`, at most most(). Throws NoSpace.
  std::byte* take(unsigned block, std::size_t bytes);
  // It was taken and no frame names it.
  void give_back(unsigned block);
  void set_progress(unsigned block, std::uint64_t bytes) {
    // SYNC(side.progress)
    // KILL: fewer bytes than announced: the message is discarded.
    state_->blocks[block].progress.store(bytes, std::memory_order_release);
  }

  // ---- the receiver ----

  // Throws Corrupt for what no sender announces.
  const std::byte* map(std::uint64_t block, std::uint64_t bytes);
  // Throws Corrupt when there are more than there can be.
  std::uint64_t progress(unsigned block, std::uint64_t bytes) const {
    const std::uint64_t done =
        // SYNC(side.progress)
        state_->blocks[block].progress.load(std::memory_order_acquire);
    if (__builtin_expect(done > bytes, 0)) corrupt(block, done, bytes);
    return done;
  }
  void free(unsigned block);

 private:
  struct Mapping {
    std::shared_ptr<void> memory;
    std::size_t bytes = 0;
  };

  // More than this is not kept for the next message.
  static constexpr std::size_t kKept = std::size_t{64} << 20;

  std::size_t offset(unsigned block) const { return start_ + block * span_; }
  [[noreturn]] void corrupt(std::uint64_t block, std::uint64_t bytes,
                            std::uint64_t most) const;

  const Object* object_;
  ring::RingState* state_;
  std::size_t start_;
  std::size_t span_;
  std::array<Mapping, ring::kBlocks> mappings_;
};

}  // namespace shoal
