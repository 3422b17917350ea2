#pragma once
// Callbacks: what the parent does with a result as soon as it is there.
//
//   pool.apply_async(Callbacks{[](int n) { show(n); }, {}}, count, "text");
//   pool.apply_async(Callbacks{.error_callback = report}, count, "text");
//
// They run in the process that made the pool, one at a time, in a thread of
// the pool's, before the result is ready. They may use the pool, but not wait
// there for a result of it that has callbacks itself: std::logic_error. What
// one throws becomes the result's error.

#include <exception>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <typeinfo>
#include <utility>

#include "shoal/ipc/type_name.h"

namespace shoal {

namespace detail {

// The parameters of the only operator() of a class, or of a function.
template <class F>
struct Parameters : Parameters<decltype(&F::operator())> {};
template <class... As>
struct ParameterList {
  static constexpr std::size_t kCount = sizeof...(As);
};
template <class A>
struct ParameterList<A> {
  static constexpr std::size_t kCount = 1;
  using First = A;
};
template <class Result, class... As>
struct Parameters<Result (*)(As...)> : ParameterList<As...> {};
template <class Result, class... As>
struct Parameters<Result (*)(As...) noexcept> : ParameterList<As...> {};
template <class Result, class C, class... As>
struct Parameters<Result (C::*)(As...)> : ParameterList<As...> {};
template <class Result, class C, class... As>
struct Parameters<Result (C::*)(As...) const> : ParameterList<As...> {};
template <class Result, class C, class... As>
struct Parameters<Result (C::*)(As...) noexcept> : ParameterList<As...> {};
template <class Result, class C, class... As>
struct Parameters<Result (C::*)(As...) const noexcept> : ParameterList<As...> {
};

template <class F>
concept HasParameters = requires {
  Parameters<F>::kCount;
};

}  // namespace detail

// Any callable that takes the result by value or const&, or nothing for a
// task without one. Which result that is, is known by the callable: one that
// is generic or overloaded cannot tell.
class Callback {
 public:
  Callback() = default;
  template <class F>
  requires(!std::is_same_v<std::decay_t<F>, Callback>)
      // NOLINTNEXTLINE(google-explicit-constructor): api.md
      Callback(F&& f) {
    using Callable = std::decay_t<F>;
    static_assert(detail::HasParameters<Callable>,
                  "shoal: a callback has one operator() that says what it "
                  "takes: write the type of the result instead of auto, and "
                  "wrap an overloaded function in a lambda.");
    if constexpr (requires { f == nullptr; })
      if (f == nullptr) return;  // as none
    const auto kept = std::make_shared<Callable>(std::forward<F>(f));
    using List = detail::Parameters<Callable>;
    static_assert(List::kCount <= 1,
                  "shoal: a callback takes the result and nothing else.");
    if constexpr (List::kCount == 0) {
      type_ = &typeid(void);
      call_ = [kept](const void*) { std::invoke(*kept); };
    } else {
      using First = typename List::First;
      using R = std::remove_cvref_t<First>;
      static_assert(std::is_invocable_v<Callable&, const R&>,
                    "shoal: a callback takes the result by value or const&, "
                    "and what cannot be copied by const&.");
      type_ = &typeid(R);
      call_ = [kept](const void* result) {
        std::invoke(*kept, *static_cast<const R*>(result));
      };
    }
  }

  explicit operator bool() const { return type_ != nullptr; }
  // Throws std::invalid_argument unless it takes an R.
  template <class R>
  void require() const {
    if (type_ != nullptr && *type_ != typeid(R)) refuse(typeid(R));
  }
  // `result`: of the type that it takes; nullptr for nothing.
  void operator()(const void* result) const {
    if (type_ != nullptr) call_(result);
  }

 private:
  [[noreturn]] void refuse(const std::type_info& result) const;

  const std::type_info* type_ = nullptr;
  std::function<void(const void*)> call_;
};

struct Callbacks {
  Callback callback = {};
  std::function<void(std::exception_ptr)> error_callback = {};

  // The one for `result` (nullptr: of nothing), or for the error that there is
  // instead; then that of the callback. Returns what is the result's error.
  std::exception_ptr operator()(const void* result,
                                std::exception_ptr error) const noexcept;
};

namespace pool {

template <class F>
concept NotCallbacks = !std::is_same_v<std::remove_cvref_t<F>, Callbacks>;

}  // namespace pool
}  // namespace shoal
