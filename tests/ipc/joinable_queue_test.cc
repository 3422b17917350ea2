// JoinableQueue<T> and SimpleQueue<T> within one process, and with takers that
// die.

#include "shoal/ipc/joinable_queue.h"

#include <signal.h>

#include <atomic>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "shoal/ipc/simple_queue.h"
#include "tests/support/child.h"
#include "tests/support/name.h"
#include "tests/support/thread.h"

namespace {

using namespace shoal::support;
using shoal::JoinableQueue;
using shoal::Queue;
using shoal::QueueOptions;
using shoal::SimpleQueue;
using namespace std::chrono_literals;

template <class T>
class Joinable : public testing::Test {
 public:
  static T value(int i) {
    if constexpr (std::is_same_v<T, int>)
      return i;
    else
      return std::string(100, 'x') + std::to_string(i);
  }
};
using Types = testing::Types<int, std::string>;
TYPED_TEST_SUITE(Joinable, Types);

TYPED_TEST(Joinable, IsJoinedWhenAllIsDone) {
  JoinableQueue<TypeParam> queue;
  EXPECT_TRUE(queue.join(shoal::now)) << "nothing to do";
  for (int i = 0; i < 3; ++i) queue.put(this->value(i));
  EXPECT_FALSE(queue.join(shoal::now));
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(queue.get(), this->value(i));
    EXPECT_FALSE(queue.join(shoal::now)) << "taken is not done";
    if (i < 2) queue.task_done();
  }
  EXPECT_FALSE(queue.join(5ms));
  queue.task_done();
  EXPECT_TRUE(queue.join());
  EXPECT_THROW(queue.task_done(), std::logic_error);
  EXPECT_TRUE(queue.join(shoal::now));
}

TYPED_TEST(Joinable, CountsByAnyHandle) {
  JoinableQueue<TypeParam> queue(8);
  Queue<TypeParam> plain = queue;
  plain.put(this->value(1));
  EXPECT_EQ(plain.get(), this->value(1));
  EXPECT_FALSE(queue.join(shoal::now));
  queue.task_done();
  EXPECT_TRUE(queue.join(shoal::now));
  std::vector<TypeParam> values(4, this->value(2));
  EXPECT_EQ(queue.put_many(values), 4u);
  EXPECT_EQ(plain.get_many(values), 4u);
  for (int i = 0; i < 4; ++i) {
    EXPECT_FALSE(queue.join(shoal::now));
    queue.task_done();
  }
  EXPECT_TRUE(queue.join(shoal::now));
}

TEST(JoinableQueue, ATakenValueCounts) {
  JoinableQueue<int> queue;
  queue.put(1);
  {
    const auto taken = queue.take();
    queue.task_done();
    EXPECT_FALSE(queue.join(shoal::now)) << "it may come back";
  }
  EXPECT_TRUE(queue.join(shoal::now));
}

TEST(JoinableQueue, TaskDoneWakesWhoJoins) {
  JoinableQueue<int> queue;
  queue.put(1);
  queue.put(2);
  Thread joiner([&] { EXPECT_TRUE(queue.join()); });
  ASSERT_TRUE(joiner.falls_asleep());
  queue.get();
  queue.task_done();
  queue.get();
  ASSERT_TRUE(joiner.falls_asleep());
  queue.task_done();
  ASSERT_TRUE(joiner.ends());
}

TEST(JoinableQueue, WhatIsDroppedOrDiscardedIsDone) {
  JoinableQueue<int> dropping(
      QueueOptions{.maxsize = 1, .on_full = shoal::OnFull::drop_oldest});
  dropping.put(1);
  dropping.put(2);
  EXPECT_EQ(dropping.get(), 2);
  dropping.task_done();
  EXPECT_TRUE(dropping.join(shoal::now));
  JoinableQueue<int> queue;
  queue.put(1);
  Thread joiner([&] { EXPECT_TRUE(queue.join()); });
  ASSERT_TRUE(joiner.falls_asleep());
  queue.shutdown(true);
  ASSERT_TRUE(joiner.ends());
}

TEST(JoinableQueue, CloseWakesWhoJoins) {
  JoinableQueue<int> queue;
  queue.put(1);
  JoinableQueue<int> copy = queue;
  Thread joiner([&] { EXPECT_THROW(copy.join(), shoal::Closed); });
  ASSERT_TRUE(joiner.falls_asleep());
  copy.close();
  ASSERT_TRUE(joiner.ends());
  EXPECT_THROW(copy.task_done(), shoal::Closed);
  EXPECT_FALSE(queue.join(shoal::now));
}

