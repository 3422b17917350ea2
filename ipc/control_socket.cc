#include "shoal/ipc/control_socket.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <stdexcept>

#include "shoal/ipc/descriptor.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/pidfd.h"

namespace shoal::control_socket {
namespace {

constexpr int kType = SOCK_SEQPACKET | SOCK_CLOEXEC;

struct Address {
  sockaddr_un address{};
  socklen_t size;

  explicit Address(const std::string& name) {
    address.sun_family = AF_UNIX;
    // The byte 0 in front: no file.
    const std::size_t length =
        std::min(name.size(), sizeof address.sun_path - 1);
    memcpy(address.sun_path + 1, name.data(), length);
    size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + length);
  }
  const sockaddr* get() const {
    return reinterpret_cast<const sockaddr*>(&address);
  }
};

Fd make_socket(const std::string& name, int flags = 0) {
  const int descriptor = above_stdio(socket(AF_UNIX, kType | flags, 0));
  if (descriptor < 0) throw_system_error(errno, "socket(AF_UNIX)", name);
  return Fd(descriptor);
}

template <class Call>
auto restarted(Call call) {
  decltype(call()) outcome;
  do {
    outcome = call();
  } while (outcome < 0 && errno == EINTR);
  return outcome;
}

}  // namespace

std::optional<Fd> listen(const std::string& name) {
  Fd made = make_socket(name);
  const Address address(name);
  if (bind(made.get(), address.get(), address.size) != 0) {
    if (errno == EADDRINUSE) return std::nullopt;
    throw_system_error(errno, "bind", name);
  }
  if (::listen(made.get(), SOMAXCONN) != 0)
    throw_system_error(errno, "listen", name);
  return made;
}

std::optional<Fd> connect(const std::string& name, Deadline deadline) {
  // Or it would wait for ever while the queue of who listens is full.
  Fd made = make_socket(name, SOCK_NONBLOCK);
  const Address address(name);
  while (restarted([&] {
           return ::connect(made.get(), address.get(), address.size);
         }) != 0) {
    if (errno == ECONNREFUSED || errno == ENOENT) return std::nullopt;
    if (errno != EAGAIN) throw_system_error(errno, "connect", name);
    if (deadline.passed())
      throw TimeoutError("shoal: connect to " + name +
                         " timed out: too many wait in front of it");
    // Nobody tells when there is room.
    poll_until({}, earlier(Deadline(std::chrono::milliseconds(1)), deadline),
               "connect");
  }
  return made;
}

bool is_open(int socket) {
  char byte;
  return recv(socket, &byte, 1, MSG_PEEK | MSG_DONTWAIT) != 0;
}

std::optional<Fd> accept(int server) {
  const int descriptor = above_stdio(restarted(
      [&] { return accept4(server, nullptr, nullptr, SOCK_CLOEXEC); }));
  if (descriptor < 0) {
    if (errno == EAGAIN || errno == ECONNABORTED) return std::nullopt;
    throw_system_error(errno, "accept", "control socket");
  }
  Fd client(descriptor);
  ucred who{};
  socklen_t size = sizeof who;
  if (getsockopt(descriptor, SOL_SOCKET, SO_PEERCRED, &who, &size) != 0 ||
      (who.uid != geteuid() && who.uid != 0))
    return std::nullopt;
  return client;
}

std::pair<Fd, Fd> pair() {
  int both[2];
  if (socketpair(AF_UNIX, kType, 0, both) != 0)
    throw_system_error(errno, "socketpair", "control socket");
  auto [one, other] = above_stdio(both);
  return {Fd(one.release()), Fd(other.release())};
}

bool send(int socket, std::span<const std::byte> bytes,
          std::span<const int> descriptors) {
  if (bytes.empty() || bytes.size() > kMostBytes ||
      descriptors.size() > kMostDescriptors)
    throw std::logic_error("shoal: a control packet of " +
                           std::to_string(bytes.size()) + " bytes and " +
                           std::to_string(descriptors.size()) + " descriptors");
  iovec part{const_cast<std::byte*>(bytes.data()), bytes.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  alignas(
      cmsghdr) char control[CMSG_SPACE(kMostDescriptors * sizeof(int))] = {};
  if (!descriptors.empty()) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(descriptors.size_bytes());
    memcpy(CMSG_DATA(header), descriptors.data(), descriptors.size_bytes());
  }
  if (restarted([&] { return sendmsg(socket, &message, MSG_NOSIGNAL); }) >= 0)
    return true;
  if (errno == EPIPE || errno == ECONNRESET || errno == ENOTCONN) return false;
  throw_system_error(errno, "sendmsg(SCM_RIGHTS)", "control socket",
                     descriptors.size());
}

std::optional<Packet> receive(int socket, Deadline deadline) {
  if (!wait_readable({socket}, deadline)) return std::nullopt;
  Packet packet;
  packet.bytes.resize(kMostBytes);
  iovec part{packet.bytes.data(), packet.bytes.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(kMostDescriptors * sizeof(int))];
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  const ssize_t size =
      restarted([&] { return recvmsg(socket, &message, MSG_CMSG_CLOEXEC); });
  if (size < 0) {
    if (errno != ECONNRESET)
      throw_system_error(errno, "recvmsg", "control socket");
    packet.bytes.clear();
    return packet;
  }
  packet.bytes.resize(static_cast<std::size_t>(size));
  packet.cut = (message.msg_flags & (MSG_CTRUNC | MSG_TRUNC)) != 0;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr;
       header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
      continue;
    const std::size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    packet.descriptors.reserve(packet.descriptors.size() + count);
    for (std::size_t i = 0; i < count; ++i) {
      int descriptor;
      memcpy(&descriptor, CMSG_DATA(header) + i * sizeof(int),
             sizeof descriptor);
      packet.descriptors.emplace_back(descriptor);
    }
  }
  for (Fd& descriptor : packet.descriptors)
    descriptor = Fd(above_stdio(descriptor.release()));
  return packet;
}

pid_t peer(int socket) {
  ucred who{};
  socklen_t size = sizeof who;
  if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &who, &size) != 0)
    throw_system_error(errno, "getsockopt(SO_PEERCRED)");
  return who.pid;
}

}  // namespace shoal::control_socket
