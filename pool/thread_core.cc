#include "shoal/pool/thread_core.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "shoal/ipc/errors.h"
#include "shoal/pool/broken.h"
#include "shoal/pool/settings.h"

namespace shoal::pool {
namespace {

using namespace std::chrono_literals;

// The one whose thread this is, or nullptr.
thread_local const ThreadCore* own_core = nullptr;

void pin_to(int cpu) {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(static_cast<std::size_t>(cpu), &one);
  sched_setaffinity(0, sizeof one, &one);
}

}  // namespace

ThreadCore::ThreadCore(const PoolOptions& options,
                       std::function<void()> initializer)
    : initializer_(std::move(initializer)),
      affinity_(options.affinity),
      domain_(liveness::Domain::use_tree()),
      places_(settings_of(options, WorkersAre::threads).workers),
      depth_(liveness::fork_depth()) {
  if (!options.task_deadline.is_forever())
    throw std::invalid_argument(
        "shoal: ThreadPool with a task_deadline; a thread cannot be ended: use "
        "Pool, or leave it out");
}

void ThreadCore::start() {
  const auto end_after = [this](std::size_t threads) {
    await_alive(threads, Deadline::never());
    terminate();
  };
  for (std::size_t n = 0; n < places_.size(); ++n) {
    try {
      places_[n].thread = std::thread([self = shared_from_this(), n] {
        if (!self->affinity_.empty())
          pin_to(self->affinity_[n % self->affinity_.size()]);
        self->work(self->places_[n]);
      });
    } catch (const std::system_error& error) {
      end_after(n);
      throw_system_error(error.code().value(), "pthread_create",
                         "thread " + std::to_string(n + 1) + " of " +
                             std::to_string(places_.size()) +
                             " of a ThreadPool");
    } catch (...) {
      end_after(n);
      throw;
    }
  }
  await_alive(places_.size(), Deadline::never());
}

bool ThreadCore::await_alive(std::size_t threads, Deadline deadline) {
  // seq_cst: announce/look at the count against change the count/look for
  // announced ones.
  awaiting_.fetch_add(1, std::memory_order_seq_cst);
  std::uint32_t alive;
  while ((alive = alive_.load(std::memory_order_seq_cst)) != threads &&
         !deadline.passed())
    futex::wait(alive_, alive, deadline);
  awaiting_.fetch_sub(1, std::memory_order_seq_cst);
  return alive == threads;
}

// Ended by a thread of its own, which let go of it last, it cannot join that.
ThreadCore::~ThreadCore() {
  for (Place& place : places_) {
    if (!place.thread.joinable()) continue;
    if (place.thread.get_id() == std::this_thread::get_id())
      place.thread.detach();
    else
      place.thread.join();
  }
}

std::vector<pid_t> ThreadCore::ids() const {
  std::vector<pid_t> ids;
  for (const Place& place : places_)
    // acquire: with what the thread did before it began.
    if (const pid_t id = place.id.load(std::memory_order_acquire))
      ids.push_back(id);
  return ids;
}

PoolStats ThreadCore::stats() const {
  // relaxed: numbers that go on changing.
  const auto read = [](const auto& number) {
    return number.load(std::memory_order_relaxed);
  };
  PoolStats stats;
  stats.done = read(helped_.done);
  stats.failed = read(helped_.failed);
  std::uint64_t taken = stats.done + stats.failed + read(helped_.cancelled);
  const std::int64_t now = monotonic_now();
  for (const Place& place : places_) {
    const std::uint64_t done = read(place.counts.done);
    const std::uint64_t failed = read(place.counts.failed);
    const std::uint64_t ended = done + failed + read(place.counts.cancelled);
    const std::uint64_t begun = std::max(read(place.taken), ended);
    stats.running += begun - ended;
    stats.done += done;
    stats.failed += failed;
    taken += begun;
    const std::int64_t since = read(place.busy_since);
    stats.busy.emplace_back(read(place.busy) + (since != 0 ? now - since : 0));
  }
  taken += read(cancelled_);
  stats.queued = std::max(read(submissions_) / kSubmitted, taken) - taken;
  return stats;
}

// ---- submission ----

std::exception_ptr ThreadCore::broken_error() const {
  std::exception_ptr cause;
  {
    const std::lock_guard lock(mutex_);
    cause = initializer_error_;
  }
  try {
    throw_broken_by_initializer(cause);
  } catch (...) {
    return std::current_exception();
  }
}

void ThreadCore::require_owner() const {
  if (foreign())
    throw std::logic_error(
        "shoal: a ThreadPool's threads are those of the process that made it; "
        "make one here");
}

void ThreadCore::require_running(const char* verb) const {
  require_owner();
  // seq_cst: as in submit().
  const State state = state_.load(std::memory_order_seq_cst);
  if (state == State::run && !broken_.load(std::memory_order_acquire)) return;
  if (state == State::terminated)
    throw NotRunning(std::string("shoal: ThreadPool::") +
                     (verb != nullptr ? verb : "imap") + " after terminate()");
  if (broken_) std::rethrow_exception(broken_error());
  if (verb != nullptr)
    throw NotRunning(std::string("shoal: ThreadPool::") + verb +
                     " after close()");
  if (state == State::sealed)
    throw NotRunning(
        "shoal: the rest of a stream is not run after ThreadPool::join()");
}

void ThreadCore::submit(const char* verb, std::shared_ptr<ThreadJob> job) {
  // seq_cst: the race closed is announce/look at the state against change the
  // state/look for announced ones.
  submissions_.fetch_add(1, std::memory_order_seq_cst);
  ThreadJob* const raw = job.get();
  try {
    require_running(verb);
    raw->queued_ = std::move(job);
    queue_.push(raw);
  } catch (...) {
    raw->queued_.reset();
    end_submission(std::uint64_t{0} - 1);
    throw;
  }
  end_submission(kSubmitted - 1);
  // seq_cst, as that before it: push/look for sleepers against
  // announce/look at the queue.
  wake_one();
}

void ThreadCore::help(ThreadJob& job) {
  // A thread's initializer has not run here.
  if (initializer_ || broken_ || job.taken()) return;
  // As one of the pool's threads, for join().
  alive_.fetch_add(1, std::memory_order_seq_cst);
  if (job.take()) {
    const ThreadCore* const before = std::exchange(own_core, this);
    job.run(helped_);
    own_core = before;
  }
  leave();
}

bool ThreadCore::cancel(ThreadJob& job) {
  require_owner();
  if (!job.take()) return false;
  cancelled_.fetch_add(1, std::memory_order_relaxed);
  job.abandon(std::make_exception_ptr(
      Cancelled("shoal: a task of a ThreadPool was cancelled")));
  return true;
}

std::shared_ptr<void> ThreadCore::open_stream(const char* verb) {
  for (;;) {
    require_running(verb);
    const std::lock_guard lock(mutex_);
    if (state_ != State::run) continue;  // which is told without the mutex
    ++streams_;
    break;
  }
  return {this, [self = shared_from_this()](void*) {
            if (self->foreign()) return;
            {
              const std::lock_guard guard(self->mutex_);
              if (--self->streams_ != 0 || self->state_ != State::closing)
                return;
              self->state_ = State::sealed;
            }
            self->wake_all();
          }};
}

// ---- threads ----

std::shared_ptr<ThreadJob> ThreadCore::pop() {
  ThreadJob* const job = queue_.pop();
  return job != nullptr ? std::move(job->queued_) : nullptr;
}

// Another thread may have to go on before the next one is found.
std::shared_ptr<ThreadJob> ThreadCore::pop_surely() {
  for (;;) {
    if (auto job = pop()) return job;
    if (queue_.empty()) return nullptr;
    sched_yield();
  }
}

// Threads that are to end wait until nobody submits.
void ThreadCore::end_submission(std::uint64_t change) {
  // seq_cst: who read the state before it was sealed looks at this later, and
  // who found us submitting had sealed it before.
  submissions_.fetch_add(change, std::memory_order_seq_cst);
  if (state_.load(std::memory_order_seq_cst) >= State::sealed) wake_all();
}

bool ThreadCore::submitting() const {
  // seq_cst: as in submit().
  return submissions_.load(std::memory_order_seq_cst) % kSubmitted != 0;
}

bool ThreadCore::no_more() const {
  // seq_cst: as in submit().
  return state_.load(std::memory_order_seq_cst) >= State::sealed &&
         !submitting();
}

std::shared_ptr<ThreadJob> ThreadCore::next(Place& place) {
  if (auto job = pop()) return pass_on(std::move(job));
  // relaxed, of `busy`: its only writer; others read numbers.
  place.busy.store(place.busy.load(std::memory_order_relaxed) +
                       monotonic_now() -
                       place.busy_since.load(std::memory_order_relaxed),
                   std::memory_order_relaxed);
  place.busy_since.store(0, std::memory_order_relaxed);
  std::shared_ptr<ThreadJob> job;
  waiting::spin_until(spin_, Deadline::never(), [&](int) {
    return !queue_.looks_empty() && (job = pop()) != nullptr;
  });
  while (job == nullptr) {
    const std::uint32_t epoch = epoch_.load(std::memory_order_seq_cst);
    // seq_cst: as in submit().
    sleepers_.fetch_add(1, std::memory_order_seq_cst);
    // What was submitted by someone who did not see us is seen after this.
    submissions_.load(std::memory_order_seq_cst);
    const bool over = no_more();  // before the last look
    job = over ? pop_surely() : pop();
    if (job == nullptr && !over) futex::wait(epoch_, epoch, Deadline::never());
    sleepers_.fetch_sub(1, std::memory_order_seq_cst);
    if (job == nullptr && over) return nullptr;
  }
  place.busy_since.store(monotonic_now(), std::memory_order_relaxed);
  return pass_on(std::move(job));
}

// Who was woken before may not have found what was behind this one.
std::shared_ptr<ThreadJob> ThreadCore::pass_on(std::shared_ptr<ThreadJob> job) {
  // seq_cst: pop (which may have refilled)/look for sleepers against
  // announce/look at the queue (where another one is refilling).
  if (sleepers_.load(std::memory_order_seq_cst) != 0 && !queue_.empty())
    wake_one();
  return job;
}

void ThreadCore::work(Place& place) {
  own_core = this;
  place.busy_since.store(monotonic_now(), std::memory_order_relaxed);
  place.id.store(gettid(), std::memory_order_release);
  alive_.fetch_add(1, std::memory_order_seq_cst);
  futex::wake(alive_, futex::kAll);
  try {
    if (initializer_) initializer_();
  } catch (...) {
    break_with(std::current_exception());
  }
  while (auto job = next(place)) {
    if (!job->take()) continue;
    // relaxed, of all counts: numbers; of this one: its only writer.
    place.taken.store(place.taken.load(std::memory_order_relaxed) + 1,
                      std::memory_order_relaxed);
    if (broken_) {
      place.counts.add(false);
      job->abandon(broken_error());
    } else {
      job->run(place.counts);
    }
  }
  place.id.store(0, std::memory_order_release);
  leave();
}

void ThreadCore::leave() {
  // seq_cst: as in await_alive().
  alive_.fetch_sub(1, std::memory_order_seq_cst);
  if (awaiting_.load(std::memory_order_seq_cst) != 0)
    futex::wake(alive_, futex::kAll);
}

void ThreadCore::wake_one() {
  if (sleepers_.load(std::memory_order_seq_cst) == 0) return;
  epoch_.fetch_add(1, std::memory_order_seq_cst);
  futex::wake(epoch_, 1);
}

void ThreadCore::wake_all() {
  epoch_.fetch_add(1, std::memory_order_seq_cst);
  futex::wake(epoch_, futex::kAll);
}

void ThreadCore::break_with(std::exception_ptr error) {
  {
    const std::lock_guard lock(mutex_);
    if (initializer_error_ == nullptr) initializer_error_ = std::move(error);
  }
  broken_.store(true, std::memory_order_release);
  abandon_all(broken_error());
}

void ThreadCore::abandon_all(const std::exception_ptr& error) {
  while (auto job = pop_surely()) {
    if (!job->take()) continue;
    cancelled_.fetch_add(1, std::memory_order_relaxed);
    job->abandon(error);
  }
}

bool ThreadCore::is_own_thread() const { return own_core == this; }

// ---- life ----

void ThreadCore::close() {
  require_owner();
  {
    const std::lock_guard lock(mutex_);
    if (state_ != State::run) return;
    state_ = streams_ == 0 ? State::sealed : State::closing;
  }
  wake_all();
}

void ThreadCore::terminate() {
  require_owner();
  {
    const std::lock_guard lock(mutex_);
    state_ = State::terminated;
  }
  while (submitting()) sched_yield();
  abandon_all(std::make_exception_ptr(
      Cancelled("shoal: a task was cancelled by ThreadPool::terminate()")));
  wake_all();
  // Tasks that run cannot be ended, only be waited for; but not by themselves.
  if (!is_own_thread()) join(forever);
}

bool ThreadCore::join(Timeout timeout) {
  require_owner();
  {
    const std::lock_guard lock(mutex_);
    if (state_ == State::run)
      throw NotRunning("shoal: ThreadPool::join before close() or terminate()");
    if (state_ == State::closing) state_ = State::sealed;
  }
  wake_all();
  if (is_own_thread())
    throw std::logic_error(
        "shoal: ThreadPool::join in one of its tasks would wait for itself");
  const Deadline deadline(timeout);
  if (!await_alive(0, deadline)) return false;
  {
    // Not under the other mutex, which a thread_local object of theirs may take
    // at its end.
    const std::lock_guard joining(joining_);
    std::vector<std::thread> ended;
    {
      const std::lock_guard lock(mutex_);
      ended.reserve(places_.size());
      for (Place& place : places_)
        if (place.thread.joinable()) ended.push_back(std::move(place.thread));
    }
    for (std::thread& thread : ended) thread.join();
  }
  return callbacks_.drain(deadline);
}

}  // namespace shoal::pool
