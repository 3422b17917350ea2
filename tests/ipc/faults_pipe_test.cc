// Pipes whose system calls are refused: in the making, on short messages and
// on those that lie aside, at descriptors; nothing is lost or said twice.

#include <poll.h>

#include <memory>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include "shoal/ipc/pipe.h"
#include "tests/ipc/faults_scene.h"

namespace {

using shoal::Connection;
using shoal::now;
using shoal::Pipe;
using shoal::support::error_name;
using shoal::support::Faults;
using shoal::support::kErrors;
using shoal::support::require;

std::vector<int> numbers(std::size_t count) {
  std::vector<int> made(count);
  std::iota(made.begin(), made.end(), 1);
  return made;
}

// A Pipe that is there before and after the fault. What was sent is received
// once, also when the call that was to receive it was refused.
struct Talk {
  std::pair<Connection, Connection> ends;
  int sent = 0;
  int received = 0;

  explicit Talk(shoal::PipeOptions options = {}) : ends(Pipe(options)) {}

  template <class Message>
  void send(const Message& message) {
    ends.first.send(message, now);
    ++sent;
  }
  template <class Message>
  void receive(const Message& expected) {
    while (received < sent) {
      require(ends.second.recv<Message>(now) == expected, "another message");
      ++received;
    }
    require(!ends.second.poll(), "a message too many");
  }
};

TEST_P(Faults, MakingAPipe) {
  for (const bool duplex : {true, false})
    expect_typed(
        [&] {
          auto [reader, writer] = Pipe(duplex);
          writer.send(7);
          require(reader.recv<int>(now) == 7, "not what was sent");
        },
        5);
}

TEST_P(Faults, ShortMessages) {
  std::optional<Talk> talk;
  expect_typed(
      [&] {
        talk->receive(7);
        talk->send(7);
        talk->receive(7);
      },
      0, [&] { talk.emplace(); });
}

TEST_P(Faults, MessagesLongerThanTheRing) {
  // Of one that keeps its pages, and of one that gives them back; the latter
  // takes long, and no error another path than these two.
  for (const std::size_t bytes : {64 << 10, 65 << 20}) {
    if (bytes > 1 << 20 && GetParam() != ENOMEM && GetParam() != ENOSPC)
      continue;
    const auto message = numbers(bytes / sizeof(int));
    std::optional<Talk> talk;
    expect_typed(
        [&] {
          talk->receive(message);
          talk->send(message);
          talk->receive(message);
        },
        1, [&] { talk.emplace(shoal::PipeOptions{.capacity = 4096}); });
  }
}

TEST_P(Faults, BytesLongerThanTheRing) {
  const auto message = numbers(200'000);
  std::optional<std::pair<Connection, Connection>> ends;
  bool there = false;
  expect_typed(
      [&] {
        if (!there) ends->first.send_bytes(message, 0, shoal::npos, now);
        there = true;
        std::vector<int> got(message.size());
        ends->second.recv_bytes_into(std::as_writable_bytes(std::span(got)), 0,
                                     now);
        there = false;
        require(got == message, "other bytes");
      },
      1, [&] { ends = Pipe(shoal::PipeOptions{.capacity = 4096}); });
}

TEST_P(Faults, PollAndFileno) {
  std::optional<Talk> talk;
  expect_typed(
      [&] {
        talk->receive(7);
        pollfd polled{talk->ends.second.fileno(), POLLIN, 0};
        talk->send(7);
        require(poll(&polled, 1, 30'000) == 1, "not readable");
        talk->receive(7);
      },
      2, [&] { talk.emplace(); });
}

INSTANTIATE_TEST_SUITE_P(Errors, Faults, kErrors, error_name);

}  // namespace
