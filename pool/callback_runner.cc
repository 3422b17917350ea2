#include "shoal/pool/callback_runner.h"

#include <chrono>
#include <utility>
#include <vector>

namespace shoal::pool {

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

void CallbackRunner::run(State& state) {
  std::vector<std::shared_ptr<Job>> open;  // in the order of submission
  std::unique_lock lock(state.mutex);
  state.runner = std::this_thread::get_id();
  for (;;) {
    open.insert(open.end(), std::make_move_iterator(state.added.begin()),
                std::make_move_iterator(state.added.end()));
    state.added.clear();
    if (open.empty()) {
      if (state.ends) return;
      state.changed.wait(lock,
                         [&] { return !state.added.empty() || state.ends; });
      continue;
    }
    lock.unlock();
    bool finished_any = false;
    std::uint32_t bits = 0;
    for (std::shared_ptr<Job>& job : open) {
      if (!job->done()) {
        bits |= job->bit();
        continue;
      }
      job->finish();
      finished_any = true;
      job.reset();
      lock.lock();
      if (--state.open == 0) state.changed.notify_all();
      lock.unlock();
    }
    std::erase(open, nullptr);
    if (!finished_any)
      open.front()->sleep(bits, [&] {
        for (const std::shared_ptr<Job>& job : open)
          if (job->done()) return true;
        const std::lock_guard look(state.mutex);
        return !state.added.empty();
      });
    lock.lock();
  }
}

}  // namespace shoal::pool
