#pragma once
// The tasks of worker processes that make up one result, and how it is put
// together from theirs.
//
// Sharing: const methods by any thread; movable.

#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <iterator>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "shoal/ipc/codec.h"
#include "shoal/ipc/exception_codec.h"
#include "shoal/ipc/passage.h"
#include "shoal/ipc/timeout.h"
#include "shoal/pool/attempt.h"
#include "shoal/pool/call.h"
#include "shoal/pool/callback_runner.h"
#include "shoal/pool/callbacks.h"
#include "shoal/pool/completion.h"
#include "shoal/pool/core.h"

namespace shoal::pool {

// The tasks that make up one result, in order.
class Tasks {
 public:
  // None: not those of a process.
  explicit Tasks(std::shared_ptr<Core> core) : core_(std::move(core)) {}
  void reserve(std::size_t tasks) { indices_.reserve(tasks); }
  Tasks(Tasks&&) noexcept = default;
  Tasks& operator=(Tasks&& other) noexcept;
  ~Tasks() { release(); }

  void add(std::uint32_t index) { indices_.push_back(index); }
  void add_one(std::uint32_t index) { one_ = index; }
  std::uint32_t one() const { return one_; }
  std::uint32_t first() const { return indices_.front(); }
  // Throws std::logic_error when moved from.
  Core& core() const {
    if (core_ == nullptr) throw_moved_from();
    return *core_;
  }
  template <class F>
  void for_each(F&& f) const {
    if (one_ != kNone) f(one_);
    for (const std::uint32_t index : indices_) f(index);
  }

  // Memory::bit_of those that are not done.
  std::uint32_t bits() const;

  bool wait(Deadline deadline) const;
  bool ready() const;
  // How many of them are done, and how many there are.
  std::pair<std::size_t, std::size_t> progress() const;
  bool successful() const;  // of ready ones
  bool cancel();
  // Adds submit(n), the index of a task that it has submitted, for each n below
  // `count`. Should it throw, what can be withdrawn still is; where the caller
  // `waits` for the tasks, none of them runs any more then.
  template <class Submit>
  void add_all(std::size_t count, bool waits, Submit&& submit) {
    reserve(count);
    try {
      for (std::size_t n = 0; n < count; ++n) add(submit(n));
    } catch (...) {
      give_up();
      if (waits) wait(Deadline::never());
      throw;
    }
  }
  // Throws the error of the first task, in order, that failed.
  void rethrow_first() const;

 private:
  static constexpr std::uint32_t kNone = ~0u;
  [[noreturn]] static void throw_moved_from();
  void release();
  void give_up();

  std::shared_ptr<Core> core_;
  std::uint32_t one_ = kNone;  // apply: no allocation
  std::vector<std::uint32_t> indices_;
};

// How a result is put together from its tasks.
template <class R>
using Collect = R (*)(const Tasks&, Arrival&);

template <class R>
R decode_result(std::span<const std::byte> bytes, Arrival& arrival) {
  if constexpr (!std::is_void_v<R>)
    return codec::from_bytes<R>(bytes, &arrival);
}

template <class R>
R collect_one(const Tasks& tasks, Arrival& arrival) {
  return decode_result<R>(tasks.core().result(tasks.one()), arrival);
}

template <class R>
std::vector<R> collect_chunks(const Tasks& tasks, Arrival& arrival) {
  using Chunk = std::vector<call::Stored<R>>;
  std::vector<R> results;
  tasks.for_each([&](std::uint32_t index) {
    codec::Reader reader(tasks.core().result(index), &arrival);
    Chunk chunk = codec::decode<Chunk>(reader);
    reader.finish();
    if constexpr (std::is_same_v<Chunk, std::vector<R>>)
      if (results.empty()) {
        results = std::move(chunk);
        return;
      }
    results.insert(results.end(), std::make_move_iterator(chunk.begin()),
                   std::make_move_iterator(chunk.end()));
  });
  return results;
}

inline void collect_nothing(const Tasks&, Arrival&) {}

// Of a result that may hold handles, some of which arrive only once: it is kept
// then, for the next who asks.
template <class R>
class Kept {
 public:
  R get(Collect<R> collect, const Tasks& tasks) {
    {
      const std::lock_guard guard(mutex_);
      if (!value_) {
        Arrival arrival;
        R value = collect(tasks, arrival);
        if (!arrival.used_up()) return value;
        value_.emplace(std::move(value));
      }
    }
    return std::as_const(*value_);  // it stays as it is
  }

 private:
  std::mutex mutex_;
  std::optional<R> value_;
};
template <class R>
concept MayHoldHandles =
    !std::is_void_v<R> && kCopies<R> && codec::kMayHoldHandles<R>;

// Of a chunk whose items fail one by one.
template <class R>
std::vector<Attempt<R>> collect_attempts(const Tasks& tasks, Arrival& arrival) {
  codec::Reader reader(tasks.core().result(tasks.one()), &arrival);
  auto sent = codec::decode<std::vector<call::SentAttempt<R>>>(reader);
  reader.finish();
  std::vector<Attempt<R>> attempts;
  attempts.reserve(sent.size());
  for (auto& one : sent) {
    if (one.index() == 0)
      attempts.push_back({std::move(std::get<0>(one)), nullptr});
    else
      attempts.push_back(
          {std::nullopt, exception_codec::decode(std::get<1>(one))});
  }
  return attempts;
}

// A result that has callbacks to be called first.
template <class R>
class CalledBack final : public LocalResult<R>, public CallbackRunner::Job {
 public:
  CalledBack(Tasks tasks, Collect<R> collect, const Callbacks& callbacks)
      : tasks_(std::move(tasks)), collect_(collect), callbacks_(callbacks) {}

  bool cancel() override { return tasks_.cancel(); }
  std::pair<std::size_t, std::size_t> progress() const override {
    return tasks_.progress();
  }
  liveness::Domain& domain() const override { return tasks_.core().domain(); }

  bool done() override { return tasks_.ready(); }
  void announce() override {
    tasks_.for_each(
        [this](std::uint32_t index) { tasks_.core().wake_when_done(index); });
  }
  std::uint32_t bit() const override { return tasks_.bits(); }
  void sleep(std::uint32_t bits, const std::function<bool()>& ready) override {
    tasks_.core().sleep(bits, Deadline::never(), ready);
  }
  void finish() noexcept override {
    try {
      tasks_.wait(Deadline::never());  // it is done: lets go of the arguments
      tasks_.rethrow_first();
      if constexpr (!std::is_void_v<R>) {
        Arrival arrival;
        this->bring(collect_(tasks_, arrival));
      }
    } catch (...) {
      this->fail(std::current_exception());
    }
    this->publish(std::move(callbacks_));
  }

 private:
  bool completed_here() const override {
    return tasks_.core().callbacks().runs_here();
  }

  Tasks tasks_;
  Collect<R> collect_;
  Callbacks callbacks_;
};

}  // namespace shoal::pool
