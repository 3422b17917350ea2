#pragma once
// The threads of a ThreadPool and what waits for them. Knows jobs only;
// thread_pool.h and thread_jobs.h know types.
//
// Sharing: any thread, those of the pool included.
// Cost:    a job is a push and a pop of a queue (job_queue.h) and one CAS; no
//          system call unless somebody sleeps.

#include <sys/types.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "shoal/ipc/futex.h"
#include "shoal/ipc/liveness.h"
#include "shoal/ipc/timeout.h"
#include "shoal/ipc/waiting.h"
#include "shoal/pool/callback_runner.h"
#include "shoal/pool/job_memory.h"
#include "shoal/pool/job_queue.h"
#include "shoal/pool/options.h"

namespace shoal::pool {

class ThreadCore;

// Jobs that ended with a value, with an error, or were taken and not begun, as
// their map was cancelled: counted before they end.
struct JobCounts {
  void add(bool ended_well) { increment(ended_well ? done : failed); }
  void add_cancelled() { increment(cancelled); }
  template <class N>
  void increment(std::atomic<N>& count) const {
    // relaxed: numbers.
    if (one_writer)
      count.store(count.load(std::memory_order_relaxed) + 1,
                  std::memory_order_relaxed);
    else
      count.fetch_add(1, std::memory_order_relaxed);
  }
  const bool one_writer;
  std::atomic<std::uint32_t> cancelled{0};  // here: a Place fills one line
  std::atomic<std::uint64_t> done{0};
  std::atomic<std::uint64_t> failed{0};
};

// What a thread runs. Whoever takes it, a thread, a waiter that helps or a
// canceller, completes it; nobody else touches it then.
class ThreadJob {
 public:
  virtual ~ThreadJob() = default;
  // acquire: who took it was counted before (help()). A guess where it is
  // false.
  bool taken() const { return taken_.load(std::memory_order_acquire); }
  // True for one caller only.
  bool take() {
    // acq_rel: only one may; what the job was made with is published by the
    // queue.
    return !taken() && !taken_.exchange(true, std::memory_order_acq_rel);
  }
  // Of one that was taken.
  virtual void run(JobCounts& counts) noexcept = 0;
  virtual void abandon(std::exception_ptr error) noexcept = 0;

 private:
  friend class ThreadCore;
  std::atomic<bool> taken_{false};
  std::shared_ptr<ThreadJob> queued_;  // itself, while it is in the queue
};

class ThreadCore : public std::enable_shared_from_this<ThreadCore> {
 public:
  // Throws std::invalid_argument, NoSpace, std::system_error. start() makes the
  // threads.
  ThreadCore(const PoolOptions& options, std::function<void()> initializer);
  ~ThreadCore();
  ThreadCore(const ThreadCore&) = delete;
  ThreadCore& operator=(const ThreadCore&) = delete;
  void start();

  std::size_t workers() const { return places_.size(); }
  std::vector<pid_t> ids() const;
  PoolStats stats() const;
  liveness::Domain& domain() const { return *domain_; }

  // Throws NotRunning (naming `verb`; nullptr: of a stream), BrokenPool.
  void require_running(const char* verb) const;
  void submit(const char* verb, std::shared_ptr<ThreadJob> job);
  // The caller waits for the job: runs it, unless somebody has begun.
  void help(ThreadJob& job);
  // True if nobody had begun it; it is then complete as cancelled.
  bool cancel(ThreadJob& job);
  JobMemory& job_memory() { return *job_memory_; }
  CallbackRunner& callbacks() { return callbacks_; }
  waiting::SpinBudget& spin_of_waiters() { return spin_of_waiters_; }
  // As of pool::Core.
  std::shared_ptr<void> open_stream(const char* verb);

  void close();
  void terminate();
  bool join(Timeout timeout);
  // In a process that was forked from the one that made it.
  bool foreign() const { return depth_ != liveness::fork_depth(); }

 private:
  struct alignas(64) Place {
    std::thread thread;
    std::atomic<pid_t> id{0};  // 0: it has ended
    std::atomic<std::uint64_t> taken{0};
    JobCounts counts{.one_writer = true};
    std::atomic<std::int64_t> busy{0};        // ns, until busy_since
    std::atomic<std::int64_t> busy_since{0};  // 0: idle
  };
  enum class State : int { run, closing, sealed, terminated };

  void work(Place& place);
  std::shared_ptr<ThreadJob> next(Place& place);
  std::shared_ptr<ThreadJob> pass_on(std::shared_ptr<ThreadJob> job);
  std::shared_ptr<ThreadJob> pop();
  std::shared_ptr<ThreadJob> pop_surely();
  void require_owner() const;
  void end_submission(std::uint64_t change);
  bool submitting() const;
  bool no_more() const;
  void leave();
  void wake_one();
  void wake_all();
  void break_with(std::exception_ptr error);
  void abandon_all(const std::exception_ptr& error);
  std::exception_ptr broken_error() const;
  bool is_own_thread() const;
  // Until so many are; false when the deadline passes first.
  bool await_alive(std::size_t threads, Deadline deadline);

  const std::function<void()> initializer_;
  const std::vector<int> affinity_;
  liveness::DomainUse domain_;
  std::vector<Place> places_;
  const std::unique_ptr<JobMemory, JobMemory::LetGo> job_memory_{new JobMemory};

  JobQueue<ThreadJob> queue_;
  alignas(64) std::atomic<std::uint32_t> sleepers_{0};
  futex::Word epoch_{0};  // changes when a sleeper is to look
  futex::Word alive_{0};  // threads, and waiters that run a job
  std::atomic<std::uint32_t> awaiting_{0};  // in await_alive()
  const std::uint64_t depth_;
  alignas(64) waiting::SpinBudget spin_;
  alignas(64) waiting::SpinBudget spin_of_waiters_;

  // Those in submit(); and how many have been submitted, each kSubmitted.
  static constexpr std::uint64_t kSubmitted = 1 << 20;
  alignas(64) std::atomic<std::uint64_t> submissions_{0};
  std::atomic<State> state_{State::run};
  alignas(64) JobCounts helped_{.one_writer = false};
  std::atomic<std::uint64_t> cancelled_{0};

  std::mutex joining_;
  mutable std::mutex mutex_;  // of the rest
  std::size_t streams_ = 0;
  std::exception_ptr initializer_error_;
  std::atomic<bool> broken_{false};

  CallbackRunner callbacks_;
};

}  // namespace shoal::pool
