#pragma once
// Value<T>: one T that several processes use in place.
//
//   shoal::Value<int> hits;             shoal::Value<State> state(initial);
//   hits.fetch_add(1);                  state.update([](State s) { ...; return s; });
//   { auto v = state.lock(); v->x = 1; }      // published whole at the brace
//
// Sharing:  copying a Value copies the handle; v = x stores.
// Ordering: set() and what follows get() are ordered as by std::atomic.
// Death:    never torn; a writer killed half-way leaves the old value; a lock
//           outlives its holder. Readers wait for nobody.
// Cost:     up to 8 bytes: std::atomic's. Larger: a copy and two loads to
//           read; a lock, a copy and a store to write.
// Layout:   docs/layout.md#value

#include <cstring>
#include <exception>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string_view>
#include <type_traits>
#include <utility>

#include "shoal/ipc/errors.h"
#include "shoal/ipc/handle.h"
#include "shoal/ipc/message.h"
#include "shoal/ipc/object.h"
#include "shoal/ipc/type_name.h"
#include "shoal/shared/value_state.h"

namespace shoal {

template <class T>
concept Arithmetic = std::is_arithmetic_v<T> && !std::is_same_v<T, bool>;

template <class T>
class Value {
  static_assert(codec::require_shareable<T>());

 public:
  using value_type = T;
  class Locked;

  // Anonymous: for this process and its children.
  Value() requires std::default_initializable<T> : Value(T{}) {}
  explicit Value(T initial) : Value(Object::create(make_spec(initial))) {}

  // Named; `args` are an initial T and an Access, both optional.
  template <class... Args>
  static Value create(std::string_view name, const Args&... args) {
    return Value(
        Object::create(name, make_spec(initial_of(args...)), access_of(args...)));
  }
  static Value open(std::string_view name, Access access = {}) {
    return Value(Object::open(name, object_spec(), access));
  }
  template <class... Args>
  static Value open_or_create(std::string_view name, const Args&... args) {
    return Value(Object::open_or_create(name, make_spec(initial_of(args...)),
                                        access_of(args...)));
  }

  T get() const { return Store::load(*state_); }
  operator T() const { return get(); }  // NOLINT(google-explicit-constructor): api.md

  // Up to 8 bytes: one store. Larger: waits for whoever holds the lock.
  void set(const T& value) {
    if constexpr (LockFreeValue<T>)
      writable().value.store(value, std::memory_order_seq_cst);
    else
      publish_locked([&](const T&) { return value; });
  }
  Value& operator=(const T& value) {
    set(value);
    return *this;
  }
  Value(const Value&) = default;
  Value& operator=(const Value&) = default;

  // These return the value before.
  T fetch_add(T amount) requires Arithmetic<T> {
    if constexpr (LockFreeValue<T>)
      return writable().value.fetch_add(amount, std::memory_order_seq_cst);
    else
      return publish_locked([&](const T& old) { return static_cast<T>(old + amount); });
  }
  T fetch_sub(T amount) requires Arithmetic<T> {
    if constexpr (LockFreeValue<T>)
      return writable().value.fetch_sub(amount, std::memory_order_seq_cst);
    else
      return publish_locked([&](const T& old) { return static_cast<T>(old - amount); });
  }
  T exchange(T value) {
    if constexpr (LockFreeValue<T>)
      return writable().value.exchange(value, std::memory_order_seq_cst);
    else
      return publish_locked([&](const T&) { return value; });
  }
  // Compares the bytes, as std::atomic does; false puts what was found into
  // `expected`.
  bool compare_exchange(T& expected, T desired);

  // value = f(value), which may be called again when another store came in
  // between; returns the new value. Excludes holders of lock() and other
  // updates. What f throws leaves the value as it was.
  template <class F>
  T update(F&& f);

  // A private copy that is published whole at its end. Excludes other holders
  // and update(). A store, exchange or fetch_* that came in between (they take
  // no lock up to 8 bytes) is not overwritten: std::logic_error at its end.
  Locked lock(Timeout timeout = forever) {
    if (!lock_().acquire(timeout))
      throw TimeoutError("shoal: Value::lock timed out");
    return Locked(*this);
  }

 private:
  friend struct HandleAccess;
  using Store = ValueStore<T>;
  using State = typename Store::State;

  explicit Value(std::shared_ptr<Object> object)
      : object_(std::move(object)),
        state_(static_cast<State*>(object_->payload())) {}

  static Spec object_spec() {
    return {.kind = Kind::value,
            .fingerprint = sizeof(State) << 8 | LockFreeValue<T>,
            .type_hash = layout_hash<T>(),
            .type_text = describe_layout<T>(),
            .payload_bytes = sizeof(State)};
  }
  static Spec make_spec(const T& initial) {
    Spec spec = object_spec();
    spec.initialise = [initial](void* payload) {
      Store::initialise(*static_cast<State*>(payload), initial);
    };
    return spec;
  }
  template <class... Args>
  static T initial_of(const Args&... args);

