#include "shoal/ipc/keeper_serve.h"

// One thread, one poll(). A deposit lies in a table under its ticket until it
// is collected, forgotten, or its container is gone.

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "shoal/ipc/control_socket.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/keeper_messages.h"
#include "shoal/ipc/liveness.h"
#include "shoal/ipc/pidfd.h"
#include "shoal/ipc/segment.h"
#include "shoal/ipc/spare_descriptors.h"

namespace shoal::keeper {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

// Without deposits and without a word from anybody.
constexpr Timeout kPatience = 2s;
// How often containers are looked at while something is in flight.
constexpr Timeout kLook = 100ms;

std::uint64_t number_in(const char* text) {
  return strtoull(text, nullptr, 10);
}

// An open file description of our own: what counts against others'.
Fd reopen(int descriptor) {
  const std::string path = "/proc/self/fd/" + std::to_string(descriptor);
  const int mode = fcntl(descriptor, F_GETFL) & O_ACCMODE;
  return Fd(open(path.c_str(), mode | O_CLOEXEC));
}

// An anonymous segment, which may be sealed; others are files.
bool is_memfd(int descriptor) {
  const int seals = fcntl(descriptor, F_GET_SEALS);
  return seals >= 0 && (seals & F_SEAL_SEAL) == 0;
}

// Nobody uses the segment: an anonymous one is mapped by nobody (whoever has
// its object has; then this seal is possible, and nobody minds it), a named
// one open nowhere but here (then a lease is possible).
bool is_abandoned(int descriptor) {
  if (is_memfd(descriptor))
    return fcntl(descriptor, F_ADD_SEALS, F_SEAL_WRITE) == 0;
  if (fcntl(descriptor, F_SETLEASE, F_WRLCK) != 0) return false;
  fcntl(descriptor, F_SETLEASE, F_UNLCK);
  return true;
}

// What the keeper has open: each segment once, and named ones by a description
// of its own, so that the kernel tells whether anybody else has it open.
class Files {
 public:
  using Held = std::shared_ptr<Fd>;

  // The very open file, with its position, flags and locks.
  static Held hold_open(Fd received) {
    return std::make_shared<Fd>(std::move(received));
  }
  Held hold(Fd received) {
    struct stat status {};
    if (fstat(received.get(), &status) != 0 || !S_ISREG(status.st_mode))
      return std::make_shared<Fd>(std::move(received));
    const Key key{status.st_dev, status.st_ino,
                  fcntl(received.get(), F_GETFL) & O_ACCMODE};
    if (auto known = known_[key].lock()) return known;
    std::erase_if(known_,
                  [](const auto& file) { return file.second.expired(); });
    auto held =
        std::make_shared<Fd>(is_memfd(received.get()) ? std::move(received)
                                                      : reopen(received.get()));
    known_[key] = held;
    return held;
  }

  static Fd duplicate(const Fd& held) {
    const int copy = fcntl(held.get(), F_DUPFD_CLOEXEC, 3);
    if (copy < 0) throw_system_error(errno, "fcntl(F_DUPFD)");
    return Fd(copy);
  }

  // For a receiver, who then has this description, and we another. A copy must
  // stay with the caller until the receiver has it. Throws std::system_error.
  static Fd give(const Held& held) {
    if (is_memfd(held->get())) return duplicate(*held);
    Fd again = reopen(held->get());
    if (again.get() < 0) throw_system_error(errno, "open(/proc/self/fd)");
    return std::exchange(*held, std::move(again));
  }

 private:
  using Key = std::tuple<dev_t, ino_t, int>;
  std::map<Key, std::weak_ptr<Fd>> known_;
};

// Kept back from deposits, so that who comes to collect is served.
constexpr std::size_t kSpare = 16;

class Keeper {
 public:
  Keeper(Fd socket, Fd domain, std::uint64_t domain_id, std::uint64_t number)
      : socket_(std::move(socket)),
        number_(number),
        domain_(liveness::Domain::adopt(
            segment::File::adopt(domain.release(), "domain"), domain_id)),
        who_(domain_->process_seat()) {}

