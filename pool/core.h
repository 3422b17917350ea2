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
#include <vector>

#include "shoal/ipc/passage.h"
#include "shoal/ipc/pidfd.h"
#include "shoal/ipc/timeout.h"
#include "shoal/ipc/waiting.h"
#include "shoal/pool/pool_state.h"
#include "shoal/pool/records.h"

namespace shoal::pool {

class Core {
 public:
  // Forks the nursery and waits until it has forked the workers. Throws
  // std::invalid_argument, NoSpace, std::system_error.
  explicit Core(int workers);
  ~Core();
  Core(const Core&) = delete;
  Core& operator=(const Core&) = delete;

  std::uint32_t workers() const { return memory_.state().workers; }
  std::vector<pid_t> pids() const;

  // ---- tasks ----

  // A task that is not submitted yet: its arguments go into `arguments`.
  struct Draft {
    std::uint32_t index;
    std::span<std::byte> arguments;
  };
  // Throws NotRunning (naming `verb`), NoSpace, BrokenPool.
  Draft draft(const char* verb, const FunctionRef& thunk,
              std::size_t argument_bytes);
  void submit(const char* verb, const Draft& draft);
  void discard(const Draft& draft);
  // How handles in arguments travel: workers have mapped what was made before
  // the pool.
  Deposits passage() const {
    return Deposits(memory_.container(), objects_before_);
  }

  // False when the deadline passes first. Done means: complete or broken.
  bool wait(std::uint32_t index, Deadline deadline);
  bool done(std::uint32_t index);
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
  // The record is used again, at once or when the task is done.
  void release(std::uint32_t index);
  // The task is done; its arguments are not needed any more.
  void free_arguments(std::uint32_t index) { records_.free_arguments(index); }

  // ---- life ----

  void require_running(const char* verb) const;
  // Of a process that did not make the pool.
  [[noreturn]] static void throw_foreign();
  void close();
  void terminate();
  // Throws NotRunning before close() or terminate().
  bool join(Timeout timeout);

 private:
  inline void require_owner() const;
  [[noreturn]] void throw_not_running(const char* verb, Command command) const;
  [[noreturn]] void throw_broken() const;
  bool wait_longer(const task::TaskState& task, std::uint32_t index,
                   Deadline deadline);
  inline void push(const char* verb, task::Handle handle);
  void grow_ring(std::uint32_t full);
  void complete_open(task::Outcome outcome);
  bool nursery_dead() const;
  bool check_broken();
  void park(std::uint32_t index, Deadline deadline);
  void ring_bell() const;

  Memory memory_;
  Records records_;
  const std::uint64_t depth_;
  std::uint64_t objects_before_;
  std::shared_ptr<const Pidfd> nursery_;
  pid_t nursery_pid_ = 0;
  int bell_;
  waiting::SpinBudget spin_;
  std::atomic<std::uint64_t> submitted_{0};

  std::mutex mutex_;  // of the rest; this process only
  std::atomic<bool> broken_ = false;
  bool joined_ = false;
};

}  // namespace shoal::pool
