// SIGKILL at every instruction of a child between the fork and its first
// operation on a Connection that it was given, or has a copy of.

#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <memory>
#include <string>
#include <thread>

#include "gtest/gtest.h"
#include "shoal/ipc/bequest.h"
#include "shoal/ipc/pidfd.h"
#include "shoal/ipc/process.h"
#include "tests/ipc/pipe_scene.h"

namespace {

using namespace shoal::support;
using shoal::Connection;
using shoal::Pidfd;
using shoal::bequest::Parcel;

class PipeBequestKill : public testing::Test {
 protected:
  void SetUp() override {
    use_one_processor();
    shoal::waiting::set_slices(false);
  }

 private:
  std::pair<Connection, Connection> other_ = shoal::Pipe();  // keeps the domain
};

// Seats have a test of their own.
Victim::Body join(const Connection& end) {
  return [&end] { shoal::ConnectionAccess::end(end)->domain().process_seat(); };
}

// Gives `end` to the victim, as Process::start() does, in a thread.
class Giver {
 public:
  Giver(Parcel& parcel, Connection& end, pid_t child)
      : thread_([this, &parcel, &end, child] {
          const Pidfd pidfd = Pidfd::open(child);
          id_ = gettid();
          parcel.give([&] { const Connection gone = std::move(end); }, pidfd);
          given_ = true;
        }) {
    // Until the child has all to go on with.
    eventually([this] { return given_ || sleeps(); });
  }
  ~Giver() { thread_.join(); }
  bool given() const { return given_; }

 private:
  bool sleeps() const {
    if (id_ == 0) return false;
    std::ifstream file("/proc/self/task/" + std::to_string(id_) + "/syscall");
    long number = -1;
    return file >> number && number == SYS_poll;
  }
  std::atomic<pid_t> id_{0};
  std::atomic<bool> given_{false};
  std::thread thread_;
};

// From the first instruction after the fork to the last before its work.
TEST_F(PipeBequestKill, BeforeTheFirstOperation) {
  kill_at_every_step("D",
                     [](Round& round) {
                       PipeScene scene;
                       Parcel parcel;
                       const Pidfd self = Pidfd::open(getpid());
                       Victim victim([&] { parcel.receive(self); },
                                     join(scene.theirs));
                       {
                         const Giver giver(parcel, scene.theirs, victim.pid());
                         round.step(victim);
                         round.kill(victim);
                       }
                       round.expect(scene.drain(round).empty(), "phantom");
                       round.outcome('D');
                     },
                     {.strays = 25});
}

TEST_F(PipeBequestKill, WithTheOtherEndAsleep) {
  kill_at_every_step(
      "D",
      [](Round& round) {
        PipeScene scene;
        Parcel parcel;
        const Pidfd self = Pidfd::open(getpid());
        Victim victim([&] { parcel.receive(self); }, join(scene.theirs));
        const auto asleep = receiver(scene.mine);
        {
          const Giver giver(parcel, scene.theirs, victim.pid());
          round.step(victim);
          round.kill(victim);
        }
        round.expect(asleep->ends(), "LOST: the other end sleeps on");
        round.outcome(asleep->item() == kDied ? 'D' : '?');
      },
      {.strays = 25});
}

// Killed between the fork and the first use, it is the parent's still.
TEST_F(PipeBequestKill, FirstUseAfterABareFork) {
  kill_at_every_step("NDP", [](Round& round) {
    PipeScene scene;
    Victim victim([&] { scene.theirs.send(Item{7}); }, join(scene.theirs));
    round.step(victim);
    round.kill(victim);
    try {
      scene.theirs.send(Item{8});
      round.expect(receive_one(scene.mine) == 8, "lost");
      round.outcome('N');
    } catch (const std::logic_error&) {
      const Items items = scene.drain(round);
      round.expect_none(exactly(items, {}, {7}));
      round.outcome(items.empty() ? 'D' : 'P');
    }
  });
}

// The same with a receiver that sleeps, and has to learn whose it is now.
TEST_F(PipeBequestKill, FirstUseWithTheOtherEndAsleep) {
  kill_at_every_step("NDP", [](Round& round) {
    PipeScene scene;
    Victim victim([&] { scene.theirs.send(Item{7}); }, join(scene.theirs));
    victim.await_prepared();
    const auto asleep = receiver(scene.mine);
    round.step(victim);
    round.kill(victim);
    char outcome = '?';
    try {
      scene.theirs.send(Item{8});
      outcome = 'N';
    } catch (const std::logic_error&) {
    } catch (const shoal::BrokenPipe&) {
    }
    round.expect(asleep->ends(), "LOST: the other end sleeps on");
    if (outcome == 'N') round.expect(asleep->item() == 8, "lost");
    if (outcome == '?') outcome = asleep->item() == 7 ? 'P' : 'D';
    round.outcome(outcome);
  });
}

}  // namespace
