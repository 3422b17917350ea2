#include "shoal/examples/loopback.h"

#include <arpa/inet.h>
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstddef>
#include <string_view>
#include <system_error>

namespace loopback {
namespace {

// `result` of the system call `what`, or its error.
template <class T>
T checked(T result, const char* what) {
  if (result < 0) throw std::system_error(errno, std::generic_category(), what);
  return result;
}

class Address {
 public:
  explicit Address(in_port_t port) {
    in_.sin_family = AF_INET;
    in_.sin_port = htons(port);
    in_.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  }
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&in_); }
  in_port_t port() const { return ntohs(in_.sin_port); }

 private:
  sockaddr_in in_{};
};

shoal::Fd tcp_socket() {
  return shoal::Fd(
      checked(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
}

void write_all(const shoal::Fd& to, std::string_view text) {
  while (!text.empty())
    text.remove_prefix(static_cast<std::size_t>(checked(
        send(to.get(), text.data(), text.size(), MSG_NOSIGNAL), "send")));
}

}  // namespace

shoal::Fd listen(in_port_t port) {
  shoal::Fd server = tcp_socket();
  Address address(port);
  checked(bind(server.get(), address.get(), sizeof(sockaddr_in)), "bind");
  checked(::listen(server.get(), 16), "listen");
  return server;
}

in_port_t port_of(const shoal::Fd& server) {
  Address address(0);
  socklen_t size = sizeof(sockaddr_in);
  checked(getsockname(server.get(), address.get(), &size), "getsockname");
  return address.port();
}

shoal::Fd accept(const shoal::Fd& server) {
  return shoal::Fd(
      checked(accept4(server.get(), nullptr, nullptr, SOCK_CLOEXEC), "accept"));
}

std::size_t echo(const shoal::Fd& client) {
  char text[4096];
  std::size_t bytes = 0;
  while (const auto size = static_cast<std::size_t>(
             checked(read(client.get(), text, sizeof text), "read"))) {
    write_all(client, {text, size});
    bytes += size;
  }
  return bytes;
}

std::string ask(in_port_t port, const std::string& text) {
  const shoal::Fd server = tcp_socket();
  Address address(port);
  checked(connect(server.get(), address.get(), sizeof(sockaddr_in)), "connect");
  write_all(server, text);
  std::string answer(text.size(), '\0');
  std::size_t size = 0;
  while (size < answer.size()) {
    const auto more = static_cast<std::size_t>(
        checked(read(server.get(), answer.data() + size, answer.size() - size),
                "read"));
    if (more == 0) break;
    size += more;
  }
  answer.resize(size);
  return answer;
}

}  // namespace loopback
