#include "tests/support/step.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <malloc.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <thread>
#include <utility>

#include "gtest/gtest.h"
#include "shoal/ipc/errors.h"
#include "shoal/ipc/waiting.h"
#include "tests/support/sample.h"

namespace shoal::support {
namespace {

constexpr long kSysFutexWaitv = 449;

// `part` is `whole` with characters left out, and equal neighbours taken as
// one.
bool follows(std::string_view part, std::string_view whole) {
  for (const char c : whole)
    if (!part.empty() && part.front() == c) part.remove_prefix(1);
  return part.empty();
}

// Reads the whole of a file in /proc, which is short.
std::string read_file(const std::string& path) {
  char text[1024];
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return {};
  const ssize_t size = read(file, text, sizeof text);
  close(file);
  return size > 0 ? std::string(text, static_cast<std::size_t>(size))
                  : std::string();
}

std::string proc(pid_t thread, const char* name) {
  const std::string id = std::to_string(thread);
  return read_file("/proc/" + id + "/" + name);
}

// As in the third field of /proc/<pid>/stat.
char state_of(pid_t thread) {
  const std::string stat = proc(thread, "stat");
  const auto end_of_name = stat.rfind(')');
  return end_of_name != std::string::npos && stat.size() > end_of_name + 2
             ? stat[end_of_name + 2]
             : '?';
}

bool sleeps(pid_t thread) { return state_of(thread) == 'S'; }

bool is_futex(long number) {
  return number == SYS_futex || number == kSysFutexWaitv;
}

// The number of the system call; -1: it does not sleep.
long call_it_sleeps_in(pid_t thread) {
  if (!sleeps(thread)) return -1;
  // "number arguments... stack pc", or "running".
  const std::string call = proc(thread, "syscall");
  char* end = nullptr;
  const long number = strtol(call.c_str(), &end, 10);
  return end != call.c_str() && sleeps(thread) ? number : -1;
}

#if defined(__x86_64__)

// The number of the system call that the next instruction makes, else -1. The
// victim is a fork of this process, so its code lies here, too.
long next_system_call(pid_t thread) {
  const auto* code =
      reinterpret_cast<const unsigned char*>(program_counter(thread));
  if (code[0] != 0x0F || code[1] != 0x05) return -1;
  return ptrace(PTRACE_PEEKUSER, thread, offsetof(user_regs_struct, rax),
                nullptr);
}

// The processor's own, so that the code stays as it is; 0 for none.
void set_breakpoint(pid_t thread, std::uintptr_t address) {
  const auto set = [&](std::size_t number, std::uintptr_t value) {
    if (ptrace(PTRACE_POKEUSER, thread,
               offsetof(struct user, u_debugreg) + number * sizeof value,
               value) != 0)
      throw_system_error(errno, "ptrace(a debug register)");
  };
  set(7, 0);
  if (address == 0) return;
  set(0, address);
  set(7, 1);  // local, register 0, on execution
}
#else
#error "the single-step engine knows x86-64 only"
#endif

// run_to() where they don't: by an instruction that traps, in the victim's own
// copy of the code.
bool run_to_by_trap(pid_t thread, std::uintptr_t address, int passes,
                    const std::function<bool()>& step,
                    const std::function<bool()>& run) {
  const auto poke = [&](long code) {
    if (ptrace(PTRACE_POKETEXT, thread, address, code) != 0)
      throw_system_error(errno, "ptrace(the code)");
  };
  long code;
  memcpy(&code, reinterpret_cast<const void*>(address), sizeof code);
  for (;; --passes) {
    if (program_counter(thread) != address) {
      poke((code & ~0xFFL) | 0xCC);
      if (!run()) return false;
      poke(code);
      if (program_counter(thread) == address + 1)
        ptrace(PTRACE_POKEUSER, thread, offsetof(user_regs_struct, rip),
               address);
    }
    if (passes == 0) return true;
    if (!step()) return false;
  }
}

std::string run_lengths(const std::string& outcomes) {
  std::string text;
  for (std::size_t i = 0; i < outcomes.size();) {
    const std::size_t end =
        std::min(outcomes.find_first_not_of(outcomes[i], i), outcomes.size());
    if (!text.empty()) text += ' ';
    text += outcomes[i] + std::to_string(end - i);
    i = end;
  }
  return text;
}

std::string without_repeats(std::string outcomes) {
  outcomes.erase(std::unique(outcomes.begin(), outcomes.end()), outcomes.end());
  return outcomes;
}

}  // namespace

bool has_breakpoints() {
  static const bool works = [] {
    const auto place = reinterpret_cast<std::uintptr_t>(&getppid);
    const pid_t child = fork();
    if (child == 0) {
      ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
      raise(SIGSTOP);
      static_cast<void>(getppid());
      _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    set_breakpoint(child, place);
    ptrace(PTRACE_CONT, child, nullptr, nullptr);
    waitpid(child, &status, 0);
    const bool stopped = WIFSTOPPED(status);
    if (stopped) {
      kill(child, SIGKILL);
      waitpid(child, &status, 0);
    }
    return stopped;
  }();
  return works;
}

std::uintptr_t program_counter(pid_t thread) {
  return static_cast<std::uintptr_t>(ptrace(
      PTRACE_PEEKUSER, thread, offsetof(user_regs_struct, rip), nullptr));
}

bool run_to(pid_t thread, std::uintptr_t address, int passes,
            const std::function<bool()>& step,
            const std::function<bool()>& run) {
  if (!has_breakpoints())
    return run_to_by_trap(thread, address, passes, step, run);
  // The kernel passes the breakpoint it stopped at by itself, but then takes a
  // repeated string instruction as one.
  const auto prefix = *reinterpret_cast<const unsigned char*>(address);
  const bool repeats = prefix == 0xF2 || prefix == 0xF3;
  bool set = false;
  bool passed_by_kernel = false;
  for (;; --passes) {
    if (passed_by_kernel || program_counter(thread) != address) {
      if (!set) set_breakpoint(thread, address);
      set = true;
      if (!run()) return false;
      passed_by_kernel = !repeats;
    }
    if (passes == 0 || !passed_by_kernel) {
      if (set) set_breakpoint(thread, 0);
      set = false;
    }
    if (passes == 0) return true;
    if (!passed_by_kernel && !step()) return false;
  }
}

void use_one_processor() {
  // Held until this process and its children have ended.
  static int lock = -1;
  if (lock >= 0) return;
  waiting::set_clocks(false);
  cpu_set_t all;
  if (sched_getaffinity(0, sizeof all, &all) != 0)
    throw_system_error(errno, "sched_getaffinity");
  for (bool wait : {false, true}) {
    for (int cpu = CPU_SETSIZE - 1; cpu >= 0; --cpu) {
      if (!CPU_ISSET(cpu, &all)) continue;
      const std::string path =
          "/sys/devices/system/cpu/cpu" + std::to_string(cpu);
      const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
      if (file < 0) throw_system_error(errno, "open", path);
      if (flock(file, wait ? LOCK_EX : LOCK_EX | LOCK_NB) != 0) {
        close(file);
        continue;
      }
      lock = file;
      cpu_set_t one;
      CPU_ZERO(&one);
      CPU_SET(cpu, &one);
      if (sched_setaffinity(0, sizeof one, &one) != 0)
        throw_system_error(errno, "sched_setaffinity");
      return;
    }
  }
}

bool sleeps_on_futex(pid_t thread) {
  return is_futex(call_it_sleeps_in(thread));
}

bool sleeps_in_poll(pid_t thread) {
  const long call = call_it_sleeps_in(thread);
  return call == SYS_poll || call == SYS_restart_syscall;  // once stopped
}

bool is_stopped(pid_t thread) { return state_of(thread) == 'T'; }

Victim::Victim(Body operation, Body prepare, Place place, Body afterwards) {
  fflush(nullptr);
  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ < 0) throw_system_error(errno, "fork", "Victim");
  if (pid_ != 0) return;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(2);
  live(operation, prepare, place, afterwards);
}

Victim::~Victim() {
  if (!reaped_) kill();
}

void Victim::live(const Body& operation, const Body& prepare, Place place,
                  const Body& afterwards) {
  Handshake& hands = *handshake_;
  const auto arrive = [&] {
    hands.thread = gettid();
    hands.prepared = 1;
    while (hands.go == 0) sched_yield();
    be_traced();
  };
  try {
    if (place == Place::thread_end) {
      std::thread([&] {
        if (prepare) prepare();
        operation();
        arrive();
        hands.begun = 1;
      }).detach();
    } else {
      if (prepare) prepare();
      arrive();
      hands.begun = 1;
      std::atomic_signal_fence(std::memory_order_seq_cst);
      operation();
      std::atomic_signal_fence(std::memory_order_seq_cst);
      hands.done = 1;
      if (afterwards) afterwards();
    }
  } catch (const std::exception& exception) {
    fprintf(stderr, "victim: %s\n", exception.what());
    _exit(3);  // no death by SIGKILL: kill() says so
  }
  for (;;) pause();
}

void Victim::be_traced() {
  if (ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) _exit(4);
  handshake_->traced = 1;
  raise(SIGSTOP);
}

void Victim::await_prepared() {
  const Deadline deadline(kPatience);
  while (handshake_->prepared == 0) {
    siginfo_t info{};
    waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT);
    if (info.si_pid == pid_ || deadline.passed())
      throw Error("the victim did not come to its operation");
    sched_yield();
  }
}