  void run() {
    while (await()) {
    }
    // Nobody looks for us here any more; who connects nevertheless is refused
    // and starts another.
    std::uint64_t mine = number_;
    // SYNC(domain.keeper)
    domain_->keeper().compare_exchange_strong(
        mine, 0, std::memory_order_acq_rel, std::memory_order_relaxed);
  }

 private:
  struct Deposited {
    std::vector<Files::Held> descriptors;
    Files::Held container;
    int end = -1;
    std::uint64_t receiver = 0;
    std::uint64_t collector = 0;
    bool knows_seats = false;  // those of the two are of our domain
    Passed passed = {};
    bool again = false;
    bool keeps_open = false;
    bool was_passed = false;  // at the last look
  };

  // False: time to go.
  bool await() {
    std::vector<pollfd> polled{{socket_.get(), POLLIN, 0}};
    for (const Fd& client : clients_)
      polled.push_back({client.get(), POLLIN, 0});
    for (const Taker& taker : takers_)
      polled.push_back({taker.receipt.get(), POLLIN, 0});
    for (const auto& [pid, pidfd] : senders_)
      polled.push_back({pidfd.get(), POLLIN, 0});
    const bool idle = deposits_.empty() && takers_.empty();
    const std::int64_t wait = (idle ? kPatience : kLook).nanoseconds();
    const int ready =
        poll(polled.data(), polled.size(), static_cast<int>(wait / 1'000'000));
    if (ready < 0 && errno != EINTR) return false;
    if (ready == 0 && idle) return false;
    if (const auto at = Clock::now(); at >= next_look_) {
      next_look_ = at + std::chrono::nanoseconds(kLook.nanoseconds());
      drop_passed();
      drop_dead();
    }
    if (ready == 0) return true;
    const std::size_t clients = clients_.size();
    const std::size_t takers = takers_.size();
    bool someone_ended = false;
    for (std::size_t i = 1 + clients + takers; i < polled.size(); ++i)
      someone_ended |= polled[i].revents != 0;
    for (std::size_t i = takers; i-- != 0;)
      if (polled[1 + clients + i].revents != 0)
        takers_.erase(takers_.begin() + static_cast<std::ptrdiff_t>(i));
    for (std::size_t i = clients; i-- != 0;)
      if (polled[1 + i].revents != 0) answer(i);
    if (polled[0].revents != 0) accept();
    if (someone_ended) {
      std::erase_if(senders_,
                    [](const auto& sender) { return sender.second.wait(now); });
      drop_dead();
      if (deposits_.empty() && clients_.empty() && nobody_left()) return false;
    }
    return true;
  }

  // Whoever has no seat may come later, and then starts another keeper.
  bool nobody_left() {
    constexpr std::uint32_t kOurs = 2;  // of the thread and of the process
    domain_->retire_all();
    return domain_->seats_taken() <= kOurs;
  }

  void accept() {
    std::optional<Fd> client;
    try {
      client = control_socket::accept(socket_.get());
    } catch (const std::exception&) {  // no numbers left
      spare_.release();
      client = control_socket::accept(socket_.get());
    }
    if (!client) return;
    const pid_t pid = control_socket::peer(client->get());
    if (!senders_.contains(pid)) {
      try {
        senders_.emplace(pid, Pidfd::open(pid));
      } catch (const std::exception&) {
        // It has ended, or this is another pid namespace.
      }
    }
    clients_.push_back(std::move(*client));
    // Usually it has said all by now.
    pollfd polled{clients_.back().get(), POLLIN, 0};
    if (poll(&polled, 1, 0) == 1) answer(clients_.size() - 1);
  }

  // Of one request; then the client is done.
  void answer(std::size_t index) {
    Fd client = std::move(clients_[index]);
    clients_.erase(clients_.begin() + static_cast<std::ptrdiff_t>(index));
    spare_.refill();
    answer(client);
    spare_.refill();
  }

