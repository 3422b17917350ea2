#pragma once
// What threads of a ThreadPool run, by type: a call, and the chunks of a map.

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "shoal/ipc/errors.h"
#include "shoal/pool/attempt.h"
#include "shoal/pool/call.h"
#include "shoal/pool/callback_runner.h"
#include "shoal/pool/callbacks.h"
#include "shoal/pool/completion.h"
#include "shoal/pool/job_memory.h"
#include "shoal/pool/thread_core.h"

namespace shoal::pool {

// A result that threads bring about; what callbacks there are, run before it is
// ready.
template <class R>
class ThreadResult : public LocalResult<R>, public CallbackRunner::Job {
 public:
  ThreadResult(std::shared_ptr<ThreadCore> core, const Callbacks* callbacks)
      : core_(std::move(core)),
        callbacks_(callbacks != nullptr
                       ? std::make_unique<Callbacks>(*callbacks)
                       : nullptr) {}
  liveness::Domain& domain() const override { return core_->domain(); }

  // For the callbacks' thread: it has it only when all is done.
  bool done() override { return true; }
  void announce() override {}
  std::uint32_t bit() const override { return 0; }
  void sleep(std::uint32_t, const std::function<bool()>&) override {}
  void finish() noexcept override { this->publish(std::move(*callbacks_)); }

 protected:
  ThreadCore& core() const { return *core_; }

  // By whoever has brought it about, or why it failed.
  void deliver() noexcept {
    if (callbacks_ == nullptr) return this->complete();
    try {
      core_->callbacks().add(self());
    } catch (...) {
      // There can be no thread for them.
      this->fail(std::current_exception());
      this->complete();
    }
  }

 private:
  virtual std::shared_ptr<CallbackRunner::Job> self() = 0;
  bool completed_here() const override {
    return callbacks_ != nullptr && core_->callbacks().runs_here();
  }
  waiting::SpinBudget* spin() const override {
    return callbacks_ == nullptr ? &core_->spin_of_waiters() : nullptr;
  }

  std::shared_ptr<ThreadCore> core_;
  std::unique_ptr<Callbacks> callbacks_;  // empty ones when they were called
};

// ---- one call ----

template <class R, class F, class... As>
class ThreadCall final : public ThreadResult<R>, public ThreadJob {
 public:
  template <class... Bs>
  static std::shared_ptr<ThreadCall> make(std::shared_ptr<ThreadCore> core,
                                          const Callbacks* callbacks,
                                          Bs&&... call) {
    const JobAllocator<ThreadCall> allocator(core->job_memory());
    auto made = std::allocate_shared<ThreadCall>(
        allocator, std::move(core), callbacks, std::forward<Bs>(call)...);
    if (callbacks != nullptr) made->self_ = made;
    return made;
  }
  // For make().
  template <class G, class... Bs>
  ThreadCall(std::shared_ptr<ThreadCore> core, const Callbacks* callbacks,
             G&& f, Bs&&... args)
      : ThreadResult<R>(std::move(core), callbacks),
        call_(std::in_place, std::forward<G>(f), std::forward<Bs>(args)...) {}

  void run(JobCounts& counts) noexcept override {
    try {
      const Completion::Bringing here(*this);
      if constexpr (std::is_void_v<R>) {
        invoke();
        this->bring();
      } else {
        this->bring(invoke());
      }
    } catch (...) {
      this->fail(std::current_exception());
    }
    call_.reset();  // before it is ready: what was given is let go of
    counts.add(this->successful());
    this->deliver();
  }
  void abandon(std::exception_ptr error) noexcept override {
    this->fail(std::move(error));
    call_.reset();
    this->deliver();
  }
  bool cancel() override { return this->core().cancel(*this); }

 private:
  struct Call {
    template <class G, class... Bs>
    explicit Call(G&& callable, Bs&&... args)
        : f(std::forward<G>(callable)), arguments(std::forward<Bs>(args)...) {}
    F f;
    std::tuple<As...> arguments;
  };

  decltype(auto) invoke() {
    return call::invoke_with(call_->f, call_->arguments);
  }
  void help() override { this->core().help(*this); }
  std::shared_ptr<CallbackRunner::Job> self() override { return self_.lock(); }

