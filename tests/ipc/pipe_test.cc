// Pipe and Connection within one process: each verb, as multiprocessing has
// it, and what is different on purpose.

#include "shoal/ipc/pipe.h"

#include <poll.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/fd.h"
#include "shoal/ipc/wait.h"
#include "tests/support/residue.h"
#include "tests/support/thread.h"
#include "tests/support/thrown.h"

namespace {

using namespace shoal;
using namespace std::chrono_literals;
using support::Thread;
using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

using Bytes = std::vector<std::byte>;

Bytes pattern(std::size_t n, unsigned seed = 1) {
  Bytes bytes(n);
  for (std::size_t i = 0; i < n; ++i)
    bytes[i] = static_cast<std::byte>((i * 31 + i / 253 + seed) & 0xFF);
  return bytes;
}
std::string text_of(const Bytes& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

struct Order {
  int id;
  double price;
  bool operator==(const Order&) const = default;
};
struct Book {
  std::string symbol;
  std::vector<Order> orders;
  bool operator==(const Book&) const = default;
};

// ---- making ----

TEST(Pipe, DuplexAndSimplex) {
  {
    auto [a, b] = Pipe();
    EXPECT_TRUE(a.readable() && a.writable() && b.readable() && b.writable());
    a.send(1);
    b.send(2);
    EXPECT_EQ(b.recv<int>(), 1);
    EXPECT_EQ(a.recv<int>(), 2);
  }
  auto [reader, writer] = Pipe(false);
  EXPECT_TRUE(reader.readable() && !reader.writable());
  EXPECT_TRUE(!writer.readable() && writer.writable());
  writer.send(3);
  EXPECT_EQ(reader.recv<int>(), 3);
  EXPECT_THROW(reader.send(1), std::logic_error);
  EXPECT_THROW(reader.send_bytes(std::string("x")), std::logic_error);
  EXPECT_THROW((void)reader.reserve(1), std::logic_error);
  EXPECT_THROW(writer.recv<int>(), std::logic_error);
  EXPECT_THROW(writer.recv_bytes(), std::logic_error);
  EXPECT_THROW((void)writer.peek(), std::logic_error);
  EXPECT_THROW((void)writer.poll(), std::logic_error);
}

TEST(Pipe, CapacityIsRoundedUpAndChecked) {
  auto [a, b] = Pipe({.capacity = 0});
  a.send(1);
  EXPECT_EQ(b.recv<int>(), 1);
  EXPECT_THROW(Pipe({.capacity = static_cast<std::size_t>(-1)}),
               std::invalid_argument);
  EXPECT_THROW(Pipe({.capacity = std::size_t{1} << 60}), NoSpace);
}

TEST(Pipe, LeavesNothingBehind) {
  const auto before = support::belongings();
  {
    auto [a, b] = Pipe();
    a.send(Book{"X", {{1, 2}}});
    a.send_bytes(pattern(600000));
    b.recv<Book>();
    b.recv_bytes();
  }
  EXPECT_EQ(support::belongings(), before);
}

// ---- values ----

TEST(Pipe, CarriesMessages) {
  auto [a, b] = Pipe();
  const Book book{"ACME", {{1, 2.5}, {2, 3.5}}};
  a.send(book);
  a.send(Book(book));
  a.send<Order>({7, 1.5});
  a.send(std::map<std::string, std::vector<int>>{{"x", {1, 2}}});
  a.send(std::variant<int, std::string>("v"));
  a.send(std::make_unique<int>(9));
  a.send(std::string());
  EXPECT_EQ(b.recv<Book>(), book);
  EXPECT_EQ(b.recv<Book>(), book);
  EXPECT_EQ(b.recv<Order>(), (Order{7, 1.5}));
  EXPECT_EQ((b.recv<std::map<std::string, std::vector<int>>>().at("x")),
            (std::vector<int>{1, 2}));
  EXPECT_EQ(std::get<1>(b.recv<std::variant<int, std::string>>()), "v");
  EXPECT_EQ(*b.recv<std::unique_ptr<int>>(), 9);
  EXPECT_EQ(b.recv<std::string>(), "");
  EXPECT_FALSE(b.poll());
}

TEST(Pipe, StringLiteralsTravelAsStrings) {
  auto [a, b] = Pipe();
  a.send("hello");
  const char text[] = "array";
  a.send(text, 1s);
  EXPECT_EQ(b.recv<std::string>(), "hello");
  EXPECT_EQ(b.recv<std::string>(), "array");
}

TEST(Pipe, LvaluesAndConstants) {
  auto [a, b] = Pipe();
  int value = 4;
  const int constant = 5;
  a.send(value);
  a.send(constant, 1s);
  a.send<int>(value);
  a.send<long>(6);
  for (const int expected : {4, 5, 4}) EXPECT_EQ(b.recv<int>(), expected);
  EXPECT_EQ(b.recv<long>(), 6);
}

TEST(Pipe, TypeMismatchPrintsBothAndLeavesTheMessage) {
  auto [a, b] = Pipe();
  a.send(Order{1, 2});
  a.send(std::string("next"));
  for (int i = 0; i < 2; ++i)
    EXPECT_THAT(
        support::text_of_mismatch([&, &b = b] { b.recv<int>(); }),
        AllOf(HasSubstr("expected: int"), HasSubstr("0 int, 8 double")));
  EXPECT_EQ(b.recv<Order>(), (Order{1, 2}));
  EXPECT_THROW(b.recv<Order>(), TypeMismatch);
  EXPECT_EQ(b.recv<std::string>(), "next");
  a.send_bytes(std::string("raw!"));
  EXPECT_THAT(support::text_of_mismatch([&, &b = b] { b.recv<int>(); }),
              HasSubstr("found:    bytes"));
  EXPECT_EQ(text_of(b.recv_bytes()), "raw!");
}

template <int kN>
struct Numbered {
  std::array<char, kN> text;
};
template <int... kN>
void send_numbered(Connection& a, std::integer_sequence<int, kN...>) {
  (a.send(Numbered<kN + 1>{}), ...);
}
template <int... kN>
void recv_numbered(Connection& b, std::integer_sequence<int, kN...>) {
  (b.recv<Numbered<kN + 1>>(), ...);
}

// Trivially copyable, with an assignment that is anything but.
struct Greedy {
  int value = 0;
  Greedy() = default;
  Greedy(const Greedy&) = default;
  Greedy& operator=(const Greedy&) = default;
  template <class U>
  Greedy& operator=(U&&) {
    return *this;
  }
};
struct Unmovable {
  int value = 0;
  Unmovable() = default;
  Unmovable(const Unmovable&) = default;
  Unmovable& operator=(const Unmovable&) = default;
  Unmovable& operator=(Unmovable&&) = delete;
};

TEST(Pipe, ReceivesWithoutAssignment) {
  auto [a, b] = Pipe();
  for (int i = 1; i < 4; ++i) {
    Greedy greedy;
    greedy.value = i;
    a.send(greedy);
    EXPECT_EQ(b.recv<Greedy>().value, i);
  }
  for (int i = 1; i < 4; ++i) {
    Unmovable unmovable;
    unmovable.value = i;
    a.send(unmovable);
    EXPECT_EQ(b.recv<Unmovable>().value, i);
  }
}

TEST(Pipe, ManyTypesBothWays) {
  auto [a, b] = Pipe();
  constexpr std::make_integer_sequence<int, 40> kAll;
  for (int i = 0; i < 3; ++i) {
    send_numbered(a, kAll);
    send_numbered(b, kAll);
    recv_numbered(b, kAll);
    recv_numbered(a, kAll);
  }
}

// As Python's, for what was sent with a type.
TEST(Pipe, TypedMessagesAreBytesToo) {
  auto [a, b] = Pipe();
  a.send(std::int32_t{0x01020304});
  EXPECT_EQ(b.recv_bytes(),
            (Bytes{std::byte{4}, std::byte{3}, std::byte{2}, std::byte{1}}));
}

// What the bytes say is not what their type says: the message is lost, the
// Connection is not.
TEST(Pipe, CorruptMessagesAreConsumed) {
  auto [a, b] = Pipe();
  std::byte* const place = a.reserve(20).bytes().data();
  a.send(std::vector<int>{1, 2, 3});
  const std::uint64_t count = 1 << 30;
  std::memcpy(place, &count, sizeof count);
  a.send(std::vector<int>{4});
  EXPECT_THROW(b.recv<std::vector<int>>(), Corrupt);
  EXPECT_EQ(b.recv<std::vector<int>>(), std::vector<int>{4});
}

// ---- bytes ----

TEST(Pipe, BytesOfAnyLength) {
  auto [a, b] = Pipe({.capacity = 4096});
  std::vector<std::size_t> sizes = {0,    1,     7,     8,       9,
                                    1000, 1023,  1024,  1025,    4096,
                                    5000, 65536, 65537, 1 << 20, 3000001};
  for (const std::size_t n : sizes) {
    a.send_bytes(pattern(n));
    EXPECT_EQ(b.recv_bytes(), pattern(n)) << n;
  }
  for (const std::size_t n : sizes) {
    b.send_bytes(pattern(n, 5));
    Bytes into(n + 3);
    EXPECT_EQ(a.recv_bytes_into(into, 3), n);
    EXPECT_TRUE(std::equal(into.begin() + 3, into.end(), pattern(n, 5).begin()))
        << n;
  }
}

TEST(Pipe, ZeroLengthMessagesAreMessages) {
  auto [a, b] = Pipe();
  a.send_bytes(Bytes());
  a.send_bytes(std::string_view());
  EXPECT_TRUE(b.poll());
  EXPECT_TRUE(b.recv_bytes().empty());
  EXPECT_EQ(b.recv_bytes_into({}), 0u);
  EXPECT_FALSE(b.poll());
}

TEST(Pipe, RangesAndTheirParts) {
  auto [a, b] = Pipe();
  a.send_bytes(std::string_view("0123456789"), 3);
  a.send_bytes(std::string("0123456789"), 3, 4);
  a.send_bytes(std::array<std::uint8_t, 3>{'a', 'b', 'c'}, 3);
  a.send_bytes(std::vector<std::uint16_t>{0x4241, 0x4443}, 1, 2);
  const unsigned char buffer[] = {'x', 'y'};
  a.send_bytes(buffer);
  a.send_bytes(std::span(buffer, 1), 0, npos, 1s);
  for (const char* expected : {"3456789", "3456", "", "BC", "xy", "x"})
    EXPECT_EQ(text_of(b.recv_bytes()), expected);
  EXPECT_THROW(a.send_bytes(std::string("abc"), 4), std::out_of_range);
  EXPECT_THROW(a.send_bytes(std::string("abc"), 1, 3), std::out_of_range);
  EXPECT_THROW(a.send_bytes(std::string("abc"), static_cast<std::size_t>(-5)),
               std::invalid_argument);
  EXPECT_THROW(
      a.send_bytes(std::string("abc"), 0, static_cast<std::size_t>(-5)),
      std::invalid_argument);
  EXPECT_FALSE(b.poll());
}

TEST(Pipe, MaxlengthLeavesAllIntact) {
  for (const std::size_t n : {std::size_t{100}, std::size_t{500000}}) {
    auto [a, b] = Pipe();
    a.send_bytes(pattern(n));
    EXPECT_THROW(b.recv_bytes(n - 1), MessageTooLong);
    EXPECT_THROW(b.recv_bytes(0), MessageTooLong);
    EXPECT_THROW(b.recv_bytes(static_cast<std::size_t>(-2)),
                 std::invalid_argument);
    EXPECT_EQ(b.recv_bytes(n), pattern(n));
    b.send(1);
    EXPECT_EQ(a.recv<int>(), 1);
  }
}

TEST(Pipe, BufferTooShortCarriesTheMessage) {
  for (const std::size_t n : {std::size_t{100}, std::size_t{500000}}) {
    auto [a, b] = Pipe();
    a.send_bytes(pattern(n));
    a.send(2);
    Bytes buffer(n);
    EXPECT_THROW(b.recv_bytes_into(buffer, n + 1), std::out_of_range);
    try {
      b.recv_bytes_into(buffer, 1);
      ADD_FAILURE();
    } catch (const BufferTooShort& error) {
      EXPECT_EQ(error.message(), pattern(n));
    }
    EXPECT_EQ(b.recv<int>(), 2);
  }
}

// ---- in place ----

TEST(Pipe, ReserveAndCommit) {
  auto [a, b] = Pipe({.capacity = 4096});
  for (const std::size_t n :
       {std::size_t{0}, std::size_t{10}, std::size_t{9000}}) {
    {
      auto frame = a.reserve(n);
      ASSERT_EQ(frame.bytes().size(), n);
      const Bytes bytes = pattern(n);
      std::copy(bytes.begin(), bytes.end(), frame.bytes().begin());
      EXPECT_FALSE(b.poll());
      EXPECT_THROW(a.send(1), std::logic_error);
      frame.commit();
      EXPECT_THROW(frame.commit(), std::logic_error);
      a.send(1);  // it is no longer in the way
    }
    EXPECT_EQ(b.recv_bytes(), pattern(n));
    EXPECT_EQ(b.recv<int>(), 1);
  }
}

TEST(Pipe, DroppedFramesNeverWere) {
  auto [a, b] = Pipe({.capacity = 4096});
  for (int i = 0; i < 20; ++i)
    for (const std::size_t n : {std::size_t{10}, std::size_t{9000}}) {
      auto frame = a.reserve(n);
      std::fill(frame.bytes().begin(), frame.bytes().end(), std::byte{0xFF});
      auto moved = std::move(frame);
      EXPECT_EQ(moved.bytes().size(), n);
      EXPECT_TRUE(frame.bytes().empty());
    }
  EXPECT_FALSE(b.poll());
  a.send_bytes(pattern(9000));
  EXPECT_EQ(b.recv_bytes(), pattern(9000));
}

TEST(Pipe, PeekReadsInPlace) {
  auto [a, b] = Pipe();
  for (const std::size_t n :
       {std::size_t{0}, std::size_t{10}, std::size_t{700000}}) {
    a.send_bytes(pattern(n));
    a.send(1);
    {
      const auto view = b.peek();
      EXPECT_TRUE(std::ranges::equal(view.bytes(), pattern(n)));
      EXPECT_THROW(b.recv<int>(), std::logic_error);
    }
    EXPECT_EQ(b.recv<int>(), 1);
  }
}

TEST(Pipe, FramesAndViewsOutliveTheirConnection) {
  std::unique_ptr<Frame> frame;
  std::unique_ptr<View> view;
  {
    auto [a, b] = Pipe();
    a.send(7);
    frame = std::make_unique<Frame>(a.reserve(8));
    view = std::make_unique<View>(b.peek());
  }
  EXPECT_EQ(view->bytes().size(), 4u);
  EXPECT_THROW(frame->commit(), Closed);
}

// ---- waiting ----

TEST(Pipe, Poll) {
  auto [a, b] = Pipe();
  EXPECT_FALSE(b.poll());
  EXPECT_FALSE(b.poll(-1s));
  EXPECT_FALSE(b.poll(5ms));
  a.send(1);
  EXPECT_TRUE(b.poll());
  EXPECT_TRUE(b.poll(forever));
  b.recv<int>();
  EXPECT_FALSE(b.poll());
  a.close();
  EXPECT_TRUE(b.poll());
  EXPECT_TRUE(b.poll(forever));
}

TEST(Pipe, TimeoutsLoseNothing) {
  auto [a, b] = Pipe({.capacity = 4096});
  EXPECT_THROW(b.recv<int>(now), TimeoutError);
  EXPECT_THROW(b.recv<int>(2ms), TimeoutError);
  EXPECT_THROW(b.recv_bytes(npos, 2ms), TimeoutError);
  EXPECT_THROW((void)b.peek(2ms), TimeoutError);
  int sent = 0;
  try {
    for (;; ++sent) a.send(sent, 2ms);
  } catch (const TimeoutError&) {
  }
  EXPECT_GT(sent, 200);
  EXPECT_THROW((void)a.reserve(500, now), TimeoutError);
  EXPECT_THROW(a.send_bytes(pattern(100000), 0, npos, 2ms), TimeoutError);
  for (int i = 0; i < sent; ++i) EXPECT_EQ(b.recv<int>(), i);
  EXPECT_FALSE(b.poll());
}

TEST(Pipe, LongMessagesWaitForABlock) {
  auto [a, b] = Pipe({.capacity = 4096});
  unsigned sent = 0;
  try {
    for (;; ++sent) a.send_bytes(pattern(5000, sent), 0, npos, 2ms);
  } catch (const TimeoutError&) {
  }
  EXPECT_EQ(sent, 4u);
  Thread sender([&, &a = a] { a.send_bytes(pattern(5000, 4)); });
  ASSERT_TRUE(sender.falls_asleep());
  for (unsigned i = 0; i < 5; ++i) EXPECT_EQ(b.recv_bytes(), pattern(5000, i));
  EXPECT_TRUE(sender.ends());
}

TEST(Pipe, ReceiverSleepsUntilAMessageComes) {
  auto [a, b] = Pipe();
  Thread receiver([&b = b] { EXPECT_EQ(b.recv<int>(), 7); });
  ASSERT_TRUE(receiver.falls_asleep());
  a.send(7);
  EXPECT_TRUE(receiver.ends());
}

TEST(Pipe, SenderSleepsUntilThereIsRoom) {
  auto [a, b] = Pipe({.capacity = 4096});
  Thread sender([&a = a] {
    for (int i = 0; i < 2000; ++i) a.send(i);
  });
  ASSERT_TRUE(sender.falls_asleep());
  for (int i = 0; i < 2000; ++i) EXPECT_EQ(b.recv<int>(), i);
  EXPECT_TRUE(sender.ends());
}

// One message makes room for exactly one: the sender does not wait for a
// quarter of the ring.
TEST(Pipe, OneMessageMakesRoomForOne) {
  auto [a, b] = Pipe({.capacity = 4096});
  int sent = 0;
  try {
    for (;; ++sent) a.send(sent, now);
  } catch (const TimeoutError&) {
  }
  for (int i = 0; i < 10; ++i) {
    Thread sender([&, &a = a] { a.send(sent++); });
    ASSERT_TRUE(sender.falls_asleep());
    EXPECT_EQ(b.recv<int>(), i);
    EXPECT_TRUE(sender.ends());
  }
}

// ---- ends ----

TEST(Pipe, EndOfFileAfterDraining) {
  auto [a, b] = Pipe();
  a.send(1);
  a.send_bytes(pattern(600000));
  a.close();
  EXPECT_EQ(b.recv<int>(), 1);
  EXPECT_EQ(b.recv_bytes(), pattern(600000));
  for (int i = 0; i < 2; ++i) {
    EXPECT_THROW(b.recv<int>(), EndOfFile);
    EXPECT_THROW(b.recv_bytes(), EndOfFile);
    EXPECT_THROW((void)b.peek(), EndOfFile);
  }
  try {
    b.recv<int>();
  } catch (const PeerDied&) {
    ADD_FAILURE() << "nobody died";
  } catch (const EndOfFile&) {
  }
  EXPECT_THROW(b.send(1), BrokenPipe);
  EXPECT_THROW(b.send_bytes(pattern(600000)), BrokenPipe);
  EXPECT_THROW((void)b.reserve(1), BrokenPipe);
}

TEST(Pipe, BothDirectionsClose) {
  auto [a, b] = Pipe();
  b.send(5);
  a.close();
  EXPECT_THROW(b.send(1), BrokenPipe);
  b.close();
  EXPECT_THROW(b.send(1), Closed);
}

TEST(Pipe, CloseIsIdempotentAndFinal) {
  auto [a, b] = Pipe();
  EXPECT_FALSE(a.closed());
  a.close();
  a.close();
  EXPECT_TRUE(a.closed());
  EXPECT_TRUE(a.readable());
  EXPECT_THROW(a.send(1), Closed);
  EXPECT_THROW(a.send_bytes(Bytes()), Closed);
  EXPECT_THROW(a.recv<int>(), Closed);
  EXPECT_THROW(a.recv_bytes(), Closed);
  EXPECT_THROW((void)a.poll(), Closed);
  EXPECT_THROW((void)a.peek(), Closed);
  EXPECT_THROW((void)a.reserve(1), Closed);
  EXPECT_FALSE(b.closed());
}

TEST(Pipe, MovedFromIsClosed) {
  auto [a, b] = Pipe();
  Connection c = std::move(a);
  EXPECT_TRUE(a.closed());  // NOLINT(bugprone-use-after-move)
  EXPECT_FALSE(a.readable() || a.writable());
  EXPECT_THROW(a.send(1), Closed);
  EXPECT_THROW(a.recv<int>(), Closed);
  a.close();
  c.send(1);
  EXPECT_EQ(b.recv<int>(), 1);
  a = std::move(c);
  a.send(2);
  EXPECT_EQ(b.recv<int>(), 2);
  auto [d, e] = Pipe();
  d = std::move(a);  // closes what it was
  EXPECT_THROW(e.recv<int>(), EndOfFile);
  d.send(3);
  EXPECT_EQ(b.recv<int>(), 3);
}

TEST(Pipe, DestructionCloses) {
  auto pair = Pipe();
  { const Connection gone = std::move(pair.first); }
  EXPECT_THROW(pair.second.recv<int>(), EndOfFile);
}

// multiprocessing leaves it blocked (notes/multiprocessing.md §2, l).
TEST(Pipe, CloseWakesBlockedCalls) {
  auto [a, b] = Pipe({.capacity = 4096});
  Thread receiver([&a = a] { EXPECT_THROW(a.recv<int>(), Closed); });
  Thread sender([&a = a] { EXPECT_THROW(for (;;) a.send(1), Closed); });
  ASSERT_TRUE(receiver.falls_asleep());
  ASSERT_TRUE(sender.falls_asleep());
  a.close();
  EXPECT_TRUE(receiver.ends());
  EXPECT_TRUE(sender.ends());
}

TEST(Pipe, CloseWakesTheOtherEnd) {
  auto [a, b] = Pipe({.capacity = 4096});
  Thread receiver([&b = b] { EXPECT_THROW(b.recv<int>(), EndOfFile); });
  Thread sender([&b = b] { EXPECT_THROW(for (;;) b.send(1), BrokenPipe); });
  ASSERT_TRUE(receiver.falls_asleep());
  ASSERT_TRUE(sender.falls_asleep());
  a.close();
  EXPECT_TRUE(receiver.ends());
  EXPECT_TRUE(sender.ends());
}

TEST(Pipe, AnEndDoesNotGoThroughItsPeer) {
  auto [a, b] = Pipe();
  EXPECT_THROW(a.send(std::move(b)), std::logic_error);
  EXPECT_FALSE(b.closed());
  a.send(1);
  EXPECT_EQ(b.recv<int>(), 1);
  struct Two {
    Connection one;
    Connection other;
  };
  auto [c, d] = Pipe();
  Two two{std::move(d), std::move(b)};  // one of which could go
  EXPECT_THROW(a.send(std::move(two)), std::logic_error);
  c.send(2);
  EXPECT_EQ(two.one.recv<int>(), 2);
  a.send(3);
  EXPECT_EQ(two.other.recv<int>(), 3);
}

TEST(Pipe, SaysWhichDescriptorCannotBeSent) {
  auto ends = Pipe();
  auto& [a, b] = ends;
  shoal::Fd closed(987654);
  const auto send = [&] { ends.first.send(closed); };
  EXPECT_THAT(send, ThrowsMessage<std::system_error>(HasSubstr("987654")));
  (void)closed.release();
  a.send(1);
  EXPECT_EQ(b.recv<int>(), 1);
}

TEST(Pipe, AnEndDoesNotGoThroughItself) {
  auto [one, other] = Pipe();
  EXPECT_THROW(one.send(std::move(one)), std::logic_error);
  // It is where it was, and whole.
  one.send(1);
  EXPECT_EQ(other.recv<int>(), 1);
}

TEST(Pipe, OneThreadADirection) {
  auto [a, b] = Pipe();
  Thread receiver([&b = b] { EXPECT_EQ(b.recv<int>(), 1); });
  ASSERT_TRUE(receiver.falls_asleep());
  EXPECT_THROW(b.recv<int>(), std::logic_error);
  EXPECT_THROW((void)b.poll(), std::logic_error);
  b.send(2);  // the other direction is free
  EXPECT_EQ(a.recv<int>(), 2);
  a.send(1);
  EXPECT_TRUE(receiver.ends());
}

// ---- with others ----

bool readable(int descriptor, int milliseconds = 0) {
  pollfd polled{descriptor, POLLIN, 0};
  return ::poll(&polled, 1, milliseconds) == 1;
}

TEST(Pipe, FilenoIsReadableWhileThereIsSomething) {
  auto [a, b] = Pipe();
  const int descriptor = b.fileno();
  EXPECT_EQ(b.fileno(), descriptor);
  EXPECT_FALSE(readable(descriptor));
  for (int i = 0; i < 50; ++i) {
    a.send(1);
    a.send(2);
    ASSERT_TRUE(readable(descriptor, 10000));
    EXPECT_EQ(b.recv<int>(), 1);
    ASSERT_TRUE(readable(descriptor, 10000));
    EXPECT_EQ(b.recv<int>(), 2);
    ASSERT_FALSE(readable(descriptor));
  }
  a.close();
  EXPECT_TRUE(readable(descriptor, 10000));
  EXPECT_THROW(b.recv<int>(), EndOfFile);
  auto [reader, writer] = Pipe(false);
  EXPECT_THROW((void)writer.fileno(), std::logic_error);
}

// The helper thread does not take the wakes of one that receives.
TEST(Pipe, FilenoBesideAReceiver) {
  auto [a, b] = Pipe();
  b.fileno();
  for (int i = 0; i < 100; ++i) {
    Thread receiver([&b = b] { EXPECT_EQ(b.recv<int>(), 7); });
    if (i % 2 == 0) {
      ASSERT_TRUE(receiver.falls_asleep());
    }
    a.send(7);
    ASSERT_TRUE(receiver.ends());
  }
}

TEST(Pipe, WaitForMany) {
  auto [a, b] = Pipe();
  auto [c, d] = Pipe();
  EXPECT_TRUE(shoal::wait({b, d}, now).empty());
  c.send(1);
  EXPECT_EQ(shoal::wait({b, d}), std::vector<std::size_t>{1});
  Thread waiter([&, &b = b, &d = d] {
    d.recv<int>();
    EXPECT_EQ(shoal::wait({b, d}), std::vector<std::size_t>{0});
    EXPECT_THROW(b.recv<int>(), EndOfFile);
  });
  ASSERT_TRUE(waiter.falls_asleep());
  a.close();
  EXPECT_TRUE(waiter.ends());
}

// ---- against a model ----

TEST(Pipe, IsADequeOfMessages) {
  auto [a, b] = Pipe({.capacity = 8192});
  std::deque<Bytes> model;
  std::mt19937 random(3);
  for (unsigned step = 0; step < 30000; ++step) {
    if (random() % 2 == 0) {
      const std::size_t n = random() % 40 == 0  ? random() % 20000
                            : random() % 4 == 0 ? random() % 2048
                                                : random() % 64;
      const Bytes bytes = pattern(n, step);
      try {
        if (random() % 4 == 0) {
          auto frame = a.reserve(n, now);
          std::copy(bytes.begin(), bytes.end(), frame.bytes().begin());
          if (random() % 2 == 0) continue;
          frame.commit();
        } else {
          a.send_bytes(bytes, 0, npos, now);
        }
        model.push_back(bytes);
      } catch (const TimeoutError&) {
        ASSERT_FALSE(model.empty());
      }
    } else if (model.empty()) {
      ASSERT_THROW(b.recv_bytes(npos, now), TimeoutError);
    } else {
      if (random() % 3 == 0) {
        const auto view = b.peek();
        ASSERT_TRUE(std::ranges::equal(view.bytes(), model.front()));
      } else {
        ASSERT_EQ(b.recv_bytes(), model.front());
      }
      model.pop_front();
    }
  }
}

}  // namespace