// True: the thread has stopped. False: it has ended.
bool Victim::await_stop() {
  int status = 0;
  pid_t got;
  do {
    got = waitpid(thread_, &status, __WALL);
  } while (got < 0 && errno == EINTR);
  if (got == thread_ && WIFSTOPPED(status)) {
    stop_signal_ = WSTOPSIG(status);
    return true;
  }
  ended_ = true;
  reaped_ = thread_ == pid_;
  return false;
}

bool Victim::advance(Mode mode, const Body& when_asleep) {
  // Others may stop and continue us, as well as the test: not to be counted.
  bool stopped;
  do {
    stopped = advance_once(mode, when_asleep);
  } while (stopped && stop_signal_ != SIGTRAP);
  return stopped;
}

bool Victim::advance_once(Mode mode, const Body& when_asleep) {
  const long call = mode == Mode::step ? next_system_call(thread_) : -1;
  if (ptrace(mode == Mode::step ? PTRACE_SINGLESTEP : PTRACE_CONT, thread_,
             nullptr, nullptr) != 0)
    throw_system_error(errno, "ptrace");
  if (mode == Mode::step && !is_futex(call)) return await_stop();
  Deadline lost = Deadline::never();
  for (;;) {
    // It runs now, on this processor, and has mostly stopped when we do again.
    sched_yield();
    siginfo_t info{};
    if (waitid(P_PID, static_cast<id_t>(thread_), &info,
               WSTOPPED | WEXITED | WNOHANG | WNOWAIT | __WALL) == 0 &&
        info.si_pid == thread_)
      return await_stop();
    if (lost.passed()) return false;
    // Ran past the breakpoint: its route was another one.
    if (handshake_->done != 0 && sleeps(thread_)) return false;
    if (lost.is_never() && sleeps_on_futex(thread_)) {
      if (slept_ || !when_asleep) return false;
      slept_ = true;
      when_asleep();
      lost = Deadline(std::chrono::milliseconds(500));
    }
  }
}

