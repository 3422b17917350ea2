// References to code, in this process, in others, and for code that is not
// there.

#include "shoal/ipc/function.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shoal/ipc/errors.h"
#include "tests/support/child.h"
#include "tests/support/reexec.h"

namespace {

using namespace shoal;
using support::Child;
using testing::HasSubstr;

template <class F>
const void* address(F* f) {
  return reinterpret_cast<const void*>(f);
}
template <class F>
F* function_at(const void* address) {
  return reinterpret_cast<F*>(const_cast<void*>(address));
}

int seven() { return 7; }
static int eight() { return 8; }
template <int kN>
int instance() {
  return kN;
}
int variable = 9;

std::string text_of(const FunctionRef& reference) {
  return std::to_string(reference.module) + " " +
         std::to_string(reference.offset);
}
FunctionRef from_text(const std::string& text) {
  std::istringstream stream(text);
  FunctionRef reference;
  stream >> reference.module >> reference.offset;
  return reference;
}

TEST(Function, ComesBackAsItWas) {
  const auto lambda = +[](int x) { return x + 1; };
  for (const void* code :
       {address(&seven), address(&eight), address(&instance<3>),
        address(lambda), address(&getpid), address(&std::terminate)}) {
    const FunctionRef reference = function::reference(code);
    EXPECT_EQ(function::resolve(reference), code);
    EXPECT_EQ(function::reference(code), reference);
  }
  const void* code = function::resolve(function::reference(address(lambda)));
  EXPECT_EQ(function_at<int(int)>(code)(4), 5);
}

TEST(Function, DifferentOnesDiffer) {
  EXPECT_NE(function::reference(address(&seven)),
            function::reference(address(&eight)));
  EXPECT_NE(function::reference(address(&seven)).module,
            function::reference(address(&getpid)).module);
  EXPECT_EQ(function::reference(address(&seven)).module,
            function::reference(address(&eight)).module);
}

TEST(Function, WhatIsNoCodeIsRefused) {
  int on_stack = 0;
  const auto on_heap = std::make_unique<int>(0);
  for (const void* data :
       {static_cast<const void*>(nullptr), static_cast<const void*>(&on_stack),
        static_cast<const void*>(on_heap.get()),
        static_cast<const void*>(&variable),
        reinterpret_cast<const void*>(UINTPTR_MAX)})
    EXPECT_THROW(function::reference(data), std::invalid_argument) << data;
}

TEST(Function, UnknownModuleIsATypeMismatchThatNamesIt) {
  FunctionRef reference = function::reference(address(&seven));
  reference.module = 0xABCDEF;
  try {
    function::resolve(reference);
    FAIL();
  } catch (const TypeMismatch& error) {
    EXPECT_THAT(error.what(), HasSubstr("0000000000abcdef"));
    EXPECT_THAT(error.what(), HasSubstr("load the library before"));
  }
}

TEST(Function, OffsetOutsideOfTheCodeIsCorrupt) {
  const FunctionRef good = function::reference(address(&seven));
  const auto code = reinterpret_cast<std::uintptr_t>(address(&seven));
  const auto data = reinterpret_cast<std::uintptr_t>(&variable);
  for (const std::uint64_t offset :
       // Not what is in front of the code: some linkers put headers and
       // read-only data into the same segment.
       {UINT64_MAX, UINT64_MAX - good.offset, std::uint64_t{1} << 63,
        good.offset + (std::uint64_t{1} << 40), good.offset + (data - code)})
    EXPECT_THROW(function::resolve({good.module, offset}), Corrupt) << offset;
}

TEST(Function, LibraryThatIsLoadedLaterIsFound) {
  const FunctionRef known = function::reference(address(&seven));
  void* library = dlopen("libBrokenLocale.so.1", RTLD_NOW | RTLD_LOCAL);
  ASSERT_NE(library, nullptr) << dlerror();
  const void* code = dlsym(library, "__ctype_get_mb_cur_max");
  ASSERT_NE(code, nullptr);
  const FunctionRef reference = function::reference(code);
  EXPECT_NE(reference.module, known.module);
  EXPECT_EQ(function::resolve(reference), code);
  EXPECT_EQ(function::resolve(known), address(&seven));
  dlclose(library);
}

TEST(Function, ThreadsLookAtOnce) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([] {
      for (int n = 0; n < 1000; ++n) {
        // The second is unknown, so that all modules are read again.
        const FunctionRef known = function::reference(address(&eight));
        EXPECT_EQ(function::resolve(known), address(&eight));
        EXPECT_THROW(function::resolve({1, 1}), TypeMismatch);
      }
    });
  for (auto& thread : threads) thread.join();
}

