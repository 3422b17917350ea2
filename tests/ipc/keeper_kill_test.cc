// Killed while it sends or receives a handle, before and after every system
// call.

#include <array>
#include <cstddef>
#include <cstring>
#include <optional>

#include "gtest/gtest.h"
#include "shoal/ipc/codec.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/handle.h"
#include "shoal/ipc/passage.h"
#include "shoal/ipc/queue.h"
#include "tests/support/step.h"

namespace {

namespace codec = shoal::codec;
using shoal::Arrival;
using shoal::Deposits;
using shoal::HandleAccess;
using shoal::HandleRef;
using shoal::Queue;
using shoal::support::kill_at_every_step;
using shoal::support::Round;
using shoal::support::SweepOptions;
using shoal::support::Victim;

using Bytes = std::array<std::byte, sizeof(HandleRef)>;

void send_through(Queue<Bytes>& channel, const Queue<int>& handle) {
  Bytes bytes;
  Deposits passage(*HandleAccess::object(channel));
  codec::Writer writer(bytes, &passage);
  codec::encode(writer, handle);
  channel.put(bytes);
  passage.sent();
}

std::optional<int> value_behind(const Bytes& bytes) {
  Arrival arrival;
  return codec::from_bytes<Queue<int>>(bytes, &arrival).try_get();
}

// Clocks and the like differ from fork to fork.
constexpr SweepOptions kAroundSystemCalls{.around_system_calls = true,
                                          .strays = 30};

// Absent; or there, with a handle that works although its sender is dead.
TEST(KeeperKill, Sender) {
  kill_at_every_step(
      "AP",
      [](Round& round) {
        Queue<Bytes> channel(2);
        Victim victim([&] {
          Queue<int> mine(1);
          mine.put(7);
          send_through(channel, mine);
        });
        round.step(victim);
        round.kill(victim);
        const auto bytes = channel.try_get();
        if (bytes) round.expect(value_behind(*bytes) == 7, "the handle works");
        round.outcome(bytes ? 'P' : 'A');
        Queue<int> next(1);
        next.put(8);
        send_through(channel, next);
        round.expect(value_behind(channel.get()) == 8, "the next one works");
      },
      kAroundSystemCalls);
}

// The receiver takes the handle with it, or it is still there.
TEST(KeeperKill, Receiver) {
  kill_at_every_step(
      "PA",
      [](Round& round) {
        Queue<Bytes> channel(2);
        std::optional<Queue<int>> mine;
        Victim victim([&] { value_behind(channel.get()); });
        victim.await_prepared();
        mine.emplace(1);
        mine->put(7);
        send_through(channel, *mine);
        round.step(victim);
        round.kill(victim);
        const auto bytes = channel.try_get();
        if (bytes) round.expect(value_behind(*bytes) == 7, "the handle works");
        round.outcome(bytes ? 'P' : 'A');
        send_through(channel, *mine);
        round.expect(channel.try_get().has_value(), "the channel works");
      },
      kAroundSystemCalls);
}

}  // namespace