// To the first instruction of the operation.
void Victim::start() {
  await_prepared();
  thread_ = handshake_->thread;
  handshake_->go = 1;
  const Deadline deadline(kPatience);
  while (handshake_->traced == 0 && !deadline.passed()) sched_yield();
  attached_ = true;
  bool stopped = await_stop();
  while (stopped && handshake_->begun == 0) stopped = advance(Mode::step, {});
  if (!stopped) throw Error("the victim did not get to its operation");
}

Stop Victim::rehearse(Route& route, std::size_t most, bool after_sleep,
                      const Body& when_asleep) {
  start();
  while (handshake_->done == 0) {
    if ((slept_ || !after_sleep) && route.size() - route.woken_at() == most)
      return Stop::at_step;
    const bool had_slept = slept_;
    route.add(program_counter(thread_), next_system_call(thread_) >= 0);
    if (!advance(Mode::step, when_asleep))
      return ended_ ? Stop::finished : Stop::asleep;
    if (slept_ && !had_slept) route.add_wake();
  }
  return Stop::finished;
}

Stop Victim::go(const Route& route, std::size_t k, const Body& when_asleep) {
  start();
  const Route::Way way = route.way_to(k);
  trap_ = route[way.stop];
  bool stopped = run_to(
      thread_, route[way.stop], way.passes,
      [&] { return advance(Mode::step, when_asleep); },
      [&] { return advance(Mode::run, when_asleep); });
  for (std::size_t i = way.stop; stopped && i < k && handshake_->done == 0; ++i)
    stopped = advance(Mode::step, when_asleep);
  if (ended_ || handshake_->done != 0) return Stop::finished;
  if (!stopped) return Stop::asleep;
  return program_counter(thread_) == route[k] ? Stop::at_step : Stop::strayed;
}