  std::optional<Call> call_;
  std::weak_ptr<ThreadCall> self_;  // of one with callbacks
};

// ---- a map ----

// All of it in one place; a chunk is a range of the items.
template <class Mode, class F, class T, class R>
class ThreadMap final
    : public ThreadResult<AllOf<R>>,
      public std::enable_shared_from_this<ThreadMap<Mode, F, T, R>> {
  static_assert(std::is_copy_constructible_v<F>,
                "shoal: each chunk of a map has a copy of the callable: give "
                "one that can be copied, such as a reference to yours.");

 public:
  ThreadMap(std::shared_ptr<ThreadCore> core, const Callbacks* callbacks, F f,
            std::vector<call::Boxed<T>> items, std::size_t chunk)
      : ThreadResult<AllOf<R>>(std::move(core), callbacks),
        f_(std::move(f)),
        items_(std::move(items)),
        values_(std::is_void_v<R> ? 0 : items_.size()) {
    for (std::size_t first = 0; first < items_.size(); first += chunk)
      chunks_.push_back(std::make_shared<Chunk>(
          *this, first, std::min(items_.size(), first + chunk)));
    open_ = chunks_.size();
  }

  // Each submitted chunk keeps it. An empty one is ready. `waits`: the caller
  // will wait for it, and nothing of it runs any more when this throws.
  void submit(const char* verb, bool waits) {
    if (chunks_.empty()) return deliver_all();
    std::size_t submitted = 0;
    try {
      for (const auto& chunk : chunks_) {
        chunk->map = this->shared_from_this();
        this->core().submit(verb, chunk);
        ++submitted;
      }
    } catch (...) {
      // Nobody gets the result; what has not begun is not begun.
      fate_ = Fate::cancelled;
      for (std::size_t n = 0; n < submitted; ++n)
        this->core().cancel(*chunks_[n]);
      for (std::size_t n = submitted; n < chunks_.size(); ++n)
        if (!waits)
          chunks_[n]->map.reset();
        else if (chunks_[n]->take())  // or who helps would
          chunks_[n]->abandon(nullptr);
      if (waits) this->wait(Deadline::never());
      throw;
    }
  }

  bool cancel() override {
    Fate open = Fate::open;
    // relaxed: only who wins matters.
    if (chunks_.empty() ||
        !fate_.compare_exchange_strong(open, Fate::cancelled,
                                       std::memory_order_relaxed))
      return false;
    // Those that a thread has taken end by themselves.
    for (const auto& chunk : chunks_) this->core().cancel(*chunk);
    return true;
  }

  std::pair<std::size_t, std::size_t> progress() const override {
    // relaxed: a number to be shown; who wants the values finds it ready.
    const std::size_t open = open_.load(std::memory_order_relaxed);
    return {chunks_.size() - open, chunks_.size()};
  }

 private:
  enum class Fate : std::uint8_t { open, begun, cancelled };
  static std::exception_ptr cancelled_error() {
    return std::make_exception_ptr(
        Cancelled("shoal: a map of a ThreadPool was cancelled"));
  }

  struct Chunk final : ThreadJob {
    Chunk(ThreadMap& of, std::size_t from, std::size_t to)
        : owner(of), first(from), last(to) {}
    void run(JobCounts& counts) noexcept override {
      try {
        if (!owner.begin()) return end_cancelled(counts);
        owner.run_items(first, last);
      } catch (...) {
        error = std::current_exception();
      }
      counts.add(error == nullptr);
      end();
    }
    void abandon(std::exception_ptr why) noexcept override {
      error = owner.begin() ? std::move(why) : cancelled_error();
      end();
    }
    void end_cancelled(JobCounts& counts) noexcept {
      error = cancelled_error();
      counts.add_cancelled();
      end();
    }
    void end() noexcept {
      const auto keep = std::move(map);
      owner.chunk_ended();
    }

    ThreadMap& owner;
    const std::size_t first, last;
    std::exception_ptr error;
    std::shared_ptr<ThreadMap> map;  // until it has ended
  };

  // By each chunk; the first one decides that the map is not cancelled any
  // more.
  bool begin() {
    // relaxed: as in cancel().
    Fate fate = fate_.load(std::memory_order_relaxed);
    if (fate == Fate::open)
      fate_.compare_exchange_strong(fate, Fate::begun,
                                    std::memory_order_relaxed);
    return fate != Fate::cancelled;
  }

  void run_items(std::size_t first, std::size_t last) {
    const Completion::Bringing here(*this);
    F f = f_;
    for (std::size_t n = first; n < last; ++n) {
      T& item = call::unbox<T>(items_[n]);
      if constexpr (std::is_void_v<R>)
        Mode::invoke(f, item);
      else
        values_[n].emplace(Mode::invoke(f, item));
    }
  }

  void chunk_ended() noexcept {
    // acq_rel: the last one sees what all have made.
    if (open_.fetch_sub(1, std::memory_order_acq_rel) == 1) deliver_all();
  }
  // The error of the first chunk that failed, or the values.
  void deliver_all() noexcept {
    const auto failed =
        std::find_if(chunks_.begin(), chunks_.end(),
                     [](const auto& chunk) { return chunk->error != nullptr; });
    if (failed != chunks_.end()) {
      this->fail((*failed)->error);
    } else if constexpr (std::is_void_v<R>) {
      this->bring();
    } else {
      try {
        std::vector<R> all;
        all.reserve(values_.size());
        for (auto& value : values_) all.push_back(std::move(*value));
        this->bring(std::move(all));
      } catch (...) {
        this->fail(std::current_exception());
      }
    }
    this->deliver();
  }
  void help() override {
    for (const auto& chunk : chunks_) this->core().help(*chunk);
  }
  std::shared_ptr<CallbackRunner::Job> self() override {
    return this->shared_from_this();
  }

  const F f_;
  std::vector<call::Boxed<T>> items_;
  std::vector<std::optional<Streamed<R>>> values_;
  std::vector<std::shared_ptr<Chunk>> chunks_;
  std::atomic<std::size_t> open_{0};
  std::atomic<Fate> fate_{Fate::open};
};

// ---- a chunk of a stream: an item that fails costs itself only ----

template <class F, class T, class R>
std::vector<Attempt<R>> attempt_all(F& f, std::vector<call::Boxed<T>>& items) {
  std::vector<Attempt<R>> attempts;
  attempts.reserve(items.size());
  for (auto& boxed : items) {
    Attempt<R>& one = attempts.emplace_back();
    try {
      T& item = call::unbox<T>(boxed);
      if constexpr (std::is_void_v<R>) {
        call::Whole::invoke(f, item);
        one.value.emplace();
      } else {
        one.value.emplace(call::Whole::invoke(f, item));
      }
    } catch (...) {
      one.error = std::current_exception();
    }
  }
  return attempts;
}

}  // namespace shoal::pool
