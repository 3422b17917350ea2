// Queue::fileno: a descriptor that is readable while the queue is.

#include <dirent.h>
#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <functional>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "shoal/ipc/joinable_queue.h"
#include "tests/support/child.h"
#include "tests/support/residue.h"
#include "tests/support/thread.h"

namespace {

using namespace shoal::support;
using shoal::Queue;
using namespace std::chrono_literals;

bool readable(int descriptor, int milliseconds) {
  pollfd waited{descriptor, POLLIN, 0};
  return poll(&waited, 1, milliseconds) == 1 && (waited.revents & POLLIN) != 0;
}
constexpr int kLong = 30000;

int threads() {
  int count = 0;
  DIR* directory = opendir("/proc/self/task");
  while (const dirent* entry = readdir(directory))
    count += entry->d_name[0] != '.';
  closedir(directory);
  return count;
}

TEST(QueueFileno, IsReadableWhileThereIsSomething) {
  Queue<int> queue(8);
  const int descriptor = queue.fileno();
  EXPECT_EQ(queue.fileno(), descriptor) << "stable";
  EXPECT_FALSE(readable(descriptor, 0));
  queue.put(1);
  EXPECT_TRUE(readable(descriptor, kLong));
  queue.put(2);
  EXPECT_TRUE(readable(descriptor, kLong)) << "level-triggered";
  EXPECT_EQ(queue.get(), 1);
  EXPECT_TRUE(readable(descriptor, 0)) << "there is one more";
  EXPECT_EQ(queue.get(), 2);
  EXPECT_FALSE(readable(descriptor, 0));
  queue.put(3);
  EXPECT_TRUE(readable(descriptor, kLong));
  std::vector<int> values(4);
  EXPECT_EQ(queue.get_many(values), 1u);
  EXPECT_FALSE(readable(descriptor, 0));
}

TEST(QueueFileno, OfEveryKindOfQueue) {
  Queue<std::string> text;
  const int of_text = text.fileno();
  text.put(std::string(1000, 'x'));
  EXPECT_TRUE(readable(of_text, kLong));
  text.get();
  EXPECT_FALSE(readable(of_text, 0));
  shoal::JoinableQueue<int> jobs;
  const int of_jobs = jobs.fileno();
  for (int i = 0; i < 5000; ++i) jobs.put(i);
  for (int i = 0; i < 5000; ++i) {
    ASSERT_TRUE(readable(of_jobs, kLong)) << i;
    ASSERT_EQ(jobs.get_nowait(), i);
    jobs.task_done();
  }
  EXPECT_FALSE(readable(of_jobs, 0));
}

TEST(QueueFileno, NoEdgeIsLost) {
  Queue<int> queue(8);
  const int descriptor = queue.fileno();
  Child producer([&](Child&) {
    for (int i = 0; i < 20000; ++i) queue.put(i);
  });
  for (int i = 0; i < 20000;) {
    ASSERT_TRUE(readable(descriptor, kLong)) << "at " << i;
    while (const auto value = queue.try_get()) ASSERT_EQ(*value, i++);
  }
  EXPECT_EQ(producer.join(), 0) << producer.failures();
  EXPECT_FALSE(readable(descriptor, 0));
}

TEST(QueueFileno, NoticesWhatOthersTake) {
  Queue<int> queue(8);
  const int descriptor = queue.fileno();
  queue.put(1);
  ASSERT_TRUE(readable(descriptor, kLong));
  Child taker([&](Child&) { queue.get(); });
  EXPECT_EQ(taker.join(), 0) << taker.failures();
  EXPECT_TRUE(eventually([&] { return !readable(descriptor, 0); }));
  queue.put(2);
  EXPECT_TRUE(readable(descriptor, kLong));
}

TEST(QueueFileno, NoticesWhatADeadTakerGivesBack) {
  Queue<int> queue(8);
  const int descriptor = queue.fileno();
  queue.put(1);
  Shared<std::atomic<bool>> taken;
  Child taker([&](Child&) {
    const auto value = queue.take();
    *taken = true;
    pause();
  });
  ASSERT_TRUE(eventually([&] { return taken->load(); }));
  ASSERT_TRUE(eventually([&] { return !readable(descriptor, 0); }));
  taker.kill();
  taker.join();
  EXPECT_TRUE(readable(descriptor, kLong));
  EXPECT_EQ(queue.get_nowait(), 1);
}

TEST(QueueFileno, ShutdownIsReadable) {
  Queue<int> queue(8);
  const int descriptor = queue.fileno();
  queue.shutdown();
  EXPECT_TRUE(readable(descriptor, kLong));
  EXPECT_THROW((void)queue.try_get(), shoal::ShutDown);
  EXPECT_TRUE(readable(descriptor, 0)) << "for good";
}

TEST(QueueFileno, DoesNotTakeTheWakeUpsOfOthers) {
  Queue<int> queue(8);
  queue.fileno();
  for (int i = 0; i < 100; ++i) {
    Thread getter([&] { EXPECT_EQ(queue.get(), i); });
    ASSERT_TRUE(getter.falls_asleep());
    queue.put(i);
    ASSERT_TRUE(getter.ends());
  }
}

TEST(QueueFileno, AForkedChildHasItsOwn) {
  Queue<int> queue(8);
  Queue<int> back(8);
  const int descriptor = queue.fileno();
  Child child([&](Child& self) {
    const int mine = queue.fileno();
    self.expect(readable(mine, kLong), "the child's");
    self.expect(queue.try_get() == 7, "got");
    self.expect(!readable(mine, 0), "taken back");
    back.put(1);
  });
  Thread put([&] { queue.put(7); });
  EXPECT_EQ(child.join(), 0) << child.failures();
  EXPECT_EQ(back.get(), 1);
  EXPECT_TRUE(eventually([&] { return !readable(descriptor, 0); }));
  queue.put(8);
  EXPECT_TRUE(readable(descriptor, kLong)) << "the parent's works still";
}

TEST(QueueFileno, NothingIsLeftWhenTheLastHandleGoes) {
  { Queue<int>(1).put(1); }
  const auto before = belongings();
  const int threads_before = threads();
  {
    Queue<int> queue(8);
    Queue<int> copy = queue;
    copy.fileno();
    queue.fileno();
    EXPECT_EQ(threads(), threads_before + 1) << "one for all handles";
    Child child([&](Child& self) {
      { Queue<int> gone = std::move(queue); }
      self.expect(true, "a child that does not use it");
    });
    EXPECT_EQ(child.join(), 0) << child.failures();
  }
  EXPECT_EQ(threads(), threads_before);
  EXPECT_EQ(belongings(), before);
}

TEST(QueueFileno, WorksWithEdgeTriggeredEpoll) {
  Queue<int> queue(8);
  const int epoll = epoll_create1(EPOLL_CLOEXEC);
  epoll_event event{.events = EPOLLIN | EPOLLET, .data = {.u32 = 1}};
  ASSERT_EQ(epoll_ctl(epoll, EPOLL_CTL_ADD, queue.fileno(), &event), 0);
  for (int i = 0; i < 200; ++i) {
    Child producer([&](Child&) { queue.put(i); });
    epoll_event got;
    ASSERT_EQ(epoll_wait(epoll, &got, 1, kLong), 1) << i;
    while (queue.try_get()) {
    }
    producer.join();
    while (queue.try_get()) {
    }
  }
  close(epoll);
}

TEST(QueueFileno, WorksWithAsio) {
  Queue<int> queue(8);
  boost::asio::io_context loop;
  boost::asio::posix::stream_descriptor waited(loop, dup(queue.fileno()));
  int next = 0;
  std::function<void()> wait = [&] {
    waited.async_wait(boost::asio::posix::stream_descriptor::wait_read,
                      [&](const boost::system::error_code& error) {
                        ASSERT_FALSE(error);
                        while (const auto value = queue.try_get())
                          ASSERT_EQ(*value, next++);
                        if (next < 2000) wait();
                      });
  };
  wait();
  Child producer([&](Child&) {
    for (int i = 0; i < 2000; ++i) queue.put(i);
  });
  loop.run();
  EXPECT_EQ(next, 2000);
  EXPECT_EQ(producer.join(), 0);
}

}  // namespace
