// A TCP echo server: this process accepts clients and hands each socket to one
// of two worker processes through a queue; the worker talks to the client.
//
//   ./bazelw run -c opt //examples:echo_server           # and talks to itself
//   ./bazelw run -c opt //examples:echo_server -- 7777   # nc 127.0.0.1 7777

#include <shoal/shoal.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <utility>

#include "shoal/examples/loopback.h"

void work(shoal::Queue<shoal::Fd> clients) {
  try {
    for (;;) {
      const shoal::Fd client = clients.get();  // our own copy of the socket
      std::printf("worker %d echoed %zu bytes\n", getpid(),
                  loopback::echo(client));
    }
  } catch (const shoal::ShutDown&) {  // every client has been served
  }
}

void be_client(in_port_t port) {
  const std::string text = "hello from " + std::to_string(getpid());
  if (loopback::ask(port, text) != text) std::exit(1);
}

int main(int argc, char** argv) try {
  const int given = argc > 1 ? std::atoi(argv[1]) : 0;
  const shoal::Fd server = loopback::listen(static_cast<in_port_t>(given));
  const in_port_t port = loopback::port_of(server);
  shoal::Queue<shoal::Fd> clients;
  shoal::Process one(work, clients), other(work, clients);
  one.start(), other.start();
  for (int n = 0; given != 0 || n < 4; ++n) {
    shoal::Process client(be_client, port);  // unless a port was given
    if (given == 0) client.start();
    clients.put(loopback::accept(server));
    if (given == 0 && (client.join(), client.exitcode() != 0)) return 1;
  }
  clients.shutdown();
  one.join(), other.join();
  return one.exitcode() == 0 && other.exitcode() == 0 ? 0 : 1;
} catch (const std::exception& error) {
  return std::fprintf(stderr, "echo_server: %s\n", error.what()), 1;
}
