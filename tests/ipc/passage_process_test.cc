// Handles in bytes that go from process to process: through the keeper, and
// with the bytes.

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shoal/ipc/codec.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/handle.h"
#include "shoal/ipc/keeper.h"
#include "shoal/ipc/keeper_serve.h"
#include "shoal/ipc/lock.h"
#include "shoal/ipc/passage.h"
#include "shoal/ipc/queue.h"
#include "tests/support/child.h"
#include "tests/support/name.h"
#include "tests/support/reexec.h"
#include "tests/support/thrown.h"

namespace {

namespace codec = shoal::codec;
namespace fs = std::filesystem;
namespace keeper = shoal::keeper;
using shoal::Arrival;
using shoal::Deposits;
using shoal::Fd;
using shoal::HandleAccess;
using shoal::HandleRef;
using shoal::Lock;
using shoal::Object;
using shoal::Queue;
using shoal::support::Child;
using shoal::support::eventually;
using shoal::support::kPatience;
using shoal::support::Name;
using shoal::support::Shared;

// A message of one handle, as it lies in a channel.
using Bytes = std::array<std::byte, sizeof(HandleRef)>;

Object& object_of(const auto& handle) { return *HandleAccess::object(handle); }

template <class H>
Bytes send_through(const Object& channel, const H& handle) {
  Bytes bytes;
  Deposits passage(channel);
  codec::Writer writer(bytes, &passage);
  codec::encode(writer, handle);
  passage.sent();
  return bytes;
}

template <class H>
H receive(const Bytes& bytes) {
  Arrival arrival;
  return codec::from_bytes<H>(bytes, &arrival);
}

HandleRef reference_in(const Bytes& bytes) {
  HandleRef reference;
  memcpy(&reference, bytes.data(), sizeof reference);
  return reference;
}

// The process that holds deposits, by its command line; 0: none.
pid_t keeper_at(std::uint64_t number) {
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const std::string pid = entry.path().filename();
    if (pid.find_first_not_of("0123456789") != std::string::npos) continue;
    std::ifstream file(entry.path() / "cmdline");
    std::string line;
    std::getline(file, line);
    if (line.starts_with(keeper::kProgramName) &&
        line.find(std::to_string(number)) != std::string::npos)
      return static_cast<pid_t>(std::stol(pid));
  }
  return 0;
}

bool lives(pid_t pid) { return kill(pid, 0) == 0; }

// ---- what was made after the fork ----

TEST(Passage, AnObjectReachesAnOlderChild) {
  Queue<Bytes> channel(4);
  Queue<int> back(4);
  Child child([&](Child& self) {
    const auto made_later = receive<Queue<int>>(channel.get());
    self.expect(made_later.qsize() == 1, "has what was put before");
    back.put(Queue<int>(made_later).get() + 1);
  });
  Queue<int> late(3);
  late.put(41);
  channel.put(send_through(object_of(channel), late));
  EXPECT_EQ(back.get(kPatience), 42);
  EXPECT_EQ(child.join(), 0) << child.failures();
}

TEST(Passage, AnObjectOutlivesItsSender) {
  Queue<Bytes> channel(4);
  Child sender([&](Child&) {
    Queue<int> mine(3);
    mine.put(7);
    channel.put(send_through(object_of(channel), mine));
  });
  ASSERT_EQ(sender.join(), 0) << sender.failures();
  EXPECT_EQ(receive<Queue<int>>(channel.get()).get(), 7);
}

TEST(Passage, AnObjectOutlivesASenderThatIsKilled) {
  Queue<Bytes> channel(4);
  Child sender([&](Child&) {
    Queue<int> mine(3);
    mine.put(7);
    channel.put(send_through(object_of(channel), mine));
    for (;;) pause();
  });
  const Bytes bytes = channel.get(kPatience);
  sender.kill();
  EXPECT_EQ(sender.join(), -SIGKILL);
  EXPECT_EQ(receive<Queue<int>>(bytes).get(), 7);
}

TEST(Passage, TheSameObjectForAllWhoGetIt) {
  Queue<Bytes> channel(4);
  Queue<Bytes> answers(4);
  Child child([&](Child&) {
    const Lock mine;
    answers.put(send_through(object_of(answers), mine));
    Lock same = receive<Lock>(channel.get());
    same.acquire();
    answers.put(send_through(object_of(answers), same));
    channel.get();
  });
  Lock theirs = receive<Lock>(answers.get(kPatience));
  EXPECT_FALSE(theirs.locked());
  Lock ours;
  channel.put(send_through(object_of(channel), ours));
  const Lock again = receive<Lock>(answers.get(kPatience));
  EXPECT_EQ(HandleAccess::object(again), HandleAccess::object(ours));
  EXPECT_TRUE(ours.locked());
  channel.put({});
  EXPECT_EQ(child.join(), 0) << child.failures();
  EXPECT_TRUE(ours.acquire(kPatience));
  EXPECT_TRUE(ours.owner_died());
  ours.mark_consistent();
  ours.release();
}

