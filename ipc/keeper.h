#pragma once
// The keeper: a process that holds the descriptors of what messages refer to,
// from put() to get(), so that a handle arrives also when its sender has ended.
//
//   const Deposit at = keeper::deposit(domain, container, {segment, seats});
//   ... the message carries {at.keeper, at.ticket} ...
//   Collected collected = keeper::collect(at.keeper, at.ticket);
//
// Only descriptors go through it, on a control socket; data never does. It is
// one process for each domain, made by exec when first needed, a child of
// nobody, holds nothing but what is in flight, and ends when nothing is and
// nobody lives who could send, or nobody has for two seconds.
//
// Death:  of the keeper: what was in flight then is an Error at whoever gets
//         it; the next deposit starts another. Of a sender after deposit() and
//         before the message is published: the descriptors stay until the
//         container is gone. Of a container's last user, or of a Pipe's
//         receiving end: what was in flight in it is dropped, as is what was
//         passed by or discarded without being collected. "Gone" is the
//         kernel's word: nobody has the segment mapped (F_ADD_SEALS), or a
//         named one open (F_SETLEASE).
// Cost:   deposit and collect are one round trip each to another process;
//         starting it 1 to 3 ms.

#include <cstdint>
#include <span>
#include <vector>

#include "shoal/ipc/fd.h"
#include "shoal/ipc/keeper_messages.h"
#include "shoal/ipc/liveness.h"

namespace shoal::keeper {

struct Deposit {
  std::uint64_t keeper = 0;
  std::uint64_t ticket = 0;
  // Its process's seat in the domain: owns what must have a living owner.
  liveness::Who who = 0;
};

// What a deposit is kept for as long as.
struct Container {
  int descriptor;    // of its segment
  std::uint64_t id;  // of its object
  // Where in the segment the word lies that says whose its receiving end is: a
  // Pipe's, without which nobody receives; 0 where anybody may.
  std::uint64_t receiver = 0;
  // The same of a process without which nobody collects, whose seat alone that
  // word is, or 0 as long as it has none: the nursery of a pool's workers.
  std::uint64_t collector = 0;
  std::uint64_t domain = 0;  // of the seats in these words
  // Who has it in hands at that moment has a tenth of a second to collect.
  Passed passed = {};
  // May be collected again until the message is passed: it is received anew by
  // another when its receiver has died. (Not what has one owner.)
  bool again = false;
};

enum class Contents {
  segments,    // of objects
  open_files,  // of the program: position, flags and locks come along
};

// `end`: of a connection, which is closed when the deposit is dropped; -1 else.
// Throws std::system_error, NoSpace when the keeper has no numbers left,
// TimeoutError when it does not answer for ten seconds (it is stopped).
Deposit deposit(liveness::Domain& domain, Container container,
                std::span<const int> descriptors, Contents contents,
                int end = -1);

struct Collected {
  std::vector<Fd> descriptors;
  // Open until the segments are mapped: until then the keeper takes none of
  // them for one that nobody uses.
  Fd receipt;
};
// Once, if not `again`. Throws Error when it is gone.
Collected collect(std::uint64_t keeper, std::uint64_t ticket);

// It is not needed: the receiver has it, or it was not sent.
void forget(std::uint64_t keeper, std::uint64_t ticket) noexcept;

}  // namespace shoal::keeper
