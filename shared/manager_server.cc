#include "shoal/shared/manager_server.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <exception>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include "shoal/ipc/descriptor.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/exception_codec.h"
#include "shoal/ipc/listener.h"

namespace shoal::manager {
namespace {

thread_local bool running_request = false;

// What one that connects takes, at most.
constexpr std::size_t kOfAClient = 8;
constexpr std::size_t kSpare = 8 * kOfAClient;

std::size_t spare_of_limit() {
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) != 0) return 0;
  return std::min<std::size_t>(kSpare, files.rlim_cur / 8);
}

// Both ends; the writing one is given away.
std::pair<Fd, Fd> make_lifeline() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0)
    throw_system_error(errno, "pipe2", "an object of a Manager");
  auto [reading, writing] = above_stdio(ends);
  return {Fd(reading.release()), Fd(writing.release())};
}

Fd duplicate(const Fd& descriptor) {
  const int copy = fcntl(descriptor.get(), F_DUPFD_CLOEXEC, 3);
  if (copy < 0) throw_system_error(errno, "fcntl", "an object of a Manager");
  return Fd(copy);
}

}  // namespace

bool within_request() { return running_request; }

std::string address_of(std::uint64_t id) {
  return "manager.id." + std::to_string(id);
}
std::string address_of(std::string_view name) {
  // Within a Listener's 200 characters, whatever the name.
  constexpr std::size_t kMost = 100;
  return "manager.name." + std::to_string(std::hash<std::string_view>()(name)) +
         '.' + std::string(name.substr(0, kMost));
}

// ---- Reply ----

std::span<std::byte> Reply::begin(Outcome outcome, std::size_t bytes) {
  passage_.reset();
  frame_.reset();
  frame_.emplace(to_.reserve(bytes + 1));
  frame_->bytes()[0] = static_cast<std::byte>(outcome);
  passage_.emplace(ConnectionAccess::end(to_)->as_container());
  return frame_->bytes().subspan(1);
}

std::span<std::byte> Reply::allocate(std::size_t bytes) {
  return begin(Outcome::result, bytes);
}

void Reply::send() {
  if (!frame_) begin(Outcome::result, 0);
  frame_->commit();
  passage_->sent();
}

void Reply::send_error(std::exception_ptr error) {
  const std::vector<std::byte> bytes = exception_codec::encode(error);
  const auto memory = begin(Outcome::error, bytes.size());
  if (!bytes.empty()) memcpy(memory.data(), bytes.data(), bytes.size());
  send();
}

// ---- Service ----

Service::Service(std::uint64_t id) : id_(id), spare_(spare_of_limit()) {
  const int all = above_stdio(epoll_create1(EPOLL_CLOEXEC));
  if (all < 0) throw_system_error(errno, "epoll_create1", "a Manager");
  watched_ = Fd(all);
}

Ticket Service::get(const std::string& name, std::uint64_t type,
                    const Make& make) {
  const std::lock_guard guard(mutex_);
  if (!name.empty()) {
    if (const auto known = names_.find(name); known != names_.end()) {
      Entry& entry = entries_.at(known->second);
      if (entry.held->type() != type)
        throw TypeMismatch(
            "shoal: \"" + name +
            "\" in the Manager is of another type\n  expected: " +
            make()->type_text() + "\n  found:    " + entry.held->type_text());
      return {known->second, duplicate(entry.own_end)};
    }
  }
  spare_.refill();
  auto [reading, writing] = make_lifeline();
  Entry entry{make(), std::move(reading), Fd()};
  if (!name.empty()) entry.own_end = duplicate(writing);
  const std::uint64_t object = ++last_;
  const int descriptor = entry.other_end.get();
  entries_.emplace(object, std::move(entry));
  epoll_event event{.events = 0, .data = {.u64 = object}};  // EPOLLHUP always
  if (epoll_ctl(watched_.get(), EPOLL_CTL_ADD, descriptor, &event) != 0) {
    const int error = errno;
    entries_.erase(object);
    throw_system_error(error, "epoll_ctl", "an object of a Manager");
  }
  if (!name.empty()) names_.emplace(name, object);
  return {object, std::move(writing)};
}

