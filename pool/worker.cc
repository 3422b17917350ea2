#include "shoal/pool/worker.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <iostream>
#include <optional>
#include <span>
#include <stdexcept>
#include <utility>

#include "shoal/ipc/child.h"
#include "shoal/ipc/codec_stream.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/exception_codec.h"
#include "shoal/ipc/function.h"
#include "shoal/ipc/futex.h"
#include "shoal/ipc/passage.h"
#include "shoal/ipc/ticks.h"
#include "shoal/pool/call.h"
#include "shoal/pool/options.h"

namespace shoal::pool {
namespace {

using task::ClaimState;
using task::Handle;
using task::Outcome;
using task::TaskState;

std::uint32_t attempt_of_task = 0;

// What a task has printed is out when its result is there: most workers end by
// a signal.
void write_out() {
  if (__fpending(stdout) != 0) fflush(stdout);
  if (child::keeps_output(std::cout)) std::cout.rdbuf()->pubsync();
}

class Worker {
 public:
  Worker(Memory& memory, std::uint32_t slot)
      : memory_(memory),
        slot_(slot),
        state_(memory.slot(slot)),
        limited_(memory.state().settings.task_deadline != 0),
        most_tasks_(memory.state().settings.tasks_a_worker),
        // SYNC(pool.nursery)
        nursery_(memory.state().nursery.load(std::memory_order_acquire)),
        // SYNC(pool.first_ring)
        ring_(memory.state().first_ring.load(std::memory_order_acquire)) {}

  void run(detail::Body* initializer) {
    pin();
    // No seat left: a start that failed.
    memory_.domain().seat();
    await_admission();
    const pid_t parent = initializer != nullptr ? getppid() : 0;
    if (initializer != nullptr && !initialise(*initializer)) {
      leave(Leaving::refused);
      return;
    }
    // It may have changed its user, for which the kernel forgets this.
    if (initializer != nullptr) follow_parent(parent);
    // relaxed, here and of all that the nursery reads after this process has
    // ended, and owners for PoolStats.
    state_.ready.store(1, std::memory_order_relaxed);
    busy_since(ticks());
    std::uint64_t left = most_tasks_;
    if (const auto again = state_.retry.load(std::memory_order_relaxed)) {
      attempt_of_task = state_.attempt.load(std::memory_order_relaxed);
      begin(again - 1);
      run_task(again - 1);
      attempt_of_task = 0;
      if (--left == 0) return leave(Leaving::worn);
    }
    Handle handle;
    while (next_task(handle)) {
      run_task(handle);
      if (--left == 0) return leave(Leaving::worn);
    }
    leave(Leaving::drained);
  }

 private:
  static constexpr Handle kNone = ~Handle{0};  // no task has this index

  // Memory for the result, in the record or in the arena.
  class TaskReply final : public call::Reply {
   public:
    TaskReply(Memory& memory, std::uint32_t slot, TaskState& task,
              Handle handle)
        : memory_(memory),
          slot_(slot),
          task_(task),
          handle_(handle),
          depth_(liveness::fork_depth()) {}
    TaskReply(const TaskReply&) = delete;
    TaskReply& operator=(const TaskReply&) = delete;
    ~TaskReply() { drop(); }

    std::span<std::byte> allocate(std::size_t bytes) override {
      only_here();
      drop();
      bytes_ = bytes;
      if (bytes <= task::kInlineResult) return {task_.inline_result, bytes};
      block_ = memory_.arena().allocate(bytes, arena_owner::process(slot_ + 1));
      return {memory_.arena().data(block_, bytes), bytes};
    }

    Passage* passage() override {
      if (!passage_)
        passage_.emplace(memory_.container_until(
            task::index_of(handle_),
            task::done_word(task::generation_of(handle_) + 1, Outcome::open)));
      return &*passage_;
    }

    void start_over() override {
      only_here();
      drop();
      passage_.reset();
    }

    bool begin_after(std::uint64_t first) override {
      begins_ = task::begin_after(memory_.task(task::index_of(first)),
                                  task::generation_of(first), task_);
      return begins_;
    }
    bool begins() const { return begins_; }

