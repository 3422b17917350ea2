#include "shoal/ipc/payload_store.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <exception>
#include <string>
#include <system_error>
#include <utility>

#include "shoal/ipc/asymmetric_fence.h"
#include "shoal/ipc/errors.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23  // Linux 5.14
#endif

namespace shoal::payload {
namespace {

constexpr unsigned kRefShift = 40;
constexpr std::uint64_t kRefMask = (std::uint64_t{1} << kRefShift) - 1;
constexpr std::size_t kFirstExtent = 64 * 1024;
constexpr unsigned kLargestClass = kSmallest + kMostClasses - 1;

// Address space of each class: what all of its blocks hold together.
std::uint64_t region_of(std::uint64_t most_bytes) {
  constexpr std::uint64_t kMost = std::uint64_t{1} << kLargestClass;
  return std::bit_ceil(
      std::clamp<std::uint64_t>(most_bytes, segment::kPage, kMost));
}
unsigned classes_of(std::uint64_t region) {
  return static_cast<unsigned>(std::countr_zero(region)) - kSmallest + 1;
}
constexpr std::size_t block_bytes(unsigned c) {
  return std::size_t{1} << (c + kSmallest);
}
std::size_t control_bytes(std::uint64_t region, unsigned c) {
  return segment::round_to_page((region >> (c + kSmallest)) *
                                sizeof(BlockState));
}
std::size_t all_control_bytes(std::uint64_t region) {
  std::size_t bytes = 0;
  for (unsigned c = 0; c < classes_of(region); ++c)
    bytes += control_bytes(region, c);
  return bytes;
}

unsigned class_of(std::size_t bytes) {
  return static_cast<unsigned>(
             std::bit_width(std::max(bytes, std::size_t{1} << kSmallest) - 1)) -
         kSmallest;
}

}  // namespace

std::size_t tail_bytes(std::uint64_t most_bytes) {
  const std::uint64_t region = region_of(most_bytes);
  return all_control_bytes(region) + region * classes_of(region);
}

Store::Store(StoreState& state, const Object& object, std::size_t offset,
             std::uint64_t most_bytes)
    : state_(state),
      object_(object),
      domain_(object.domain()),
      fenced_(object.domain().needs_fence()) {
  const std::uint64_t region = region_of(most_bytes);
  class_count_ = classes_of(region);
  const std::size_t control = all_control_bytes(region);
  control_ = object.tail(offset, control, false);
  auto* next = static_cast<std::byte*>(control_.get());
  std::size_t data = offset + control;
  for (unsigned c = 0; c < class_count_; ++c) {
    Class& k = classes_[c];
    k.count = region >> (c + kSmallest);
    k.first = std::min<std::uint64_t>(
        k.count, std::max<std::size_t>(1, kFirstExtent / block_bytes(c)));
    k.extents = static_cast<unsigned>(std::countr_zero(k.count / k.first)) + 1;
    k.control_offset =
        offset + static_cast<std::size_t>(
                     next - static_cast<std::byte*>(control_.get()));
    k.data_offset = data;
    k.blocks = reinterpret_cast<BlockState*>(next);
    next += control_bytes(region, c);
    data += region;
  }
}

Store::~Store() {
  for (Class& k : classes_)
    // relaxed: nobody uses it any more.
    for (auto& mapped : k.mapped) delete mapped.load(std::memory_order_relaxed);
}

std::uint64_t Store::with_pages(unsigned c) const {
  const Class& k = classes_[c];
  // SYNC(store.extents): they have pages.
  const std::uint64_t extents = std::min<std::uint64_t>(
      state_.classes[c].extents.load(std::memory_order_acquire), k.extents);
  return extents == 0 ? 0 : k.first << (extents - 1);
}

BlockState* Store::find(BlockRef block) {
  const std::uint64_t c = (block >> kRefShift) - 1;
  const std::uint64_t index = block & kRefMask;
  if (c >= class_count_ || index >= with_pages(static_cast<unsigned>(c)))
    return nullptr;
  return &classes_[c].blocks[index];
}

// ---- allocation ----

BlockRef Store::allocate(std::size_t bytes, Who owner, std::uint64_t limit) {
  if (!account(bytes, limit)) return 0;
  try {
    std::uint64_t index;
    for (unsigned c = class_of(bytes); c < class_count_; ++c) {
      bool taken = take(c, owner, index);
      while (!taken && add_extent(c)) taken = take(c, owner, index);
      if (!taken) continue;  // all of that size are in use: a larger one
      // relaxed: the owner's, and a hint for whoever counts.
      classes_[c].blocks[index].bytes.store(bytes, std::memory_order_relaxed);
      try {
        back(c, index, bytes);
      } catch (...) {
        let_go(c, index);
        throw;
      }
      return std::uint64_t{c + 1} << kRefShift | index;
    }
  } catch (...) {
    discount(bytes);
    throw;
  }
  discount(bytes);
  return 0;
}

// KILL: counted, not taken: until the next count after our death.
bool Store::account(std::uint64_t bytes, std::uint64_t limit) {
  // relaxed: a limit, which orders nothing.
  std::uint64_t used = state_.used.load(std::memory_order_relaxed);
  int recounts = 2;
  for (;;) {
    if (bytes > limit || used > limit - bytes) {
      if (bytes > limit || recounts-- == 0 || !recount()) return false;
      used = state_.used.load(std::memory_order_relaxed);
    } else if (state_.used.compare_exchange_weak(used, used + bytes,
                                                 std::memory_order_relaxed)) {
      return true;
    }
  }
}

// Not below 0: a count may have missed what was on its way.
void Store::discount(std::uint64_t bytes) {
  // relaxed: as above.
  std::uint64_t used = state_.used.load(std::memory_order_relaxed);
  while (!state_.used.compare_exchange_weak(used, used - std::min(used, bytes),
                                            std::memory_order_relaxed)) {
  }
}

// After deaths only. True: `used` is another now.
bool Store::recount() {
  const std::uint64_t deaths = domain_.deaths();
  // relaxed throughout: whoever comes at the same time counts the same.
  if (state_.counted.load(std::memory_order_relaxed) == deaths) return false;
  std::uint64_t before = state_.used.load(std::memory_order_relaxed);
  std::uint64_t bytes = 0;
  for (unsigned c = 0; c < class_count_; ++c) {
    const std::uint64_t count = with_pages(c);
    for (std::uint64_t index = 0; index < count; ++index) {
      const BlockState& block = classes_[c].blocks[index];
      if (block.owner.load(std::memory_order_relaxed) != 0)
        bytes += block.bytes.load(std::memory_order_relaxed);
    }
  }
  // KILL: counted again by the next one.
  if (!state_.used.compare_exchange_strong(before, bytes,
                                           std::memory_order_relaxed))
    return true;
  state_.counted.store(deaths, std::memory_order_relaxed);
  return bytes != before;
}

bool Store::claim(unsigned c, std::uint64_t index, Who owner) {
  auto& word = classes_[c].blocks[index].owner;
  std::uint64_t free = 0;
  // relaxed: the CAS looks again.
  return word.load(std::memory_order_relaxed) == 0 &&
         // SYNC(store.owner): the last owner is done with the block.
         // KILL: ours, and no cell refers to it: a sweep frees it.
         word.compare_exchange_strong(free, owner, std::memory_order_acquire,
                                      std::memory_order_relaxed);
}

bool Store::take(unsigned c, Who owner, std::uint64_t& index) {
  StoreState::Class& shared = state_.classes[c];
  const std::uint64_t count = with_pages(c);
  if (count == 0) return false;
  // The one that was freed last is in some cache still.
  // relaxed: hints; the owner's word decides.
  const std::uint64_t freed = shared.freed.load(std::memory_order_relaxed);
  if (freed != 0 && freed <= count) {
    shared.freed.store(0, std::memory_order_relaxed);
    index = freed - 1;
    if (claim(c, index, owner)) return true;
  }
  index = shared.next.load(std::memory_order_relaxed);
  for (std::uint64_t n = 0; n < count; ++n, ++index) {
    if (index >= count) index = 0;
    if (!claim(c, index, owner)) continue;
    shared.next.store(index + 1, std::memory_order_relaxed);
    return true;
  }
  return false;
}

// False: there are no more.
bool Store::add_extent(unsigned c) {
  const Class& k = classes_[c];
  auto& extents = state_.classes[c].extents;
  // SYNC(store.extents)
  std::uint64_t e = extents.load(std::memory_order_acquire);
  if (e >= k.extents) return false;
  const std::uint64_t first = e == 0 ? 0 : k.first << (e - 1);
  const std::uint64_t count = e == 0 ? k.first : first;
  reserve(k.control_offset + first * sizeof(BlockState),
          count * sizeof(BlockState));
  if (c < kSmallClasses)
    reserve(k.data_offset + first * block_bytes(c), count * block_bytes(c));
  // SYNC(store.extents)
  // KILL: before it the next one reserves the same pages again.
  extents.compare_exchange_strong(e, e + 1, std::memory_order_acq_rel,
                                  std::memory_order_relaxed);
  return true;
}

void Store::back(unsigned c, std::uint64_t index, std::size_t bytes) {
  if (c < kSmallClasses) return;
  BlockState& block = classes_[c].blocks[index];
  // relaxed: the owner's.
  const std::uint64_t backed = block.backed.load(std::memory_order_relaxed);
  const std::size_t wanted = segment::round_to_page(bytes);
  if (wanted <= backed) return;
  reserve(classes_[c].data_offset + index * block_bytes(c) + backed,
          wanted - backed);
  // KILL: with pages that nobody knows of: reserved again when it is needed.
  block.backed.store(wanted, std::memory_order_relaxed);
  // Only saves the faults.
  madvise(address(c, index) + backed, wanted - backed, MADV_POPULATE_WRITE);
}

void Store::reserve(std::size_t offset, std::size_t bytes) {
  try {
    object_.reserve_tail(offset, bytes);
  } catch (const NoSpace&) {
    // Pages of free blocks may do.
    if (trim() == 0) throw;
    object_.reserve_tail(offset, bytes);
  }
}

// False: the kernel refuses, and all of the pages are there.
bool Store::discard(std::size_t offset, std::size_t bytes) {
  try {
    object_.discard_tail(offset, bytes);
    return true;
  } catch (const std::system_error&) {
    // Some may have gone.
    try {
      object_.reserve_tail(offset, bytes);
      return false;
    } catch (const std::exception&) {
      return true;
    }
  }
}

// Large blocks only, for they have pages of their own.
std::size_t Store::trim() {
  std::size_t freed = 0;
  const Who me = domain_.seat();
  for (unsigned c = kSmallClasses; c < class_count_; ++c) {
    const std::uint64_t count = with_pages(c);
    for (std::uint64_t index = 0; index < count; ++index) {
      BlockState& block = classes_[c].blocks[index];
      // relaxed: a hint.
      if (block.backed.load(std::memory_order_relaxed) == 0 ||
          !claim(c, index, me))
        continue;
      // relaxed: ours now.
      // KILL: `backed` first, so that it never promises pages that are gone.
      const std::uint64_t backed =
          block.backed.exchange(0, std::memory_order_relaxed);
      block.bytes.store(0, std::memory_order_relaxed);
      if (backed != 0 &&
          discard(classes_[c].data_offset + index * block_bytes(c), backed))
        freed += backed;
      else
        block.backed.store(backed, std::memory_order_relaxed);
      let_go(c, index);
    }
  }
  return freed;
}

// ---- in use ----

bool Store::hold(BlockRef ref, Who owner) noexcept {
  BlockState* block = find(ref);
  if (block == nullptr) return false;
  // SYNC(store.owner)
  // KILL: ours, and the cell refers to it still: it is delivered again; once
  // the cell is committed a sweep frees it.
  block->owner.store(owner, std::memory_order_release);
  return true;
}

void Store::let_go(unsigned c, std::uint64_t index) {
  // SYNC(store.owner)
  // KILL: free; the hint is only a hint.
  classes_[c].blocks[index].owner.store(0, std::memory_order_release);
  // relaxed: a hint.
  state_.classes[c].freed.store(index + 1, std::memory_order_relaxed);
}

void Store::release(BlockRef ref) {
  const BlockState* block = find(ref);
  if (block == nullptr) return;
  domain_.seat();
  const liveness::PassedWake armed(liveness::thread_context.robust,
                                   state_.wait.word);
  // relaxed: ours.
  const std::uint64_t bytes = block->bytes.load(std::memory_order_relaxed);
  let_go(static_cast<unsigned>((ref >> kRefShift) - 1), ref & kRefMask);
  // KILL: free, and still counted as used until the next count.
  discount(bytes);
  wake_producers();
}

// All: how much each of them waits for is not known here.
void Store::wake_producers() {
  asymmetric_fence::light(fenced_);
  waiting::wake(state_.wait, waiting::Side::producers, domain_, futex::kAll);
  if (also_ == nullptr) return;
  // KILL: before this they look again within a second (Queue::wait_to_put).
  const liveness::PassedWake armed(liveness::thread_context.robust,
                                   also_->word);
  waiting::wake(*also_, waiting::Side::producers, domain_, futex::kAll);
}

std::byte* Store::data(BlockRef ref, std::size_t bytes) {
  const auto c = static_cast<unsigned>((ref >> kRefShift) - 1);
  if (find(ref) == nullptr || bytes > block_bytes(c))
    throw Corrupt(object_.name() + ": a message of " + std::to_string(bytes) +
                  " bytes names a block that does not hold it");
  return address(c, ref & kRefMask);
}

std::byte* Store::address(unsigned c, std::uint64_t index) {
  Class& k = classes_[c];
  const auto e =
      static_cast<unsigned>(std::bit_width(index / k.first));  // 0: the first
  const std::uint64_t first = e == 0 ? 0 : k.first << (e - 1);
  auto& mapped = k.mapped[e];
  // SYNC(store.mapped)
  const std::shared_ptr<void>* memory = mapped.load(std::memory_order_acquire);
  if (memory == nullptr) {
    const std::uint64_t count = e == 0 ? k.first : first;
    auto made = std::make_unique<std::shared_ptr<void>>(object_.tail(
        k.data_offset + first * block_bytes(c), count * block_bytes(c), false));
    std::shared_ptr<void>* known = nullptr;
    // SYNC(store.mapped): another thread may be faster.
    if (mapped.compare_exchange_strong(known, made.get(),
                                       std::memory_order_acq_rel))
      memory = made.release();
    else
      memory = known;
  }
  return static_cast<std::byte*>(memory->get()) +
         (index - first) * block_bytes(c);
}

// ---- recovery ----

std::vector<Store::Orphan> Store::orphans() const {
  std::vector<Orphan> found;
  for (unsigned c = 0; c < class_count_; ++c) {
    const std::uint64_t count = with_pages(c);
    for (std::uint64_t index = 0; index < count; ++index) {
      // SYNC(store.owner): before the cells are looked at.
      const std::uint64_t owner =
          classes_[c].blocks[index].owner.load(std::memory_order_acquire);
      if (owner != 0 && domain_.dead(owner))
        found.push_back({std::uint64_t{c + 1} << kRefShift | index, owner});
    }
  }
  return found;
}

void Store::release_orphans(std::span<const Orphan> orphans,
                            std::span<const BlockRef> referred) {
  domain_.seat();
  const liveness::PassedWake armed(liveness::thread_context.robust,
                                   state_.wait.word);
  bool any = false;
  for (const Orphan& orphan : orphans) {
    if (std::binary_search(referred.begin(), referred.end(), orphan.block))
      continue;
    BlockState* block = find(orphan.block);
    if (block == nullptr) continue;
    // relaxed: a stale number is counted anew.
    const std::uint64_t bytes = block->bytes.load(std::memory_order_relaxed);
    std::uint64_t owner = orphan.owner;
    // Fails when a consumer has taken it meanwhile, or another sweep freed it.
    // SYNC(store.owner)
    // KILL: free; `used` is counted again after our death.
    if (!block->owner.compare_exchange_strong(
            owner, 0, std::memory_order_acq_rel, std::memory_order_relaxed))
      continue;
    discount(bytes);
    any = true;
  }
  if (any) wake_producers();
}

std::size_t Store::blocks_in_use() const {
  std::size_t used = 0;
  for (unsigned c = 0; c < class_count_; ++c) {
    const std::uint64_t count = with_pages(c);
    for (std::uint64_t index = 0; index < count; ++index)
      // relaxed: a snapshot.
      used +=
          classes_[c].blocks[index].owner.load(std::memory_order_relaxed) != 0;
  }
  return used;
}

}  // namespace shoal::payload
