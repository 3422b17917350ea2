#pragma once
// SimpleQueue<T>: a Queue with four verbs, which grows on demand.
//
//   shoal::SimpleQueue<std::string> lines;
//   lines.put("first");
//   auto line = lines.get();
//
// Sharing, ordering, death, cost and layout: as Queue.

#include <string_view>
#include <utility>

#include "shoal/ipc/queue.h"

namespace shoal {

template <class T>
class SimpleQueue {
 public:
  using value_type = T;

  SimpleQueue() = default;
  static SimpleQueue create(std::string_view name, Access access = {}) {
    return SimpleQueue(Queue<T>::create(name, access));
  }
  static SimpleQueue open(std::string_view name, Access access = {}) {
    return SimpleQueue(Queue<T>::open(name, access));
  }
  static SimpleQueue open_or_create(std::string_view name, Access access = {}) {
    return SimpleQueue(Queue<T>::open_or_create(name, access));
  }

  // Errors: as Queue's.
  void put(T value) { queue_.put(std::move(value)); }
  T get(Timeout timeout = forever) { return queue_.get(timeout); }
  bool empty() const { return queue_.empty(); }
  // This handle only.
  void close() { queue_.close(); }

 private:
  friend struct HandleTraits<SimpleQueue>;
  explicit SimpleQueue(Queue<T> queue) : queue_(std::move(queue)) {}

  Queue<T> queue_;
};

// It travels as the Queue that it is.
template <class T>
struct HandleTraits<SimpleQueue<T>> {
  static HandleRef reference(const SimpleQueue<T>& handle, Passage* passage) {
    return HandleTraits<Queue<T>>::reference(handle.queue_, passage);
  }
  static SimpleQueue<T> resolve(const HandleRef& reference, Arrival* arrival) {
    return SimpleQueue<T>(HandleTraits<Queue<T>>::resolve(reference, arrival));
  }
};

}  // namespace shoal