// ---- processes ----

TEST(JoinableQueue, WhatADeadTakerHadIsDone) {
  JoinableQueue<int> queue;
  for (int i = 0; i < 3; ++i) queue.put(i);
  Shared<std::atomic<int>> taken;
  Child taker([&](Child&) {
    queue.get();
    queue.get();
    *taken = 2;
    pause();
  });
  ASSERT_TRUE(eventually([&] { return *taken == 2; }));
  queue.get();
  queue.task_done();
  EXPECT_FALSE(queue.join(5ms));
  Thread joiner([&] { EXPECT_TRUE(queue.join()); });
  ASSERT_TRUE(joiner.falls_asleep());
  taker.kill();
  EXPECT_EQ(taker.join(), -SIGKILL);
  ASSERT_TRUE(joiner.ends());
  EXPECT_THROW(queue.task_done(), std::logic_error);
}

TEST(JoinableQueue, AnotherProcessMayReportWhatWasHandedOn) {
  JoinableQueue<int> queue;
  queue.put(1);
  queue.get();
  Child worker([&](Child&) { queue.task_done(); });
  EXPECT_EQ(worker.join(), 0) << worker.failures();
  EXPECT_TRUE(queue.join(shoal::now));
}

TEST(JoinableQueue, WorkThatMakesWork) {
  JoinableQueue<int> queue;
  Shared<std::atomic<int>> done;
  const auto work = [&](Child&) {
    for (;;) {
      const int left = queue.get();
      if (left > 0) {
        queue.put(left - 1);
        queue.put(left - 1);
      }
      done->fetch_add(1);
      queue.task_done();
    }
  };
  Child first(work), second(work);
  for (int round = 0; round < 20; ++round) {
    *done = 0;
    queue.put(7);
    ASSERT_TRUE(queue.join(kPatience));
    ASSERT_EQ(*done, 255) << "joined too early in round " << round;
  }
}

TEST(JoinableQueue, NamedOnesAreOfTheirKind) {
  const Name name("joinable");
  auto made = JoinableQueue<int>::create(name, 5);
  auto opened = JoinableQueue<int>::open(name);
  made.put(1);
  EXPECT_FALSE(opened.join(shoal::now));
  EXPECT_EQ(JoinableQueue<int>::open_or_create(name).maxsize(), 5u);
  auto plain = Queue<int>::open(name);
  EXPECT_EQ(plain.get(), 1);
  EXPECT_FALSE(opened.join(shoal::now)) << "counted all the same";
  opened.task_done();
  const Name other("plain");
  auto queue = Queue<int>::create(other, 5);
  EXPECT_THROW(JoinableQueue<int>::open(other), shoal::TypeMismatch);
  EXPECT_THROW(JoinableQueue<int>::open_or_create(other), shoal::TypeMismatch);
}

TEST(SimpleQueue, PutGetEmptyClose) {
  SimpleQueue<std::string> queue;
  EXPECT_TRUE(queue.empty());
  queue.put("one");
  queue.put(std::string(1000, 'x'));
  EXPECT_FALSE(queue.empty());
  EXPECT_EQ(queue.get(), "one");
  EXPECT_EQ(queue.get(1s).size(), 1000u);
  EXPECT_THROW(queue.get(1ms), shoal::Empty);
  queue.close();
  EXPECT_THROW(queue.get(), shoal::Closed);
  EXPECT_THROW(queue.put("two"), shoal::Closed);
  const Name name("simple");
  auto made = SimpleQueue<int>::create(name);
  SimpleQueue<int>::open(name).put(7);
  EXPECT_EQ(SimpleQueue<int>::open_or_create(name).get(), 7);
}

TEST(SimpleQueue, TravelsInAMessage) {
  SimpleQueue<int> answers;
  Queue<SimpleQueue<int>> questions;
  questions.put(answers);
  questions.get().put(7);
  EXPECT_EQ(answers.get(), 7);
  Queue<JoinableQueue<int>> jobs;
  JoinableQueue<int> queue;
  jobs.put(queue);
  jobs.get().put(1);
  EXPECT_FALSE(queue.join(shoal::now));
}

}  // namespace
