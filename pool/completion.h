#pragma once
// Completion: what becomes ready in this process: the result of a task with
// callbacks, or of one that a thread runs.
//
//   class Job : public LocalResult<int> {
//     ... bring(7) or fail(error); complete(); ...
//   };
//
// Sharing:  any thread; completed once.
// Ordering: what happened before it was completed is visible to who finds it
//           ready.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <optional>
#include <type_traits>
#include <utility>

#include "shoal/ipc/futex.h"
#include "shoal/ipc/liveness.h"
#include "shoal/ipc/timeout.h"
#include "shoal/ipc/waiting.h"
#include "shoal/pool/attempt.h"
#include "shoal/pool/callbacks.h"

namespace shoal::pool {

class Completion {
 public:
  Completion() = default;
  Completion(const Completion&) = delete;
  Completion& operator=(const Completion&) = delete;
  virtual ~Completion() = default;

  bool ready() const {
    // SYNC(completion.state)
    return (state_.load(std::memory_order_acquire) & kDone) != 0;
  }
  // False when the deadline passes first. Throws std::logic_error in a thread
  // that would wait for itself.
  bool wait(Deadline deadline);
  // The caller will wait for it for ever: it runs here what of it nobody has
  // begun, if that is possible. Whether it is ready then.
  bool assist() {
    if (ready()) return true;
    require_own();
    help();
    return ready();
  }
  // The calling thread is in what brings it about, and cannot wait for it.
  bool is_brought_here() const { return Bringing::is_within(*this); }
  [[noreturn]] static void throw_waits_for_itself();
  // Of a ready one.
  bool successful() const { return error_ == nullptr; }
  void rethrow() const {
    if (error_ != nullptr) std::rethrow_exception(error_);
  }
  // True if nothing of it had started; it will then be ready as cancelled.
  virtual bool cancel() = 0;
  // How many of its tasks are done, and how many there are.
  virtual std::pair<std::size_t, std::size_t> progress() const {
    return {ready() ? 1 : 0, 1};
  }

  // For shoal::wait().
  virtual liveness::Domain& domain() const = 0;
  void announce();

 protected:
  // While it lives, the calling thread runs what brings `result` about, and
  // cannot wait for it.
  class Bringing {
   public:
    explicit Bringing(const Completion& result)
        : result_(result), outer_(innermost_) {
      innermost_ = this;
    }
    ~Bringing() { innermost_ = outer_; }
    Bringing(const Bringing&) = delete;
    Bringing& operator=(const Bringing&) = delete;
    static bool is_within(const Completion& result) {
      for (const Bringing* one = innermost_; one != nullptr; one = one->outer_)
        if (&one->result_ == &result) return true;
      return false;
    }

   private:
    static constinit thread_local const Bringing* innermost_;
    const Completion& result_;
    const Bringing* const outer_;  // of a waiter that runs another meanwhile
  };

  // What it will be, unless that is nullptr; before complete().
  void fail(std::exception_ptr error) noexcept { error_ = std::move(error); }
  const std::exception_ptr& error() const { return error_; }
  // Once.
  void complete() noexcept;
  virtual void help() {}
  // Of those who wait for what takes but a moment; nullptr: they sleep at once.
  virtual waiting::SpinBudget* spin() const { return nullptr; }
  // Whether the calling thread is the one that will call its callbacks.
  virtual bool completed_here() const { return false; }

 private:
  static constexpr std::uint32_t kDone = 1;
  static constexpr std::uint32_t kSleepers = 2;
  static constexpr std::uint32_t kBell = 4;  // somebody waits for it and others

  // Throws std::logic_error in a forked child.
  void require_own() const;

  futex::Word state_{0};
  const std::uint64_t depth_ = liveness::fork_depth();
  std::exception_ptr error_;
};

template <class R>
class LocalResult : public Completion {
 public:
  // Of a successful one.
  auto& value() { return *value_; }

 protected:
  // What it will be, unless that throws; before complete().
  template <class... V>
  void bring(V&&... value) noexcept {
    try {
      value_.emplace(std::forward<V>(value)...);
    } catch (...) {
      fail(std::current_exception());
    }
  }
  // Calls the callbacks, and lets go of them and all that they hold; then it is
  // ready.
  void publish(Callbacks callbacks) noexcept {
    fail(callbacks(std::is_void_v<R> || !value_ ? nullptr : &*value_, error()));
    callbacks = {};
    complete();
  }

 private:
  std::optional<Streamed<R>> value_;
};

}  // namespace shoal::pool
