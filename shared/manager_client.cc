#include "shoal/shared/manager_client.h"

#include <errno.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <mutex>
#include <optional>
#include <stdexcept>

#include "shoal/ipc/errors.h"
#include "shoal/ipc/exception_codec.h"
#include "shoal/ipc/fork_mutex.h"
#include "shoal/ipc/lazy_static.h"
#include "shoal/ipc/listener.h"
#include "shoal/ipc/liveness.h"

namespace shoal::manager {
namespace {

using namespace std::chrono_literals;

using Remotes = std::map<std::uint64_t, std::weak_ptr<Remote>>;
constinit LazyStatic<Remotes> remotes;
constinit ForkMutex remotes_mutex;
SHOAL_AT_FORK const HeldAtFork<remotes_mutex> held_at_fork;

[[noreturn]] void throw_died() {
  throw PeerDied("shoal: the server of this Manager has ended");
}

// `connection` has no peer any more. That of a server that has died is not
// closed; whether its address is still there says nothing: the kernel closes
// what it had one after the other.
[[noreturn]] void throw_gone(Connection& connection) {
  try {
    static_cast<void>(connection.peek(now));
  } catch (const PeerDied&) {
    connection.close();
    throw_died();
  } catch (const Error&) {
  }
  connection.close();
  throw Error(
      "shoal: the server of this Manager has cut a connection: it has no "
      "memory, thread or descriptor for it; raise its limits, or use fewer "
      "threads at once");
}

// Waits for a server that is busy as long as it lives, but not for ever.
Connection connect_to(const std::string& address) {
  const Deadline deadline(30s);
  // The first are short: it may die between a look and an attempt.
  for (std::chrono::milliseconds attempt = 10ms;;
       attempt = std::min(2 * attempt, std::chrono::milliseconds(1s))) {
    if (!listener::is_there(address)) throw_died();
    try {
      return connect(address, attempt);
    } catch (const TimeoutError&) {
      if (deadline.passed())
        throw TimeoutError(
            "shoal: the server of this Manager accepts no connection for 30 s; "
            "it is stopped, or out of descriptors");
    }
  }
}

// Says which server it is.
void run_identify(Service& service, Held*, codec::Reader& reader,
                  Reply& reply) {
  reader.finish();
  codec::Writer writer(reply.allocate(sizeof(std::uint64_t)));
  codec::encode(writer, service.id());
}

}  // namespace

std::shared_ptr<Remote> Remote::of(std::uint64_t id) {
  const std::lock_guard guard(remotes_mutex);
  Remotes& all = remotes.get();
  auto remote = all[id].lock();
  if (remote == nullptr) {
    std::erase_if(all,
                  [](const auto& entry) { return entry.second.expired(); });
    remote.reset(new Remote(id));
    all[id] = remote;
  }
  return remote;
}

std::shared_ptr<Remote> Remote::open(std::string_view name) {
  const std::string address = address_of(name);
  if (!listener::is_there(address))
    throw_system_error(ENOENT, "open", "Manager \"" + std::string(name) + '"');
  // By a call of one that is nobody's yet.
  Remote nobody(0);
  nobody.give(connect_to(address));
  return of(
      nobody.call<std::uint64_t>(call::reference_of<&run_identify>(), 0, 0));
}

bool Remote::is_there() const { return listener::is_there(address_of(id_)); }

Remote::~Remote() { leave_to_parent(); }

void Remote::leave_to_parent() {
  const auto depth = liveness::fork_depth();
  if (std::exchange(depth_, depth) == depth) return;
  static_cast<void>(idle_.release());
  idle_ = std::make_unique<Idle>();
}

Connection Remote::take() {
  if (within_request())
    throw std::logic_error(
        "shoal: code that runs in a Manager cannot call one: it would wait for "
        "itself");
  {
    const std::lock_guard guard(mutex_);
    leave_to_parent();
    while (!idle_->empty()) {
      Connection idle = std::move(idle_->back());
      idle_->pop_back();
      // Nothing is to come, unless it is the end.
      if (!idle.poll()) return idle;
    }
  }
  return connect_to(address_of(id_));
}

void Remote::give(Connection connection) noexcept {
  try {
    const std::lock_guard guard(mutex_);
    leave_to_parent();
    if (!connection.closed() && idle_->size() < kMostIdle)
      idle_->push_back(std::move(connection));
  } catch (const std::exception&) {
    // It is closed.
  }
}

Frame Remote::Line::reserve(std::size_t bytes) {
  try {
    return connection_.reserve(bytes);
  } catch (const BrokenPipe&) {
    throw_gone(connection_);
  }
}

View Remote::Line::receive() {
  std::optional<View> reply;
  try {
    reply.emplace(connection_.peek());
  } catch (const EndOfFile&) {
    throw_gone(connection_);
  }
  codec::Reader reader(reply->bytes());
  if (static_cast<Outcome>(reader.read<unsigned char>()) == Outcome::error)
    std::rethrow_exception(exception_codec::decode(reply->bytes().subspan(1)));
  return std::move(*reply);
}

// ---- Proxy ----

const Reference& Proxy::reference() const {
  if (reference_ == nullptr) throw Closed("shoal: this proxy was moved from");
  return *reference_;
}

bool Proxy::operator==(const Proxy& other) const {
  return reference().remote == other.reference().remote &&
         reference().object == other.reference().object;
}

HandleRef refer_to(const Proxy& proxy, Passage* passage) {
  if (passage == nullptr)
    throw std::invalid_argument(
        "shoal: a proxy cannot travel here: send it through a Queue, a "
        "Connection, a Process, a Pool or a Manager");
  const Reference& to = proxy.reference();
  HandleRef reference{.object = 0,
                      .part = to.object,
                      .type = to.type,
                      .domain = to.remote->id(),
                      .keeper = 0,
                      .ticket = 0};
  passage->carry(to.lifeline.get(), reference);
  return reference;
}

std::shared_ptr<const Reference> arrive(const HandleRef& reference,
                                        Arrival* arrival, std::uint64_t type) {
  if (reference.object != 0 || reference.type != type)
    throw TypeMismatch(
        "shoal: a message refers to something else than this kind of proxy");
  if (arrival == nullptr || reference.ticket == 0)
    throw Error("shoal: a proxy cannot arrive here");
  std::vector<Fd> descriptors = arrival->take(reference);
  arrival->settled();
  return std::make_shared<const Reference>(
      Reference{Remote::of(reference.domain), reference.part, type,
                std::move(descriptors.front())});
}

}  // namespace shoal::manager
