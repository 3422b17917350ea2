#pragma once
// The server of a Manager: what it holds, and what requests run on it.
//
// A request names code of this very program (FunctionRef), which decodes its
// arguments, runs on an object of the server's, and encodes its result. Each
// connection has a thread of its own; an object is one request's at a time.
//
// Death: of a client, at any moment: its connection ends; what it asked for has
//        been done or not. An object lives as long as somebody has the other
//        end of its pipe(2), which travels with each proxy, or it has a name.

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>

#include "shoal/ipc/codec.h"
#include "shoal/ipc/connection.h"
#include "shoal/ipc/fd.h"
#include "shoal/ipc/function.h"
#include "shoal/ipc/listener.h"
#include "shoal/ipc/passage.h"
#include "shoal/ipc/spare_descriptors.h"

namespace shoal::manager {

// In front of a request's arguments. object 0: the server itself.
struct Header {
  FunctionRef code;
  std::uint64_t object;
  std::uint64_t type;
};
// In front of a reply: a result, or an exception's bytes.
enum class Outcome : unsigned char { result = 0, error = 1 };

// What a server holds.
class Held {
 public:
  explicit Held(std::uint64_t type) : type_(type) {}
  Held(const Held&) = delete;
  Held& operator=(const Held&) = delete;
  virtual ~Held() = default;

  std::uint64_t type() const { return type_; }
  virtual std::string type_text() const = 0;
  std::mutex& mutex() { return mutex_; }

 private:
  const std::uint64_t type_;
  std::mutex mutex_;
};

// Where a request's result goes.
class Reply {
 public:
  explicit Reply(Connection& to) : to_(to) {}

  // Memory for exactly `bytes`; once.
  std::span<std::byte> allocate(std::size_t bytes);
  Passage* passage() { return &*passage_; }
  // Throws BrokenPipe.
  void send();
  void send_error(std::exception_ptr error);

 private:
  std::span<std::byte> begin(Outcome outcome, std::size_t bytes);

  Connection& to_;
  std::optional<Frame> frame_;
  std::optional<Deposits> passage_;
};

// How a client gets at an object.
struct Ticket {
  std::uint64_t object;
  Fd lifeline;
};

class Service {
 public:
  // Throws std::system_error.
  explicit Service(std::uint64_t id);
  Service(const Service&) = delete;
  Service& operator=(const Service&) = delete;

  using Make = std::function<std::shared_ptr<Held>()>;
  // Without a name a new one; else that of the name, which is made if there is
  // none. Throws TypeMismatch.
  Ticket get(const std::string& name, std::uint64_t type, const Make& make);
  std::uint64_t id() const { return id_; }

  // Clients of both, and objects that nobody has any more, until `stop`, a
  // descriptor, is readable.
  void run(Listener& listener, Listener* named, int stop);

 private:
  struct Entry {
    std::shared_ptr<Held> held;
    Fd other_end;  // its pipe's reading end
    Fd own_end;    // of one that has a name
  };

  void converse(Connection client);
  void answer(Connection& client);
  std::shared_ptr<Held> find(const Header& header);
  void drop_unused();
  // False: it has no descriptor or thread for another client.
  bool welcome(Listener& listener);

  const std::uint64_t id_;
  Fd watched_;              // epoll(7) over all reading ends
  std::mutex mutex_;        // of the rest
  SpareDescriptors spare_;  // for clients, who can let go of objects
  std::unordered_map<std::uint64_t, Entry> entries_;
  std::unordered_map<std::string, std::uint64_t> names_;
  std::uint64_t last_ = 0;
};

using Thunk = void (*)(Service&, Held*, codec::Reader&, Reply&);

// The whole life of a server. `ready` is told when clients may come, or what is
// wrong. `name`: under which unrelated processes find it, or empty.
void serve(std::uint64_t id, const std::string& name, Connection ready);

// Names of Listeners.
std::string address_of(std::uint64_t id);
std::string address_of(std::string_view name);

// This thread runs a request: it must not make one.
bool within_request();

}  // namespace shoal::manager