    // Makes the result the task's; false: the task is done already.
    bool complete(Handle handle, Outcome outcome) {
      const std::uint32_t index = task::index_of(handle);
      const std::uint32_t generation = task::generation_of(handle);
      if (block_ != 0)
        // KILL: the block is the task's by name; the nursery frees it, since
        // the task is not done.
        memory_.arena().assign(block_, arena_owner::task(index, generation));
      task_.result = block_;
      task_.result_bytes = bytes_;
      if (!task::complete(task_, generation, outcome)) return false;
      block_ = 0;
      if (passage_) passage_->sent();
      memory_.wake_waiters(index);
      return true;
    }

    // The function has forked, and this is the child: it is no worker.
    void only_here() const override {
      if (liveness::fork_depth() != depth_) _exit(0);
    }

   private:
    void drop() {
      if (block_ != 0) memory_.arena().release(block_);
      block_ = 0;
      bytes_ = 0;
    }

    Memory& memory_;
    std::uint32_t slot_;
    TaskState& task_;
    const Handle handle_;
    const std::uint64_t depth_;
    std::optional<Deposits> passage_;
    BlockRef block_ = 0;
    std::size_t bytes_ = 0;
    bool begins_ = true;
  };

  // The nursery holds a pidfd then, and the pid is where others find it. If the
  // nursery dies, so does this process.
  void await_admission() const {
    // SYNC(slot.pid)
    while (state_.pid.load(std::memory_order_acquire) == 0)
      futex::wait(state_.pid, 0, forever);
  }

  void pin() {
    if (state_.cpu < 0) return;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(static_cast<std::size_t>(state_.cpu), &one);
    // Refused: it was allowed when the pool was made.
    sched_setaffinity(0, sizeof one, &one);
  }

  // False: it threw, and what is where the nursery finds it.
  bool initialise(detail::Body& initializer) {
    try {
      initializer.run();
      write_out();
      return true;
    } catch (...) {
      if (std::current_exception() == nullptr) throw;  // pthread_exit
      const auto bytes = exception_codec::encode(std::current_exception());
      // The owner's: it outlives this process.
      state_.problem =
          memory_.arena().allocate(bytes.size(), arena_owner::process(0));
      state_.problem_bytes = bytes.size();
      std::copy(bytes.begin(), bytes.end(),
                memory_.arena().data(state_.problem, bytes.size()));
      return false;
    }
  }

  void leave(Leaving why) {
    busy_since(0);
    state_.leaving.store(why, std::memory_order_relaxed);
  }

  // From then on it is busy; 0: idle.
  void busy_since(std::uint64_t now) {
    const auto since = state_.busy_since.load(std::memory_order_relaxed);
    if (since != 0)
      state_.busy.store(state_.busy.load(std::memory_order_relaxed) +
                            (now != 0 ? now : ticks()) - since,
                        std::memory_order_relaxed);
    state_.busy_since.store(now, std::memory_order_relaxed);
  }

  // The worker's view of a ring while it spins: beside the head there is the
  // record of its last task, where the owner's next one comes a journey of a
  // cache line sooner, if it is alone.
  struct Spinning {
    waiting::SpinBudget& spin() const { return ring.spin(); }
    bool looks_ready(waiting::Side side) const {
      return worker.next_is_alone() || ring.looks_ready(side);
    }
    Worker& worker;
    Ring& ring;
  };

