// Segments: memfds and named files of shared pages.

#include "shoal/ipc/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>

#include "gmock/gmock.h"
#include "shoal/ipc/errors.h"
#include "tests/support/child.h"
#include "tests/support/residue.h"

namespace {

namespace fs = std::filesystem;

using shoal::Access;
using shoal::NoSpace;
using shoal::segment::File;
using shoal::segment::kPage;
using shoal::support::Child;
using shoal::support::residue;
using shoal::support::Shared;
using shoal::support::unique_name;
using testing::HasSubstr;
using testing::Le;

std::string path_of(const std::string& name) {
  return "/dev/shm/shoal." + name;
}

// The code of the std::system_error that `call` throws, 0 if it throws none.
template <class Call>
int error_of(Call&& call, const std::string& text = "") {
  try {
    call();
  } catch (const std::system_error& error) {
    EXPECT_EQ(error.code().category(), std::generic_category());
    EXPECT_THAT(error.what(), HasSubstr(text));
    return error.code().value();
  }
  return 0;
}

// The descriptor of this process whose link reads `target`, or -1.
int descriptor_of(const std::string& target) {
  for (const auto& entry : fs::directory_iterator("/proc/self/fd")) {
    std::error_code closed;
    if (fs::read_symlink(entry.path(), closed).native().starts_with(target))
      return std::stoi(entry.path().filename());
  }
  return -1;
}

int mappings_of(const std::string& target) {
  std::ifstream maps("/proc/self/maps");
  int count = 0;
  for (std::string line; std::getline(maps, line);)
    count += line.find(target) != std::string::npos;
  return count;
}

std::byte* bytes_of(const std::shared_ptr<void>& mapping) {
  return static_cast<std::byte*>(mapping.get());
}

bool all_zero(const std::shared_ptr<void>& mapping, std::size_t size) {
  return std::all_of(bytes_of(mapping), bytes_of(mapping) + size,
                     [](std::byte byte) { return byte == std::byte{0}; });
}

static_assert(shoal::segment::round_to_page(0) == 0);
static_assert(shoal::segment::round_to_page(1) == kPage);
static_assert(shoal::segment::round_to_page(kPage) == kPage);
static_assert(shoal::segment::round_to_page(kPage + 1) == 2 * kPage);

// ---- names ----

TEST(SegmentName, LettersDigitsDotUnderscoreDash) {
  for (const std::string& name :
       {std::string("a"), std::string("Z"), std::string("0"), std::string("."),
        std::string("_"), std::string("-"), std::string(".."),
        std::string("ABCXYZabcxyz0189._-"), std::string(200, 'n')})
    EXPECT_NO_THROW(shoal::segment::check_name(name)) << name;
}

TEST(SegmentName, AnythingElseIsRefusedByName) {
  for (const std::string& name :
       {std::string(), std::string(201, 'n'), std::string("a/b"),
        std::string("/a"), std::string("../a"), std::string("a b"),
        std::string("a\n"), std::string("a\0b", 3), std::string("caf\xc3\xa9"),
        std::string("a:b"), std::string("a@"), std::string("a["),
        std::string("a`"), std::string("a{")}) {
    try {
      shoal::segment::check_name(name);
      ADD_FAILURE() << "accepted: " << name;
    } catch (const std::invalid_argument& error) {
      const std::string text = error.what();
      EXPECT_THAT(text, HasSubstr(": use 1 to 200 characters"));
      // Whole, and what would cut or break the text as its code.
      const std::string shown = name == std::string("a\0b", 3) ? "a\\x00b"
                                : name == "a\n"                ? "a\\x0a"
                                                               : name;
      EXPECT_THAT(text, HasSubstr('"' + shown + '"'));
    }
    EXPECT_THROW(shoal::unlink(name), std::invalid_argument);
    EXPECT_THROW(File::named(name, kPage, Access{}), std::invalid_argument);
    EXPECT_THROW(File::open(name, Access{}), std::invalid_argument);
  }
}

// ---- anonymous ----

TEST(SegmentAnonymous, IsZeroedAndOfTheSizeAskedFor) {
  const auto file = File::anonymous("zeroed", 3 * kPage);
  EXPECT_EQ(file.size(), 3 * kPage);
  EXPECT_EQ(file.what(), "zeroed");
  EXPECT_TRUE(all_zero(file.map(0, 3 * kPage, false, false), 3 * kPage));
}

TEST(SegmentAnonymous, EveryMappingSeesTheSameBytes) {
  const auto file = File::anonymous("twice", 2 * kPage);
  const auto first = file.map(0, 2 * kPage, false, true);
  const auto second = file.map(0, 2 * kPage, true, false);
  const auto tail = file.map(kPage, kPage, false, false);
  ASSERT_NE(first.get(), second.get());
  bytes_of(first)[kPage + 5] = std::byte{77};
  EXPECT_EQ(bytes_of(second)[kPage + 5], std::byte{77});
  EXPECT_EQ(bytes_of(tail)[5], std::byte{77});
}

TEST(SegmentAnonymous, DescriptorIsClosedOnExecAndWithTheFile) {
  {
    const auto file = File::anonymous("closed", kPage);
    const int descriptor = descriptor_of("/memfd:shoal.closed");
    ASSERT_GE(descriptor, 0);
    EXPECT_TRUE(fcntl(descriptor, F_GETFD) & FD_CLOEXEC);
  }
  EXPECT_EQ(descriptor_of("/memfd:shoal.closed"), -1);
}

TEST(SegmentAnonymous, SealedKeepsItsSize) {
  const auto file = File::anonymous("sealed", 2 * kPage);
  const int descriptor = descriptor_of("/memfd:shoal.sealed");
  ASSERT_GE(descriptor, 0);
  EXPECT_EQ(ftruncate(descriptor, 2 * kPage), 0);
  file.seal();
  EXPECT_EQ(ftruncate(descriptor, kPage), -1);
  EXPECT_EQ(errno, EPERM);
  EXPECT_EQ(ftruncate(descriptor, 4 * kPage), -1);
  EXPECT_EQ(errno, EPERM);
}

TEST(SegmentAnonymous, MovedFileClosesOnce) {
  auto file = File::anonymous("moved", kPage);
  {
    const File other(std::move(file));
    EXPECT_EQ(other.size(), kPage);
    EXPECT_GE(descriptor_of("/memfd:shoal.moved"), 0);
  }
  EXPECT_EQ(descriptor_of("/memfd:shoal.moved"), -1);
}

// ---- mappings ----

TEST(SegmentMapping, OutlivesTheFile) {
  std::shared_ptr<void> mapping;
  {
    const auto file = File::anonymous("outlived", kPage);
    mapping = file.map(0, kPage, false, false);
  }
  bytes_of(mapping)[kPage - 1] = std::byte{1};
  EXPECT_EQ(bytes_of(mapping)[kPage - 1], std::byte{1});
}

TEST(SegmentMapping, GoesWithItsLastPointer) {
  const auto file = File::anonymous("counted", kPage);
  EXPECT_EQ(mappings_of("shoal.counted"), 0);
  auto first = file.map(0, kPage, false, false);
  auto second = first;
  EXPECT_EQ(mappings_of("shoal.counted"), 1);
  first.reset();
  EXPECT_EQ(mappings_of("shoal.counted"), 1);
  second.reset();
  EXPECT_EQ(mappings_of("shoal.counted"), 0);
}

TEST(SegmentMapping, ReadOnlyCannotBeWritten) {
  const auto file = File::anonymous("constant", kPage);
  const auto mapping = file.map(0, kPage, true, false);
  Child writer([&](Child&) {
    signal(SIGSEGV, SIG_DFL);  // not a sanitizer's
    static_cast<volatile std::byte*>(mapping.get())[0] = std::byte{1};
  });
  EXPECT_EQ(writer.join(), -SIGSEGV);
}

TEST(SegmentMapping, TooLongIsASystemError) {
  const auto file = File::anonymous("long", kPage);
  EXPECT_NE(error_of([&] { file.map(0, std::size_t{1} << 62, false, false); },
                     "long"),
            0);
}

TEST(SegmentMapping, PrivateToTreeIsSharedWithChildren) {
  const auto before = residue();
  const auto mapping = shoal::segment::map_private_to_tree(2 * kPage);
  EXPECT_EQ(residue(), before) << "needs no descriptor";
  EXPECT_TRUE(all_zero(mapping, 2 * kPage));
  Child child([&](Child&) { bytes_of(mapping)[kPage] = std::byte{9}; });
  ASSERT_EQ(child.join(), 0);
  EXPECT_EQ(bytes_of(mapping)[kPage], std::byte{9});
}

// ---- named ----

TEST(SegmentNamed, IsNotVisibleBeforeItIsPublished) {
  const std::string name = unique_name("hidden");
  const auto file = File::named(name, kPage, Access{});
  EXPECT_EQ(file.what(), path_of(name));
  EXPECT_FALSE(File::open(name, Access{}).has_value());
  EXPECT_FALSE(shoal::unlink(name));
  const auto mapping = file.map(0, kPage, false, false);
  bytes_of(mapping)[3] = std::byte{3};
  EXPECT_TRUE(file.publish());
  const auto opened = File::open(name, Access{});
  ASSERT_TRUE(opened.has_value());
  EXPECT_EQ(opened->size(), kPage);
  EXPECT_EQ(bytes_of(opened->map(0, kPage, true, false))[3], std::byte{3});
  EXPECT_TRUE(shoal::unlink(name));
}

TEST(SegmentNamed, AnExistingNameStays) {
  const std::string name = unique_name("first");
  const auto first = File::named(name, kPage, Access{});
  const auto second = File::named(name, 2 * kPage, Access{});
  EXPECT_TRUE(first.publish());
  EXPECT_FALSE(second.publish());
  EXPECT_FALSE(first.publish());
  EXPECT_EQ(File::open(name, Access{})->size(), kPage);
  EXPECT_TRUE(shoal::unlink(name));
}

TEST(SegmentNamed, UnpublishedLeavesNothing) {
  const auto before = residue();
  { const auto file = File::named(unique_name("dropped"), kPage, Access{}); }
  EXPECT_EQ(residue(), before);
}

TEST(SegmentNamed, KilledBeforePublishLeavesNothing) {
  const auto before = residue();
  const std::string name = unique_name("killed");
  {
    Child child([&](Child&) {
      const auto file = File::named(name, kPage, Access{});
      file.reserve(0, kPage);
      raise(SIGKILL);
    });
    EXPECT_EQ(child.join(), -SIGKILL);
  }
  EXPECT_EQ(residue(), before);
  EXPECT_FALSE(File::open(name, Access{}).has_value());
}

TEST(SegmentNamed, ModeIsExactWhateverTheUmask) {
  const mode_t umask_before = umask(0077);
  for (const mode_t mode :
       {mode_t{0600}, mode_t{0640}, mode_t{0666}, mode_t{0400}}) {
    const std::string name = unique_name("mode");
    const auto file = File::named(name, kPage, Access{.mode = mode});
    ASSERT_TRUE(file.publish());
    struct stat status;
    ASSERT_EQ(stat(path_of(name).c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 07777, mode);
    EXPECT_TRUE(shoal::unlink(name));
  }
  umask(umask_before);
  EXPECT_EQ(Access{}.mode, 0600u);
}

TEST(SegmentNamed, WithoutPermissionIsEacces) {
  const std::string name = unique_name("forbidden");
  ASSERT_TRUE(File::named(name, kPage, Access{.mode = 0}).publish());
  Child stranger([&](Child& self) {
    // root may do anything
    if (geteuid() == 0) self.expect(setuid(65534) == 0, "setuid");
    try {
      File::open(name, Access{});
      self.expect(false, "opened");
    } catch (const std::system_error& error) {
      self.expect(error.code().value() == EACCES, error.what());
      self.expect(strstr(error.what(), name.c_str()) != nullptr, error.what());
    }
  });
  EXPECT_EQ(stranger.join(), 0) << stranger.failures();
  EXPECT_TRUE(shoal::unlink(name));
}

TEST(SegmentNamed, ReadOnlyNeedsNoPermissionToWrite) {
  const std::string name = unique_name("read-only");
  ASSERT_TRUE(File::named(name, kPage, Access{.mode = 0444}).publish());
  Child stranger([&](Child& self) {
    if (geteuid() == 0) self.expect(setuid(65534) == 0, "setuid");
    const auto file = File::open(name, Access{.read_only = true});
    self.expect(file.has_value() && file->size() == kPage, "opens");
    const auto mapping = file->map(0, kPage, true, false);
    self.expect(bytes_of(mapping)[0] == std::byte{0}, "reads");
    self.expect(error_of([&] { File::open(name, Access{}); }) == EACCES,
                "cannot be opened for writing");
  });
  EXPECT_EQ(stranger.join(), 0) << stranger.failures();
  EXPECT_TRUE(shoal::unlink(name));
}

TEST(SegmentNamed, MissingIsNothing) {
  EXPECT_FALSE(File::open(unique_name("missing"), Access{}).has_value());
  EXPECT_FALSE(File::open(unique_name("missing"), Access{.read_only = true})
                   .has_value());
}

TEST(SegmentNamed, SymbolicLinkIsRefused) {
  const std::string name = unique_name("link");
  ASSERT_EQ(symlink("/dev/null", path_of(name).c_str()), 0);
  EXPECT_EQ(error_of([&] { File::open(name, Access{}); }, name), ELOOP);
  EXPECT_TRUE(shoal::unlink(name));
}

TEST(SegmentNamed, DirectoryIsRefused) {
  const std::string name = unique_name("directory");
  ASSERT_EQ(mkdir(path_of(name).c_str(), 0700), 0);
  EXPECT_EQ(error_of([&] { File::open(name, Access{}); }, name), EISDIR);
  EXPECT_THROW(File::open(name, Access{.read_only = true}), shoal::Corrupt);
  EXPECT_NE(error_of([&] { shoal::unlink(name); }, name), 0);
  EXPECT_EQ(rmdir(path_of(name).c_str()), 0);
}

TEST(SegmentNamed, FifoIsRefusedAndDoesNotBlock) {
  const std::string name = unique_name("fifo");
  ASSERT_EQ(mkfifo(path_of(name).c_str(), 0600), 0);
  for (const bool read_only : {false, true}) {
    Child child([&](Child& self) {
      try {
        File::open(name, Access{.read_only = read_only});
        self.expect(false, "opened");
      } catch (const shoal::Corrupt& error) {
        self.expect(strstr(error.what(), name.c_str()) != nullptr,
                    error.what());
      }
    });
    EXPECT_EQ(child.join(std::chrono::seconds(5)), 0)
        << (read_only ? "read only: " : "") << child.failures();
  }
  EXPECT_TRUE(shoal::unlink(name));
}

TEST(SegmentNamed, UnlinkSaysWhetherThereWasOne) {
  const std::string name = unique_name("unlinked");
  EXPECT_FALSE(shoal::unlink(name));
  const auto file = File::named(name, kPage, Access{});
  ASSERT_TRUE(file.publish());
  const auto mapping = file.map(0, kPage, false, false);
  EXPECT_TRUE(shoal::unlink(name));
  EXPECT_FALSE(shoal::unlink(name));
  bytes_of(mapping)[0] = std::byte{4};  // what is mapped lives on
  EXPECT_EQ(bytes_of(file.map(0, kPage, true, false))[0], std::byte{4});
}

// ---- reservation ----

TEST(SegmentReserve, BacksEveryPage) {
  const std::string name = unique_name("reserved");
  const auto file = File::named(name, 64 * kPage, Access{});
  ASSERT_TRUE(file.publish());
  struct stat status;
  ASSERT_EQ(stat(path_of(name).c_str(), &status), 0);
  EXPECT_EQ(status.st_blocks, 0);
  file.reserve(16 * kPage, 16 * kPage);
  ASSERT_EQ(stat(path_of(name).c_str(), &status), 0);
  EXPECT_EQ(status.st_blocks * 512, 16 * kPage);
  file.reserve(0, 64 * kPage);
  ASSERT_EQ(stat(path_of(name).c_str(), &status), 0);
  EXPECT_EQ(status.st_blocks * 512, 64 * kPage);
  EXPECT_TRUE(shoal::unlink(name));
}

TEST(SegmentReserve, MoreThanThereIsSaysHowMuch) {
  const auto before = residue();
  const std::uint64_t wanted =
      (shoal::available_memory() + (std::uint64_t{1} << 30)) / kPage * kPage;
  for (const bool named : {false, true}) {
    const std::string what = named ? unique_name("huge") : "huge";
    const auto file = named ? File::named(what, wanted, Access{})
                            : File::anonymous(what, wanted);
    try {
      file.reserve(0, wanted);
      ADD_FAILURE() << "reserved " << wanted;
    } catch (const NoSpace& error) {
      EXPECT_EQ(error.wanted(), wanted);
      EXPECT_LT(error.available(), wanted);
      EXPECT_GT(error.available(), 0u);
      EXPECT_THAT(error.what(), HasSubstr(what));
      EXPECT_THAT(error.what(), HasSubstr(std::to_string(wanted)));
      EXPECT_THAT(error.what(), HasSubstr(std::to_string(error.available())));
    }
    file.reserve(0, kPage);  // what there is can still be had
  }
  EXPECT_EQ(residue(), before);
}

TEST(SegmentReserve, SmallRequestsAreNotWeighed) {
  EXPECT_NO_THROW(shoal::segment::check_available("small", (1 << 20) - 1));
  EXPECT_NO_THROW(shoal::segment::check_available("none", 0));
}

TEST(SegmentReserve, AvailableMemoryIsWhatTheMachineHas) {
  std::ifstream meminfo("/proc/meminfo");
  std::string key;
  std::uint64_t kilobytes = 0;
  ASSERT_TRUE(meminfo >> key >> kilobytes);
  ASSERT_EQ(key, "MemTotal:");
  EXPECT_GT(shoal::available_memory(), 0u);
  EXPECT_THAT(shoal::available_memory(), Le(kilobytes * 1024));
}

}  // namespace
