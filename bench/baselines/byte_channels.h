#pragma once
// What else carries bytes between two processes, to be compared with a Pipe:
// pipe(2), AF_UNIX stream sockets, POSIX message queues, Boost's message_queue
// and boost::lockfree::spsc_queue in shared memory, and what none of them can
// be faster than.
//
//   UnixStream channel(bytes);                   // before the fork
//   channel.send(0, from, n);                    // by end 0
//   channel.receive(1, to, n);                   // by end 1, the same n
//
// Each end is one process's. Throws std::system_error.

#include <fcntl.h>
#include <mqueue.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <boost/interprocess/ipc/message_queue.hpp>
#include <boost/lockfree/spsc_queue.hpp>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <system_error>

#include "bench/baselines/ping_pong.h"
#include "bench/support/machine.h"

namespace shoal::bench {

[[noreturn]] inline void throw_errno(const char* call) {
  throw std::system_error(errno, std::system_category(), call);
}

// Descriptors, of which `out[e]` and `in[e]` are end e's. Busy: they do not
// block, and are asked again and again.
class Descriptors {
 public:
  ~Descriptors() {
    for (const int fd : {out_[0], in_[0], out_[1], in_[1]}) close(fd);
  }
  Descriptors(const Descriptors&) = delete;
  Descriptors& operator=(const Descriptors&) = delete;

  void send(int end, const std::byte* from, std::size_t n) {
    move(n, [&](std::size_t left) {
      const ssize_t done = write(out_[end], from, left);
      if (done > 0) from += done;
      return done;
    });
  }
  void receive(int end, std::byte* to, std::size_t n) {
    move(n, [&](std::size_t left) {
      const ssize_t done = read(in_[end], to, left);
      if (done > 0) to += done;
      return done;
    });
  }

 protected:
  Descriptors() = default;
  void make_busy() {
    for (const int fd : {out_[0], in_[0], out_[1], in_[1]})
      if (fcntl(fd, F_SETFL, O_NONBLOCK) != 0) throw_errno("fcntl");
  }
  int out_[2] = {-1, -1};
  int in_[2] = {-1, -1};

 private:
  template <class Step>
  void move(std::size_t n, Step step) {
    while (n != 0) {
      const ssize_t done = step(n);
      if (done > 0)
        n -= static_cast<std::size_t>(done);
      else if (done == 0 || (errno != EAGAIN && errno != EINTR))
        throw_errno("read or write");
    }
  }
};

template <bool kBusy>
class PosixPipe : public Descriptors {
 public:
  explicit PosixPipe(std::size_t) {
    for (int end : {0, 1}) {
      int pair[2];
      if (pipe2(pair, O_CLOEXEC) != 0) throw_errno("pipe2");
      in_[1 - end] = pair[0];
      out_[end] = pair[1];
      fcntl(pair[1], F_SETPIPE_SZ, 1 << 20);
    }
    if (kBusy) make_busy();
  }
};

template <bool kBusy>
class UnixStream : public Descriptors {
 public:
  explicit UnixStream(std::size_t) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
      throw_errno("socketpair");
    for (int end : {0, 1}) {
      out_[end] = pair[end];
      in_[end] = dup(pair[end]);
    }
    if (kBusy) make_busy();
  }
};

class PosixQueue {
 public:
  explicit PosixQueue(std::size_t bytes) {
    for (int direction : {0, 1}) {
      const std::string name = "/shoal-bench-" + std::to_string(getpid()) +
                               "-" + std::to_string(direction);
      mq_attr attributes{};
      attributes.mq_maxmsg = 10;
      attributes.mq_msgsize = static_cast<long>(bytes);
      queue_[direction] =
          mq_open(name.c_str(), O_CREAT | O_EXCL | O_RDWR, 0600, &attributes);
      if (queue_[direction] < 0) throw_errno("mq_open");
      mq_unlink(name.c_str());
    }
  }
  ~PosixQueue() {
    for (const mqd_t queue : queue_) mq_close(queue);
  }
  PosixQueue(const PosixQueue&) = delete;
  PosixQueue& operator=(const PosixQueue&) = delete;

  void send(int end, const std::byte* from, std::size_t n) {
    if (mq_send(queue_[end], reinterpret_cast<const char*>(from), n, 0) != 0)
      throw_errno("mq_send");
  }
  void receive(int end, std::byte* to, std::size_t n) {
    if (mq_receive(queue_[1 - end], reinterpret_cast<char*>(to), n, nullptr) <
        0)
      throw_errno("mq_receive");
  }

