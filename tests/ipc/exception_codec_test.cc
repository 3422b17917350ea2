// Every exception that keeps its type does, with its text and all that it
// carries; every other says what it was; bytes that are none do no harm.

#include "shoal/ipc/exception_codec.h"

#include <errno.h>
#include <unistd.h>

#include <algorithm>
#include <any>
#include <array>
#include <cstddef>
#include <exception>
#include <filesystem>
#include <functional>
#include <future>
#include <ios>
#include <limits>
#include <memory>
#include <new>
#include <optional>
#include <random>
#include <regex>
#include <span>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <typeinfo>
#include <variant>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shoal/ipc/errors.h"
#include "tests/support/child.h"

namespace {

using namespace shoal;
using support::Child;
using support::Shared;
using testing::HasSubstr;
using testing::StartsWith;

using Bytes = std::vector<std::byte>;

template <class E>
Bytes encoded(const E& error) {
  return exception_codec::encode(std::make_exception_ptr(error));
}

// Runs `check` on what the bytes say, as the base class.
template <class Check>
void decoded(std::span<const std::byte> bytes, Check&& check) {
  const std::exception_ptr error = exception_codec::decode(bytes);
  ASSERT_NE(error, nullptr);
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& e) {
    check(e);
  }
}

// Same type, same text; returns a copy for the rest.
template <class E>
E kept(const E& error) {
  std::optional<E> copy;
  decoded(encoded(error), [&](const std::exception& e) {
    EXPECT_EQ(typeid(e), typeid(E));
    EXPECT_STREQ(e.what(), error.what());
    if (typeid(e) == typeid(E)) copy.emplace(dynamic_cast<const E&>(e));
  });
  EXPECT_TRUE(copy.has_value()) << typeid(E).name();
  return copy.value_or(error);
}

// Arrives as RemoteError; returns a copy.
template <class E>
RemoteError remote(const E& error) {
  std::optional<RemoteError> copy;
  decoded(encoded(error), [&](const std::exception& e) {
    EXPECT_EQ(typeid(e), typeid(RemoteError)) << e.what();
    if (auto* that = dynamic_cast<const RemoteError*>(&e)) copy.emplace(*that);
  });
  return copy.value_or(RemoteError("", "", 0));
}

// ---- types that keep ----

template <class E>
class OfText : public testing::Test {};
using TextTypes =
    testing::Types<std::runtime_error, std::logic_error, std::invalid_argument,
                   std::domain_error, std::length_error, std::out_of_range,
                   std::range_error, std::overflow_error, std::underflow_error,
                   Error, TimeoutError, Empty, Full, Closed, ShutDown,
                   EndOfFile, PeerDied, BrokenPipe, MessageTooLong,
                   TypeMismatch, OwnerDied, BrokenBarrier, BarrierTimeout,
                   Corrupt, Cancelled, BrokenPool, NotRunning, NotReady>;
TYPED_TEST_SUITE(OfText, TextTypes);

TYPED_TEST(OfText, KeepsTypeAndText) {
  for (const std::string text :
       {"", "a", "two\nlines", "\xFF\xFE not UTF-8 \x01", "%s %n {}"})
    kept(TypeParam(text));
  kept(TypeParam(std::string(3'000'000, 'x')));
}

template <class E>
class WithoutText : public testing::Test {};
using PlainTypes =
    testing::Types<std::exception, std::bad_exception, std::bad_alloc,
                   std::bad_array_new_length, std::bad_cast, std::bad_any_cast,
                   std::bad_typeid, std::bad_function_call,
                   std::bad_optional_access, std::bad_variant_access,
                   std::bad_weak_ptr>;
TYPED_TEST_SUITE(WithoutText, PlainTypes);

TYPED_TEST(WithoutText, KeepsTypeAndText) { kept(TypeParam()); }

