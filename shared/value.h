#pragma once
// Value<T>: one T that several processes use in place.
//
//   shoal::Value<int> hits;             shoal::Value<State> state(initial);
//   hits.fetch_add(1);                  state.update(advance);  // f(T) -> T
//   { auto held = state.lock(); held->x = 1; }  // published whole at the brace
//
// Sharing:  copying a Value copies the handle; v = x stores.
// Ordering: set() and what follows get() are ordered as by std::atomic.
// Death:    never torn; a writer killed half-way leaves the old value; a lock
//           outlives its holder. Readers wait for nobody.
// Cost:     up to 8 bytes: std::atomic's. Larger: a copy and two loads to
//           read; a lock, a copy and a store to write.
// Layout:   docs/layout.md#value

#include <cstddef>
#include <cstring>
#include <exception>
#include <memory>
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
  explicit Value(const T& initial)
      : Value(Object::create(make_spec(initial))) {}

  // Named; `args` are an initial T and an Access, both optional.
  template <class... Args>
  static Value create(std::string_view name, const Args&... args) {
    return Value(Object::create(name, make_spec(initial_of(args...)),
                                access_of(args...)));
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
  // NOLINTNEXTLINE(google-explicit-constructor): api.md
  operator T() const { return get(); }

  // Up to 8 bytes: one store. Larger: waits for whoever holds the lock.
  void set(const T& value) {
    if constexpr (LockFreeValue<T>) {
      Store::store(writable(), value);
    } else {
      const Hold hold(*this);
      Store::store(*state_, value);
    }
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
      return Store::fetch_add(writable(), amount);
    else
      return publish_locked([&](const T& old) { return old + amount; });
  }
  T fetch_sub(T amount) requires Arithmetic<T> {
    if constexpr (LockFreeValue<T>)
      return Store::fetch_sub(writable(), amount);
    else
      return publish_locked([&](const T& old) { return old - amount; });
  }
  T exchange(const T& value) {
    if constexpr (LockFreeValue<T>)
      return Store::exchange(writable(), value);
    else
      return publish_locked([&](const T&) { return value; });
  }
  // Compares the bytes, as std::atomic does, padding aside where the compiler
  // can (clear_padding); false puts what was found into `expected`.
  bool compare_exchange(T& expected, const T& desired);

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
        state_(static_cast<State*>(object_->payload())),
        writable_(object_->read_only() ? nullptr : state_) {}

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
  template <class First, class... Rest>
  static T first_value(const First& first, const Rest&... rest) {
    if constexpr (std::is_same_v<First, Access>)
      return first_value(rest...);
    else
      return static_cast<T>(first);
  }

  // std::logic_error when mapped read-only.
  State& writable() const {
    if (__builtin_expect(writable_ == nullptr, 0)) object_->throw_read_only();
    return *writable_;
  }
  RobustLock lock_() const {
    return RobustLock(state_->lock, object_->domain(), object_->spin);
  }
  // The lock, until the end of the scope.
  class Hold {
   public:
    explicit Hold(const Value& value) : lock_(value.lock_()) {
      lock_.acquire(forever);
    }
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;
    ~Hold() { lock_.release(); }

   private:
    RobustLock lock_;
  };
  // The next value from the current one, under the lock; the one before.
  template <class F>
  T publish_locked(F&& next);

  std::shared_ptr<Object> object_;
  State* state_;
  State* writable_;  // or nullptr
};

// Holds the lock of a Value and a copy of what was in it.
template <class T>
class Value<T>::Locked {
 public:
  Locked(Locked&& other) noexcept
      : value_(other.value_),
        seen_(other.seen_),
        copy_(other.copy_),
        holder_(other.holder_),
        held_(std::exchange(other.held_, false)),
        told_(other.told_),
        exceptions_(other.exceptions_) {}
  Locked& operator=(Locked&&) = delete;

  // Publishes and lets go. Throws std::logic_error if a store came in between,
  // which then stands, and in another thread than the one that locked (never
  // while another exception is in flight).
  ~Locked() noexcept(false) {
    if (!held_) return;
    const bool told = told_;
    const char* const problem = finish();
    if (problem != nullptr && !(held_ && told) &&
        std::uncaught_exceptions() == exceptions_)
      throw std::logic_error(problem);
  }

  T& operator*() { return copy_; }
  T* operator->() { return &copy_; }

  // The same, now; std::logic_error as the destructor. One that another thread
  // has tried to unlock is still its holder's.
  void unlock() {
    if (!held_) throw std::logic_error("shoal: Value::Locked was unlocked");
    if (const char* const problem = finish()) throw std::logic_error(problem);
  }

 private:
  friend class Value;
  explicit Locked(const Value& value)
      : value_(value),
        copy_(Store::load(*value.state_, seen_)),
        holder_(value.object_->domain().seat()),
        held_(true),
        exceptions_(std::uncaught_exceptions()) {}

  // What is wrong, or nullptr.
  const char* finish();

  Value value_;
  typename Store::Seen seen_;
  T copy_;
  liveness::Who holder_;
  bool held_;
  bool told_ = false;  // that it is not the thread's
  int exceptions_;
};

template <class T>
struct HandleTraits<Value<T>> : ObjectHandleTraits<Value<T>> {};

// ---- inline ----

template <class T>
const char* Value<T>::Locked::finish() {
  if (holder_ != value_.object_->domain().seat()) {
    told_ = true;
    return "shoal: Value::Locked ended in a thread that does not hold it; the "
           "locked change was not written";
  }
  held_ = false;
  const bool published = Store::replace(*value_.state_, seen_, copy_);
  value_.lock_().release();
  if (published) return nullptr;
  return "shoal: a store to the Value came in while it was locked; the locked "
         "change was not written. set, exchange and fetch_* take no lock: use "
         "update() in all places, or lock() in all";
}

template <class T>
template <class... Args>
T Value<T>::initial_of(const Args&... args) {
  constexpr std::size_t kGiven =
      (std::size_t{0} + ... + !std::is_same_v<Args, Access>);
  static_assert(kGiven == 1 || (kGiven == 0 && std::default_initializable<T>),
                "shoal: one initial value is expected, which may be left out "
                "if T has a default constructor, and an Access");
  if constexpr (kGiven == 0)
    return T{};
  else
    return first_value(args...);
}

template <class T>
template <class F>
T Value<T>::publish_locked(F&& next) {
  const Hold hold(*this);
  const T before = Store::load(*state_);
  Store::store(*state_, next(before));
  return before;
}

template <class T>
bool Value<T>::compare_exchange(T& expected, const T& desired) {
  if constexpr (LockFreeValue<T>) {
    return Store::compare_exchange(writable(), expected, desired);
  } else {
    const Hold hold(*this);
    T before = Store::load(*state_);
    shoal::clear_padding(before);
    shoal::clear_padding(expected);
    if (std::memcmp(&before, &expected, sizeof(T)) == 0) {
      Store::store(*state_, desired);
      return true;
    }
    std::memcpy(static_cast<void*>(&expected), &before, sizeof(T));
    return false;
  }
}

template <class T>
template <class F>
T Value<T>::update(F&& f) {
  const Hold hold(*this);
  for (;;) {
    typename Store::Seen seen;
    const T after = f(Store::load(*state_, seen));
    if (Store::replace(*state_, seen, after)) return after;
  }
}

}  // namespace shoal
