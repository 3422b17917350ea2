#pragma once
// A Manager's server as a process that uses it knows it, and calls of it.
//
// Sharing: by all threads; each call has a connection to itself, of which eight
//          are kept for the next ones.
// Death:   of the server: PeerDied, at once. After fork() the child makes
//          connections of its own.
// Cost:    a round trip through a Pipe; the first call of a thread beside
//          others a connect().

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "shoal/ipc/call.h"
#include "shoal/ipc/codec.h"
#include "shoal/ipc/connection.h"
#include "shoal/ipc/fork_mutex.h"
#include "shoal/ipc/liveness.h"
#include "shoal/ipc/passage.h"
#include "shoal/ipc/type_name.h"
#include "shoal/shared/manager_server.h"

namespace shoal::manager {

class Remote {
 public:
  // One a process, as long as somebody has it.
  static std::shared_ptr<Remote> of(std::uint64_t id);
  // Of a server that has that name. Throws std::system_error (ENOENT).
  static std::shared_ptr<Remote> open(std::string_view name);

  ~Remote();
  Remote(const Remote&) = delete;
  Remote& operator=(const Remote&) = delete;

  std::uint64_t id() const { return id_; }
  bool is_there() const;

  // Runs `code` there. Throws what it throws there; PeerDied when the server is
  // gone, std::logic_error from within code that runs in a Manager.
  template <class R, class... As>
  R call(const FunctionRef& code, std::uint64_t object, std::uint64_t type,
         const As&... arguments) {
    return ask<R>({code, object, type}, codec::size_of_all(arguments...),
                  [&](codec::Writer& writer) {
                    codec::encode_all(writer, arguments...);
                  });
  }
  // With a callable in front of the arguments.
  template <class R, class F, class... As>
  R call_with(const FunctionRef& code, std::uint64_t object, std::uint64_t type,
              const F& f, const As&... arguments) {
    static_assert(shoal::call::kCallableTravels<F>,
                  "shoal: this function cannot travel to a Manager's server. "
                  "Give a function, a captureless lambda, a function object "
                  "that is a Message, or a lambda that captures small "
                  "trivially copyable things by value.");
    return ask<R>(
        {code, object, type},
        shoal::call::callable_size(f) + codec::size_of_all(arguments...),
        [&](codec::Writer& writer) {
          shoal::call::encode_callable(writer, f);
          codec::encode_all(writer, arguments...);
        });
  }

 private:
  template <class R, class Encode>
  R ask(const Header& header, std::size_t bytes, Encode&& encode) {
    Line line(*this);
    line.send(header, bytes, encode);
    const View reply = line.receive();
    Arrival arrival;
    codec::Reader reader(reply.bytes().subspan(1), &arrival);
    if constexpr (std::is_void_v<R>) {
      reader.finish();
    } else {
      R result = codec::decode<R>(reader);
      reader.finish();
      return result;
    }
  }

  // A connection for one call.
  class Line {
   public:
    explicit Line(Remote& remote)
        : remote_(remote), connection_(remote.take()) {}
    Line(const Line&) = delete;
    Line& operator=(const Line&) = delete;
    ~Line() { remote_.give(std::move(connection_)); }

    template <class Encode>
    void send(const Header& header, std::size_t bytes, Encode&& encode) {
      Frame frame = reserve(sizeof header + bytes);
      Deposits passage(ConnectionAccess::end(connection_)->as_container());
      codec::Writer writer(frame.bytes(), &passage);
      writer.write(&header, sizeof header);
      encode(writer);
      writer.finish();
      frame.commit();
      passage.sent();
    }
    // A result. Throws the error that came instead.
    View receive();

   private:
    Frame reserve(std::size_t bytes);

    Remote& remote_;
    Connection connection_;
  };

  explicit Remote(std::uint64_t id) : id_(id) {}

  Connection take();
  void give(Connection connection) noexcept;
  // After a fork, whose copy may be half changed: it is the parent's, and not
  // ours to look at or to close.
  void leave_to_parent();

  using Idle = std::vector<Connection>;
  static constexpr std::size_t kMostIdle = 8;

  const std::uint64_t id_;
  ForkMutex mutex_;  // of what follows
  // How often forked, when `idle_` was made.
  std::uint64_t depth_ = liveness::fork_depth();
  std::unique_ptr<Idle> idle_ = std::make_unique<Idle>();
};

// An object in a server, as a proxy refers to it. The server keeps it for as
// long as somebody has its lifeline.
struct Reference {
  std::shared_ptr<Remote> remote;
  std::uint64_t object;
  std::uint64_t type;
  Fd lifeline;
};

// What all proxies have in common; copying one copies the reference.
class Proxy {
 public:
  explicit Proxy(std::shared_ptr<const Reference> reference)
      : reference_(std::move(reference)) {}

  const Reference& reference() const;
  bool operator==(const Proxy& other) const;

