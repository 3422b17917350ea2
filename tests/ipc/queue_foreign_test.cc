// Names behind which there is something else than what a program expects.

#include <signal.h>

#include <cstddef>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <sstream>
#include <string>
#include <string_view>
#include <system_error>
#include <typeinfo>

#include "gmock/gmock.h"
#include "shoal/ipc/queue.h"
#include "tests/support/child.h"
#include "tests/support/name.h"
#include "tests/support/thrown.h"

namespace {

namespace fs = std::filesystem;

using shoal::Queue;
using shoal::support::Child;
using shoal::support::is_system_error;
using shoal::support::Name;
using shoal::support::text_of_mismatch;
using testing::AllOf;
using testing::HasSubstr;
using namespace std::chrono_literals;

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void write_file(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

// Opens the object of that name and uses it, in a process that may crash; what
// it finds wrong it must say by an Error.
void use_without_crash(const std::string& name, const std::string& what) {
  Child user([&](Child& self) {
    signal(SIGSEGV, SIG_DFL);  // not a sanitizer's
    signal(SIGBUS, SIG_DFL);
    try {
      auto queue = Queue<int>::open(name);
      queue.qsize();
      queue.empty();
      queue.full();
      queue.try_put(1);
      queue.try_get();
      queue.try_put(1, 1ms);
      queue.try_get(1ms);
      queue.try_get(1ms);
      queue.shutdown();
      queue.try_get();
    } catch (const shoal::Error&) {
    } catch (const std::exception& error) {
      self.expect(false, typeid(error).name());
      self.expect(false, error.what());
    }
  });
  EXPECT_EQ(user.join(10s), 0) << what << ": " << user.failures();
}

TEST(QueueForeign, EmptyShortAndGarbageFilesAreRefused) {
  const Name model("model");
  Queue<int>::create(model, 3);
  const std::size_t right = fs::file_size(model.path());
  std::mt19937 random(7);
  for (const std::size_t size :
       {std::size_t{0}, std::size_t{1}, std::size_t{4095}, std::size_t{4096},
        std::size_t{8192}, right - 4096, right - 1, right, right + 1,
        right + 4096}) {
    for (const bool zeros : {true, false}) {
      const Name name("foreign");
      std::string bytes(size, '\0');
      if (!zeros)
        for (char& byte : bytes) byte = static_cast<char>(random());
      write_file(name.path(), bytes);
      EXPECT_THAT(text_of_mismatch([&] { Queue<int>::open(name); }),
                  HasSubstr(name.text()))
          << size;
      EXPECT_THAT(text_of_mismatch([&] { Queue<int>::open_or_create(name); }),
                  HasSubstr(name.text()))
          << size;
      is_system_error([&] { Queue<int>::create(name, 3); },
                      std::errc::file_exists, name.text());
      EXPECT_EQ(read_file(name.path()), bytes) << "left as it was";
    }
  }
}

TEST(QueueForeign, TruncatedAndExtendedObjectsAreRefused) {
  const Name model("model");
  Queue<int>::create(model, 5000).put(1);
  const std::string bytes = read_file(model.path());
  const auto refused = [](const std::string& content) {
    const Name name("cut");
    write_file(name.path(), content);
    try {
      Queue<int>::open(name);
      ADD_FAILURE() << "opened " << content.size() << " bytes";
    } catch (const shoal::Error& error) {
      EXPECT_THAT(error.what(), HasSubstr(name.text()));
    }
  };
  for (std::size_t pages = 0; pages < bytes.size() / 4096; ++pages) {
    refused(bytes.substr(0, pages * 4096));
    refused(bytes.substr(pages * 4096 + 4096));
  }
  refused(bytes.substr(0, bytes.size() - 1));
  refused(bytes + std::string(4096, '\0'));
  refused(std::string(4096, '\0') + bytes);
  refused(bytes + bytes);
}

TEST(QueueForeign, AnotherAbiVersionIsAMismatchThatShowsBoth) {
  const Name name("abi");
  Queue<int>::create(name, 3);
  std::string bytes = read_file(name.path());
  const auto magic = bytes.find(std::string("SHOAL01\0", 8));
  ASSERT_NE(magic, std::string::npos);
  bytes[magic + 8] = 99;
  write_file(name.path(), bytes);
  EXPECT_THAT(text_of_mismatch([&] { Queue<int>::open(name); }),
              AllOf(HasSubstr("ABI"), HasSubstr("99"), HasSubstr("1")));
}

TEST(QueueForeign, NoHeaderWordCanCrashAUser) {
  const Name name("header");
  Queue<int>::create(name, 3);
  const std::string good = read_file(name.path());
  const auto magic = good.find(std::string("SHOAL01\0", 8));
  ASSERT_NE(magic, std::string::npos);
  for (std::size_t word = 0; word < 18; ++word)
    for (const std::uint64_t value :
         {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{4},
          std::uint64_t{0xFFFFFFFF}, ~std::uint64_t{0},
          std::uint64_t{1} << 63}) {
      std::string bad = good;
      bad.replace(magic + 8 * word, 8, reinterpret_cast<const char*>(&value),
                  8);
      write_file(name.path(), bad);
      std::ostringstream what;
      what << "header word " << word << " = " << std::hex << value;
      use_without_crash(name.text(), what.str());
    }
}

TEST(QueueForeign, NoRingWordCanCrashAUser) {
  const Name name("ring");
  {
    auto queue = Queue<int>::create(name, 3);
    queue.put(1);
    queue.put(2);
  }
  const std::string good = read_file(name.path());
  std::mt19937_64 random(11);
  // tail, head, wait and orphans, closed, swept; then the cells' words
  for (const std::size_t offset :
       {0, 64, 128, 136, 144, 192, 192 + 16, 192 + 32}) {
    for (const std::uint64_t value :
         {std::uint64_t{3}, std::uint64_t{0xFFFFFFFF}, ~std::uint64_t{0},
          std::uint64_t{1} << 32, std::uint64_t{0x7FFFFFFF00000000},
          static_cast<std::uint64_t>(random())}) {
      std::string bad = good;
      bad.replace(offset, 8, reinterpret_cast<const char*>(&value), 8);
      write_file(name.path(), bad);
      std::ostringstream what;
      what << "ring at " << offset << " = " << std::hex << value;
      use_without_crash(name.text(), what.str());
    }
  }
}

TEST(QueueForeign, NoDomainWordCanCrashAUser) {
  const Name name("domain");
  Queue<int>::create(name, 3).put(1);
  const std::string good = read_file(name.path());
  const std::size_t domain =
      good.size() -
      shoal::segment::round_to_page(sizeof(shoal::liveness::DomainState));
  // seats and mode, high, deaths, the first seats
  for (const std::size_t offset : {0, 8, 64, 128, 136}) {
    for (const std::uint64_t value :
         {std::uint64_t{0xFFFFFFFF}, ~std::uint64_t{0},
          std::uint64_t{0x7FFFFFFF00000400},
          std::uint64_t{0x0000040100000401}}) {
      std::string bad = good;
      bad.replace(domain + offset, 8, reinterpret_cast<const char*>(&value), 8);
      write_file(name.path(), bad);
      std::ostringstream what;
      what << "domain at " << offset << " = " << std::hex << value;
      use_without_crash(name.text(), what.str());
    }
  }
}

}  // namespace
