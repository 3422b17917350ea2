#include "shoal/ipc/forkserver.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <mutex>
#include <span>
#include <utility>
#include <vector>

#include "shoal/ipc/call.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/forkserver_state.h"
#include "shoal/ipc/segment.h"
#include "shoal/ipc/spawn.h"

namespace shoal::forkserver {

using namespace std::chrono_literals;

// The words of one server's children.
class Board {
 public:
  explicit Board(segment::File& file)
      : memory_(file.map(0, kBytes, false, true)) {}

  static constexpr std::size_t kBytes =
      segment::round_to_page(sizeof(BoardState));

  std::uint32_t take_place() {
    const std::lock_guard lock(mutex_);
    if (free_.empty() && used_ == kMostChildren)
      throw NoSpace("shoal: " + std::to_string(kMostChildren) +
                        " processes that the forkserver started are still "
                        "there: join or destroy some",
                    1, 0);
    std::uint32_t place = used_;
    if (free_.empty()) {
      ++used_;
    } else {
      place = free_.back();
      free_.pop_back();
    }
    free_.reserve(used_);
    // relaxed: the server learns of this place by a request, later.
    word(place).store(0, std::memory_order_relaxed);
    return place;
  }
  void return_place(std::uint32_t place) {
    // In a forked child all of this is the parent's, the mutex, too.
    if (getpid() != owner_) return;
    const std::lock_guard lock(mutex_);
    free_.push_back(place);
  }
  futex::Word& word(std::uint32_t place) const {
    return static_cast<BoardState*>(memory_.get())->words[place];
  }

  // Before anybody has a place.
  void set_server(std::shared_ptr<const Pidfd> server) {
    server_ = std::move(server);
  }
  const Pidfd& server() const { return *server_; }

 private:
  const pid_t owner_ = getpid();
  std::shared_ptr<void> memory_;
  std::shared_ptr<const Pidfd> server_;
  std::mutex mutex_;  // of what follows
  std::uint32_t used_ = 0;
  std::vector<std::uint32_t> free_;
};

namespace {

constexpr int kAttempts = 5;  // servers that end under one start()

int code_of(std::uint32_t word) {
  const int code = static_cast<int>(word & ~kEnded);
  return code >= static_cast<int>(kSignal) ? static_cast<int>(kSignal) - code
                                           : code;
}

// Two servers would be none too many: one that another thread still talks to,
// and the next.
class Server {
 public:
  explicit Server(const handover::Introduction& like) {
    auto file = segment::File::anonymous("forkserver", Board::kBytes);
    file.reserve(0, Board::kBytes);
    file.seal();
    board_ = std::make_shared<Board>(file);
    handover::Introduction introduction = like;
    introduction.name = "shoal.forkserver";
    introduction.daemon = false;
    const int descriptor = file.descriptor();
    auto started = spawn::start(
        introduction,
        {call::reference_of<&serve>(), {}, std::span(&descriptor, 1)});
    if (started.reply.size() != 1)
      throw Corrupt("shoal: the forkserver's answer has no descriptor");
    auto pidfd = std::make_shared<Pidfd>(Pidfd(started.reply[0].release()));
    // Who answered is the server's parent, so that it is not ours.
    started.child.pidfd->await_status();
    channel_ = std::move(started.channel);
    board_->set_server(std::move(pidfd));
  }

  bool ended() const { return board_->server().wait(now); }
  const std::shared_ptr<Board>& board() const { return board_; }

  // Nothing: the server has ended, and nothing was started.
  std::optional<child::Started> fork(const std::string& name,
                                     const Request& request,
                                     std::span<const int> descriptors) const {
    Answer answer;
    std::vector<Descriptor> given;
    if (!handover::send(channel_.get(), board_->server(),
                        std::as_bytes(std::span(&request, 1)), descriptors))
      return std::nullopt;
    do {
      // Not one to an earlier request, when it could not be received: that
      // place is not used again, and the child ends with its channel.
      given.clear();
      if (!handover::receive(channel_.get(), board_->server(),
                             std::as_writable_bytes(std::span(&answer, 1)),
                             &given))
        return std::nullopt;
    } while (answer.place != request.place);
    if (answer.error != 0) throw_system_error(answer.error, "fork", name);
    if (given.size() != 1)
      throw Corrupt("shoal: the forkserver's answer has no descriptor");
    return child::Started{
        .pid = answer.pid,
        .pidfd = std::make_shared<Pidfd>(Pidfd(given[0].release())),
        .lost = false};
  }

  void hang_up() { handover::hang_up(channel_.get()); }
  void await_end() { board_->server().wait(forever); }

