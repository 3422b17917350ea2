// How a pool ends, by its owner or by itself, and what it tells of itself.

#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <string>

#include "shoal/ipc/errors.h"
#include "shoal/ipc/exception_codec.h"
#include "shoal/ipc/ticks.h"
#include "shoal/pool/broken.h"
#include "shoal/pool/core.h"

namespace shoal::pool {
namespace {

using namespace std::chrono_literals;
using task::Outcome;
using task::TaskState;

// Of a terminated pool: the workers have a second for their tasks.
constexpr auto kWorkersPatience = 1200ms;
constexpr auto kNurseryPatience = 5s;
constexpr auto kCallbackPatience = 1s;

std::string describe(int exitcode) {
  if (exitcode >= 0) return "exited with code " + std::to_string(exitcode);
  const char* name = sigabbrev_np(-exitcode);
  return "was ended by signal " + std::to_string(-exitcode) +
         (name != nullptr ? std::string(" (SIG") + name + ")" : "");
}

}  // namespace

// ---- errors ----

void Core::throw_not_running(const char* verb, Command command) const {
  if (command == Command::terminate)
    throw NotRunning(std::string("shoal: Pool::") + verb +
                     " after terminate()");
  if (command == Command::run && broken_.load(std::memory_order_relaxed))
    throw_broken();
  throw NotRunning(std::string("shoal: Pool::") + verb + " after close()");
}

std::string Core::describe_break(Broken why) const {
  const PoolState& state = memory_.state();
  switch (why) {
    case Broken::no:
      return "its nursery process (" + std::to_string(nursery_.pid()) +
             ") has died";
    case Broken::hopeless:
      return state.died_pid == 0
                 // relaxed: ordered by `broken`.
                 ? std::string("no worker can be forked (") +
                       strerrordesc_np(static_cast<int>(
                           state.error.load(std::memory_order_relaxed))) +
                       "); end processes, or raise the limit"
                 : "its workers die before they reach their first task, the "
                   "last "
                   "one, " +
                       std::to_string(state.died_pid) + ", " +
                       describe(static_cast<int>(state.died_exitcode)) +
                       "; look at what the pool's initializer and the "
                       "program's static initialisers do";
    case Broken::initializer:  // has a text of its own
      break;
    case Broken::death:
      return "worker " + std::to_string(state.died_pid) + ' ' +
             describe(static_cast<int>(state.died_exitcode)) +
             ", and on_worker_death is break_pool";
  }
  return "?";
}

void Core::throw_broken() const {
  const PoolState& state = memory_.state();
  // SYNC(pool.broken)
  const Broken why = state.broken.load(std::memory_order_acquire);
  if (why == Broken::initializer)
    throw_broken_by_initializer(exception_codec::decode(
        {memory_.arena().data(state.problem, state.problem_bytes),
         state.problem_bytes}));
  throw BrokenPool("shoal: the pool is broken: " + describe_break(why));
}

void Core::throw_error(std::uint32_t index) const {
  const TaskState& task = memory_.task(index);
  const std::string number = std::to_string(task.sequence);
  switch (outcome(index)) {
    case Outcome::error:
      std::rethrow_exception(exception_codec::decode(result(index)));
    case Outcome::died: {
      task::DiedState died;
      memcpy(&died, task.inline_result, sizeof died);
      const int exitcode = static_cast<int>(died.exitcode);
      throw WorkerDied("shoal: worker " + std::to_string(died.pid) + " " +
                           describe(exitcode) + " while it ran task " + number +
                           (died.overdue != 0 ? ", which had run longer than "
                                                "the pool's task_deadline"
                                              : ""),
                       static_cast<pid_t>(died.pid), exitcode, task.sequence);
    }
    case Outcome::cancelled:
      throw Cancelled("shoal: task " + number + " was cancelled");
    case Outcome::broken:
      throw_broken();
    case Outcome::no_room:
      throw NoSpace("shoal: no space for the result of task " + number, 0, 0);
    case Outcome::open:
    case Outcome::value:
      break;
  }
  throw Corrupt("shoal: task " + number + " has no outcome");
}

// ---- life ----

void Core::ring_bell() const { eventfd_write(bell_.get(), 1); }

std::shared_ptr<void> Core::open_stream(const char* verb) {
  require_owner();  // before the mutex, which a fork may have found held
  {
    const std::lock_guard guard(mutex_);
    require_running(verb);
    ++streams_;
  }
  // Without the mutex: where there is no memory for it, it is let go of here.
  return {this, [self = shared_from_this()](void*) {
            // A fork's copy of a stream is none.
            if (self->foreign()) return;
            const std::lock_guard guard(self->mutex_);
            if (--self->streams_ == 0 && self->closed_) self->seal();
          }};
}

void Core::close() {
  require_owner();
  const std::lock_guard guard(mutex_);
  closed_ = true;
  accepts_ = false;
  if (streams_ == 0) seal();
}

// No task can be submitted any more. With the mutex held.
void Core::seal() {
  PoolState& state = memory_.state();
  if (state.command.load(std::memory_order_relaxed) != Command::run) return;
  // SYNC(pool.command)
  state.command.store(Command::close, std::memory_order_release);
  memory_.ring(state.ring.load(std::memory_order_relaxed))
      .close(cells::kDraining);
  ring_bell();
}

void Core::terminate() {
  require_owner();
  {
    const std::lock_guard guard(mutex_);
    PoolState& state = memory_.state();
    if (state.command.load(std::memory_order_relaxed) == Command::terminate)
      return;
    accepts_ = false;
    records_.keep_arguments();
    // SYNC(pool.command)
    state.command.store(Command::terminate, std::memory_order_release);
    // All of them: a worker may not have come to the last one yet.
    const std::uint32_t last = state.ring.load(std::memory_order_relaxed);
    for (std::uint32_t i = 0; i <= last; ++i)
      memory_.ring(i).close(cells::kDiscarded);
    complete_open(Outcome::cancelled);
    ring_bell();
  }
  // Results with callbacks are ready after those.
  callbacks_.drain(Timeout(kCallbackPatience));
}

bool Core::join(Timeout timeout) {
  require_owner();
  const Deadline deadline(timeout);
  {
    const std::lock_guard guard(mutex_);
    if (!closed_ &&
        memory_.state().command.load(std::memory_order_relaxed) == Command::run)
      throw NotRunning("shoal: Pool::join before close() or terminate()");
    seal();  // what streams have not drawn stays undrawn
  }
  // relaxed: written by this process.
  const Command command =
      memory_.state().command.load(std::memory_order_relaxed);
  if (command == Command::terminate && timeout.is_forever()) {
    // One that is stopped is not waited for.
    if (!nursery_.wait(Timeout(kWorkersPatience)) &&
        (nursery_.is_stopped() || !nursery_.wait(Timeout(kNurseryPatience))))
      nursery_.kill();
  }
  if (!nursery_.wait(deadline)) return false;
  {
    const std::lock_guard guard(mutex_);
    if (!joined_) {
      nursery_.reap();
      joined_ = true;
      complete_open(Outcome::broken);
    }
  }
  return callbacks_.drain(deadline);
}

// ---- numbers ----

PoolStats Core::stats() {
  require_owner();
  if (nursery_.dead()) check_broken();
  const PoolState& state = memory_.state();
  // relaxed: numbers that go on changing.
  const auto read = [](const std::atomic<std::uint64_t>& number) {
    return number.load(std::memory_order_relaxed);
  };
  const std::uint64_t tick = ticks();
  // acquire: read before what becomes of them, or some would be counted twice.
  const std::uint64_t submitted = submitted_.load(std::memory_order_acquire);
  const double ns_a_tick =
      static_cast<double>(monotonic_now() - first_nanosecond_) /
      static_cast<double>(std::max<std::uint64_t>(tick - first_tick_, 1));
  PoolStats stats;
  stats.failed = read(state.died) + read(broken_tasks_);
  stats.retried = read(state.retried);
  stats.replaced = read(state.replaced);
  for (std::uint32_t slot = 0; slot < workers(); ++slot) {
    const SlotState& place = memory_.slot(slot);
    stats.running += memory_.is_open(read(place.current));
    stats.done += read(place.done);
    stats.failed += read(place.failed);
    std::uint64_t busy = read(place.busy);
    if (const auto since = read(place.busy_since); since != 0 && since < tick)
      busy += tick - since;
    stats.busy.emplace_back(static_cast<std::chrono::nanoseconds::rep>(
        static_cast<double>(busy) * ns_a_tick));
  }
  const std::uint64_t begun =
      stats.running + stats.done + stats.failed + read(cancelled_);
  stats.queued = std::max(submitted, begun) - begun;
  return stats;
}

}  // namespace shoal::pool
