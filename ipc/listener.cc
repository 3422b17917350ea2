#include "shoal/ipc/listener.h"

#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <optional>
#include <stdexcept>
#include <utility>

#include "shoal/ipc/codec.h"
#include "shoal/ipc/control_socket.h"
#include "shoal/ipc/descriptor.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/fd.h"
#include "shoal/ipc/passage.h"
#include "shoal/ipc/pidfd.h"
#include "shoal/ipc/pipe.h"
#include "shoal/ipc/segment.h"

namespace shoal {
namespace {

using Offer = std::array<std::byte, sizeof(HandleRef)>;
constexpr std::byte kTaken{1};

std::string address_of(std::string_view name) {
  segment::check_name(name);
  // Shorter than an address, whatever the name: its hash beside its beginning.
  constexpr std::size_t kMost = 60;
  return "shoal.listener." + std::to_string(geteuid()) + '.' +
         std::to_string(std::hash<std::string_view>()(name)) + '.' +
         std::string(name.substr(0, kMost));
}

[[noreturn]] void throw_timed_out(const std::string& what) {
  throw TimeoutError("shoal: " + what + " timed out");
}

}  // namespace

Listener::Listener(std::string_view name) : name_(name) {
  auto socket = control_socket::listen(address_of(name));
  if (!socket)
    throw_system_error(EADDRINUSE, "listen", "Listener \"" + name_ + '"');
  const int all = above_stdio(epoll_create1(EPOLL_CLOEXEC));
  if (all < 0)
    throw_system_error(errno, "epoll_create1", "Listener \"" + name_ + '"');
  all_ = UnforkedFd(Fd(all));
  watch(socket->get());
  socket_ = UnforkedFd(std::move(*socket));
}

void Listener::watch(int descriptor) const {
  epoll_event event{.events = EPOLLIN, .data = {.fd = descriptor}};
  if (epoll_ctl(all_.get(), EPOLL_CTL_ADD, descriptor, &event) != 0)
    throw_system_error(errno, "epoll_ctl", "Listener \"" + name_ + '"');
}

int Listener::own_socket() const {
  if (socket_.get() < 0)
    throw std::logic_error("shoal: Listener \"" + name_ +
                           "\" belongs to the process that made it, and not "
                           "to one that was forked from that; or it was moved");
  return socket_.get();
}

// Offers an end to who waits at the socket.
void Listener::welcome() {
  auto accepted = control_socket::accept(own_socket());
  if (!accepted || !control_socket::is_open(accepted->get())) return;
  UnforkedFd socket(std::move(*accepted));
  auto [ours, theirs] = Pipe();
  clients_.reserve(clients_.size() + 1);
  watch(socket.get());
  // Lives as long as this process, until the client takes it.
  Outbox passage;
  Offer offer;
  codec::Writer writer(offer, &passage);
  codec::encode(writer, theirs);
  if (!control_socket::send(socket.get(), offer, passage.descriptors()))
    return;  // it has ended
  passage.sent();
  clients_.push_back({std::move(socket), std::move(ours), std::move(theirs)});
}

Connection Listener::accept(Timeout timeout) {
  const Deadline deadline(timeout);
  for (bool first = true;; first = false) {
    // However many come and give up: -1 is not looked at.
    const bool welcoming = first || !deadline.passed();
    std::vector<pollfd> polled{{welcoming ? own_socket() : -1, POLLIN, 0}};
    for (const Client& client : clients_)
      polled.push_back({client.socket.get(), POLLIN, 0});
    if (poll_until(polled, deadline, "Listener::accept") == 0)
      throw_timed_out("accept of Listener \"" + name_ + '"');
    for (std::size_t i = clients_.size(); i-- != 0;) {
      if (polled[1 + i].revents == 0) continue;
      const auto said = control_socket::receive(clients_[i].socket.get(), now);
      // Closing would not do where a fork has a copy.
      epoll_ctl(all_.get(), EPOLL_CTL_DEL, clients_[i].socket.get(), nullptr);
      Client client = std::move(clients_[i]);
      clients_.erase(clients_.begin() + static_cast<std::ptrdiff_t>(i));
      if (said && said->bytes.size() == 1 && said->bytes[0] == kTaken)
        return std::move(client.ours);
      // It has ended, and never had its end.
    }
    if (polled[0].revents != 0) welcome();
  }
}

bool listener::is_there(std::string_view name) {
  try {
    return control_socket::connect(address_of(name), now).has_value();
  } catch (const TimeoutError&) {
    return true;  // too many wait there
  }
}

Connection connect(std::string_view name, Timeout timeout) {
  const std::string address = address_of(name);
  const std::string what = "connect to \"" + std::string(name) + '"';
  const Deadline deadline(timeout);
  std::chrono::milliseconds pause{1};
  for (;;) {
    if (const auto socket = control_socket::connect(address, deadline)) {
      auto offer = control_socket::receive(socket->get(), deadline);
      if (!offer) throw_timed_out(what);
      if (offer->bytes.size() == sizeof(Offer) && !offer->cut) {
        Arrival arrival(std::move(offer->descriptors));
        Connection connection =
            codec::from_bytes<Connection>(offer->bytes, &arrival);
        if (control_socket::send(socket->get(), std::array{kTaken}, {}))
          return connection;
      } else if (offer->cut) {
        throw_system_error(EMFILE, "recvmsg(SCM_RIGHTS)", what);
      }
      // Whoever listened has ended; perhaps another one comes.
    }
    if (deadline.passed()) throw_timed_out(what);
    // Nobody tells when a name appears.
    poll_until({}, earlier(Deadline(pause), deadline), "connect");
    pause = std::min(2 * pause, std::chrono::milliseconds(20));
  }
}

}  // namespace shoal
