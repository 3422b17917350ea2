#pragma once
// Waitable: what shoal::wait() waits for, and how a type becomes one.
//
// A type takes part by a function that is found by its namespace:
//
//   WaitSource wait_source(Thing& thing);
//
// or, for templates and friends, by a member wait_source(). The source lives
// as long as one call of wait().

#include <concepts>
#include <type_traits>

#include "shoal/ipc/liveness.h"

namespace shoal {

// Either a descriptor that becomes readable, or a thing whose wakers ring the
// bell of its domain (waiting.h).
struct WaitSource {
  struct Operations {
    // A receiving call would not block: there is a value, an end, a shutdown.
    // Never says no when it would not. Arms nothing, keeps nothing.
    bool (*ready)(void* thing);
    // From now on whoever makes it ready rings the bell once. Called before a
    // look, with a heavy fence between.
    void (*announce)(void* thing);
    liveness::Domain& (*domain)(void* thing);
    // It is ready and was announced; nobody will take it on account of that.
    void (*pass_on)(void* thing);
    // One whose death would make it ready, by a process's seat; 0: nobody's.
    liveness::Who (*blocker)(void* thing);
  };

  int descriptor = -1;
  const Operations* operations = nullptr;
  void* thing = nullptr;

  // Of a thing with these as members. pass_on_wait() where others sleep on the
  // word that announce_wait() changes.
  template <class T>
  static WaitSource of(T& thing) {
    static constexpr Operations kOperations{
        [](void* t) { return static_cast<T*>(t)->ready_to_wait_for(); },
        [](void* t) { static_cast<T*>(t)->announce_wait(); },
        [](void* t) -> liveness::Domain& {
          return static_cast<T*>(t)->domain_to_wait_in();
        },
        [](void* t) {
          if constexpr (requires { static_cast<T*>(t)->pass_on_wait(); })
            static_cast<T*>(t)->pass_on_wait();
        },
        [](void* t) { return static_cast<T*>(t)->blocker_to_wait_for(); }};
    return {.descriptor = -1, .operations = &kOperations, .thing = &thing};
  }
};

template <class T>
concept HasWaitSource = requires(T& thing) {
  { thing.wait_source() } -> std::same_as<WaitSource>;
}
|| requires(T& thing) {
  { wait_source(thing) } -> std::same_as<WaitSource>;
};

class Waitable {
 public:
  // A descriptor; readable, hung up and in error all count as ready.
  Waitable(int descriptor)  // NOLINT(google-explicit-constructor): api.md
      : source_{descriptor, nullptr, nullptr} {}
  // A Connection, Queue, Event, Process, AsyncResult.
  template <HasWaitSource T>
  requires(!std::is_const_v<T>)
      // NOLINTNEXTLINE(google-explicit-constructor): as in api.md
      Waitable(T& thing)
      : source_(source_of(thing)) {}

  const WaitSource& source() const { return source_; }

 private:
  template <class T>
  static WaitSource source_of(T& thing) {
    if constexpr (requires { thing.wait_source(); })
      return thing.wait_source();
    else
      return wait_source(thing);
  }
  WaitSource source_;
};

}  // namespace shoal