TEST(ExceptionCodec, AsThrownByTheLibrary) {
  const auto thrown = [](auto&& f) {
    try {
      f();
    } catch (...) {
      return std::current_exception();
    }
    return std::exception_ptr();
  };
  const auto check = [&](auto&& f) {
    const std::exception_ptr before = thrown(f);
    ASSERT_NE(before, nullptr);
    decoded(exception_codec::encode(before), [&](const std::exception& after) {
      try {
        std::rethrow_exception(before);
      } catch (const std::exception& e) {
        EXPECT_EQ(typeid(e), typeid(after));
        // Whose text cannot be given to a constructor says less.
        if (typeid(e) != typeid(std::bad_variant_access) &&
            typeid(e) != typeid(std::regex_error)) {
          EXPECT_STREQ(e.what(), after.what());
        }
      }
    });
  };
  check([] { (void)std::vector<int>(3).at(7); });
  check([] { (void)std::stoi("none"); });
  check([] { (void)std::stoi("99999999999999999999"); });
  check([] { (void)std::string(3, 'x').substr(9); });
  check([] { (void)std::get<int>(std::variant<int, char>('c')); });
  check([] { (void)std::optional<int>().value(); });
  check([] { (void)std::any_cast<int>(std::any(1.5)); });
  check([] { std::function<void()>()(); });
  check([] { (void)std::shared_ptr<int>(std::weak_ptr<int>()); });
  check([] { (void)std::filesystem::file_size("/no/such/file"); });
  check([] { std::filesystem::copy("/no/such", "/nor/such"); });
  check([] { (void)std::future<int>().get(); });
  check([] { (void)std::regex("("); });
  check([] { throw_system_error(EACCES, "open", "x", 5); });
}

TEST(ExceptionCodec, SystemErrorKeepsItsCode) {
  for (const std::error_code code :
       {std::error_code(EACCES, std::generic_category()),
        std::error_code(ENOENT, std::system_category()),
        std::error_code(0, std::generic_category()),
        std::error_code(-1, std::generic_category()),
        std::error_code(123456, std::system_category()),
        std::make_error_code(std::io_errc::stream)}) {
    for (const std::string text :
         {"", "open", "a: b", "open: Permission denied", "Permission denied",
          ": ", "open: "}) {
      EXPECT_EQ(kept(std::system_error(code, text)).code(), code) << text;
      EXPECT_EQ(kept(std::ios_base::failure(text, code)).code(), code) << text;
    }
    EXPECT_EQ(kept(std::system_error(code)).code(), code);
  }
}

TEST(ExceptionCodec, OtherCodesAreKept) {
  EXPECT_EQ(kept(std::future_error(std::future_errc::promise_already_satisfied))
                .code(),
            std::future_errc::promise_already_satisfied);
  EXPECT_EQ(kept(std::regex_error(std::regex_constants::error_paren)).code(),
            std::regex_constants::error_paren);
}

TEST(ExceptionCodec, FilesystemErrorKeepsItsPaths) {
  using std::filesystem::filesystem_error;
  const std::error_code code(EACCES, std::generic_category());
  for (const std::string text :
       {"", "cannot copy", "a: b", "Permission denied",
        "x: Permission denied: y", "filesystem error: z"}) {
    const auto none = kept(filesystem_error(text, code));
    EXPECT_EQ(none.code(), code);
    EXPECT_TRUE(none.path1().empty());
    const auto one = kept(filesystem_error(text, "/a b/c", code));
    EXPECT_EQ(one.path1(), "/a b/c");
    EXPECT_TRUE(one.path2().empty());
    const auto two =
        kept(filesystem_error(text, "/a", "b: Permission denied", code));
    EXPECT_EQ(two.path1(), "/a");
    EXPECT_EQ(two.path2(), "b: Permission denied");
    const auto second = kept(filesystem_error(text, "", "/b", code));
    EXPECT_EQ(second.path2(), "/b");
    kept(filesystem_error(text, "", "", code));
    kept(filesystem_error(text, "", code));
  }
}

// A code of a category that the receiver cannot know by its name must not
// become one of another category that means something else there.
class OurCategory : public std::error_category {
 public:
  const char* name() const noexcept override { return "ours"; }
  std::string message(int value) const override {
    return "our number " + std::to_string(value);
  }
};