TEST(Passage, ANamedObjectAlsoWhenItsNameIsGone) {
  Queue<Bytes> channel(4);
  Child child([&](Child& self) {
    auto got = receive<Queue<int>>(channel.get());
    self.expect(got.get() == 5, "value");
  });
  {
    const Name name("passage");
    auto named = Queue<int>::create(name, 3);
    named.put(5);
    channel.put(send_through(object_of(channel), named));
  }
  EXPECT_EQ(child.join(), 0) << child.failures();
}

TEST(Passage, ADescriptor) {
  Queue<Bytes> channel(4);
  Child child([&](Child& self) {
    const Fd got = receive<Fd>(channel.get());
    self.expect(write(got.get(), "hello", 5) == 5, "write");
  });
  int both[2];
  ASSERT_EQ(pipe2(both, O_CLOEXEC), 0);
  const Fd reader(both[0]);
  {
    const Fd writer(both[1]);
    channel.put(send_through(object_of(channel), writer));
  }
  char text[6] = {};
  EXPECT_EQ(read(reader.get(), text, 5), 5);
  EXPECT_STREQ(text, "hello");
  EXPECT_EQ(child.join(), 0) << child.failures();
  EXPECT_EQ(read(reader.get(), text, 5), 0) << "all copies are closed";
}

// The very open file, as by dup(2): its position, its flags.
TEST(Passage, AFileIsOpenAsItWas) {
  Queue<Bytes> channel(4);
  const Fd file(open("/tmp", O_TMPFILE | O_RDWR | O_APPEND | O_CLOEXEC, 0600));
  ASSERT_EQ(write(file.get(), "first ", 6), 6);
  Child child([&](Child& self) {
    const Fd got = receive<Fd>(channel.get());
    self.expect((fcntl(got.get(), F_GETFL) & O_APPEND) != 0, "appends");
    self.expect(lseek(got.get(), 0, SEEK_CUR) == 6, "position");
    self.expect(write(got.get(), "second", 6) == 6, "write");
  });
  channel.put(send_through(object_of(channel), file));
  EXPECT_EQ(child.join(), 0) << child.failures();
  char text[13] = {};
  EXPECT_EQ(pread(file.get(), text, 12, 0), 12);
  EXPECT_STREQ(text, "first second");
  EXPECT_EQ(lseek(file.get(), 0, SEEK_CUR), 12);
}

// ---- to and from strangers ----

TEST(DISABLED_Stranger, SendsAndEnds) {
  auto channel = Queue<Bytes>::open(shoal::support::given("CHANNEL"));
  Queue<int> mine(3);
  mine.put(11);
  channel.put(send_through(object_of(channel), mine));
}

TEST(DISABLED_Stranger, Receives) {
  auto channel = Queue<Bytes>::open(shoal::support::given("CHANNEL"));
  auto got = receive<Queue<int>>(channel.get());
  got.put(got.get() + 1);
}

TEST(Passage, FromAStrangerThatHasEnded) {
  const Name name("channel");
  auto channel = Queue<Bytes>::create(name, 4);
  Child other([&](Child&) {
    shoal::support::exec_tests("DISABLED_Stranger.SendsAndEnds",
                               {"CHANNEL=" + name.text()});
  });
  ASSERT_EQ(other.join(), 0);
  auto got = receive<Queue<int>>(channel.get(kPatience));
  EXPECT_EQ(got.get(), 11);
  got.put(1);
}

TEST(Passage, ToAStranger) {
  const Name name("channel");
  auto channel = Queue<Bytes>::create(name, 4);
  Queue<int> ours(3);
  ours.put(20);
  channel.put(send_through(object_of(channel), ours));
  Child other([&](Child&) {
    shoal::support::exec_tests("DISABLED_Stranger.Receives",
                               {"CHANNEL=" + name.text()});
  });
  EXPECT_EQ(other.join(), 0);
  EXPECT_EQ(ours.get(kPatience), 21);
}

// ---- the keeper's life ----

