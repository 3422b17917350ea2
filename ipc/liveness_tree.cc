// Domains come and go: a process tree's own, another tree's, a named object's.

#include <atomic>
#include <cstddef>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "shoal/ipc/asymmetric_fence.h"
#include "shoal/ipc/at_fork.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/fork_mutex.h"
#include "shoal/ipc/lazy_static.h"
#include "shoal/ipc/liveness.h"
#include "shoal/ipc/liveness_parts.h"
#include "shoal/ipc/segment.h"

namespace shoal::liveness {
namespace {

std::atomic<std::uint64_t> next_domain{1};

constexpr std::size_t kFirstBytes = segment::round_to_page(
    offsetof(DomainState, life) + kFirstSeats * sizeof(pthread_mutex_t));
constexpr std::size_t kFirstOccupants =
    offsetof(DomainState, occupant) / segment::kPage * segment::kPage;
constexpr std::size_t kFirstOccupantBytes =
    segment::round_to_page(offsetof(DomainState, occupant) +
                           kFirstSeats * sizeof(OccupantState)) -
    kFirstOccupants;

struct Tree {
  std::shared_ptr<Domain> current;
  // Trees' domains that this process has mapped.
  std::vector<std::weak_ptr<Domain>> mapped;
};
// Never destroyed: objects may outlive static ones.
constinit LazyStatic<Tree> the_tree;
constinit ForkMutex tree_mutex;
SHOAL_AT_FORK const HeldAtFork<tree_mutex> held_at_fork;

void remember(Tree& tree, const std::shared_ptr<Domain>& domain) {
  std::erase_if(tree.mapped, [](const auto& known) { return known.expired(); });
  tree.mapped.push_back(domain);
}

}  // namespace

void initialise(DomainState& state) {
  state.seats = kSeats;
  state.barrier_mode = asymmetric_fence::default_mode();
  state.id = segment::random_id();
}

Domain::Domain(DomainState& state, std::shared_ptr<void> mapping)
    : state_(state),
      mapping_(std::move(mapping)),
      serial_(next_domain.fetch_add(1, std::memory_order_relaxed)),
      id_(state.id),
      needs_fence_(asymmetric_fence::needs_fence(state.barrier_mode)) {}

std::shared_ptr<Domain> Domain::make_tree() {
  kernel_passes_wakes();
  constexpr std::size_t kBytes = segment::round_to_page(sizeof(DomainState));
  auto file = segment::File::anonymous("domain", kBytes);
  file.reserve(0, kFirstBytes);
  file.reserve(kFirstOccupants, kFirstOccupantBytes);
  file.seal();
  auto mapping = file.map(0, kBytes, false, false);
  auto* state = static_cast<DomainState*>(mapping.get());
  initialise(*state);
  auto made = std::make_shared<Domain>(*state, std::move(mapping));
  made->file_.emplace(std::move(file));
  return made;
}

std::shared_ptr<Domain> Domain::tree() {
  Tree& tree = the_tree.get();
  {
    const std::lock_guard guard(tree_mutex);
    if (tree.current != nullptr) return tree.current;
  }
  // Not under the mutex: what is made may be refused by the kernel, or slow.
  auto made = make_tree();
  const std::lock_guard guard(tree_mutex);
  if (tree.current == nullptr) {
    remember(tree, made);
    tree.current = std::move(made);
  }
  return tree.current;  // another thread may have been first
}

DomainUse Domain::use_tree() {
  Tree& tree = the_tree.get();
  for (;;) {
    auto domain = Domain::tree();
    const std::lock_guard guard(tree_mutex);
    if (tree.current == domain) return DomainUse(std::move(domain));
  }
}

DomainUse Domain::adopt(segment::File file, std::uint64_t id, bool as_tree) {
  kernel_passes_wakes();
  constexpr std::size_t kBytes = segment::round_to_page(sizeof(DomainState));
  Tree& tree = the_tree.get();
  const std::lock_guard guard(tree_mutex);
  std::shared_ptr<Domain> domain;
  for (const auto& known : tree.mapped)
    if (auto mapped = known.lock(); mapped != nullptr && mapped->id() == id)
      domain = std::move(mapped);
  if (domain == nullptr) {
    if (file.size() != kBytes)
      throw Corrupt(file.what() + ": no domain has " +
                    std::to_string(file.size()) + " bytes");
    auto mapping = file.map(0, kBytes, false, false);
    auto& state = *static_cast<DomainState*>(mapping.get());
    domain = std::make_shared<Domain>(state, std::move(mapping));
    if (state.seats != kSeats || domain->id() != id)
      throw Corrupt(file.what() + " is not the domain that was announced");
    remember(tree, domain);
  }
  // Gone when the last object went; back with the next.
  if (!domain->file_) domain->file_.emplace(std::move(file));
  if (as_tree && tree.current == nullptr) tree.current = domain;
  return DomainUse(std::move(domain));
}

DomainUse Domain::adopt(segment::File file, std::uint64_t id) {
  return adopt(std::move(file), id, false);
}

DomainUse Domain::become_tree(segment::File file, std::uint64_t id) {
  return adopt(std::move(file), id, true);
}

std::shared_ptr<Domain> Domain::attach(DomainState& state,
                                       std::shared_ptr<void> mapping) {
  kernel_passes_wakes();
  return std::make_shared<Domain>(state, std::move(mapping));
}

void Domain::remove_user() {
  const auto self = shared_from_this();
  std::shared_ptr<Domain> last;
  {
    Tree& tree = the_tree.get();
    const std::lock_guard guard(tree_mutex);
    // relaxed: under the mutex, as in use_tree().
    if (users_.fetch_sub(1, std::memory_order_relaxed) != 1) return;
    // No descriptor outlives the last object.
    if (tree.current.get() == this) last = std::move(tree.current);
    file_.reset();
  }
  leave_unused_seats();
}

}  // namespace shoal::liveness
