#include "tests/support/small_shm.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <string>

#include "gtest/gtest.h"
#include "shoal/ipc/errors.h"

namespace shoal::support {
namespace {

constexpr std::size_t kPage = 4096;
constexpr char kDirectory[] = "/dev/shm";

}  // namespace

SmallShm::SmallShm()
    : file_(open(kDirectory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600)) {
  if (file_ < 0) throw_system_error(errno, "open", kDirectory);
}

SmallShm::~SmallShm() { close(file_); }

std::size_t SmallShm::free_pages() const {
  struct statfs status;
  if (fstatfs(file_, &status) != 0)
    throw_system_error(errno, "fstatfs", kDirectory);
  return static_cast<std::size_t>(status.f_bfree);
}

void SmallShm::leave(std::size_t pages) {
  empty();
  const std::size_t free = free_pages();
  resize((free - std::min(free, pages)) * kPage);
}

void SmallShm::resize(std::size_t bytes) {
  const auto size = static_cast<off_t>(bytes);
  if (ftruncate(file_, size) != 0)
    throw_system_error(errno, "ftruncate", kDirectory, bytes);
  if (size == 0) return;
  if (const int error = posix_fallocate(file_, 0, size); error != 0)
    throw_system_error(error, "posix_fallocate", kDirectory, bytes);
}

bool with_small_shm(std::size_t bytes,
                    const std::function<void(Child&, SmallShm&)>& body) {
  Shared<std::atomic<bool>> refused;
  Child child([&](Child& self) {
    const std::string options = "size=" + std::to_string(bytes);
    if (unshare(CLONE_NEWNS) != 0 ||
        mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        mount("tmpfs", kDirectory, "tmpfs", 0, options.c_str()) != 0) {
      *refused = true;
      return;
    }
    SmallShm shm;
    body(self, shm);
  });
  EXPECT_EQ(child.join(), 0) << child.failures();
  return !*refused;
}

void with_each_room(Child& self, SmallShm& shm, std::string_view what,
                    std::size_t least, const std::function<void()>& operation) {
  const auto expect = [&](bool holds, const std::string& text) {
    self.expect(holds, std::string(what) + ": " + text);
  };
  constexpr std::size_t kMost = 10'000;
  std::size_t pages = 0;
  for (;; ++pages) {
    shm.leave(pages);
    const std::size_t before = shm.free_pages();
    try {
      operation();
      break;
    } catch (const NoSpace& error) {
      const std::string text = error.what();
      expect(text.find("/dev/shm") != text.npos, "where? " + text);
      expect(text.find("; ") != text.npos, "no remedy: " + text);
      expect(error.wanted() > error.available(), text);
    } catch (const std::exception& error) {
      return expect(false, error.what());
    }
    if (shm.free_pages() != before)
      return expect(false, std::to_string(before) + " pages before, " +
                               std::to_string(shm.free_pages()) + " after");
    if (pages == kMost) return expect(false, "never works");
  }
  expect(pages >= least, "works with " + std::to_string(pages) + " pages");
  shm.empty();
  operation();
}

}  // namespace shoal::support