 private:
  std::shared_ptr<const Reference> reference_;
};

HandleRef refer_to(const Proxy& proxy, Passage* passage);
std::shared_ptr<const Reference> arrive(const HandleRef& reference,
                                        Arrival* arrival, std::uint64_t type);

// The base of every HandleTraits<P>.
template <class P>
struct ProxyTraits {
  static HandleRef reference(const P& proxy, Passage* passage) {
    return refer_to(proxy, passage);
  }
  static P resolve(const HandleRef& reference, Arrival* arrival) {
    return P(manager::arrive(reference, arrival, P::Data::type_id()));
  }
};

// ---- calls of an object's functions ----

// kMethod of Data, there: by the mutex of the object.
template <auto kMethod, class Data, class... As>
void run_method(Service&, Held* held, codec::Reader& reader, Reply& reply) {
  auto arguments = codec::decode_tuple<As...>(reader);
  reader.finish();
  auto& data = static_cast<Data&>(*held);
  const std::lock_guard guard(data.mutex());
  const auto apply = [&]() -> decltype(auto) {
    return std::apply(
        [&](As&... as) -> decltype(auto) {
          return (data.*kMethod)(std::move(as)...);
        },
        arguments);
  };
  using R = decltype(apply());
  if constexpr (std::is_void_v<R>) {
    apply();
  } else {
    const auto& result = apply();
    codec::Writer writer(reply.allocate(codec::size(result)), reply.passage());
    codec::encode(writer, result);
    writer.finish();
  }
}

// The same here: data.kMethod(arguments...).
template <auto kMethod, class Data, class... As>
auto invoke(const Reference& object, const As&... arguments) {
  using R = std::decay_t<decltype((std::declval<Data&>().*
                                   kMethod)(std::declval<As>()...))>;
  return object.remote->call<R>(
      call::reference_of<&run_method<kMethod, Data, As...>>(), object.object,
      object.type, arguments...);
}

// What kLook gives, which kRemove takes away once it is in the reply: of a
// reply that cannot be made it is not lost.
template <auto kLook, auto kRemove, class Data, class... As>
void run_take(Service&, Held* held, codec::Reader& reader, Reply& reply) {
  const auto arguments = codec::decode_tuple<As...>(reader);
  reader.finish();
  auto& data = static_cast<Data&>(*held);
  const std::lock_guard guard(data.mutex());
  std::apply(
      [&](const As&... as) {
        const auto& result = (data.*kLook)(as...);
        codec::Writer writer(reply.allocate(codec::size(result)),
                             reply.passage());
        codec::encode(writer, result);
        writer.finish();
        (data.*kRemove)(as...);
      },
      arguments);
}
template <auto kLook, auto kRemove, class Data, class... As>
auto take(const Reference& object, const As&... arguments) {
  using R = std::decay_t<decltype((std::declval<Data&>().*
                                   kLook)(std::declval<const As&>()...))>;
  return object.remote->call<R>(
      call::reference_of<&run_take<kLook, kRemove, Data, As...>>(),
      object.object, object.type, arguments...);
}

// Makes a Data there, or finds the one of that name.
template <class Data>
void run_make(Service& service, Held*, codec::Reader& reader, Reply& reply) {
  const auto name = codec::decode<std::string>(reader);
  reader.finish();
  const Ticket ticket = service.get(name, Data::type_id(),
                                    [] { return std::make_shared<Data>(); });
  codec::Writer writer(reply.allocate(codec::size(ticket)), reply.passage());
  codec::encode(writer, ticket);
  writer.finish();
}
template <class Data>
std::shared_ptr<const Reference> make(const std::shared_ptr<Remote>& remote,
                                      const std::string& name) {
  auto ticket =
      remote->call<Ticket>(call::reference_of<&run_make<Data>>(), 0, 0, name);
  return std::make_shared<const Reference>(Reference{
      remote, ticket.object, Data::type_id(), std::move(ticket.lifeline)});
}

// value = f(value), or f(value) of an f that changes it by reference.
template <class T, class F>
void apply_to(T& object, F& f) {
  // Hides from g++ 12 which object it is: it would warn that a small one has no
  // table of virtual functions, in which a pointer to a member might point.
  T& value = *std::launder(&object);
  if constexpr (std::is_void_v<std::invoke_result_t<F&, T&>>)
    std::invoke(f, value);
  else
    value = std::invoke(f, value);
}

// What operator[] of a proxy gives: container[key] = value, and V value =
// container[key], by calls of set() and at().
template <class Container, class K, class V>
class Item {
 public:
  Item(Container container, const K& key)
      : container_(std::move(container)), key_(key) {}
  Item(const Item&) = default;
  Item& operator=(const V& value) {
    container_.set(key_, value);
    return *this;
  }
  // container[key] = container[other];
  Item& operator=(const Item& other) { return *this = static_cast<V>(other); }
  operator V() const { return container_.at(key_); }  // NOLINT: as V&

 private:
  Container container_;
  K key_;
};

// That of a Data with this text.
template <class Data>
std::uint64_t type_id_of() {
  // As KnownReference, and for its reason.
  static constinit std::atomic<std::uint64_t> known{0};
  // relaxed, both: it is the same, whoever finds it.
  std::uint64_t id = known.load(std::memory_order_relaxed);
  if (id == 0) {
    id = layout::hash(Data::text());
    known.store(id, std::memory_order_relaxed);
  }
  return id;
}

}  // namespace shoal::manager
