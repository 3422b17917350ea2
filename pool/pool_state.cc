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

Memory::Places::Places(std::uint32_t workers, std::size_t region_bytes)
    : slots(segment::round_to_page(sizeof(PoolState))),
      rings(slots + segment::round_to_page(workers * sizeof(SlotState))),
      tasks(ring(kRings)),
      arena(tasks + segment::round_to_page(std::size_t{kMaxTasks} *
                                           sizeof(task::TaskState))),
      end(arena + Arena::mapping_bytes(region_bytes)) {}

std::size_t Memory::Places::ring(std::uint32_t index) const {
  std::size_t offset = rings;
  for (std::uint32_t i = 0; i < index; ++i) offset += ring_bytes(i);
  return offset;
}

Memory::Memory(const Settings& settings, liveness::DomainUse domain)
    : domain_(std::move(domain)),
      id_(segment::random_id()),
      places_(settings.workers, Arena::default_region_bytes()) {
  // Address space only; less of it where a limit is set.
  std::size_t region = Arena::default_region_bytes();
  for (;; region /= 2) {
    places_ = Places(settings.workers, region);
    try {
      file_ = std::make_shared<const segment::File>(
          segment::File::anonymous("pool", places_.end));
      mapping_ = file_->map(0, places_.end, false, false);
      break;
    } catch (const std::system_error&) {
      if (region <= kSmallestRegion) throw;
    }
  }
  file_->seal();
  populate(*file_, 0, at(0), places_.rings);
  auto* const state = reinterpret_cast<PoolState*>(at(0));
  state->settings = settings;
  state->arena.region_bytes = region;
  find_parts();
  populate_ring(0);
}

Memory::Memory(segment::File file, std::uint64_t id, liveness::DomainUse domain)
    : domain_(std::move(domain)),
      file_(std::make_shared<const segment::File>(std::move(file))),
      id_(id),
      mapping_(file_->map(0, file_->size(), false, false)),
      places_(reinterpret_cast<PoolState*>(at(0))->settings.workers,
              reinterpret_cast<PoolState*>(at(0))->arena.region_bytes) {
  if (places_.end != file_->size())
    throw Corrupt("shoal: the memory of a pool is not of its size");
  find_parts();
}

void Memory::find_parts() {
  // A core dump would walk all the address space.
  madvise(mapping_.get(), places_.end, MADV_DONTDUMP);
  state_ = reinterpret_cast<PoolState*>(at(0));
  slots_ = reinterpret_cast<SlotState*>(at(places_.slots));
  tasks_ = reinterpret_cast<task::TaskState*>(at(places_.tasks));
  rings_.reserve(kRings);
  for (std::uint32_t i = 0; i < kRings; ++i) {
    auto* ring = reinterpret_cast<cells::RingState*>(at(places_.ring(i)));
    rings_.emplace_back(*ring, ring_size(i), *domain_, spin_);
  }
  arena_ = std::make_unique<Arena>(state_->arena, at(places_.arena), file_,
                                   places_.arena);
}

void Memory::throw_no_task(std::uint32_t index) {
  throw Corrupt("shoal: task " + std::to_string(index) + " does not exist");
}

void Memory::populate_ring(std::uint32_t index) {
  segment::check_available(file_->what(), ring_bytes(index));
  const std::size_t offset = places_.ring(index);
  populate(*file_, offset, at(offset), ring_bytes(index));
}

void Memory::populate_tasks(std::uint32_t first, std::uint32_t last) {
  const std::size_t offset = places_.tasks + first * sizeof(task::TaskState);
  populate(*file_, offset, at(offset),
           (last - first) * sizeof(task::TaskState));
}

void Memory::wake_bits(std::uint32_t bits) {
  state_->turns.turn();
  // seq_cst: against a waiter that announces itself at this moment.
  // KILL: flags gone, nobody woken: the nursery wakes all when a worker dies.
  state_->sleepers.fetch_and(~bits, std::memory_order_seq_cst);
  futex::wake(state_->sleepers, futex::kAll);
  // KILL: gone and not rung: the nursery wakes all when a worker dies.
  if (state_->turns.take_bell()) domain_->ring_bell();
}

void Memory::announce(std::uint32_t index) {
  state_->turns.want_bell();
  // seq_cst: the race closed is announce/look against complete/look.
  state_->sleepers.fetch_or(bit_of(index), std::memory_order_seq_cst);
}

}  // namespace shoal::pool
