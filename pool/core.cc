#include "shoal/pool/core.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <stdexcept>
#include <string>

#include "shoal/ipc/child.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/exception_codec.h"
#include "shoal/ipc/object.h"
#include "shoal/pool/nursery.h"

namespace shoal::pool {
namespace {

using namespace std::chrono_literals;
using task::ClaimState;
using task::Outcome;
using task::TaskState;

constexpr auto kSlice = 100ms;         // a stopped process may hold our wake
constexpr auto kNurseryPatience = 5s;  // its own limit is one second

constexpr child::Setup kNurserySetup = {.null_stdin = false,
                                        .ignore_sigint = true,
                                        .default_signals = true,
                                        .clear_signal_mask = true};

std::uint32_t checked_workers(int workers) {
  if (workers < 1)
    throw std::invalid_argument("shoal: Pool of " + std::to_string(workers) +
                                " processes; at least 1 is needed");
  if (static_cast<std::uint32_t>(workers) > kMaxWorkers)
    throw NoSpace("shoal: Pool of " + std::to_string(workers) +
                      " processes; at most " + std::to_string(kMaxWorkers) +
                      " are possible",
                  static_cast<std::uint64_t>(workers), kMaxWorkers);
  return static_cast<std::uint32_t>(workers);
}

std::string describe(int exitcode) {
  if (exitcode >= 0) return "exited with code " + std::to_string(exitcode);
  const char* name = sigabbrev_np(-exitcode);
  return "was ended by signal " + std::to_string(-exitcode) +
         (name != nullptr ? std::string(" (SIG") + name + ")" : "");
}

bool is_done(const TaskState& task) {
  return task::outcome_of(task) != Outcome::open;
}

}  // namespace

Core::Core(int workers)
    : memory_(checked_workers(workers), liveness::Domain::use_tree()),
      records_(memory_),
      depth_(liveness::fork_depth()),
      objects_before_(Object::next_serial()),
      bell_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (bell_ < 0) throw_system_error(errno, "eventfd", "Pool");
  try {
    const auto self = std::make_shared<const Pidfd>(Pidfd::open(getpid()));
    auto started = child::start("shoal.nursery", *self, kNurserySetup,
                                [&] { run_nursery(memory_, self, bell_); });
    nursery_ = std::move(started.pidfd);
    nursery_pid_ = started.pid;
    PoolState& state = memory_.state();
    // SYNC(pool.start)
    while (state.start.load(std::memory_order_acquire) ==
               static_cast<std::uint32_t>(Start::waiting) &&
           !nursery_->wait(now))
      futex::wait(state.start, static_cast<std::uint32_t>(Start::waiting),
                  Timeout(kSlice));
    if (state.start.load(std::memory_order_acquire) !=
        static_cast<std::uint32_t>(Start::done)) {
      nursery_->wait(Deadline::never());
      nursery_->reap();
      throw_system_error(
          static_cast<int>(state.error.load(std::memory_order_relaxed)), "fork",
          "a worker of a Pool");
    }
  } catch (...) {
    ::close(bell_);
    throw;
  }
}

Core::~Core() {
  if (depth_ != liveness::fork_depth()) return;
  ::close(bell_);
}

std::vector<pid_t> Core::pids() const {
  require_owner();
  std::vector<pid_t> pids;
  if (nursery_dead()) return pids;
  for (std::uint32_t slot = 0; slot < workers(); ++slot)
    // SYNC(slot.pid)
    if (const auto pid = memory_.slot(slot).pid.load(std::memory_order_acquire))
      pids.push_back(static_cast<pid_t>(pid));
  return pids;
}

void Core::throw_foreign() {
  throw std::logic_error(
      "shoal: a Pool belongs to the process that made it; make one here");
}

inline void Core::require_owner() const {
  if (__builtin_expect(depth_ != liveness::fork_depth(), 0)) throw_foreign();
}

void Core::require_running(const char* verb) const {
  require_owner();
  // relaxed: written by this process.
  const Command command =
      memory_.state().command.load(std::memory_order_relaxed);
  if (__builtin_expect(
          command == Command::run && !broken_.load(std::memory_order_relaxed),
          1))
    return;
  throw_not_running(verb, command);
}

void Core::throw_not_running(const char* verb, Command command) const {
  switch (command) {
    case Command::run:
      break;
    case Command::close:
      throw NotRunning(std::string("shoal: Pool::") + verb + " after close()");
    case Command::terminate:
      throw NotRunning(std::string("shoal: Pool::") + verb +
                       " after terminate()");
  }
  throw_broken();
}

