#include "shoal/pool/nursery_process.h"

#include <sched.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "shoal/ipc/blocked_signals.h"
#include "shoal/ipc/call.h"
#include "shoal/ipc/child.h"
#include "shoal/ipc/codec.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/handover.h"
#include "shoal/ipc/liveness.h"
#include "shoal/ipc/passage.h"
#include "shoal/ipc/spawn.h"
#include "shoal/ipc/task_status.h"
#include "shoal/pool/nursery.h"

namespace shoal::pool {
namespace {

using namespace std::chrono_literals;

constexpr auto kSlice = 100ms;  // between looks whether it has ended
// Its end takes less, as a rule. Who looks so long, and lets others run first,
// is spared the wake of an idle CPU: constructor, workers() and destructor of
// two workers, in a loop, took 0.66 instead of 0.76 ms (EPYC virtual machine, 2
// vCPUs). Not so for its start: this CPU is of use to the workers then.
constexpr auto kEnding = 500us;

constexpr const char* kWorkers = "PoolWorker";  // -1, -2, ...

// ---- started anew, or by a forkserver ----

// What the bytes of its parcel begin with; those of the initializer follow.
// Descriptors: the memory, its domain, the bell, the initializer's.
struct Order {
  std::uint64_t memory;
  std::uint64_t domain;
};
constexpr std::size_t kOwnDescriptors = 3;

void enter_nursery(handover::Arrival& arrival) {
  child::run(arrival.introduction.name, [&arrival] {
    child::guard_exit();
    child::after_fork(kNurserySetup);
    BlockedSignals().clear();  // what its starter had blocked
    std::unique_ptr<detail::Body> initializer;
    std::optional<Memory> memory;
    Descriptor bell;
    arrival.take_over([&] {
      auto& given = arrival.descriptors;
      Order order;
      codec::Reader reader(arrival.bytes);
      memcpy(&order, reader.take(sizeof order), sizeof order);
      if (given.size() < kOwnDescriptors)
        throw Corrupt("shoal: a nursery was started without its memory");
      memory.emplace(segment::File::adopt(given[0].release(), "pool"),
                     order.memory,
                     liveness::Domain::become_tree(
                         segment::File::adopt(given[1].release(), "domain"),
                         order.domain));
      bell = std::move(given[2]);
      const std::span packed = std::span(arrival.bytes).subspan(sizeof order);
      if (!packed.empty())
        initializer = detail::unpack_body(
            packed, std::span(given).subspan(kOwnDescriptors));
    });
    detail::introduce_workers(
        {.name = kWorkers,
         .owner = static_cast<pid_t>(arrival.introduction.parent_pid),
         .owner_name = arrival.introduction.parent_name,
         .identity = arrival.introduction.identity,
         .daemon = arrival.introduction.daemon,
         .owner_pidfd = arrival.parent});
    // What the initializer's arguments have printed when they were decoded.
    child::flush_standard_streams();
    run_nursery(*memory, arrival.parent, bell.get(), initializer.get());
  });
}

}  // namespace

NurseryProcess::NurseryProcess(Memory& memory, StartMethod method, int bell,
                               detail::Body* initializer)
    : memory_(memory) {
  constexpr const char* kName = "shoal.nursery";
  child::Started started;
  detail::Workers workers = detail::workers_of_this_process(kWorkers);
  if (method == StartMethod::fork) {
    const auto self = std::make_shared<const Pidfd>(Pidfd::open(getpid()));
    child::prepare();
    workers.owner_pidfd = self;
    started = child::start(kName, *self, kNurserySetup, [&] {
      detail::introduce_workers(std::move(workers));
      run_nursery(memory, self, bell, initializer);
    });
  } else {
    const Order order = {memory.id(), memory.domain().id()};
    detail::Packed packed;
    if (initializer != nullptr) packed = initializer->pack();
    const auto* const first = reinterpret_cast<const std::byte*>(&order);
    packed.bytes.insert(packed.bytes.begin(), first, first + sizeof order);
    std::vector<int> descriptors = {memory.container().descriptor,
                                    memory.domain().descriptor(), bell};
    const std::span more = packed.handles->descriptors();
    descriptors.insert(descriptors.end(), more.begin(), more.end());
    handover::Introduction introduction = handover::introduce_this_process();
    introduction.name = kName;
    introduction.parent_name = workers.owner_name;
    introduction.identity = workers.identity;
    introduction.daemon = workers.daemon;
    const handover::Parcel parcel = {
        .entry = call::reference_of<&enter_nursery>(),
        .bytes = packed.bytes,
        .descriptors = descriptors};
    if (method == StartMethod::spawn) {
      started = spawn::start(introduction, parcel).child;
    } else {
      auto by_server = forkserver::start(std::move(introduction), parcel);
      started = std::move(by_server.child);
      ending_ = std::move(by_server.ending);
    }
    packed.handles->sent();
  }
  pid_ = started.pid;
  pidfd_ = std::move(started.pidfd);
  lost_ = started.lost;
}

void NurseryProcess::await_start() const {
  const futex::Word& start = memory_.state().start;
  constexpr auto kWaiting = static_cast<std::uint32_t>(Start::waiting);
  // SYNC(pool.start)
  while (start.load(std::memory_order_acquire) == kWaiting && !has_ended())
    futex::wait(start, kWaiting, Timeout(kSlice));
}

bool NurseryProcess::wait(Deadline deadline) const {
  const Deadline soon = earlier(deadline, Timeout(kEnding));
  do {
    if (has_ended()) return true;
    sched_yield();
  } while (!soon.passed());
  return pidfd_->wait(deadline);
}

bool NurseryProcess::dead() const {
  // SYNC(pool.nursery)
  const liveness::Who who =
      memory_.state().nursery.load(std::memory_order_acquire);
  return who != 0 ? memory_.domain().dead(who) : has_ended();
}

bool NurseryProcess::is_stopped() const {
  return proc_shows_us() && process_status(pid_).state == 'T';
}

void NurseryProcess::kill() const {
  if (!lost_) pidfd_->signal(SIGKILL);
}

void NurseryProcess::reap() const {
  // How it has ended does not matter; a forkserver reaps its own.
  if (ending_ == nullptr && !lost_) pidfd_->reap();
}

}  // namespace shoal::pool
