// Handles as arguments of a Process, whichever way it is started.

#include "shoal/ipc/process.h"

#include <fcntl.h>
#include <unistd.h>

#include <string>

#include "gtest/gtest.h"
#include "shoal/ipc/fd.h"
#include "shoal/ipc/forkserver.h"
#include "shoal/ipc/lock.h"
#include "shoal/ipc/queue.h"
#include "tests/support/child.h"
#include "tests/support/name.h"

namespace {

using shoal::Fd;
using shoal::Lock;
using shoal::Process;
using shoal::Queue;
using shoal::StartMethod;
using shoal::support::kPatience;
using shoal::support::Name;

class Handles : public testing::TestWithParam<StartMethod> {
 protected:
  static void TearDownTestSuite() { shoal::forkserver::stop(); }
  template <class F, class... A>
  static void run(F f, A... arguments) {
    Process process(
        shoal::ProcessOptions{
            .name = {}, .daemon = {}, .start_method = GetParam()},
        f, std::move(arguments)...);
    process.start();
    ASSERT_TRUE(process.join(kPatience));
    EXPECT_EQ(process.exitcode(), 0);
  }
};

void echo(Queue<int> in, Queue<int> out) {
  for (int n = 0; n < 100; ++n) out.put(in.get() + 1);
}
void hold(Lock lock) { lock.acquire(); }
void own_objects(Queue<int> out) {
  Queue<int> mine(3);
  mine.put(5);
  out.put(mine.get());
}
void write_hello(Fd descriptor) {
  if (write(descriptor.get(), "hello", 5) != 5) _exit(2);
}

TEST_P(Handles, Queues) {
  Queue<int> there(200);
  Queue<int> back(200);
  for (int n = 0; n < 100; ++n) there.put(n);
  run(&echo, there, back);
  for (int n = 0; n < 100; ++n) EXPECT_EQ(back.get(kPatience), n + 1);
}

TEST_P(Handles, ALockWhoseHolderEnds) {
  Lock lock;
  run(&hold, lock);
  EXPECT_TRUE(lock.acquire(kPatience));
  EXPECT_TRUE(lock.owner_died());
  lock.mark_consistent();
  lock.release();
}

TEST_P(Handles, NamedAndUnlinked) {
  Queue<int> out(1);
  {
    const Name name("handles");
    auto named = Queue<int>::create(name, 200);
    for (int n = 0; n < 100; ++n) named.put(n);
    Queue<int> back(200);
    run(&echo, named, back);
    EXPECT_EQ(back.qsize(), 100u);
  }
  run(&own_objects, out);
  EXPECT_EQ(out.get(kPatience), 5);
}

TEST_P(Handles, ADescriptor) {
  int both[2];
  ASSERT_EQ(pipe2(both, O_CLOEXEC), 0);
  const Fd reader(both[0]);
  run(&write_hello, Fd(both[1]));
  char text[6] = {};
  EXPECT_EQ(read(reader.get(), text, 5), 5);
  EXPECT_EQ(read(reader.get(), text, 1), 0) << "all copies are closed";
}

INSTANTIATE_TEST_SUITE_P(Methods, Handles,
                         testing::Values(StartMethod::fork, StartMethod::spawn,
                                         StartMethod::forkserver),
                         [](const auto& info) {
                           return std::string(info.param == StartMethod::fork
                                                  ? "fork"
                                              : info.param == StartMethod::spawn
                                                  ? "spawn"
                                                  : "forkserver");
                         });

}  // namespace
