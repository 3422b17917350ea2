#include "shoal/ipc/handover.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <utility>

#include "shoal/ipc/codec.h"
#include "shoal/ipc/descriptor.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/exception_codec.h"
#include "shoal/ipc/file_text.h"

namespace shoal::handover {
namespace {

constexpr std::uint64_t kMagic = 0x3130485645564F4D;

struct Header {
  std::uint64_t magic;
  FunctionRef entry;
  std::uint64_t introduction_bytes;
  std::uint64_t descriptors;
  std::uint64_t bytes;
};
static_assert(sizeof(Header) == 48);

struct ReplyHeader {
  std::uint64_t magic;
  std::uint64_t error_bytes;  // 0: accepted
  std::uint64_t descriptors;
};
static_assert(sizeof(ReplyHeader) == 24);

template <class T>
std::span<const std::byte> bytes_of(const T& value) {
  return std::as_bytes(std::span(&value, 1));
}
template <class T>
std::span<std::byte> writable_bytes_of(T& value) {
  return std::as_writable_bytes(std::span(&value, 1));
}

// Until the socket is ready for `event`; false when the peer ends first.
bool await(int channel, short event, const Pidfd& peer) {
  std::array<pollfd, 2> polled = {pollfd{channel, event, 0},
                                  pollfd{peer.get(), POLLIN, 0}};
  for (;;) {
    if (poll(polled.data(), polled.size(), -1) < 0) {
      if (errno == EINTR) continue;
      throw_system_error(errno, "poll", "handover");
    }
    if (((polled[0].revents | polled[1].revents) & POLLNVAL) != 0)
      throw_system_error(EBADF, "poll", "handover");
    // The socket first: what the peer said before it ended counts.
    if (polled[0].revents != 0) return true;
    if (polled[1].revents != 0) return false;
  }
}

bool would_block(int error) { return error == EAGAIN || error == EWOULDBLOCK; }

bool hung_up(int error) { return error == EPIPE || error == ECONNRESET; }

using Control = std::array<char, CMSG_SPACE((kMostAtOnce + 3) * sizeof(int))>;

void adopt(const msghdr& message, std::vector<Descriptor>* descriptors) {
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr;
       part = CMSG_NXTHDR(const_cast<msghdr*>(&message), part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
      continue;
    const std::size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int fd;
      memcpy(&fd, CMSG_DATA(part) + i * sizeof fd, sizeof fd);
      Descriptor owned(above_stdio(fd));
      if (descriptors != nullptr) descriptors->push_back(std::move(owned));
    }
  }
  if ((message.msg_flags & MSG_CTRUNC) != 0)
    throw_system_error(EMFILE, "recvmsg", "descriptors handed over");
}

// A number from 1 on: kMostAtOnce descriptors go with each byte.
bool send_descriptors(int channel, const Pidfd& peer,
                      std::span<const int> descriptors) {
  while (!descriptors.empty()) {
    const auto batch =
        descriptors.first(std::min(descriptors.size(), kMostAtOnce));
    if (!send(channel, peer, bytes_of('d'), batch)) return false;
    descriptors = descriptors.subspan(batch.size());
  }
  return true;
}

bool receive_descriptors(int channel, const Pidfd& peer, std::uint64_t count,
                         std::vector<Descriptor>& descriptors) {
  while (descriptors.size() < count) {
    const std::size_t before = descriptors.size();
    char mark = 0;
    if (!receive(channel, peer, writable_bytes_of(mark), &descriptors))
      return false;
    if (mark != 'd' || descriptors.size() == before)
      throw Corrupt("handover: descriptors are missing");
  }
  return true;
}

// Until the peer has ended, or has answered.
struct Reply {
  bool complete = false;
  std::vector<std::byte> error;
  std::vector<Descriptor> descriptors;
};
Reply await_reply(int channel, const Pidfd& peer) {
  Reply reply;
  ReplyHeader header;
  if (!receive(channel, peer, writable_bytes_of(header))) return reply;
  if (header.magic != kMagic)
    throw Corrupt("handover: the answer is not of this program");
  reply.error.resize(header.error_bytes);
  reply.complete =
      receive(channel, peer, reply.error) &&
      receive_descriptors(channel, peer, header.descriptors, reply.descriptors);
  return reply;
}

[[noreturn]] void end_with_starter() { _exit(1); }

}  // namespace

Ends make_ends(const std::string& name) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
    throw_system_error(errno, "socketpair", name);
  auto [one, other] = above_stdio(ends);
  return {std::move(one), std::move(other)};
}

void hang_up(int channel) { shutdown(channel, SHUT_RDWR); }

bool send(int channel, const Pidfd& peer, std::span<const std::byte> bytes,
          std::span<const int> descriptors) {
  alignas(cmsghdr) Control control = {};
  while (!bytes.empty()) {
    iovec part = {const_cast<std::byte*>(bytes.data()), bytes.size()};
    msghdr message = {};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    if (!descriptors.empty()) {
      message.msg_control = control.data();
      message.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
      cmsghdr* const header = CMSG_FIRSTHDR(&message);
      header->cmsg_level = SOL_SOCKET;
      header->cmsg_type = SCM_RIGHTS;
      header->cmsg_len = CMSG_LEN(descriptors.size_bytes());
      memcpy(CMSG_DATA(header), descriptors.data(), descriptors.size_bytes());
    }
    const ssize_t n = sendmsg(channel, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n >= 0) {
      bytes = bytes.subspan(static_cast<std::size_t>(n));
      descriptors = {};
    } else if (would_block(errno)) {
      if (!await(channel, POLLOUT, peer)) return false;
    } else if (hung_up(errno)) {
      return false;
    } else if (errno != EINTR) {
      throw_system_error(errno, "sendmsg", "handover", bytes.size());
    }
  }
  return true;
}

