#pragma once
// Pidfd: a descriptor of a process that no reuse of its pid can redirect.
//
//   auto child = shoal::Pidfd::open(pid);
//   child.signal(SIGTERM);
//   if (child.wait(1s)) status = child.reap();
//
// Sharing: const methods from any thread; reap() by one thread at a time.
// Cost:    one system call each.

#include <poll.h>
#include <sys/types.h>

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <utility>

#include "shoal/ipc/timeout.h"

namespace shoal {

class Pidfd {
 public:
  // Stands for a status that somebody else has taken.
  static constexpr int kUnknownStatus = 255;

  // ESRCH when there is no such process, or it has been reaped.
  static Pidfd open(pid_t pid);
  // The same without an exception: get() is -1, and errno says why.
  static Pidfd try_open(pid_t pid) noexcept;

  Pidfd() = default;
  explicit Pidfd(int fd) : fd_(fd) {}
  Pidfd(Pidfd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Pidfd& operator=(Pidfd&& other) noexcept;
  ~Pidfd();

  int get() const { return fd_; }

  // Whether the process, all of its threads, ended before the deadline.
  bool wait(Deadline deadline) const;
  bool wait(Timeout timeout) const { return wait(Deadline(timeout)); }

  // Reaps a child of this process without blocking: nothing while it runs, else
  // its exit code, -N for signal N. If somebody else reaped it, what the kernel
  // remembers (Linux 6.15), else kUnknownStatus.
  std::optional<int> reap() const;
  // The same, once it has ended; blocks until then.
  int await_status() const;

  // False: the process has ended and been reaped.
  bool signal(int number) const;

 private:
  int fd_ = -1;
};

// The place of a descriptor that became readable, or hung up, before the
// deadline. EBADF for one that is not open.
std::optional<std::size_t> wait_readable(std::initializer_list<int> fds,
                                         Deadline deadline);

// poll(2), again after signals: how many are ready; 0: none before the
// deadline. Throws std::system_error with `what`.
int poll_until(std::span<pollfd> polled, Deadline deadline, const char* what);

// In nanoseconds since boot, by steps of 10 ms; with the pid it names a process
// until the next boot. Nothing when there is no such process.
std::optional<std::uint64_t> start_time(pid_t pid);

}  // namespace shoal