TEST(Keeper, EndsWithTheLastProcessThatCouldSend) {
  Shared<std::atomic<pid_t>> pid;
  Child tree([&](Child&) {
    Queue<Bytes> channel(4);
    const Queue<int> late(1);
    const Bytes bytes = send_through(object_of(channel), late);
    *pid = keeper_at(reference_in(bytes).keeper);
    for (;;) pause();
  });
  ASSERT_TRUE(eventually([&] { return *pid != 0; }));
  EXPECT_TRUE(lives(*pid));
  tree.kill();
  EXPECT_EQ(tree.join(), -SIGKILL);
  EXPECT_TRUE(eventually([&] { return !lives(*pid); }));
}

TEST(Keeper, HoldsNothingOnceReceived) {
  Queue<Bytes> channel(4);
  std::weak_ptr<Object> gone;
  const Bytes bytes = [&] {
    const Queue<int> late(1);
    return send_through(object_of(channel), late);
  }();
  // Of memory: it has spare ones as well, which come and go.
  const auto descriptors = [pid = keeper_at(reference_in(bytes).keeper)] {
    std::size_t count = 0;
    for (const auto& entry :
         fs::directory_iterator("/proc/" + std::to_string(pid) + "/fd")) {
      std::error_code gone;  // while we look
      count += fs::read_symlink(entry, gone).native().starts_with("/memfd:");
    }
    return count;
  };
  const std::size_t with_one = descriptors();
  static_cast<void>(receive<Queue<int>>(bytes));
  EXPECT_TRUE(eventually([&] { return descriptors() < with_one; }));
  const std::size_t with_none = descriptors();
  for (int i = 0; i < 300; ++i) {
    const Queue<int> late(1);
    static_cast<void>(
        receive<Queue<int>>(send_through(object_of(channel), late)));
  }
  EXPECT_TRUE(eventually([&] { return descriptors() <= with_none; }));
}

TEST(Keeper, DropsWhatIsInAContainerThatIsGone) {
  const Queue<int> other(1);  // keeps the domain, and with it the keeper
  std::uint64_t number = 0;
  int both[2];
  ASSERT_EQ(pipe2(both, O_CLOEXEC), 0);
  const Fd reader(both[0]);
  {
    const Queue<Bytes> inner(1);
    const Queue<Bytes> outer(1);
    {
      const Fd writer(both[1]);
      number = reference_in(send_through(object_of(inner), writer)).keeper;
    }
    // In flight itself, in one that goes, and in itself.
    send_through(object_of(outer), inner);
    send_through(object_of(inner), inner);
    send_through(object_of(inner), outer);
    EXPECT_NE(keeper_at(number), 0);
  }
  char byte;
  EXPECT_EQ(read(reader.get(), &byte, 1), 0) << "nobody holds the writer";
}

TEST(Keeper, KilledOneIsReplacedAndItsDepositsAreErrors) {
  Queue<Bytes> channel(4);
  const Bytes lost = [&] {
    const Queue<int> late(1);
    return send_through(object_of(channel), late);
  }();
  const std::uint64_t first = reference_in(lost).keeper;
  const pid_t pid = keeper_at(first);
  ASSERT_EQ(kill(pid, SIGKILL), 0);
  ASSERT_TRUE(eventually([&] { return keeper_at(first) == 0; }));
  EXPECT_THROW((void)receive<Queue<int>>(lost), shoal::Error);
  const Bytes next = [&] {
    Queue<int> late(1);
    late.put(3);
    return send_through(object_of(channel), late);
  }();
  EXPECT_NE(reference_in(next).keeper, first);
  EXPECT_EQ(receive<Queue<int>>(next).get(), 3);
  EXPECT_THROW((void)receive<Queue<int>>(next), shoal::Error) << "once";
}

// One that receives a channel may be stopped before it has mapped it; nobody
// has it mapped then, and it is in nobody's message any more.
TEST(Keeper, WhatIsJustBeingReceivedIsInUse) {
  Queue<Bytes> outer(4);
  Queue<HandleRef> told(4);
  const Queue<int> other(1);
  Child sender([&](Child&) {
    Queue<Bytes> inner(4);
    Queue<int> late(1);
    late.put(5);
    inner.put(send_through(object_of(inner), late));
    outer.put(send_through(object_of(outer), inner));
    told.get();
  });
  const Bytes bytes = outer.get(kPatience);
  const HandleRef reference = reference_in(bytes);
  keeper::Collected collected =
      keeper::collect(reference.keeper, reference.ticket);
  const std::uint64_t looks = 3;
  told.put({});
  ASSERT_EQ(sender.join(), 0) << sender.failures();
  // It looks whether containers are in use when a sender ends, and each 100 ms.
  std::this_thread::sleep_for(looks * std::chrono::milliseconds(100));
  ASSERT_EQ(collected.descriptors.size(), 2u);
  EXPECT_EQ(fcntl(collected.descriptors[0].get(), F_GET_SEALS) & F_SEAL_WRITE,
            0);
}

