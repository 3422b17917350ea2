#include "shoal/pool/core.h"

#include <errno.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <stdexcept>
#include <string>

#include "shoal/ipc/descriptor.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/object.h"
#include "shoal/ipc/ticks.h"
#include "shoal/pool/nursery_process.h"
#include "shoal/pool/settings.h"

namespace shoal::pool {
namespace {

using namespace std::chrono_literals;
using task::ClaimState;
using task::Outcome;
using task::TaskState;

constexpr auto kSlice = 100ms;          // a stopped process may hold our wake
constexpr std::uint64_t kLooks = 1024;  // submissions to one look at the pool

StartMethod method_of(const PoolOptions& options) {
  return options.start_method.value_or(get_start_method());
}

Fd make_bell() {
  const int descriptor = above_stdio(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (descriptor < 0) throw_system_error(errno, "eventfd", "Pool");
  return Fd(descriptor);
}

bool is_done(const TaskState& task) {
  return task::outcome_of(task) != Outcome::open;
}

}  // namespace

Core::Core(const PoolOptions& options,
           std::unique_ptr<detail::Body> initializer)
    : memory_(settings_of(options, WorkersAre::processes),
              liveness::Domain::use_tree()),
      records_(memory_),
      depth_(liveness::fork_depth()),
      // What is started anew has nothing of this process's.
      objects_before_(
          method_of(options) == StartMethod::fork ? Object::next_serial() : 0),
      bell_(make_bell()),
      first_tick_(ticks()),
      first_nanosecond_(monotonic_now()),
      nursery_([&]() -> NurseryProcess {
        for (std::uint32_t slot = 0; slot < workers(); ++slot)
          memory_.slot(slot).cpu =
              options.affinity.empty()
                  ? -1
                  : options.affinity[slot % options.affinity.size()];
        return {memory_, method_of(options), bell_.get(), initializer.get()};
      }()) {}

std::vector<pid_t> Core::pids() const {
  require_owner();
  std::vector<pid_t> pids;
  nursery_.await_start();
  if (nursery_.dead()) return pids;
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

void Core::require_running(const char* verb) const {
  require_owner();
  // relaxed: written by this process; a submission that is under way while
  // another thread closes may be before or after.
  if (__builtin_expect(accepts_.load(std::memory_order_relaxed), 1)) return;
  throw_not_running(verb,
                    memory_.state().command.load(std::memory_order_relaxed));
}

// ---- records ----

void Core::release(std::uint32_t index, bool small) {
  if (!foreign()) records_.release(index, small);
}

// ---- submission ----

Core::Draft Core::draft(const char* verb, const FunctionRef& thunk,
                        std::size_t argument_bytes) {
  require_running(verb);
  return make_draft(thunk, argument_bytes);
}

Core::Draft Core::draft_on(const FunctionRef& thunk,
                           std::size_t argument_bytes) {
  require_owner();
  const Command command =
      memory_.state().command.load(std::memory_order_relaxed);
  if (command != Command::run)
    throw NotRunning(
        std::string("shoal: the rest of a stream is not run after Pool::") +
        (command == Command::close ? "join()" : "terminate()"));
  if (broken_.load(std::memory_order_relaxed))
    throw_not_running("imap", command);
  return make_draft(thunk, argument_bytes);
}

Core::Draft Core::make_draft(const FunctionRef& thunk,
                             std::size_t argument_bytes) {
  const std::uint32_t index = records_.take();
  TaskState& task = memory_.task(index);
  // relaxed: only a name for messages.
  task.sequence = submitted_.fetch_add(1, std::memory_order_relaxed) + 1;
  // Who never waits for a result is to hear of it, too.
  if (task.sequence % kLooks == 0 && check_broken()) {
    discard({index, {}});
    throw_broken();
  }
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

// The keeper lets go of handles when the nursery's seat is dead; so it must
// have one.
void Core::await_nursery() {
  require_owner();
  // SYNC(pool.nursery)
  if (memory_.state().nursery.load(std::memory_order_acquire) != 0) return;
  nursery_.await_start();
  if (nursery_.dead() && check_broken()) throw_broken();
}

Deposits Core::passage(const Draft& draft) const {
  keeper::Container container = memory_.container_until(
      draft.index,
      task::done_word(task::generation_of(memory_.task(draft.index)) + 1,
                      Outcome::value));
  container.again = memory_.state().settings.retries != 0;
  container.collector = offsetof(PoolState, nursery);
  container.domain = memory_.domain().id();
  return Deposits(container, objects_before_);
}

void Core::discard(const Draft& draft) {
  TaskState& task = memory_.task(draft.index);
  // relaxed: nobody knows the record.
  task.done.store(
      task::done_word(task::generation_of(task), Outcome::cancelled),
      std::memory_order_relaxed);
  count_cancelled();
  records_.release(draft.index, false);
}

void Core::submit(const char* verb, const Draft& draft) {
  TaskState& task = memory_.task(draft.index);
  const std::uint32_t generation = task::generation_of(task) + 1;
  task.result = 0;
  // relaxed: published by the claim word and the ring.
  task.done.store(task::done_word(generation, Outcome::open),
                  std::memory_order_relaxed);
  // SYNC(task.claim)
  task.claim.store(
      task::claim_word(generation, records_.only_one() ? ClaimState::alone
                                                       : ClaimState::pending),
      std::memory_order_release);
  try {
    push(verb, task::make_handle(draft.index, generation));
  } catch (...) {
    // A worker that has claimed it ahead runs it. Else it is nobody's; should
    // the pool have ended meanwhile, it was completed with the others.
    // acquire: as others have left it.
    if (!task::withdraw(task) &&
        task::claim_state(task.claim.load(std::memory_order_acquire)) !=
            ClaimState::cancelled)
      return;
    complete_cancelled(draft.index);
    records_.release(draft.index, false);
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
    if (__builtin_expect(memory_.ring(current).try_put({handle}, blocker) ==
                             waiting::Status::ok,
                         1))
      return;
    const std::lock_guard guard(mutex_);
    const Command command =
        memory_.state().command.load(std::memory_order_relaxed);
    if (command != Command::run || broken_) throw_not_running(verb, command);
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

// True when nothing will be completed any more; what was open is then broken.
bool Core::check_broken() {
  // SYNC(pool.broken)
  const bool given_up =
      memory_.state().broken.load(std::memory_order_acquire) != Broken::no;
  if (!given_up && !nursery_.dead()) return false;
  const std::lock_guard guard(mutex_);
  broken_ = true;
  accepts_ = false;
  records_.keep_arguments();
  complete_open(Outcome::broken);
  return true;
}

void Core::complete_open(Outcome outcome) {
  // A submission that was under way at terminate().
  if (memory_.state().command.load(std::memory_order_relaxed) ==
      Command::terminate)
    outcome = Outcome::cancelled;
  // relaxed: numbers.
  (outcome == Outcome::cancelled ? cancelled_ : broken_tasks_)
      .fetch_add(records_.complete_open(outcome), std::memory_order_relaxed);
  memory_.wake_bits(~0u);
}

bool Core::done(std::uint32_t index) {
  require_owner();
  if (outcome(index) != Outcome::open) return true;
  return nursery_.dead() && check_broken();
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
  if (waiting::spin_until(spin_, deadline, [&](int) { return is_done(task); }))
    return true;
  if (deadline.passed()) return done(index);
  for (;;) {
    sleep(Memory::bit_of(index), deadline, [&] {
      // seq_cst: as in announce_bits().
      return task::outcome_of(task.done.load(std::memory_order_seq_cst)) !=
             Outcome::open;
    });
    if (is_done(task)) return true;
    if (deadline.passed()) return done(index);
  }
}

std::uint32_t Core::announce_bits(std::uint32_t bits) {
  // seq_cst: the race closed is announce/look against complete/look.
  return memory_.state().sleepers.fetch_or(bits, std::memory_order_seq_cst) |
         bits;
}

void Core::wake_when_done(std::uint32_t index) {
  announce_bits(Memory::bit_of(index));
  // seq_cst: as above.
  if (task::outcome_of(memory_.task(index).done.load(
          std::memory_order_seq_cst)) != Outcome::open)
    memory_.wake_bits(Memory::bit_of(index));
}

void Core::await_change(std::uint32_t announced, futex::Expected turns,
                        Deadline deadline) {
  if (check_broken()) return;
  PoolState& state = memory_.state();
  // relaxed: it stays once it is there; until then a look at every slice does.
  const liveness::Who who = state.nursery.load(std::memory_order_relaxed);
  futex::Expected life = {&state.start,
                          static_cast<std::uint32_t>(Start::waiting)};
  if (who != 0) {
    life.word = &memory_.domain().life_word(who, life.value);
    if (nursery_.dead()) return;
  }
  futex::wait_any(
      std::array{futex::Expected{&state.sleepers, announced}, turns, life},
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

bool Core::cancel(std::uint32_t index) {
  require_owner();
  if (!task::withdraw(memory_.task(index))) return false;
  complete_cancelled(index);
  return true;
}

bool Core::cancel_all(std::span<const std::uint32_t> chunks) {
  require_owner();
  if (!task::withdraw(memory_.task(chunks.front()))) return false;
  for (const std::uint32_t index : chunks.subspan(1)) {
    const task::Doom doom = task::doom(memory_.task(index));
    if (doom == task::Doom::withdrawn) complete_cancelled(index);
    // Its worker may be done with it already; one that has died with its worker
    // is counted as that.
    if (doom == task::Doom::in_hand && outcome(index) != Outcome::died)
      count_cancelled();
  }
  // Last: when its record is used again the others know.
  complete_cancelled(chunks.front());
  return true;
}

void Core::complete_cancelled(std::uint32_t index) {
  TaskState& task = memory_.task(index);
  // Or terminate() or a break has completed and counted it.
  if (task::complete(task, task::generation_of(task), Outcome::cancelled))
    count_cancelled();
  memory_.wake_waiters(index);
}

}  // namespace shoal::pool
