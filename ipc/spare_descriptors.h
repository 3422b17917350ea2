#pragma once
// SpareDescriptors: numbers kept back for what must go on when a process has
// come to its limit of open files.
//
//   SpareDescriptors spare(16);
//   spare.release();  // now there is room for so many
//
// Sharing: one thread's at a time.
// Cost:    an eventfd(2) each.

#include <sys/eventfd.h>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <vector>

#include "shoal/ipc/descriptor.h"

namespace shoal {

class SpareDescriptors {
 public:
  explicit SpareDescriptors(std::size_t count) : count_(count) { refill(); }

  // Up to `most` of them; false when there were none.
  bool release(std::size_t most = std::numeric_limits<std::size_t>::max()) {
    if (held_.empty()) return false;
    held_.resize(held_.size() - std::min(most, held_.size()));
    return true;
  }
  // As many as can be had.
  void refill() {
    while (held_.size() < count_) {
      const int spare = above_stdio(eventfd(0, EFD_CLOEXEC));
      if (spare < 0) return;
      held_.emplace_back(spare);
    }
  }

 private:
  const std::size_t count_;
  std::vector<Descriptor> held_;
};

}  // namespace shoal
