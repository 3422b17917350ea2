#include "shoal/pool/callback_runner.h"

#include <chrono>
#include <utility>

#include "shoal/ipc/asymmetric_fence.h"

namespace shoal::pool {

using namespace std::chrono_literals;

CallbackRunner::~CallbackRunner() {
  if (depth_ != liveness::fork_depth()) {
    // A fork's copy has no such thread, and its mutex may be held for ever.
    static_cast<void>(new std::thread(std::move(thread_)));
    static_cast<void>(new std::shared_ptr(std::move(state_)));
    return;
  }
  {
    const std::lock_guard lock(state_->mutex);
    state_->ends = true;
    state_->changed.notify_all();
  }
  if (!thread_.joinable()) return;
  // A callback may let go of the last that holds the pool.
  if (thread_.get_id() == std::this_thread::get_id())
    thread_.detach();
  else
    thread_.join();
}

void CallbackRunner::add(std::shared_ptr<Job> job) {
  {
    const std::lock_guard lock(starting_);
    if (!thread_.joinable())
      thread_ = std::thread([state = state_] { run(*state); });
  }
  {
    const std::lock_guard lock(state_->mutex);
    state_->added.push_back(job);
    ++state_->open;
    state_->changed.notify_all();
  }
  job->announce();
}

bool CallbackRunner::drain(Deadline deadline) const {
  std::unique_lock lock(state_->mutex);
  if (state_->runner == std::this_thread::get_id()) return true;
  const auto drained = [this] { return state_->open == 0; };
  if (deadline.is_never()) {
    state_->changed.wait(lock, drained);
    return true;
  }
  return state_->changed.wait_for(
      lock, std::chrono::nanoseconds(deadline.remaining().nanoseconds()),
      drained);
}

bool CallbackRunner::runs_here() const {
  const std::lock_guard lock(state_->mutex);
  return state_->runner == std::this_thread::get_id();
}

// True if any was.
bool CallbackRunner::finish_done(State& state,
                                 std::list<std::shared_ptr<Job>>& open) {
  bool any = false;
  for (auto at = open.begin(); at != open.end();) {
    if (!(*at)->done()) {
      ++at;
      continue;
    }
    (*at)->finish();
    any = true;
    at = open.erase(at);
    const std::lock_guard lock(state.mutex);
    if (--state.open == 0) state.changed.notify_all();
  }
  return any;
}

// Returns when one may be done, or another was added.
void CallbackRunner::await_one(State& state,
                               const std::list<std::shared_ptr<Job>>& open) {
  std::uint32_t bits = 0;
  for (const std::shared_ptr<Job>& job : open) bits |= job->bit();
  open.front()->sleep(bits, [&] {
    // The race closed is announce/look against complete/look.
    asymmetric_fence::full();
    for (const std::shared_ptr<Job>& job : open)
      if (job->done()) return true;
    const std::lock_guard look(state.mutex);
    return !state.added.empty();
  });
}

// Nobody can catch what this thread throws: it allocates nothing of its own.
void CallbackRunner::run(State& state) {
  std::list<std::shared_ptr<Job>> open;  // in the order of submission
  std::unique_lock lock(state.mutex);
  state.runner = std::this_thread::get_id();
  for (;;) {
    open.splice(open.end(), state.added);
    if (open.empty()) {
      if (state.ends) return;
      state.changed.wait(lock,
                         [&] { return !state.added.empty() || state.ends; });
      continue;
    }
    lock.unlock();
    try {
      if (!finish_done(state, open)) await_one(state, open);
    } catch (...) {
      // No memory, or no seat, to look with; there may be in a while.
      std::this_thread::sleep_for(10ms);
    }
    lock.lock();
  }
}

}  // namespace shoal::pool
