// Fd owns its descriptor: closes it once, whoever holds it last.

#include "shoal/ipc/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <stdexcept>
#include <string>
#include <type_traits>

namespace {

using shoal::Fd;

static_assert(!std::is_copy_constructible_v<Fd> &&
              !std::is_copy_assignable_v<Fd>);
static_assert(std::is_nothrow_move_constructible_v<Fd> &&
              std::is_nothrow_move_assignable_v<Fd>);
static_assert(!std::is_convertible_v<int, Fd>);

int some_descriptor() { return ::open("/dev/null", O_RDONLY | O_CLOEXEC); }
bool is_open(int descriptor) { return ::fcntl(descriptor, F_GETFD) != -1; }

TEST(Fd, ClosesWhenDestroyed) {
  const int descriptor = some_descriptor();
  {
    const Fd fd(descriptor);
    EXPECT_EQ(fd.get(), descriptor);
    EXPECT_TRUE(is_open(descriptor));
  }
  EXPECT_FALSE(is_open(descriptor));
}

TEST(Fd, MoveHandsOn) {
  const int descriptor = some_descriptor();
  {
    Fd a(descriptor);
    Fd b(std::move(a));
    EXPECT_EQ(a.get(), -1);  // NOLINT(bugprone-use-after-move)
    EXPECT_EQ(b.get(), descriptor);
    EXPECT_TRUE(is_open(descriptor));
    const int other = some_descriptor();
    Fd c(other);
    c = std::move(b);
    EXPECT_FALSE(is_open(other));
    EXPECT_EQ(c.get(), descriptor);
    Fd& same = c;
    c = std::move(same);
    EXPECT_EQ(c.get(), descriptor);
    EXPECT_TRUE(is_open(descriptor));
  }
  EXPECT_FALSE(is_open(descriptor));
}

TEST(Fd, ReleaseLeavesItOpen) {
  const int descriptor = some_descriptor();
  {
    Fd fd(descriptor);
    EXPECT_EQ(fd.release(), descriptor);
    EXPECT_EQ(fd.get(), -1);
    EXPECT_EQ(fd.release(), -1);
  }
  EXPECT_TRUE(is_open(descriptor));
  ::close(descriptor);
}

TEST(Fd, ZeroIsADescriptor) {
  const int saved = ::fcntl(0, F_DUPFD_CLOEXEC, 3);
  {
    const Fd fd(0);
    EXPECT_EQ(fd.get(), 0);
  }
  EXPECT_FALSE(is_open(0));
  if (saved >= 0) {
    ::dup2(saved, 0);
    ::close(saved);
  }
}

TEST(Fd, RefusesNegativeNumbers) {
  for (const int number : {-1, -100}) {
    try {
      const Fd fd(number);
      FAIL();
    } catch (const std::invalid_argument& e) {
      EXPECT_NE(std::string(e.what()).find(std::to_string(number)),
                std::string::npos);
    }
  }
}

TEST(Fd, ClosingKeepsErrno) {
  errno = E2BIG;
  { const Fd fd(some_descriptor()); }
  EXPECT_EQ(errno, E2BIG);
  const int closed = some_descriptor();
  {
    const Fd fd(closed);
    ::close(closed);  // behind its back: EBADF
    errno = E2BIG;
  }
  EXPECT_EQ(errno, E2BIG);
}

}  // namespace
