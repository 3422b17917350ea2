#include "shoal/pool/tasks.h"

#include <stdexcept>

namespace shoal::pool {

Tasks& Tasks::operator=(Tasks&& other) noexcept {
  if (this == &other) return *this;
  release();
  core_ = std::move(other.core_);
  one_ = other.one_;
  indices_ = std::move(other.indices_);
  return *this;
}

void Tasks::throw_moved_from() {
  throw std::logic_error("shoal: this AsyncResult was moved from");
}

void Tasks::release() {
  if (core_ == nullptr) return;  // moved from
  for_each([this](std::uint32_t index) { core_->release(index); });
}

bool Tasks::wait(Deadline deadline) const {
  static_cast<void>(core());  // throws when moved from
  bool done = true;
  for_each([&](std::uint32_t index) {
    done = done && core().wait(index, deadline);
  });
  if (done)
    for_each([this](std::uint32_t index) { core().free_arguments(index); });
  return done;
}

std::uint32_t Tasks::bits() const {
  std::uint32_t bits = 0;
  for_each([&](std::uint32_t index) {
    if (core().outcome(index) == task::Outcome::open)
      bits |= Memory::bit_of(index);
  });
  return bits;
}

bool Tasks::ready() const {
  static_cast<void>(core());
  bool ready = true;
  for_each([&](std::uint32_t index) { ready = ready && core().done(index); });
  return ready;
}

std::pair<std::size_t, std::size_t> Tasks::progress() const {
  std::pair<std::size_t, std::size_t> progress;
  for_each([&](std::uint32_t index) {
    progress.first += core().done(index) ? 1 : 0;
    ++progress.second;
  });
  return progress;
}

bool Tasks::successful() const {
  bool successful = true;
  for_each([&](std::uint32_t index) {
    successful = successful && core().outcome(index) == task::Outcome::value;
  });
  return successful;
}

bool Tasks::cancel() {
  static_cast<void>(core());  // throws when moved from
  if (one_ != kNone) return core().cancel(one_);
  return !indices_.empty() && core().cancel_all(indices_);
}

void Tasks::give_up() {
  if (!cancel())
    for_each([this](std::uint32_t index) { core().cancel(index); });
}

void Tasks::rethrow_first() const {
  for_each([this](std::uint32_t index) {
    if (core().outcome(index) != task::Outcome::value)
      core().throw_error(index);
  });
}

}  // namespace shoal::pool
