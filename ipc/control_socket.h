#pragma once
// Sockets on which descriptors travel: the control plane of handles and of
// processes that are made by exec. Data never crosses one.
//
//   Fd server = control_socket::listen(name);
//   Fd client = control_socket::connect(name, deadline);
//   control_socket::send(client.get(), bytes, descriptors);
//   auto packet = control_socket::receive(server_end.get());
//
// SOCK_SEQPACKET in the abstract name space: a name ends with the last
// descriptor of its socket, also by SIGKILL, and leaves nothing. Only
// processes of the same user, or root's, are let in.

#include <sys/types.h>

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "shoal/ipc/fd.h"
#include "shoal/ipc/timeout.h"

namespace shoal::control_socket {

inline constexpr std::size_t kMostDescriptors = 250;  // a packet; SCM_MAX_FD
inline constexpr std::size_t kMostBytes = 16 * 1024;  // a packet

struct Packet {
  std::vector<std::byte> bytes;  // empty: the other end is closed
  std::vector<Fd> descriptors;
  bool cut = false;  // this process had no numbers left for all of them
};

// All throw std::system_error with `name`.

// Nothing: the name is taken.
std::optional<Fd> listen(const std::string& name);
// Nothing: nobody listens there. Throws TimeoutError when, until the deadline,
// more wait in front of it than the kernel lets.
std::optional<Fd> connect(const std::string& name, Deadline deadline);
// Whoever is at the other end has not closed it; as far as is known.
bool is_open(int socket);
// Nothing: nobody waits, or who waited is of another user.
std::optional<Fd> accept(int server);
std::pair<Fd, Fd> pair();

// False: the other end is closed. Waits while its buffer is full.
bool send(int socket, std::span<const std::byte> bytes,
          std::span<const int> descriptors);
// Nothing: none came before the deadline.
std::optional<Packet> receive(int socket, Deadline deadline);

// The process at the other end.
pid_t peer(int socket);

}  // namespace shoal::control_socket
