#pragma once
// Tasks that travel: a call or a chunk of a map to bytes (ipc/call.h), and the
// code that turns the bytes into calls in a worker.

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "shoal/ipc/call.h"
#include "shoal/ipc/codec.h"
#include "shoal/ipc/exception_codec.h"
#include "shoal/ipc/function.h"
#include "shoal/ipc/message.h"
#include "shoal/pool/attempt.h"

namespace shoal::call {

// Where a task's result goes. Implemented by the worker.
class Reply {
 public:
  // Memory for exactly `bytes`; once a task. Throws NoSpace.
  virtual std::span<std::byte> allocate(std::size_t bytes) = 0;
  // Of one of several tasks that are cancelled together: false when they are.
  // `first`: the handle of the first of them.
  virtual bool begin_after(std::uint64_t /*first*/) { return true; }
  // How handles in it travel; nullptr: only as references.
  virtual Passage* passage() { return nullptr; }
  // Lets go of the memory, and takes back the handles.
  virtual void start_over() {}
  // Does not return in a process that the function has forked.
  virtual void only_here() const {}

 protected:
  ~Reply() = default;
};
using Thunk = void (*)(codec::Reader& arguments, Reply& reply);

template <class F, class... As>
consteval bool require_invocable() {
  static_assert(
      kInvocable<F, As...>,
      "shoal: the function cannot be called with these arguments: look at "
      "their number and types. They arrive as values: a parameter T& takes "
      "only a shoal handle; make it T or const T&. Wrap an overloaded function "
      "in a lambda.");
  return kInvocable<F, As...>;
}

template <class F>
consteval bool require_callable() {
  static_assert(
      kCallableTravels<F>,
      "shoal: this callable cannot travel to a worker. Give a function, a "
      "captureless lambda, a function object that is a Message, or a lambda "
      "that captures small trivially copyable things by value; pass strings, "
      "vectors and handles as arguments, by shoal::partial where items are "
      "the only ones. By-reference captures point into this process.");
  return true;
}

// A T that has a serialize, and is no Message all the same, hears why.
template <class T>
consteval bool require_serialize() {
  if constexpr (codec::HasSerialize<T>) return codec::require_message<T>();
  return true;
}
template <class T>
inline constexpr bool kTravelsOrHasSerialize =
    Message<T> || codec::HasSerialize<T>;

template <class R>
consteval bool require_result() {
  static_assert(require_serialize<R>());
  static_assert(std::is_void_v<R> || kTravelsOrHasSerialize<R>,
                "shoal: the result cannot travel between processes: return "
                "values, not pointers, references, string_view or span.");
  return true;
}

// Of a call that goes to a worker process.
template <class F, class... As>
consteval bool require_call() {
  static_assert(require_callable<F>());
  static_assert((require_serialize<As>() && ...));
  static_assert(
      (kTravelsOrHasSerialize<As> && ...),
      "shoal: an argument cannot travel between processes: raw pointers, "
      "references, string_view and span point into this process only; use "
      "std::string, std::vector or a shoal handle. A class with private "
      "members needs a member `serialize`, and where that is private, friend "
      "struct shoal::SerializeAccess.");
  if constexpr (require_invocable<F, As...>()) {
    using R = Result<F, As...>;
    static_assert(require_result<R>());
  }
  return true;
}

// ---- one call ----

template <class R>
void reply_with(Reply& reply, const R& result) {
  const std::span<std::byte> room = reply.allocate(codec::size(result));
  codec::Writer writer(room,
                       codec::kMayHoldHandles<R> ? reply.passage() : nullptr);
  codec::encode(writer, result);
}

template <class F, class... As>
decltype(auto) invoke_with(F& f, std::tuple<As...>& arguments) {
  return std::apply(
      [&f](As&... as) -> decltype(auto) { return call::invoke(f, as...); },
      arguments);
}

template <class F, class... As>
void run_call(codec::Reader& reader, Reply& reply) {
  F f = decode_callable<F>(reader);
  auto arguments = codec::decode_tuple<As...>(reader);
  reader.finish();
  if constexpr (std::is_void_v<Result<F, As...>>) {
    invoke_with(f, arguments);
    reply.allocate(0);
  } else {
    const Result<F, As...> result = invoke_with(f, arguments);
    reply_with(reply, result);
  }
}

// ---- a chunk of a map ----

// What the elements of a range travel as: those of a map lose their const key.
template <class T>
struct ItemOf {
  using type = T;
};
template <class K, class V>
struct ItemOf<std::pair<const K, V>> {
  using type = std::pair<K, V>;
};

// How an item becomes arguments: map passes it whole, starmap its parts.
struct Whole {
  template <class F, class Item>
  static auto invoke(F& f, Item& item) -> decltype(call::invoke(f, item)) {
    return call::invoke(f, item);
  }
};
struct Spread {
  template <class F>
  struct Caller {
    F& f;
    template <class... As>
    auto operator()(As&... as) const -> decltype(call::invoke(f, as...)) {
      return call::invoke(f, as...);
    }
  };
  template <class F, class Item>
  static auto invoke(F& f, Item& item)
      -> decltype(std::apply(Caller<F>{f}, item)) {
    return std::apply(Caller<F>{f}, item);
  }
};
template <class Mode, class F, class Item>
using ItemResult = std::decay_t<decltype(Mode::invoke(std::declval<F&>(),
                                                      std::declval<Item&>()))>;

template <class Mode, class F, class Item>
concept InvocableWith = requires(F& f, Item& item) {
  Mode::invoke(f, item);
};

template <class Mode, class F, class Item>
consteval bool require_item_invocable() {
  static_assert(
      InvocableWith<Mode, F, Item>,
      "shoal: the function cannot be called with one item: look at the number "
      "and the types of its parameters. An item arrives as a value, a literal "
      "as std::string; a parameter T& takes only a shoal handle. starmap gives "
      "the parts of a tuple to several parameters, map a tuple to one.");
  return InvocableWith<Mode, F, Item>;
}
template <class Mode, class F, class Item>
consteval bool require_item_call() {
  static_assert(require_callable<F>());
  static_assert(require_serialize<Item>());
  static_assert(kTravelsOrHasSerialize<Item>,
                "shoal: the items cannot travel between processes: raw "
                "pointers, references, string_view and span point into this "
                "process only; use std::string, std::vector or a handle.");
  if constexpr (require_item_invocable<Mode, F, Item>()) {
    using R = ItemResult<Mode, F, Item>;
    static_assert(require_result<R>());
    return kCallableTravels<F> && Message<Item> &&
           (std::is_void_v<R> || Message<R>);
  }
  return false;
}

// What a verb gives whose call does not compile, so that no more errors follow.
struct Refused {
  void get() const {}
  Refused* begin() const { return nullptr; }
  Refused* end() const { return nullptr; }
};

// A T in a std::vector that has a data(): std::vector<bool> has none.
template <class T>
struct BoxedBool {
  T value;
};
template <class T>
using Boxed = std::conditional_t<std::is_same_v<T, bool>, BoxedBool<T>, T>;
template <class Box>
using Unboxed =
    std::conditional_t<std::is_same_v<Box, BoxedBool<bool>>, bool, Box>;
template <class T>
T& unbox(Boxed<T>& boxed) {
  if constexpr (std::is_same_v<T, bool>)
    return boxed.value;
  else
    return boxed;
}
template <class T>
std::span<const T> unboxed(const std::vector<Boxed<T>>& boxed) {
  if constexpr (std::is_same_v<T, bool>)
    return {boxed.empty() ? nullptr : &boxed.data()->value, boxed.size()};
  else
    return boxed;
}

// std::vector<bool> is none of bools.
template <class R>
using Stored = std::conditional_t<std::is_same_v<R, bool>, unsigned char, R>;

// Begins with the handle of the first chunk, or 0 in that one.
template <class Mode, class F, class Item>
void run_chunk(codec::Reader& reader, Reply& reply) {
  using R = ItemResult<Mode, F, Item>;
  const auto first = reader.read<std::uint64_t>();
  if (first != 0 && !reply.begin_after(first)) return;
  F f = decode_callable<F>(reader);
  // Decoded one at a time, so that a chunk of large items needs room for one.
  const std::size_t count = reader.read_count(1);
  if constexpr (std::is_void_v<R>) {
    for (std::size_t i = 0; i < count; ++i) {
      Item item = codec::decode<Item>(reader);
      Mode::invoke(f, item);
    }
    reader.finish();
    reply.allocate(0);
  } else {
    std::vector<Stored<R>> results;
    results.reserve(count);
    for (std::size_t i = 0; i < count; ++i) {
      Item item = codec::decode<Item>(reader);
      results.push_back(Mode::invoke(f, item));
    }
    reader.finish();
    reply_with(reply, results);
  }
}

// ---- a chunk of a stream: an item that fails costs itself only ----

template <class R>
using SentAttempt = std::variant<Streamed<R>, std::vector<std::byte>>;

// What a result throws that cannot be encoded is its own.
template <class R>
void reply_with_attempts(Reply& reply, std::vector<SentAttempt<R>>& results) {
  try {
    return reply_with(reply, results);
  } catch (...) {
    if (std::current_exception() == nullptr) throw;  // pthread_exit
  }
  for (SentAttempt<R>& one : results) {
    if (one.index() != 0) continue;
    std::exception_ptr why;
    try {
      reply.start_over();
      reply_with(reply, std::get<0>(one));
    } catch (...) {
      why = std::current_exception();
      if (why == nullptr) throw;
    }
    if (why != nullptr) one.template emplace<1>(exception_codec::encode(why));
  }
  reply.start_over();
  reply_with(reply, results);
}

template <class Mode, class F, class Item>
void run_attempts(codec::Reader& reader, Reply& reply) {
  using R = ItemResult<Mode, F, Item>;
  F f = decode_callable<F>(reader);
  const std::size_t count = reader.read_count(1);
  std::vector<SentAttempt<R>> results;
  results.reserve(count);
  for (std::size_t i = 0; i < count; ++i) {
    Item item = codec::decode<Item>(reader);
    try {
      if constexpr (std::is_void_v<R>) {
        Mode::invoke(f, item);
        results.emplace_back(std::in_place_index<0>);
      } else {
        results.emplace_back(std::in_place_index<0>, Mode::invoke(f, item));
      }
    } catch (...) {
      const auto error = std::current_exception();
      if (error == nullptr) throw;  // pthread_exit
      reply.only_here();
      results.emplace_back(std::in_place_index<1>,
                           exception_codec::encode(error));
    }
  }
  reader.finish();
  reply_with_attempts<R>(reply, results);
}

// The thunk's name in messages.
template <Thunk kThunk>
FunctionRef thunk_reference() {
  return reference_of<kThunk>();
}

}  // namespace shoal::call