// Whose forks do not keep its address.
TEST(Keeper, KilledOneIsReplacedThoughItsStarterHasForked) {
  Queue<Bytes> channel(4);
  const Bytes lost = [&] {
    const Queue<int> late(1);
    return send_through(object_of(channel), late);
  }();
  const Child fork([](Child&) {
    for (;;) pause();
  });
  const std::uint64_t first = reference_in(lost).keeper;
  ASSERT_EQ(kill(keeper_at(first), SIGKILL), 0);
  ASSERT_TRUE(eventually([&] { return keeper_at(first) == 0; }));
  const Queue<int> late(1);
  EXPECT_NE(reference_in(send_through(object_of(channel), late)).keeper, first);
}

// Whoever comes to collect is served also when senders had all its numbers.
TEST(Keeper, WithoutNumbersGivesWhatItHas) {
  Child tree([](Child& self) {
    const rlimit few{48, 48};
    setrlimit(RLIMIT_NOFILE, &few);
    Queue<Bytes> channel(256);
    int sent = 0;
    try {
      for (; sent < 200; ++sent) {
        const Queue<int> late(1);
        channel.put(send_through(object_of(channel), late));
      }
    } catch (const shoal::NoSpace&) {
    }
    self.expect(sent > 4 && sent < 200, "some of them");
    for (int i = 0; i < sent; ++i)
      static_cast<void>(receive<Queue<int>>(channel.get()));
    const Queue<int> late(1);
    static_cast<void>(
        receive<Queue<int>>(send_through(object_of(channel), late)));
  });
  EXPECT_EQ(tree.join(), 0) << tree.failures();
}

TEST(Keeper, ManyProcessesStartOne) {
  Queue<Bytes> channel(64);
  Shared<std::atomic<int>> go;
  std::vector<std::unique_ptr<Child>> senders;
  for (int i = 0; i < 8; ++i)
    senders.push_back(std::make_unique<Child>([&, i](Child& self) {
      ++*go;
      self.expect(eventually([&] { return *go >= 8; }), "all there");
      Queue<int> mine(1);
      mine.put(i);
      channel.put(send_through(object_of(channel), mine));
    }));
  std::vector<int> got;
  for (int i = 0; i < 8; ++i)
    got.push_back(receive<Queue<int>>(channel.get(kPatience)).get());
  EXPECT_THAT(got, testing::UnorderedElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
  for (auto& sender : senders)
    EXPECT_EQ(sender->join(), 0) << sender->failures();
}

TEST(Keeper, WhatIsNotSentIsTakenBack) {
  Queue<Bytes> channel(4);
  int both[2];
  ASSERT_EQ(pipe2(both, O_CLOEXEC), 0);
  const Fd reader(both[0]);
  {
    const Fd writer(both[1]);
    Bytes bytes;
    Deposits passage(object_of(channel));
    codec::Writer to(bytes, &passage);
    codec::encode(to, writer);
  }
  char byte;
  EXPECT_EQ(read(reader.get(), &byte, 1), 0);
}

// ---- what cannot be ----

TEST(Passage, RefusesWhatIsNotWhatItSays) {
  Queue<Bytes> channel(4);
  const Queue<int> late(1);
  const Bytes bytes = send_through(object_of(channel), late);
  EXPECT_THROW((void)receive<Queue<long>>(bytes), shoal::TypeMismatch);
  EXPECT_THROW((void)receive<Lock>(bytes), shoal::TypeMismatch);
  EXPECT_THROW((void)receive<Fd>(bytes), shoal::TypeMismatch);
  EXPECT_THROW((void)codec::from_bytes<Fd>(bytes), shoal::Error);
  HandleRef reference = reference_in(bytes);
  reference.object ^= 1;  // somebody else's
  Bytes forged;
  memcpy(forged.data(), &reference, sizeof reference);
  Child child([&](Child& self) {
    try {
      static_cast<void>(receive<Queue<int>>(forged));
      self.expect(false, "forged");
    } catch (const shoal::Error&) {
    }
  });
  EXPECT_EQ(child.join(), 0) << child.failures();
  EXPECT_THROW(codec::to_bytes(Fd(dup(0))), std::invalid_argument);
  EXPECT_THROW(Fd(-1), std::invalid_argument);
}

}  // namespace
