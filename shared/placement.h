#pragma once
// Where the pages of a large array lie: huge ones, those of one NUMA node.
//
//   placement::Wish wish{.huge_pages = true, .numa_node = 0};
//   for (const std::string& what : placement::arrange(start, bytes, wish))
//     ... could not be had ...

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "shoal/ipc/segment.h"

namespace shoal::placement {

struct Wish {
  bool huge_pages = false;
  std::optional<int> numa_node;
  std::size_t alignment = 1;  // of what lies behind the first page

  bool any() const { return huge_pages || numa_node.has_value(); }
};
// For the mapping. Throws std::invalid_argument for no power of two, and one
// beyond 1 GiB; for a negative node.
segment::Alignment alignment_for(const Wish& wish);

// Of a shared mapping that has no pages yet. Returns what could not be had, a
// sentence each with its remedy; told on stderr as well, once a process.
std::vector<std::string> arrange(void* start, std::size_t bytes,
                                 const Wish& wish);

}  // namespace shoal::placement
