#include "shoal/ipc/object.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <unordered_map>

#include "shoal/ipc/errors.h"
#include "shoal/ipc/fork_mutex.h"
#include "shoal/ipc/lazy_static.h"

namespace shoal {
namespace {

// The objects that this process has mapped. Never destroyed: handles may
// outlive static objects.
using Objects = std::unordered_map<std::uint64_t, std::weak_ptr<Object>>;
constinit LazyStatic<Objects> registry;
constinit ForkMutex registry_mutex;
SHOAL_AT_FORK const HeldAtFork<registry_mutex> held_at_fork;
constinit std::atomic<std::uint64_t> next_object_serial{1};

constexpr std::size_t kHeaderBytes = segment::kPage;
constexpr std::size_t kDomainBytes =
    segment::round_to_page(sizeof(liveness::DomainState));

const char* kind_name(Kind kind) {
  switch (kind) {
    case Kind::queue:
      return "Queue";
    case Kind::lock:
      return "Lock";
    case Kind::rlock:
      return "RLock";
    case Kind::value:
      return "Value";
    case Kind::array:
      return "Array";
    case Kind::pool:
      return "Pool";
    case Kind::event:
      return "Event";
    case Kind::semaphore:
      return "Semaphore";
    case Kind::bounded_semaphore:
      return "BoundedSemaphore";
    case Kind::condition:
      return "Condition";
    case Kind::barrier:
      return "Barrier";
    case Kind::pipe:
      return "Pipe";
  }
  return "unknown object";
}

std::string text_of(const HeaderState& header) {
  const auto& text = header.type_text;
  return std::string(text.begin(), std::find(text.begin(), text.end(), '\0'));
}

std::size_t header_offset(const Spec& spec) {
  return segment::round_to_page(spec.payload_bytes) +
         segment::round_to_page(spec.tail_bytes);
}

// Copies the header once, so that what is checked is what is used.
HeaderState checked_header(const segment::File& file, const HeaderState& shared,
                           const Spec& spec, bool named) {
  HeaderState header;
  memcpy(&header, &shared, sizeof header);
  const std::string& what = file.what();
  if (header.magic != HeaderState::kMagic)
    throw TypeMismatch(what + " was not made by shoal (bad magic); unlink it");
  const auto mismatch = [&](const std::string& here, const std::string& there) {
    throw TypeMismatch(
        what + " is not what this program expects\n  expected: " + here +
        "\n  found:    " + there);
  };
  if (header.abi_version != HeaderState::kAbiVersion)
    mismatch("ABI version " + std::to_string(HeaderState::kAbiVersion),
             "ABI version " + std::to_string(header.abi_version));
  if (header.kind != spec.kind || header.type_hash != spec.type_hash)
    mismatch(std::string(kind_name(spec.kind)) + " of " + spec.type_text,
             std::string(kind_name(header.kind)) + " of " + text_of(header));
  if (header.fingerprint != spec.fingerprint)
    mismatch("layout " + std::to_string(spec.fingerprint),
             "layout " + std::to_string(header.fingerprint));
  const std::size_t most =
      file.size() - kHeaderBytes - (named ? kDomainBytes : 0);
  if (header.total_bytes != file.size() ||
      header.domain_offset != (named ? file.size() - kDomainBytes : 0) ||
      header.payload_offset != 0 || header.tail_bytes > most ||
      header.tail_bytes % segment::kPage != 0 ||
      !std::has_single_bit(header.alignment) ||
      header.alignment > kMostAlignment ||
      header.aligned_at % segment::kPage != 0 ||
      header.payload_bytes > most - header.tail_bytes)
    throw Corrupt(what + ": sizes in its header don't fit a file of " +
                  std::to_string(file.size()) + " bytes; unlink it");
  return header;
}

}  // namespace

std::shared_ptr<Object> Object::create(const Spec& spec) {
  const std::size_t total = header_offset(spec) + kHeaderBytes;
  auto file = segment::File::anonymous(kind_name(spec.kind), total);
  auto object = build(std::move(file), spec, false);
  object->file_.seal();
  return add(std::move(object));
}

std::shared_ptr<Object> Object::create(std::string_view name, const Spec& spec,
                                       Access access) {
  const std::size_t total = header_offset(spec) + kHeaderBytes + kDomainBytes;
  auto file = segment::File::named(name, total, access);
  auto object = build(std::move(file), spec, true);
  if (!object->file_.publish())
    throw_system_error(EEXIST, "create", object->name_, total);
  return add(std::move(object));
}

std::shared_ptr<Object> Object::open(std::string_view name, const Spec& spec,
                                     Access access) {
  auto file = segment::File::open(name, access);
  if (!file)
    throw_system_error(ENOENT, "open", "/dev/shm/shoal." + std::string(name));
  return attach(std::move(*file), spec, access.read_only);
}

std::shared_ptr<Object> Object::open_or_create(std::string_view name,
                                               const Spec& spec,
                                               Access access) {
  for (;;) {
    if (auto file = segment::File::open(name, access))
      return attach(std::move(*file), spec, access.read_only);
    const std::size_t total = header_offset(spec) + kHeaderBytes + kDomainBytes;
    auto file = segment::File::named(name, total, access);
    auto object = build(std::move(file), spec, true);
    if (object->file_.publish()) return add(std::move(object));
    // Somebody else was first, or was and has unlinked it again.
  }
}

std::shared_ptr<Object> Object::build(segment::File file, const Spec& spec,
                                      bool named) {
  const std::size_t payload = segment::round_to_page(spec.payload_bytes);
  const std::size_t total = file.size();
  const std::size_t behind = header_offset(spec);
  // Long ones get their pages through the mapping, by several threads.
  constexpr std::size_t kLong = std::size_t{64} << 20;
  const bool by_mapping =
      spec.reserve && (payload >= kLong || (spec.place && payload != 0));
  if (!spec.reserve) {
    // What creation and lock() touch: the first page and the end.
    const std::size_t end = payload - std::min(payload, 3 * segment::kPage);
    file.reserve(0, segment::kPage);
    if (payload != end) file.reserve(end, payload - end);
  } else if (by_mapping) {
    segment::check_available(file.what(), payload);
  } else if (payload != 0) {
    file.reserve(0, payload);
  }
  file.reserve(behind, total - behind);
  auto mapping =
      file.map(0, std::max(payload, segment::kPage), false,
               spec.reserve && spec.populate && !by_mapping, spec.alignment);
  if (spec.place) spec.place(mapping.get(), payload);
  if (by_mapping) file.reserve_mapped(0, payload, mapping.get());
  const auto header_mapping = file.map(behind, kHeaderBytes, false, true);
  auto* header = static_cast<HeaderState*>(header_mapping.get());
  header->abi_version = HeaderState::kAbiVersion;
  header->kind = spec.kind;
  header->fingerprint = spec.fingerprint;
  header->type_hash = spec.type_hash;
  header->total_bytes = total;
  header->payload_offset = 0;
  header->payload_bytes = spec.payload_bytes;
  header->tail_bytes = segment::round_to_page(spec.tail_bytes);
  header->id = segment::random_id();
  header->alignment = spec.alignment.bytes;
  header->aligned_at = spec.alignment.at;
  header->options = spec.options;
  spec.type_text.copy(header->type_text.data(), HeaderState::kTypeText - 1);
  liveness::DomainUse domain = [&] {
    if (!named) return liveness::Domain::use_tree();
    header->domain_offset = total - kDomainBytes;
    auto seats = file.map(header->domain_offset, kDomainBytes, false, true);
    auto& state = *static_cast<liveness::DomainState*>(seats.get());
    liveness::initialise(state);
    return liveness::DomainUse(
        liveness::Domain::attach(state, std::move(seats)));
  }();
  if (!named) header->domain_id = domain->id();
  if (spec.initialise) spec.initialise(mapping.get());
  header->magic = HeaderState::kMagic;
  std::string name =
      named ? file.what() : std::string("anonymous ") + kind_name(spec.kind);
  return std::shared_ptr<Object>(new Object(std::move(name), std::move(file),
                                            std::move(mapping), *header,
                                            std::move(domain)));
}

// `tree` gives the domain of an anonymous one.
std::shared_ptr<Object> Object::attach(
    segment::File file, const Spec& spec, bool read_only,
    const std::function<liveness::DomainUse()>& tree) {
  const bool named = !tree;
  const std::size_t behind = kHeaderBytes + (named ? kDomainBytes : 0);
  if (file.size() < behind || file.size() % segment::kPage != 0)
    throw TypeMismatch(file.what() + " was not made by shoal (its size is " +
                       std::to_string(file.size()) + " bytes); unlink it");
  const HeaderState header = [&] {
    const auto shared =
        file.map(file.size() - behind, kHeaderBytes, true, false);
    return checked_header(file, *static_cast<HeaderState*>(shared.get()), spec,
                          named);
  }();
  // One object a process, however often it is opened: a lock has one holder.
  if (auto known = find(header.id);
      known != nullptr && (!named || (known->name() == file.what() &&
                                      known->read_only() == read_only)))
    return known;
  auto mapping = file.map(
      0, std::max(segment::round_to_page(header.payload_bytes), segment::kPage),
      read_only, false, {header.alignment, header.aligned_at});
  liveness::DomainUse domain = [&] {
    if (read_only) return liveness::DomainUse();
    if (!named) return tree();
    auto seats = file.map(header.domain_offset, kDomainBytes, false, false);
    auto& state = *static_cast<liveness::DomainState*>(seats.get());
    if (state.seats != liveness::kSeats)
      throw Corrupt(file.what() + ": bad number of seats; unlink it");
    return liveness::DomainUse(
        liveness::Domain::attach(state, std::move(seats)));
  }();
  std::string what = file.what();
  return add(std::shared_ptr<Object>(
      new Object(std::move(what), std::move(file), std::move(mapping), header,
                 std::move(domain))));
}

std::shared_ptr<Object> Object::adopt(segment::File file, const Spec& spec,
                                      std::optional<segment::File> domain,
                                      std::uint64_t domain_id,
                                      bool from_starter) {
  if (domain_id == 0) return attach(std::move(file), spec, file.read_only());
  return attach(std::move(file), spec, false, [&] {
    if (!domain)
      throw Corrupt("shoal: an object came without the domain that it is in");
    return from_starter
               ? liveness::Domain::become_tree(std::move(*domain), domain_id)
               : liveness::Domain::adopt(std::move(*domain), domain_id);
  });
}

Object::Object(std::string name, segment::File file,
               std::shared_ptr<void> mapping, const HeaderState& header,
               liveness::DomainUse domain)
    : name_(std::move(name)),
      file_(std::move(file)),
      mapping_(std::move(mapping)),
      header_(header),
      payload_(mapping_.get()),
      domain_(std::move(domain)),
      // relaxed: only has to be unique and increasing.
      serial_(next_object_serial.fetch_add(1, std::memory_order_relaxed)) {}

Object::~Object() {
  // SYNC(object.local)
  delete local_.load(std::memory_order_acquire);
  const std::lock_guard guard(registry_mutex);
  Objects& known = registry.get();
  const auto entry = known.find(header_.id);
  if (entry != known.end() && entry->second.expired()) known.erase(entry);
}

std::shared_ptr<Object> Object::add(std::shared_ptr<Object> object) {
  std::shared_ptr<Object> first;  // its destructor enters the section, too
  const std::lock_guard guard(registry_mutex);
  auto& entry = registry.get()[object->header_.id];
  first = entry.lock();
  if (first != nullptr && first->name_ == object->name_ &&
      first->read_only() == object->read_only())
    return first;  // another thread was faster
  if (first == nullptr) entry = object;
  return object;
}

std::shared_ptr<Object> Object::find(std::uint64_t id) {
  const std::lock_guard guard(registry_mutex);
  const Objects& known = registry.get();
  const auto entry = known.find(id);
  return entry == known.end() ? nullptr : entry->second.lock();
}

std::shared_ptr<Object> Object::find_at(const void* address) {
  const auto wanted = reinterpret_cast<std::uintptr_t>(address);
  // Destroyed after the section, which the last reference to one enters.
  std::vector<std::shared_ptr<Object>> others;
  std::shared_ptr<Object> object;
  const std::lock_guard guard(registry_mutex);
  for (const auto& [id, entry] : registry.get()) {
    object = entry.lock();
    if (object == nullptr) continue;
    const auto begin = reinterpret_cast<std::uintptr_t>(object->payload_);
    if (wanted - begin < object->header_.payload_bytes) return object;
    others.push_back(std::move(object));
  }
  return nullptr;
}

std::uint64_t Object::next_serial() {
  return next_object_serial.load(std::memory_order_relaxed);
}

std::shared_ptr<void> Object::tail(std::size_t offset, std::size_t bytes,
                                   bool reserve) const {
  const std::size_t start = tail_start(offset, bytes);
  if (reserve) file_.reserve(start, bytes);
  return file_.map(start, bytes, read_only(), reserve);
}

void Object::reserve_tail(std::size_t offset, std::size_t bytes) const {
  file_.reserve(tail_start(offset, bytes), bytes);
}

std::shared_ptr<void> Object::tail_twice(std::size_t offset, std::size_t bytes,
                                         bool reserve) const {
  const std::size_t start = tail_start(offset, bytes);
  if (reserve) file_.reserve(start, bytes);
  return file_.map_twice(start, bytes);
}

void Object::discard_tail(std::size_t offset, std::size_t bytes) const {
  file_.discard(tail_start(offset, bytes), bytes);
}

std::size_t Object::tail_start(std::size_t offset, std::size_t bytes) const {
  if (bytes == 0 || offset > header_.tail_bytes ||
      bytes > header_.tail_bytes - offset)
    throw Corrupt(name_ + ": a range of " + std::to_string(bytes) +
                  " bytes at " + std::to_string(offset) +
                  " lies beyond its tail of " +
                  std::to_string(header_.tail_bytes) + " bytes");
  return segment::round_to_page(header_.payload_bytes) + offset;
}

void Object::throw_read_only() const {
  throw std::logic_error(name_ +
                         " is mapped read-only here: it can be read, not "
                         "locked or changed; open it without read_only");
}

std::vector<Object::Lease>& Object::leases() {
  if (leases_ == nullptr || leases_depth_ != liveness::fork_depth()) {
    // A forked child holds none, and may have inherited a half-changed list.
    static_cast<void>(leases_.release());
    leases_ = std::make_unique<std::vector<Lease>>();
    leases_depth_ = liveness::fork_depth();
  }
  return *leases_;
}

void Object::add_lease(std::uint64_t cell) {
  const std::lock_guard guard(leases_mutex_);
  leases().push_back({cell, gettid()});
}

void Object::move_lease(std::uint64_t cell) {
  const std::lock_guard guard(leases_mutex_);
  for (Lease& lease : leases())
    if (lease.cell == cell) lease.thread = 0;
}

void Object::remove_lease(std::uint64_t cell) {
  const std::lock_guard guard(leases_mutex_);
  std::erase_if(leases(),
                [cell](const Lease& lease) { return lease.cell == cell; });
}

bool Object::leased_by_this_thread(std::uint64_t cell) {
  const std::lock_guard guard(leases_mutex_);
  const pid_t thread = gettid();
  const auto& held = leases();
  return std::any_of(held.begin(), held.end(), [&](const Lease& lease) {
    return lease.cell == cell && lease.thread == thread;
  });
}

bool Object::leased_by_this_thread() {
  const std::lock_guard guard(leases_mutex_);
  const pid_t thread = gettid();
  const auto& held = leases();
  return std::any_of(held.begin(), held.end(), [&](const Lease& lease) {
    return lease.thread == thread;
  });
}

}  // namespace shoal
