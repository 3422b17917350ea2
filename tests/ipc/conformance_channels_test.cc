// What multiprocessing says of Pipe, Connection, Listener, wait and the kinds
// of Queue, where no other test asks for it; docs/conformance.md names the test
// for each sentence.

#include <array>
#include <chrono>
#include <cstddef>
#include <deque>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/listener.h"
#include "shoal/ipc/pipe.h"
#include "shoal/ipc/queue.h"
#include "shoal/ipc/wait.h"
#include "tests/support/child.h"
#include "tests/support/residue.h"
#include "tests/support/thread.h"

namespace {

using namespace shoal;
using namespace std::chrono_literals;
using support::Child;
using support::Thread;

using Bytes = std::vector<std::byte>;

// ---- negative timeouts ----

// In a thread, which ends the test program if the call waits.
template <class Expected>
void ends_at_once(const std::function<void(Timeout)>& call) {
  Thread caller([&] {
    for (const Timeout timeout : {Timeout(-1ns), Timeout(-1000h),
                                  Timeout(std::chrono::nanoseconds::min())})
      EXPECT_THROW(call(timeout), Expected);
  });
  EXPECT_TRUE(caller.ends());
}

TEST(ConformanceTimeout, NegativeIsNowForConnections) {
  auto [a, b] = Pipe({.capacity = 4096});
  const auto receive = [&, &end = b](auto verb) {
    ends_at_once<TimeoutError>([&](Timeout t) { verb(end, t); });
  };
  Bytes buffer(8);
  receive([](Connection& c, Timeout t) { c.recv<int>(t); });
  receive([](Connection& c, Timeout t) { c.recv_bytes(npos, t); });
  receive([&](Connection& c, Timeout t) { c.recv_bytes_into(buffer, 0, t); });
  receive([](Connection& c, Timeout t) { (void)c.peek(t); });
  EXPECT_FALSE(b.poll(-1000h));
  const auto send = [&, &end = a](auto verb) {
    ends_at_once<TimeoutError>([&](Timeout t) { verb(end, t); });
  };
  int sent = 0;
  try {
    for (;; ++sent) a.send(sent, -1000h);
  } catch (const TimeoutError&) {
  }
  EXPECT_GT(sent, 200) << "there was room";
  send([](Connection& c, Timeout t) { c.send(1, t); });
  send([](Connection& c, Timeout t) { c.send(std::string("text"), t); });
  send([](Connection& c, Timeout t) { c.send_bytes(Bytes(9), 0, npos, t); });
  send([](Connection& c, Timeout t) { (void)c.reserve(9, t); });
  for (int i = 0; i < sent; ++i) EXPECT_EQ(b.recv<int>(-1000h), i);
}

TEST(ConformanceTimeout, NegativeIsNowForListeners) {
  const std::string name = support::unique_name("listener");
  ends_at_once<TimeoutError>([&](Timeout t) { connect(name, t); });
  Listener listener(name);
  ends_at_once<TimeoutError>([&](Timeout t) { listener.accept(t); });
  ends_at_once<TimeoutError>([&](Timeout t) { connect(name, t); });
}

TEST(ConformanceTimeout, NegativeIsNowForEveryKindOfQueue) {
  SimpleQueue<int> simple;
  ends_at_once<Empty>([&](Timeout t) { simple.get(t); });
  simple.put(1);
  EXPECT_EQ(simple.get(-1000h), 1) << "there is one";
  JoinableQueue<int> joinable(1);
  EXPECT_TRUE(joinable.join(-1000h)) << "nothing is to be done";
  joinable.put(1, -1000h);
  ends_at_once<Full>([&](Timeout t) { joinable.put(2, t); });
  ends_at_once<TimeoutError>([&](Timeout t) {
    if (!joinable.join(t)) throw TimeoutError("as if");
  });
}

// ---- Pipe ----

TEST(ConformancePipe, WrongDirectionIsALogicErrorForTheRest) {
  auto [reader, writer] = Pipe(false);
  Bytes buffer(8);
  EXPECT_THROW(writer.recv_bytes_into(buffer), std::logic_error);
  EXPECT_THROW((void)writer.fileno(), std::logic_error);
  EXPECT_THROW(shoal::wait({writer}, now), std::logic_error);
  EXPECT_THROW(reader.send("text"), std::logic_error);
  EXPECT_THROW(reader.send(std::vector<int>{1}), std::logic_error);
  writer.send(1);
  EXPECT_EQ(reader.recv<int>(), 1) << "none the worse";
}

TEST(ConformancePipe, ClosedRefusesTheRest) {
  auto [a, b] = Pipe();
  const int descriptor = a.fileno();
  EXPECT_GE(descriptor, 0);
  a.close();
  Bytes buffer(8);
  EXPECT_THROW((void)a.fileno(), Closed);
  EXPECT_THROW(a.recv_bytes_into(buffer), Closed);
  EXPECT_THROW(a.send("text"), Closed);
  EXPECT_THROW(shoal::wait({a}, now), Closed);
  auto [c, d] = Pipe(false);
  c.close();
  d.close();
  EXPECT_THROW(c.send(1), Closed) << "closed comes before the direction";
  EXPECT_THROW(d.recv<int>(), Closed);
}

// A limit of multiprocessing's documentation.
TEST(ConformancePipe, MessagesBeyond32Megabytes) {
  auto [a, b] = Pipe();
  const std::string text((32 << 20) + 1, 'x');
  a.send_bytes(text);
  EXPECT_EQ(b.recv_bytes().size(), text.size());
  b.send(text);
  EXPECT_TRUE(a.recv<std::string>() == text);
}

// multiprocessing: ConnectionResetError.
TEST(ConformancePipe, ClosedWithUnreadMessagesIsEndOfFile) {
  auto [a, b] = Pipe();
  a.send(1);
  b.close();
  EXPECT_TRUE(a.poll());
  EXPECT_THROW(a.recv<int>(), EndOfFile);
  EXPECT_THROW(a.send(2), BrokenPipe);
}

// Row l, for the verbs beside recv and send.
TEST(ConformancePipe, CloseWakesEveryVerb) {
  const auto wakes = [](bool fill, auto verb) {
    auto [a, b] = Pipe({.capacity = 4096});
    try {
      while (fill) a.send(1, now);
    } catch (const TimeoutError&) {
    }
    Thread blocked([&, &a = a] { EXPECT_THROW(verb(a), Closed); });
    ASSERT_TRUE(blocked.falls_asleep());
    a.close();
    EXPECT_TRUE(blocked.ends());
  };
  Bytes buffer(8);
  wakes(false, [](Connection& c) { (void)c.poll(forever); });
  wakes(false, [](Connection& c) { c.recv_bytes(); });
  wakes(false, [&](Connection& c) { c.recv_bytes_into(buffer); });
  wakes(false, [](Connection& c) { (void)c.peek(); });
  wakes(true, [](Connection& c) { (void)c.reserve(9); });
  wakes(true, [](Connection& c) { c.send_bytes(Bytes(9)); });
  wakes(true, [](Connection& c) { c.send_bytes(Bytes(100000)); });
}

// ---- wait ----

TEST(ConformanceWait, ForNothingSleeps) {
  const auto before = monotonic_now();
  EXPECT_TRUE(shoal::wait({}, 40ms).empty());
  const std::chrono::nanoseconds took(monotonic_now() - before);
  EXPECT_GE(took, 40ms);
  EXPECT_LT(took, 10s);
  EXPECT_TRUE(shoal::wait({}, -1000h).empty());
}

TEST(ConformanceWait, CloseOfWhatIsWaitedForWakes) {
  auto [a, b] = Pipe();
  Thread connection([&, &a = a] { EXPECT_THROW(shoal::wait({a}), Closed); });
  ASSERT_TRUE(connection.falls_asleep());
  a.close();
  EXPECT_TRUE(connection.ends());
  Queue<int> queue(1);
  Thread getter([&] { EXPECT_THROW(shoal::wait({queue}), Closed); });
  ASSERT_TRUE(getter.falls_asleep());
  queue.close();
  EXPECT_TRUE(getter.ends());
}

// ---- the kinds of Queue ----

TEST(ConformanceQueue, ClosedRefusesTheRest) {
  JoinableQueue<int> queue(2);
  JoinableQueue<int> copy(queue);
  queue.join_thread();  // any time: there is nothing to wait for
  queue.cancel_join_thread();
  queue.put(1);
  queue.close();
  EXPECT_THROW((void)queue.empty(), Closed);
  EXPECT_THROW((void)queue.full(), Closed);
  EXPECT_THROW((void)queue.qsize(), Closed);
  EXPECT_THROW((void)queue.fileno(), Closed);
  EXPECT_THROW(queue.task_done(), Closed);
  EXPECT_THROW(queue.join(now), Closed);
  EXPECT_EQ(queue.maxsize(), 2u) << "what it is made of can be read";
  EXPECT_EQ(copy.qsize(), 1u);
  EXPECT_FALSE(copy.empty() || copy.full());
  SimpleQueue<int> simple;
  simple.close();
  simple.close();
  EXPECT_THROW((void)simple.empty(), Closed);
}

// multiprocessing: Empty while the items are in a feeder or another reads.
TEST(ConformanceQueue, NobodyIsToldEmptyOrFullWhileThereIsEnoughForAll) {
  constexpr int kEach = 500;
  Queue<int> queue(4 * kEach);
  for (const bool put : {true, false}) {
    std::deque<Child> children;
    for (int n = 0; n < 4; ++n)
      children.emplace_back([&](Child&) {
        for (int i = 0; i < kEach; ++i)
          put ? queue.put_nowait(i) : (void)queue.get_nowait();
      });
    for (auto& child : children) EXPECT_EQ(child.join(), 0) << child.failures();
    EXPECT_EQ(queue.full(), put);
    EXPECT_EQ(queue.empty(), !put);
    EXPECT_EQ(queue.qsize(), put ? 4u * kEach : 0u);
  }
}

}  // namespace
