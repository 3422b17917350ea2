// What a bar writes: to a terminal, which is a pseudo-terminal here, and to
// anything else.

#include "shoal/pool/progress.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <list>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/fd.h"
#include "shoal/pool/pool.h"
#include "shoal/pool/thread_pool.h"

namespace {

using namespace shoal;
using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::EndsWith;
using testing::StartsWith;

int check(int result, const char* call) {
  if (result < 0) throw std::system_error(errno, std::generic_category(), call);
  return result;
}

// stderr goes elsewhere as long as this lives.
class Elsewhere {
 public:
  explicit Elsewhere(int descriptor)
      : before_(check(fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0), "fcntl")) {
    check(dup2(descriptor, STDERR_FILENO), "dup2");
  }
  Elsewhere(const Elsewhere&) = delete;
  Elsewhere& operator=(const Elsewhere&) = delete;
  ~Elsewhere() { dup2(before_.get(), STDERR_FILENO); }

 private:
  Fd before_;
};

// All that is there to be read now.
std::string drain(int descriptor) {
  check(fcntl(descriptor, F_SETFL, O_NONBLOCK), "fcntl");
  std::string all;
  char piece[4096];
  for (ssize_t n; (n = read(descriptor, piece, sizeof piece)) > 0;)
    all.append(piece, static_cast<std::size_t>(n));
  return all;
}

class Terminal {
 public:
  explicit Terminal(unsigned short columns)
      : master_(check(posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC), "openpt")) {
    check(grantpt(master_.get()), "grantpt");
    check(unlockpt(master_.get()), "unlockpt");
    char name[64];
    check(-ptsname_r(master_.get(), name, sizeof name), "ptsname_r");
    slave_ = Fd(check(open(name, O_RDWR | O_NOCTTY | O_CLOEXEC), "open"));
    termios raw = {};
    check(tcgetattr(slave_.get(), &raw), "tcgetattr");
    cfmakeraw(&raw);  // what is written is what is read
    check(tcsetattr(slave_.get(), TCSANOW, &raw), "tcsetattr");
    resize(columns);
  }
  void resize(unsigned short columns) {
    winsize size = {};
    size.ws_col = columns;
    check(ioctl(slave_.get(), TIOCSWINSZ, &size), "TIOCSWINSZ");
  }

  // What `f` leaves on it: the lines that were drawn one over the other.
  template <class F>
  std::vector<std::string> shows(F&& f) {
    {
      const Elsewhere here(slave_.get());
      f();
    }
    std::vector<std::string> lines;
    for (const char c : drain(master_.get()))
      if (c == '\r')
        lines.emplace_back();
      else
        lines.at(lines.size() - 1) += c;  // each begins with \r
    return lines;
  }

 private:
  Fd master_, slave_;
};

const std::string kErased(39, ' ');

int twice(int x) { return 2 * x; }
int refuse(int) { throw std::domain_error("refused"); }

TEST(ProgressBar, FillsTheLineAndStaysAtItsEnd) {
  const auto lines = Terminal(40).shows([] {
    ProgressBar bar("steps", 200);
    bar.update(200);
  });
  EXPECT_THAT(lines, ElementsAre("steps [                 ]   0/200   0 %",
                                 "steps [#################] 200/200 100 %\n"));
  EXPECT_EQ(lines.front().size(), 39u);
}

TEST(ProgressBar, KnowsTheWidthAtEachDrawing) {
  Terminal terminal(60);
  const auto lines = terminal.shows([&] {
    ProgressBar bar("Größe", 4);
    terminal.resize(30);
    bar.update(9);  // more is all
  });
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0].size(), 59u + 2);  // two letters of two bytes
  EXPECT_EQ(lines[1], "Größe [###########] 4/4 100 %\n");
}

TEST(ProgressBar, IsNumbersOnlyWhereThereIsNoRoom) {
  EXPECT_THAT(Terminal(20).shows([] { ProgressBar("a long title", 0); }),
              ElementsAre("0/0 100 % a long ti\n"));
  EXPECT_THAT(Terminal(5).shows([] { ProgressBar("title", 10); }),
              ElementsAre(" 0/1", "    ", ""));
}

TEST(ProgressBar, LeavesAnEmptyLineBeforeItsEnd) {
  EXPECT_THAT(Terminal(40).shows([] {
    ProgressBar bar("steps", 2);
    bar.update(1);  // too soon to be drawn
  }),
              ElementsAre(StartsWith("steps ["), kErased, ""));
}

