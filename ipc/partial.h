#pragma once
// partial() and by_value(): callables that travel with what they need.
//
//   pool.map(shoal::partial(scale, 3.0, names), items);   // scale(3.0, names,
//   x) Process(shoal::by_value([point, n] { plot(point, n); })).start();
//
// partial(f, args...) calls f with these arguments in front of its own. They
// are decayed and copied, a string literal as std::string; every call gets
// them by const reference (a shoal handle by reference), the last one, of an
// rvalue, may have them for good. It travels if f and the arguments do.
//
// by_value(lambda) ships a closure as its bytes, also one that is not standard-
// layout (it captures members of different access, or derives). The compiler
// cannot tell a by-reference capture or a pointer from a value there: you do.

#include <cstddef>
#include <functional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#include "shoal/ipc/codec_traits.h"

namespace shoal {

template <class F, class... Bound>
class Partial {
  template <class B>
  using Given = std::conditional_t<codec::Handle<B>, B&, const B&>;
  template <class B>
  using GivenConst = const B&;

 public:
  Partial(F f, std::tuple<Bound...> bound)
      : f_(std::move(f)), bound_(std::move(bound)) {}

  const F& callable() const { return f_; }
  const std::tuple<Bound...>& bound() const { return bound_; }

  template <class... As>
  requires std::is_invocable_v<F&, Given<Bound>..., As...>
  decltype(auto) operator()(As&&... as) & {
    return std::apply(
        [&](auto&... bound) -> decltype(auto) {
          return std::invoke(f_, static_cast<Given<Bound>>(bound)...,
                             std::forward<As>(as)...);
        },
        bound_);
  }
  template <class... As>
  requires std::is_invocable_v<const F&, GivenConst<Bound>..., As...>
  decltype(auto) operator()(As&&... as) const& {
    return std::apply(
        [&](const auto&... bound) -> decltype(auto) {
          return std::invoke(f_, bound..., std::forward<As>(as)...);
        },
        bound_);
  }
  template <class... As>
  requires std::is_invocable_v<F, Bound..., As...>
  decltype(auto) operator()(As&&... as) && {
    return std::apply(
        [&](auto&&... bound) -> decltype(auto) {
          return std::invoke(std::move(f_), std::move(bound)...,
                             std::forward<As>(as)...);
        },
        std::move(bound_));
  }

 private:
  F f_;
  std::tuple<Bound...> bound_;
};

namespace detail {

template <class A>
struct BoundAs {
  using type = std::decay_t<A>;
};
template <std::size_t kN>
struct BoundAs<const char (&)[kN]> {
  using type = std::string;
};

}  // namespace detail

template <class F, class... As>
auto partial(F&& f, As&&... args) {
  using Bound = std::tuple<typename detail::BoundAs<As>::type...>;
  return Partial<std::decay_t<F>, typename detail::BoundAs<As>::type...>(
      std::forward<F>(f), Bound(std::forward<As>(args)...));
}

template <class F>
class ByValue {
 public:
  explicit ByValue(const F& f) : f_(f) {}

  template <class... As>
  requires std::is_invocable_v<F&, As...>
  decltype(auto) operator()(As&&... as) & {
    return std::invoke(f_, std::forward<As>(as)...);
  }
  template <class... As>
  requires std::is_invocable_v<const F&, As...>
  decltype(auto) operator()(As&&... as) const& {
    return std::invoke(f_, std::forward<As>(as)...);
  }
  template <class... As>
  requires std::is_invocable_v<F, As...>
  decltype(auto) operator()(As&&... as) && {
    return std::invoke(std::move(f_), std::forward<As>(as)...);
  }

 private:
  F f_;
};

template <class F>
auto by_value(const F& f) {
  static_assert(std::is_trivially_copyable_v<F>,
                "shoal: by_value() ships the bytes of a closure, which must "
                "be trivially copyable: pass strings, vectors and handles as "
                "arguments, or through shoal::partial().");
  return ByValue<F>(f);
}

}  // namespace shoal