  // Claims the next task; false when there will be none.
  bool next_task(Handle& handle) {
    for (;;) {
      Ring& ring = memory_.ring(ring_);
      bool claimed = false;
      const auto take = [&](const std::byte* data) noexcept {
        std::memcpy(&handle, data, sizeof handle);
        claimed = handle != std::exchange(ahead_, kNone) &&
                  task::index_of(handle) < kMaxTasks && claim(handle);
      };
      int eager = Ring::kEagerAttempts;
      const auto attempt = [&](liveness::Who& blocker) {
        const auto status = ring.consume_waiting(eager, blocker, take);
        return status == waiting::Status::blocked && ring.take_over(take)
                   ? waiting::Status::ok
                   : status;
      };
      const auto attempt_ahead = [&](liveness::Who& blocker) {
        if (!next_is_alone() || !claim(next_, ClaimState::alone))
          return attempt(blocker);
        handle = ahead_ = next_;
        claimed = true;
        return waiting::Status::ok;
      };
      liveness::Who blocker = 0;
      waiting::Status status = attempt(blocker);
      if (status == waiting::Status::blocked) {
        busy_since(0);
        idle_ = true;
        Spinning spinning{*this, ring};
        status = waiting::spin(spinning, waiting::Side::consumers, forever,
                               attempt_ahead);
      }
      if (status == waiting::Status::blocked) {
        ahead_ = kNone;  // it may sleep until that handle comes again
        status = waiting::sleep(
            ring, waiting::Side::consumers, forever,
            [&](liveness::Who& blocker) {
              // A task may have changed the user. Whoever sleeps is woken by a
              // death.
              if (memory_.domain().dead(nursery_)) _exit(1);
              return attempt(blocker);
            },
            [] { return 0; });
      }
      if (status == waiting::Status::ok) {
        if (claimed) {
          last_ = &memory_.task(task::index_of(handle));
          next_ = task::make_handle(task::index_of(handle),
                                    task::generation_of(handle) + 1);
          return true;
        }
        memory_.task(task::index_of(handle));  // throws when there is none
        continue;  // cancelled, or another worker has it
      }
      // SYNC(pool.ring): the next ring is ready before this one is closed.
      if (ring_ == memory_.state().ring.load(std::memory_order_acquire))
        return false;
      leave_ring();
    }
  }

  // All that was in it was claimed.
  void leave_ring() {
    ++ring_;
    auto& first = memory_.state().first_ring;
    std::uint32_t before = first.load(std::memory_order_relaxed);
    // SYNC(pool.first_ring)
    while (before < ring_ && !first.compare_exchange_weak(
                                 before, ring_, std::memory_order_release,
                                 std::memory_order_relaxed)) {
    }
  }

  // Once the record has gone on without this worker it is no more looked at.
  bool next_is_alone() {
    if (last_ == nullptr) return false;
    // relaxed: claim() looks again.
    const std::uint64_t claim = last_->claim.load(std::memory_order_relaxed);
    const std::uint32_t generation = task::generation_of(next_);
    if (claim == task::claim_word(generation, ClaimState::alone)) return true;
    if (task::claim_generation(claim) != generation - 1) last_ = nullptr;
    return false;
  }

  // Between the claim of the ring's cell and its commit, ahead of it, or of a
  // cell that another worker has claimed.
  bool claim(Handle handle,
             ClaimState expected = ClaimState::pending) noexcept {
    TaskState& task = memory_.task(task::index_of(handle));
    const std::uint32_t generation = task::generation_of(handle);
    // While the claim fetches its own line.
    waiting::prefetch_to_write(&task.done);
    // KILL: named, not claimed: the handle is delivered again, or for the first
    // time.
    begin(handle);
    if (!task::claim(task, generation, slot_, expected)) {
      state_.current.store(0, std::memory_order_relaxed);
      return false;
    }
    if (std::exchange(idle_, false)) busy_since(ticks());
    return true;
  }

  void begin(Handle handle) noexcept {
    if (limited_)
      state_.begun.store(monotonic_now(), std::memory_order_relaxed);
    state_.counted.store(
        counted_word(state_.done.load(std::memory_order_relaxed),
                     state_.failed.load(std::memory_order_relaxed)),
        std::memory_order_relaxed);
    // release: for the nursery that looks whether the task is overdue.
    state_.current.store(handle + 1, std::memory_order_release);
  }

