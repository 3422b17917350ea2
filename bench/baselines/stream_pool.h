#pragma once
// The pool over pipe(2), or over AF_UNIX: one stream of tasks to each worker,
// one stream of results from all of them. A task is the same thunk and the same
// encoded arguments as in shoal::Pool; 64 bytes there, 64 back. No one looks
// after workers that die.
//
// At most kWindow tasks are on their way to a worker: more, and both sides
// would wait for room in a stream.

#include <sys/types.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <stdexcept>
#include <vector>

#include "shoal/ipc/codec.h"
#include "shoal/ipc/function.h"
#include "shoal/pool/call.h"

namespace shoal::bench {

enum class Over { pipe, unix_socket };

class StreamPool {
 public:
  static constexpr std::uint32_t kWindow = 100;

  explicit StreamPool(Over over, int workers);
  ~StreamPool();
  StreamPool(const StreamPool&) = delete;
  StreamPool& operator=(const StreamPool&) = delete;

  std::vector<pid_t> workers() const;

  // A result's number, from 0 on; forget() starts again.
  template <class F, class... As>
  std::size_t apply_async(const F& f, const As&... as) {
    constexpr call::Thunk kThunk = &call::run_call<F, As...>;
    Frame task{};
    task.thunk = call::thunk_reference<kThunk>();
    task.size = static_cast<std::uint32_t>(call::callable_size(f) +
                                           codec::size_of_all(as...));
    codec::Writer writer(room(task));
    call::encode_callable(writer, f);
    codec::encode_all(writer, as...);
    return submit(task);
  }
  template <class R>
  R get(std::size_t number) {
    Frame& result = wait_for(number);
    codec::Reader reader(room(result));
    return codec::decode<R>(reader);
  }
  void forget() { results_.clear(); }

 private:
  struct Frame {
    FunctionRef thunk;
    std::uint32_t number;
    std::uint32_t worker;
    std::uint32_t size;
    bool done;
    std::array<std::byte, 32> bytes;
  };
  static_assert(sizeof(Frame) == 64);
  struct Worker {
    pid_t process;
    int tasks;
    std::uint32_t open = 0;
  };

  static std::span<std::byte> room(Frame& frame) {
    if (frame.size > frame.bytes.size())
      throw std::length_error("StreamPool: more than a frame holds");
    return {frame.bytes.data(), frame.size};
  }
  static void work(int tasks, int results);
  static void run(Frame& frame);

  std::size_t submit(Frame& task);
  Frame& wait_for(std::size_t number);
  // Waits for at least one result.
  void receive();

  std::vector<Worker> workers_;
  std::uint32_t next_ = 0;
  int from_workers_[2];
  std::vector<Frame> results_;
};

}  // namespace shoal::bench
