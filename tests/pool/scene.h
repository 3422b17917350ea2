#pragma once
// What the pool's tests have in common: numbers that the tasks see as well,
// and a look at what a Pool keeps to itself.
//
//   class MyTest : public PoolScene {};
//   Pool pool(2);
//   auto held = pool.apply_async(&wait_at_gate);
//   ... marks->gate = 1;                       // it goes on

#include <sys/types.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include "gtest/gtest.h"
#include "shoal/ipc/pidfd.h"
#include "shoal/ipc/timeout.h"
#include "shoal/pool/core.h"
#include "shoal/pool/nursery_process.h"
#include "shoal/pool/pool.h"
#include "shoal/pool/pool_state.h"
#include "tests/support/child.h"

namespace shoal::support {

// Shared by the test and all workers that are forked from it.
struct Marks {
  std::atomic<int> gate;
  std::atomic<int> started;
  std::atomic<int> ran;
  std::array<std::atomic<int>, 4096> of;
};
inline Marks* marks = nullptr;

// In a task: counts itself and stays until the test opens the gate.
inline int wait_at_gate() {
  const int number = ++marks->started;
  if (!eventually([] { return marks->gate != 0; })) throw Error("no gate");
  return number;
}
inline bool started(int tasks) {
  return eventually([tasks] { return marks->started >= tasks; });
}

class PoolScene : public testing::Test {
 protected:
  PoolScene() { marks = &*marks_; }
  ~PoolScene() override { marks = nullptr; }

 private:
  Shared<Marks> marks_;
};

// All of these processes end.
class Watch {
 public:
  explicit Watch(const std::vector<pid_t>& pids) {
    for (const pid_t pid : pids) pidfds_.push_back(Pidfd::open(pid));
  }
  bool all_end() const {
    const Deadline deadline(kPatience);
    return std::all_of(pidfds_.begin(), pidfds_.end(), [&](const Pidfd& pidfd) {
      return pidfd.wait(deadline);
    });
  }
  bool all_live() const {
    return std::none_of(pidfds_.begin(), pidfds_.end(),
                        [](const Pidfd& pidfd) { return pidfd.wait(now); });
  }

 private:
  std::vector<Pidfd> pidfds_;
};

// ---- inside ----

// An explicit instantiation names private members.
template <class Tag, typename Tag::type kMember>
struct Opened {
  friend typename Tag::type opened(Tag) { return kMember; }
};
struct CoreOfPool {
  using type = std::shared_ptr<pool::Core> Pool::*;
  friend type opened(CoreOfPool);
};
template struct Opened<CoreOfPool, &Pool::core_>;
struct MemoryOfCore {
  using type = pool::Memory pool::Core::*;
  friend type opened(MemoryOfCore);
};
template struct Opened<MemoryOfCore, &pool::Core::memory_>;
struct NurseryOfCore {
  using type = const pool::NurseryProcess pool::Core::*;
  friend type opened(NurseryOfCore);
};
template struct Opened<NurseryOfCore, &pool::Core::nursery_>;
struct MutexOfCore {
  using type = std::mutex pool::Core::*;
  friend type opened(MutexOfCore);
};
template struct Opened<MutexOfCore, &pool::Core::mutex_>;
struct RecordsOfCore {
  using type = pool::Records pool::Core::*;
  friend type opened(RecordsOfCore);
};
template struct Opened<RecordsOfCore, &pool::Core::records_>;
struct UsedOfRecords {
  using type = std::uint32_t pool::Records::*;
  friend type opened(UsedOfRecords);
};
template struct Opened<UsedOfRecords, &pool::Records::used_>;

inline pool::Core& core_of(Pool& pool) { return *(pool.*opened(CoreOfPool{})); }
inline pool::Memory& memory_of(Pool& pool) {
  return core_of(pool).*opened(MemoryOfCore{});
}
inline pid_t nursery_of(Pool& pool) {
  return (core_of(pool).*opened(NurseryOfCore{})).pid();
}
inline std::vector<pid_t> processes_of(Pool& pool) {
  std::vector<pid_t> pids = pool.workers();
  pids.push_back(nursery_of(pool));
  return pids;
}

// Task records that were ever in use.
inline std::uint32_t records_of(Pool& pool) {
  return core_of(pool).*opened(RecordsOfCore{}).*opened(UsedOfRecords{});
}
// What a submission that its ring refuses waits for.
inline std::mutex& mutex_of(Pool& pool) {
  return core_of(pool).*opened(MutexOfCore{});
}
inline std::size_t blocks_of(Pool& pool) {
  return memory_of(pool).arena().blocks_in_use();
}

// As many workers as there should be, each of which has reached its loop.
inline bool back_to_size(Pool& pool) {
  return eventually([&] {
    const std::uint32_t wanted = memory_of(pool).state().settings.workers;
    if (pool.workers().size() != wanted) return false;
    for (std::uint32_t slot = 0; slot < wanted; ++slot)
      if (memory_of(pool).slot(slot).ready.load() == 0) return false;
    return true;
  });
}

}  // namespace shoal::support