void Core::throw_broken() const {
  throw BrokenPool(
      // SYNC(pool.broken)
      memory_.state().broken.load(std::memory_order_acquire) != 0
          ? "shoal: the pool is broken: its workers die, or cannot be forked, "
            "before they reach their first task"
          : "shoal: the pool is broken: its nursery process (" +
                std::to_string(nursery_pid_) + ") has died");
}

// ---- records ----

void Core::release(std::uint32_t index) {
  if (depth_ == liveness::fork_depth()) records_.release(index);
}

// ---- submission ----

Core::Draft Core::draft(const char* verb, const FunctionRef& thunk,
                        std::size_t argument_bytes) {
  require_running(verb);
  const std::uint32_t index = records_.take();
  TaskState& task = memory_.task(index);
  // relaxed: only a name for messages.
  task.sequence = submitted_.fetch_add(1, std::memory_order_relaxed) + 1;
  try {
    task.arguments =
        argument_bytes <= task::kInlineArguments
            ? 0
            : memory_.arena().allocate(argument_bytes, arena_owner::process(0));
  } catch (...) {
    discard({index, {}});
    throw;
  }
  task.thunk = thunk;
  task.arguments_bytes = argument_bytes;
  return {index,
          {task.arguments == 0
               ? task.inline_arguments
               : memory_.arena().data(task.arguments, argument_bytes),
           argument_bytes}};
}

void Core::discard(const Draft& draft) {
  TaskState& task = memory_.task(draft.index);
  // relaxed: nobody knows the record.
  task.done.store(
      task::done_word(task::generation_of(task), Outcome::cancelled),
      std::memory_order_relaxed);
  records_.release(draft.index);
}

void Core::submit(const char* verb, const Draft& draft) {
  TaskState& task = memory_.task(draft.index);
  const std::uint32_t generation = task::generation_of(task) + 1;
  task.result = 0;
  // relaxed: published by the claim word and the ring.
  task.done.store(task::done_word(generation, Outcome::open),
                  std::memory_order_relaxed);
  // SYNC(task.claim)
  task.claim.store(task::claim_word(generation, ClaimState::pending),
                   std::memory_order_release);
  try {
    push(verb, task::make_handle(draft.index, generation));
  } catch (...) {
    discard(draft);
    throw;
  }
}

[[gnu::always_inline]] inline void Core::push(const char* verb,
                                              task::Handle handle) {
  for (;;) {
    // relaxed: changed by this process only, under the mutex.
    const std::uint32_t current =
        memory_.state().ring.load(std::memory_order_relaxed);
    liveness::Who blocker = 0;
    if (__builtin_expect(memory_.ring(current).try_put(handle, blocker) ==
                             waiting::Status::ok,
                         1))
      return;
    const std::lock_guard guard(mutex_);
    require_running(verb);
    grow_ring(current);
  }
}

// Opens a ring twice as large and closes the full one; who has drained it goes
// on in the next.
void Core::grow_ring(std::uint32_t full) {
  PoolState& state = memory_.state();
  if (state.ring.load(std::memory_order_relaxed) != full) return;
  if (full + 1 == kRings)
    throw NoSpace(
        "shoal: " + std::to_string(kMaxTasks) + " tasks wait for a worker",
        kMaxTasks + 1, kMaxTasks);
  memory_.populate_ring(full + 1);
  // SYNC(pool.ring)
  state.ring.store(full + 1, std::memory_order_release);
  memory_.ring(full).close(cells::kDraining);
}

// ---- completion ----

Outcome Core::outcome(std::uint32_t index) const {
  return task::outcome_of(memory_.task(index));
}

bool Core::nursery_dead() const {
  // SYNC(pool.nursery)
  const liveness::Who who =
      memory_.state().nursery.load(std::memory_order_acquire);
  return memory_.domain().dead(who);
}

// True when nothing will be completed any more; what was open is then broken.
bool Core::check_broken() {
  // SYNC(pool.broken)
  const bool given_up =
      memory_.state().broken.load(std::memory_order_acquire) != 0;
  if (!given_up && !nursery_dead()) return false;
  const std::lock_guard guard(mutex_);
  broken_ = true;
  records_.keep_arguments();
  complete_open(Outcome::broken);
  return true;
}

void Core::complete_open(Outcome outcome) {
  // A submission that was under way at terminate().
  if (memory_.state().command.load(std::memory_order_relaxed) ==
      Command::terminate)
    outcome = Outcome::cancelled;
  records_.complete_open(outcome);
  memory_.wake_bits(~0u);
}