bool receive(int channel, const Pidfd& peer, std::span<std::byte> bytes,
             std::vector<Descriptor>* descriptors) {
  alignas(cmsghdr) Control control = {};
  bool ended = false;
  while (!bytes.empty()) {
    iovec part = {bytes.data(), bytes.size()};
    msghdr message = {};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    const ssize_t n =
        recvmsg(channel, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n > 0) {
      adopt(message, descriptors);
      bytes = bytes.subspan(static_cast<std::size_t>(n));
    } else if (n == 0 || hung_up(errno)) {
      return false;
    } else if (would_block(errno)) {
      // It has ended, and after that there was nothing.
      if (ended) return false;
      ended = !await(channel, POLLIN, peer);
    } else if (errno != EINTR) {
      throw_system_error(errno, "recvmsg", "handover", bytes.size());
    }
  }
  return true;
}

std::optional<std::vector<Descriptor>> offer(int channel, const Pidfd& process,
                                             const Introduction& introduction,
                                             const Parcel& parcel) {
  const auto introduced = codec::to_bytes(introduction);
  const Header header = {.magic = kMagic,
                         .entry = parcel.entry,
                         .introduction_bytes = introduced.size(),
                         .descriptors = parcel.descriptors.size(),
                         .bytes = parcel.bytes.size()};
  // An end before all was sent may come with an answer.
  static_cast<void>(send(channel, process, bytes_of(header)) &&
                    send(channel, process, introduced) &&
                    send_descriptors(channel, process, parcel.descriptors) &&
                    send(channel, process, parcel.bytes));
  Reply reply = await_reply(channel, process);
  if (!reply.complete) return std::nullopt;
  if (!reply.error.empty())
    std::rethrow_exception(exception_codec::decode(reply.error));
  return std::move(reply.descriptors);
}

Arrival receive(Descriptor channel, std::shared_ptr<const Pidfd> parent) {
  Arrival arrival;
  arrival.channel = std::move(channel);
  arrival.parent = std::move(parent);
  const int from = arrival.channel.get();
  const Pidfd& peer = *arrival.parent;
  try {
    Header header;
    if (!receive(from, peer, writable_bytes_of(header))) end_with_starter();
    if (header.magic != kMagic)
      throw Corrupt("handover: the offer is not of this program");
    std::vector<std::byte> introduction(header.introduction_bytes);
    if (!receive(from, peer, introduction)) end_with_starter();
    arrival.introduction = codec::from_bytes<Introduction>(introduction);
    arrival.entry = header.entry;
    arrival.bytes.resize(header.bytes);
    if (!receive_descriptors(from, peer, header.descriptors,
                             arrival.descriptors) ||
        !receive(from, peer, arrival.bytes))
      end_with_starter();
    // What is whole may be of a starter that has ended since.
    if (peer.wait(now)) end_with_starter();
  } catch (...) {
    arrival.refuse(std::current_exception());
    _exit(1);
  }
  return arrival;
}

void Arrival::accept(std::span<const int> reply) {
  const ReplyHeader header = {
      .magic = kMagic, .error_bytes = 0, .descriptors = reply.size()};
  if (!send(channel.get(), *parent, bytes_of(header)) ||
      !send_descriptors(channel.get(), *parent, reply))
    end_with_starter();
}

void Arrival::refuse(std::exception_ptr error) noexcept {
  try {
    const auto bytes = exception_codec::encode(std::move(error));
    const ReplyHeader header = {
        .magic = kMagic, .error_bytes = bytes.size(), .descriptors = 0};
    static_cast<void>(send(channel.get(), *parent, bytes_of(header)) &&
                      send(channel.get(), *parent, bytes));
  } catch (...) {  // the starter sees the process end
  }
}

void Arrival::take_over(const std::function<void()>& f) {
  try {
    f();
  } catch (...) {
    refuse(std::current_exception());
    _exit(1);
  }
  accept();
  channel.reset();
  bytes = {};
}

void enter(Arrival& arrival) {
  prctl(PR_SET_NAME, arrival.introduction.title.c_str());
  Entry entry = nullptr;
  try {
    function::set_places(std::move(arrival.introduction.places));
    entry = reinterpret_cast<Entry>(
        const_cast<void*>(function::resolve(arrival.entry)));
  } catch (...) {
    arrival.refuse(std::current_exception());
    _exit(1);
  }
  entry(arrival);
}

Introduction introduce_this_process() {
  return {.name = {},
          .identity = {},
          .parent_pid = getpid(),
          .parent_name = {},
          .title = first_line_of_file("/proc/self/comm"),
          .places = function::places(),
          .surroundings = {}};
}

}  // namespace shoal::handover
