// What has no name lies in memory files, which no mount limits: it works while
// /dev/shm is full. What limits these files is RLIMIT_FSIZE, at their making:
// NoSpace and never SIGXFSZ, and then it works with more.

#include <sys/mount.h>
#include <sys/resource.h>

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "gtest/gtest.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/listener.h"
#include "shoal/ipc/pipe.h"
#include "shoal/ipc/queue.h"
#include "shoal/ipc/sync.h"
#include "shoal/pool/pool.h"
#include "shoal/shared/array.h"
#include "shoal/shared/value.h"
#include "tests/ipc/process_scene.h"
#include "tests/support/child.h"
#include "tests/support/name.h"
#include "tests/support/small_shm.h"
#include "tests/support/thread.h"

namespace {

using namespace shoal;
using support::Child;
using support::kPatience;
using support::Name;
using support::SmallShm;
using support::Thread;
using support::with_small_shm;

constexpr std::size_t kMiB = 1 << 20;

struct Record {
  int number;
  double values[100];
};

void require(bool holds, const char* what) {
  if (!holds) throw std::logic_error(what);
}

int twice(int n) { return 2 * n; }

const std::pair<const char*, void (*)()> kThings[] = {
    {"Queue",
     [] {
       Queue<int> queue(100u);
       queue.put(7);
       require(queue.get(now) == 7, "another value");
     }},
    {"GrowingQueue",
     [] {
       Queue<std::string> queue;
       for (int n = 0; n < 50; ++n) queue.put(std::string(50'000, 'a'));
       for (int n = 0; n < 50; ++n)
         require(queue.get(now).size() == 50'000, "another text");
     }},
    {"Pipe",
     [] {
       auto [one, other] = Pipe(PipeOptions{.capacity = 4096});
       const std::string message(kMiB, 'm');
       one.send(message);
       require(other.recv<std::string>(now) == message, "another message");
     }},
    {"Sync",
     [] {
       Lock().acquire();
       Semaphore().acquire();
       BoundedSemaphore().acquire();
       Event().set();
       Barrier(1).wait();
       const Condition condition;
       condition.acquire();
       condition.notify();
       condition.release();
     }},
    {"Value",
     [] {
       Value<Record> value;
       value.set(Record{.number = 3, .values = {}});
       require(value.get().number == 3, "another value");
     }},
    {"Array",
     [] {
       Array<double> array(100'000);
       array.fill(1.5);
       require(array[99'999] == 1.5, "another value");
     }},
    {"Listener",
     [] {
       const Name name("anonymous");
       Listener listener(name);
       std::atomic<bool> enough = false;
       // Goes on until the other side has had it, or was refused something.
       Thread client([&] {
         while (!enough) {
           try {
             connect(name, std::chrono::milliseconds(10)).send(7);
           } catch (const Error&) {
           }
         }
       });
       struct AtEnd {
         std::atomic<bool>& enough;
         ~AtEnd() { enough = true; }
       } const at_end{enough};
       require(listener.accept(kPatience).recv<int>(kPatience) == 7, "not 7");
     }},
    {"Pool",
     [] {
       Pool pool(2);
       require(pool.map(&twice, {1, 2, 3})[2] == 6, "another result");
     }},
};

using Thing = std::pair<const char*, void (*)()>;
class Anonymous : public testing::TestWithParam<Thing> {};

TEST_P(Anonymous, WorksWhileShmIsFull) {
  const bool could = with_small_shm(kMiB, [](Child&, SmallShm& shm) {
    shm.leave(0);
    GetParam().second();
  });
  if (!could) GTEST_SKIP() << "no mount namespace";
}

TEST_P(Anonymous, EachLimitOfFiles) {
  Child child([](Child& self) {
    bool works = false;
    int refused = 0;
    rlimit limit{};
    getrlimit(RLIMIT_FSIZE, &limit);
    for (rlim_t bytes = 1; bytes != 0 && !works; bytes *= 2) {
      limit.rlim_cur = bytes;
      if (setrlimit(RLIMIT_FSIZE, &limit) != 0)
        return self.expect(false, "setrlimit");
      try {
        GetParam().second();
        works = true;
      } catch (const MessageTooLong&) {  // of a Pipe that was made to fit
      } catch (const NoSpace& error) {
        ++refused;
        const std::string text = error.what();
        self.expect(text.find("; ") != text.npos, text);
        self.expect(error.wanted() > error.available(), text);
      }
    }
    self.expect(refused > 10, "refused " + std::to_string(refused) + " times");
    self.expect(works, "never works");
  });
  EXPECT_EQ(child.join(), 0) << child.failures();
}

INSTANTIATE_TEST_SUITE_P(Of, Anonymous, testing::ValuesIn(kThings),
                         [](const auto& info) { return info.param.first; });

TEST(NoSpace, ProcessesStartWhileShmIsFull) {
  const bool could = with_small_shm(kMiB, [](Child&, SmallShm& shm) {
    shm.leave(0);
    for (const auto method :
         {StartMethod::fork, StartMethod::forkserver, StartMethod::spawn})
      require(support::run_by(method, [] { _exit(3); }) == 3, "exit code");
    forkserver::stop();
  });
  if (!could) GTEST_SKIP() << "no mount namespace";
}

// A file system that has bytes, but no inode.
TEST(NoSpace, Inodes) {
  const Name name("inodes");
  const bool could = with_small_shm(kMiB, [&](Child& self, SmallShm& shm) {
    if (mount(nullptr, "/dev/shm", nullptr, MS_REMOUNT, "nr_inodes=2") != 0)
      return self.expect(false, "remount");  // the root and shm's own
    self.expect(shm.free_pages() > 200, "no bytes, either");
    try {
      Event::create(name);
      self.expect(false, "no NoSpace");
    } catch (const NoSpace& error) {
      self.expect(std::string_view(error.what()).find("nr_inodes") !=
                      std::string_view::npos,
                  error.what());
    }
    mount(nullptr, "/dev/shm", nullptr, MS_REMOUNT, "nr_inodes=3");
    Event::create(name).set();
  });
  if (!could) GTEST_SKIP() << "no mount namespace";
}

}  // namespace
