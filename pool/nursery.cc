#include "shoal/pool/nursery.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <system_error>
#include <vector>

#include "shoal/ipc/child.h"
#include "shoal/ipc/liveness.h"
#include "shoal/pool/worker.h"

namespace shoal::pool {
namespace {

using namespace std::chrono_literals;
using task::ClaimState;
using task::Outcome;

constexpr child::Setup kWorkerSetup = {.null_stdin = false,
                                       .ignore_sigint = true,
                                       .default_signals = true,
                                       .clear_signal_mask = true};
constexpr auto kTermination = 1s;  // between SIGTERM and SIGKILL
// Workers that die before they reach their loop: replaced later and later, and
// then no more.
constexpr int kHopeless = 10;

class Nursery {
 public:
  Nursery(Memory& memory, std::shared_ptr<const Pidfd> owner, int bell)
      : memory_(memory),
        state_(memory.state()),
        owner_(std::move(owner)),
        bell_(bell),
        self_(Pidfd::open(getpid())),
        pid_(getpid()),
        workers_(state_.workers) {}

  void run() {
    prctl(PR_SET_NAME, "shoal.nursery");
    // SYNC(pool.nursery)
    state_.nursery.store(memory_.domain().seat(), std::memory_order_release);
    if (!start_all()) return;
    while (tend()) {
    }
  }

 private:
  struct Worker {
    pid_t pid = 0;
    std::shared_ptr<const Pidfd> pidfd;
    bool alive() const { return pidfd != nullptr; }
  };

  bool start_all() {
    for (std::uint32_t slot = 0; slot < state_.workers; ++slot) {
      if (const int error = fork_worker(slot); error != 0) {
        end_workers(SIGKILL);
        // relaxed: ordered by `start`.
        state_.error.store(static_cast<std::uint32_t>(error),
                           std::memory_order_relaxed);
        announce(Start::failed);
        return false;
      }
    }
    announce(Start::done);
    return true;
  }

  void announce(Start start) {
    // SYNC(pool.start)
    state_.start.store(static_cast<std::uint32_t>(start),
                       std::memory_order_release);
    futex::wake(state_.start, futex::kAll);
  }

  // 0, or the errno of the kernel's refusal.
  int fork_worker(std::uint32_t slot) {
    SlotState& state = memory_.slot(slot);
    // relaxed: nobody has this slot now.
    state.ready.store(0, std::memory_order_relaxed);
    state.drained.store(0, std::memory_order_relaxed);
    state.current.store(0, std::memory_order_relaxed);
    try {
      auto started = child::start("shoal.worker", self_, kWorkerSetup, [&] {
        // This process has one thread: the signal comes when it ends, and not
        // before.
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != pid_) _exit(1);
        prctl(PR_SET_NAME, "shoal.worker");
        run_worker(memory_, slot);
      });
      workers_[slot] = {started.pid, std::move(started.pidfd)};
    } catch (const std::system_error& error) {
      return error.code().value();
    }
    // SYNC(slot.pid)
    state.pid.store(static_cast<std::uint32_t>(workers_[slot].pid),
                    std::memory_order_release);
    return 0;
  }

  // One round; false when the pool has ended.
  bool tend() {
    // SYNC(pool.command)
    switch (state_.command.load(std::memory_order_acquire)) {
      case Command::terminate:
        end_workers(SIGTERM);
        return false;
      case Command::close:
        if (none_needed()) return false;
        break;
      case Command::run:
        break;
    }
    std::vector<pollfd> events = {{owner_->get(), POLLIN, 0},
                                  {bell_, POLLIN, 0}};
    std::vector<std::uint32_t> slots;
    for (std::uint32_t slot = 0; slot < workers_.size(); ++slot) {
      if (!workers_[slot].alive()) continue;
      slots.push_back(slot);
      events.push_back({workers_[slot].pidfd->get(), POLLIN, 0});
    }
    const int timeout =
        slots.size() == workers_.size() || draining() ? -1 : delay();
    if (::poll(events.data(), events.size(), timeout) < 0) return true;
    if (events[0].revents != 0) return false;  // the workers follow us
    if (events[1].revents != 0) {
      eventfd_t rings;
      eventfd_read(bell_, &rings);
    }
    stillborn_ = false;
    bool buried = false;
    for (std::size_t i = 0; i < slots.size(); ++i) {
      if (events[i + 2].revents == 0) continue;
      bury(slots[i]);
      buried = true;
    }
    if (stillborn_)
      back_off();
    else if (buried)
      failures_ = 0;
    return replace_missing();
  }