 private:
  Descriptor channel_;
  std::shared_ptr<Board> board_;
};

// What a process has of its server. One for each pid, as its parent's may be
// locked for ever.
struct Owner {
  const pid_t pid = getpid();
  std::mutex mutex;
  std::unique_ptr<Server> server;
};
std::atomic<Owner*> newest{nullptr};

Owner& owner() {
  Owner* known = newest.load(std::memory_order_acquire);  // SYNC(forkserver)
  if (known != nullptr && known->pid == getpid()) return *known;
  auto fresh = std::make_unique<Owner>();
  if (newest.compare_exchange_strong(
          known, fresh.get(),
          std::memory_order_acq_rel,   // SYNC(forkserver)
          std::memory_order_acquire))  // SYNC(forkserver)
    return *fresh.release();
  return *known;
}

// The descriptors of a request, beside the child's end of its channel.
struct Handed {
  Descriptor directory{open(".", O_PATH | O_DIRECTORY | O_CLOEXEC)};
  Request request = {};
  std::vector<int> descriptors;

  Handed(const std::string& name, int channel) {
    if (!directory) throw_system_error(errno, "open", name + ", directory");
    descriptors = {channel, directory.get()};
    request.has_stdout = add(STDOUT_FILENO);
    request.has_stderr = add(STDERR_FILENO);
  }
  std::uint32_t add(int fd) {
    if (fcntl(fd, F_GETFD) < 0) return 0;
    descriptors.push_back(fd);
    return 1;
  }
};

}  // namespace

Ending::~Ending() {
  // A server that has not told yet would tell it of the place's next child.
  // relaxed: the last owner's.
  if (told_.load(std::memory_order_relaxed)) board_->return_place(place_);
}

std::optional<int> Ending::take(const Pidfd& process, Deadline patience) const {
  if (!process.wait(now)) return std::nullopt;
  const futex::Word& word = board_->word(place_);
  for (;;) {
    const bool server_ended = board_->server().wait(now);
    // SYNC(forkserver.ended)
    const std::uint32_t status = word.load(std::memory_order_acquire);
    if (status != 0 || server_ended)
      told_.store(true, std::memory_order_relaxed);  // relaxed: as above
    if (status != 0) return code_of(status);
    // It is another's child now.
    if (server_ended) return process.reap();
    if (patience.passed()) return std::nullopt;
    futex::wait(word, 0, Deadline(1ms));  // and then: does the server live?
  }
}

Started start(handover::Introduction introduction,
              const handover::Parcel& parcel) {
  spawn::require_possible();
  introduction.surroundings = Surroundings::of_this_thread();
  child::flush_standard_streams();
  Owner& own = owner();
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    std::optional<child::Started> child;
    std::shared_ptr<const Ending> ending;
    handover::Ends ends = handover::make_ends(introduction.name);
    {
      const std::lock_guard lock(own.mutex);
      if (own.server == nullptr || own.server->ended()) {
        own.server.reset();
        own.server = std::make_unique<Server>(introduction);
      }
      Handed handed(introduction.name, ends.other.get());
      const auto& board = own.server->board();
      ending = std::make_shared<Ending>(board, board->take_place());
      handed.request.place = ending->place();
      child = own.server->fork(introduction.name, handed.request,
                               handed.descriptors);
      if (!child) {  // dead or dying
        own.server->hang_up();
        own.server.reset();
      }
    }
    ends.other.reset();
    // A child that nobody has told us of ends by that.
    if (!child) {
      handover::hang_up(ends.one.get());
      continue;
    }
    const auto end = [&] {
      child->pidfd->signal(SIGKILL);
      child->pidfd->wait(forever);
      return ending->take(*child->pidfd, forever)
          .value_or(Pidfd::kUnknownStatus);
    };
    std::optional<std::vector<Descriptor>> reply;
    try {
      reply =
          handover::offer(ends.one.get(), *child->pidfd, introduction, parcel);
    } catch (...) {
      end();
      throw;
    }
    if (!reply) spawn::throw_ended(introduction.name, child->pid, end());
    return {.child = std::move(*child), .ending = std::move(ending)};
  }
  throw Error("shoal: process " + introduction.name +
              " was not started: the forkserver was killed " +
              std::to_string(kAttempts) + " times meanwhile");
}

void stop() {
  Owner& own = owner();
  const std::lock_guard lock(own.mutex);
  if (own.server == nullptr) return;
  own.server->hang_up();
  own.server->await_end();
  own.server.reset();
}

void forget_inherited() {
  // SYNC(forkserver)
  Owner* const inherited = newest.load(std::memory_order_acquire);
  // Not its mutex: it may be locked for ever. Its server's descriptors go; a
  // server that was just being made by another thread keeps its place here.
  if (inherited != nullptr && inherited->pid != getpid())
    inherited->server.reset();
}

}  // namespace shoal::forkserver
