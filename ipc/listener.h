#pragma once
// Listener and connect(): Connections between processes that know a name.
//
//   shoal::Listener listener("prices");           auto server =
//   shoal::connect("prices"); shoal::Connection client = listener.accept();
//   server.send(Subscribe{"X"});
//
// The name is one in the kernel's abstract name space, apart from the names of
// objects, for each user and network namespace: it goes with its Listener,
// also by SIGKILL, and leaves nothing. Only the Pipe's descriptors cross the
// socket behind it; what is said goes through shared memory.
//
// Sharing:  a Listener is one thread's at a time, and its process's: forked
//           children have none of it.
// Ordering: as a Pipe's.
// Death:    of the server: those who wait in connect() wait for the next one
//           under the name; its Connections say PeerDied. Of a client that
//           waits: it is never accepted. A stopped client delays only itself,
//           and who has given up nobody: each wait ends by its own timeout.
// Cost:     accept() makes a Pipe; connect() and accept() are four or five
//           system calls each, and a wait for each other.

#include <string>
#include <string_view>
#include <vector>

#include "shoal/ipc/connection.h"
#include "shoal/ipc/timeout.h"
#include "shoal/ipc/unforked_fd.h"
#include "shoal/ipc/waitable.h"

namespace shoal {

namespace listener {
// Somebody listens under that name, at this moment.
bool is_there(std::string_view name);
}  // namespace listener

class Listener {
 public:
  // Throws std::invalid_argument (a bad name), std::system_error (EADDRINUSE:
  // a living process listens there).
  explicit Listener(std::string_view name);

  // The next client's. Throws TimeoutError, std::logic_error (in a forked
  // child), and what making a Pipe throws.
  Connection accept(Timeout timeout = forever);

  // For shoal::wait(): a client is there, or one is about to be.
  WaitSource wait_source() const {
    own_socket();
    return {.descriptor = all_.get(), .operations = nullptr, .thing = nullptr};
  }
  const std::string& name() const { return name_; }

 private:
  // One that has been offered an end and has not said that it has it.
  struct Client {
    UnforkedFd socket;
    Connection ours;
    Connection theirs;  // on its way
  };
  int own_socket() const;
  void watch(int descriptor) const;
  void welcome();

  std::string name_;
  UnforkedFd socket_;
  UnforkedFd all_;  // epoll(7) of it and of the clients'
  std::vector<Client> clients_;
};

// Waits for somebody to listen there, and to accept. Throws TimeoutError,
// std::invalid_argument, std::system_error.
Connection connect(std::string_view name, Timeout timeout = forever);

}  // namespace shoal
