#pragma once
// Ground: an arena over a file of its own, which forked children share.
//
//   Ground ground(1 << 20);
//   const BlockRef block = ground.arena.allocate(100, arena_owner::process(1));

#include <cstddef>
#include <memory>
#include <utility>

#include "shoal/ipc/arena.h"
#include "shoal/ipc/segment.h"
#include "tests/support/child.h"

namespace shoal::support {

class Ground {
 public:
  // `region` bytes for each class of blocks.
  explicit Ground(std::size_t region)
      : Ground(region,
               std::make_shared<const segment::File>(segment::File::anonymous(
                   "arena", Arena::mapping_bytes(region)))) {}
  // A file that may be shorter than all that `region` asks for.
  Ground(std::size_t region, std::shared_ptr<const segment::File> file)
      : mapping_(file->map(0, Arena::mapping_bytes(region), false, false)),
        arena(of_region(*state_, region),
              static_cast<std::byte*>(mapping_.get()), std::move(file), 0) {}

  ArenaState& state() const { return *state_; }
  // Blocks that were ever taken, of the class that holds `bytes`.
  std::uint64_t ever_taken(std::size_t bytes) const {
    std::size_t c = 0;
    while ((std::size_t{1} << (c + kSmallestBlock)) < bytes) ++c;
    return state_->classes[c].high.load();
  }

 private:
  static ArenaState& of_region(ArenaState& state, std::size_t region) {
    state.region_bytes = region;
    return state;
  }

  Shared<ArenaState> state_;
  std::shared_ptr<void> mapping_;

 public:
  Arena arena;
};

}  // namespace shoal::support
