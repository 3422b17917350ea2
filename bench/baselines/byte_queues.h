#pragma once
// Queues of strings that others have: Boost.Interprocess' message_queue, POSIX
// mq, and Python's multiprocessing.Queue in a process of its own.

#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <unistd.h>

#include <boost/interprocess/ipc/message_queue.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

namespace shoal::bench {

class BoostBytes {
 public:
  BoostBytes(std::size_t size, std::size_t bytes)
      : queue_(boost::interprocess::create_only, name().c_str(), size, bytes),
        buffer_(bytes) {
    // Nobody opens it by name: whoever uses it is forked.
    boost::interprocess::message_queue::remove(name().c_str());
  }
  void put(const std::string& value) {
    queue_.send(value.data(), value.size(), 0);
  }
  std::string get() {
    std::size_t bytes;
    unsigned priority;
    queue_.receive(buffer_.data(), buffer_.size(), bytes, priority);
    return std::string(buffer_.data(), bytes);
  }

 private:
  static std::string name() {
    return "shoal-bench-bytes-" + std::to_string(getpid());
  }

  boost::interprocess::message_queue queue_;
  std::vector<char> buffer_;
};

// Ten messages of 8,192 bytes at most, where nobody has raised the limits.
class PosixBytes {
 public:
  static constexpr std::size_t kMostBytes = 8192;

  PosixBytes(std::size_t size, std::size_t bytes) : buffer_(bytes) {
    mq_attr attributes{};
    attributes.mq_maxmsg = static_cast<long>(size < 10 ? size : 10);
    attributes.mq_msgsize = static_cast<long>(bytes);
    const std::string name = "/shoal-bench-" + std::to_string(getpid());
    queue_ = mq_open(name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600,
                     &attributes);
    if (queue_ == -1)
      throw std::system_error(errno, std::generic_category(), "mq_open");
    mq_unlink(name.c_str());
  }
  PosixBytes(const PosixBytes&) = delete;
  PosixBytes& operator=(const PosixBytes&) = delete;
  ~PosixBytes() { mq_close(queue_); }

  void put(const std::string& value) {
    while (mq_send(queue_, value.data(), value.size(), 0) != 0)
      if (errno != EINTR)
        throw std::system_error(errno, std::generic_category(), "mq_send");
  }
  std::string get() {
    for (;;) {
      const ssize_t bytes =
          mq_receive(queue_, buffer_.data(), buffer_.size(), nullptr);
      if (bytes >= 0)
        return std::string(buffer_.data(), static_cast<std::size_t>(bytes));
      if (errno != EINTR)
        throw std::system_error(errno, std::generic_category(), "mq_receive");
    }
  }

 private:
  mqd_t queue_;
  std::vector<char> buffer_;
};

// Nanoseconds that Python's Queue takes for `count` messages of `bytes` from
// one process to another, or, `one_way`, half of as many round trips.
double python_queue(std::uint64_t count, std::size_t bytes, std::size_t size,
                    bool one_way);

}  // namespace shoal::bench
