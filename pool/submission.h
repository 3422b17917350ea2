#pragma once
// How calls and chunks become tasks of worker processes.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <functional>
#include <initializer_list>
#include <ranges>
#include <span>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "shoal/ipc/codec.h"
#include "shoal/pool/call.h"
#include "shoal/pool/core.h"

namespace shoal::pool {

// Encodes what `write` writes, `bytes` of it, as the arguments of a task and
// submits that. Returns its index. `verb`: nullptr for a stream. `kHandles`:
// there may be some among what it writes.
template <bool kHandles, class Write>
std::uint32_t submit(Core& core, const char* verb, const FunctionRef& thunk,
                     std::size_t bytes, Write&& write) {
  if constexpr (kHandles) core.await_nursery();
  const auto draft = verb != nullptr ? core.draft(verb, thunk, bytes)
                                     : core.draft_on(thunk, bytes);
  const auto send = [&](Passage* passage) {
    try {
      codec::Writer writer(draft.arguments, passage);
      write(writer);
    } catch (...) {
      core.discard(draft);
      throw;
    }
    core.submit(verb != nullptr ? verb : "imap", draft);
  };
  if constexpr (kHandles) {
    Deposits passage = core.passage(draft);
    send(&passage);
    passage.sent();
  } else {
    send(nullptr);
  }
  return draft.index;
}

template <class F, class... As>
std::uint32_t submit_call(Core& core, const char* verb, const F& f,
                          const As&... args) {
  static_assert(call::require_call<F, As...>());
  constexpr call::Thunk kThunk = &call::run_call<F, As...>;
  constexpr bool kHandles =
      (call::holds_handles<F>() || ... || codec::kMayHoldHandles<As>);
  return submit<kHandles>(core, verb, call::thunk_reference<kThunk>(),
                          call::callable_size(f) + codec::size_of_all(args...),
                          [&](codec::Writer& writer) {
                            call::encode_callable(writer, f);
                            codec::encode_all(writer, args...);
                          });
}

// f and items, Ts or references to some, for a thunk that is
// call::run_attempts; `first` before them, for one that is call::run_chunk. (No
// std::optional: of that g++ -O1 warns.)
template <call::Thunk kThunk, class T, class F, class Items>
std::uint32_t submit_chunk(Core& core, const char* verb, const F& f,
                           const Items& items,
                           const task::Handle* first = nullptr) {
  // All at once, as codec::encode would do one after the other.
  constexpr bool kFixed = codec::kKind<T> == codec::Kind::bytes &&
                          !std::is_empty_v<T> &&
                          std::is_same_v<Items, std::span<const T>>;
  std::size_t bytes = call::callable_size(f) + sizeof(std::uint64_t) +
                      (first != nullptr ? sizeof *first : 0);
  if constexpr (kFixed)
    bytes += items.size_bytes();
  else
    for (const T& item : items) bytes += codec::size(item);
  constexpr bool kHandles =
      call::holds_handles<F>() || codec::kMayHoldHandles<T>;
  return submit<kHandles>(core, verb, call::thunk_reference<kThunk>(), bytes,
                          [&](codec::Writer& writer) {
                            if (first != nullptr) writer.write(*first);
                            call::encode_callable(writer, f);
                            writer.write(std::uint64_t{items.size()});
                            if constexpr (kFixed)
                              writer.write(items.data(), items.size_bytes());
                            else
                              for (const T& item : items)
                                codec::encode(writer, item);
                          });
}

// Those items that cannot be encoded, by their places, and what they throw; the
// others.
template <class T>
std::vector<std::pair<std::size_t, std::exception_ptr>> refused_of(
    Core& core, std::span<const T> items,
    std::vector<std::reference_wrapper<const T>>& others) {
  std::vector<std::pair<std::size_t, std::exception_ptr>> refused;
  if constexpr (codec::kKind<T> != codec::Kind::bytes)
    for (std::size_t n = 0; n < items.size(); ++n) {
      try {
        Deposits passage = core.passage_to_try();  // taken back at its end
        std::vector<std::byte> room(codec::size(items[n]));
        codec::Writer writer(room,
                             codec::kMayHoldHandles<T> ? &passage : nullptr);
        codec::encode(writer, items[n]);
        others.push_back(items[n]);
      } catch (...) {
        refused.emplace_back(n, std::current_exception());
      }
    }
  return refused;
}

// What the elements of a range travel as.
template <class Range>
using ItemIn = typename call::ItemOf<std::ranges::range_value_t<Range>>::type;

// Whether a Range, as a verb has deduced it, is a container that was given
// away, and not something that refers to another's elements.
template <class Range>
concept Owned = !std::is_reference_v<Range> && requires {
  typename Range::allocator_type;
};

// An element of a Range as a value. Moved only where it cannot be copied.
template <class T, class Range, class Element>
call::Boxed<T> boxed(Element&& element) {
  constexpr bool kCopies = std::is_constructible_v<T, Element>;
  constexpr bool kMoves =
      Owned<Range> &&
      std::is_constructible_v<T, std::remove_reference_t<Element>>;
  static_assert(kCopies || kMoves,
                "shoal: these items cannot be copied: give their container "
                "away, by std::move.");
  if constexpr (kCopies)
    return call::Boxed<T>{T(std::forward<Element>(element))};
  else if constexpr (kMoves)
    return call::Boxed<T>{T(std::move(element))};
  else
    std::abort();
}

template <class T, class Range>
std::vector<call::Boxed<T>> copied(std::remove_reference_t<Range>& items) {
  std::vector<call::Boxed<T>> all;
  for (auto&& item : items)
    all.push_back(boxed<T, Range>(std::forward<decltype(item)>(item)));
  return all;
}

// A braced list as a range; literals in it travel as strings.
template <class T>
auto listed(std::initializer_list<T> items) {
  if constexpr (std::is_same_v<T, const char*>)
    return std::vector<std::string>(items.begin(), items.end());
  else
    return std::span<const T>(items.begin(), items.size());
}
// One that outlives the call.
template <class T>
auto owned(std::initializer_list<T> items) {
  using Kept = std::conditional_t<std::is_same_v<T, const char*>, std::string,
                                  std::remove_const_t<T>>;
  return std::vector<Kept>(items.begin(), items.end());
}

// `wanted` 0: Python's ceil(items / (4 * workers)), at least 1.
inline std::size_t chunk_size(const char* pool, const char* verb,
                              std::size_t workers, std::size_t items,
                              std::ptrdiff_t wanted) {
  if (wanted < 0)
    throw std::invalid_argument(std::string("shoal: ") + pool + "::" + verb +
                                " with chunksize " + std::to_string(wanted) +
                                "; give 0 for the default, or more");
  if (wanted > 0) return static_cast<std::size_t>(wanted);
  const std::size_t parts = 4 * workers;
  return std::max<std::size_t>((items + parts - 1) / parts, 1);
}

}  // namespace shoal::pool
