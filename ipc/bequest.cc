#include "shoal/ipc/bequest.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <tuple>
#include <utility>

#include "shoal/ipc/at_fork.h"
#include "shoal/ipc/errors.h"

namespace shoal::bequest {

constinit std::atomic<std::uint64_t> fork_epoch{kInProgress + 1};

namespace {

std::atomic<std::uint64_t> items{0};
thread_local constinit Parcel* giving = nullptr;

// relaxed throughout: see epoch().
constinit int unwatched = 0;
SHOAL_AT_FORK const AtFork watched(
    [] { fork_epoch.fetch_add(kInProgress + 2, std::memory_order_relaxed); },
    [] { fork_epoch.fetch_sub(1, std::memory_order_relaxed); },
    [] {
      // Its only thread; forks by the parent's other threads are not its.
      const std::uint64_t before = epoch();
      fork_epoch.store((before | kInProgress) + 1, std::memory_order_relaxed);
    },
    &unwatched);

void expect_forks_are_watched() {
  if (unwatched != 0) throw_system_error(unwatched, "pthread_atfork");
}

// Once more when a signal came. False: the other side is gone.
bool write_all(int socket, const void* from, std::size_t bytes) {
  const char* rest = static_cast<const char*>(from);
  while (bytes != 0) {
    const ssize_t n = send(socket, rest, bytes, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    rest += n;
    bytes -= static_cast<std::size_t>(n);
  }
  return true;
}
// The same; gives up when the peer process has ended before it wrote all.
bool read_all(int socket, void* to, std::size_t bytes, const Pidfd& peer) {
  char* rest = static_cast<char*>(to);
  while (bytes != 0) {
    const ssize_t n = recv(socket, rest, bytes, MSG_DONTWAIT);
    if (n > 0) {
      rest += n;
      bytes -= static_cast<std::size_t>(n);
      continue;
    }
    if (n == 0) return false;
    if (errno == EINTR) continue;
    if (errno != EAGAIN) return false;
    pollfd fds[] = {{socket, POLLIN, 0}, {peer.get(), POLLIN, 0}};
    if (poll(fds, 2, -1) < 0 && errno != EINTR) return false;
    // What it wrote before it ended is there.
    if (fds[0].revents == 0 && fds[1].revents != 0) return false;
  }
  return true;
}

}  // namespace

Item::Item() {
  expect_forks_are_watched();
  // relaxed: a count.
  items.fetch_add(1, std::memory_order_relaxed);
}

Item::~Item() { items.fetch_sub(1, std::memory_order_relaxed); }

bool Item::any() { return items.load(std::memory_order_relaxed) != 0; }

Parcel::Parcel() {
  if (!Item::any()) return;
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
    throw_system_error(errno, "socketpair", "bequest");
  std::tie(parents_, childs_) = above_stdio(ends);
}

Parcel* Parcel::current() { return giving; }

// The parent sends how many items, and their addresses, which are the same in
// the child; the child answers one byte when it has them.
void Parcel::receive(const Pidfd& parent) noexcept {
  if (!childs_) return;
  parents_.reset();
  std::uint64_t count = 0;
  if (read_all(childs_.get(), &count, sizeof count, parent)) {
    for (; count != 0; --count) {
      Item* item = nullptr;
      if (!read_all(childs_.get(), &item, sizeof item, parent)) break;
      item->receive();
    }
    write_all(childs_.get(), "", 1);
  }
  childs_.reset();
}

void Parcel::give(const std::function<void()>& destroy, const Pidfd& child) {
  if (!parents_) return destroy();
  childs_.reset();
  giving = this;
  destroy();
  giving = nullptr;
  std::vector<std::uint64_t> message = {items_.size()};
  for (const auto& item : items_)
    message.push_back(reinterpret_cast<std::uint64_t>(item.get()));
  char answer;
  // KILL: the child sees it, and goes on; what it was to get dies with us.
  const bool received =
      write_all(parents_.get(), message.data(),
                message.size() * sizeof(std::uint64_t)) &&
      (items_.empty() || read_all(parents_.get(), &answer, 1, child));
  for (const auto& item : std::exchange(items_, {})) item->was_given(received);
  parents_.reset();
}

}  // namespace shoal::bequest
