#pragma once
// handover: how a process that was started anew gets what it is to do.
//
//   starter                                 the new process
//   offer header, introduction,     ------> receive()
//     descriptors, bytes
//   descriptors, or an exception    <------ Arrival::accept(), refuse()
//
// Over a socket pair of which each has one end. Both know the other by a pidfd
// and watch it for as long as they wait, so that it does not matter who else
// has inherited an end of the socket.
//
// Ordering: as by the socket: what happened before offer() is visible behind
//           receive(), what did before accept() to whoever offer() returns to.
// Death:    of the new process before it accepts: offer() says so, nothing has
//           run. Of the starter before its offer is whole: receive() ends the
//           process.
// Cost:     six system calls, and two copies of the bytes.

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "shoal/ipc/descriptor.h"
#include "shoal/ipc/function.h"
#include "shoal/ipc/pidfd.h"
#include "shoal/ipc/surroundings.h"

namespace shoal::handover {

// Who the new process is.
struct Introduction {
  std::string name;
  std::string identity;
  bool daemon = false;
  std::int64_t parent_pid = 0;
  std::string parent_name;
  std::string title;  // what ps and top show of the starter
  std::vector<function::Place> places;
  std::optional<Surroundings> surroundings;
};
// All but name, identity, daemon, parent_name, and without surroundings.
Introduction introduce_this_process();

// What it is to do: an Entry of this program, and what that reads.
struct Parcel {
  FunctionRef entry = {};
  std::span<const std::byte> bytes;
  std::span<const int> descriptors;  // any number; duplicated into it
};

struct Arrival {
  Introduction introduction;
  FunctionRef entry;
  std::vector<std::byte> bytes;
  std::vector<Descriptor> descriptors;
  std::shared_ptr<const Pidfd> parent;
  Descriptor channel;

  // The starter has what it waits for.
  void accept(std::span<const int> reply = {});
  // The starter throws this. The process is to end.
  void refuse(std::exception_ptr error) noexcept;
  // f() takes what was handed over; nothing of it is kept here. What it throws
  // is refused, and the process ends.
  void take_over(const std::function<void()>& f);
};
using Entry = void (*)(Arrival& arrival);

// The descriptors that the process has accepted with; nothing if it ended
// before. Throws what it has refused with, std::system_error.
std::optional<std::vector<Descriptor>> offer(int channel, const Pidfd& process,
                                             const Introduction& introduction,
                                             const Parcel& parcel);

// Ends the process if its starter has ended.
Arrival receive(Descriptor channel, std::shared_ptr<const Pidfd> parent);

// Calls the entry. Refuses and ends the process if there is none here.
void enter(Arrival& arrival);

// ---- the parts, for a further protocol on such a socket ----

// A pair of such sockets.
struct Ends {
  Descriptor one, other;
};
Ends make_ends(const std::string& name);
// Whoever else has inherited this end: the other one sees the end of it.
void hang_up(int channel);

// All of them write or read everything, with at most kMostAtOnce descriptors;
// false: the peer has hung up or ended.
inline constexpr std::size_t kMostAtOnce = 250;
bool send(int channel, const Pidfd& peer, std::span<const std::byte> bytes,
          std::span<const int> descriptors = {});
bool receive(int channel, const Pidfd& peer, std::span<std::byte> bytes,
             std::vector<Descriptor>* descriptors = nullptr);

}  // namespace shoal::handover