  void run_task(Handle handle) {
    TaskState& task = memory_.task(task::index_of(handle));
    TaskReply reply(memory_, slot_, task, handle);
    bool lost = false;
    try {
      run_call(task, reply, lost);
      write_out();
      if (reply.begins())
        complete(reply, handle, Outcome::value, state_.done);
      else  // counted by who has cancelled it
        reply.complete(handle, Outcome::cancelled);
    } catch (...) {
      // pthread_exit is no exception; the worker ends.
      if (std::current_exception() == nullptr) throw;
      if (lost)
        fail_as_died(handle, reply);
      else
        fail(handle, reply);
    }
    // KILL: done and still named: the nursery finds it done.
    state_.current.store(0, std::memory_order_relaxed);
  }

  // Counted before: who has the result finds it in the numbers.
  // KILL: counted and not complete: the nursery takes it back.
  static void complete(TaskReply& reply, Handle handle, Outcome outcome,
                       std::atomic<std::uint64_t>& count) {
    const std::uint64_t before = count.load(std::memory_order_relaxed);
    count.store(before + 1, std::memory_order_relaxed);
    if (!reply.complete(handle, outcome))
      count.store(before, std::memory_order_relaxed);
  }

  // Tells, when it throws, whether that is because of an argument that arrives
  // once, such as an end of a Pipe, and was `lost` with an earlier worker.
  void run_call(TaskState& task, TaskReply& reply, bool& lost) {
    const std::size_t bytes = task.arguments_bytes;
    if (task.arguments == 0 && bytes > task::kInlineArguments)
      throw Corrupt("shoal: a task's arguments don't fit its record");
    const std::byte* from = task.arguments == 0
                                ? task.inline_arguments
                                : memory_.arena().data(task.arguments, bytes);
    Arrival arrival;
    codec::Reader reader(std::span(from, bytes), &arrival);
    try {
      thunk(task.thunk)(reader, reply);
    } catch (...) {
      reply.only_here();
      lost = attempt_of_task != 0 && arrival.lost();
      throw;
    }
  }

  // As if the task had not been tried again.
  void fail_as_died(Handle handle, TaskReply& reply) {
    const task::DiedState died = {state_.died_pid, state_.died_exitcode, 0};
    std::memcpy(reply.allocate(sizeof died).data(), &died, sizeof died);
    complete(reply, handle, Outcome::died, state_.failed);
  }

  void fail(Handle handle, TaskReply& reply) {
    try {
      const auto bytes = exception_codec::encode(std::current_exception());
      const auto room = reply.allocate(bytes.size());
      std::copy(bytes.begin(), bytes.end(), room.begin());
      write_out();
      complete(reply, handle, Outcome::error, state_.failed);
    } catch (...) {
      reply.allocate(0);  // lets go of what the error was to have
      complete(reply, handle, Outcome::no_room, state_.failed);
    }
  }

  // Most tasks run what the one before has run.
  call::Thunk thunk(const FunctionRef& reference) {
    if (last_thunk_ == nullptr || !(reference == last_reference_)) {
      last_thunk_ = reinterpret_cast<call::Thunk>(
          const_cast<void*>(function::resolve(reference)));
      last_reference_ = reference;
    }
    return last_thunk_;
  }

  Memory& memory_;
  const std::uint32_t slot_;
  SlotState& state_;
  const bool limited_;
  const std::uint64_t most_tasks_;  // 0: counts from 2^64
  const liveness::Who nursery_;
  std::uint32_t ring_;
  const TaskState* last_ = nullptr;  // where the next task may come
  Handle next_ = 0;                  // that one's
  // Claimed ahead, and not met in the ring: need not be tried there.
  Handle ahead_ = kNone;
  bool idle_ = false;
  FunctionRef last_reference_ = {};
  call::Thunk last_thunk_ = nullptr;
};

}  // namespace

void follow_parent(pid_t parent) {
  // The signal comes when the nursery ends and not before, since it has one
  // thread.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1);
}

void run_worker(Memory& memory, std::uint32_t slot, detail::Body* initializer) {
  Worker(memory, slot).run(initializer);
}

}  // namespace shoal::pool

namespace shoal {

std::uint32_t this_task::attempt() { return pool::attempt_of_task; }

}  // namespace shoal
