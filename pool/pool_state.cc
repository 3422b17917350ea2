#include "shoal/pool/pool_state.h"

#include <sys/mman.h>

#include <system_error>

#include "shoal/ipc/errors.h"

namespace shoal::pool {
namespace {

constexpr std::size_t kSmallestRegion = std::size_t{1} << 30;

std::uint32_t ring_size(std::uint32_t index) { return kFirstRing << index; }

std::size_t ring_bytes(std::uint32_t index) {
  return segment::round_to_page(Ring::bytes(ring_size(index)));
}

}  // namespace

Memory::Memory(std::uint32_t workers, liveness::DomainUse domain)
    : domain_(std::move(domain)) {
  const std::size_t slots_offset = segment::round_to_page(sizeof(PoolState));
  rings_offset_ =
      slots_offset + segment::round_to_page(workers * sizeof(SlotState));
  tasks_offset_ = ring_offset(kRings);
  const std::size_t arena_offset =
      tasks_offset_ +
      segment::round_to_page(std::size_t{kMaxTasks} * sizeof(task::TaskState));
  // Address space only; less of it where a limit is set.
  std::size_t region = Arena::default_region_bytes();
  std::size_t total;
  for (;; region /= 2) {
    total = arena_offset + Arena::mapping_bytes(region);
    try {
      file_ = std::make_shared<const segment::File>(
          segment::File::anonymous("pool", total));
      mapping_ = file_->map(0, total, false, false);
      break;
    } catch (const std::system_error&) {
      if (region <= kSmallestRegion) throw;
    }
  }
  file_->seal();
  // A core dump would walk all the address space.
  madvise(mapping_.get(), total, MADV_DONTDUMP);
  populate(*file_, 0, at(0), rings_offset_);
  state_ = reinterpret_cast<PoolState*>(at(0));
  slots_ = reinterpret_cast<SlotState*>(at(slots_offset));
  tasks_ = reinterpret_cast<task::TaskState*>(at(tasks_offset_));
  state_->workers = workers;
  state_->arena.region_bytes = region;
  rings_.reserve(kRings);
  for (std::uint32_t i = 0; i < kRings; ++i) {
    auto* ring = reinterpret_cast<cells::RingState*>(at(ring_offset(i)));
    rings_.emplace_back(*ring, ring_size(i), *domain_, spin_);
  }
  arena_ = std::make_unique<Arena>(state_->arena, at(arena_offset), file_,
                                   arena_offset);
  populate_ring(0);
}

std::size_t Memory::ring_offset(std::uint32_t index) const {
  std::size_t offset = rings_offset_;
  for (std::uint32_t i = 0; i < index; ++i) offset += ring_bytes(i);
  return offset;
}

void Memory::throw_no_task(std::uint32_t index) {
  throw Corrupt("shoal: task " + std::to_string(index) + " does not exist");
}

void Memory::populate_ring(std::uint32_t index) {
  segment::check_available(file_->what(), ring_bytes(index));
  populate(*file_, ring_offset(index), at(ring_offset(index)),
           ring_bytes(index));
}

void Memory::populate_tasks(std::uint32_t first, std::uint32_t last) {
  const std::size_t offset = tasks_offset_ + first * sizeof(task::TaskState);
  populate(*file_, offset, at(offset),
           (last - first) * sizeof(task::TaskState));
}

void Memory::wake_bits(std::uint32_t bits) {
  // seq_cst: against a waiter that announces itself at this moment.
  // KILL: flags gone, nobody woken: the nursery wakes all when a worker dies.
  state_->sleepers.fetch_and(~bits, std::memory_order_seq_cst);
  futex::wake(state_->sleepers, futex::kAll);
  // SYNC(pool.bells)
  // KILL: gone and not rung: the nursery wakes all when a worker dies.
  if (state_->bells.exchange(0, std::memory_order_acq_rel) != 0)
    domain_->ring_bell();
}

void Memory::announce(std::uint32_t index) {
  // SYNC(pool.bells): before the flag that makes a completer look at it.
  state_->bells.store(1, std::memory_order_release);
  // seq_cst: the race closed is announce/look against complete/look.
  state_->sleepers.fetch_or(bit_of(index), std::memory_order_seq_cst);
}

}  // namespace shoal::pool