TEST(ExceptionCodec, CodeOfAnUnknownCategoryIsNotMistakenForErrno) {
  static const OurCategory ours;
  const std::system_error error(std::error_code(EACCES, ours), "call");
  decoded(encoded(error), [&](const std::exception& e) {
    EXPECT_THAT(e.what(), HasSubstr("call: our number 13"));
    if (const auto* that = dynamic_cast<const std::system_error*>(&e)) {
      EXPECT_NE(that->code(), std::errc::permission_denied);
    }
  });
}

TEST(ExceptionCodec, OursKeepWhatTheyCarry) {
  const auto space = kept(NoSpace("no space", 7, UINT64_MAX));
  EXPECT_EQ(space.wanted(), 7u);
  EXPECT_EQ(space.available(), UINT64_MAX);
  const auto died = kept(WorkerDied("died", 12345, -9, UINT64_MAX - 1));
  EXPECT_EQ(died.pid(), 12345);
  EXPECT_EQ(died.exitcode(), -9);
  EXPECT_EQ(died.task(), UINT64_MAX - 1);
  const Bytes message(100'000, std::byte{7});
  EXPECT_EQ(kept(BufferTooShort("short", message)).message(), message);
  EXPECT_EQ(kept(BufferTooShort("short", {})).message(), Bytes());
}

// From a pool within a pool: it stays what it was where it was thrown.
TEST(ExceptionCodec, RemoteErrorIsHandedOn) {
  const auto error = kept(RemoteError("some::Type", "why", 4711));
  EXPECT_EQ(error.type_name(), "some::Type");
  EXPECT_EQ(error.message(), "why");
  EXPECT_EQ(error.pid(), 4711);
}

// ---- types that do not ----

struct Derived : std::runtime_error {
  using std::runtime_error::runtime_error;
  int extra = 5;
};
struct OfException : std::exception {
  const char* what() const noexcept override { return "own text"; }
};
struct DerivedNoSpace : NoSpace {
  DerivedNoSpace() : NoSpace("none", 1, 2) {}
};
struct NoException {};
enum class Number { one };

TEST(ExceptionCodec, DerivedTypeIsRemoteErrorWithItsName) {
  const auto derived = remote(Derived("why"));
  EXPECT_THAT(derived.type_name(), HasSubstr("Derived"));
  EXPECT_THAT(derived.type_name(), Not(HasSubstr("7Derived"))) << "mangled";
  EXPECT_EQ(derived.message(), "why");
  EXPECT_EQ(derived.pid(), getpid());
  EXPECT_THAT(derived.what(), HasSubstr("why"));
  EXPECT_THAT(derived.what(), HasSubstr(std::to_string(getpid())));
  EXPECT_EQ(remote(OfException()).message(), "own text");
  EXPECT_THAT(remote(DerivedNoSpace()).type_name(), HasSubstr("DerivedNoSp"));
}

TEST(ExceptionCodec, NestedOnesStayNested) {
  try {
    try {
      throw std::out_of_range("inner");
    } catch (...) {
      std::throw_with_nested(std::runtime_error("outer"));
    }
  } catch (const std::exception&) {
    decoded(exception_codec::encode(std::current_exception()),
            [](const std::exception& e) {
              EXPECT_STREQ(e.what(), "outer");
              EXPECT_NE(dynamic_cast<const std::runtime_error*>(&e), nullptr);
              EXPECT_THROW(std::rethrow_if_nested(e), std::out_of_range);
            });
  }
}

TEST(ExceptionCodec, WhatIsNoExceptionIsRemoteErrorWithItsName) {
  EXPECT_EQ(remote(42).type_name(), "int");
  EXPECT_EQ(remote(42).message(), "");
  EXPECT_EQ(remote(42).pid(), getpid());
  EXPECT_EQ(remote(1.5).type_name(), "double");
  EXPECT_EQ(remote<const char*>("text").type_name(), "char const*");
  EXPECT_THAT(remote(std::string("text")).type_name(),
              HasSubstr("basic_string"));
  EXPECT_THAT(remote(NoException()).type_name(), HasSubstr("NoException"));
  EXPECT_THAT(remote(Number::one).type_name(), HasSubstr("Number"));
  const auto lambda = [] {};
  EXPECT_NE(remote(lambda).type_name(), "");
}

TEST(ExceptionCodec, HugeTextArrivesWhole) {
  const std::string text(20'000'000, 'y');
  EXPECT_EQ(remote(Derived(text)).message(), text);
}

TEST(ExceptionCodec, SaysWhichProcessItCameFrom) {
  struct Buffer {
    std::array<std::byte, 4096> bytes;
    std::size_t size;
  };
  Shared<Buffer> buffer;
  Child child([&](Child& self) {
    const Bytes bytes = encoded(Derived("from afar"));
    self.expect(bytes.size() <= buffer->bytes.size(), "fits");
    std::copy(bytes.begin(), bytes.end(), buffer->bytes.begin());
    buffer->size = bytes.size();
  });
  ASSERT_EQ(child.join(), 0) << child.failures();
  decoded(std::span(buffer->bytes).first(buffer->size),
          [&](const std::exception& e) {
            ASSERT_EQ(typeid(e), typeid(RemoteError));
            const auto& error = dynamic_cast<const RemoteError&>(e);
            EXPECT_EQ(error.pid(), child.pid());
            EXPECT_EQ(error.message(), "from afar");
          });
}

// ---- bytes that nobody encoded ----

std::vector<Bytes> samples() {
  const std::error_code code(EACCES, std::generic_category());
  return {encoded(std::runtime_error("why")),
          encoded(std::bad_alloc()),
          encoded(std::system_error(code, "open")),
          encoded(std::filesystem::filesystem_error("copy", "/a", "/b", code)),
          encoded(BufferTooShort("short", Bytes(40, std::byte{1}))),
          encoded(NoSpace("none", 1, 2)),
          encoded(WorkerDied("died", 1, -9, 3)),
          encoded(RemoteError("T", "why", 3)),
          encoded(Derived("why")),
          encoded(42)};
}

TEST(ExceptionCodec, EveryTruncationIsCorrupt) {
  for (const Bytes& sample : samples()) {
    for (std::size_t n = 0; n < sample.size(); ++n)
      decoded(std::span(sample).first(n), [](const std::exception& e) {
        EXPECT_EQ(typeid(e), typeid(Corrupt)) << e.what();
      });
    Bytes longer = sample;
    longer.push_back(std::byte{0});
    decoded(longer, [](const std::exception& e) {
      EXPECT_EQ(typeid(e), typeid(Corrupt)) << e.what();
    });
  }
}

TEST(ExceptionCodec, UnknownTypeIsCorrupt) {
  for (const std::uint32_t type : {1000u, 0x7FFFFFFFu, ~0u}) {
    Bytes bytes = encoded(std::runtime_error("why"));
    memcpy(bytes.data(), &type, sizeof type);
    decoded(bytes, [](const std::exception& e) {
      EXPECT_EQ(typeid(e), typeid(Corrupt)) << e.what();
    });
  }
}

// What the library throws is of a class that is derived from it.
TEST(ExceptionCodec, FailureOfAStreamIsOne) {
  std::istringstream none;
  none.exceptions(std::ios::failbit);
  try {
    int number;
    none >> number;
    FAIL();
  } catch (const std::ios_base::failure& thrown) {
    ASSERT_NE(typeid(thrown), typeid(std::ios_base::failure));
    const Bytes bytes = exception_codec::encode(std::current_exception());
    decoded(bytes, [&](const std::exception& e) {
      ASSERT_EQ(typeid(e), typeid(std::ios_base::failure));
      EXPECT_STREQ(e.what(), thrown.what());
      EXPECT_EQ(dynamic_cast<const std::ios_base::failure&>(e).code(),
                thrown.code());
    });
  }
}

// `error`, encoded, with `there` in place of the only `here`.
template <class E>
Bytes forged(const E& error, std::string_view here, std::string_view there) {
  Bytes bytes = encoded(error);
  const auto as_byte = [](char c) { return static_cast<std::byte>(c); };
  Bytes wanted(here.size());
  std::ranges::transform(here, wanted.begin(), as_byte);
  const auto found = std::ranges::search(bytes, wanted);
  EXPECT_EQ(found.size(), here.size());
  EXPECT_TRUE(std::ranges::search(found.end(), bytes.end(), wanted.begin(),
                                  wanted.end())
                  .empty());
  std::ranges::transform(there, found.begin(), as_byte);
  return bytes;
}

void expect_corrupt(const Bytes& bytes, const char* text) {
  decoded(bytes, [&](const std::exception& e) {
    EXPECT_EQ(typeid(e), typeid(Corrupt)) << e.what();
    EXPECT_THAT(e.what(), HasSubstr(text));
  });
}

// The enumeration has no such values: to make one is undefined behaviour.
TEST(ExceptionCodec, UnknownRegexErrorIsCorrupt) {
  using namespace std::string_view_literals;
  const std::regex_error error(std::regex_constants::error_complexity);
  const auto code = "\x0B\0\0\0\0\0\0\0"sv;
  static_assert(std::regex_constants::error_complexity == 0x0B);
  for (const auto other :
       {"\x10\0\0\0\0\0\0\0"sv, "\xFF\xFF\xFF\0\0\0\0\0"sv,
        "\0\0\0\0\1\0\0\0"sv, "\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF"sv})
    expect_corrupt(forged(error, code, other), "regex");
}

TEST(ExceptionCodec, NulInATextWithACodeIsCorrupt) {
  using namespace std::string_view_literals;
  const std::error_code code(EACCES, std::generic_category());
  expect_corrupt(forged(std::system_error(code, "open"), "open", "op\0n"sv),
                 "NUL");
  const std::filesystem::filesystem_error copy("copy", "/old", "/new", code);
  expect_corrupt(forged(copy, "copy", "co\0y"sv), "NUL");
  expect_corrupt(forged(copy, "/old", "/o\0d"sv), "NUL");
  expect_corrupt(forged(copy, "/new", "/\0ew"sv), "NUL");
}

// what() ends at the NUL, and so does what arrives.
TEST(ExceptionCodec, TextOfAnErrorWithANulArrivesAsFarAsWhatSays) {
  const std::error_code code(EACCES, std::generic_category());
  const std::string text("op\0n", 4);
  EXPECT_EQ(remote(std::system_error(code, text)).message(), "op");
  EXPECT_STREQ(kept(std::runtime_error(text)).what(), "op");
}

TEST(ExceptionCodec, ChangedBytesNeverCrash) {
  std::mt19937 random(3);
  int still_exceptions = 0;
  for (const Bytes& sample : samples())
    for (int n = 0; n < 3000; ++n) {
      Bytes bytes = sample;
      const auto changes = 1 + random() % 4;
      for (unsigned i = 0; i < changes; ++i)
        bytes[random() % bytes.size()] = static_cast<std::byte>(random());
      if (random() % 8 == 0) bytes.resize(random() % bytes.size());
      decoded(bytes, [&](const std::exception& e) {
        ++still_exceptions;
        EXPECT_NE(e.what(), nullptr);
      });
    }
  EXPECT_EQ(still_exceptions, 30'000);
}

TEST(ExceptionCodec, RandomBytesNeverCrash) {
  std::mt19937 random(4);
  for (int n = 0; n < 20'000; ++n) {
    Bytes bytes(random() % 200);
    for (std::byte& byte : bytes)
      byte = random() % 3 == 0 ? static_cast<std::byte>(random()) : std::byte{};
    decoded(bytes,
            [](const std::exception& e) { EXPECT_NE(e.what(), nullptr); });
  }
}

}  // namespace
