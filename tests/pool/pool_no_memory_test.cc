// Every allocation of a verb is refused, one after the other: std::bad_alloc,
// or it works all the same; and then the pool works as before.

#include <pthread.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <functional>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "gtest/gtest.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/process.h"
#include "shoal/pool/pool.h"
#include "shoal/pool/thread_pool.h"
#include "shoal/shared/array.h"
#include "tests/support/child.h"

namespace {

// Of the calling thread: the allocation that counts it down to 0 is refused.
constinit thread_local long left = 0;
// Not of processes that are forked meanwhile.
const int in_children = pthread_atfork(nullptr, nullptr, [] { left = 0; });

void* allocate(std::size_t bytes) {
  if (left > 0 && --left == 0) throw std::bad_alloc();
  if (void* const memory = std::malloc(bytes == 0 ? 1 : bytes)) return memory;
  throw std::bad_alloc();
}

}  // namespace

// Not inlined, or g++ warns of a mismatch of malloc and delete.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  return allocate(bytes);
}
[[gnu::noinline]] void operator delete(void* memory) noexcept {
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}

namespace {

using namespace shoal;
using namespace shoal::support;
using namespace std::chrono_literals;

int plus_one(int x) { return x + 1; }

template <class P>
class NoMemory : public testing::Test {
 protected:
  // `verb` in a new pool, until it has no allocation left to refuse.
  void refuse_each(const std::function<void(P&)>& verb) {
    int refused = 0;
    for (long n = 1;; ++n) {
      P pool(2);
      ASSERT_EQ(pool.apply(&plus_one, 1), 2);
      left = n;
      bool threw = false;
      try {
        verb(pool);
      } catch (const std::bad_alloc&) {
        threw = true;
      }
      const bool enough = left > 0;
      left = 0;
      if (enough) {
        EXPECT_FALSE(threw);
        break;
      }

      refused += threw;
      check(pool, n);
      if (testing::Test::HasFailure()) return;
    }
    EXPECT_GT(refused, 0);
  }

 private:
  // It works, or is closed, and it ends.
  static void check(P& pool, long n) {
    try {
      EXPECT_EQ(pool.apply_async(&plus_one, 41).get(20s), 42);
      EXPECT_TRUE(eventually([&] {
        const PoolStats stats = pool.stats();
        return stats.queued == 0 && stats.running == 0;
      })) << "allocation "
          << n;
      pool.close();
    } catch (const NotRunning&) {
    }
    EXPECT_TRUE(pool.join(20s)) << "allocation " << n;
  }
};

using Pools = testing::Types<Pool, ThreadPool>;
TYPED_TEST_SUITE(NoMemory, Pools);

TYPED_TEST(NoMemory, Apply) {
  this->refuse_each([](TypeParam& pool) {
    pool.apply([](std::string text) { return text + text; },
               std::string(1000, 'x'));
  });
}

TYPED_TEST(NoMemory, ApplyAsyncWithCallbacks) {
  this->refuse_each([](TypeParam& pool) {
    pool.apply_async(Callbacks{[](int) {}, {}}, &plus_one, 1).get();
  });
}

TYPED_TEST(NoMemory, Map) {
  const std::vector<int> items(20);
  this->refuse_each([&](TypeParam& pool) { pool.map(&plus_one, items, 3); });
}

TYPED_TEST(NoMemory, Imap) {
  this->refuse_each([](TypeParam& pool) {
    for ([[maybe_unused]] const int value :
         pool.imap(&plus_one, std::vector<int>(20))) {
    }
  });
}

TYPED_TEST(NoMemory, ImapUnordered) {
  this->refuse_each([](TypeParam& pool) {
    for ([[maybe_unused]] const int value :
         pool.imap_unordered(&plus_one, std::vector<int>(20), 2)) {
    }
  });
}

TYPED_TEST(NoMemory, ForEach) {
  Array<int> elements(20);
  this->refuse_each([&](TypeParam& pool) {
    pool.for_each(
        elements.span(), [](int& element) { ++element; }, 3);
  });
}

// Of these not every allocation is one that can be refused.
template <class P>
void end(const std::function<void(P&)>& verb) {
  for (long n = 1; n < 40; ++n) {
    P pool(2);
    left = n;
    try {
      verb(pool);
    } catch (const std::bad_alloc&) {
    }
    left = 0;
    pool.close();
    EXPECT_TRUE(pool.join(20s)) << "allocation " << n;
  }
}

TYPED_TEST(NoMemory, Close) {
  end<TypeParam>([](TypeParam& pool) { pool.close(); });
}

TYPED_TEST(NoMemory, Terminate) {
  end<TypeParam>([](TypeParam& pool) { pool.terminate(); });
}

// The thread that calls callbacks has nobody who would catch what it throws.
TEST(NoMemoryForCallbacks, ResultsAreErrorsAtMost) {
  Child child([](Child& self) {
    Pool pool(1);
    self.expect(pool.apply(&plus_one, 1) == 2, "apply");
    const rlimit none = {0, RLIM_INFINITY};
    setrlimit(RLIMIT_AS, &none);
    // Until there is nothing left that was allocated before.
    std::vector<std::unique_ptr<std::string>> filling;
    for (int n = 0; n < 20; ++n) {
      try {
        pool.apply_async(Callbacks{[](int) {}, {}}, &plus_one, n).get(1s);
        filling.push_back(std::make_unique<std::string>(4096, 'x'));
      } catch (const std::exception&) {
        break;
      }
    }
    const rlimit enough = {RLIM_INFINITY, RLIM_INFINITY};
    setrlimit(RLIMIT_AS, &enough);
    int called = 0;
    self.expect(
        pool.apply_async(Callbacks{[&](int) { ++called; }, {}}, &plus_one, 3)
                .get(20s) == 4,
        "later");
    self.expect(called == 1, "called");
  });
  EXPECT_EQ(child.join(), 0) << child.failures();
}

// No process is left when the constructor throws; main() looks for others.
class NoMemoryConstructor : public testing::TestWithParam<StartMethod> {};

TEST_P(NoMemoryConstructor, LeavesNoProcess) {
  set_start_method(GetParam());
  int refused = 0;
  for (long n = 1;; ++n) {
    left = n;
    bool threw = false;
    try {
      Pool pool(
          {.processes = 1, .start_method = GetParam()}, [](int) {}, 1);
    } catch (const std::bad_alloc&) {
      threw = true;
    }
    const bool enough = left > 0;
    left = 0;
    EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1) << "allocation " << n;
    if (enough || testing::Test::HasFailure()) break;

    refused += threw;
  }
  EXPECT_GT(refused, 0);
  set_start_method(StartMethod::fork);
}

INSTANTIATE_TEST_SUITE_P(Pool, NoMemoryConstructor,
                         testing::Values(StartMethod::fork, StartMethod::spawn),
                         [](const auto& scene) {
                           return std::string(scene.param == StartMethod::fork
                                                  ? "Fork"
                                                  : "Spawn");
                         });

}  // namespace
