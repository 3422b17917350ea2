#include "shoal/ipc/pidfd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <stdexcept>
#include <string>
#include <system_error>

#include "shoal/ipc/descriptor.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/task_status.h"

namespace shoal {
namespace {

using namespace std::chrono_literals;

// linux/pidfd.h of 6.15; Debian 12's headers are older. The kernel takes the
// size from the request's number, so that later, longer forms do no harm.
struct PidfdInfo {
  std::uint64_t mask;
  std::uint64_t cgroup;
  std::uint32_t pid, tgid, ppid;
  std::uint32_t ids[8];
  std::int32_t wait_status;
};
static_assert(sizeof(PidfdInfo) == 64);
constexpr std::uint64_t kInfoExit = 1 << 3;
constexpr auto kGetInfo = _IOWR(0xFF, 11, PidfdInfo);

timespec to_timespec(Timeout timeout) {
  const std::int64_t left = timeout.is_now() ? 0 : timeout.nanoseconds();
  return {.tv_sec = left / 1'000'000'000, .tv_nsec = left % 1'000'000'000};
}

int code_of(int wait_status) {
  return WIFSIGNALED(wait_status) ? -WTERMSIG(wait_status)
                                  : WEXITSTATUS(wait_status);
}

// For a process that somebody else reaps or has reaped. As long as the other
// waiter is at it the kernel may have the status in neither place, or let go of
// the process under the call: ESRCH. That can be once; later it is this
// kernel's answer for every process that is gone.
int status_after_reaping(int fd) {
  // An orphan's is there when the first process of the pid namespace has reaped
  // it, for which some take seconds.
  const Deadline deadline(3s);
  constexpr int kYields = 1000;
  bool gone = false;
  for (int n = 0; !deadline.passed(); ++n) {
    PidfdInfo info = {};
    info.mask = kInfoExit;
    if (ioctl(fd, kGetInfo, &info) == 0) {
      if ((info.mask & kInfoExit) != 0) return code_of(info.wait_status);
    } else if (errno != ESRCH || std::exchange(gone, true)) {
      break;
    }
    if (n < kYields)
      sched_yield();
    else
      ::poll(nullptr, 0, 1);
  }
  return Pidfd::kUnknownStatus;
}

}  // namespace

Pidfd Pidfd::try_open(pid_t pid) noexcept {
  try {
    return Pidfd(
        above_stdio(static_cast<int>(syscall(SYS_pidfd_open, pid, 0))));
  } catch (const std::system_error& error) {  // none above standard error
    errno = error.code().value();
    return Pidfd();
  }
}

Pidfd Pidfd::open(pid_t pid) {
  Pidfd pidfd = try_open(pid);
  if (pidfd.fd_ < 0)
    throw_system_error(errno, "pidfd_open", std::to_string(pid));
  return pidfd;
}

Pidfd& Pidfd::operator=(Pidfd&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

Pidfd::~Pidfd() {
  if (fd_ >= 0) ::close(fd_);
}

bool Pidfd::wait(Deadline deadline) const {
  return wait_readable({fd_}, deadline).has_value();
}

std::optional<int> Pidfd::reap() const {
  siginfo_t info = {};
  while (waitid(P_PIDFD, static_cast<id_t>(fd_), &info, WEXITED | WNOHANG) !=
         0) {
    if (errno == ECHILD) return status_after_reaping(fd_);
    if (errno != EINTR) throw_system_error(errno, "waitid", "pidfd");
  }
  if (info.si_pid == 0) return std::nullopt;
  return info.si_code == CLD_EXITED ? info.si_status : -info.si_status;
}

int Pidfd::await_status() const {
  for (;;) {
    wait(forever);
    if (const auto status = reap()) return *status;
    // It ended, but a tracer has the status first: ask again soon.
    poll(nullptr, 0, 1);
  }
}

bool Pidfd::signal(int number) const {
  if (syscall(SYS_pidfd_send_signal, fd_, number, nullptr, 0) == 0) return true;
  if (errno == ESRCH) return false;
  throw_system_error(errno, "pidfd_send_signal",
                     "signal " + std::to_string(number));
}

std::optional<std::size_t> wait_readable(std::initializer_list<int> fds,
                                         Deadline deadline) {
  std::array<pollfd, 4> polled;
  if (fds.size() > polled.size())
    throw std::invalid_argument("wait_readable: more than 4 descriptors");
  std::size_t count = 0;
  for (const int fd : fds)
    polled[count++] = {.fd = fd, .events = POLLIN, .revents = 0};
  if (poll_until(std::span(polled.data(), count), deadline, "") == 0)
    return std::nullopt;
  for (std::size_t i = 0; i < count; ++i) {
    if ((polled[i].revents & POLLNVAL) != 0)
      throw_system_error(EBADF, "ppoll", std::to_string(polled[i].fd));
    if (polled[i].revents != 0) return i;
  }
  return std::nullopt;
}

int poll_until(std::span<pollfd> polled, Deadline deadline, const char* what) {
  for (;;) {
    const Timeout left = deadline.remaining();
    const timespec time = to_timespec(left);
    const int ready = ppoll(polled.data(), polled.size(),
                            left.is_forever() ? nullptr : &time, nullptr);
    if (ready < 0 && errno != EINTR) throw_system_error(errno, "ppoll", what);
    if (ready > 0 || (ready == 0 && deadline.passed())) return ready;
  }
}

std::optional<std::uint64_t> start_time(pid_t pid) {
  const TaskStatus status = process_status(pid);
  return status.known ? std::optional(status.started_at) : std::nullopt;
}

}  // namespace shoal
