// Queue<T>::close() at the worst moment: a getter is about to sleep, and until
// it does another one, on another handle, announces itself in the same word.

#include <dlfcn.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdarg>

#include "gtest/gtest.h"
#include "shoal/ipc/queue.h"
#include "shoal/ipc/waiting.h"
#include "tests/support/child.h"
#include "tests/support/thread.h"

namespace {

using shoal::Closed;
using shoal::Empty;
using shoal::Queue;
using shoal::support::eventually;
using shoal::support::Thread;
using shoal::support::yield_cpu;
using namespace std::chrono_literals;

// The thread that is kept from sleeping, and whether it has come to it.
std::atomic<pid_t> detained{0};
std::atomic<bool> arrived{false};

bool would_sleep(long number, long operation) {
  constexpr long kFutexWaitv = 449;  // not in the headers of Debian 12
  const auto command = static_cast<int>(operation) & FUTEX_CMD_MASK;
  return number == kFutexWaitv ||
         (number == SYS_futex &&
          (command == FUTEX_WAIT || command == FUTEX_WAIT_BITSET));
}

}  // namespace

// In place of libc's, for the library under test.
extern "C" long syscall(long number, ...) noexcept {
  using Call = long(long, long, long, long, long, long, long);
  static auto* const real =
      reinterpret_cast<Call*>(dlsym(RTLD_NEXT, "syscall"));
  va_list list;
  va_start(list, number);
  long arguments[6];
  for (long& argument : arguments) argument = va_arg(list, long);
  va_end(list);
  if (detained.load() != 0 && would_sleep(number, arguments[1]) &&
      detained.load() == gettid()) {
    arrived.store(true);
    while (detained.load() != 0) yield_cpu();
  }
  return real(number, arguments[0], arguments[1], arguments[2], arguments[3],
              arguments[4], arguments[5]);
}

namespace {

TEST(QueueCloseRace, IsSeenByOneThatIsAboutToSleep) {
  shoal::waiting::set_slices(false);  // a bounded sleep would end it anyway
  Queue<int> queue(2);
  Queue<int> mine(queue);
  std::atomic<bool> closed{false};
  Thread getter([&] {
    detained.store(gettid());
    EXPECT_THROW(mine.get(), Closed);
  });
  ASSERT_TRUE(eventually([] { return arrived.load(); }));
  // By itself, since it may wait for the getter to have gone.
  Thread closer([&] {
    mine.close();
    closed.store(true);
  });
  // The other one sleeps on the same word for a moment; at the latest by then
  // close() has done what it does without knowing of the getter.
  for (int i = 0; i < 20; ++i) EXPECT_THROW(queue.get(5ms), Empty);
  detained.store(0);
  EXPECT_TRUE(getter.ends());
  if (!getter.ended()) queue.shutdown();  // or the test would hang, too
  EXPECT_TRUE(closer.ends());
  EXPECT_TRUE(closed.load());
  shoal::waiting::set_slices(true);
}

}  // namespace