TEST(Function, ForkedChildFindsIt) {
  const FunctionRef reference = function::reference(address(&seven));
  Child child([&](Child& self) {
    self.expect(function::resolve(reference) == address(&seven), "same");
    self.expect(function::reference(address(&seven)) == reference, "again");
  });
  EXPECT_EQ(child.join(), 0) << child.failures();
}

// ---- other processes of the same and of another build ----

// Only there: this program, started anew.
TEST(DISABLED_FunctionElsewhere, Resolves) {
  const FunctionRef reference = from_text(support::given("SHOAL_REFERENCE"));
  const void* code = function::resolve(reference);
  EXPECT_EQ(code, address(&seven));
  EXPECT_EQ(function_at<int()>(code)(), 7);
}
TEST(DISABLED_FunctionElsewhere, Refuses) {
  const FunctionRef reference = from_text(support::given("SHOAL_REFERENCE"));
  EXPECT_THROW(function::resolve(reference), TypeMismatch);
  EXPECT_EQ(function::resolve(function::reference(address(&seven))),
            address(&seven));
}

TEST(FunctionProcess, ResolvesInAProcessWithOtherAddresses) {
  const FunctionRef reference = function::reference(address(&seven));
  Child other([&](Child&) {
    support::exec_tests("DISABLED_FunctionElsewhere.Resolves",
                        {"SHOAL_REFERENCE=" + text_of(reference)});
  });
  EXPECT_EQ(other.join(), 0);
}

// A copy of this program in the test's own directory.
class Copy {
 public:
  explicit Copy(const std::string& name) {
    const char* directory = getenv("TEST_TMPDIR");
    path_ = std::filesystem::path(directory ? directory : "/tmp") /
            (name + "." + std::to_string(getpid()));
    std::filesystem::copy_file("/proc/self/exe", path_);
  }
  ~Copy() { std::filesystem::remove(path_); }

  // Another build-id, as another build would have; false if there is none.
  bool rebuild() {
    std::string id;
    dl_iterate_phdr(
        [](dl_phdr_info* info, std::size_t, void* found) {
          for (int i = 0; i < info->dlpi_phnum; ++i) {
            const auto& segment = info->dlpi_phdr[i];
            if (segment.p_type != PT_NOTE) continue;
            const char* note = reinterpret_cast<const char*>(info->dlpi_addr +
                                                             segment.p_vaddr);
            const char* end = note + segment.p_memsz;
            while (note + sizeof(ElfW(Nhdr)) <= end) {
              const auto* header = reinterpret_cast<const ElfW(Nhdr)*>(note);
              const char* name = note + sizeof *header;
              const char* bytes = name + (header->n_namesz + 3) / 4 * 4;
              if (header->n_type == NT_GNU_BUILD_ID) {
                static_cast<std::string*>(found)->assign(bytes,
                                                         header->n_descsz);
                return 1;
              }
              note = bytes + (header->n_descsz + 3) / 4 * 4;
            }
          }
          return 1;  // the first is the program
        },
        &id);
    if (id.empty()) return false;
    std::fstream file(path_, std::ios::in | std::ios::out | std::ios::binary);
    const std::string all{std::istreambuf_iterator<char>(file), {}};
    const auto at = all.find(id);
    if (at == std::string::npos) return false;
    file.seekp(static_cast<std::streamoff>(at));
    file.put(static_cast<char>(~id[0]));
    return true;
  }

  // Ends as the test in that program does.
  int run(const std::string& test, const FunctionRef& reference) const {
    Child child([&](Child&) {
      setenv("SHOAL_REFERENCE", text_of(reference).c_str(), 1);
      unsetenv("XML_OUTPUT_FILE");
      unsetenv("GTEST_OUTPUT");
      unsetenv("TEST_PREMATURE_EXIT_FILE");
      unsetenv("TESTBRIDGE_TEST_ONLY");
      unsetenv("GTEST_TOTAL_SHARDS");
      std::string program = path_;
      std::string filter = "--gtest_filter=DISABLED_FunctionElsewhere." + test;
      char disabled[] = "--gtest_also_run_disabled_tests";
      char brief[] = "--gtest_brief=1";
      const std::array<char*, 5> arguments = {program.data(), filter.data(),
                                              disabled, brief, nullptr};
      execv(program.c_str(), arguments.data());
    });
    return child.join().value_or(-1);
  }

 private:
  std::filesystem::path path_;
};

TEST(FunctionProcess, PathOfTheProgramDoesNotMatter) {
  const Copy copy("same_build");
  EXPECT_EQ(copy.run("Resolves", function::reference(address(&seven))), 0);
}

TEST(FunctionProcess, AnotherBuildRefusesInsteadOfCalling) {
  Copy copy("other_build");
  if (!copy.rebuild()) GTEST_SKIP() << "linked without a build-id";
  EXPECT_EQ(copy.run("Refuses", function::reference(address(&seven))), 0);
}

}  // namespace
