#include "tests/support/sample.h"

#include <stdlib.h>

#include <chrono>
#include <cmath>
#include <numeric>

namespace shoal::support {
namespace {

constexpr std::size_t kLeast = 5;
constexpr std::size_t kMany = 100;

// Multiples of the golden ratio's part fill a circle evenly, however many.
std::size_t spread(std::size_t places) {
  auto step = static_cast<std::size_t>(
      std::llround(static_cast<double>(places) * 0.6180339887498949));
  while (step > 1 && std::gcd(step, places) != 1) --step;
  return step == 0 ? 1 : step;
}

Deadline deadline() {
  const char* seconds = getenv("SHOAL_KILL_SECONDS");
  if (seconds == nullptr) return Deadline::never();
  return Timeout(std::chrono::duration<double>(atof(seconds)));
}

}  // namespace

Sample::Sample(std::size_t places)
    : places_(places), step_(spread(places)), deadline_(deadline()) {
  if (places != 0 && !deadline_.is_never())
    place_ = static_cast<std::size_t>(monotonic_now()) % places;
}

bool Sample::tells_shares() const { return whole() || done_ >= kMany; }

std::optional<std::size_t> Sample::next() {
  if (whole() || (done_ >= kLeast && deadline_.passed())) return std::nullopt;
  const std::size_t place = place_;
  place_ = (place_ + step_) % places_;
  ++done_;
  return place;
}

}  // namespace shoal::support
