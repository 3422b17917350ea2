#pragma once
// Manager: a process that holds containers which grow, and proxies of them
// that any process uses.
//
//   shoal::Manager manager;                               // starts the server
//   auto scores = manager.dict<std::string, int>();
//   shoal::Process p([](auto d) { d.set("a", 1); }, scores);
//   ...
//   auto here = shoal::Manager::create("game");           // with a name,
//   auto there = shoal::Manager::open("game");            // for strangers, who
//   there.dict<std::string, int>("scores");               // find by name, too
//
// What is asked of one object is done one after the other; a slow request of
// one client delays only those who ask for the same object. Locks, queues,
// Value and Array made here are shoal's own: they lie in shared memory, and a
// client that is blocked in one delays nobody.
//
// Sharing:  of proxies: by all. Objects live as long as there is a proxy of
//           them, in any process or in another object; those with a name as
//           long as the server.
// Death:    of the process that made the Manager: the server ends. Of the
//           server: PeerDied in all its proxies, at once. Of a client: nothing,
//           or what it asked for has been done.
// Cost:     a process and a thread for each client's connection.
//
// The server is a Process: forked, it has, and keeps, what its maker has mapped
// at that moment. Make it early, or by another start method.
//
// A server and its clients are the same program, or TypeMismatch says so: types
// and functions travel as references to its code.

#include <cstddef>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "shoal/ipc/errors.h"
#include "shoal/ipc/joinable_queue.h"
#include "shoal/ipc/process.h"
#include "shoal/ipc/queue.h"
#include "shoal/ipc/sync.h"
#include "shoal/shared/array.h"
#include "shoal/shared/dict.h"
#include "shoal/shared/list.h"
#include "shoal/shared/manager_client.h"
#include "shoal/shared/namespace.h"
#include "shoal/shared/value.h"

namespace shoal {

class Manager {
 public:
  // Starts a server. Throws what starting a Process throws.
  Manager() : Manager(std::nullopt) {}
  explicit Manager(StartMethod method)
      : Manager(std::optional<StartMethod>(method)) {}
  // With a name that other processes of this user find it by. Throws
  // std::system_error (EEXIST), std::invalid_argument.
  static Manager create(std::string_view name);
  // One that runs. Throws std::system_error (ENOENT).
  static Manager open(std::string_view name);

  Manager(Manager&&) noexcept = default;
  Manager& operator=(Manager&& other) noexcept;
  // Ends the server, if this is what has started it.
  ~Manager();

  // Likewise; may be repeated. Later calls of its proxies throw PeerDied.
  void shutdown();
  bool is_alive() const;
  // Of the server; 0 if this process has not started it.
  pid_t pid() const;

  // ---- containers; with a name, the one of that name, made if need be ----

  template <class K, class V>
  Dict<K, V> dict(const std::string& name = {}) {
    return Dict<K, V>(make<manager::DictData<K, V>>(name));
  }
  template <class K, class V>
  Dict<K, V> dict(const std::vector<std::pair<K, V>>& items) {
    auto dict = this->dict<K, V>();
    dict.update(items);
    return dict;
  }
  template <class K, class V>
  Dict<K, V> dict(std::initializer_list<std::pair<K, V>> items) {
    return dict<K, V>(std::vector<std::pair<K, V>>(items));
  }
  template <class T>
  List<T> list(const std::string& name = {}) {
    return List<T>(make<manager::ListData<T>>(name));
  }
  template <class T>
  List<T> list(const std::vector<T>& values) {
    auto list = this->list<T>();
    list.extend(values);
    return list;
  }
  template <class T>
  List<T> list(std::initializer_list<T> values) {
    return list<T>(std::vector<T>(values));
  }
  Namespace ns(const std::string& name = {}) {
    return Namespace(make<manager::NamespaceData>(name));
  }

  // ---- objects in shared memory ----

  template <class T>
  Value<T> value(const T& initial = {}) {
    return Value<T>(initial);
  }
  template <class T, class... Args>
  Array<T> array(Args&&... args) {
    return Array<T>(std::forward<Args>(args)...);
  }
  template <class T, class... Args>
  Queue<T> queue(const Args&... args) {
    return Queue<T>(args...);
  }
  template <class T, class... Args>
  JoinableQueue<T> joinable_queue(const Args&... args) {
    return JoinableQueue<T>(args...);
  }
  Lock lock() { return Lock(); }
  RLock rlock() { return RLock(); }
  Semaphore semaphore(unsigned units = 1) { return Semaphore(units); }
  BoundedSemaphore bounded_semaphore(unsigned units = 1) {
    return BoundedSemaphore(units);
  }
  Condition condition() { return Condition(); }
  Event event() { return Event(); }
  Barrier barrier(int parties) { return Barrier(parties); }

 private:
  explicit Manager(std::optional<StartMethod> method,
                   std::string_view name = {});
  explicit Manager(std::shared_ptr<manager::Remote> remote)
      : remote_(std::move(remote)) {}

  template <class Data>
  std::shared_ptr<const manager::Reference> make(const std::string& name) {
    if (remote_ == nullptr) throw Closed("shoal: this Manager was moved from");
    return manager::make<Data>(remote_, name);
  }

  // This process has started the server.
  bool owns() const;

  std::shared_ptr<manager::Remote> remote_;
  std::unique_ptr<Process> server_;  // none: another's
  pid_t maker_ = 0;                  // of server_; a fork has its copy
};

}  // namespace shoal