  void answer(Fd& client) {
    auto packet = control_socket::receive(client.get(), now);
    Request request;
    if (!packet || packet->bytes.size() != sizeof request) return;
    memcpy(&request, packet->bytes.data(), sizeof request);
    Reply reply{.answer = Answer::unknown, .unused = 0, .who = who_};
    std::vector<Fd> given;
    Taker taker;
    switch (request.wish) {
      case Wish::deposit:
        reply.answer = !packet->cut && keep(request, packet->descriptors)
                           ? Answer::done
                           : Answer::no_space;
        break;
      case Wish::collect:
        if (const auto found = deposits_.find(request.ticket);
            found != deposits_.end()) {
          reply.answer = Answer::done;
          spare_.release();
          const Deposited& deposit = found->second;
          for (const Files::Held& held : deposit.descriptors) {
            if (!deposit.again && held.use_count() == 1) {
              given.push_back(std::move(*held));
            } else if (deposit.keeps_open) {
              given.push_back(Files::duplicate(*held));
            } else {
              given.push_back(Files::give(held));
              taker.held.push_back(held);
            }
          }
          if (!deposit.again) deposits_.erase(found);
        }
        break;
      case Wish::forget:
        // One that may be collected again is another's as well.
        if (const auto found = deposits_.find(request.ticket);
            found != deposits_.end() && !found->second.again)
          deposits_.erase(found);
        return;
    }
    std::vector<int> numbers;
    for (const Fd& descriptor : given) numbers.push_back(descriptor.get());
    control_socket::send(client.get(), std::as_bytes(std::span(&reply, 1)),
                         numbers);
    if (taker.held.empty()) return;
    taker.receipt = std::move(client);
    takers_.push_back(std::move(taker));
  }

  bool keep(const Request& request, std::vector<Fd>& received) {
    if (received.size() < 2) return false;
    try {
      Deposited deposit{.descriptors = {},
                        .container = files_.hold(std::move(received[0])),
                        .end = request.end,
                        .receiver = request.receiver,
                        .collector = request.collector,
                        .knows_seats = request.domain == domain_->id(),
                        .passed = request.passed,
                        .again = request.again != 0,
                        .keeps_open = request.keeps_open != 0};
      for (std::size_t i = 1; i < received.size(); ++i)
        deposit.descriptors.push_back(
            deposit.keeps_open ? Files::hold_open(std::move(received[i]))
                               : files_.hold(std::move(received[i])));
      deposits_[request.ticket] = std::move(deposit);
      return true;
    } catch (const std::exception&) {
      return false;  // no numbers left for descriptions of our own
    }
  }

  // A container lives while somebody uses it, or while it is itself in flight
  // in one that lives. To ask whether an anonymous one is used is to seal it if
  // it is not; so one that is in flight is not asked, unless no other lives:
  // then only those are left that are in flight in each other. One that a
  // receiver has been given and has not mapped yet lives.
  void drop_dead() {
    domain_->retire_all();
    std::set<const Fd*> living;
    for (const Taker& taker : takers_)
      for (const Files::Held& held : taker.held) living.insert(held.get());
    std::set<const Fd*> in_flight;
    for (const auto& [ticket, deposit] : deposits_)
      for (const Files::Held& held : deposit.descriptors)
        in_flight.insert(held.get());
    const auto ask = [&](bool those_in_flight) {
      std::set<const Fd*> asked;
      for (const auto& [ticket, deposit] : deposits_) {
        const Fd* container = deposit.container.get();
        if (!living.contains(container) &&
            in_flight.contains(container) == those_in_flight &&
            asked.insert(container).second && !is_abandoned(container->get()))
          living.insert(container);
      }
      return !asked.empty();
    };
    const bool only_those = !ask(false) && takers_.empty();
    if (only_those) ask(true);
    for (bool again = true; std::exchange(again, false);)
      for (const auto& [ticket, deposit] : deposits_)
        if (living.contains(deposit.container.get()))
          for (const Files::Held& held : deposit.descriptors)
            again |= living.insert(held.get()).second;
    // What is in flight only in what goes now is asked the next time.
    if (!only_those) living.merge(in_flight);
    for (auto it = deposits_.begin(); it != deposits_.end();) {
      if (living.contains(it->second.container.get()) &&
          !has_no_receiver(it->second) && !has_no_collector(it->second)) {
        ++it;
        continue;
      }
      it = drop(it);
    }
  }

