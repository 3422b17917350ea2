#pragma once
// Boost.Interprocess' message_queue as a queue of T: bounded, blocking, a
// process-shared mutex and two condition variables.

#include <unistd.h>

#include <boost/interprocess/ipc/message_queue.hpp>
#include <cstddef>
#include <string>

namespace shoal::bench {

template <class T>
class BoostQueue {
 public:
  explicit BoostQueue(std::size_t size)
      : queue_(boost::interprocess::create_only, name().c_str(), size,
               sizeof(T)) {
    // Nobody opens it by name: whoever uses it is forked.
    boost::interprocess::message_queue::remove(name().c_str());
  }

  void put(const T& value) { queue_.send(&value, sizeof value, 0); }
  T get() {
    T value;
    std::size_t bytes;
    unsigned priority;
    queue_.receive(&value, sizeof value, bytes, priority);
    return value;
  }

 private:
  static std::string name() {
    return "shoal-bench-" + std::to_string(getpid());
  }

  boost::interprocess::message_queue queue_;
};

}  // namespace shoal::bench
