#include "shoal/ipc/transfer.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

namespace shoal::pipe_end {

template <class D>
void Use<D>::throw_busy() const {
  throw std::logic_error(
      std::string("shoal: another call, ") +
      (std::is_same_v<D, Outgoing>
           ? "or a Frame, is sending through this Connection: one thread "
             "sends at a time"
           : "or a View, is receiving from this Connection: one thread "
             "receives at a time"));
}
template class Use<Outgoing>;
template class Use<Incoming>;

// ---- sending ----

std::byte* Sending::reserve_aside(std::size_t length, Timeout timeout) {
  SideBlocks& blocks = direction_->blocks;
  if (length > blocks.most())
    throw MessageTooLong("shoal: Pipe: a message of " + std::to_string(length) +
                         " bytes; the longest has " +
                         std::to_string(blocks.most()));
  const Deadline deadline(timeout);
  make_room(ring::frame_bytes(8), timeout);
  auto block = blocks.find_free();
  if (!block) block = end_->await_block(deadline.remaining());
  std::byte* memory = blocks.take(*block, length);
  block_ = *block;
  return memory;
}

void Sending::publish_aside(std::uint32_t type) {
  const std::uint64_t number = block_;
  std::memcpy(direction_->ring.place(), &number, sizeof number);
  direction_->ring.publish(ring::make_header(length_, type, true));
  wake_if_asleep(waiting::Side::consumers);
}

void Sending::commit_aside(std::uint32_t type) {
  direction_->blocks.set_progress(block_, length_);
  publish_aside(type);
  block_ = kNoBlock;
}

void Sending::send_aside(std::byte* to, const std::byte* from) {
  publish_aside(0);
  const unsigned block = std::exchange(block_, kNoBlock);
  for (std::size_t done = 0; done < length_;) {
    const std::size_t n = std::min(kChunk, length_ - done);
    std::memcpy(to + done, from + done, n);
    done += n;
    direction_->blocks.set_progress(block, done);
    wake_if_asleep(waiting::Side::consumers);
  }
}

void Sending::drop() noexcept { direction_->blocks.give_back(block_); }

// ---- receiving ----

unsigned Receiving::block_of(ring::Header) const {
  std::uint64_t number;
  std::memcpy(&number, direction_->ring.content(), sizeof number);
  if (number >= ring::kBlocks)
    throw Corrupt("shoal: Pipe: a message in side block " +
                  std::to_string(number) + ", of which there are " +
                  std::to_string(ring::kBlocks));
  return static_cast<unsigned>(number);
}

const std::byte* Receiving::content_aside(ring::Header header,
                                          Timeout timeout) {
  const std::uint64_t length = ring::length_of(header);
  const Deadline deadline(timeout);
  const unsigned block = block_of(header);
  const std::byte* memory = direction_->blocks.map(block, length);
  std::uint64_t done = direction_->blocks.progress(block, length);
  while (done < length)
    done = end_->await_progress(block, done, length, deadline.remaining());
  return memory;
}

void Receiving::require(std::uint32_t number, const TypeInfo& info) {
  if (number != 0 && direction_->types.hash_of(number) == info.hash) return;
  throw TypeMismatch(
      "shoal: the message is of another type than is to be received; it stays"
      "\n  expected: " +
      info.text + "\n  found:    " +
      (number == 0 ? "bytes (of send_bytes or reserve)"
                   : direction_->types.text_of(number)));
}

}  // namespace shoal::pipe_end
