#pragma once
// Callables that travel: a function to call, and what it is called with, as
// bytes for another process of the same program.
//
//   std::vector<std::byte> bytes(call::callable_size(f));
//   codec::Writer writer(bytes);
//   call::encode_callable(writer, f);
//   ...
//   F there = call::decode_callable<F>(reader);
//
// A captureless lambda or empty function object ships no bytes; a function
// pointer ships as {module, offset}; a function object that is a Message by
// the codec; a closure that is trivially copyable and standard-layout as its
// bytes (by-reference captures are neither); partial() and by_value() as what
// they hold. Which code reads the bytes is not in them: its address travels
// beside, by reference_of().

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#include "shoal/ipc/codec.h"
#include "shoal/ipc/function.h"
#include "shoal/ipc/message.h"
#include "shoal/ipc/partial.h"

namespace shoal::call {

// ---- what an argument travels as ----

template <class A>
struct TravelsAs {
  using type = std::decay_t<A>;
};
// A literal.
template <std::size_t kN>
struct TravelsAs<const char (&)[kN]> {
  using type = std::string;
};
template <std::size_t kN>
struct TravelsAs<const char[kN]> {
  using type = std::string;
};
template <class A>
using Argument = typename TravelsAs<A>::type;

// Without a copy where nothing changes.
template <class A>
decltype(auto) as_argument(A&& argument) {
  if constexpr (std::is_same_v<std::remove_cvref_t<A>, Argument<A>>)
    return static_cast<const Argument<A>&>(argument);
  else
    return Argument<A>(std::forward<A>(argument));
}

// Handles bind to f(Queue<int>&), too; everything else is moved in.
template <class A>
using Passed = std::conditional_t<codec::Handle<A>, A&, A&&>;
// Where that does not do, those that cannot be copied are moved, too:
// f(Connection).
template <class A>
using HandedOver =
    std::conditional_t<codec::Handle<A> && std::is_copy_constructible_v<A>, A&,
                       A&&>;

template <class F, class... As>
inline constexpr bool kIsPassed = std::is_invocable_v<F&, Passed<As>...>;
template <class F, class... As>
inline constexpr bool kInvocable =
    kIsPassed<F, As...> || std::is_invocable_v<F&, HandedOver<As>...>;

// Calls f with arguments that have arrived.
template <class F, class... As>
requires kInvocable<F, As...>
decltype(auto) invoke(F& f, As&... as) {
  if constexpr (kIsPassed<F, As...>)
    return std::invoke(f, static_cast<Passed<As>>(as)...);
  else
    return std::invoke(f, static_cast<HandedOver<As>>(as)...);
}

template <class F, class... As>
using Result = std::decay_t<decltype(call::invoke(std::declval<F&>(),
                                                  std::declval<As&>()...))>;

// ---- functions that have no type by themselves ----

template <class...>
inline constexpr bool kNever = false;

// What F is, by default, where an argument does not tell.
template <class... Other>
struct Untold {
  static_assert(kNever<Other...>,
                "shoal: which function is meant cannot be told, because it is "
                "overloaded or a template: wrap it in a lambda, "
                "[](int n) { return f(n); }, or choose one with "
                "static_cast<int (*)(int)>(f).");
  using type = void (*)();
};
template <class... Other>
using UntoldFunction = typename Untold<Other...>::type;

// The same where the compiler may yet choose another verb. It quotes the name.
class overloaded_function_or_template_wrap_it_in_a_lambda {
  overloaded_function_or_template_wrap_it_in_a_lambda() = delete;
};

// ---- callables ----

template <class F>
inline constexpr bool kIsFunctionPointer =
    std::is_pointer_v<F>&& std::is_function_v<std::remove_pointer_t<F>>;
template <class F>
inline constexpr bool kIsEmptyCallable =
    std::is_class_v<F>&& std::is_empty_v<F>&& std::default_initializable<F>;
// A closure has no members that anybody could list, so that its bytes are
// looked at by its layout only.
template <class F>
inline constexpr bool kIsClosure =
    std::is_class_v<F> && !std::is_aggregate_v<F> &&
    std::is_trivially_copyable_v<F>;
template <class F>
inline constexpr bool kCallableTravels =
    kIsFunctionPointer<F> || std::is_member_pointer_v<F> ||
    kIsEmptyCallable<F> ||
    (kIsClosure<F> ? std::is_standard_layout_v<F> : Message<F>);
template <class F>
inline constexpr bool kCallableTravels<ByValue<F>> = true;
template <class F, class... As>
inline constexpr bool kCallableTravels<Partial<F, As...>> =
    kCallableTravels<F> && (Message<As> && ...);

template <class F>
inline constexpr bool kIsByValue = false;
template <class F>
inline constexpr bool kIsByValue<ByValue<F>> = true;
template <class F>
inline constexpr bool kIsPartial = false;
template <class F, class... As>
inline constexpr bool kIsPartial<Partial<F, As...>> = true;
// As the bytes that they lie in memory as.
template <class F>
inline constexpr bool kIsBytes =
    kIsClosure<F> || kIsByValue<F> || std::is_member_object_pointer_v<F>;

// encode_callable() writes no Message of it: as many bytes each time, and no
// handle.
template <class F>
inline constexpr bool kHasFixedSize =
    !kIsPartial<F> && (kIsFunctionPointer<F> || kIsEmptyCallable<F> ||
                       kIsBytes<F> || std::is_member_function_pointer_v<F>);

// Whether encode_callable() may need a Passage.
template <class F>
consteval bool holds_handles() {
  if constexpr (kIsPartial<F>) {
    using Callable = std::decay_t<decltype(std::declval<F>().callable())>;
    using Bound = std::decay_t<decltype(std::declval<F>().bound())>;
    return holds_handles<Callable>() || codec::kMayHoldHandles<Bound>;
  } else {
    return !kHasFixedSize<F> && codec::kMayHoldHandles<F>;
  }
}

// The bytes that encode_callable writes.
template <class F>
std::size_t callable_size(const F& f) {
  if constexpr (kIsFunctionPointer<F>)
    return sizeof(FunctionRef);
  else if constexpr (kIsEmptyCallable<F>)
    return 0;
  else if constexpr (kIsPartial<F>)
    return callable_size(f.callable()) +
           std::apply(
               [](const auto&... bound) {
                 return codec::size_of_all(bound...);
               },
               f.bound());
  else if constexpr (kIsBytes<F>)
    return sizeof(F);
  else if constexpr (std::is_member_function_pointer_v<F>)
    return sizeof(FunctionRef) + sizeof(F);
  else
    return codec::size(f);
}

// The Itanium ABI's pointer to a member function: an address, or an odd offset
// into the virtual table, and an adjustment of `this`.
struct MemberFunction {
  std::uintptr_t address;
  std::ptrdiff_t adjustment;
};

// Throws std::invalid_argument for a pointer that points at none.
template <class F>
void require_function(const F& f) {
  if constexpr (kIsFunctionPointer<F> || std::is_member_pointer_v<F>) {
    if (f == nullptr)
      throw std::invalid_argument(
          "shoal: what is to be called is a null pointer; give a function");
  }
}

template <class F>
void encode_callable(codec::Writer& writer, const F& f) {
  require_function(f);
  if constexpr (kIsFunctionPointer<F>) {
    const FunctionRef ref =
        function::reference(reinterpret_cast<const void*>(f));
    writer.write(&ref, sizeof ref);
  } else if constexpr (kIsEmptyCallable<F>) {
    // Its type says all.
  } else if constexpr (kIsPartial<F>) {
    encode_callable(writer, f.callable());
    std::apply(
        [&](const auto&... bound) { codec::encode_all(writer, bound...); },
        f.bound());
  } else if constexpr (kIsBytes<F>) {
    writer.write(&f, sizeof f);
  } else if constexpr (std::is_member_function_pointer_v<F>) {
    static_assert(sizeof(F) == sizeof(MemberFunction));
    MemberFunction parts;
    std::memcpy(&parts, &f, sizeof parts);
    FunctionRef ref = {};
    if (parts.address % 2 == 0)
      ref = function::reference(reinterpret_cast<const void*>(parts.address));
    writer.write(&ref, sizeof ref);
    writer.write(&parts, sizeof parts);
  } else {
    codec::encode(writer, f);
  }
}

template <class F>
F decode_callable(codec::Reader& reader);

template <class F, class... As>
Partial<F, As...> decode_partial(codec::Reader& reader, Partial<F, As...>*) {
  F f = decode_callable<F>(reader);
  return Partial<F, As...>(std::move(f), codec::decode_tuple<As...>(reader));
}

template <class F>
F decode_callable(codec::Reader& reader) {
  if constexpr (kIsFunctionPointer<F>) {
    FunctionRef ref;
    std::memcpy(&ref, reader.take(sizeof ref), sizeof ref);
    return reinterpret_cast<F>(const_cast<void*>(function::resolve(ref)));
  } else if constexpr (kIsEmptyCallable<F>) {
    return F{};
  } else if constexpr (kIsPartial<F>) {
    return decode_partial(reader, static_cast<F*>(nullptr));
  } else if constexpr (kIsBytes<F>) {
    union Slot {
      Slot() {}
      F f;
    } slot;
    std::memcpy(static_cast<void*>(&slot.f), reader.take(sizeof(F)), sizeof(F));
    return slot.f;
  } else if constexpr (std::is_member_function_pointer_v<F>) {
    FunctionRef ref;
    std::memcpy(&ref, reader.take(sizeof ref), sizeof ref);
    MemberFunction parts;
    std::memcpy(&parts, reader.take(sizeof parts), sizeof parts);
    if (parts.address % 2 == 0)
      parts.address = reinterpret_cast<std::uintptr_t>(function::resolve(ref));
    F f;
    std::memcpy(&f, &parts, sizeof f);
    return f;
  } else {
    return codec::decode<F>(reader);
  }
}

// The name of code in messages; looked up once for each instantiation.
template <auto kCode>
FunctionRef reference_of() {
  static constinit function::KnownReference known;
  return known.of(reinterpret_cast<const void*>(kCode));
}

}  // namespace shoal::call
