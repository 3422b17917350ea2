// Functions of libraries that the new process has not loaded.

#include "shoal/ipc/process.h"

#include <dlfcn.h>
#include <link.h>
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shoal/ipc/build_id.h"
#include "shoal/ipc/errors.h"
#include "tests/ipc/process_scene.h"

namespace shoal {
namespace {

namespace fs = std::filesystem;
using support::run_by;
using testing::HasSubstr;

constexpr char kPlugin[] = "tests/ipc/libplugin.so";

// A copy of the library, loaded in this process only.
class Library {
 public:
  explicit Library(const std::string& name) {
    const char* directory = getenv("TEST_TMPDIR");
    path_ = fs::path(directory ? directory : "/tmp") /
            (name + "." + std::to_string(getpid()) + ".so");
    fs::copy_file(kPlugin, path_);
    handle_ = dlopen(path_.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle_ == nullptr) throw Error(dlerror());
  }
  ~Library() {
    dlclose(handle_);
    fs::remove(path_);
  }

  using Function = void (*)(std::string);
  Function function() const {
    return reinterpret_cast<Function>(dlsym(handle_, "leave_with_length"));
  }
  const fs::path& path() const { return path_; }

  // Another file in its place, with another build-id.
  void replace() const {
    const std::string id = build_id::of_file(path_);
    ASSERT_FALSE(id.empty()) << "linked without one";
    std::ifstream file(path_, std::ios::binary);
    std::string all{std::istreambuf_iterator<char>(file), {}};
    const auto at = all.find(id);
    ASSERT_NE(at, all.npos);
    all[at] = static_cast<char>(~all[at]);
    fs::path other = path_;
    other += ".other";
    std::ofstream(other, std::ios::binary) << all;
    fs::rename(other, path_);
  }

 private:
  fs::path path_;
  void* handle_ = nullptr;
};

class ProcessLibrary
    : public support::WithForkserver<testing::TestWithParam<StartMethod>> {};
INSTANTIATE_TEST_SUITE_P(, ProcessLibrary,
                         testing::Values(StartMethod::fork,
                                         StartMethod::forkserver,
                                         StartMethod::spawn),
                         testing::PrintToStringParamName());

TEST_P(ProcessLibrary, IsLoadedFromWhereTheParentHasIt) {
  const Library library("loaded");
  EXPECT_EQ(run_by(GetParam(), library.function(), std::string("abc")), 3);
  EXPECT_EQ(run_by(GetParam(), partial(library.function(), "abcd")), 4);
}

TEST_P(ProcessLibrary, OfAnotherBuildIsRefused) {
  const Library library("rebuilt");
  library.replace();
  if (GetParam() == StartMethod::fork) {
    EXPECT_EQ(run_by(GetParam(), library.function(), std::string("abc")), 3);
    return;
  }
  Process process({.start_method = GetParam()}, library.function(), "abc");
  try {
    process.start();
    FAIL();
  } catch (const TypeMismatch& error) {
    EXPECT_THAT(error.what(), HasSubstr(library.path().string()));
    EXPECT_THAT(error.what(), HasSubstr("another build"));
  }
  EXPECT_FALSE(process.is_alive());
}

TEST_P(ProcessLibrary, ThatIsGoneIsRefused) {
  const Library library("gone");
  fs::remove(library.path());
  if (GetParam() == StartMethod::fork) {
    EXPECT_EQ(run_by(GetParam(), library.function(), std::string("abc")), 3);
    return;
  }
  Process process({.start_method = GetParam()}, library.function(), "abc");
  EXPECT_THROW(process.start(), TypeMismatch);
  EXPECT_FALSE(process.is_alive());
}

}  // namespace
}  // namespace shoal