 private:
  mqd_t queue_[2];
};

class BoostMessages {
 public:
  explicit BoostMessages(std::size_t bytes) {
    using boost::interprocess::create_only;
    for (int direction : {0, 1}) {
      const std::string name = "shoal-bench-" + std::to_string(getpid()) + "-" +
                               std::to_string(direction);
      const std::size_t count =
          std::clamp<std::size_t>((std::size_t{1} << 20) / bytes, 2, 1024);
      queue_[direction] = std::make_unique<boost::interprocess::message_queue>(
          create_only, name.c_str(), count, bytes);
      boost::interprocess::message_queue::remove(name.c_str());
    }
  }
  void send(int end, const std::byte* from, std::size_t n) {
    queue_[end]->send(from, n, 0);
  }
  void receive(int end, std::byte* to, std::size_t n) {
    std::size_t got;
    unsigned priority;
    queue_[1 - end]->receive(to, n, got, priority);
  }

 private:
  std::unique_ptr<boost::interprocess::message_queue> queue_[2];
};

// Spins. As many bytes a direction as a Pipe's ring has.
template <std::size_t kBytes>
class BoostSpsc {
 public:
  explicit BoostSpsc(std::size_t) {}
  void send(int end, const std::byte* from, std::size_t) {
    Item item;
    std::memcpy(&item, from, kBytes);
    while (!rings_->ring[end].push(item)) waiting::pause();
  }
  void receive(int end, std::byte* to, std::size_t) {
    Item item;
    while (!rings_->ring[1 - end].pop(item)) waiting::pause();
    std::memcpy(to, &item, kBytes);
  }

 private:
  static constexpr std::size_t kCount =
      std::clamp<std::size_t>((std::size_t{1} << 20) / kBytes, 2, 65000);
  struct Item {
    std::byte bytes[kBytes];
  };
  struct Rings {
    boost::lockfree::spsc_queue<Item, boost::lockfree::capacity<kCount>>
        ring[2];
  };
  // Made like Shared, which wants what needs no destructor.
  struct Unmap {
    void operator()(Rings* rings) const { unmap_shared(rings, sizeof(Rings)); }
  };
  std::unique_ptr<Rings, Unmap> rings_{new (map_shared(sizeof(Rings))) Rings};
};

// The floor for long messages: a buffer each way, filled and emptied in chunks
// by a counter.
class RawChunks {
 public:
  static constexpr std::size_t kChunk = 64 << 10;

  explicit RawChunks(std::size_t bytes)
      : bytes_(bytes),
        memory_(static_cast<std::byte*>(map_shared(2 * bytes))) {}
  ~RawChunks() { unmap_shared(memory_, 2 * bytes_); }
  RawChunks(const RawChunks&) = delete;
  RawChunks& operator=(const RawChunks&) = delete;

  void send(int end, const std::byte* from, std::size_t n) {
    Words& words = words_->at(end);
    wait_at_least(words.read, base_[end]);
    std::byte* to = memory_ + static_cast<std::size_t>(end) * bytes_;
    for (std::size_t done = 0; done < n;) {
      const std::size_t piece = std::min(kChunk, n - done);
      std::memcpy(to + done, from + done, piece);
      done += piece;
      words.written.store(base_[end] + done,
                          std::memory_order_release);  // SYNC(bench.word)
    }
    base_[end] += n;
  }
  void receive(int end, std::byte* to, std::size_t n) {
    const int other = 1 - end;
    Words& words = words_->at(other);
    const std::byte* from = memory_ + static_cast<std::size_t>(other) * bytes_;
    for (std::size_t done = 0; done < n;) {
      const std::size_t piece = std::min(kChunk, n - done);
      wait_at_least(words.written, base_[other] + done + piece);
      std::memcpy(to + done, from + done, piece);
      done += piece;
    }
    base_[other] += n;
    words.read.store(base_[other],
                     std::memory_order_release);  // SYNC(bench.word)
  }

 private:
  struct Words {
    alignas(64) std::atomic<std::uint64_t> written{0};
    alignas(64) std::atomic<std::uint64_t> read{0};
  };
  struct Both {
    Words words[2];
    Words& at(int direction) { return words[direction]; }
  };
  std::size_t bytes_;
  std::byte* memory_;
  Shared<Both> words_;
  std::uint64_t base_[2] = {0, 0};  // of each process
};

}  // namespace shoal::bench
