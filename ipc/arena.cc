#include "shoal/ipc/arena.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <string>
#include <utility>

#include "shoal/ipc/errors.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23  // Linux 5.14
#endif

namespace shoal {
namespace {

constexpr unsigned kRefShift = 40;
constexpr std::uint64_t kRefMask = (std::uint64_t{1} << kRefShift) - 1;
constexpr std::size_t kSlab = 256 * 1024;

std::size_t block_bytes(unsigned c) {
  return std::size_t{1} << (c + kSmallestBlock);
}

std::size_t count_of(unsigned c, std::size_t region) {
  return region / block_bytes(c);
}

// Words, bits and backed words of one class.
std::size_t control_bytes(unsigned c, std::size_t region) {
  const std::size_t count = count_of(c, region);
  return segment::round_to_page(count * 8) +
         segment::round_to_page((count + 63) / 64 * 8) +
         segment::round_to_page(count * 8);
}

}  // namespace

void populate(const segment::File& file, std::size_t file_offset,
              const std::byte* start, std::size_t bytes) {
  const auto address = reinterpret_cast<std::uintptr_t>(start);
  const std::uintptr_t first = address & ~(segment::kPage - 1);
  const std::size_t length = segment::round_to_page(address + bytes - first);
  int outcome;
  do {
    outcome =
        madvise(reinterpret_cast<void*>(first), length, MADV_POPULATE_WRITE);
  } while (outcome != 0 && (errno == EINTR || errno == EAGAIN));
  if (outcome == 0) return;
  if (errno == EINVAL) {  // an older kernel: pages now, their mapping later
    file.reserve(file_offset - (address - first), length);
    return;
  }
  const int error = errno;
  throw NoSpace(file.what() + ": no space: wanted " + std::to_string(length) +
                    " bytes more (" + strerror(error) +
                    "); free memory, raise the cgroup's limit, or collect "
                    "results earlier",
                length, available_memory());
}

std::size_t Arena::mapping_bytes(std::size_t region_bytes) {
  std::size_t bytes = 0;
  for (unsigned c = 0; c < kBlockClasses; ++c)
    bytes += count_of(c, region_bytes) * block_bytes(c) +
             control_bytes(c, region_bytes);
  return bytes;
}

std::size_t Arena::default_region_bytes() {
  const auto pages = static_cast<std::size_t>(sysconf(_SC_PHYS_PAGES));
  constexpr std::size_t kMost = std::size_t{1} << 40;
  return std::min(std::bit_ceil(pages * segment::kPage), kMost);
}

Arena::Arena(ArenaState& state, std::byte* memory,
             std::shared_ptr<const segment::File> file, std::size_t offset)
    : memory_(memory), file_(std::move(file)), offset_(offset) {
  const std::size_t region = state.region_bytes;
  std::byte* next = memory;
  const auto take = [&next](std::size_t bytes) {
    return std::exchange(next, next + segment::round_to_page(bytes));
  };
  using Words = std::atomic<std::uint64_t>*;
  for (unsigned c = 0; c < kBlockClasses; ++c) {
    ClassView& v = classes_[c];
    v.count = count_of(c, region);
    v.shared = &state.classes[c];
    v.words = reinterpret_cast<Words>(take(v.count * 8));
    v.bits = reinterpret_cast<Words>(take((v.count + 63) / 64 * 8));
    v.backed = reinterpret_cast<Words>(take(v.count * 8));
    v.blocks = take(v.count * block_bytes(c));
  }
}

unsigned Arena::class_of(std::size_t bytes) {
  const auto bits = static_cast<unsigned>(
      std::bit_width(std::max(bytes, std::size_t{1} << kSmallestBlock) - 1));
  return bits - kSmallestBlock;
}

const Arena::ClassView& Arena::view(BlockRef block,
                                    std::uint64_t& index) const {
  const std::uint64_t c = (block >> kRefShift) - 1;
  index = block & kRefMask;
  if (c >= kBlockClasses || index >= classes_[c].count)
    throw Corrupt("shoal: a message names a block that does not exist");
  return classes_[c];
}

BlockRef Arena::allocate(std::size_t bytes, std::uint64_t owner) {
  const unsigned c = class_of(bytes);
  std::uint64_t index = 0;
  if (c >= kBlockClasses ||
      (!take_free(c, owner, index) && !take_new(c, owner, index)))
    throw NoSpace("shoal: a block of " + std::to_string(bytes) +
                      " bytes is beyond what the arena can hold",
                  bytes, classes_[0].count << kSmallestBlock);
  const BlockRef block = std::uint64_t{c + 1} << kRefShift | index;
  try {
    back(c, index, bytes);
  } catch (const NoSpace&) {
    // Pages of free blocks of other sizes may do.
    if (trim(owner) == 0) {
      release(block);
      throw;
    }
    try {
      back(c, index, bytes);
    } catch (...) {
      release(block);
      throw;
    }
  }
  return block;
}

bool Arena::take_free(unsigned c, std::uint64_t owner, std::uint64_t& index) {
  auto& may_have_free = classes_[c].shared->may_have_free;
  // relaxed: hints; the block's word decides.
  if (may_have_free.load(std::memory_order_relaxed) == 0) return false;
  if (find_free(c, owner, index)) return true;
  // Not before the first look, or others would take new blocks meanwhile; a
  // second look, for what was freed before the flag was gone.
  // seq_cst, as in set_hint(): the race closed is clear/look at the bits
  // against set a bit/look at the flag.
  may_have_free.store(0, std::memory_order_seq_cst);
  if (!find_free(c, owner, index)) return false;
  may_have_free.store(1, std::memory_order_relaxed);
  return true;
}

bool Arena::find_free(unsigned c, std::uint64_t owner, std::uint64_t& index) {
  const ClassView& v = classes_[c];
  // relaxed: hints, as above.
  const std::uint64_t high = v.shared->high.load(std::memory_order_relaxed);
  const std::uint64_t words = (std::min(high, v.count) + 63) / 64;
  if (words == 0) return false;
  const std::uint64_t start =
      v.shared->hint.load(std::memory_order_relaxed) % words;
  for (std::uint64_t n = 0; n < words; ++n) {
    const std::uint64_t w = (start + n) % words;
    // seq_cst: as above.
    std::uint64_t bits = v.bits[w].load(std::memory_order_seq_cst);
    while (bits != 0) {
      const auto bit = static_cast<unsigned>(std::countr_zero(bits));
      const std::uint64_t mask = std::uint64_t{1} << bit;
      bits &= bits - 1;
      index = w * 64 + bit;
      std::uint64_t free = 0;
      // SYNC(arena.word): the last owner is done with the block.
      // KILL: ours, and the hint still set: the next one fails here.
      const bool mine = v.words[index].compare_exchange_strong(
          free, owner, std::memory_order_acquire, std::memory_order_relaxed);
      // SYNC(arena.bits)
      v.bits[w].fetch_and(~mask, std::memory_order_acquire);
      if (mine) {
        v.shared->hint.store(w, std::memory_order_relaxed);
        return true;
      }
      // Freed since we looked, and that hint may be the one that we removed.
      // KILL: free without its hint, until a sweep.
      if (v.words[index].load(std::memory_order_relaxed) == 0)
        v.bits[w].fetch_or(mask, std::memory_order_relaxed);
    }
  }
  return false;
}

bool Arena::take_new(unsigned c, std::uint64_t owner, std::uint64_t& index) {
  const ClassView& v = classes_[c];
  // relaxed: hints, as above.
  std::uint64_t high = v.shared->high.load(std::memory_order_relaxed);
  for (index = high; index < v.count; ++index) {
    std::uint64_t free = 0;
    // SYNC(arena.word)
    // KILL: ours, above the mark: the next one passes over it, and sweep()
    // looks beyond the mark.
    if (!v.words[index].compare_exchange_strong(
            free, owner, std::memory_order_acquire, std::memory_order_relaxed))
      continue;
    while (high < index + 1 &&
           !v.shared->high.compare_exchange_weak(high, index + 1,
                                                 std::memory_order_relaxed)) {
    }
    return true;
  }
  return false;
}

void Arena::back(unsigned c, std::uint64_t index, std::size_t bytes) {
  const ClassView& v = classes_[c];
  if (c < kSmallClasses) {
    // Blocks of a small class get their pages by slabs, in order.
    const std::size_t end = (index + 1) * block_bytes(c);
    // SYNC(arena.backed)
    std::uint64_t backed = v.shared->backed.load(std::memory_order_acquire);
    if (end <= backed) return;
    const std::size_t target =
        std::min((end + kSlab - 1) / kSlab * kSlab, v.count * block_bytes(c));
    commit(v.blocks + backed, target - backed);
    while (
        backed < target &&
        !v.shared->backed.compare_exchange_weak(
            backed, target, std::memory_order_acq_rel)) {  // SYNC(arena.backed)
    }
    return;
  }
  // relaxed: the block is ours, and so is its word here.
  const std::uint64_t backed = v.backed[index].load(std::memory_order_relaxed);
  if (bytes <= backed) return;
  const std::size_t target = segment::round_to_page(bytes);
  std::byte* const start = v.blocks + index * block_bytes(c) + backed;
  try {
    commit(start, target - backed);
  } catch (const NoSpace&) {
    // The pages that it did get are no use to anybody.
    madvise(start, target - backed, MADV_REMOVE);
    throw;
  }
  v.backed[index].store(target, std::memory_order_relaxed);
}

void Arena::commit(const std::byte* start, std::size_t bytes) {
  const auto wanted = static_cast<std::int64_t>(bytes);
  // relaxed: a budget, not a promise.
  if (budget_.fetch_sub(wanted, std::memory_order_relaxed) < wanted) {
    const std::uint64_t available = available_memory();
    if (bytes > available) {
      budget_.store(0, std::memory_order_relaxed);
      throw NoSpace(file_->what() + ": no space: wanted " +
                        std::to_string(bytes) + " bytes more, available " +
                        std::to_string(available) +
                        "; free memory, raise the cgroup's limit, or collect "
                        "results earlier",
                    bytes, available);
    }
    budget_.store(static_cast<std::int64_t>((available - bytes) / 16),
                  std::memory_order_relaxed);
  }
  populate(*file_, offset_ + static_cast<std::size_t>(start - memory_), start,
           bytes);
}

std::size_t Arena::trim(std::uint64_t owner) {
  std::size_t freed = 0;
  for (unsigned c = kSmallClasses; c < kBlockClasses; ++c) {
    const ClassView& v = classes_[c];
    const std::uint64_t high = v.shared->high.load(std::memory_order_relaxed);
    for (std::uint64_t index = 0; index < high; ++index) {
      std::uint64_t free = 0;
      if (v.backed[index].load(std::memory_order_relaxed) == 0 ||
          // SYNC(arena.word)
          !v.words[index].compare_exchange_strong(free, owner,
                                                  std::memory_order_acquire,
                                                  std::memory_order_relaxed))
        continue;
      // KILL: the owner's, like any block; sweep() frees it.
      const std::uint64_t backed =
          v.backed[index].exchange(0, std::memory_order_relaxed);
      if (madvise(v.blocks + index * block_bytes(c), backed, MADV_REMOVE) == 0)
        freed += backed;
      mark_free(v, index);
    }
  }
  return freed;
}

void Arena::mark_free(const ClassView& v, std::uint64_t index) {
  // SYNC(arena.word)
  // KILL: free without its hint, until a sweep.
  v.words[index].store(0, std::memory_order_release);
  set_hint(v, index);
}

void Arena::set_hint(const ClassView& v, std::uint64_t index) {
  // SYNC(arena.bits): whoever removes the hint sees that the word is free.
  // seq_cst, here and below: as in take_free().
  v.bits[index / 64].fetch_or(std::uint64_t{1} << index % 64,
                              std::memory_order_seq_cst);
  auto& flag = v.shared->may_have_free;
  if (flag.load(std::memory_order_seq_cst) == 0)
    flag.store(1, std::memory_order_seq_cst);
}

void Arena::assign(BlockRef block, std::uint64_t owner) {
  std::uint64_t index;
  const ClassView& v = view(block, index);
  // SYNC(arena.word)
  // KILL: the new owner's; sweep() finds it by either name.
  v.words[index].store(owner, std::memory_order_release);
}

void Arena::release(BlockRef block) {
  std::uint64_t index;
  const ClassView& v = view(block, index);
  mark_free(v, index);
  v.shared->hint.store(index / 64, std::memory_order_relaxed);
}

std::byte* Arena::data(BlockRef block, std::size_t bytes) const {
  std::uint64_t index;
  const ClassView& v = view(block, index);
  const auto c = static_cast<unsigned>(&v - classes_.data());
  if (bytes > block_bytes(c))
    throw Corrupt("shoal: a message of " + std::to_string(bytes) +
                  " bytes does not fit its block");
  return v.blocks + index * block_bytes(c);
}

std::size_t Arena::sweep(std::uint64_t owner, std::uint64_t other) {
  std::size_t freed = 0;
  for (const ClassView& v : classes_) {
    const std::uint64_t high = v.shared->high.load(std::memory_order_relaxed);
    for (std::uint64_t index = 0; index < v.count; ++index) {
      // SYNC(arena.word)
      const std::uint64_t word = v.words[index].load(std::memory_order_acquire);
      if (index >= high && word == 0) break;
      if (word == 0) {
        // Whoever freed it may have died before setting the hint.
        set_hint(v, index);
      } else if (word == owner || (other != 0 && word == other)) {
        mark_free(v, index);
        ++freed;
      }
    }
  }
  return freed;
}

std::size_t Arena::blocks_in_use() const {
  std::size_t used = 0;
  for (const ClassView& v : classes_) {
    const std::uint64_t high = v.shared->high.load(std::memory_order_relaxed);
    for (std::uint64_t index = 0; index < high; ++index)
      used += v.words[index].load(std::memory_order_relaxed) != 0;
  }
  return used;
}

}  // namespace shoal
