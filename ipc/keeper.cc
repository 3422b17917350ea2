#include "shoal/ipc/keeper.h"

#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <mutex>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include "shoal/ipc/control_socket.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/fork_mutex.h"
#include "shoal/ipc/keeper_messages.h"
#include "shoal/ipc/keeper_serve.h"
#include "shoal/ipc/pidfd.h"
#include "shoal/ipc/segment.h"
#include "shoal/ipc/takeover.h"

namespace shoal::keeper {
namespace {

template <class T>
std::span<const std::byte> bytes_of(const T& value) {
  return std::as_bytes(std::span(&value, 1));
}

struct Answered {
  Reply reply;
  control_socket::Packet packet;
  Fd socket;
};

// Nothing: the keeper is gone.
std::optional<Answered> ask(std::uint64_t keeper, const Request& request,
                            std::span<const int> descriptors, Timeout timeout) {
  const Deadline deadline(timeout);
  auto socket = control_socket::connect(address_of(keeper), deadline);
  if (!socket ||
      !control_socket::send(socket->get(), bytes_of(request), descriptors))
    return std::nullopt;
  auto packet = control_socket::receive(socket->get(), deadline);
  if (!packet)
    throw TimeoutError(
        "shoal: the keeper of handles in flight does not answer; if it was "
        "stopped, let it go on (kill -CONT, its name is shoal.keeper)");
  Answered answered{{}, std::move(*packet), std::move(*socket)};
  if (answered.packet.bytes.size() != sizeof(Reply)) return std::nullopt;
  memcpy(&answered.reply, answered.packet.bytes.data(), sizeof(Reply));
  return answered;
}

class SpawnSettings {
 public:
  explicit SpawnSettings(int inherited) {
    posix_spawn_file_actions_init(&actions_);
    // On itself: only takes the mark off that would close it.
    posix_spawn_file_actions_adddup2(&actions_, inherited, inherited);
    posix_spawnattr_init(&attributes_);
    sigset_t signals;
    sigemptyset(&signals);
    posix_spawnattr_setsigmask(&attributes_, &signals);
    sigfillset(&signals);
    posix_spawnattr_setsigdefault(&attributes_, &signals);
    posix_spawnattr_setflags(&attributes_, POSIX_SPAWN_SETSIGMASK |
                                               POSIX_SPAWN_SETSIGDEF |
                                               POSIX_SPAWN_SETSID);
  }
  SpawnSettings(const SpawnSettings&) = delete;
  SpawnSettings& operator=(const SpawnSettings&) = delete;
  ~SpawnSettings() {
    posix_spawnattr_destroy(&attributes_);
    posix_spawn_file_actions_destroy(&actions_);
  }
  const posix_spawn_file_actions_t* actions() const { return &actions_; }
  const posix_spawnattr_t* attributes() const { return &attributes_; }