bool Victim::go_to_sleep() {
  start();
  while (handshake_->done == 0) {
    const long call = next_system_call(thread_);
    if (call == kSysFutexWaitv) return true;
    if (call == SYS_futex) {
      const long operation = ptrace(PTRACE_PEEKUSER, thread_,
                                    offsetof(user_regs_struct, rsi), nullptr);
      if (operation == FUTEX_WAIT || operation == FUTEX_WAIT_BITSET)
        return true;
    }
    if (!advance(Mode::step, {})) return false;
  }
  return false;
}

void Victim::let_go() {
  // It runs where it strayed past its place, and sleeps where it was stepped
  // into its sleep; traps may lie ahead that nobody would let it pass.
  errno = 0;
  program_counter(thread_);
  if (errno == ESRCH) interrupt();
  if (ended_) return;
  clear_trap();
  if (ptrace(PTRACE_CONT, thread_, nullptr, nullptr) != 0)
    throw_system_error(errno, "ptrace(PTRACE_CONT)");
}

void Victim::interrupt() {
  if (tgkill(pid_, thread_, SIGSTOP) != 0)
    throw_system_error(errno, "tgkill(SIGSTOP)");
  while (await_stop() && stop_signal_ != SIGSTOP) {
    clear_trap();
    ptrace(PTRACE_CONT, thread_, nullptr, nullptr);
  }
}

void Victim::clear_trap() {
  set_breakpoint(thread_, 0);
  if (trap_ == 0 || has_breakpoints()) return;
  long code;
  memcpy(&code, reinterpret_cast<const void*>(trap_), sizeof code);
  ptrace(PTRACE_POKETEXT, thread_, trap_, code);
  if (program_counter(thread_) == trap_ + 1)
    ptrace(PTRACE_POKEUSER, thread_, offsetof(user_regs_struct, rip), trap_);
}

bool Victim::kill() {
  if (reaped_) return false;
  ::kill(pid_, SIGKILL);
  int status = 0;
  // A traced thread is reaped by its tracer, and before its process.
  if (attached_ && !ended_ && thread_ != pid_) {
    while (waitpid(thread_, &status, __WALL) == thread_ && WIFSTOPPED(status)) {
    }
  }
  while (waitpid(pid_, &status, __WALL) == pid_ && WIFSTOPPED(status)) {
  }
  reaped_ = true;
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
}

void Route::add(std::uintptr_t address, bool system_call) {
  const std::size_t k = steps_.size();
  const int passes = visits_[address]++;
  Way way{k, passes};
  if (k != 0) {
    const Way before = steps_.back().way;
    const std::size_t single_steps = k - before.stop;
    // A pass of the breakpoint costs about as much as a step.
    if (single_steps + static_cast<std::size_t>(before.passes) <
        static_cast<std::size_t>(passes))
      way = before;
  }
  steps_.push_back({address, system_call, way});
}

Stop Round::step(Victim& victim, const Victim::Body& when_asleep) {
  stop_ = options_ != nullptr
              ? victim.rehearse(route_, options_->most, options_->after_sleep,
                                when_asleep)
              : victim.go(route_, k_, when_asleep);
  return stop_;
}

void Round::kill(Victim& victim) {
  killed_ = victim.kill();
  expect(killed_, "the victim did not die of SIGKILL");
}

