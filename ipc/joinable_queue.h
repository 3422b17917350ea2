#pragma once
// JoinableQueue<T>: a Queue whose values are reported as done.
//
//   shoal::JoinableQueue<Job> jobs;
//   jobs.put(job);                          // here
//   run(jobs.get());  jobs.task_done();     // there
//   jobs.join();                            // until all of them are done
//
// Sharing:  as Queue. What one process took another may report, as when it was
//           handed on.
// Death:    what a process had taken when it died counts as done. What it was
//           about to take is delivered again.
// Cost:     a get costs two atomic operations more than Queue's.
// Layout:   docs/layout.md#queue

#include <stdexcept>
#include <string>
#include <string_view>

#include "shoal/ipc/queue.h"

namespace shoal {

template <class T>
class JoinableQueue : public Queue<T> {
 public:
  JoinableQueue() : JoinableQueue(QueueOptions{}) {}
  explicit JoinableQueue(std::size_t maxsize)
      : JoinableQueue(QueueOptions{maxsize}) {}
  explicit JoinableQueue(QueueOptions options)
      : JoinableQueue(Object::create(Base::make_spec(options, true))) {}

  template <class... Args>
  static JoinableQueue create(std::string_view name, const Args&... args) {
    return JoinableQueue(
        Object::create(name, Base::make_spec(Base::options_of(args...), true),
                       access_of(args...)));
  }
  // Throws TypeMismatch for a Queue that is not joinable, too.
  static JoinableQueue open(std::string_view name, Access access = {}) {
    return JoinableQueue(Object::open(name, Base::object_spec(), access));
  }
  template <class... Args>
  static JoinableQueue open_or_create(std::string_view name,
                                      const Args&... args) {
    const QueueOptions options = Base::options_of(args...);
    JoinableQueue queue(Object::open_or_create(
        name, Base::make_spec(options, true), access_of(args...)));
    queue.require_size(options);
    return queue;
  }

  // One value less to wait for. std::logic_error when no value was taken that
  // is not done.
  void task_done();
  // Until every value that was put is done; false when the timeout ends first.
  // What shutdown(true) discards is done.
  bool join(Timeout timeout = forever);

 private:
  friend struct HandleAccess;
  using Base = Queue<T>;
  using typename Base::Status;
  using typename Base::Who;

  // Those who join; an object for waiting::until.
  class Joining {
   public:
    explicit Joining(typename Base::Local& local) : local_(local) {}
    waiting::WaitState& wait_state() const {
      return local_.ledger()->wait_state();
    }
    liveness::Domain& domain() const { return local_.domain(); }
    waiting::SpinBudget& spin() const { return local_.spin(); }
    void sweep() { local_.sweep(); }
    void pass_baton(bool) {
      if (done())
        waiting::wake(wait_state(), waiting::Side::consumers, domain(),
                      futex::kAll);
    }
    void watch(liveness::Watch& watch) const { local_.ledger()->watch(watch); }
    // Who has taken, or is about to put and may die before that.
    Who holder_behind(waiting::Side) {
      Who holder = local_.ledger()->holder_behind(turn_);
      local_.rings().each([&](auto& ring, std::uint32_t) {
        if (holder == 0) holder = ring.putter();
      });
      return holder;
    }
    bool looks_ready(waiting::Side) const { return false; }
    bool done();

   private:
    typename Base::Local& local_;
    std::uint32_t turn_ = 0;
  };

  explicit JoinableQueue(std::shared_ptr<Object> object)
      : Base(std::move(object)) {
    if (this->local_->ledger() == nullptr)
      throw TypeMismatch(this->object_->name() +
                         " is not what this program expects\n  expected: a "
                         "JoinableQueue\n  found:    a Queue");
  }
};

template <class T>
void JoinableQueue<T>::task_done() {
  this->require_open();
  if (!this->local_->ledger()->report(this->local_->domain().process_seat()))
    throw std::logic_error(
        "shoal: JoinableQueue::task_done without a value that was taken and "
        "is not done yet");
}

template <class T>
bool JoinableQueue<T>::join(Timeout timeout) {
  this->require_open();
  Joining joining(*this->local_);
  const auto attempt = [&](Who&) {
    if (this->closed()) return Status::closed;
    return joining.done() ? Status::ok : Status::blocked;
  };
  Who blocker = 0;
  this->local_->settle();
  Status status = attempt(blocker);
  if (status == Status::blocked && !timeout.is_now())
    status = waiting::until(joining, waiting::Side::consumers, timeout, attempt,
                            [&] { return CallCount::Call(this->waiting_); });
  if (status == Status::closed) this->throw_closed();
  return status == Status::ok;
}

// Nothing in a cell, then nothing in the ledger, and meanwhile nobody has begun
// to put or to take: at the end of the look at the cells all was done.
template <class T>
bool JoinableQueue<T>::Joining::done() {
  auto& rings = local_.rings();
  const std::uint64_t takes = local_.ledger()->takes();
  const auto tail = [&] {
    auto& ring = rings.current(waiting::Side::producers);
    return std::pair(ring.number(), ring.tail());
  };
  const auto before = tail();
  if (rings.closed() != cells::kDiscarded) {
    bool left = false;
    rings.each([&](auto& ring, std::uint32_t) {
      left = left || ring.anything_left();
    });
    if (left) return false;
  }
  return local_.ledger()->clear() && tail() == before &&
         local_.ledger()->takes() == takes;
}

template <class T>
struct HandleTraits<JoinableQueue<T>> : ObjectHandleTraits<JoinableQueue<T>> {};

}  // namespace shoal
