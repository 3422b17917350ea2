#include "shoal/pool/nursery.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "shoal/ipc/child.h"
#include "shoal/ipc/futex.h"
#include "shoal/ipc/liveness.h"
#include "shoal/ipc/throw_trace.h"
#include "shoal/pool/settlement.h"
#include "shoal/pool/worker.h"

namespace shoal::pool {
namespace {

using namespace std::chrono_literals;

constexpr auto kTermination = 1s;  // between SIGTERM and SIGKILL
// Workers that die before they reach their loop: replaced later and later, and
// then no more.
constexpr int kHopeless = 10;

class Nursery {
 public:
  Nursery(Memory& memory, std::shared_ptr<const Pidfd> owner, int bell,
          detail::Body* initializer)
      : memory_(memory),
        state_(memory.state()),
        settings_(state_.settings),
        initializer_(initializer),
        owner_(std::move(owner)),
        bell_(bell),
        pid_(getpid()),
        workers_(settings_.workers) {}

  void run() {
    prctl(PR_SET_NAME, "shoal.nursery");
    // For its workers, here once: after whatever the initializer's arguments
    // have registered.
    child::guard_exit();
    throw_trace::enable();
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
    bool overdue = false;  // its task ran too long; it has SIGKILL
    bool alive() const { return pidfd != nullptr; }
  };

  bool start_all() {
    for (std::uint32_t slot = 0; slot < workers_.size(); ++slot) {
      // SYNC(pool.command)
      if (state_.command.load(std::memory_order_acquire) == Command::terminate)
        break;
      if (!fork_worker(slot)) {
        broken_ = Broken::hopeless;
        give_up();
        start_is_over();
        return false;
      }
    }
    start_is_over();
    return true;
  }

  void start_is_over() {
    // SYNC(pool.start)
    state_.start.store(static_cast<std::uint32_t>(Start::over),
                       std::memory_order_release);
    futex::wake(state_.start, futex::kAll);
    // Who fell asleep before this process had a seat does not watch it.
    memory_.wake_bits(~0u);
  }

  // False: the kernel refuses, and `error` says why.
  bool fork_worker(std::uint32_t slot) {
    SlotState& state = memory_.slot(slot);
    // relaxed: nobody has this slot now.
    state.ready.store(0, std::memory_order_relaxed);
    state.leaving.store(Leaving::no, std::memory_order_relaxed);
    state.current.store(0, std::memory_order_relaxed);
    const pid_t pid = fork();
    if (pid < 0) return refused(errno);
    if (pid == 0)
      child::run("shoal.worker", [this, slot] { become_worker(slot); });
    Pidfd pidfd = Pidfd::try_open(pid);
    if (pidfd.get() < 0) {
      const int error = errno;
      ::kill(pid, SIGKILL);  // it waits to be admitted
      while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
      }
      return refused(error);
    }
    workers_[slot] = {pid, std::make_shared<const Pidfd>(std::move(pidfd))};
    admit(slot);
    return true;
  }

  bool refused(int error) {
    state_.died_pid = 0;
    // relaxed: ordered by `broken`.
    state_.error.store(static_cast<std::uint32_t>(error),
                       std::memory_order_relaxed);
    return false;
  }

  // What else child::start() does this process has done for all of them, or
  // need not do: it has one thread, and nobody else waits for its children.
  void become_worker(std::uint32_t slot) {
    follow_parent(pid_);
    prctl(PR_SET_NAME, "shoal.worker");
    // The nursery ignores it.
    if (settings_.ignores_sigint == 0) signal(SIGINT, SIG_DFL);
    detail::set_worker_number(slot + 1);
    run_worker(memory_, slot, initializer_);
  }