  // std::logic_error when mapped read-only.
  State& writable() const {
    object_->domain();
    return *state_;
  }
  RobustLock lock_() const {
    return RobustLock(state_->lock, object_->domain(), object_->spin);
  }
  // The next value from the current one, under the lock; the one before.
  template <class F>
  T publish_locked(F&& next);

  std::shared_ptr<Object> object_;
  State* state_;
};

// Holds the lock of a Value and a copy of what was in it.
template <class T>
class Value<T>::Locked {
 public:
  Locked(Locked&& other) noexcept
      : value_(other.value_),
        before_(other.before_),
        copy_(other.copy_),
        held_(std::exchange(other.held_, false)),
        exceptions_(other.exceptions_) {}
  Locked& operator=(Locked&&) = delete;

  // Publishes and lets go. Throws std::logic_error if a store came in between,
  // which then stands (never while another exception is in flight).
  ~Locked() noexcept(false) {
    if (held_ && !finish() && std::uncaught_exceptions() == exceptions_)
      throw_overtaken();
  }

  T& operator*() { return copy_; }
  T* operator->() { return &copy_; }

  // The same, now; std::logic_error as the destructor.
  void unlock() {
    if (!held_) throw std::logic_error("shoal: Value::Locked was unlocked");
    if (!finish()) throw_overtaken();
  }

 private:
  friend class Value;
  explicit Locked(const Value& value)
      : value_(value),
        before_(value.get()),
        copy_(before_),
        held_(true),
        exceptions_(std::uncaught_exceptions()) {}

  bool finish();
  [[noreturn]] static void throw_overtaken() {
    throw std::logic_error(
        "shoal: a store to the Value came in while it was locked; the locked "
        "change was not written. set, exchange and fetch_* take no lock: use "
        "update() in all places, or lock() in all");
  }

  Value value_;
  T before_;
  T copy_;
  bool held_;
  int exceptions_;
};

template <class T>
struct HandleTraits<Value<T>> : ObjectHandleTraits<Value<T>> {};

// ---- inline ----

template <class T>
bool Value<T>::Locked::finish() {
  held_ = false;
  RobustLock lock = value_.lock_();
  bool published = true;
  if constexpr (LockFreeValue<T>) {
    T expected = before_;
    published = value_.state_->value.compare_exchange_strong(
        expected, copy_, std::memory_order_seq_cst);
  } else {
    Store::store(*value_.state_, copy_);
  }
  lock.release();
  return published;
}

template <class T>
template <class... Args>
T Value<T>::initial_of(const Args&... args) {
  const T* found = nullptr;
  std::optional<T> converted;
  const auto read = [&](const auto& arg) {
    using Arg = std::remove_cvref_t<decltype(arg)>;
    if constexpr (std::is_same_v<Arg, T>) {
      found = &arg;
    } else if constexpr (!std::is_same_v<Arg, Access>) {
      converted.emplace(static_cast<T>(arg));
      found = &*converted;
    }
  };
  (read(args), ...);
  if constexpr (std::default_initializable<T>)
    return found != nullptr ? *found : T{};
  else
    return *found;
}

template <class T>
template <class F>
T Value<T>::publish_locked(F&& next) {
  RobustLock lock = lock_();
  lock.acquire(forever);
  const T before = Store::load(*state_);
  Store::store(*state_, next(before));
  lock.release();
  return before;
}

template <class T>
bool Value<T>::compare_exchange(T& expected, T desired) {
  if constexpr (LockFreeValue<T>) {
    return writable().value.compare_exchange_strong(
        expected, desired, std::memory_order_seq_cst);
  } else {
    RobustLock lock = lock_();
    lock.acquire(forever);
    const T before = Store::load(*state_);
    const bool same = std::memcmp(&before, &expected, sizeof(T)) == 0;
    if (same)
      Store::store(*state_, desired);
    else
      expected = before;
    lock.release();
    return same;
  }
}

template <class T>
template <class F>
T Value<T>::update(F&& f) {
  RobustLock lock = lock_();
  lock.acquire(forever);
  struct Release {
    RobustLock& lock;
    ~Release() { lock.release(); }
  } release{lock};
  if constexpr (LockFreeValue<T>) {
    T before = get();
    for (;;) {
      const T after = f(T(before));
      if (state_->value.compare_exchange_strong(before, after,
                                                std::memory_order_seq_cst))
        return after;
    }
  } else {
    const T after = f(get());
    Store::store(*state_, after);
    return after;
  }
}

}  // namespace shoal
