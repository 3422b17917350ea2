#include "shoal/ipc/type_table.h"

#include <algorithm>
#include <string>

#include "shoal/ipc/errors.h"

namespace shoal {

TypeTable::Entry& TypeTable::entry(std::uint32_t number, bool reserve) {
  if (pages_.size() < number) pages_.resize(number);
  auto& page = pages_[number - 1];
  if (page == nullptr)
    page = object_->tail(start_ + (number - 1) * segment::kPage, segment::kPage,
                         reserve);
  return *static_cast<Entry*>(page.get());
}

std::uint32_t TypeTable::number_of(std::uint64_t hash, std::string_view text) {
  // relaxed: written by the sending end, which is this process's.
  const std::uint32_t count = state_->types.load(std::memory_order_relaxed);
  for (std::uint32_t number = 1; number <= std::min(count, ring::kMostTypes);
       ++number)
    if (entry(number, false).hash == hash) return number;
  if (count > ring::kMostTypes)
    throw Corrupt("shoal: Pipe: " + std::to_string(count) +
                  " types in one direction, of at most " +
                  std::to_string(ring::kMostTypes));
  if (count == ring::kMostTypes)
    throw NoSpace("shoal: Pipe: more than " + std::to_string(ring::kMostTypes) +
                      " types in one direction; send a variant of them",
                  count + 1, ring::kMostTypes);
  Entry& fresh = entry(count + 1, true);
  fresh.hash = hash;
  fresh.length =
      static_cast<std::uint32_t>(text.copy(fresh.text, sizeof fresh.text));
  // SYNC(pipe.types)
  // KILL: no frame names it yet.
  state_->types.store(count + 1, std::memory_order_release);
  return count + 1;
}

TypeTable::Entry& TypeTable::known(std::uint32_t number) {
  // SYNC(pipe.types)
  const std::uint32_t count = state_->types.load(std::memory_order_acquire);
  if (number == 0 || number > count || number > ring::kMostTypes)
    throw Corrupt("shoal: Pipe: a message of type " + std::to_string(number) +
                  ", of which there are " + std::to_string(count));
  return entry(number, false);
}

std::uint64_t TypeTable::hash_of(std::uint32_t number) {
  return known(number).hash;
}

std::string TypeTable::text_of(std::uint32_t number) {
  const Entry& found = known(number);
  const std::size_t length = found.length;
  return std::string(found.text, std::min(length, sizeof found.text));
}

}  // namespace shoal
