#include "bench/support/machine.h"

#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <exception>
#include <fstream>
#include <iostream>
#include <system_error>
#include <thread>

#include "bench/baselines/ping_pong.h"

namespace shoal::bench {
namespace {

[[noreturn]] void fail(const char* call) {
  throw std::system_error(errno, std::generic_category(), call);
}

std::vector<int> allowed_cpus() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0) fail("sched_getaffinity");
  std::vector<int> cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  return cpus;
}

// As the program was started, whatever is pinned later.
const std::vector<int>& cpus_at_start() {
  static const std::vector<int> cpus = allowed_cpus();
  return cpus;
}

struct alignas(64) Stamp {
  double begin;
  double end;
};

constexpr std::size_t kMostRoles = 16;
struct Together {
  alignas(64) std::atomic<std::size_t> ready;
  std::array<Stamp, kMostRoles> stamps;
};

void play(const Role& role, Together& together, std::size_t roles,
          Stamp& stamp) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (role.cpu != kAnyCpu) pin(role.cpu);
  role.work([&] {
    together.ready.fetch_add(1, std::memory_order_acq_rel);
    while (together.ready.load(std::memory_order_acquire) < roles)
      sched_yield();
    stamp.begin = clock_ns();
  });
  stamp.end = clock_ns();
}

}  // namespace

double clock_ns() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) * 1e9 +
         static_cast<double>(time.tv_nsec);
}

double median(std::vector<double> figures) {
  const auto middle =
      figures.begin() + static_cast<std::ptrdiff_t>(figures.size() / 2);
  std::nth_element(figures.begin(), middle, figures.end());
  return *middle;
}

bool has_two_cpus() { return cpus_at_start().size() >= 2; }

void pin(int cpu, pid_t process) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpus_at_start().at(static_cast<std::size_t>(cpu)), &set);
  if (sched_setaffinity(process, sizeof set, &set) != 0)
    fail("sched_setaffinity");
}

Pinned::Pinned(int cpu) {
  if (sched_getaffinity(0, sizeof before_, &before_) != 0)
    fail("sched_getaffinity");
  pin(cpu);
}
Pinned::~Pinned() { sched_setaffinity(0, sizeof before_, &before_); }

void* map_shared(std::size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (memory == MAP_FAILED) fail("mmap");
  return memory;
}
void unmap_shared(void* memory, std::size_t bytes) { munmap(memory, bytes); }

Held::Held(std::size_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  memory_ = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory_ == MAP_FAILED) fail("mmap");
  std::memset(memory_, 1, bytes);
}
Held::~Held() {
  if (bytes_ != 0) munmap(memory_, bytes_);
}

double run_together(const std::vector<Role>& roles) {
  const Shared<Together> together;
  std::cout.flush();
  fflush(nullptr);
  std::vector<pid_t> processes;
  for (std::size_t i = 0; i < roles.size(); ++i) {
    const pid_t process = fork();
    if (process < 0) fail("fork");
    if (process == 0) {
      try {
        play(roles[i], *together, roles.size(), together->stamps.at(i));
      } catch (const std::exception& error) {
        std::cerr << "a benchmark's process: " << error.what() << std::endl;
        _exit(1);
      }
      // Gives back what the thread holds in shared memory.
      exit(0);
    }
    processes.push_back(process);
  }
  bool failed = false;
  for (const pid_t process : processes) {
    int status = 0;
    while (waitpid(process, &status, 0) < 0 && errno == EINTR) {
    }
    // The others would wait for the one that failed.
    if (status != 0 && !failed)
      for (const pid_t other : processes) kill(other, SIGKILL);
    failed = failed || status != 0;
  }
  if (failed) throw std::runtime_error("a benchmark's process failed");
  const auto first = together->stamps.begin();
  const auto last = first + static_cast<std::ptrdiff_t>(roles.size());
  return std::max_element(
             first, last,
             [](const Stamp& a, const Stamp& b) { return a.end < b.end; })
             ->end -
         std::min_element(first, last, [](const Stamp& a, const Stamp& b) {
           return a.begin < b.begin;
         })->begin;
}

std::vector<double> measured_apart(
    const std::function<std::vector<double>()>& measure) {
  struct Figures {
    std::size_t count;
    std::array<double, 1024> each;
  };
  const Shared<Figures> figures;
  // It is to be as small as its caller was at first.
  malloc_trim(0);
  run_together({{kAnyCpu, [&](const Start& start) {
                   start();
                   const std::vector<double> all = measure();
                   for (const double one : all)
                     figures->each.at(figures->count++) = one;
                 }}});
  const auto first = figures->each.begin();
  return {first, first + static_cast<std::ptrdiff_t>(figures->count)};
}

double blocked_cpu(double seconds, const std::function<void()>& wait,
                   const std::function<void()>& wake) {
  const Shared<pid_t> waiter;
  const Shared<double> used;
  const auto sleep = [](double time) {
    std::this_thread::sleep_for(std::chrono::duration<double>(time));
  };
  run_together({{0,
                 [&](const Start& start) {
                   start();
                   clockid_t clock;
                   errno = clock_getcpuclockid(*waiter, &clock);
                   if (errno != 0) fail("clock_getcpuclockid");
                   const auto cpu = [clock] {
                     timespec time{};
                     if (clock_gettime(clock, &time) != 0)
                       fail("clock_gettime");
                     return static_cast<double>(time.tv_sec) * 1e9 +
                            static_cast<double>(time.tv_nsec);
                   };
                   sleep(0.1);  // on its way to sleep
                   const double before = cpu();
                   sleep(seconds);
                   *used = cpu() - before;
                   wake();
                 }},
                {1, [&](const Start& start) {
                   *waiter = getpid();
                   start();
                   wait();
                 }}});
  return *used / seconds;
}

double line_round_trip() {
  constexpr std::uint64_t kBatches = 16;
  constexpr std::uint64_t kRounds = 100;
  struct State {
    Slot slot;
    std::array<double, kBatches> round_trips;
  };
  const Shared<State> state;
  run_together({{0,
                 [&](const Start& start) {
                   start();
                   for (std::uint64_t batch = 0; batch < kBatches; ++batch) {
                     const double begin = clock_ns();
                     ask(state->slot, batch * kRounds, kRounds);
                     state->round_trips.at(batch) =
                         (clock_ns() - begin) / kRounds;
                   }
                 }},
                {1, [&](const Start& start) {
                   start();
                   answer(state->slot, 0, kBatches * kRounds);
                 }}});
  const auto& all = state->round_trips;
  return median({all.begin(), all.end()});
}

std::string machine() {
  std::string processor = "unknown processor";
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);)
    if (line.starts_with("model name")) {
      processor = line.substr(line.find(':') + 2);
      break;
    }
  std::string load;
  std::getline(std::ifstream("/proc/loadavg"), load);
  utsname kernel;
  uname(&kernel);
  return processor + ", " + std::to_string(cpus_at_start().size()) + " CPUs, " +
         kernel.sysname + " " + kernel.release +
#ifdef __clang__
         ", clang++ "
#else
         ", g++ "
#endif
         __VERSION__
#ifndef __OPTIMIZE__
         " (not optimised)"
#endif
         ", load " +
         load;
}

}  // namespace shoal::bench