  // Seen twice, so that whoever has the message in hands can still collect.
  void drop_passed() {
    for (auto it = deposits_.begin(); it != deposits_.end();) {
      Deposited& deposit = it->second;
      const bool passed = is_passed(deposit);
      const bool twice = std::exchange(deposit.was_passed, passed) && passed;
      it = twice ? drop(it) : std::next(it);
    }
  }

  // Not mapped, which would make the container one that is used.
  static bool read_word(const Deposited& deposit, std::uint64_t offset,
                        std::uint64_t& word) {
    return pread(deposit.container->get(), &word, sizeof word,
                 static_cast<off_t>(offset)) == sizeof word;
  }

  static bool is_passed(const Deposited& deposit) {
    const auto& [offset, mask, least] = deposit.passed;
    std::uint64_t word;
    return mask != 0 && read_word(deposit, offset, word) &&
           (word & mask) >= least;
  }

  using Deposits = std::unordered_map<std::uint64_t, Deposited>;
  Deposits::iterator drop(Deposits::iterator it) {
    const Deposited dropped = std::move(it->second);
    it = deposits_.erase(it);
    if (dropped.end < 0 || close_end == nullptr) return it;
    std::vector<int> numbers;
    for (const Files::Held& held : dropped.descriptors)
      numbers.push_back(held->get());
    close_end(numbers, domain_->id(), dropped.end);
    return it;
  }

  bool has_no_receiver(const Deposited& deposit) const {
    return deposit.receiver != 0 && no_receiver != nullptr &&
           no_receiver(deposit.container->get(), deposit.receiver,
                       deposit.knows_seats ? &*domain_ : nullptr);
  }

  bool has_no_collector(const Deposited& deposit) const {
    liveness::Who who;
    return deposit.collector != 0 && deposit.knows_seats &&
           read_word(deposit, deposit.collector, who) && who != 0 &&
           domain_->dead(who);
  }

  // Who has been given what is a container, or in flight, as well.
  struct Taker {
    Fd receipt;
    std::vector<Files::Held> held;
  };

  Files files_;
  SpareDescriptors spare_{kSpare};
  Fd socket_;
  std::uint64_t number_;
  liveness::DomainUse domain_;
  liveness::Who who_;
  std::vector<Fd> clients_;
  std::vector<Taker> takers_;
  std::unordered_map<pid_t, Pidfd> senders_;
  Deposits deposits_;
  Clock::time_point next_look_{};
};

// Only the two that we were given.
void close_others(int a, int b) {
  const auto [low, high] = std::minmax(a, b);
  if (low > 0) close_range(0, static_cast<unsigned>(low - 1), 0);
  if (high - low > 1)
    close_range(static_cast<unsigned>(low + 1), static_cast<unsigned>(high - 1),
                0);
  close_range(static_cast<unsigned>(high + 1), ~0u, 0);
  // Nothing that we open later is taken for one of these.
  for (int n = 0; n < 3; ++n)
    if (fcntl(n, F_GETFD) < 0) static_cast<void>(open("/dev/null", O_RDWR));
}

}  // namespace

void serve(char** argv) noexcept {
  const auto domain = static_cast<int>(number_in(argv[1]));
  const std::uint64_t number = number_in(argv[3]);
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }
  prctl(PR_SET_NAME, kProgramName);
  // The kernel's word that somebody opens what a lease is asked for on.
  signal(SIGIO, SIG_IGN);
  if (chdir("/") != 0) _exit(1);  // keeps no file system busy
  try {
    std::optional<Fd> socket = control_socket::listen(address_of(number));
    // Whoever started this waits for its end, and then connects.
    if (!socket || fork() != 0) _exit(socket ? 0 : 1);
    close_others(socket->get(), domain);
    fcntl(domain, F_SETFD, FD_CLOEXEC);
    Keeper(std::move(*socket), Fd(domain), number_in(argv[2]), number).run();
  } catch (const std::exception&) {
    _exit(1);
  }
  _exit(0);
}

}  // namespace shoal::keeper