TEST(ProgressBar, LeavesAnEmptyLineToAnException) {
  const auto lines = Terminal(40).shows([] {
    try {
      ProgressBar bar("steps", 1);
      bar.update(1);
      throw std::domain_error("after the last step");
    } catch (const std::domain_error&) {
    }
  });
  EXPECT_THAT(lines, ElementsAre(StartsWith("steps ["), EndsWith("100 %"),
                                 kErased, ""));
}

TEST(ProgressBar, IsDrawnTwentyTimesASecond) {
  const auto start = std::chrono::steady_clock::now();
  auto passed = 0ns;
  const auto lines = Terminal(40).shows([&] {
    ProgressBar bar("steps", std::size_t{1} << 40);
    for (std::size_t n = 1; passed < 300ms; ++n) {
      bar.update(n);
      passed = std::chrono::steady_clock::now() - start;
    }
  });
  EXPECT_GT(lines.size(), 3u);
  EXPECT_LE(lines.size(), 3u + passed / ProgressBar::kPause);
}

TEST(ProgressBar, IsSilentWhereThereIsNoTerminal) {
  int ends[2];
  check(pipe2(ends, O_CLOEXEC), "pipe2");
  const Fd reads(ends[0]), writes(ends[1]);
  {
    const Elsewhere here(writes.get());
    ProgressBar("none", 0);
    for (const int x : progress(std::vector{1, 2}, "a range")) twice(x);
    ThreadPool pool(1);
    EXPECT_EQ(progress(pool.map_async(twice, {1, 2}), "a map"),
              (std::vector{2, 4}));
  }
  EXPECT_EQ(drain(reads.get()), "");
}

TEST(Progress, OfARange) {
  Terminal terminal(40);
  std::list<int> items{1, 2, 3};
  EXPECT_THAT(terminal.shows([&] {
    for (int& x : progress(items, "list")) x = twice(x);
  }),
              ElementsAre(StartsWith("list ["), EndsWith("3/3 100 %\n")));
  EXPECT_EQ(items, (std::list{2, 4, 6}));
  // The last one is not done when its turn ends by an exception.
  EXPECT_THAT(terminal.shows([&] {
    EXPECT_THROW(for (const int x
                      : progress(std::vector{1}, "list")) refuse(x),
                 std::domain_error);
  }),
              ElementsAre(StartsWith("list ["), kErased, ""));
}

template <class P>
class ProgressOf : public testing::Test {};
using Pools = testing::Types<Pool, ThreadPool>;
TYPED_TEST_SUITE(ProgressOf, Pools);

TYPED_TEST(ProgressOf, AStream) {
  TypeParam pool(2);
  Terminal terminal(40);
  int sum = 0;
  EXPECT_THAT(terminal.shows([&] {
    for (const int& x : progress(pool.imap(twice, {1, 2, 3}), 3, "imap"))
      sum += x;
  }),
              ElementsAre(StartsWith("imap ["), EndsWith("3/3 100 %\n")));
  EXPECT_EQ(sum, 12);
  EXPECT_THAT(terminal.shows([&] {
    EXPECT_THROW(for (const int x
                      : progress(pool.imap(refuse, {1, 2}), 2, "imap"))
                     twice(x),
                 std::domain_error);
  }),
              ElementsAre(StartsWith("imap ["), kErased, ""));
}

TYPED_TEST(ProgressOf, AMap) {
  TypeParam pool(2);
  Terminal terminal(40);
  EXPECT_THAT(
      terminal.shows([&] {
        EXPECT_EQ(progress(pool.map_async(twice, {1, 2, 3}, 1), "map"),
                  (std::vector{2, 4, 6}));
      }),
      testing::AllOf(testing::Contains(StartsWith("map [")),
                     testing::Contains(EndsWith("3/3 100 %\n")).Times(1)));
  auto nothing = pool.map_async([](int) {}, {1});
  terminal.shows([&] { progress(nothing, "map"); });
  EXPECT_TRUE(nothing.successful());
  const auto lines = terminal.shows([&] {
    EXPECT_THROW(progress(pool.map_async(refuse, {1, 2}), "map"),
                 std::domain_error);
  });
  ASSERT_GE(lines.size(), 2u);
  EXPECT_EQ(lines[lines.size() - 2], kErased);
  EXPECT_EQ(lines.back(), "");
}

}  // namespace
