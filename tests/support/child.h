#pragma once
// Child: code in a forked process, which never comes back into GoogleTest.
//
//   Shared<std::atomic<int>> seen;
//   Child child([&](Child& self) { self.expect(++*seen == 1, "is first"); });
//   EXPECT_EQ(child.join(), 0) << child.failures();
//
// It ends by _exit(): 0, or 1 if an expectation failed or an exception came
// out. Destroyed while it runs, it is killed.

#include <signal.h>
#include <sys/types.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <functional>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "shoal/ipc/pidfd.h"
#include "shoal/ipc/timeout.h"

namespace shoal::support {

// Longer than anything takes on a loaded machine under a sanitizer.
inline constexpr std::chrono::seconds kPatience{30};

#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool kAddressSanitizer = true;
#else
inline constexpr bool kAddressSanitizer = false;
#endif

// Zeroed memory that this process shares with those it forks later.
void* map_shared(std::size_t size);
void unmap_shared(void* memory, std::size_t size);
void yield_cpu();

template <class T>
class Shared {
 public:
  template <class... A>
  explicit Shared(A&&... arguments)
      : value_(new (map_shared(sizeof(T))) T(std::forward<A>(arguments)...)) {}
  Shared(const Shared&) = delete;
  Shared& operator=(const Shared&) = delete;
  ~Shared() { unmap_shared(value_, sizeof(T)); }

  T& operator*() const { return *value_; }
  T* operator->() const { return value_; }

 private:
  T* value_;
};

class Child {
 public:
  explicit Child(const std::function<void(Child&)>& body);
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child();

  // In the child.
  void expect(bool holds, std::string_view what,
              int line = __builtin_LINE()) noexcept;

  // In the parent. join() gives -N for signal N, and nothing on time-out.
  pid_t pid() const { return pid_; }
  std::optional<int> join(Timeout timeout = kPatience);
  void kill(int signal = SIGKILL) { pidfd_.signal(signal); }
  std::string failures() const;

 private:
  Shared<std::array<char, 4096>> text_;
  pid_t pid_ = 0;
  Pidfd pidfd_;
  std::optional<int> status_;
};

// Whether it came true before the time was up; yields in between.
template <class Predicate>
bool eventually(Predicate holds, Timeout timeout = kPatience) {
  const Deadline deadline(timeout);
  while (!holds()) {
    if (deadline.passed()) return false;
    yield_cpu();
  }
  return true;
}

}  // namespace shoal::support
