#include "shoal/ipc/side_blocks.h"

#include <algorithm>
#include <bit>
#include <string>
#include <system_error>

#include "shoal/ipc/errors.h"

namespace shoal {
namespace {

// So that messages which grow slowly don't need new pages each time.
std::size_t rounded(std::size_t bytes, std::size_t most) {
  constexpr std::size_t kDoubled = std::size_t{16} << 20;
  return std::min(bytes <= kDoubled
                      ? std::max(std::bit_ceil(bytes), std::size_t{64} << 10)
                      : segment::round_to_page(bytes),
                  most);
}

}  // namespace

std::optional<unsigned> SideBlocks::find_free() const {
  for (unsigned block = 0; block < ring::kBlocks; ++block)
    // SYNC(side.taken): what the receiver read, it has read.
    if (state_->blocks[block].taken.load(std::memory_order_acquire) == 0)
      return block;
  return std::nullopt;
}

std::byte* SideBlocks::take(unsigned block, std::size_t bytes) {
  ring::BlockState& state = state_->blocks[block];
  Mapping& mapping = mappings_[block];
  // relaxed: it is this side's turn, see find_free().
  if (mapping.bytes < bytes ||
      state.pages.load(std::memory_order_relaxed) < bytes) {
    const std::size_t wanted = rounded(bytes, span_);
    mapping = {object_->tail(offset(block), wanted, true), wanted};
    state.pages.store(wanted, std::memory_order_relaxed);
  }
  state.progress.store(0, std::memory_order_relaxed);
  // relaxed: published with the frame.
  // KILL: taken for ever, in a Pipe that has lost its sender.
  state.taken.store(1, std::memory_order_relaxed);
  return static_cast<std::byte*>(mapping.memory.get());
}

void SideBlocks::give_back(unsigned block) {
  // relaxed: only this side has seen it taken.
  state_->blocks[block].taken.store(0, std::memory_order_relaxed);
}

const std::byte* SideBlocks::map(std::uint64_t block, std::uint64_t bytes) {
  if (block >= ring::kBlocks || bytes == 0 || bytes > span_)
    corrupt(block, bytes, span_);
  const ring::BlockState& state = state_->blocks[block];
  // relaxed: published with the frame.
  const std::uint64_t pages = state.pages.load(std::memory_order_relaxed);
  if (bytes > pages || pages > span_) corrupt(block, bytes, pages);
  Mapping& mapping = mappings_[block];
  if (mapping.bytes < bytes) {
    const std::size_t wanted = segment::round_to_page(pages);
    mapping = {
        object_->tail(offset(static_cast<unsigned>(block)), wanted, false),
        wanted};
  }
  return static_cast<const std::byte*>(mapping.memory.get());
}

void SideBlocks::free(unsigned block) {
  ring::BlockState& state = state_->blocks[block];
  // relaxed: it is this side's turn.
  if (const auto pages = state.pages.load(std::memory_order_relaxed);
      pages > kKept && pages <= span_) {
    mappings_[block] = {};
    try {
      object_->discard_tail(offset(block), segment::round_to_page(pages));
      state.pages.store(0, std::memory_order_relaxed);
    } catch (const std::system_error&) {
      // They stay, and are used again: the message has been received.
    }
  }
  // SYNC(side.taken)
  // KILL: the block is the sender's again; its frame is still there, and goes
  // with its receiver.
  state.taken.store(0, std::memory_order_release);
}

void SideBlocks::corrupt(std::uint64_t block, std::uint64_t bytes,
                         std::uint64_t most) const {
  throw Corrupt("shoal: Pipe: a message of " + std::to_string(bytes) +
                " bytes in side block " + std::to_string(block) +
                ", which has " + std::to_string(most));
}

}  // namespace shoal
