// Processes that are forked while another thread uses shoal for the first time.
// What that thread is about to make for all, the child has to make for itself.

#include <atomic>
#include <cstdlib>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "gtest/gtest.h"
#include "shoal/ipc/lazy_static.h"
#include "shoal/ipc/lock.h"
#include "shoal/ipc/pipe.h"
#include "shoal/ipc/process.h"
#include "tests/support/child.h"

namespace {

using shoal::LazyStatic;
using shoal::support::Child;
using shoal::support::eventually;

// This process has used nothing, and so those that it forks have not.
void use_in_forks_of_a_first_user(const std::function<void()>& use) {
  constexpr int kFirstUsers = 40;
  constexpr int kForks = 4;
  for (int n = 0; n < kFirstUsers && !testing::Test::HasFailure(); ++n) {
    Child user([&](Child& self) {
      std::atomic<bool> goes{false};
      std::thread other([&] {
        goes = true;
        use();
      });
      while (!goes) {
      }
      for (int k = 0; k < kForks; ++k) {
        Child fork([&](Child&) { use(); });
        self.expect(fork.join() == 0, "a fork hangs");
      }
      other.join();
    });
    EXPECT_EQ(user.join(shoal::forever), 0) << user.failures();
  }
}

TEST(FirstUse, OfALock) {
  use_in_forks_of_a_first_user([] {
    shoal::Lock lock;
    const std::lock_guard guard(lock);
  });
}

TEST(FirstUse, OfAPipe) {
  use_in_forks_of_a_first_user([] {
    auto [one, other] = shoal::Pipe();
    one.send(std::string("seven"));
    if (other.recv<std::string>() != "seven") std::abort();
  });
}

TEST(FirstUse, OfAProcess) {
  use_in_forks_of_a_first_user([] {
    shoal::Process process([](int) {}, 7);
    process.start();
    process.join();
    if (process.exitcode() != 0) std::abort();
  });
}

// ---- what they are made of ----

// Who makes it is for ever within it.
TEST(LazyStatic, WaitsForNobody) {
  static constinit LazyStatic<int> number;
  std::atomic<bool> makes{false}, over{false};
  std::thread slow([&] {
    EXPECT_EQ(number.get([&] {
      makes = true;
      EXPECT_TRUE(eventually([&] { return over.load(); }));
      return std::make_unique<int>(1);
    }),
              2)
        << "the first that is finished is everybody's";
  });
  ASSERT_TRUE(eventually([&] { return makes.load(); }));
  Child fork([](Child& self) {
    self.expect(number.get([] { return std::make_unique<int>(3); }) == 3,
                "its own");
  });
  EXPECT_EQ(fork.join(), 0) << fork.failures();
  EXPECT_EQ(number.get([] { return std::make_unique<int>(2); }), 2);
  over = true;
  slow.join();
  EXPECT_EQ(number.get(), 2);
}

TEST(LazyStatic, IsTriedAgainAfterAnException) {
  static constinit LazyStatic<std::string> text;
  EXPECT_THROW(text.get([]() -> std::unique_ptr<std::string> { throw 7; }),
               int);
  EXPECT_EQ(text.get(), "");
}

}  // namespace