std::shared_ptr<Held> Service::find(const Header& header) {
  if (header.object == 0) return nullptr;
  const std::lock_guard guard(mutex_);
  const auto found = entries_.find(header.object);
  if (found == entries_.end())
    throw Error("shoal: the Manager has no such object any more");
  if (found->second.held->type() != header.type)
    throw TypeMismatch("shoal: an object in the Manager is of another type");
  return found->second.held;
}

// Destroyed without the lock: they may hold proxies of each other.
void Service::drop_unused() {
  std::vector<std::shared_ptr<Held>> unused;
  std::array<epoll_event, 64> events;
  const int n = epoll_wait(watched_.get(), events.data(),
                           static_cast<int>(events.size()), 0);
  const std::lock_guard guard(mutex_);
  for (int i = 0; i < n; ++i) {
    const auto found =
        entries_.find(events[static_cast<std::size_t>(i)].data.u64);
    if (found == entries_.end()) continue;
    // Closing would not do where a child has a copy.
    epoll_ctl(watched_.get(), EPOLL_CTL_DEL, found->second.other_end.get(),
              nullptr);
    unused.push_back(std::move(found->second.held));
    entries_.erase(found);
  }
}

bool Service::welcome(Listener& listener) {
  try {
    // Who gives up on the way is not waited for.
    Connection client = listener.accept(now);
    std::thread([this](Connection one) { converse(std::move(one)); },
                std::move(client))
        .detach();
  } catch (const TimeoutError&) {
  } catch (const std::exception&) {
    const std::lock_guard guard(mutex_);
    return spare_.release(kOfAClient);
  }
  return true;
}

void Service::run(Listener& listener, Listener* named, int stop) {
  constexpr int kBackOff = 50;  // ms
  const auto descriptor = [](const Listener* of) {
    return of == nullptr ? -1 : of->wait_source().descriptor;
  };
  bool welcoming = true;
  for (;;) {
    std::array<pollfd, 4> polled{
        {{stop, POLLIN, 0},
         {watched_.get(), POLLIN, 0},
         {welcoming ? descriptor(&listener) : -1, POLLIN, 0},
         {welcoming ? descriptor(named) : -1, POLLIN, 0}}};
    poll(polled.data(), polled.size(), welcoming ? -1 : kBackOff);
    if (polled[0].revents != 0) return;
    if (polled[1].revents != 0) drop_unused();
    welcoming = true;
    if (polled[2].revents != 0) welcoming = welcome(listener);
    if (polled[3].revents != 0 && welcoming) welcoming = welcome(*named);
  }
}

void Service::converse(Connection client) {
  try {
    for (;;) answer(client);
  } catch (const std::exception&) {
    // It has ended, or sends what is no request.
  }
}

void Service::answer(Connection& client) {
  const View view = client.peek();
  Arrival arrival;
  codec::Reader reader(view.bytes(), &arrival);
  Header header;
  memcpy(&header, reader.take(sizeof header), sizeof header);
  Reply reply(client);
  std::exception_ptr error;
  try {
    const auto held = find(header);
    const auto thunk = reinterpret_cast<Thunk>(
        const_cast<void*>(function::resolve(header.code)));
    running_request = true;
    thunk(*this, held.get(), reader, reply);
  } catch (...) {
    error = std::current_exception();
  }
  running_request = false;
  if (error)
    reply.send_error(error);
  else
    reply.send();
}

void serve(std::uint64_t id, const std::string& name, Connection ready) {
  // Ctrl-C is for the program, which then ends this one.
  signal(SIGINT, SIG_IGN);
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }
  std::optional<Listener> listener;
  std::optional<Listener> named;
  Fd terminated;
  Service* service = nullptr;  // for good: threads work in it to the end
  std::vector<std::byte> problem;
  try {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);  // of all threads, from here
    const int descriptor = signalfd(-1, &signals, SFD_CLOEXEC);
    if (descriptor < 0) throw_system_error(errno, "signalfd", "a Manager");
    terminated = Fd(descriptor);
    service = new Service(id);
    listener.emplace(address_of(id));
    if (!name.empty()) named.emplace(address_of(name));
  } catch (...) {
    problem = exception_codec::encode(std::current_exception());
  }
  ready.send(problem);
  if (!problem.empty()) return;
  service->run(*listener, named ? &*named : nullptr, terminated.get());
  // What shipped functions have printed.
  fflush(nullptr);
  _exit(0);
}

}  // namespace shoal::manager
