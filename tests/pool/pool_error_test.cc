// Errors on their way from a worker: types declared by SHOAL_EXCEPTION, nested
// exceptions, and where they were thrown.

#include <unistd.h>

#include <chrono>
#include <exception>
#include <stdexcept>
#include <string>
#include <typeinfo>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "shoal/ipc/forkserver.h"
#include "shoal/pool/pool.h"
#include "tests/support/child.h"

namespace app {

struct NoSuchUser : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class QueryFailed : public std::exception {
 public:
  QueryFailed() = default;
  QueryFailed(int line, std::vector<std::string> words)
      : line_(line), words_(std::move(words)) {}
  const char* what() const noexcept override { return "a query has failed"; }
  int line() const { return line_; }
  const std::vector<std::string>& words() const { return words_; }
  template <class A>
  void serialize(A& ar) {
    ar(line_, words_);
  }

 private:
  int line_ = 0;
  std::vector<std::string> words_;
};

// No std::exception at all.
struct Code {
  int number;
  std::string text;
};

struct Refuses : std::exception {
  const char* what() const noexcept override { return "it refuses"; }
  template <class A>
  void serialize(A&) {
    throw std::length_error("not to be encoded");
  }
};
struct Unknown : std::runtime_error {
  using std::runtime_error::runtime_error;
};
struct Silent : std::exception {
  const char* what() const noexcept override { return nullptr; }
};

// A virtual base that has no default constructor.
struct IoError : virtual std::runtime_error {
  explicit IoError(const std::string& text) : std::runtime_error(text) {}
};

}  // namespace app

SHOAL_EXCEPTION(app::IoError);
SHOAL_EXCEPTION(app::NoSuchUser);
SHOAL_EXCEPTION(app::QueryFailed);
SHOAL_EXCEPTION(app::Code);
SHOAL_EXCEPTION(app::Refuses);

namespace {

using namespace shoal;
using namespace shoal::support;
using namespace std::chrono_literals;

class PoolError : public testing::TestWithParam<StartMethod> {
 protected:
  void TearDown() override { forkserver::stop(); }
  Pool pool_{PoolOptions{.processes = 1, .start_method = GetParam()}};
};
INSTANTIATE_TEST_SUITE_P(Methods, PoolError,
                         testing::Values(StartMethod::fork, StartMethod::spawn,
                                         StartMethod::forkserver));

TEST_P(PoolError, DeclaredTypesAreKept) {
  try {
    pool_.apply([]() -> int { throw app::NoSuchUser("root"); });
    FAIL() << "no error";
  } catch (const app::NoSuchUser& error) {
    EXPECT_STREQ(error.what(), "root");
    EXPECT_EQ(typeid(error), typeid(app::NoSuchUser));
  }
  try {
    pool_.apply([]() -> int { throw app::IoError("disk"); });
    FAIL() << "no error";
  } catch (const app::IoError& error) {
    EXPECT_STREQ(error.what(), "disk");
  }
  try {
    pool_.apply([]() -> int { throw app::QueryFailed(7, {"a", "b"}); });
    FAIL() << "no error";
  } catch (const app::QueryFailed& error) {
    EXPECT_EQ(error.line(), 7);
    EXPECT_EQ(error.words(), (std::vector<std::string>{"a", "b"}));
  }
  try {
    pool_.apply([]() -> int { throw app::Code{5, "five"}; });
    FAIL() << "no error";
  } catch (const app::Code& error) {
    EXPECT_EQ(error.number, 5);
    EXPECT_EQ(error.text, "five");
  }
}

// What cannot be encoded goes without its type; nothing else is lost by it.
TEST_P(PoolError, OneThatCannotBeEncoded) {
  try {
    pool_.apply([]() -> int { throw app::Refuses(); });
    FAIL() << "no error";
  } catch (const RemoteError& error) {
    EXPECT_EQ(error.type_name(), "app::Refuses");
    EXPECT_EQ(error.message(), "it refuses");
  }
  EXPECT_EQ(pool_.apply([] { return 1; }), 1);
}

TEST_P(PoolError, AnUndeclaredOneSaysWhereItWasThrown) {
  try {
    pool_.apply([]() -> int { throw app::Unknown("who"); });
    FAIL() << "no error";
  } catch (const RemoteError& error) {
    EXPECT_EQ(error.type_name(), "app::Unknown");
    EXPECT_EQ(error.message(), "who");
    EXPECT_NE(error.pid(), getpid());
    // The task that has thrown comes first, and nothing of the hook.
    const std::string first =
        error.backtrace().substr(0, error.backtrace().find('\n'));
    EXPECT_NE(first.find("AnUndeclaredOneSaysWhereItWasThrown"),
              std::string::npos)
        << error.backtrace();
    EXPECT_EQ(error.backtrace().find("__cxa_throw"), std::string::npos)
        << error.backtrace();
    EXPECT_NE(std::string(error.what()).find(error.backtrace()),
              std::string::npos);
  }
}

TEST_P(PoolError, OneWithoutAText) {
  try {
    pool_.apply([]() -> int { throw app::Silent(); });
    FAIL() << "no error";
  } catch (const RemoteError& error) {
    EXPECT_EQ(error.type_name(), "app::Silent");
    EXPECT_EQ(error.message(), "");
  }
}

// The texts of a chain of nested exceptions, outermost first.
std::string chain(const std::exception& error) {
  std::string text = error.what();
  if (const auto* remote = dynamic_cast<const RemoteError*>(&error))
    text = remote->type_name() + ' ' + remote->message();
  try {
    std::rethrow_if_nested(error);
  } catch (const std::exception& inner) {
    text += " <- " + chain(inner);
  }
  return text;
}

template <class Inner, class Outer>
[[noreturn]] void throw_nested(const Inner& inner, const Outer& outer) {
  try {
    throw inner;
  } catch (...) {
    std::throw_with_nested(outer);
  }
}

TEST_P(PoolError, NestedOnesAreNested) {
  try {
    pool_.apply([]() -> int {
      throw_nested(std::out_of_range("index 7"), std::runtime_error("load"));
    });
    FAIL() << "no error";
  } catch (const std::runtime_error& error) {
    EXPECT_EQ(chain(error), "load <- index 7");
    EXPECT_THROW(std::rethrow_if_nested(error), std::out_of_range);
  }
  try {
    pool_.apply([]() -> int {
      try {
        throw_nested(app::QueryFailed(1, {}), app::NoSuchUser("x"));
      } catch (...) {
        std::throw_with_nested(app::Unknown("outermost"));
      }
    });
    FAIL() << "no error";
  } catch (const RemoteError& error) {
    EXPECT_NE(chain(error).find("outermost <- x <- a query has failed"),
              std::string::npos)
        << chain(error);
  }
}

TEST_P(PoolError, InMapsAndStreams) {
  EXPECT_THROW(pool_.map(
                   [](int x) -> int {
                     if (x == 3) throw app::Code{x, ""};
                     return x;
                   },
                   {1, 2, 3}),
               app::Code);
  auto stream = pool_.imap(
      [](int x) -> int {
        if (x == 1) throw app::NoSuchUser("one");
        return x;
      },
      {0, 1, 2});
  EXPECT_EQ(stream.next(10s), 0);
  EXPECT_THROW(stream.next(10s), app::NoSuchUser);
  EXPECT_EQ(stream.next(10s), 2);
}

}  // namespace
