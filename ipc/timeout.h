#pragma once
// Timeout: how long a call may block.
//
//   queue.get();            // for ever
//   queue.get(50ms);        // any std::chrono duration
//   queue.get(shoal::now);  // not at all; a negative duration means the same
//
// A call turns its Timeout once into a Deadline, one instant of
// CLOCK_MONOTONIC, so that retries do not stretch it.

#include <chrono>
#include <cstdint>
#include <limits>
#include <ratio>

namespace shoal {

class Timeout {
 public:
  // Durations beyond what 63 bits of nanoseconds hold (292 years) wait for
  // ever; NaN waits not at all.
  template <class Rep, class Period>
  constexpr Timeout(  // NOLINT: implicit by api.md
      std::chrono::duration<Rep, Period> duration)
      : nanoseconds_(to_nanoseconds(duration)) {}

  static constexpr Timeout infinite() { return Timeout(kForever); }

  constexpr bool is_forever() const { return nanoseconds_ == kForever; }
  constexpr bool is_now() const { return nanoseconds_ <= 0; }
  constexpr std::int64_t nanoseconds() const { return nanoseconds_; }

 private:
  static constexpr std::int64_t kForever =
      std::numeric_limits<std::int64_t>::max();

  constexpr explicit Timeout(std::int64_t nanoseconds)
      : nanoseconds_(nanoseconds) {}

  template <class Rep, class Period>
  static constexpr std::int64_t to_nanoseconds(
      std::chrono::duration<Rep, Period> duration) {
    const auto seconds = std::chrono::duration<long double>(duration).count();
    if (!(seconds > 0)) return 0;
    if (seconds >= 9.2e9L) return kForever;
    return std::chrono::duration_cast<std::chrono::nanoseconds>(duration)
        .count();
  }

  std::int64_t nanoseconds_;
};

inline constexpr Timeout forever = Timeout::infinite();
inline constexpr Timeout now = std::chrono::nanoseconds(0);

// Nanoseconds of CLOCK_MONOTONIC.
std::int64_t monotonic_now();

// An instant of CLOCK_MONOTONIC, or never.
class Deadline {
 public:
  Deadline(Timeout timeout)  // NOLINT: a Timeout becomes one when it is used
      : nanoseconds_(instant(timeout)) {}
  static Deadline never() { return Deadline(forever); }

  bool is_never() const { return nanoseconds_ == kNever; }
  bool passed() const {
    return nanoseconds_ != kNever &&
           (nanoseconds_ == 0 || monotonic_now() >= nanoseconds_);
  }
  // 0 for a deadline that had passed when it was made.
  std::int64_t nanoseconds() const { return nanoseconds_; }
  Timeout remaining() const;

 private:
  static constexpr std::int64_t kNever =
      std::numeric_limits<std::int64_t>::max();
  static std::int64_t instant(Timeout timeout);

  std::int64_t nanoseconds_;
};

inline Deadline earlier(Deadline a, Deadline b) {
  return a.nanoseconds() < b.nanoseconds() ? a : b;
}

}  // namespace shoal
