#include "shoal/ipc/wait.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <array>
#include <deque>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "shoal/ipc/asymmetric_fence.h"
#include "shoal/ipc/blocked_signals.h"
#include "shoal/ipc/descriptor.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/fd.h"
#include "shoal/ipc/futex.h"
#include "shoal/ipc/pidfd.h"

namespace shoal {
namespace {

using std::chrono::milliseconds;

// As in waiting.cc: wakes are not passed on, or too many threads to watch.
constexpr Timeout kBlindSlice = milliseconds(20);
// A process that is dying, thread by thread: nobody wakes us at its end.
constexpr Timeout kDyingSlice = milliseconds(1);
// The kernel wakes one for each death, and another may have been that one.
constexpr Timeout kLook = milliseconds(1000);

// The descriptors among the things.
class Descriptors {
 public:
  void add(int descriptor, std::size_t index) {
    // poll(2) would pass over it.
    if (descriptor < 0) throw_not_open(descriptor, index);
    polled_.push_back({descriptor, POLLIN, 0});
    indices_.push_back(index);
  }
  bool empty() const { return polled_.empty(); }
  std::span<const pollfd> polled() const { return polled_; }

  // Adds those that are ready before the deadline.
  void look(Deadline deadline, std::vector<std::size_t>& ready) {
    if (polled_.empty() || poll_until(polled_, deadline, "shoal::wait") == 0)
      return;
    for (std::size_t i = 0; i < polled_.size(); ++i) {
      if ((polled_[i].revents & POLLNVAL) != 0)
        throw_not_open(polled_[i].fd, indices_[i]);
      if (polled_[i].revents != 0) ready.push_back(indices_[i]);
    }
  }

 private:
  [[noreturn]] static void throw_not_open(int descriptor, std::size_t index) {
    throw_system_error(EBADF, "poll",
                       "shoal::wait: descriptor " + std::to_string(descriptor) +
                           ", thing " + std::to_string(index));
  }

  std::vector<pollfd> polled_;
  std::vector<std::size_t> indices_;
};

// The objects among them, and their domains.
class Objects {
 public:
  void add(const WaitSource& source, std::size_t index) {
    sources_.push_back(source);
    indices_.push_back(index);
    liveness::Domain* domain = &source.operations->domain(source.thing);
    if (std::find(domains_.begin(), domains_.end(), domain) == domains_.end())
      domains_.push_back(domain);
  }
  bool empty() const { return sources_.empty(); }

  void look(std::vector<std::size_t>& ready) const {
    for (std::size_t i = 0; i < sources_.size(); ++i)
      if (sources_[i].operations->ready(sources_[i].thing))
        ready.push_back(indices_[i]);
  }

  // For those that a look after announce() has found ready, and that this
  // thread leaves as they are: whoever announced itself before, and has not
  // fallen asleep yet, takes this announcement for its own.
  void pass_on(std::span<const std::size_t> ready) const {
    for (std::size_t i = 0; i < sources_.size(); ++i)
      if (std::binary_search(ready.begin(), ready.end(), indices_[i]))
        sources_[i].operations->pass_on(sources_[i].thing);
  }

  // After a sleep: the kernel wakes one of those who watch a life word, and
  // that one wakes the others.
  void retire() const {
    for (liveness::Domain* domain : domains_) domain->retire_all();
  }

  // What must stay as it is for a sleep to go on, noted before the last look.
  struct Watched {
    std::vector<futex::Expected> words;
    bool complete = true;  // else somebody's death or wake may go unseen
    bool dying = false;
  };
  Watched announce() const {
    Watched watched;
    for (liveness::Domain* domain : domains_) {
      domain->seat();
      // SYNC(domain.bell)
      watched.words.push_back(
          {&domain->bell(), domain->bell().load(std::memory_order_acquire)});
    }
    for (const WaitSource& source : sources_)
      source.operations->announce(source.thing);
    for (liveness::Domain* domain : domains_) {
      watched.complete &= asymmetric_fence::heavy(domain->barrier_mode());
      auto lives = liveness::Watch::that_wakes();
      domain->retire_all(&lives);
      watched.complete &= lives.complete();
      watched.words.insert(watched.words.end(), lives.words().begin(),
                           lives.words().end());
    }
    for (const WaitSource& source : sources_) {
      const liveness::Who blocker = source.operations->blocker(source.thing);
      if (blocker == 0) continue;
      std::uint32_t alive;
      source.operations->domain(source.thing).life_word(blocker, alive);
      watched.dying |= (alive & FUTEX_TID_MASK) == 0;
    }
    watched.complete &= liveness::kernel_passes_wakes();
    return watched;
  }

