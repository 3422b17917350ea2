#pragma once
// SHOAL_REMOTE("name", f): a function that is found by its name.
//
//   int square(int x) { return x * x; }
//   SHOAL_REMOTE("square", square);
//
// At namespace scope. A task that calls it names it so, and what unpacks its
// arguments by their types, instead of by its place in this program: another
// program that declares a function of that name and signature runs its own.
// All others travel between processes of one build only (ipc/function.h).
//
// For arguments, and items of map, starmap and imap, of the very types that it
// takes.

#include <string>
#include <tuple>
#include <type_traits>
#include <typeinfo>

#include "shoal/ipc/function.h"
#include "shoal/pool/call.h"

namespace shoal::remote {

template <class F, class... As>
struct ThunksOf {
  // Such a call's code is the same for all functions of that type.
  static void add_all() {
    add<&call::run_call<F, std::decay_t<As>...>>("call");
    if constexpr (sizeof...(As) == 1) {
      using Item = std::tuple_element_t<0, std::tuple<std::decay_t<As>...>>;
      add<&call::run_chunk<call::Whole, F, Item>>("map");
      add<&call::run_attempts<call::Whole, F, Item>>("imap");
    }
    if constexpr (sizeof...(As) != 0)
      add<&call::run_chunk<call::Spread, F, std::tuple<std::decay_t<As>...>>>(
          "starmap");
  }

 private:
  template <call::Thunk kThunk>
  static void add(const char* verb) {
    static const std::string name =
        std::string("shoal ") + verb + ' ' + typeid(F).name();
    static function::Named entry{name.c_str(),
                                 reinterpret_cast<const void*>(kThunk)};
    function::add_named(entry);
  }
};
template <class F>
struct Thunks;
template <class R, class... As>
struct Thunks<R (*)(As...)> : ThunksOf<R (*)(As...), As...> {};
template <class R, class... As>
struct Thunks<R (*)(As...) noexcept> : ThunksOf<R (*)(As...) noexcept, As...> {
};

template <class F>
bool declare(function::Named& entry, F) {
  Thunks<F>::add_all();
  return function::add_named(entry);
}

}  // namespace shoal::remote

#define SHOAL_REMOTE_NAME_2(number) shoal_remote_##number
#define SHOAL_REMOTE_NAME(number) SHOAL_REMOTE_NAME_2(number)
#define SHOAL_REMOTE(name, f)                                                 \
  [[maybe_unused]] static const bool SHOAL_REMOTE_NAME(__COUNTER__) = [] {    \
    static ::shoal::function::Named entry{name,                               \
                                          reinterpret_cast<const void*>(&f)}; \
    return ::shoal::remote::declare(entry, &f);                               \
  }()
