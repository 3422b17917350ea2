#pragma once
// Arena: blocks of any size in shared memory that several processes take and
// give back, of which any may be killed.
//
//   Arena arena(state, memory);
//   BlockRef block = arena.allocate(bytes, arena_owner::process(3));
//   std::memcpy(arena.data(block), ...);      arena.release(block);
//
// One region of address space for each power of two; pages come when a block
// first needs them and stay with the block, so that what is used again costs
// no page fault. A block's word names its owner; the bit maps are only hints
// where a free block may be found.
//
// Sharing:  any process that inherited the mapping.
// Death:    taking a block is one CAS that names the owner; sweep() frees what
//           a dead process held, and sets the hints that it did not get to.
// Cost:     a CAS and a bit to take, a store and a bit to give back.
// Layout:   docs/layout.md#arena

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <type_traits>

#include "shoal/ipc/segment.h"

namespace shoal {

// Blocks of 2^8 ... 2^kLargest bytes.
inline constexpr unsigned kSmallestBlock = 8;
inline constexpr unsigned kBlockClasses = 34;

// class + 1 << 40 | index; 0: no block.
using BlockRef = std::uint64_t;

// A block's word: 0 free, else its owner.
namespace arena_owner {
constexpr std::uint64_t process(std::uint32_t number) {
  return std::uint64_t{1} << 62 | number;
}
constexpr std::uint64_t task(std::uint32_t index, std::uint32_t generation) {
  return std::uint64_t{2} << 62 | std::uint64_t{generation & 0x3FFFFFFF} << 32 |
         index;
}
}  // namespace arena_owner

struct ArenaState {
  struct alignas(64) Class {
    std::atomic<std::uint64_t> high;    // blocks ever taken; any allocator
    std::atomic<std::uint64_t> hint;    // word of the bit map to look at first
    std::atomic<std::uint64_t> backed;  // bytes with pages, of small classes
    std::atomic<std::uint64_t> may_have_free;  // hint: worth a look at the map
  };
  std::uint64_t region_bytes;  // of each class
  std::array<Class, kBlockClasses> classes;
};
static_assert(std::is_standard_layout_v<ArenaState>);

class Arena {
 public:
  // Address space for an arena whose classes have `region_bytes` each.
  static std::size_t mapping_bytes(std::size_t region_bytes);
  // What suits this machine: room for all its memory in each class.
  static std::size_t default_region_bytes();

  // `state` is zeroed but for region_bytes; `memory` is mapping_bytes() of
  // zeroed shared memory, page-aligned; `file` backs it, from `offset` on.
  Arena(ArenaState& state, std::byte* memory,
        std::shared_ptr<const segment::File> file, std::size_t offset);

  // At least `bytes`, owned by `owner`. Throws NoSpace.
  BlockRef allocate(std::size_t bytes, std::uint64_t owner);
  // Hands an allocated block to another owner.
  void assign(BlockRef block, std::uint64_t owner);
  void release(BlockRef block);

  // Throws Corrupt for a reference that no arena gives, or when `bytes` do
  // not fit the block.
  std::byte* data(BlockRef block, std::size_t bytes) const;

  // Frees every block whose owner is one of these two (0: none); returns how
  // many. By one process at a time.
  std::size_t sweep(std::uint64_t owner, std::uint64_t other = 0);
  // Blocks in use, for tests.
  std::size_t blocks_in_use() const;

 private:
  static constexpr unsigned kSmallClasses = 17 - kSmallestBlock;  // to 64 KiB

  struct ClassView {
    ArenaState::Class* shared;
    std::atomic<std::uint64_t>* words;   // one a block
    std::atomic<std::uint64_t>* bits;    // one bit a block: may be free
    std::atomic<std::uint64_t>* backed;  // one a block, of large classes
    std::byte* blocks;
    std::uint64_t count;
  };

  static unsigned class_of(std::size_t bytes);
  const ClassView& view(BlockRef block, std::uint64_t& index) const;
  bool take_free(unsigned c, std::uint64_t owner, std::uint64_t& index);
  bool find_free(unsigned c, std::uint64_t owner, std::uint64_t& index);
  bool take_new(unsigned c, std::uint64_t owner, std::uint64_t& index);
  void back(unsigned c, std::uint64_t index, std::size_t bytes);
  void commit(const std::byte* start, std::size_t bytes);
  std::size_t trim(std::uint64_t owner);
  void mark_free(const ClassView& v, std::uint64_t index);
  static void set_hint(const ClassView& v, std::uint64_t index);

  std::byte* memory_;
  std::shared_ptr<const segment::File> file_;
  std::size_t offset_;
  std::array<ClassView, kBlockClasses> classes_;
  // Bytes that may be committed before the limits are read again.
  std::atomic<std::int64_t> budget_{0};
};

// Gives the range pages, and this process their mapping. Throws NoSpace.
void populate(const segment::File& file, std::size_t file_offset,
              const std::byte* start, std::size_t bytes);

}  // namespace shoal
