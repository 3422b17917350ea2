#pragma once
// TCP on 127.0.0.1, as little of it as the examples need. Every error of the
// system is a std::system_error.

#include <netinet/in.h>
#include <shoal/ipc/fd.h>

#include <string>

namespace loopback {

// A socket that clients can connect to; port 0 is any that is free.
shoal::Fd listen(in_port_t port);
in_port_t port_of(const shoal::Fd& server);
shoal::Fd accept(const shoal::Fd& server);  // waits for a client

// Sends back what arrives until the client hangs up; how many bytes.
std::size_t echo(const shoal::Fd& client);

// A client: connects, sends `text`, and returns as many bytes of answer, fewer
// if the server hangs up first.
std::string ask(in_port_t port, const std::string& text);

}  // namespace loopback
