// The server's side of forkserver.h.

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <optional>
#include <span>
#include <system_error>
#include <unordered_map>
#include <utility>
#include <vector>

#include "shoal/ipc/child.h"
#include "shoal/ipc/descriptor.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/forkserver_state.h"
#include "shoal/ipc/segment.h"

namespace shoal::forkserver {
namespace {

class Loop {
 public:
  explicit Loop(handover::Arrival& arrival)
      : channel_(std::move(arrival.channel)),
        owner_(arrival.parent),
        board_(map(arrival.descriptors)),
        deaths_(watch_deaths()) {
    arrival.descriptors.clear();
  }

  void run() {
    prctl(PR_SET_NAME, "shoal.forkserv");
    // Those of who was short of descriptors when it needed a server are not
    // ours for good; each child gets its own.
    rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
      limit.rlim_cur = limit.rlim_max;
      setrlimit(RLIMIT_NOFILE, &limit);
    }
    while (tend()) {
    }
  }

 private:
  static std::shared_ptr<BoardState> map(std::vector<Descriptor>& given) {
    if (given.size() != 1)
      throw Corrupt("shoal: a forkserver was handed no board");
    void* const memory =
        mmap(nullptr, sizeof(BoardState), PROT_READ | PROT_WRITE, MAP_SHARED,
             given[0].get(), 0);
    if (memory == MAP_FAILED)
      throw_system_error(errno, "mmap", "board", sizeof(BoardState));
    return {static_cast<BoardState*>(memory),
            [](BoardState* state) { munmap(state, sizeof(BoardState)); }};
  }

  static Descriptor watch_deaths() {
    signal(SIGINT, SIG_IGN);
    signal(SIGCHLD, SIG_DFL);  // ignored, nobody would be left to be reaped
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_SETMASK, &set, nullptr);
    Descriptor deaths(above_stdio(signalfd(-1, &set, SFD_CLOEXEC)));
    if (!deaths) throw_system_error(errno, "signalfd", "forkserver");
    return deaths;
  }

  // One round; false when nobody is left to serve.
  bool tend() {
    std::array<pollfd, 3> events = {pollfd{owner_->get(), POLLIN, 0},
                                    pollfd{deaths_.get(), POLLIN, 0},
                                    pollfd{channel_.get(), POLLIN, 0}};
    if (poll(events.data(), events.size(), -1) < 0) {
      if (errno == EINTR) return true;
      throw_system_error(errno, "poll", "forkserver");
    }
    if (events[0].revents != 0) return false;
    if (events[1].revents != 0) reap();
    return events[2].revents == 0 || answer();
  }

  void reap() {
    signalfd_siginfo told;
    static_cast<void>(!read(deaths_.get(), &told, sizeof told));
    for (;;) {
      siginfo_t info = {};
      if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG) != 0 || info.si_pid == 0)
        return;
      const auto child = places_.find(info.si_pid);
      if (child == places_.end()) continue;  // of a static initialiser
      const std::uint32_t code = (info.si_code == CLD_EXITED ? 0 : kSignal) +
                                 static_cast<std::uint32_t>(info.si_status);
      futex::Word& word = board_->words[child->second];
      places_.erase(child);
      // KILL: reaped and not told: who asks sees us dead, and asks the kernel.
      // SYNC(forkserver.ended)
      word.store(kEnded | code, std::memory_order_release);
      futex::wake(word, futex::kAll);
    }
  }

  bool answer() {
    Request request;
    std::vector<Descriptor> given;
    if (!handover::receive(channel_.get(), *owner_,
                           std::as_writable_bytes(std::span(&request, 1)),
                           &given))
      return false;
    if (request.place >= kMostChildren ||
        given.size() !=
            2u + (request.has_stdout != 0) + (request.has_stderr != 0))
      throw Corrupt("shoal: a forkserver does not understand its owner");
    Answer answer = {.place = request.place, .pid = 0, .error = 0};
    Pidfd pidfd;
    const pid_t pid = fork();
    if (pid == 0) be_child(request, given);
    if (pid < 0) {
      answer.error = errno;
    } else {
      try {
        pidfd = Pidfd::open(pid);
        places_[pid] = request.place;
        answer.pid = pid;
      } catch (const std::system_error& error) {
        answer.error = error.code().value();
        kill(pid, SIGKILL);
        waitpid(pid, nullptr, 0);
      }
    }
    const int descriptor = pidfd.get();
    return handover::send(channel_.get(), *owner_,
                          std::as_bytes(std::span(&answer, 1)),
                          std::span(&descriptor, answer.error == 0 ? 1u : 0u));
  }

  // It waits for what it is to do, or for its owner to end or hang up.
  [[noreturn]] void be_child(const Request& request,
                             std::vector<Descriptor>& given) {
    channel_.reset();
    deaths_.reset();
    std::size_t next = 2;
    for (const auto& [has, fd] : {std::pair(request.has_stdout, STDOUT_FILENO),
                                  std::pair(request.has_stderr, STDERR_FILENO)})
      has != 0 ? dup2(given[next++].get(), fd) : close(fd);
    // That it may have been removed, or is another's, changes nothing here.
    static_cast<void>(!fchdir(given[1].get()));
    Descriptor channel = std::move(given[0]);
    given.clear();
    auto arrival = handover::receive(std::move(channel), owner_);
    board_.reset();
    if (arrival.introduction.surroundings)
      arrival.introduction.surroundings->take_on();
    handover::enter(arrival);
    _exit(1);
  }

  Descriptor channel_;
  std::shared_ptr<const Pidfd> owner_;
  std::shared_ptr<BoardState> board_;
  Descriptor deaths_;
  std::unordered_map<pid_t, std::uint32_t> places_;
};

}  // namespace

// The process that was started only forks the server, so that this is nobody's
// child: the owner's own wait() never meets it.
void serve(handover::Arrival& arrival) {
  child::flush_standard_streams();
  const pid_t pid = fork();
  if (pid == 0) {
    try {
      static_cast<void>(!chdir("/"));  // or its directory could not be removed
      Loop(arrival).run();
    } catch (const std::exception& error) {
      fprintf(stderr, "shoal.forkserver: %s\n", error.what());
      _exit(1);
    }
    _exit(0);
  }
  try {
    if (pid < 0) throw_system_error(errno, "fork", "forkserver");
    const Pidfd server = Pidfd::open(pid);
    const int descriptor = server.get();
    arrival.accept(std::span(&descriptor, 1));
    _exit(0);
  } catch (...) {
    if (pid > 0) kill(pid, SIGKILL);
    arrival.refuse(std::current_exception());
    _exit(1);
  }
}

}  // namespace shoal::forkserver
