#include "shoal/ipc/process.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <span>
#include <stdexcept>

#include "shoal/ipc/at_fork.h"
#include "shoal/ipc/bequest.h"
#include "shoal/ipc/child.h"
#include "shoal/ipc/fork_mutex.h"
#include "shoal/ipc/forkserver.h"
#include "shoal/ipc/handover.h"
#include "shoal/ipc/liveness.h"
#include "shoal/ipc/pidfd.h"
#include "shoal/ipc/spawn.h"
#include "shoal/ipc/takeover.h"
#include "shoal/ipc/type_name.h"

namespace shoal {
namespace {

using namespace std::chrono_literals;

constexpr auto kGrace = 1s;  // from SIGTERM to SIGKILL
// For a status that a forkserver is late to tell, once its child has ended.
constexpr auto kPatience = 1s;

std::atomic<StartMethod> start_method{StartMethod::fork};

// What a process knows of itself and its children. There is one for each pid: a
// forked child makes its own, whatever state its parent's was in.
struct Registry {
  const pid_t pid = getpid();
  std::string name = "MainProcess";
  std::string identity;  // "" for the first process, "1:2" below it
  bool daemon = false;
  pid_t parent_pid = 0;
  std::string parent_name;
  std::shared_ptr<const Pidfd> parent;
  bool forks_workers = false;     // which have this name and parent, too
  Registry* inherited = nullptr;  // never freed: other threads may have used it