 private:
  posix_spawn_file_actions_t actions_;
  posix_spawnattr_t attributes_;
};

constexpr Timeout kLaunch = std::chrono::seconds(10);  // of milliseconds

// Runs this very program, which goes its own way before any of its own code
// (takeover.cc), listens, forks the keeper and ends: nobody's wait() meets it.
// The socket is never this process's, whose forks would keep it listening.
void launch(const liveness::Domain& domain, std::uint64_t number) {
  const auto words =
      std::array{std::string(kProgramName), std::to_string(domain.descriptor()),
                 std::to_string(domain.id()), std::to_string(number)};
  std::array<char*, words.size() + 1> argv{};
  for (std::size_t i = 0; i < words.size(); ++i)
    argv[i] = const_cast<char*>(words[i].c_str());
  const SpawnSettings settings(domain.descriptor());
  pid_t launcher = 0;
  const int error = posix_spawn(&launcher, "/proc/self/exe", settings.actions(),
                                settings.attributes(), argv.data(), environ);
  if (error != 0)
    throw_system_error(error, "posix_spawn(/proc/self/exe)", kProgramName);
  // Reaped by others, if it is not there.
  try {
    const Pidfd pidfd = Pidfd::open(launcher);
    if (!pidfd.wait(kLaunch)) pidfd.signal(SIGKILL);
  } catch (const std::system_error&) {
  }
  while (waitpid(launcher, nullptr, 0) < 0 && errno == EINTR) {
  }
}

// Replaces a keeper that is gone. Other processes may be doing the same; all
// but one of theirs end by themselves.
void start(liveness::Domain& domain, std::uint64_t gone) {
  if (!takeover::wrapped())
    throw Error(
        "shoal: handles travel only in programs that are linked with shoal: "
        "it was loaded when main already ran");
  static ForkMutex mutex;
  const std::lock_guard guard(mutex);
  // SYNC(domain.keeper)
  if (domain.keeper().load(std::memory_order_acquire) != gone) return;
  const std::uint64_t number = segment::random_id();
  launch(domain, number);
  // It listens, or the next one who asks finds that it does not.
  // SYNC(domain.keeper)
  // KILL: before this nobody knows of it, and it ends when it has waited.
  domain.keeper().compare_exchange_strong(
      gone, number, std::memory_order_acq_rel, std::memory_order_relaxed);
}

}  // namespace

Deposit deposit(liveness::Domain& domain, Container container,
                std::span<const int> descriptors, Contents contents, int end) {
  std::vector<int> all{container.descriptor};
  all.insert(all.end(), descriptors.begin(), descriptors.end());
  const Request request{.wish = Wish::deposit,
                        .end = end,
                        .ticket = segment::random_id(),
                        .container = container.id,
                        .keeps_open = contents == Contents::open_files,
                        .receiver = container.receiver,
                        .collector = container.collector,
                        .domain = container.domain,
                        .passed = container.passed,
                        .again = container.again && end < 0};
  constexpr int kTries = 16;  // each against a keeper that ended meanwhile
  for (int n = 0; n < kTries; ++n) {
    // SYNC(domain.keeper)
    const std::uint64_t number =
        domain.keeper().load(std::memory_order_acquire);
    constexpr Timeout kPatience = std::chrono::seconds(10);
    std::optional<Answered> answered;
    if (number != 0) answered = ask(number, request, all, kPatience);
    if (answered) {
      if (answered->reply.answer == Answer::done)
        return {.keeper = number,
                .ticket = request.ticket,
                .who = answered->reply.who};
      throw NoSpace(
          "shoal: the keeper of handles in flight has no descriptor left for "
          "another " +
              std::to_string(all.size()) +
              "; let receivers take what was sent, or raise the hard limit of "
              "open files (ulimit -Hn)",
          all.size(), 0);
    }
    start(domain, number);
  }
  throw Error(
      "shoal: no keeper of handles in flight stays alive (it is this program, "
      "started again by /proc/self/exe); look for what kills " +
      std::string(kProgramName));
}

Collected collect(std::uint64_t keeper, std::uint64_t ticket) {
  // For ever: it answers or dies, and the message is received already.
  auto answered =
      ask(keeper, {.wish = Wish::collect, .ticket = ticket}, {}, forever);
  if (!answered)
    throw Error(
        "shoal: a handle in this message is lost: the keeper that held it was "
        "killed while the message was on its way; send it again");
  if (answered->reply.answer != Answer::done)
    throw Error(
        "shoal: a handle in this message is lost: it was received before, or "
        "its sender was killed while sending it; send it again");
  if (answered->packet.cut)
    throw_system_error(EMFILE, "recvmsg(SCM_RIGHTS)", "a handle in a message");
  return {std::move(answered->packet.descriptors), std::move(answered->socket)};
}

void forget(std::uint64_t keeper, std::uint64_t ticket) noexcept {
  try {
    const Request request{.wish = Wish::forget, .ticket = ticket};
    constexpr Timeout kPatience = std::chrono::seconds(1);
    if (const auto socket =
            control_socket::connect(address_of(keeper), kPatience))
      control_socket::send(socket->get(), bytes_of(request), {});
  } catch (const std::exception&) {
    // It is kept until its container is gone, or past it, and that is all.
  }
}

}  // namespace shoal::keeper
