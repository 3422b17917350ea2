#pragma once
// A pool as its owner sees it: submits tasks, waits for them, lets go of them.
// Knows bytes only; pool.h and async_result.h know types.
//
// Sharing:  any thread of the process that made the pool; in a forked child
//           every call throws std::logic_error.
// Death:    the nursery dead: every open task is completed as broken by the
//           first thread that looks.

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "shoal/ipc/fd.h"
#include "shoal/ipc/passage.h"
#include "shoal/ipc/process.h"
#include "shoal/ipc/timeout.h"
#include "shoal/ipc/waiting.h"
#include "shoal/pool/callback_runner.h"
#include "shoal/pool/nursery_process.h"
#include "shoal/pool/options.h"
#include "shoal/pool/pool_state.h"
#include "shoal/pool/records.h"

namespace shoal::pool {

class Core : public std::enable_shared_from_this<Core> {
 public:
  // Starts the nursery, which forks the workers; each of them runs
  // `initializer`, if there is one, first. Throws std::invalid_argument,
  // NoSpace, std::system_error; a worker that cannot be forked breaks the pool.
  Core(const PoolOptions& options, std::unique_ptr<detail::Body> initializer);
  Core(const Core&) = delete;
  Core& operator=(const Core&) = delete;

  std::uint32_t workers() const { return memory_.state().settings.workers; }
  // Waits until they have been forked.
  std::vector<pid_t> pids() const;
  PoolStats stats();

  // ---- tasks ----

  // A task that is not submitted yet: its arguments go into `arguments`.
  struct Draft {
    std::uint32_t index;
    std::span<std::byte> arguments;
  };
  // Throws NotRunning (naming `verb`), NoSpace, BrokenPool.
  Draft draft(const char* verb, const FunctionRef& thunk,
              std::size_t argument_bytes);
  // The same for a stream that was opened before close().
  Draft draft_on(const FunctionRef& thunk, std::size_t argument_bytes);
  void submit(const char* verb, const Draft& draft);
  void discard(const Draft& draft);
  // Before a draft whose arguments may hold handles. Throws BrokenPool.
  void await_nursery();
  // How handles in its arguments travel: workers have mapped what was made
  // before the pool; others are kept until the task is done.
  Deposits passage(const Draft& draft) const;
  // Of what is not sent.
  Deposits passage_to_try() const {
    return Deposits(memory_.container(), objects_before_);
  }

  // False when the deadline passes first. Done means: complete or broken.
  bool wait(std::uint32_t index, Deadline deadline);
  bool done(std::uint32_t index);
  // Sleeps for tasks whose indices have these bits (Memory::bit_of), until one
  // of them may be done, unless `ready` says so before; a short while at most.
  template <class Ready>
  void sleep(std::uint32_t bits, Deadline deadline, Ready&& ready);
  // Whoever sleeps for the task's bit is woken when it is done.
  void wake_when_done(std::uint32_t index);
  // What shoal::wait() needs to sleep for the task among others.
  void announce(std::uint32_t index) { memory_.announce(index); }
  liveness::Domain& domain() const { return memory_.domain(); }
  // The value's bytes, when it is there; throws what the task failed with
  // instead.
  std::span<const std::byte> await(std::uint32_t index);
  task::Outcome outcome(std::uint32_t index) const;
  std::span<const std::byte> result(std::uint32_t index) const;
  // Throws what a task without a value failed with.
  [[noreturn]] void throw_error(std::uint32_t index) const;
  // True if the task had not started; it is then complete as cancelled.
  bool cancel(std::uint32_t index);
  // True if none of the chunks of a map had, which ask before they begin, as
  // call::run_chunk does; they are then, or will be when the workers that hold
  // them go on.
  bool cancel_all(std::span<const std::uint32_t> chunks);
  // Of a task that was submitted.
  task::Handle handle(std::uint32_t index) const {
    return task::make_handle(index, task::generation_of(memory_.task(index)));
  }
  // The record is used again, at once or when the task is done. `small`: its
  // arguments were inline.
  void release(std::uint32_t index, bool small = false);
  // The task is done; its arguments are not needed any more.
  void free_arguments(std::uint32_t index) { records_.free_arguments(index); }

  // ---- life ----

  void require_running(const char* verb) const;
  // Who has one may submit, through draft_on(), after close(), until all of
  // them are gone or join() is called. Throws NotRunning (naming `verb`).
  std::shared_ptr<void> open_stream(const char* verb);
  CallbackRunner& callbacks() { return callbacks_; }
  // Of a process that did not make the pool.
  [[noreturn]] static void throw_foreign();
  void close();
  void terminate();
  // Throws NotRunning before close() or terminate().
  bool join(Timeout timeout);
  // All of its processes, without more ado.
  void kill() noexcept { nursery_.kill(); }

 private:
  // In a process that was forked from the one that made it.
  bool foreign() const { return depth_ != liveness::fork_depth(); }
  void require_owner() const {
    if (__builtin_expect(foreign(), 0)) throw_foreign();
  }
  [[noreturn]] void throw_not_running(const char* verb, Command command) const;
  [[noreturn]] void throw_broken() const;
  std::string describe_break(Broken why) const;
  bool wait_longer(const task::TaskState& task, std::uint32_t index,
                   Deadline deadline);
  Draft make_draft(const FunctionRef& thunk, std::size_t argument_bytes);
  inline void push(const char* verb, task::Handle handle);
  void grow_ring(std::uint32_t full);
  void complete_open(task::Outcome outcome);
  bool check_broken();
  void complete_cancelled(std::uint32_t index);
  void count_cancelled() { cancelled_.fetch_add(1, std::memory_order_relaxed); }
  std::uint32_t announce_bits(std::uint32_t bits);
  void await_change(std::uint32_t announced, futex::Expected turns,
                    Deadline deadline);
  void ring_bell() const;
  void seal();

  Memory memory_;
  Records records_;
  const std::uint64_t depth_;
  const std::uint64_t objects_before_;  // of which workers have what they need
  const Fd bell_;
  const std::uint64_t first_tick_;
  const std::int64_t first_nanosecond_;
  CallbackRunner callbacks_;
  // The last that a constructor may fail at: nothing ends it then.
  const NurseryProcess nursery_;
  waiting::SpinBudget spin_;
  std::atomic<std::uint64_t> submitted_{0};
  std::atomic<std::uint64_t> cancelled_{0};
  std::atomic<std::uint64_t> broken_tasks_{0};

  std::mutex mutex_;  // of the rest; this process only
  // Not broken, not closed, as every verb asks for.
  std::atomic<bool> accepts_ = true;
  std::atomic<bool> broken_ = false;
  bool closed_ = false;  // and streams may go on
  std::size_t streams_ = 0;
  bool joined_ = false;
};

// ---- inline ----

template <class Ready>
void Core::sleep(std::uint32_t bits, Deadline deadline, Ready&& ready) {
  const futex::Expected turns = memory_.state().turns.now();
  const std::uint32_t announced = announce_bits(bits);
  if (!ready()) await_change(announced, turns, deadline);
}

}  // namespace shoal::pool