  std::mutex starting;  // one fork at a time, so that siblings inherit no gate
  std::mutex mutex;     // of what follows
  unsigned made = 0;
  bool exits_with_children = false;
  std::vector<std::shared_ptr<detail::Child>> children;
};

std::atomic<Registry*> newest{nullptr};
unsigned worker_number = 0;

// Of a process that was started anew, or by a forkserver.
std::unique_ptr<Registry> introduced(const handover::Arrival& arrival) {
  auto own = std::make_unique<Registry>();
  own->name = arrival.introduction.name;
  own->identity = arrival.introduction.identity;
  own->daemon = arrival.introduction.daemon;
  own->parent_pid = static_cast<pid_t>(arrival.introduction.parent_pid);
  own->parent_name = arrival.introduction.parent_name;
  own->parent = arrival.parent;
  return own;
}

Registry& registry() {
  Registry* known = newest.load(std::memory_order_acquire);  // SYNC(registry)
  if (known != nullptr && known->pid == getpid()) return *known;
  // There may be static initialisers that ask before it is the child's turn.
  auto fresh = known == nullptr && takeover::started_anew()
                   ? introduced(takeover::arrival())
                   : std::make_unique<Registry>();
  if (known != nullptr) {  // a bare fork of a process that has one
    fresh->name = known->name;
    fresh->identity = known->identity;
    fresh->daemon = known->daemon;
    if (known->forks_workers) {
      fresh->name += '-' + std::to_string(worker_number);
      fresh->parent_pid = known->parent_pid;
      fresh->parent_name = known->parent_name;
      fresh->parent = known->parent;
    }
    fresh->inherited = known;
  }
  if (newest.compare_exchange_strong(
          known, fresh.get(),
          std::memory_order_acq_rel,     // SYNC(registry)
          std::memory_order_acquire)) {  // SYNC(registry)
    return *fresh.release();
  }
  return *known;
}

// In a new process, which has one thread.
void replace_registry(std::unique_ptr<Registry> own) {
  Registry* const fresh = own.release();
  fresh->inherited =
      newest.exchange(fresh, std::memory_order_acq_rel);  // SYNC(registry)
  if (fresh->inherited != nullptr)
    fresh->inherited->parent.reset();  // or descriptors pile up with the depth
}

void end_children() noexcept;

// libc has a lock of its list, which no child must find held.
constinit ForkMutex exit_list;
SHOAL_AT_FORK const HeldAtFork<exit_list> held_at_fork;

void end_children_at_exit() {
  const std::lock_guard guard(exit_list);
  if (std::atexit(end_children) != 0) throw std::bad_alloc();
}

// What a process that was started anew, or by a forkserver, does for a Process.
void enter_body(handover::Arrival& arrival) {
  child::run(arrival.introduction.name, [&arrival] {
    child::guard_exit();
    std::unique_ptr<detail::Body> body;
    arrival.take_over([&] {
      replace_registry(introduced(arrival));
      if (arrival.introduction.daemon)
        child::end_with(static_cast<pid_t>(arrival.introduction.parent_pid),
                        arrival.parent);
      body = detail::unpack_body(arrival.bytes, arrival.descriptors);
    });
    body->run();
  });
}

}  // namespace

namespace detail {

void introduce_workers(Workers workers) {
  auto own = std::make_unique<Registry>();
  own->name = std::move(workers.name);
  own->parent_pid = workers.owner;
  own->parent_name = std::move(workers.owner_name);
  own->parent = std::move(workers.owner_pidfd);
  own->identity = std::move(workers.identity);
  own->daemon = workers.daemon;
  own->forks_workers = true;
  replace_registry(std::move(own));
}

void set_worker_number(unsigned number) { worker_number = number; }

Workers workers_of_this_process(std::string name) {
  const Registry& own = registry();
  return {.name = std::move(name),
          .owner = own.pid,
          .owner_name = own.name,
          .identity = own.identity,
          .daemon = own.daemon,
          .owner_pidfd = nullptr};
}

void throw_cannot_travel(const std::string& what, const std::type_info& type) {
  throw std::invalid_argument(
      "shoal: " + what +
      " of a Process, or of a Pool's initializer, cannot travel to a process "
      "that is no fork (" +
      type_name(type) +
      "): give a function, a captureless lambda, a function object that is a "
      "Message, shoal::partial() or a closure over trivially copyable values, "
      "and arguments that are Messages: values, std::string, std::vector, "
      "shoal handles, no pointers or references. StartMethod::fork takes any");
}

std::unique_ptr<Body> unpack_body(std::span<const std::byte> packed,
                                  std::span<Descriptor> handed_over) {
  std::vector<Fd> descriptors;
  for (Descriptor& descriptor : handed_over)
    descriptors.emplace_back(descriptor.release());
  Arrival handles(std::move(descriptors));
  codec::Reader reader(packed, &handles);
  FunctionRef unpack;
  std::memcpy(&unpack, reader.take(sizeof unpack), sizeof unpack);
  return reinterpret_cast<Unpack>(const_cast<void*>(function::resolve(unpack)))(
      reader);
}

class Child : public std::enable_shared_from_this<Child> {
 public:
  Child(ProcessOptions options, std::unique_ptr<Body> body);

  void start();
  bool join(Deadline deadline);
  bool is_alive();
  std::optional<int> exitcode();
  void signal(int number);
  void close();
  int sentinel();
  pid_t pid();
  bool daemon();
  bool is_running();  // is_alive() that may be asked of a closed one
  const std::string& name() const { return name_; }

 private:
  enum class Phase { made, starting, started, closed };

  // mutex_, unless the call is a mistake. In a forked child an inherited mutex
  // may be held for ever, so that it is not even tried.
  std::unique_lock<std::mutex> lock_own();
  std::unique_lock<std::mutex> lock_open();
  std::unique_lock<std::mutex> lock_started();
  // Whether it has ended and its status is known; whether it has ended. With
  // mutex_ held.
  bool reap(Deadline patience = Deadline(kPatience));
  bool ended();
  void leave(Registry& own);  // the list of its children
  struct Begun {
    child::Started child;
    std::shared_ptr<const forkserver::Ending> ending;
  };
  // What a child has taken over is destroyed here, and with it goes to a forked
  // child what it owned.
  struct Ended {
    std::unique_ptr<Body> body;
    std::optional<bequest::Parcel> parcel;
    std::shared_ptr<const Pidfd> child;

