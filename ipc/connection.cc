#include "shoal/ipc/connection.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "shoal/ipc/keeper_serve.h"

namespace shoal {
namespace {

void refuse_negative(const char* what, std::size_t number) {
  if (number == npos ||
      number <=
          static_cast<std::size_t>(std::numeric_limits<std::ptrdiff_t>::max()))
    return;
  throw std::invalid_argument(
      "shoal: Connection: " + std::string(what) + " is negative (" +
      std::to_string(static_cast<std::ptrdiff_t>(number)) + ")");
}

void refuse_beyond(const char* what, std::size_t number, std::size_t size) {
  if (number <= size) return;
  throw std::out_of_range("shoal: Connection: " + std::string(what) + " " +
                          std::to_string(number) + " is beyond the " +
                          std::to_string(size) + " bytes there are");
}

}  // namespace

// ---- Frame and View ----

Frame::Frame(std::shared_ptr<pipe_end::End> end, std::size_t n, Timeout timeout)
    : end_(std::move(end)),
      sending_(*end_),
      bytes_(sending_.reserve(n, timeout), n) {}

void Frame::commit() {
  if (committed_ || !sending_.holds())
    throw std::logic_error("shoal: this Frame has been committed, or moved");
  if (end_->closed()) end_->throw_closed();
  end_->domain().seat();  // perhaps not the thread that has reserved it
  sending_.commit(0);
  committed_ = true;
  bytes_ = {};
  const pipe_end::Sending done = std::move(sending_);
}

View::View(std::shared_ptr<pipe_end::End> end, Timeout timeout)
    : end_(std::move(end)), receiving_(*end_) {
  const Deadline deadline(timeout);
  header_ = receiving_.await(timeout);
  bytes_ = {receiving_.content(header_, deadline.remaining()),
            ring::length_of(header_)};
}

View::~View() {
  if (!receiving_.holds() || end_->closed()) return;
  try {
    end_->domain().seat();  // perhaps not the thread that has peeked
    receiving_.consume(header_);
  } catch (const std::exception&) {
    // There is no seat for this thread: the message stays.
  }
}

// ---- Connection ----

Connection& Connection::operator=(Connection&& other) noexcept {
  if (this != &other) {
    let_go();
    end_ = std::move(other.end_);
  }
  return *this;
}

void Connection::let_go() noexcept {
  if (end_ == nullptr) return;
  bequest::Parcel* parcel = bequest::Parcel::current();
  if (parcel != nullptr && end_->is_this_process_s()) {
    end_->give_away();
    parcel->add(std::move(end_));
  } else {
    end_->close();
  }
}

void Connection::send_part(std::span<const std::byte> bytes, std::size_t offset,
                           std::size_t size, Timeout timeout) {
  refuse_negative("offset", offset);
  refuse_negative("size", size);
  refuse_beyond("offset", offset, bytes.size());
  bytes = bytes.subspan(offset);
  if (size != npos) {
    refuse_beyond("size", size, bytes.size());
    bytes = bytes.first(size);
  }
  send_slowly(writable_end(), bytes, timeout);
}

std::vector<std::byte> Connection::recv_bytes(std::size_t maxlength,
                                              Timeout timeout) {
  refuse_negative("maxlength", maxlength);
  const Deadline deadline(timeout);
  pipe_end::Receiving receiving(readable_end());
  const ring::Header header = receiving.await(timeout);
  const std::size_t length = ring::length_of(header);
  if (length > maxlength)
    throw MessageTooLong("shoal: the message has " + std::to_string(length) +
                         " bytes, more than " + std::to_string(maxlength) +
                         "; it stays");
  std::vector<std::byte> message;
  message.reserve(length);
  receiving.read(header, deadline.remaining(),
                 [&](const std::byte* from, std::size_t n) {
                   message.insert(message.end(), from, from + n);
                 });
  receiving.consume(header);
  return message;
}

std::span<std::byte> Connection::part_of(std::span<std::byte> buffer,
                                         std::size_t offset) {
  refuse_negative("offset", offset);
  refuse_beyond("offset", offset, buffer.size());
  return buffer.subspan(offset);
}

void Connection::send_slowly(pipe_end::End& end,
                             std::span<const std::byte> bytes,
                             Timeout timeout) {
  pipe_end::Sending(end).send(bytes.data(), bytes.size(), timeout);
}

std::size_t Connection::recv_slowly(pipe_end::End& end,
                                    std::span<std::byte> buffer,
                                    Timeout timeout) {
  const Deadline deadline(timeout);
  pipe_end::Receiving receiving(end);
  const ring::Header header = receiving.await(timeout);
  const std::size_t length = ring::length_of(header);
  if (length > buffer.size()) {
    const Consumed consumed(receiving, header, deadline.remaining());
    throw BufferTooShort("shoal: the message has " + std::to_string(length) +
                             " bytes, the buffer room for " +
                             std::to_string(buffer.size()),
                         {consumed.bytes().begin(), consumed.bytes().end()});
  }
  std::byte* to = buffer.data();
  receiving.read(header, deadline.remaining(),
                 [&](const std::byte* from, std::size_t n) {
                   if (n != 0) std::memcpy(to, from, n);
                   to += n;
                 });
  receiving.consume(header);
  return length;
}

Frame Connection::reserve(std::size_t n, Timeout timeout) {
  refuse_negative("size", n);
  writable_end();
  return Frame(end_, n, timeout);
}

View Connection::peek(Timeout timeout) {
  readable_end();
  return View(end_, timeout);
}

bool Connection::poll(Timeout timeout) {
  const pipe_end::Receiving receiving(readable_end());
  return end_->poll(timeout);
}

int Connection::fileno() {
  { const pipe_end::Receiving mine(readable_end()); }
  return end_->descriptor();
}

void Connection::close() {
  if (end_ != nullptr) end_->close();
}

void Connection::throw_moved() {
  throw Closed("shoal: this Connection is closed, or was moved from");
}

void Connection::throw_direction(pipe_end::End& end, bool send) {
  if (end.closed()) end.throw_closed();
  throw std::logic_error(
      send ? "shoal: this end of the Pipe only receives; send through the other"
           : "shoal: this end of the Pipe only sends; receive from the other");
}

// ---- in messages ----

namespace {

// Of any Pipe; its options are read from it.
Spec pipe_spec() {
  return {.kind = Kind::pipe, .fingerprint = sizeof(pipe_end::PipeState)};
}

std::shared_ptr<pipe_end::End> adopt(std::shared_ptr<Object> object,
                                     std::uint64_t part) {
  if (part > 1)
    throw Corrupt("shoal: a message names end " + std::to_string(part) +
                  " of a Pipe");
  return pipe_end::End::adopt(std::move(object), static_cast<unsigned>(part));
}

}  // namespace

HandleRef HandleTraits<Connection>::reference(const Connection& connection,
                                              Passage* passage) {
  const auto& end = ConnectionAccess::end(connection);
  if (end == nullptr || end->closed())
    throw Closed("shoal: a Connection that is closed cannot be sent");
  if (passage == nullptr)
    throw std::invalid_argument(
        "shoal: a Connection cannot travel here: send it through a Queue, a "
        "Connection, a Process or a Pool");
  HandleRef reference = passage::refer_to(*end->object());
  reference.part = end->index();
  passage->carry_end(*end->object(), static_cast<int>(end->index()), reference,
                     [end](liveness::Who carrier) {
                       if (carrier != 0)
                         end->send_away(carrier);
                       else
                         end->take_back();
                     });
  return reference;
}

Connection HandleTraits<Connection>::resolve(const HandleRef& reference,
                                             Arrival* arrival) {
  return ConnectionAccess::make(
      adopt(passage::receive(reference, arrival, pipe_spec()), reference.part));
}

// In the keeper: a message that nobody will receive held this end.
void keeper::close_end(std::span<const int> descriptors, std::uint64_t domain,
                       int end) noexcept {
  try {
    if (descriptors.size() != 2) return;
    const auto file = [&](std::size_t i) {
      return segment::File::adopt(fcntl(descriptors[i], F_DUPFD_CLOEXEC, 3),
                                  "a dropped end");
    };
    adopt(Object::adopt(file(0), pipe_spec(), file(1), domain, false),
          static_cast<std::uint64_t>(end));
  } catch (const std::exception&) {
    // Somebody has received it after all, or its Pipe is gone.
  }
}

// In the keeper: without mapping it, which would make it one that is used.
bool keeper::no_receiver(int descriptor, std::uint64_t receiver,
                         const liveness::Domain* domain) noexcept {
  std::uint64_t owner;
  if (receiver > sizeof(pipe_end::PipeState) - sizeof owner ||
      pread(descriptor, &owner, sizeof owner, static_cast<off_t>(receiver)) !=
          sizeof owner)
    return false;
  switch (pipe_end::state_of(owner)) {
    case pipe_end::kClosed:
    case pipe_end::kDead:
      return true;
    case pipe_end::kOnTheWay:
      return false;
    case pipe_end::kOpen:
      break;
  }
  const liveness::Who who = pipe_end::who_of(owner);
  return domain != nullptr && who != liveness::kNobody &&
         liveness::index_of(who) < liveness::kSeats && domain->dead(who);
}

}  // namespace shoal