  // From here on it runs tasks.
  void admit(std::uint32_t slot) {
    SlotState& state = memory_.slot(slot);
    // SYNC(slot.pid)
    state.pid.store(static_cast<std::uint32_t>(workers_[slot].pid),
                    std::memory_order_release);
    futex::wake(state.pid, 1);
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
    const Deadline next = earlier(next_replacement(), next_overdue());
    if (::poll(events.data(), events.size(), poll_timeout(next)) < 0)
      return true;
    if (events[0].revents != 0) {
      // They follow us, unless they have changed their credentials: then the
      // kernel forgets it.
      tell_workers(SIGKILL);
      return false;
    }
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
    if (broken_ != Broken::no) return give_up();
    if (stillborn_)
      back_off();
    else if (buried)
      failures_ = 0;
    end_overdue();
    return replace_missing();
  }

  static int poll_timeout(Deadline next) {
    if (next.is_never()) return -1;
    const auto ns = next.remaining().nanoseconds();
    return static_cast<int>(
        std::min<std::int64_t>((ns + 999'999) / 1'000'000, 60'000));
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
    const std::uint64_t unfinished = settlement::settle_task(
        memory_, slot, {worker.pid, exitcode, worker.overdue});
    // It may have been killed between completing a task and waking its waiter.
    // Or between taking the bell and ringing it.
    memory_.wake_bits(~0u);
    memory_.domain().ring_bell();
    settlement::end_busy_time(state);
    if (state.ready.load(std::memory_order_relaxed) == 0) stillborn_ = true;
    switch (state.leaving.load(std::memory_order_relaxed)) {
      case Leaving::drained:
        ++drained_;
        return;
      case Leaving::worn:
        return;
      case Leaving::refused:
        state_.problem = state.problem;
        state_.problem_bytes = state.problem_bytes;
        broken_ = Broken::initializer;
        break;
      case Leaving::no:
        state_.died_pid = worker.pid;
        state_.died_exitcode = exitcode;
        if (settings_.breaks != 0) broken_ = Broken::death;
        break;
    }
    settlement::sweep(memory_, slot, unfinished);
  }

  // ---- deadlines ----

  // When the first running task will be overdue, or a look is due whether one
  // is; never where tasks may take as long as they like.
  Deadline next_overdue() const {
    if (settings_.task_deadline == 0) return Deadline::never();
    std::int64_t left = settings_.task_deadline;
    const std::int64_t now = monotonic_now();
    for (std::uint32_t slot = 0; slot < workers_.size(); ++slot)
      if (const auto begun = begun_in(slot); begun != 0)
        left = std::min(left, begun + settings_.task_deadline - now);
    return Timeout(
        std::chrono::nanoseconds(std::max<std::int64_t>(left, 1'000'000)));
  }

  // When the task that runs in `slot` was begun; 0: none.
  std::int64_t begun_in(std::uint32_t slot) const {
    if (!workers_[slot].alive() || workers_[slot].overdue) return 0;
    const SlotState& state = memory_.slot(slot);
    // acquire: `begun` is of this task or of a later one.
    if (state.current.load(std::memory_order_acquire) == 0) return 0;
    return state.begun.load(std::memory_order_relaxed);
  }

  void end_overdue() {
    if (settings_.task_deadline == 0) return;
    const std::int64_t now = monotonic_now();
    for (std::uint32_t slot = 0; slot < workers_.size(); ++slot) {
      const auto begun = begun_in(slot);
      if (begun == 0 || now - begun < settings_.task_deadline) continue;
      // It stands still for the look: a task that ends at this moment is
      // neither ended nor taken for the next one.
      Worker& worker = workers_[slot];
      worker.pidfd->signal(SIGSTOP);
      await_stop(worker.pid);
      worker.overdue = begun_in(slot) == begun &&
                       memory_.is_open(memory_.slot(slot).current.load(
                           std::memory_order_relaxed));
      worker.pidfd->signal(worker.overdue ? SIGKILL : SIGCONT);
    }
  }

  // Not for ever: a system call may hold it back, and then no task ends.
  static void await_stop(pid_t worker) {
    for (int n = 0; n < 100; ++n) {
      siginfo_t info{};
      if (waitid(P_PID, static_cast<id_t>(worker), &info,
                 WSTOPPED | WEXITED | WNOWAIT | WNOHANG) != 0 ||
          info.si_pid != 0)
        return;
      ::poll(nullptr, 0, 1);
    }
  }

  // ---- replacement ----

  bool draining() const { return drained_ != 0; }
  // A drained worker proves that there is nothing left to take; as long as
  // none has, the pool is kept at its size.
  bool is_missing(std::uint32_t slot) const {
    return !workers_[slot].alive() &&
           (!draining() || settlement::has_retry(memory_, slot));
  }
  bool any_missing() const {
    for (std::uint32_t slot = 0; slot < workers_.size(); ++slot)
      if (is_missing(slot)) return true;
    return false;
  }
  // Closed, and every worker has seen the end.
  bool none_needed() const {
    return draining() && !any_missing() &&
           std::none_of(workers_.begin(), workers_.end(),
                        [](const Worker& worker) { return worker.alive(); });
  }
  Deadline next_replacement() const {
    return any_missing() ? not_before_ : Deadline::never();
  }

  // False when the pool is broken.
  bool replace_missing() {
    if (failures_ >= kHopeless && !any_at_work()) {
      broken_ = Broken::hopeless;
      return give_up();
    }
    if (failures_ != 0 && !not_before_.passed()) return true;
    for (std::uint32_t slot = 0; slot < workers_.size(); ++slot) {
      if (!is_missing(slot)) continue;
      if (!settlement::has_retry(memory_, slot))
        memory_.slot(slot).retry.store(0, std::memory_order_relaxed);
      if (!fork_worker(slot)) {
        back_off();
        return true;
      }
      state_.replaced.fetch_add(1, std::memory_order_relaxed);
    }
    return true;
  }

  // As long as one is, tasks are run; the others are tried again and again.
  bool any_at_work() const {
    for (std::uint32_t slot = 0; slot < workers_.size(); ++slot)
      if (workers_[slot].alive() &&
          memory_.slot(slot).ready.load(std::memory_order_relaxed) != 0)
        return true;
    return false;
  }

  // Later and later: 2, 4, 8 ... ms.
  void back_off() {
    failures_ = std::min(failures_ + 1, kHopeless);
    not_before_ =
        Timeout(std::chrono::milliseconds(std::min(1 << failures_, 1000)));
  }

  bool give_up() {
    // SYNC(pool.broken)
    state_.broken.store(broken_, std::memory_order_release);
    memory_.wake_bits(~0u);
    end_workers(SIGKILL);
    return false;
  }

  void tell_workers(int signal) {
    for (const Worker& worker : workers_)
      if (worker.alive()) worker.pidfd->signal(signal);
  }

  void end_workers(int signal) {
    tell_workers(signal);
    const Deadline grace = Timeout(kTermination);
    for (std::uint32_t slot = 0; slot < workers_.size(); ++slot) {
      Worker& worker = workers_[slot];
      if (!worker.alive()) continue;
      // SYNC(slot.pid)
      memory_.slot(slot).pid.store(0, std::memory_order_release);
      if (!worker.pidfd->wait(grace)) {
        tell_workers(SIGKILL);
        worker.pidfd->wait(Deadline::never());
      }
      worker.pidfd->reap();
      worker = {};
    }
  }

  Memory& memory_;
  PoolState& state_;
  const Settings settings_;
  detail::Body* const initializer_;
  std::shared_ptr<const Pidfd> owner_;
  const int bell_;
  const pid_t pid_;
  std::vector<Worker> workers_;
  int failures_ = 0;  // rounds in a row in which a worker died at its start
  bool stillborn_ = false;
  Broken broken_ = Broken::no;
  Deadline not_before_ = now;
  std::uint32_t drained_ = 0;
};

}  // namespace

void run_nursery(Memory& memory, std::shared_ptr<const Pidfd> owner, int bell,
                 detail::Body* initializer) {
  Nursery(memory, std::move(owner), bell, initializer).run();
  // It has printed nothing, and what it has made goes with it.
  _exit(0);
}

}  // namespace shoal::pool
