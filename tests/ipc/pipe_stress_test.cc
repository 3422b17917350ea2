// Two threads at the two ends of a Pipe in one process, in both directions at
// once, short and long, with every verb; and close() from a third.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/pipe.h"
#include "shoal/ipc/wait.h"
#include "tests/support/thread.h"

namespace {

using namespace shoal;
using namespace std::chrono_literals;

using Bytes = std::vector<std::byte>;

std::size_t size_of(std::uint32_t number) {
  std::mt19937 random(number);
  return random() % 50 == 0  ? 1 + random() % 90000
         : random() % 5 == 0 ? 1 + random() % 3000
                             : 1 + random() % 40;
}
Bytes message(std::uint32_t number) {
  Bytes bytes(size_of(number));
  for (std::size_t i = 0; i < bytes.size(); ++i)
    bytes[i] = static_cast<std::byte>(number + i * 7);
  return bytes;
}

void send_all(Connection& to, std::uint32_t count) {
  for (std::uint32_t i = 0; i < count; ++i) {
    const Bytes bytes = message(i);
    if (i % 3 == 0) {
      auto frame = to.reserve(bytes.size());
      std::copy(bytes.begin(), bytes.end(), frame.bytes().begin());
      frame.commit();
    } else if (i % 3 == 1) {
      to.send_bytes(bytes);
    } else {
      to.send(bytes);
    }
    if (i % 97 == 0) std::this_thread::yield();
  }
}

void receive_all(Connection& from, std::uint32_t count) {
  for (std::uint32_t i = 0; i < count; ++i) {
    const Bytes expected = message(i);
    if (i % 7 == 0) (void)from.poll(1ms);
    if (i % 3 == 2) {
      ASSERT_EQ(from.recv<Bytes>(), expected) << i;
    } else if (i % 2 == 0) {
      ASSERT_EQ(from.recv_bytes(), expected) << i;
    } else {
      const auto view = from.peek();
      ASSERT_TRUE(std::ranges::equal(view.bytes(), expected)) << i;
    }
  }
}

TEST(PipeStress, BothDirectionsAtOnce) {
  for (const std::size_t capacity : {std::size_t{4096}, std::size_t{1} << 20}) {
    auto [a, b] = Pipe({.capacity = capacity});
    constexpr std::uint32_t kCount = 6000;
    std::vector<std::thread> threads;
    threads.emplace_back([&a = a] { send_all(a, kCount); });
    threads.emplace_back([&b = b] { send_all(b, kCount); });
    threads.emplace_back([&a = a] { receive_all(a, kCount); });
    threads.emplace_back([&b = b] { receive_all(b, kCount); });
    for (auto& thread : threads) thread.join();
  }
}

TEST(PipeStress, ClosedInTheMiddle) {
  for (int round = 0; round < 200; ++round) {
    auto [a, b] = Pipe({.capacity = 4096});
    support::Thread sender([&a = a] {
      try {
        for (std::uint32_t i = 0;; ++i) a.send(i);
      } catch (const BrokenPipe&) {
      } catch (const Closed&) {
      }
    });
    support::Thread receiver([&b = b] {
      try {
        for (std::uint32_t i = 0;; ++i) ASSERT_EQ(b.recv<std::uint32_t>(), i);
      } catch (const EndOfFile&) {
      } catch (const Closed&) {
      }
    });
    for (int i = 0; i < round * 20; ++i) waiting::pause();
    round % 2 == 0 ? a.close() : b.close();
    ASSERT_TRUE(sender.ends());
    ASSERT_TRUE(receiver.ends());
  }
}

// What waits reads nothing that is the receiving thread's.
TEST(PipeStress, WaitedForBesideAReceiver) {
#if defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a place may be read that is content by now; what was read "
                  "there is thrown away";
#endif
  constexpr std::uint32_t kCount = 3000;
  auto ends = Pipe(PipeOptions{.capacity = 4096});
  Connection& sender = ends.first;
  Connection& receiver = ends.second;
  std::thread sends([&] { send_all(sender, kCount); });
  std::atomic<bool> done = false;
  std::thread receives([&] {
    receive_all(receiver, kCount);
    done = true;
  });
  while (!done) EXPECT_NO_THROW((void)wait({receiver}, 1ms));
  sends.join();
  receives.join();
}

}  // namespace
