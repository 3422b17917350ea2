// Seats: who is alive, as seen by others.

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <thread>

#include "gmock/gmock.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/futex.h"
#include "shoal/ipc/liveness.h"
#include "shoal/ipc/segment.h"
#include "tests/support/child.h"
#include "tests/support/thread.h"

namespace {

namespace futex = shoal::futex;
namespace liveness = shoal::liveness;

using liveness::Domain;
using liveness::DomainState;
using liveness::Who;
using shoal::support::Child;
using shoal::support::eventually;
using shoal::support::falls_asleep;
using shoal::support::Shared;
using shoal::support::Thread;
using testing::HasSubstr;
using namespace std::chrono_literals;

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

// A domain of one test, shared with the children that it forks.
class Liveness : public testing::Test {
 protected:
  Liveness() {
    auto mapping = shoal::segment::map_private_to_tree(
        shoal::segment::round_to_page(sizeof(DomainState)));
    state_ = static_cast<DomainState*>(mapping.get());
    liveness::initialise(*state_);
    domain_ = Domain::attach(*state_, std::move(mapping));
    domain_->add_user();
  }
  ~Liveness() override { domain_->remove_user(); }

  Domain& domain() { return *domain_; }
  DomainState& state() { return *state_; }

  // What a child reports.
  Shared<std::atomic<Who>> who_;
  Shared<std::atomic<Who>> other_;
  Shared<std::atomic<bool>> go_;

  void wait_for_go() {
    while (!go_->load()) sched_yield();
  }
  Who reported(Shared<std::atomic<Who>>& where) {
    EXPECT_TRUE(eventually([&] { return where->load() != 0; }));
    return where->load();
  }

