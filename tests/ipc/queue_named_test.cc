// Queues that have names.

#include <sys/stat.h>

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "gmock/gmock.h"
#include "shoal/ipc/queue.h"
#include "tests/support/name.h"
#include "tests/support/residue.h"
#include "tests/support/thrown.h"

namespace {

namespace fs = std::filesystem;

using shoal::Access;
using shoal::Queue;
using shoal::QueueOptions;
using shoal::TypeMismatch;
using shoal::support::is_system_error;
using shoal::support::Name;
using shoal::support::residue;
using shoal::support::text_of_mismatch;
using shoal::support::unique_name;
using testing::HasSubstr;

TEST(QueueNamed, CreatedAndOpenedAreOne) {
  const Name name("one");
  auto created = Queue<int>::create(name, 3);
  auto opened = Queue<int>::open(name);
  EXPECT_EQ(opened.maxsize(), 3u);
  created.put(1);
  EXPECT_EQ(opened.qsize(), 1u);
  EXPECT_EQ(opened.get(), 1);
  opened.put(2);
  EXPECT_EQ(created.get(), 2);
}

TEST(QueueNamed, TakesOptionsAndAccessInAnyOrder) {
  const auto maxsize_and_mode = [](const Name& name) {
    struct stat status;
    EXPECT_EQ(stat(name.path().c_str(), &status), 0);
    return std::pair(Queue<int>::open(name).maxsize(),
                     static_cast<int>(status.st_mode & 07777));
  };
  const Name plain("plain");
  Queue<int>::create(plain);
  EXPECT_EQ(maxsize_and_mode(plain), std::pair(std::size_t{0}, 0600));
  const Name options("options");
  Queue<int>::create(options, QueueOptions{.maxsize = 7});
  EXPECT_EQ(maxsize_and_mode(options), std::pair(std::size_t{7}, 0600));
  const Name access("access");
  Queue<int>::create(access, 5, Access{.mode = 0640});
  EXPECT_EQ(maxsize_and_mode(access), std::pair(std::size_t{5}, 0640));
  const Name other("other");
  Queue<int>::open_or_create(other, Access{.mode = 0660}, 6);
  EXPECT_EQ(maxsize_and_mode(other), std::pair(std::size_t{6}, 0660));
}

TEST(QueueNamed, ExistingIsEexist) {
  const Name name("twice");
  auto queue = Queue<int>::create(name, 3);
  queue.put(5);
  is_system_error([&] { Queue<int>::create(name, 3); }, std::errc::file_exists,
                  name.text());
  is_system_error([&] { Queue<double>::create(name, 3); },
                  std::errc::file_exists, name.text());
  EXPECT_EQ(Queue<int>::open(name).get(), 5) << "which changes nothing";
}

TEST(QueueNamed, MissingIsEnoent) {
  const Name name("missing");
  is_system_error([&] { Queue<int>::open(name); },
                  std::errc::no_such_file_or_directory, name.text());
}

TEST(QueueNamed, OpenOrCreateDoesEither) {
  const Name name("either");
  auto first = Queue<int>::open_or_create(name, 3);
  first.put(1);
  auto second = Queue<int>::open_or_create(name, 3);
  EXPECT_EQ(second.get(), 1);
  EXPECT_EQ(Queue<int>::open_or_create(name).maxsize(), 3u)
      << "what exists is as it was made";
  EXPECT_THROW(Queue<int>::open_or_create(name, 9), shoal::TypeMismatch);
}

TEST(QueueNamed, UnlinkSaysWhetherThereWasOne) {
  const Name name("unlinked");
  EXPECT_FALSE(shoal::unlink(name.text()));
  auto queue = Queue<int>::create(name, 2);
  EXPECT_TRUE(shoal::unlink(name.text()));
  EXPECT_FALSE(shoal::unlink(name.text()));
  queue.put(1);
  EXPECT_EQ(queue.get(), 1) << "what is open lives on";
  EXPECT_THROW(Queue<int>::open(name), std::system_error);
  auto another = Queue<int>::create(name, 2);
  EXPECT_TRUE(another.empty());
}

TEST(QueueNamed, NameOutlivesItsHandles) {
  const Name name("lasting");
  Queue<int>::create(name, 2).put(8);
  EXPECT_EQ(Queue<int>::open(name).get(), 8);
}

TEST(QueueNamed, BadNamesAreInvalidArgumentsThatNameThem) {
  for (const std::string& bad :
       {std::string(), std::string(201, 'x'), std::string("a/b"),
        std::string("sp ace"), std::string("\xc3\xa4")}) {
    const auto refused = [&](auto&& call) {
      try {
        call();
        ADD_FAILURE() << "accepted \"" << bad << '"';
      } catch (const std::invalid_argument& error) {
        EXPECT_THAT(error.what(), HasSubstr('"' + bad + '"'));
      }
    };
    refused([&] { Queue<int>::create(bad, 1); });
    refused([&] { Queue<int>::open(bad); });
    refused([&] { Queue<int>::open_or_create(bad, 1); });
    refused([&] { shoal::unlink(bad); });
  }
}

TEST(QueueNamed, LongestName) {
  std::string name = unique_name("long");
  name.resize(200, 'x');
  Queue<int>::create(name, 2).put(1);
  EXPECT_EQ(Queue<int>::open(name).get(), 1);
  EXPECT_TRUE(shoal::unlink(name));
}

namespace v1 {
struct Tick {
  int id;
  float price;
};
}  // namespace v1
namespace v2 {
struct Tick {
  int id;
  double price;
  short volume[3];
};
}  // namespace v2

TEST(QueueNamed, AnotherTypeIsAMismatchThatShowsBoth) {
  const Name name("typed");
  Queue<int>::create(name, 2);
  EXPECT_THAT(text_of_mismatch([&] { Queue<double>::open(name); }),
              AllOf(HasSubstr(name.text()), HasSubstr("int"),
                    HasSubstr("double"), HasSubstr("Queue")));
  EXPECT_THAT(text_of_mismatch([&] { Queue<double>::open_or_create(name, 2); }),
              AllOf(HasSubstr("int"), HasSubstr("double")));
  EXPECT_THAT(text_of_mismatch([&] { Queue<unsigned>::open(name); }),
              HasSubstr("unsigned"))
      << "of the same size";
  Queue<int>::open(name).put(1);
}

TEST(QueueNamed, OtherFieldsAreAMismatchFieldByField) {
  const Name name("fields");
  Queue<v1::Tick>::create(name, 2);
  EXPECT_THAT(
      text_of_mismatch([&] { Queue<v2::Tick>::open(name); }),
      AllOf(HasSubstr("v1::Tick"), HasSubstr("4 float"), HasSubstr("v2::Tick"),
            HasSubstr("8 double"), HasSubstr("16 short[3]")));
}

TEST(QueueNamed, ReadOnlyQueueIsRefusedWithAReason) {
  const Name name("read-only");
  Queue<int>::create(name, 2);
  try {
    Queue<int>::open(name, Access{.read_only = true});
    ADD_FAILURE() << "a queue cannot be used read-only";
  } catch (const std::logic_error& error) {
    EXPECT_THAT(error.what(),
                AllOf(HasSubstr(name.text()), HasSubstr("read-only")));
  }
}

TEST(QueueNamed, AThousandLeaveNothing) {
  const auto before = residue();
  for (int i = 0; i < 1000; ++i) {
    const std::string name = unique_name("cycle");
    auto queue = Queue<int>::create(name, 3);
    auto opened = Queue<int>::open(name);
    queue.put(i);
    ASSERT_EQ(opened.get(), i);
    ASSERT_TRUE(shoal::unlink(name));
  }
  EXPECT_EQ(residue(), before);
}

}  // namespace
