#include "shoal/ipc/keeper.h"

#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <optional>
#include <string>

#include "shoal/ipc/control_socket.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/keeper_messages.h"
#include "shoal/ipc/keeper_serve.h"
#include "shoal/ipc/segment.h"
#include "shoal/ipc/takeover.h"

namespace shoal::keeper {
namespace {

template <class T>
std::span<const std::byte> bytes_of(const T& value) {
  return std::as_bytes(std::span(&value, 1));
}

// Nothing: the keeper is gone.
std::optional<control_socket::Packet> ask(std::uint64_t keeper,
                                          const Request& request,
                                          std::span<const int> descriptors,
                                          Reply& reply) {
  const auto socket = control_socket::connect(address_of(keeper));
  if (!socket ||
      !control_socket::send(socket->get(), bytes_of(request), descriptors))
    return std::nullopt;
  auto packet = control_socket::receive(socket->get(), forever);
  if (packet->bytes.size() != sizeof reply) return std::nullopt;
  memcpy(&reply, packet->bytes.data(), sizeof reply);
  return packet;
}

class SpawnSettings {
 public:
  SpawnSettings(std::span<const int> inherited) {
    posix_spawn_file_actions_init(&actions_);
    // On itself: only takes the mark off that would close it.
    for (const int descriptor : inherited)
      posix_spawn_file_actions_adddup2(&actions_, descriptor, descriptor);
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

// Runs this very program, which goes its own way before any of its own code
// (takeover.cc), forks the keeper and ends: nobody's wait() meets it.
void launch(const Fd& socket, const liveness::Domain& domain,
            std::uint64_t number) {
  const auto words =
      std::array{std::string(kProgramName), std::to_string(socket.get()),
                 std::to_string(domain.descriptor()),
                 std::to_string(domain.id()), std::to_string(number)};
  std::array<char*, words.size() + 1> argv{};
  for (std::size_t i = 0; i < words.size(); ++i)
    argv[i] = const_cast<char*>(words[i].c_str());
  const SpawnSettings settings(std::array{socket.get(), domain.descriptor()});
  pid_t launcher = 0;
  const int error = posix_spawn(&launcher, "/proc/self/exe", settings.actions(),
                                settings.attributes(), argv.data(), environ);
  if (error != 0)
    throw_system_error(error, "posix_spawn(/proc/self/exe)", kProgramName);
  while (waitpid(launcher, nullptr, 0) < 0 && errno == EINTR) {
  }
}

// Replaces a keeper that is gone. Others may be doing the same.
void start(liveness::Domain& domain, std::uint64_t gone) {
  if (!takeover::wrapped())
    throw Error(
        "shoal: handles travel only in programs that are linked with shoal: "
        "it was loaded when main already ran");
  std::uint64_t number = 0;
  std::optional<Fd> socket;
  while (!socket)
    socket = control_socket::listen(address_of(number = segment::random_id()));
  // SYNC(domain.keeper)
  // KILL: the number of nobody, since its socket dies with us: the next one
  // finds that out and starts another.
  if (domain.keeper().compare_exchange_strong(
          gone, number, std::memory_order_acq_rel, std::memory_order_relaxed))
    launch(*socket, domain, number);
}

}  // namespace

Deposit deposit(liveness::Domain& domain, Container container,
                std::span<const int> descriptors, int end) {
  std::vector<int> all{container.descriptor};
  all.insert(all.end(), descriptors.begin(), descriptors.end());
  const Request request{.wish = Wish::deposit,
                        .end = end,
                        .ticket = segment::random_id(),
                        .container = container.id};
  constexpr int kTries = 16;  // each against a keeper that ended meanwhile
  for (int n = 0; n < kTries; ++n) {
    // SYNC(domain.keeper)
    const std::uint64_t number =
        domain.keeper().load(std::memory_order_acquire);
    Reply reply{};
    if (number != 0 && ask(number, request, all, reply)) {
      if (reply.answer == Answer::done)
        return {.keeper = number, .ticket = request.ticket, .who = reply.who};
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

std::vector<Fd> collect(std::uint64_t keeper, std::uint64_t ticket) {
  Reply reply{};
  auto packet =
      ask(keeper, {.wish = Wish::collect, .ticket = ticket}, {}, reply);
  if (!packet)
    throw Error(
        "shoal: a handle in this message is lost: the keeper that held it was "
        "killed while the message was on its way; send it again");
  if (reply.answer != Answer::done)
    throw Error(
        "shoal: a handle in this message is lost: it was received before, or "
        "its sender was killed while sending it; send it again");
  if (packet->cut)
    throw_system_error(EMFILE, "recvmsg(SCM_RIGHTS)", "a handle in a message");
  return std::move(packet->descriptors);
}

void forget(std::uint64_t keeper, std::uint64_t ticket) noexcept {
  try {
    const Request request{.wish = Wish::forget, .ticket = ticket};
    if (const auto socket = control_socket::connect(address_of(keeper)))
      control_socket::send(socket->get(), bytes_of(request), {});
  } catch (const std::exception&) {
    // It is kept until its container is gone, which is all that is lost.
  }
}

}  // namespace shoal::keeper
