// A TCP echo server: this process accepts clients and hands each socket to one
// of two worker processes through a queue; the worker talks to the client.
//
//   ./bazelw run -c opt //examples:echo_server           # and talks to itself
//   ./bazelw run -c opt //examples:echo_server -- 7777   # nc 127.0.0.1 7777

#include <arpa/inet.h>
#include <netinet/in.h>
#include <shoal/shoal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

void work(shoal::Queue<shoal::Fd> clients) {
  try {
    for (;;) {
      const shoal::Fd client = clients.get();  // our own copy of the socket
      char text[4096];
      ssize_t size;
      while ((size = read(client.get(), text, sizeof text)) > 0)
        if (write(client.get(), text, static_cast<std::size_t>(size)) < 0)
          break;
      std::printf("worker %d has served a client\n", getpid());
    }
  } catch (const shoal::ShutDown&) {
  }
}

int main(int argc, char** argv) {
  const auto port = static_cast<in_port_t>(argc > 1 ? std::atoi(argv[1]) : 0);
  const shoal::Fd server(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{AF_INET, htons(port), {htonl(INADDR_LOOPBACK)}, {}};
  socklen_t size = sizeof address;
  auto* const where = reinterpret_cast<sockaddr*>(&address);
  if (bind(server.get(), where, size) != 0 || listen(server.get(), 16) != 0 ||
      getsockname(server.get(), where, &size) != 0)
    return std::perror("bind"), 1;
  shoal::Queue<shoal::Fd> clients;
  shoal::Process one(work, clients), other(work, clients);
  one.start();
  other.start();
  for (int n = 0; port != 0 || n < 4; ++n) {
    shoal::Process client([&] {  // four of our own, unless a port was given
      const shoal::Fd server_end(socket(AF_INET, SOCK_STREAM, 0));
      char echo[6] = {};
      if (connect(server_end.get(), where, size) != 0 ||
          write(server_end.get(), "hello", 5) != 5 ||
          read(server_end.get(), echo, 5) != 5 || strcmp(echo, "hello") != 0)
        std::exit(1);
    });
    if (port == 0) client.start();
    clients.put(
        shoal::Fd(accept4(server.get(), nullptr, nullptr, SOCK_CLOEXEC)));
    if (port == 0 && (client.join(), client.exitcode() != 0)) return 1;
  }
  clients.shutdown();
  one.join(), other.join();
}