void Round::expect(bool holds, std::string_view what) {
  if (!holds && error_.empty()) error_ = what;
}

void kill_at_every_step(std::string_view sane,
                        const std::function<void(Round&)>& play,
                        SweepOptions options) {
  const std::int64_t start = monotonic_now();
  // What waits to be merged in our heap would be merged by a victim, some day.
  mallopt(M_MXFAST, 0);
  // Each failure has waited in vain; what is certain need not be repeated.
  constexpr int kEnough = 20;
  const int tries = has_breakpoints() ? 3 : 1;
  Route route;
  std::map<std::size_t, char> outcome_at;
  std::string first;
  int failures = 0;
  int strayed = 0;
  const auto note = [&](const Round& round, const std::string& where) {
    if (round.error().empty()) return;
    ++failures;
    if (first.empty()) first = where + ": " + round.error();
  };

  // Twice: the first one changes the heap that later victims inherit.
  Round warm_up(route, options);
  play(warm_up);
  note(warm_up, "warm-up");
  route = {};
  Round rehearsal(route, options);
  play(rehearsal);
  note(rehearsal, "rehearsal");
  const std::size_t begin = options.after_sleep ? route.woken_at() : 0;
  // Another part of the points each time.
  const std::size_t offset = static_cast<std::size_t>(start) % options.stride;
  std::vector<std::size_t> places;
  for (std::size_t k = begin + offset; k < route.size(); k += options.stride)
    if (!options.around_system_calls || route.is_at_system_call(k))
      places.push_back(k);
  Sample sample(places.size());
  while (const auto i = sample.next()) {
    // Where the schedule led it past its place it is played again.
    bool placed = false;
    for (int n = 0; n < tries && !placed && failures < kEnough; ++n) {
      Round round(route, places[*i]);
      play(round);
      note(round, "instruction " + std::to_string(places[*i]));
      placed = round.stop() == Stop::at_step;
      if (placed) outcome_at[*i] = round.outcome();
    }
    if (failures >= kEnough) break;
    strayed += !placed;
  }
  const bool whole = sample.whole() && options.stride == 1;
  std::string outcomes;
  for (const auto& [place, outcome] : outcome_at) outcomes += outcome;
  outcomes += rehearsal.outcome();

  const auto& test = *testing::UnitTest::GetInstance()->current_test_info();
  printf(
      "[  KILLS   ] %s.%s: %zu kill points%s, %d strayed, %d failures, %s, "
      "%.1f s%s%s\n",
      test.test_suite_name(), test.name(), outcomes.size(),
      whole ? "" : (" of " + std::to_string(route.size() - begin)).c_str(),
      strayed, failures, run_lengths(outcomes).c_str(),
      static_cast<double>(monotonic_now() - start) / 1e9,
      first.empty() ? "" : "; first at ", first.c_str());
  fflush(stdout);
  using testing::Test;
  Test::RecordProperty("kill_points", static_cast<int>(outcomes.size()));
  Test::RecordProperty("kill_failures", failures);
  Test::RecordProperty("outcomes", run_lengths(outcomes));
  EXPECT_EQ(failures, 0) << first;
  EXPECT_EQ(rehearsal.stop(), options.end);
  EXPECT_GT(sample.whole() ? outcomes.size() : places.size(), 10u)
      << "the operation was not traced";
  // A trap in the code is passed more often than counted where the victim reads
  // clocks or /proc: more rounds are then played elsewhere, and not counted.
  const std::size_t strays =
      !has_breakpoints() ? std::max(options.strays, std::size_t{300})
      : !whole           ? std::max(options.strays, std::size_t{100})
                         : options.strays;
  if (sample.tells_shares()) {
    EXPECT_LE(static_cast<std::size_t>(strayed) * 100, outcomes.size() * strays)
        << "kills did not land where they should";
  }
  if (failures == 0 && whole) {
    EXPECT_EQ(without_repeats(outcomes), sane) << run_lengths(outcomes);
  } else if (failures == 0) {
    // An outcome of few points may have been left out.
    EXPECT_TRUE(follows(without_repeats(outcomes), sane))
        << run_lengths(outcomes) << " beside " << sane;
  }
}

}  // namespace shoal::support
