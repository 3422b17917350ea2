#pragma once
// Loan<T> and Taken<T>: a queue's value, written or read where it lies.
//
//   auto order = orders.loan();      auto order = orders.take();
//   order->id = 7;                   fill(*order);
//   order.publish();                 // the cell returns when `order` goes
//
// Sharing:  movable, also to another thread; the process holds it. A forked
//           child that inherits one owns nothing.
// Death:    a loan whose process dies never was; what was taken is delivered
//           again. A stopped process keeps what it holds.

#include <memory>
#include <new>
#include <stdexcept>
#include <type_traits>
#include <utility>

#include "shoal/ipc/cells.h"
#include "shoal/ipc/object.h"

namespace shoal {

// A claim on a cell that user code holds.
template <class T>
class Lease {
 public:
  using Cells = cells::Cells<T>;

  Lease(std::shared_ptr<Object> object, const Cells& cells,
        typename Cells::Claim claim)
      : object_(std::move(object)),
        cells_(cells),
        claim_(claim),
        depth_(liveness::fork_depth()) {
    object_->add_lease(cells_.index_of_cell(claim_));
  }
  // It may go to another thread now.
  Lease(Lease&& other) noexcept
      : object_(std::move(other.object_)),
        cells_(other.cells_),
        claim_(std::exchange(other.claim_, {})),
        depth_(other.depth_) {
    if (held()) object_->move_lease(cells_.index_of_cell(claim_));
  }

  // std::logic_error when there is none.
  T* value() const {
    if (__builtin_expect(claim_.cell == nullptr, 0))
      throw std::logic_error(
          "shoal: a Loan or Taken that was moved from or published has no "
          "value");
    return std::launder(reinterpret_cast<T*>(claim_.cell->data));
  }
  // False: moved from, finished, or inherited through a fork.
  bool held() const {
    return claim_.cell != nullptr && depth_ == liveness::fork_depth();
  }
  template <class Finish>
  void finish(Finish&& how) {
    if (held()) {
      object_->remove_lease(cells_.index_of_cell(claim_));
      how(cells_, claim_);
    }
    claim_ = {};
  }

 private:
  std::shared_ptr<Object> object_;
  Cells cells_;
  typename Cells::Claim claim_;
  std::uint64_t depth_;
};

template <class T>
class Loan {
 public:
  Loan(Loan&&) noexcept = default;
  Loan& operator=(Loan&& other) noexcept {
    if (this == &other) return *this;
    std::destroy_at(this);  // ends what this one holds
    return *std::construct_at(this, std::move(other));
  }
  // Unpublished, the value never was.
  [[gnu::noinline]] ~Loan() { end(false); }

  T& operator*() const { return *lease_.value(); }
  T* operator->() const { return lease_.value(); }

  // Puts the value into the queue; std::logic_error the second time.
  void publish() {
    if (!lease_.held())
      throw std::logic_error("shoal: Loan::publish without a held loan");
    end(true);
  }

 private:
  template <class U>
  friend class Queue;
  Loan(const std::shared_ptr<Object>& object,
       const typename Lease<T>::Cells& cells,
       const typename Lease<T>::Cells::Claim& claim,
       waiting::WaitState* joiners)
      : lease_(object, cells, claim), joiners_(joiners) {}
  void end(bool publish) {
    lease_.finish([this, publish](auto& cells, auto& claim) {
      cells.finish_put(claim, publish);
      // KILL: as in ~Taken.
      if (!publish && joiners_ != nullptr)
        waiting::wake(*joiners_, waiting::Side::consumers, cells.domain(),
                      futex::kAll);
    });
  }
  Lease<T> lease_;
  waiting::WaitState* joiners_;  // as Taken's
};

template <class T>
class Taken {
 public:
  Taken(Taken&&) noexcept = default;
  Taken& operator=(Taken&& other) noexcept {
    if (this == &other) return *this;
    std::destroy_at(this);  // ends what this one holds
    return *std::construct_at(this, std::move(other));
  }
  // Not inline: g++ 12 warns of std::optional's members otherwise.
  [[gnu::noinline]] ~Taken() {
    lease_.finish([this](auto& cells, auto& claim) {
      cells.finish_get(claim);
      // KILL: who joins sees that we are dead and looks again.
      if (joiners_ != nullptr)
        waiting::wake(*joiners_, waiting::Side::consumers, cells.domain(),
                      futex::kAll);
    });
  }

  const T& operator*() const { return *lease_.value(); }
  const T* operator->() const { return lease_.value(); }

 private:
  template <class U>
  friend class Queue;
  Taken(const std::shared_ptr<Object>& object,
        const typename Lease<T>::Cells& cells,
        const typename Lease<T>::Cells::Claim& claim,
        waiting::WaitState* joiners)
      : lease_(object, cells, claim), joiners_(joiners) {}
  Lease<T> lease_;
  waiting::WaitState* joiners_;  // who waits until all is done; nullptr: nobody
};

}  // namespace shoal
