#include "bench/baselines/stream_pool.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <system_error>

namespace shoal::bench {
namespace {

void require(bool done, const char* call) {
  if (!done) throw std::system_error(errno, std::generic_category(), call);
}

// To be read from ends[0], written to ends[1].
void open(Over over, int (&ends)[2]) {
  if (over == Over::pipe)
    require(pipe2(ends, O_CLOEXEC) == 0, "pipe2");
  else
    require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0,
            "socketpair");
}

}  // namespace

StreamPool::StreamPool(Over over, int workers) {
  open(over, from_workers_);
  for (int i = 0; i < workers; ++i) {
    int to_worker[2];
    open(over, to_worker);
    const pid_t process = fork();
    require(process >= 0, "fork");
    if (process == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      for (const Worker& other : workers_) close(other.tasks);
      close(to_worker[1]);
      work(to_worker[0], from_workers_[1]);
      _exit(0);
    }
    close(to_worker[0]);
    workers_.push_back({process, to_worker[1]});
  }
}

StreamPool::~StreamPool() {
  for (const Worker& worker : workers_) close(worker.tasks);
  for (const Worker& worker : workers_) waitpid(worker.process, nullptr, 0);
  close(from_workers_[0]);
  close(from_workers_[1]);
}

std::vector<pid_t> StreamPool::workers() const {
  std::vector<pid_t> processes;
  for (const Worker& worker : workers_) processes.push_back(worker.process);
  return processes;
}

// Takes all the tasks that are there, and answers each when it is done.
void StreamPool::work(int tasks, int results) {
  std::array<Frame, kWindow> frames;
  for (;;) {
    // Frames are written whole, and read whole: a pipe's buffers are pages, and
    // a socket's hold what was written at once.
    const ssize_t bytes = read(tasks, frames.data(), sizeof frames);
    if (bytes <= 0) return;
    const auto count = static_cast<std::size_t>(bytes) / sizeof(Frame);
    for (std::size_t i = 0; i < count; ++i) {
      run(frames[i]);
      if (write(results, &frames[i], sizeof(Frame)) != sizeof(Frame)) return;
    }
  }
}

void StreamPool::run(Frame& frame) {
  struct FrameReply final : call::Reply {
    explicit FrameReply(Frame& to) : frame(to) {}
    std::span<std::byte> allocate(std::size_t bytes) override {
      frame.size = static_cast<std::uint32_t>(bytes);
      return room(frame);
    }
    Frame& frame;
  };
  // As the pool's worker: most tasks run what the one before has run.
  static FunctionRef last_reference{};
  static call::Thunk last = nullptr;
  if (last == nullptr || !(frame.thunk == last_reference)) {
    last = reinterpret_cast<call::Thunk>(
        const_cast<void*>(function::resolve(frame.thunk)));
    last_reference = frame.thunk;
  }
  codec::Reader reader(room(frame));
  FrameReply reply(frame);
  last(reader, reply);
  frame.done = true;
}

std::size_t StreamPool::submit(Frame& task) {
  const std::uint32_t number = static_cast<std::uint32_t>(results_.size());
  task.number = number;
  task.worker = next_;
  Worker& worker = workers_[next_];
  next_ = (next_ + 1) % static_cast<std::uint32_t>(workers_.size());
  results_.emplace_back();
  while (worker.open == kWindow) receive();
  require(write(worker.tasks, &task, sizeof task) == sizeof task, "write");
  ++worker.open;
  return number;
}

StreamPool::Frame& StreamPool::wait_for(std::size_t number) {
  while (!results_.at(number).done) receive();
  return results_[number];
}

void StreamPool::receive() {
  std::array<Frame, kWindow> frames;
  const ssize_t bytes = read(from_workers_[0], frames.data(), sizeof frames);
  require(bytes > 0, "read");
  const auto count = static_cast<std::size_t>(bytes) / sizeof(Frame);
  for (std::size_t i = 0; i < count; ++i) {
    --workers_.at(frames[i].worker).open;
    results_.at(frames[i].number) = frames[i];
  }
}

}  // namespace shoal::bench
