#pragma once
// The thread that calls callbacks: one for each pool that has any.
//
// Sharing: add() and drain() by any thread, callbacks included.

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <thread>

#include "shoal/ipc/liveness.h"
#include "shoal/ipc/timeout.h"

namespace shoal::pool {

class CallbackRunner {
 public:
  // Something that becomes done, and then has callbacks to be called.
  class Job {
   public:
    virtual ~Job() = default;
    // Never waits. It may throw for want of memory, as sleep() may.
    virtual bool done() = 0;
    virtual void finish() noexcept = 0;
    // Whoever makes it done wakes the runner from now on; who has, already did.
    virtual void announce() = 0;
    // What it waits for, among 32; sleep() with those of all that wait returns
    // when any of them may be done, or after a short while, or at once if
    // `ready` says so when whoever makes one done will wake it.
    virtual std::uint32_t bit() const = 0;
    virtual void sleep(std::uint32_t bits,
                       const std::function<bool()>& ready) = 0;
  };

  CallbackRunner()
      : state_(std::make_shared<State>()), depth_(liveness::fork_depth()) {}
  ~CallbackRunner();

  // Throws std::system_error when there can be no thread, std::bad_alloc.
  void add(std::shared_ptr<Job> job);
  // Until nothing that was added is left; at once in a callback. False when the
  // deadline passes first.
  bool drain(Deadline deadline) const;
  // In a callback.
  bool runs_here() const;

 private:
  struct State {
    std::mutex mutex;
    std::condition_variable changed;
    std::list<std::shared_ptr<Job>> added;
    std::size_t open = 0;  // added and not finished
    std::thread::id runner;
    bool ends = false;
  };
  static void run(State& state);
  static bool finish_done(State& state, std::list<std::shared_ptr<Job>>& open);
  static void await_one(State& state,
                        const std::list<std::shared_ptr<Job>>& open);

  std::shared_ptr<State> state_;
  const std::uint64_t depth_;
  std::mutex starting_;
  std::thread thread_;
};

}  // namespace shoal::pool
