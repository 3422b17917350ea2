#pragma once
// Which of many places a sweep goes to, and in which order.
//
//   Sample sample(points.size());
//   while (const auto i = sample.next()) kill_at(points[*i]);
//
// All, unless $SHOAL_KILL_SECONDS says what a sweep may take: then as many as
// there is time for, spread over the whole from another one each time.

#include <cstddef>
#include <optional>

#include "shoal/ipc/timeout.h"

namespace shoal::support {

class Sample {
 public:
  explicit Sample(std::size_t places);

  // The next place, in [0, places), which was not before; none when all were,
  // or, after the first few, when time is up.
  std::optional<std::size_t> next();

  bool whole() const { return done_ == places_; }
  // Whether it has been to so many that a share of them means something.
  bool tells_shares() const;

 private:
  std::size_t places_;
  std::size_t step_;  // from one to the next, coprime to places_
  std::size_t place_ = 0;
  std::size_t done_ = 0;
  Deadline deadline_;
};

}  // namespace shoal::support