 private:
  std::vector<WaitSource> sources_;
  std::vector<std::size_t> indices_;
  std::vector<liveness::Domain*> domains_;
};

// Threads that sleep on what one call cannot: descriptors beside words, and
// words beyond the number that one call takes.
class Helpers {
 public:
  // Not 0 once one of them has seen something.
  const futex::Word& seen() const { return seen_; }

  void watch(std::span<const pollfd> descriptors) {
    const int descriptor = above_stdio(eventfd(0, EFD_CLOEXEC));
    if (descriptor < 0) throw_system_error(errno, "eventfd", "shoal::wait");
    stop_.emplace(descriptor);
    std::vector<pollfd> all(descriptors.begin(), descriptors.end());
    all.push_back({stop_->get(), POLLIN, 0});
    start([this, all = std::move(all)]() mutable {
      while (poll(all.data(), all.size(), -1) < 0 && errno == EINTR) {
      }
      tell();
    });
  }
  void watch(std::span<const futex::Expected> words) {
    std::vector<futex::Expected> all{{&stopped_, 0}};
    all.insert(all.end(), words.begin(), words.end());
    start([this, all = std::move(all)] {
      futex::wait_any(all, Deadline::never());
      tell();
    });
  }

  Helpers() = default;
  Helpers(const Helpers&) = delete;
  Helpers& operator=(const Helpers&) = delete;
  ~Helpers() {
    if (threads_.empty()) return;
    // relaxed: carries nothing; join() orders the rest.
    stopped_.store(1, std::memory_order_relaxed);
    futex::wake(stopped_, futex::kAll);
    if (stop_) eventfd_write(stop_->get(), 1);
    for (std::thread& thread : threads_) thread.join();
  }

 private:
  template <class Body>
  void start(Body&& body) {
    // No handler of the program's runs in them.
    const BlockedSignals inherited;
    try {
      threads_.emplace_back(std::forward<Body>(body));
    } catch (const std::system_error& error) {
      throw_system_error(error.code().value(), "pthread_create", "shoal::wait");
    }
  }
  void tell() {
    // relaxed: carries nothing; what was seen is looked at again.
    seen_.store(1, std::memory_order_relaxed);
    futex::wake(seen_, 1);
  }

  futex::Word seen_{0};
  futex::Word stopped_{0};
  std::optional<Fd> stop_;
  std::vector<std::thread> threads_;
};

// Sleeps until something that is watched may have happened, or the deadline.
void sleep(const Objects::Watched& watched, const Descriptors& descriptors,
           Deadline deadline) {
  Deadline until = earlier(deadline, Deadline(kLook));
  if (!watched.complete) until = earlier(until, Deadline(kBlindSlice));
  if (watched.dying) until = earlier(until, Deadline(kDyingSlice));
  // One place for what helpers have seen, one in their calls for the stop.
  constexpr std::size_t kMost = futex::kMostWords - 1;
  std::span<const futex::Expected> rest(watched.words);
  Helpers helpers;
  std::vector<futex::Expected> mine{{&helpers.seen(), 0}};
  const auto first = rest.first(std::min(rest.size(), kMost));
  mine.insert(mine.end(), first.begin(), first.end());
  for (rest = rest.subspan(first.size()); !rest.empty();) {
    const auto next = rest.first(std::min(rest.size(), kMost));
    helpers.watch(next);
    rest = rest.subspan(next.size());
  }
  if (!descriptors.empty()) helpers.watch(descriptors.polled());
  futex::wait_any(mine, until);
}

}  // namespace

std::vector<std::size_t> wait(std::span<const Waitable> things,
                              Timeout timeout) {
  if (things.empty() && timeout.is_forever())
    throw std::invalid_argument(
        "shoal::wait: nothing to wait for, and no timeout");
  const Deadline deadline(timeout);
  Descriptors descriptors;
  Objects objects;
  for (std::size_t i = 0; i < things.size(); ++i) {
    const WaitSource& source = things[i].source();
    if (source.operations == nullptr)
      descriptors.add(source.descriptor, i);
    else
      objects.add(source, i);
  }
  std::vector<std::size_t> ready;
  const auto look = [&](Deadline until) {
    objects.look(ready);
    descriptors.look(ready.empty() ? until : Deadline(now), ready);
    std::sort(ready.begin(), ready.end());
  };
  look(now);
  if (objects.empty()) {
    if (things.empty()) poll_until({}, deadline, "shoal::wait");
    if (ready.empty()) look(deadline);
    return ready;
  }
  while (ready.empty() && !deadline.passed()) {
    const Objects::Watched watched = objects.announce();
    look(now);
    if (!ready.empty()) {
      objects.pass_on(ready);
      break;
    }
    sleep(watched, descriptors, deadline);
    objects.retire();
    look(now);
  }
  return ready;
}

}  // namespace shoal
