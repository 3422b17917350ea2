#pragma once
// Killing a process at every instruction of an operation.
//
//   kill_at_every_step("AP", [](Round& round) {     // absent, then present
//     Queue<int> queue(4);
//     Victim victim([&] { queue.put(7); });
//     round.step(victim);                           // to this round's place
//     round.kill(victim);
//     round.outcome(queue.empty() ? 'A' : 'P');
//   });
//
// The victim is a forked child. In a first round, the rehearsal, it is traced
// one instruction at a time, inside libc and around system calls as well, and
// its Route is written down. Then there is one round for each instruction of
// the route: the victim runs there by a breakpoint and single steps, and is
// killed before that instruction. Routes are the same from fork to fork but
// for clocks and the like; a round that strays is played and counted as such.
//
// All runs on one processor, so that nothing but the wake-ups under test
// decides who is next, and spinning is off (SpinBudget). Wake-ups that a
// bounded sleep would hide are to be tested with waiting::set_slices(false).
//
// Limits: one preemption, and memory order as one processor shows it; x86-64.

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "tests/support/child.h"

namespace shoal::support {

// Puts this process, and those it forks, onto one processor, which no other
// caller has meanwhile: tests that step may run side by side. What spins there
// does not look at the clock.
void use_one_processor();

// Whether the processor's breakpoints work: some virtual machines take the
// registers and never stop. Else traps are written into the code, and a process
// that is forked meanwhile has them, too.
bool has_breakpoints();

// True while the thread is in futex(2) or futex_waitv(2) and sleeps there.
bool sleeps_on_futex(pid_t thread);
// In poll(2).
bool sleeps_in_poll(pid_t thread);
// True while it is stopped by a signal.
bool is_stopped(pid_t thread);

// The instructions that an operation ran, in order.
class Route {
 public:
  std::size_t size() const { return steps_.size(); }
  std::uintptr_t operator[](std::size_t k) const { return steps_[k].address; }
  // The operation's first sleep ended before this instruction.
  std::size_t woken_at() const { return woken_at_; }

  // Before instruction k, or after the one before it, is the kernel's turn.
  bool is_at_system_call(std::size_t k) const {
    return steps_[k].system_call || (k != 0 && steps_[k - 1].system_call);
  }

  void add(std::uintptr_t address, bool system_call = false);
  void add_wake() { woken_at_ = size(); }

  // The cheapest way to instruction k: a breakpoint at the address of
  // instruction `stop`, passed `passes` times, and single steps from there.
  struct Way {
    std::size_t stop;
    int passes;
  };
  Way way_to(std::size_t k) const { return steps_[k].way; }

 private:
  struct Step {
    std::uintptr_t address;
    bool system_call;
    Way way;
  };
  std::vector<Step> steps_;
  std::unordered_map<std::uintptr_t, int> visits_;
  std::size_t woken_at_ = 0;
};

// Of a thread that is traced and has stopped.
std::uintptr_t program_counter(pid_t thread);
// To the address for the (passes + 1)-th time; the instruction there is next.
// step() is to run one instruction, run() to run on until it stops again;
// false from them, and then from here: it has not stopped.
bool run_to(pid_t thread, std::uintptr_t address, int passes,
            const std::function<bool()>& step,
            const std::function<bool()>& run);

enum class Stop {
  at_step,   // before the instruction that was asked for
  strayed,   // before another one
  finished,  // the operation ended
  asleep,    // it sleeps in a system call, and is not woken
};

class Victim {
 public:
  using Body = std::function<void()>;
  enum class Place {
    main_thread,  // operation() is traced
    thread_end,   // operation() runs in a second thread; its end is traced
  };

  // Forks. prepare() runs at full speed; operation() waits. afterwards() runs
  // once it is done and let go; of the main thread only.
  explicit Victim(Body operation, Body prepare = {},
                  Place place = Place::main_thread, Body afterwards = {});
  Victim(Body operation, Body prepare, Body afterwards)
      : Victim(std::move(operation), std::move(prepare), Place::main_thread,
               std::move(afterwards)) {}
  Victim(const Victim&) = delete;
  Victim& operator=(const Victim&) = delete;
  ~Victim();

