#pragma once
// Thread: one whose sleep can be awaited, so that no test guesses how long it
// takes until a call blocks.
//
//   Thread getter([&] { EXPECT_EQ(orders.get(), 7); });
//   ASSERT_TRUE(getter.falls_asleep());
//   orders.put(7);
//   ASSERT_TRUE(getter.ends());

#include <sys/types.h>

#include <atomic>
#include <functional>
#include <thread>

namespace shoal::support {

// Whether the thread is in a futex call of the kernel at this moment.
bool asleep(pid_t process, pid_t thread);
// Until it is; false when it takes longer than anything should.
bool falls_asleep(pid_t process, pid_t thread);

class Thread {
 public:
  // An exception that comes out of `body` fails the test.
  explicit Thread(std::function<void()> body);
  // Ends the program if the thread hangs: it uses what the test will destroy.
  ~Thread();
  Thread(const Thread&) = delete;
  Thread& operator=(const Thread&) = delete;

  pid_t id();
  // False when it ends instead, or does neither for long.
  bool falls_asleep();
  bool ended() const { return ended_.load(std::memory_order_acquire); }
  // False when it takes longer than anything should.
  bool ends();

 private:
  std::atomic<pid_t> id_{0};
  std::atomic<bool> ended_{false};
  std::thread thread_;
};

}  // namespace shoal::support
