// Words in shared memory that no shoal program has written: typed errors, and
// never a read out of bounds. Run under ASan, too.

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/pipe.h"

namespace {

using namespace shoal;
using namespace std::chrono_literals;

using Bytes = std::vector<std::byte>;

pipe_end::PipeState& state_of(const Connection& end) {
  return *static_cast<pipe_end::PipeState*>(
      ConnectionAccess::end(end)->object()->payload());
}

std::uint64_t pipe_position(const Connection& end) {
  return ConnectionAccess::end(end)->in()->ring.position();
}

struct Order {
  int id;
  bool live;
  std::string symbol;
  std::vector<std::string> notes;
};

// Receives in every way until there is nothing; false if something was Corrupt.
bool receive(Connection& from, unsigned how) {
  try {
    for (int i = 0; i < 10; ++i, ++how) switch (how % 4) {
        case 0:
          from.recv<Order>(now);
          break;
        case 1:
          from.recv_bytes(1 << 20, now);
          break;
        case 2: {
          Bytes buffer(1000);
          from.recv_bytes_into(buffer, 0, now);
          break;
        }
        case 3: {
          const auto view = from.peek(now);
          Bytes copy(view.bytes().begin(), view.bytes().end());
          break;
        }
      }
  } catch (const Corrupt&) {
    return false;
  } catch (const TypeMismatch&) {
  } catch (const MessageTooLong&) {
  } catch (const BufferTooShort&) {
  } catch (const TimeoutError&) {
  } catch (const EndOfFile&) {
  }
  return true;
}

TEST(PipeForeign, MutatedFrames) {
  const auto other = Pipe({.capacity = 4096});  // keeps the domain
  std::mt19937_64 random(1);
  int corrupt = 0;
  for (int round = 0; round < 1500; ++round) {
    auto [a, b] = Pipe({.duplex = false, .capacity = 4096});
    std::byte* const ring = b.reserve(0).bytes().data() - 8;
    b.send(Order{1, true, "ACME", {"x", "yy"}});
    b.send_bytes(Bytes(20));
    b.send_bytes(Bytes(3000));
    const auto n = random() % 4 + 1;
    for (auto i = n; i != 0; --i) {
      const std::size_t at = random() % 140;
      if (random() % 2 == 0)
        ring[at] = static_cast<std::byte>(random());
      else
        *reinterpret_cast<std::uint64_t*>(ring + at / 8 * 8) =
            random() >> random() % 64;
    }
    corrupt += !receive(a, static_cast<unsigned>(round));
  }
  EXPECT_GT(corrupt, 75);
}

// A header that fits the type, and no ring.
TEST(PipeForeign, FramesLongerThanTheirRing) {
  using Small = std::array<std::uint64_t, 100>;
  using Large = std::array<std::uint64_t, 8192>;
  const auto forge = [](auto value) {
    using T = decltype(value);
    auto [a, b] = Pipe({.duplex = false, .capacity = 4096});
    std::byte* ring = b.reserve(0).bytes().data() - 8;
    b.send(value);
    EXPECT_EQ(a.recv<T>(now), value);
    ring += pipe_position(a);
    *reinterpret_cast<std::uint64_t*>(ring) =
        ring::make_header(sizeof(T), 1, false);
    try {
      a.recv<T>(now);
      return true;
    } catch (const Corrupt&) {
      return false;
    }
  };
  EXPECT_TRUE(forge(Small{1}));
  EXPECT_FALSE(forge(Large{1}));
}

TEST(PipeForeign, MutatedControlWords) {
  const auto other = Pipe({.capacity = 4096});  // keeps the domain
  std::mt19937_64 random(2);
  int corrupt = 0;
  for (int round = 0; round < 1500; ++round) {
    auto [a, b] = Pipe({.duplex = false, .capacity = 4096});
    b.send(Order{1, true, "ACME", {"x", "yy"}});
    b.send_bytes(Bytes(3000));
    auto* words = reinterpret_cast<std::uint64_t*>(&state_of(a).rings[1]);
    constexpr std::size_t kWords = sizeof(ring::RingState) / 8;
    for (auto i = random() % 6 + 1; i != 0; --i)
      words[random() % kWords] = random() >> random() % 64;
    corrupt += !receive(a, static_cast<unsigned>(round));
    try {
      for (int i = 0; i < 5; ++i) {
        b.send(1, now);
        b.send_bytes(Bytes(3000), 0, npos, now);
      }
    } catch (const Corrupt&) {
      ++corrupt;
    } catch (const TimeoutError&) {
    } catch (const NoSpace&) {
    } catch (const BrokenPipe&) {
    }
  }
  EXPECT_GT(corrupt, 75);
}

// Any word of an owner is some state: nobody waits for ever, nothing crashes.
TEST(PipeForeign, MutatedOwners) {
  const auto other = Pipe({.capacity = 4096});  // keeps the domain
  std::mt19937_64 random(3);
  for (int round = 0; round < 1000; ++round) {
    auto [a, b] = Pipe({.capacity = 4096});
    state_of(a).owner[random() % 2] = random();
    try {
      a.send(1, now);
      b.recv<int>(1ms);
    } catch (const Error&) {
    } catch (const std::logic_error&) {
    }
  }
}

}  // namespace