  // prepare() has returned.
  void await_prepared();

  // Both: when_asleep() is called once, when the operation sleeps for the
  // first time, and has to wake it.
  // Runs and writes down the instructions; stops after `most`, which count
  // from the first sleep if `after_sleep`.
  Stop rehearse(Route& route, std::size_t most, bool after_sleep,
                const Body& when_asleep = {});
  // Runs to instruction k of the route.
  Stop go(const Route& route, std::size_t k, const Body& when_asleep = {});

  // Runs to the system call in which it would sleep; false if there is none.
  bool go_to_sleep();
  // From there: wake() is called when it sleeps, and it is stopped before it
  // runs again; false if that does not wake it.
  bool step_over_sleep(const Body& wake) { return advance(Mode::step, wake); }

  // Lets it go on by itself, unless it does so already.
  void let_go();
  // The operation has ended.
  bool done() const { return handshake_->done != 0; }
  // let_go(), and true once it is done.
  bool resume() {
    let_go();
    return eventually([this] { return done(); });
  }
  // Sends SIGKILL and reaps; true if that is what it died of, and it had not
  // ended before.
  bool kill();

  pid_t pid() const { return pid_; }

 private:
  struct Handshake {
    std::atomic<pid_t> thread;
    std::atomic<int> prepared;
    std::atomic<int> go;
    std::atomic<int> traced;
    std::atomic<int> begun;
    std::atomic<int> done;
  };
  enum class Mode { step, run };

  [[noreturn]] void live(const Body& operation, const Body& prepare,
                         Place place, const Body& afterwards);
  void be_traced();
  void start();
  // False: asleep or ended, which ended_ tells.
  bool advance(Mode mode, const Body& when_asleep);
  bool advance_once(Mode mode, const Body& when_asleep);
  bool await_stop();
  // Stops it wherever it runs or sleeps.
  void interrupt();
  // That of go(), which it may not have come to.
  void clear_trap();

  Shared<Handshake> handshake_;
  pid_t pid_;
  pid_t thread_ = 0;
  bool attached_ = false;
  bool ended_ = false;  // the traced thread, as seen by waitpid
  bool reaped_ = false;
  bool slept_ = false;
  int stop_signal_ = 0;
  std::uintptr_t trap_ = 0;  // of go()
};

struct SweepOptions {
  std::size_t most = 100000;  // instructions of a route that are looked at
  Stop end = Stop::finished;  // how the rehearsal ends
  bool after_sleep = false;   // only what comes after the first sleep
  // Only before and after system calls: for operations that are long, and of
  // which nothing can be seen in between.
  bool around_system_calls = false;
  // How many of a hundred rounds may stray; more where others run meanwhile.
  std::size_t strays = 5;
  // Only each n-th, from another one each time: for rounds that take long.
  std::size_t stride = 1;
};

// One kill.
class Round {
 public:
  // The rehearsal.
  Round(Route& route, const SweepOptions& options)
      : route_(route), options_(&options) {}
  // Instruction k.
  Round(Route& route, std::size_t k) : route_(route), k_(k) {}

  Stop step(Victim& victim, const Victim::Body& when_asleep = {});
  Stop stop() const { return stop_; }
  // Kills it and proves that the kill landed.
  void kill(Victim& victim);

  // One letter for what the survivors found.
  void outcome(char letter) { outcome_ = letter; }
  void expect(bool holds, std::string_view what);
  // Empty: fine.
  void expect_none(std::string_view error) { expect(error.empty(), error); }

  char outcome() const { return outcome_; }
  const std::string& error() const { return error_; }

 private:
  Route& route_;
  const SweepOptions* options_ = nullptr;
  std::size_t k_ = 0;
  Stop stop_ = Stop::finished;
  bool killed_ = false;
  char outcome_ = '?';
  std::string error_;
};

// Plays the rehearsal and a round for each instruction. The outcomes in the
// order of the route, equal neighbours taken as one, must be `sane`, or follow
// it where time allowed only a sample (sample.h).
void kill_at_every_step(std::string_view sane,
                        const std::function<void(Round&)>& play,
                        SweepOptions options = {});

}  // namespace shoal::support