  // The worker in `slot` has ended: settle what it leaves.
  void bury(std::uint32_t slot) {
    Worker worker = std::move(workers_[slot]);
    workers_[slot] = {};
    SlotState& state = memory_.slot(slot);
    // Before the pid can be another's.
    // SYNC(slot.pid)
    state.pid.store(0, std::memory_order_release);
    const std::optional<int> status = worker.pidfd->reap();
    const int exitcode = status.value_or(Pidfd::kUnknownStatus);
    // relaxed: written by a process that has ended.
    const std::uint64_t current = state.current.load(std::memory_order_relaxed);
    std::uint64_t unfinished = 0;
    if (current != 0)
      unfinished = settle(slot, current - 1, worker.pid, exitcode);
    // It may have been killed between completing a task and waking its waiter.
    memory_.wake_bits(~0u);
    const bool drained = state.drained.load(std::memory_order_relaxed) != 0;
    if (state.ready.load(std::memory_order_relaxed) == 0) stillborn_ = true;
    if (drained) {
      ++drained_;
      return;
    }
    memory_.arena().sweep(arena_owner::process(slot + 1), unfinished);
    memory_.domain().retire_all();
    const std::uint32_t last = state_.ring.load(std::memory_order_relaxed);
    for (std::uint32_t i = 0; i <= last; ++i) memory_.ring(i).sweep();
  }

  // Completes the task that a dead worker was running. Returns the owner's
  // name of the blocks that it leaves, or 0 when its result is whole.
  std::uint64_t settle(std::uint32_t slot, task::Handle handle, pid_t pid,
                       int exitcode) {
    const std::uint32_t index = task::index_of(handle);
    const std::uint32_t generation = task::generation_of(handle);
    task::TaskState& task = memory_.task(index);
    // relaxed: written by a process that has ended.
    if (task.claim.load(std::memory_order_relaxed) !=
            task::claim_word(generation, ClaimState::running, slot) ||
        task.done.load(std::memory_order_relaxed) !=
            task::done_word(generation, Outcome::open))
      return 0;
    const task::DiedState died = {pid, exitcode};
    memcpy(task.inline_result, &died, sizeof died);
    task.result = 0;
    task.result_bytes = sizeof died;
    if (!task::complete(task, generation, Outcome::died)) return 0;
    memory_.wake_waiters(index);
    return arena_owner::task(index, generation);
  }

  bool draining() const { return drained_ != 0; }
  // Closed, and every worker has seen the end.
  bool none_needed() const {
    return draining() &&
           std::none_of(workers_.begin(), workers_.end(),
                        [](const Worker& worker) { return worker.alive(); });
  }

  // A drained worker proves that there is nothing left to take; as long as
  // none has, the pool is kept at its size. False when the pool is broken.
  bool replace_missing() {
    if (failures_ >= kHopeless) return give_up();
    if (delay() != 0) return true;
    for (std::uint32_t slot = 0; slot < workers_.size() && !draining();
         ++slot) {
      if (workers_[slot].alive()) continue;
      if (fork_worker(slot) != 0) {
        back_off();
        return true;
      }
    }
    return true;
  }

  // Later and later: 2, 4, 8 ... ms.
  void back_off() {
    ++failures_;
    not_before_ =
        Timeout(std::chrono::milliseconds(std::min(1 << failures_, 1000)));
  }
  int delay() const {
    if (failures_ == 0 || not_before_.passed()) return 0;
    return static_cast<int>(not_before_.remaining().nanoseconds() / 1'000'000) +
           1;
  }

  bool give_up() {
    // SYNC(pool.broken)
    state_.broken.store(1, std::memory_order_release);
    memory_.wake_bits(~0u);
    end_workers(SIGKILL);
    return false;
  }

  void end_workers(int signal) {
    const auto tell = [this](int number) {
      for (const Worker& worker : workers_)
        if (worker.alive()) worker.pidfd->signal(number);
    };
    tell(signal);
    const Deadline grace = Timeout(kTermination);
    for (std::uint32_t slot = 0; slot < workers_.size(); ++slot) {
      Worker& worker = workers_[slot];
      if (!worker.alive()) continue;
      // SYNC(slot.pid)
      memory_.slot(slot).pid.store(0, std::memory_order_release);
      if (!worker.pidfd->wait(grace)) {
        tell(SIGKILL);
        worker.pidfd->wait(Deadline::never());
      }
      worker.pidfd->reap();
      worker = {};
    }
  }

  Memory& memory_;
  PoolState& state_;
  std::shared_ptr<const Pidfd> owner_;
  const int bell_;
  const Pidfd self_;
  const pid_t pid_;
  std::vector<Worker> workers_;
  int failures_ = 0;  // rounds in a row in which a worker died at its start
  bool stillborn_ = false;
  Deadline not_before_ = now;
  std::uint32_t drained_ = 0;
};

}  // namespace

void run_nursery(Memory& memory, std::shared_ptr<const Pidfd> owner, int bell) {
  Nursery(memory, std::move(owner), bell).run();
}

}  // namespace shoal::pool
