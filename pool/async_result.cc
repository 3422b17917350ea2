#include "shoal/pool/async_result.h"

#include <algorithm>

namespace shoal::pool {

Tasks& Tasks::operator=(Tasks&& other) noexcept {
  if (this == &other) return *this;
  release();
  core_ = std::move(other.core_);
  one_ = other.one_;
  indices_ = std::move(other.indices_);
  return *this;
}

void Tasks::release() {
  if (core_ == nullptr) return;  // moved from
  for_each([this](std::uint32_t index) { core_->release(index); });
}

bool Tasks::wait(Deadline deadline) const {
  bool done = true;
  for_each([&](std::uint32_t index) {
    done = done && core_->wait(index, deadline);
  });
  if (done)
    for_each([this](std::uint32_t index) { core_->free_arguments(index); });
  return done;
}

bool Tasks::ready() const {
  bool ready = true;
  for_each([&](std::uint32_t index) { ready = ready && core_->done(index); });
  return ready;
}

bool Tasks::successful() const {
  bool successful = true;
  for_each([&](std::uint32_t index) {
    successful = successful && core_->outcome(index) == task::Outcome::value;
  });
  return successful;
}

bool Tasks::cancel() {
  bool all = true;
  for_each([&](std::uint32_t index) { all = core_->cancel(index) && all; });
  return all;
}

void Tasks::rethrow_first() const {
  for_each([this](std::uint32_t index) {
    if (core_->outcome(index) != task::Outcome::value)
      core_->throw_error(index);
  });
}

}  // namespace shoal::pool
