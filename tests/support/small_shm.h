#pragma once
// SmallShm: a /dev/shm of this process's own, of a few pages, that a test
// fills.
//
//   const bool could = with_small_shm(1 << 20, [](Child& self, SmallShm& shm) {
//     shm.leave(3);                    // pages
//     ...
//   });
//   if (!could) GTEST_SKIP() << "no mount namespace";

#include <cstddef>
#include <functional>
#include <string_view>

#include "tests/support/child.h"

namespace shoal::support {

class SmallShm {
 public:
  SmallShm();
  SmallShm(const SmallShm&) = delete;
  SmallShm& operator=(const SmallShm&) = delete;
  ~SmallShm();

  std::size_t free_pages() const;
  // Takes all but so many by a file of its own; fewer where there are not as
  // many beside what others hold.
  void leave(std::size_t pages);
  // Gives back what leave() took.
  void empty() { resize(0); }

 private:
  void resize(std::size_t bytes);

  int file_;
};

// Runs `body` in a forked child whose /dev/shm holds so much, and expects that
// it ends well. False: this process may not mount.
bool with_small_shm(std::size_t bytes,
                    const std::function<void(Child&, SmallShm&)>& body);

// The operation with room for 0, 1, 2 ... pages until it works. Each refusal
// must be NoSpace, say what to do and give back all that it took; and at the
// end the operation must have found at least `least` pages too few.
void with_each_room(Child& self, SmallShm& shm, std::string_view what,
                    std::size_t least, const std::function<void()>& operation);

}  // namespace shoal::support