bool Core::done(std::uint32_t index) {
  require_owner();
  if (outcome(index) != Outcome::open) return true;
  return nursery_dead() && check_broken();
}

bool Core::wait(std::uint32_t index, Deadline deadline) {
  require_owner();
  const TaskState& task = memory_.task(index);
  return is_done(task) || wait_longer(task, index, deadline);
}

std::span<const std::byte> Core::await(std::uint32_t index) {
  require_owner();
  TaskState& task = memory_.task(index);
  if (!is_done(task)) {
    wait_longer(task, index, Deadline::never());
    // Whoever comes here is likely to submit next, and in this record. All
    // lines that this will write, at once: a worker had them.
    waiting::prefetch_to_write(&task.claim);
    waiting::prefetch_to_write(&task.done);
    // relaxed: changed by this process only; a guess.
    memory_.ring(memory_.state().ring.load(std::memory_order_relaxed))
        .prefetch_for_put();
  }
  if (outcome(index) != Outcome::value) throw_error(index);
  return result(index);
}

[[gnu::noinline]] bool Core::wait_longer(const TaskState& task,
                                         std::uint32_t index,
                                         Deadline deadline) {
  if (deadline.passed()) return done(index);
  const int budget = spin_.draw();
  for (int n = 0; n < budget; ++n) {
    if (is_done(task)) {
      spin_.succeeded();
      return true;
    }
    if (n % 64 == 63) {
      if (deadline.passed()) return done(index);
      sched_yield();  // the worker may wait for this CPU
    }
    waiting::pause();
  }
  spin_.failed();
  for (int n = 0; n < waiting::SpinBudget::kYields; ++n) {
    sched_yield();
    if (is_done(task)) return true;
  }
  for (;;) {
    park(index, deadline);
    if (is_done(task)) return true;
    if (deadline.passed()) return done(index);
  }
}

void Core::park(std::uint32_t index, Deadline deadline) {
  PoolState& state = memory_.state();
  const std::uint32_t bit = Memory::bit_of(index);
  // seq_cst: the race closed is announce/look against complete/look.
  const std::uint32_t announced =
      state.sleepers.fetch_or(bit, std::memory_order_seq_cst) | bit;
  // seq_cst: as above.
  if (task::outcome_of(memory_.task(index).done.load(
          std::memory_order_seq_cst)) != Outcome::open ||
      check_broken())
    return;
  std::uint32_t alive;
  const futex::Word& life = memory_.domain().life_word(
      state.nursery.load(std::memory_order_relaxed), alive);
  if (nursery_dead()) return;
  futex::wait_any(std::array{futex::Expected{&state.sleepers, announced},
                             futex::Expected{&life, alive}},
                  earlier(Timeout(kSlice), deadline));
}

std::span<const std::byte> Core::result(std::uint32_t index) const {
  const TaskState& task = memory_.task(index);
  const std::size_t bytes = task.result_bytes;
  if (task.result != 0)
    return {memory_.arena().data(task.result, bytes), bytes};
  if (bytes > task::kInlineResult)
    throw Corrupt("shoal: a task's result does not fit its record");
  return {task.inline_result, bytes};
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
                           describe(exitcode) + " while it ran task " + number,
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

bool Core::cancel(std::uint32_t index) {
  require_owner();
  TaskState& task = memory_.task(index);
  if (!task::withdraw(task)) return false;
  task::complete(task, task::generation_of(task), Outcome::cancelled);
  memory_.wake_waiters(index);
  return true;
}

// ---- life ----

void Core::ring_bell() const { eventfd_write(bell_, 1); }

void Core::close() {
  require_owner();
  const std::lock_guard guard(mutex_);
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
  const std::lock_guard guard(mutex_);
  PoolState& state = memory_.state();
  if (state.command.load(std::memory_order_relaxed) == Command::terminate)
    return;
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

bool Core::join(Timeout timeout) {
  require_owner();
  // relaxed: written by this process.
  const Command command =
      memory_.state().command.load(std::memory_order_relaxed);
  if (command == Command::run)
    throw NotRunning("shoal: Pool::join before close() or terminate()");
  const Deadline deadline(timeout);
  if (command == Command::terminate && timeout.is_forever()) {
    // Its own limit is one second; a stopped nursery is not waited for.
    if (!nursery_->wait(Timeout(kNurseryPatience))) nursery_->signal(SIGKILL);
  }
  if (!nursery_->wait(deadline)) return false;
  const std::lock_guard guard(mutex_);
  if (joined_) return true;
  nursery_->reap();
  joined_ = true;
  complete_open(Outcome::broken);
  return true;
}

}  // namespace shoal::pool