 private:
  DomainState* state_;
  std::shared_ptr<Domain> domain_;
};

static_assert(liveness::make_who(0, 1) != 0);
static_assert(liveness::index_of(liveness::make_who(1023, 77)) == 1023);
static_assert(liveness::generation_of(liveness::make_who(1023, 77)) == 77);
static_assert((liveness::make_who(1023, (1 << 24) - 1) & ~liveness::kWhoMask) ==
              0);

// ---- seats of threads ----

TEST_F(Liveness, AThreadKeepsItsSeat) {
  const Who who = domain().seat();
  EXPECT_NE(who, 0u);
  EXPECT_EQ(who & ~liveness::kWhoMask, 0u);
  EXPECT_NE(who, liveness::kNobody);
  EXPECT_EQ(domain().seat(), who);
  EXPECT_FALSE(domain().dead(who));
  EXPECT_FALSE(domain().is_process(who));
  EXPECT_EQ(domain().seats_taken(), 1u);
}

TEST_F(Liveness, EachThreadHasItsOwn) {
  std::set<Who> all = {domain().seat()};
  std::atomic<bool> done{false};
  std::deque<Thread> threads;
  std::deque<std::atomic<Who>> seats(20);
  for (auto& seat : seats)
    threads.emplace_back([&] {
      seat.store(domain().seat());
      while (!done.load()) sched_yield();
    });
  for (auto& seat : seats) {
    ASSERT_TRUE(eventually([&] { return seat.load() != 0; }));
    EXPECT_FALSE(domain().dead(seat.load()));
    all.insert(seat.load());
  }
  EXPECT_EQ(all.size(), 21u);
  EXPECT_EQ(domain().seats_taken(), 21u);
  done.store(true);
}

TEST_F(Liveness, AThreadThatEndsGivesItBack) {
  const Who mine = domain().seat();
  Who who = 0;
  std::thread([&] { who = domain().seat(); }).join();
  EXPECT_TRUE(domain().dead(who));
  EXPECT_FALSE(domain().dead(mine));
  EXPECT_EQ(domain().seats_taken(), 1u);
}

TEST_F(Liveness, ASeatThatIsTakenAgainIsAnotherOne) {
  Who first = 0;
  Who second = 0;
  std::thread([&] { first = domain().seat(); }).join();
  std::thread([&] {
    second = domain().seat();
    EXPECT_FALSE(domain().dead(second));
    EXPECT_TRUE(domain().dead(first)) << "though somebody sits there";
  }).join();
  EXPECT_EQ(liveness::index_of(first), liveness::index_of(second));
  EXPECT_NE(first, second);
}

TEST_F(Liveness, SeatsOfDomainsAreApart) {
  const Who here = domain().seat();
  const Who there = Domain::tree()->seat();
  EXPECT_EQ(domain().seat(), here);
  EXPECT_EQ(Domain::tree()->seat(), there);
  EXPECT_EQ(domain().seats_taken(), 1u);
}

TEST_F(Liveness, AThreadGivesBackTheSeatOfAnUnusedDomain) {
  auto mapping = shoal::segment::map_private_to_tree(
      shoal::segment::round_to_page(sizeof(DomainState)));
  auto& state = *static_cast<DomainState*>(mapping.get());
  liveness::initialise(state);
  const auto kept = mapping;
  auto other = Domain::attach(state, std::move(mapping));
  other->add_user();
  const Who who = other->seat();
  EXPECT_EQ(state.status[liveness::index_of(who)].load() & liveness::kTaken,
            liveness::kTaken);
  other->remove_user();
  EXPECT_EQ(state.status[liveness::index_of(who)].load() & liveness::kTaken,
            0u);
  EXPECT_NE(domain().seat(), 0u) << "others are as they were";
}

// 1,024 and no more; those that are given back can be taken.
TEST_F(Liveness, AllSeatsTakenIsNoSpace) {
  constexpr std::uint32_t kLast = liveness::kSeats - 1;
  domain().seat();
  std::atomic<std::uint32_t> seated{0};
  std::atomic<bool> done{false};
  std::deque<Thread> threads;
  for (std::uint32_t i = 0; i < kLast; ++i)
    threads.emplace_back([&] {
      domain().seat();
      ++seated;
      done.wait(false);
    });
  ASSERT_TRUE(eventually([&] { return seated.load() == kLast; }));
  EXPECT_EQ(domain().seats_taken(), liveness::kSeats);
  Thread excess([&] {
    for (int i = 0; i < 3; ++i) {
      try {
        domain().seat();
        ADD_FAILURE() << "a seat beyond the last";
      } catch (const shoal::NoSpace& error) {
        EXPECT_THAT(error.what(), HasSubstr("1024 seats"));
        EXPECT_EQ(error.available(), 0u);
        EXPECT_GT(error.wanted(), 0u);
      }
    }
  });
  EXPECT_TRUE(excess.ends());
  done.store(true);
  done.notify_all();
  threads.clear();
  Thread again([&] { EXPECT_NE(domain().seat(), 0u); });
  EXPECT_TRUE(again.ends());
  // It gives its seat back after its last line.
  EXPECT_TRUE(eventually([&] { return domain().seats_taken() == 1; }));
}

// The pages of most seats of a process tree's domain come with them; their
// mutexes are robust all the same.
TEST_F(Liveness, ATreesSeatsBeyondTheFirstHaveTheirPages) {
  constexpr std::size_t kThreads = 100;
  const auto tree = Domain::use_tree();
  const auto pages = [&] {
    struct stat status;
    EXPECT_EQ(fstat(tree->descriptor(), &status), 0);
    return static_cast<std::size_t>(status.st_blocks) * 512 /
           shoal::segment::kPage;
  };
  constexpr std::size_t kAll =
      shoal::segment::round_to_page(sizeof(DomainState)) /
      shoal::segment::kPage;
  EXPECT_LT(pages(), kAll / 2);
  Shared<std::array<std::atomic<Who>, kThreads>> seats;
  Child child([&](Child&) {
    std::deque<std::thread> threads;
    for (auto& seat : *seats)
      threads.emplace_back([&] {
        seat.store(tree->seat());
        for (;;) pause();
      });
    for (;;) pause();
  });
  for (auto& seat : *seats) {
    ASSERT_TRUE(eventually([&] { return seat.load() != 0; }));
    EXPECT_FALSE(tree->dead(seat.load()));
  }
  EXPECT_EQ(pages(), kAll);
  child.kill();
  EXPECT_EQ(child.join(), -SIGKILL);
  for (auto& seat : *seats) EXPECT_TRUE(tree->dead(seat.load()));
  tree->retire_all();
  for (auto& seat : *seats) EXPECT_TRUE(tree->dead(seat.load()));
}

// ---- of processes ----

TEST_F(Liveness, AForkedChildHasItsOwnSeat) {
  const Who mine = domain().seat();
  Child child([&](Child& self) {
    const Who own = domain().seat();
    self.expect(own != mine, "another seat");
    self.expect(!domain().dead(mine), "the parent lives");
    self.expect(domain().seat() == own, "and keeps it");
    who_->store(own);
    wait_for_go();
  });
  const Who childs = reported(who_);
  EXPECT_FALSE(domain().dead(childs));
  EXPECT_EQ(domain().seat(), mine);
  go_->store(true);
  EXPECT_EQ(child.join(), 0) << child.failures();
  EXPECT_TRUE(domain().dead(childs));
  EXPECT_FALSE(domain().dead(mine));
}

TEST_F(Liveness, ForkDepthCountsForks) {
  const std::uint64_t here = liveness::fork_depth();
  EXPECT_EQ(liveness::fork_depth(), here);
  Child child([&](Child& self) {
    self.expect(liveness::fork_depth() == here + 1, "one deeper");
    self.expect(liveness::fork_depth() == here + 1, "once");
    Child grandchild([&](Child& inner) {
      inner.expect(liveness::fork_depth() == here + 2, "two deeper");
    });
    self.expect(grandchild.join() == 0, grandchild.failures());
    self.expect(liveness::fork_depth() == here + 1, "the child's stays");
  });
  EXPECT_EQ(child.join(), 0) << child.failures();
  EXPECT_EQ(liveness::fork_depth(), here);
}

TEST_F(Liveness, AKilledOneIsDeadBeforeItIsReaped) {
  Child child([&](Child&) {
    other_->store(domain().process_seat());
    who_->store(domain().seat());
    wait_for_go();
  });
  const Who thread = reported(who_);
  const Who process = other_->load();
  EXPECT_FALSE(domain().dead(thread));
  EXPECT_FALSE(domain().dead(process));
  const std::uint64_t deaths = domain().deaths();
  child.kill();
  siginfo_t info;
  ASSERT_EQ(
      waitid(P_PID, static_cast<id_t>(child.pid()), &info, WEXITED | WNOWAIT),
      0);
  EXPECT_TRUE(domain().dead(thread));
  EXPECT_TRUE(domain().dead(process));
  EXPECT_EQ(domain().deaths(), deaths) << "nobody has retired it yet";
  domain().retire_all();
  // Each is counted before its seat is freed, and after.
  EXPECT_EQ(domain().deaths(), deaths + 4);
  EXPECT_EQ(domain().seats_taken(), 0u);
  EXPECT_TRUE(domain().dead(thread)) << "for ever";
  EXPECT_TRUE(domain().dead(process));
  domain().retire_all();
  EXPECT_EQ(domain().deaths(), deaths + 4) << "once";
  EXPECT_EQ(child.join(), -SIGKILL);
}

TEST_F(Liveness, RetireSomeComesAround) {
  domain().seat();
  std::deque<Child> children;
  for (int i = 0; i < 20; ++i)
    children.emplace_back([&](Child&) {
      domain().seat();
      who_->fetch_add(1);
      wait_for_go();
    });
  ASSERT_TRUE(eventually([&] { return who_->load() == 20; }));
  EXPECT_EQ(domain().seats_taken(), 21u);
  for (auto& child : children) child.kill();
  for (auto& child : children) ASSERT_EQ(child.join(), -SIGKILL);
  EXPECT_EQ(domain().seats_taken(), 21u);
  // Four at a time.
  for (int i = 0; i < 6; ++i) domain().retire_some();
  EXPECT_EQ(domain().seats_taken(), 1u);
  EXPECT_EQ(domain().deaths(), 40u);
}

TEST_F(Liveness, ATakenOverSeatCountsADeath) {
  Child child([&](Child&) {
    who_->store(domain().seat());
    raise(SIGKILL);
  });
  ASSERT_EQ(child.join(), -SIGKILL);
  const std::uint64_t deaths = domain().deaths();
  EXPECT_NE(domain().seat(), who_->load());
  EXPECT_GT(domain().deaths(), deaths) << "every object must sweep";
  EXPECT_TRUE(domain().dead(who_->load()));
}

TEST_F(Liveness, AStoppedOneIsNotDead) {
  Child child([&](Child&) {
    other_->store(domain().process_seat());
    who_->store(domain().seat());
    wait_for_go();
  });
  const Who thread = reported(who_);
  child.kill(SIGSTOP);
  int status = 0;
  ASSERT_EQ(waitpid(child.pid(), &status, WUNTRACED), child.pid());
  EXPECT_FALSE(domain().dead(thread));
  EXPECT_FALSE(domain().prove_dead(thread));
  EXPECT_FALSE(domain().dead(other_->load()));
  EXPECT_FALSE(domain().prove_dead(other_->load()));
  domain().retire_all();
  EXPECT_FALSE(domain().dead(thread));
  child.kill(SIGCONT);
  go_->store(true);
  EXPECT_EQ(child.join(), 0);
}

TEST_F(Liveness, ProveDeadOfTheLivingProvesNothing) {
  EXPECT_FALSE(domain().prove_dead(domain().seat()));
  EXPECT_FALSE(domain().prove_dead(domain().process_seat()));
  EXPECT_FALSE(domain().dead(domain().seat()));
}

// What the kernel could not mark, as when the robust list was lost: the seat
// looks held, and its thread is gone.
TEST_F(Liveness, ProveDeadFindsWhatTheKernelCouldNotMark) {
  Child child([&](Child&) {
    who_->store(domain().seat());
    liveness::thread_context.robust->list.next =
        &liveness::thread_context.robust->list;
    raise(SIGKILL);
  });
  ASSERT_EQ(child.join(), -SIGKILL);
  const Who who = who_->load();
  EXPECT_FALSE(domain().dead(who)) << "or this test shows nothing";
  EXPECT_TRUE(domain().prove_dead(who));
  EXPECT_TRUE(domain().dead(who));
}

// ---- the process's seat ----

TEST_F(Liveness, TheProcessSeatIsOneForAllThreads) {
  const Who who = domain().process_seat();
  EXPECT_TRUE(domain().is_process(who));
  EXPECT_NE(who, domain().seat());
  EXPECT_EQ(domain().process_seat(), who);
  Who of_another = 0;
  std::thread([&] { of_another = domain().process_seat(); }).join();
  EXPECT_EQ(of_another, who);
  EXPECT_FALSE(domain().dead(who));
}

TEST_F(Liveness, TheProcessSeatOutlivesTheThreadThatTookIt) {
  Who who = 0;
  std::thread([&] { who = domain().process_seat(); }).join();
  EXPECT_FALSE(domain().dead(who));
  domain().retire_all();
  EXPECT_FALSE(domain().dead(who));
  EXPECT_EQ(domain().process_seat(), who) << "the next thread holds it";
  EXPECT_FALSE(domain().dead(who));
}

TEST_F(Liveness, AChildHasItsOwnProcessSeat) {
  const Who mine = domain().process_seat();
  Child child([&](Child& self) {
    self.expect(domain().process_seat() != mine, "its own");
    self.expect(!domain().dead(mine), "the parent lives");
    self.expect(!domain().dead(domain().process_seat()), "and so does it");
  });
  EXPECT_EQ(child.join(), 0) << child.failures();
  EXPECT_FALSE(domain().dead(mine));
}

TEST_F(Liveness, ToOthersAProcessLivesOnWithoutTheThread) {
  Child child([&](Child&) {
    std::thread([&] { who_->store(domain().process_seat()); }).join();
    other_->store(1);
    wait_for_go();
  });
  reported(other_);
  const Who who = who_->load();
  EXPECT_FALSE(domain().dead(who));
  EXPECT_FALSE(domain().prove_dead(who));
  domain().retire_all();
  EXPECT_FALSE(domain().dead(who));
  child.kill();
  ASSERT_EQ(child.join(), -SIGKILL);
  EXPECT_TRUE(domain().dead(who));
}

// A thread that the kernel alone sees end: its process still lives.
TEST_F(Liveness, ToOthersAProcessLivesOnWithoutAThreadThatVanished) {
  if (kSanitized) GTEST_SKIP() << "a sanitizer cannot follow such an end";
  Child child([&](Child&) {
    std::function<void()> vanish = [&] {
      who_->store(domain().process_seat());
      syscall(SYS_exit, 0);
    };
    pthread_t thread;
    pthread_create(
        &thread, nullptr,
        [](void* call) -> void* {
          (*static_cast<std::function<void()>*>(call))();
          return nullptr;
        },
        &vanish);
    pthread_join(thread, nullptr);
    other_->store(1);
    wait_for_go();
  });
  reported(other_);
  const Who who = who_->load();
  EXPECT_FALSE(domain().dead(who));
  domain().retire_all();
  EXPECT_FALSE(domain().dead(who));
  child.kill();
  ASSERT_EQ(child.join(), -SIGKILL);
  EXPECT_TRUE(eventually([&] { return domain().dead(who); }));
}

TEST_F(Liveness, ToOthersAProcessLivesOnWithoutItsMainThread) {
  if (kSanitized) GTEST_SKIP() << "a sanitizer cannot follow such an end";
  Child child([&](Child&) {
    who_->store(domain().process_seat());
    std::thread([&, main = pthread_self()] {
      pthread_join(main, nullptr);
      other_->store(1);
      wait_for_go();
      _exit(0);
    }).detach();
    syscall(SYS_exit, 0);  // as pthread_exit(), without coming back to gtest
  });
  reported(other_);
  const Who who = who_->load();
  EXPECT_FALSE(domain().dead(who));
  domain().retire_all();
  EXPECT_FALSE(domain().dead(who));
  go_->store(true);
  EXPECT_EQ(child.join(), 0);
  EXPECT_TRUE(domain().dead(who));
}

// ---- woken by a death ----

TEST_F(Liveness, ADeathWakesWhoeverSleepsOnTheLifeWord) {
  for (const bool killed : {true, false}) {
    who_->store(0);
    go_->store(false);
    Child child([&](Child&) {
      who_->store(domain().seat());
      wait_for_go();
    });
    const Who who = reported(who_);
    Thread sleeper([&] {
      std::uint32_t value;
      const futex::Word& word = domain().life_word(who, value);
      while (!domain().dead(who)) {
        futex::wait(word, value, shoal::Timeout(20s));
        domain().life_word(who, value);
      }
    });
    ASSERT_TRUE(sleeper.falls_asleep());
    const std::int64_t start = shoal::monotonic_now();
    if (killed)
      child.kill();
    else
      go_->store(true);
    EXPECT_TRUE(sleeper.ends());
    EXPECT_LT(shoal::monotonic_now() - start, 15'000'000'000);
    EXPECT_EQ(child.join(), killed ? -SIGKILL : 0);
  }
}

TEST_F(Liveness, ADeathInTheMidstOfACallWakesOneSleeperOfItsWord) {
  if (!liveness::kernel_passes_wakes()) GTEST_SKIP() << "not with this kernel";
  Shared<futex::Word> word;
  for (int i = 0; i < 5; ++i) {
    go_->store(false);
    who_->store(0);
    Child child([&](Child&) {
      who_->store(domain().seat());
      const liveness::PassedWake armed(liveness::thread_context.robust, *word);
      wait_for_go();
      raise(SIGKILL);
    });
    reported(who_);
    std::atomic<int> woken{0};
    std::deque<Thread> sleepers;
    for (int s = 0; s < 2; ++s)
      sleepers.emplace_back([&] {
        woken +=
            futex::wait(*word, 0, shoal::Timeout(20s)) == futex::Result::woken;
      });
    for (auto& sleeper : sleepers) ASSERT_TRUE(sleeper.falls_asleep());
    go_->store(true);
    ASSERT_EQ(child.join(), -SIGKILL);
    EXPECT_TRUE(eventually([&] { return woken.load() == 1; }));
    EXPECT_EQ(futex::wake(*word, futex::kAll), 1) << "the other sleeps on";
  }
}

TEST_F(Liveness, ADeathOutsideOfACallWakesNobody) {
  Shared<futex::Word> word;
  Child child([&](Child&) {
    domain().seat();
    {
      const liveness::PassedWake armed(liveness::thread_context.robust, *word);
    }
    who_->store(1);
    wait_for_go();
    raise(SIGKILL);
  });
  reported(who_);
  Thread sleeper([&] {
    EXPECT_EQ(futex::wait(*word, 0, shoal::Timeout(20s)), futex::Result::woken);
  });
  ASSERT_TRUE(sleeper.falls_asleep());
  go_->store(true);
  ASSERT_EQ(child.join(), -SIGKILL);
  EXPECT_EQ(futex::wake(*word, futex::kAll), 1) << "still asleep";
  EXPECT_TRUE(sleeper.ends());
}

// ---- many at once ----

// Seats are taken, left and retired by all; nobody sits on another's lap.
TEST_F(Liveness, JoinLeaveAndDieAtOnce) {
  Shared<std::array<std::atomic<Who>, liveness::kSeats>> tenants;
  Shared<std::atomic<std::uint64_t>> joins;
  const auto work = [&](Child& self) {
    for (;;)
      std::thread([&] {
        const Who who = domain().seat();
        auto& tenant = (*tenants)[liveness::index_of(who)];
        const Who before = tenant.exchange(who);
        self.expect(before == 0 || domain().dead(before), "alone");
        domain().retire_all();
        self.expect(!domain().dead(who), "alive");
        ++*joins;
        tenant.store(0);
      }).join();
  };
  std::deque<Child> children;
  for (int i = 0; i < 4; ++i) children.emplace_back(work);
  for (int i = 0; i < 40; ++i) {
    const std::uint64_t before = joins->load();
    ASSERT_TRUE(eventually([&] { return joins->load() > before + 20; }));
    Child& victim = children.front();
    victim.kill();
    ASSERT_EQ(victim.join(), -SIGKILL);
    EXPECT_EQ(victim.failures(), "");
    children.pop_front();
    children.emplace_back(work);
  }
  for (auto& child : children) {
    child.kill();
    ASSERT_EQ(child.join(), -SIGKILL);
    EXPECT_EQ(child.failures(), "");
  }
  domain().retire_all();
  EXPECT_EQ(domain().seats_taken(), 0u);
}

}  // namespace