    Ended() = default;
    Ended(const Ended&) = delete;
    Ended& operator=(const Ended&) = delete;
    ~Ended() {
      if (parcel && child) parcel->give([this] { body.reset(); }, *child);
    }
  };
  // body_ is nobody else's meanwhile.
  Begun start_by_fork(Registry& own, std::optional<bequest::Parcel>& parcel);
  Begun start_elsewhere(Registry& own, StartMethod method);
  // In the new process:
  void become(const Registry& parent, std::shared_ptr<const Pidfd> pidfd);

  const pid_t owner_ = getpid();
  std::string name_;
  std::string identity_;
  bool daemon_;
  const std::optional<StartMethod> start_method_;

  std::mutex mutex_;  // of what follows; never held while waiting
  Phase phase_ = Phase::made;
  std::unique_ptr<Body> body_;
  pid_t pid_ = 0;
  std::shared_ptr<const Pidfd> pidfd_;
  // A forkserver's; nothing where the child is this process's own.
  std::shared_ptr<const forkserver::Ending> ending_;
  std::optional<int> exitcode_;
};

Child::Child(ProcessOptions options, std::unique_ptr<Body> body)
    : name_(std::move(options.name)),
      start_method_(options.start_method),
      body_(std::move(body)) {
  Registry& own = registry();
  daemon_ = options.daemon.value_or(own.daemon);
  const std::lock_guard lock(own.mutex);
  identity_ = own.identity + (own.identity.empty() ? "" : ":") +
              std::to_string(++own.made);
  if (name_.empty()) name_ = "Process-" + identity_;
}

std::unique_lock<std::mutex> Child::lock_own() {
  if (owner_ != getpid())
    throw std::logic_error("process " + name_ + " belongs to process " +
                           std::to_string(owner_) + ", which made it");
  return std::unique_lock(mutex_);
}

std::unique_lock<std::mutex> Child::lock_open() {
  auto lock = lock_own();
  if (phase_ == Phase::closed)
    throw std::logic_error("process " + name_ + " is closed");
  return lock;
}

std::unique_lock<std::mutex> Child::lock_started() {
  auto lock = lock_open();
  if (phase_ != Phase::started)
    throw std::logic_error("process " + name_ + " was not started");
  return lock;
}

bool Child::reap(Deadline patience) {
  if (exitcode_) return true;
  if (phase_ != Phase::started) return false;
  exitcode_ =
      ending_ != nullptr ? ending_->take(*pidfd_, patience) : pidfd_->reap();
  if (!exitcode_) return false;
  liveness::note_end();
  leave(registry());
  return true;
}

void Child::leave(Registry& own) {
  const std::lock_guard lock(own.mutex);
  std::erase(own.children, shared_from_this());
}

bool Child::ended() {
  return reap() || (ending_ != nullptr && pidfd_->wait(now));
}

void Child::start() {
  Ended ended;  // destroyed without the lock: it is user code
  Registry& own = registry();
  {
    const auto lock = lock_open();
    if (phase_ != Phase::made)
      throw std::logic_error("process " + name_ + " was started before");
    // Even a fork: its twin in the parent has started one already.
    if (takeover::in_static_initialisers()) spawn::require_possible();
    phase_ = Phase::starting;
  }
  try {
    {
      const std::lock_guard registry_lock(own.mutex);
      if (!own.exits_with_children) end_children_at_exit();
      own.exits_with_children = true;
      own.children.push_back(shared_from_this());  // not running yet
    }
    const StartMethod method = start_method_.value_or(get_start_method());
    Begun begun = method == StartMethod::fork ? start_by_fork(own, ended.parcel)
                                              : start_elsewhere(own, method);
    const std::lock_guard lock(mutex_);
    pid_ = begun.child.pid;
    pidfd_ = std::move(begun.child.pidfd);
    ending_ = std::move(begun.ending);
    phase_ = Phase::started;
    ended.body = std::move(body_);
    ended.child = pidfd_;
    if (!begun.child.lost) return;
    exitcode_ = Pidfd::kUnknownStatus;
    leave(own);
  } catch (...) {
    leave(own);
    const std::lock_guard lock(mutex_);
    phase_ = Phase::made;
    throw;
  }
}

Child::Begun Child::start_by_fork(Registry& own,
                                  std::optional<bequest::Parcel>& parcel) {
  const auto self = std::make_shared<Pidfd>(Pidfd::open(own.pid));
  child::prepare();
  const std::lock_guard starting(own.starting);
  parcel.emplace();
  return {child::start(name_, *self, {},
                       [&] {
                         parcel->receive(*self);
                         become(own, self);
                         if (daemon_) child::end_with(own.pid, self);
                         const std::unique_ptr<Body> body = std::move(body_);
                         body->run();
                       }),
          nullptr};
}

Child::Begun Child::start_elsewhere(Registry& own, StartMethod method) {
  const Packed packed = body_->pack();
  handover::Introduction introduction = handover::introduce_this_process();
  introduction.name = name_;
  introduction.identity = identity_;
  introduction.daemon = daemon_;
  introduction.parent_name = own.name;
  const handover::Parcel parcel = {
      .entry = call::reference_of<&enter_body>(),
      .bytes = packed.bytes,
      .descriptors = packed.handles->descriptors()};
  if (method == StartMethod::spawn) {
    auto started = spawn::start(introduction, parcel);
    packed.handles->sent();
    return {std::move(started.child), nullptr};
  }
  auto started = forkserver::start(std::move(introduction), parcel);
  packed.handles->sent();
  return {std::move(started.child), std::move(started.ending)};
}

// In the new process, which has one thread.
void Child::become(const Registry& parent, std::shared_ptr<const Pidfd> pidfd) {
  auto own = std::make_unique<Registry>();
  own->name = name_;
  own->identity = identity_;
  own->daemon = daemon_;
  own->parent_pid = parent.pid;
  own->parent_name = parent.name;
  own->parent = std::move(pidfd);
  replace_registry(std::move(own));
  forkserver::forget_inherited();
}

bool Child::join(Deadline deadline) {
  for (bool waited = false;; waited = true) {
    std::shared_ptr<const Pidfd> pidfd;
    {
      const auto lock = waited ? lock_own() : lock_started();
      if (phase_ == Phase::closed ||
          reap(earlier(deadline, Timeout(kPatience))))
        return true;
      pidfd = pidfd_;
    }
    // It ended, but a tracer has the status first: ask again soon.
    if (waited && !deadline.passed()) poll(nullptr, 0, 1);
    if (!pidfd->wait(deadline) || (waited && deadline.passed())) return false;
  }
}

std::optional<int> Child::exitcode() {
  const auto lock = lock_open();
  reap();
  return exitcode_;
}

bool Child::is_alive() {
  const auto lock = lock_open();
  return phase_ == Phase::started && !ended();
}

bool Child::is_running() {
  const auto lock = lock_own();
  return phase_ == Phase::started && !ended();
}

pid_t Child::pid() {
  const auto lock = lock_open();
  return pid_;
}

bool Child::daemon() {
  const auto lock = lock_open();
  return daemon_;
}

int Child::sentinel() {
  const auto lock = lock_started();
  return pidfd_->get();
}

void Child::signal(int number) {
  const auto lock = lock_started();
  if (!reap()) pidfd_->signal(number);
}

void Child::close() {
  const auto lock = lock_own();
  if (phase_ == Phase::closed) return;
  if (phase_ == Phase::starting || (phase_ == Phase::started && !reap()))
    throw std::logic_error("process " + name_ + " runs, it cannot be closed");
  phase_ = Phase::closed;
  pidfd_.reset();
  ending_.reset();
}

}  // namespace detail

namespace {

// Terminates the daemons among them and awaits all. Those that another thread
// closes meanwhile, or that have not been started, need nothing.
void end_all(
    std::span<const std::shared_ptr<detail::Child>> children) noexcept {
  const auto each_daemon = [&](auto f) {
    for (const auto& child : children) {
      try {
        if (child->is_running() && child->daemon()) f(*child);
      } catch (const std::exception&) {
      }
    }
  };
  each_daemon([](detail::Child& child) { child.signal(SIGTERM); });
  const Deadline grace(kGrace);
  each_daemon([&](detail::Child& child) {
    if (!child.join(grace)) child.signal(SIGKILL);
  });
  for (const auto& child : children) {
    try {
      if (child->is_running()) child->join(forever);
    } catch (const std::exception&) {
    }
  }
}

void end_children() noexcept {
  Registry* own = newest.load(std::memory_order_acquire);  // SYNC(registry)
  if (own == nullptr || own->pid != getpid()) return;      // in a bare fork
  std::unique_lock lock(own->mutex);
  const auto children = own->children;
  lock.unlock();
  end_all(children);
}

}  // namespace

void set_start_method(StartMethod method) {
  // Relaxed: a setting, nothing is published by it.
  start_method.store(method, std::memory_order_relaxed);
}

StartMethod get_start_method() {
  return start_method.load(std::memory_order_relaxed);  // relaxed: as above
}

ProcessInfo current_process() {
  const Registry& own = registry();
  ProcessInfo info;
  info.pid = own.pid;
  info.name = own.name;
  info.pidfd_ = std::make_shared<Pidfd>(Pidfd::open(own.pid));
  return info;
}

std::optional<ProcessInfo> parent_process() {
  const Registry& own = registry();
  if (own.parent == nullptr) return std::nullopt;
  ProcessInfo info;
  info.pid = own.parent_pid;
  info.name = own.parent_name;
  info.pidfd_ = own.parent;
  return info;
}

std::vector<ProcessInfo> active_children() {
  Registry& own = registry();
  std::unique_lock lock(own.mutex);
  const auto children = own.children;
  lock.unlock();
  std::vector<ProcessInfo> running;
  for (const auto& child : children) {
    if (!child->is_running()) continue;
    ProcessInfo& info = running.emplace_back();
    info.pid = child->pid();
    info.name = child->name();
    info.child_ = child;
  }
  return running;
}

bool ProcessInfo::is_alive() const {
  if (child_ != nullptr) return child_->is_alive();
  return pidfd_ != nullptr && !pidfd_->wait(now);
}

bool ProcessInfo::join(Timeout timeout) const {
  if (child_ != nullptr) return child_->join(timeout);
  if (pidfd_ == nullptr || pid == getpid())
    throw std::logic_error("process " + name + " cannot be joined: it is " +
                           (pidfd_ == nullptr ? "none" : "the calling one"));
  return pidfd_->wait(timeout);
}

Process::Process(ProcessOptions options, std::unique_ptr<detail::Body> body)
    : child_(std::make_shared<detail::Child>(std::move(options),
                                             std::move(body))) {}

Process& Process::operator=(Process&& other) noexcept {
  if (this != &other) {
    const Process ended(std::move(*this));
    child_ = std::move(other.child_);
  }
  return *this;
}

Process::~Process() {
  if (child_ != nullptr) end_all({&child_, 1});
}

detail::Child& Process::child() const {
  if (child_ == nullptr) throw std::logic_error("the process was moved from");
  return *child_;
}

void Process::start() { child().start(); }
bool Process::join(Timeout timeout) { return child().join(timeout); }
bool Process::is_alive() { return child().is_alive(); }
pid_t Process::pid() { return child().pid(); }
std::optional<int> Process::exitcode() { return child().exitcode(); }
void Process::terminate() { child().signal(SIGTERM); }
void Process::kill() { child().signal(SIGKILL); }
void Process::interrupt() { child().signal(SIGINT); }
void Process::close() { child().close(); }
int Process::sentinel() { return child().sentinel(); }
std::string Process::name() { return child().name(); }
bool Process::daemon() { return child().daemon(); }

}  // namespace shoal
