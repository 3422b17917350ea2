#include "shoal/ipc/passage.h"

#include <errno.h>
#include <fcntl.h>

#include <array>
#include <optional>
#include <stdexcept>
#include <utility>

#include "shoal/ipc/errors.h"

namespace shoal {
namespace {

using keeper::Contents;

constexpr std::uint64_t kDescriptorType = 0x00464421;  // of an Fd

// Of an object: segment, and the domain of its tree.
std::vector<int> descriptors_of(const Object& object) {
  std::vector<int> all{object.descriptor()};
  if (object.header().domain_id != 0)
    all.push_back(object.domain().descriptor());
  return all;
}

}  // namespace

// ---- by the keeper ----

keeper::Deposit Deposits::leave(liveness::Domain& domain,
                                std::span<const int> all,
                                keeper::Contents contents, HandleRef& reference,
                                int end) {
  left_.reserve(left_.size() + 1);
  const auto deposit = keeper::deposit(domain, container_, all, contents, end);
  left_.push_back({deposit.keeper, deposit.ticket, {}});
  reference.keeper = deposit.keeper;
  reference.ticket = deposit.ticket;
  return deposit;
}

void Deposits::carry(Object& object, HandleRef& reference) {
  if (object.serial() < reached_before_) return;
  if (object.header().domain_id != 0) {
    leave(object.domain(), descriptors_of(object), Contents::segments,
          reference, -1);
  } else {  // a named one's domain has no keeper
    const auto tree = liveness::Domain::use_tree();
    leave(*tree, descriptors_of(object), Contents::segments, reference, -1);
  }
}

void Deposits::carry(int descriptor, HandleRef& reference) {
  if (fcntl(descriptor, F_GETFD) < 0)
    throw_system_error(errno, "fcntl",
                       "the Fd in a message, " + std::to_string(descriptor));
  const auto tree = liveness::Domain::use_tree();
  leave(*tree, std::array{descriptor}, Contents::open_files, reference, -1);
}

void Deposits::carry_end(Object& object, int end, HandleRef& reference,
                         HandOver hand_over) {
  if (object.header().id == container_.id)
    throw std::logic_error(
        "shoal: an end of a Pipe cannot be sent through that Pipe: nobody "
        "could receive it");
  const auto deposit = leave(object.domain(), descriptors_of(object),
                             Contents::segments, reference, end);
  hand_over(deposit.who);
  left_.back().hand_over = std::move(hand_over);
}

void Deposits::sent() noexcept { left_.clear(); }

Deposits::~Deposits() {
  for (const Left& left : left_) {
    if (left.hand_over) left.hand_over(0);
    keeper::forget(left.keeper, left.ticket);
  }
}

// ---- with the bytes ----

void Outbox::add(std::span<const int> all, HandleRef& reference) {
  reference.keeper = 0;
  reference.ticket = descriptors_.size() + 1;
  descriptors_.insert(descriptors_.end(), all.begin(), all.end());
}

void Outbox::carry(Object& object, HandleRef& reference) {
  add(descriptors_of(object), reference);
}

void Outbox::carry(int descriptor, HandleRef& reference) {
  add(std::array{descriptor}, reference);
}

void Outbox::carry_end(Object& object, int, HandleRef& reference,
                       HandOver hand_over) {
  ends_.reserve(ends_.size() + 1);
  hand_over(object.domain().process_seat());
  ends_.push_back(std::move(hand_over));
  add(descriptors_of(object), reference);
}

Outbox::~Outbox() {
  for (const HandOver& hand_over : ends_) hand_over(0);
}

// ---- on arrival ----

std::vector<Fd> Arrival::take(const HandleRef& reference) {
  if (reference.keeper != 0) {
    try {
      auto collected = keeper::collect(reference.keeper, reference.ticket);
      receipt_ = std::move(collected.receipt);
      return std::move(collected.descriptors);
    } catch (const Error&) {
      lost_ = true;
      throw;
    }
  }
  const bool alone = reference.object == 0 || reference.domain == 0;
  const std::size_t count = alone ? 1 : 2;
  const std::uint64_t first = reference.ticket - 1;
  if (reference.ticket == 0 || first > descriptors_.size() ||
      descriptors_.size() - first < count)
    throw Corrupt("shoal: a message names descriptor " + std::to_string(first) +
                  " of " + std::to_string(descriptors_.size()) +
                  " that came with it");
  std::vector<Fd> taken;
  for (std::size_t i = first; i < first + count; ++i) {
    if (descriptors_[i].get() < 0)
      throw Corrupt("shoal: a message names a descriptor twice");
    taken.push_back(std::move(descriptors_[i]));
  }
  return taken;
}

namespace passage {

std::uint64_t type_of(Kind kind, std::uint64_t type_hash) {
  return type_hash ^ static_cast<std::uint64_t>(kind) << 56;
}

HandleRef refer_to(const Object& object) {
  const HeaderState& header = object.header();
  return {.object = header.id,
          .part = 0,
          .type = type_of(header.kind, header.type_hash),
          .domain = header.domain_id,
          .keeper = 0,
          .ticket = 0};
}

std::shared_ptr<Object> receive(const HandleRef& reference, Arrival* arrival,
                                const Spec& spec) {
  auto object = Object::find(reference.object);
  if (object == nullptr && (reference.ticket == 0 || arrival == nullptr))
    throw Error(
        "shoal: this process cannot reach the object that a message refers "
        "to: it was made after this process was forked; make it before");
  if (reference.type != type_of(spec.kind, spec.type_hash) ||
      (object != nullptr && (object->header().kind != spec.kind ||
                             object->header().type_hash != spec.type_hash)))
    throw TypeMismatch(
        "shoal: a message refers to an object of another type than " +
        spec.type_text);
  if (arrival != nullptr && reference.ticket != 0) arrival->use_up();
  if (object != nullptr) {
    if (reference.keeper != 0)
      keeper::forget(reference.keeper, reference.ticket);
    return object;
  }
  std::vector<Fd> descriptors = arrival->take(reference);
  if (descriptors.size() != (reference.domain == 0 ? 1u : 2u))
    throw Corrupt("shoal: a message's handle came with " +
                  std::to_string(descriptors.size()) + " descriptors");
  std::optional<segment::File> domain;
  if (reference.domain != 0)
    domain.emplace(segment::File::adopt(descriptors[1].release(), "domain"));
  object = Object::adopt(
      segment::File::adopt(descriptors[0].release(), "a received object"), spec,
      std::move(domain), reference.domain, reference.keeper == 0);
  arrival->settled();
  if (object->header().id != reference.object)
    throw Corrupt("shoal: a message's handle came with another object");
  return object;
}

}  // namespace passage

HandleRef HandleTraits<Fd>::reference(const Fd& descriptor, Passage* passage) {
  if (descriptor.get() < 0)
    throw std::invalid_argument(
        "shoal: an Fd that was moved from or released cannot be sent");
  if (passage == nullptr)
    throw std::invalid_argument(
        "shoal: an Fd cannot travel here: send it through a Queue, a "
        "Connection, a Process or a Pool");
  HandleRef reference{};
  reference.type = kDescriptorType;
  passage->carry(descriptor.get(), reference);
  return reference;
}

Fd HandleTraits<Fd>::resolve(const HandleRef& reference, Arrival* arrival) {
  if (reference.type != kDescriptorType || reference.object != 0)
    throw TypeMismatch("shoal: a message holds something else than an Fd");
  if (arrival == nullptr || reference.ticket == 0)
    throw Error("shoal: an Fd cannot arrive here");
  std::vector<Fd> descriptors = arrival->take(reference);
  arrival->settled();
  if (descriptors.size() != 1)
    throw Corrupt("shoal: an Fd came as " + std::to_string(descriptors.size()) +
                  " descriptors");
  return std::move(descriptors.front());
}

}  // namespace shoal
