#pragma once
// The machine under a bench: two CPUs to pin processes to, processes that
// start together, and how far apart the two CPUs are.
//
//   const double ns = run_together({{0, produce}, {1, consume}});
//
// The hypervisor moves virtual CPUs about: for seconds or minutes two of them
// share a physical core, or a last-level cache, or neither. A cache line
// travels between them up to ten times faster then, and figures compare only
// within one placement.

#include <sched.h>
#include <sys/types.h>

#include <cstddef>
#include <functional>
#include <new>
#include <string>
#include <type_traits>
#include <vector>

namespace shoal::bench {

// Nanoseconds of CLOCK_MONOTONIC.
double clock_ns();
// Of at least one figure.
double median(std::vector<double> figures);

// CPUs are numbered 0 and 1 here: the first two that this program may use.
bool has_two_cpus();
void pin(int cpu, pid_t process = 0);

// The calling thread on one CPU for as long as this lives.
class Pinned {
 public:
  explicit Pinned(int cpu);
  ~Pinned();
  Pinned(const Pinned&) = delete;
  Pinned& operator=(const Pinned&) = delete;

 private:
  cpu_set_t before_;
};

// ---- shared memory ----

void* map_shared(std::size_t bytes);
void unmap_shared(void* memory, std::size_t bytes);

// A T that this process shares with those it forks later; its pages are there.
template <class T>
class Shared {
  static_assert(std::is_trivially_destructible_v<T>);

 public:
  Shared() : value_(new (map_shared(sizeof(T))) T()) {}
  ~Shared() { unmap_shared(value_, sizeof(T)); }
  Shared(const Shared&) = delete;
  Shared& operator=(const Shared&) = delete;

  T& operator*() const { return *value_; }
  T* operator->() const { return value_; }

 private:
  T* value_;
};

// Memory of this process alone, all of it in use for as long as this lives.
class Held {
 public:
  explicit Held(std::size_t bytes);
  ~Held();
  Held(const Held&) = delete;
  Held& operator=(const Held&) = delete;

 private:
  void* memory_ = nullptr;
  std::size_t bytes_;
};

// ---- processes that start together ----

// To be called once by each, when it has warmed up; returns when all have.
using Start = std::function<void()>;
// Not pinned.
inline constexpr int kAnyCpu = -1;
struct Role {
  int cpu;
  std::function<void(const Start& start)> work;
};

// One forked process a role. Nanoseconds from the start until the last one's
// work() has returned. Throws when one of them fails.
double run_together(const std::vector<Role>& roles);

// What `measure` returns, of a forked process that is not pinned: its memory
// and its threads go with it.
std::vector<double> measured_apart(
    const std::function<std::vector<double>()>& measure);

// Nanoseconds of CPU that a process takes in each of `seconds` while it is
// within wait(), by its own clock; wake() then ends that. Throws
// std::system_error.
double blocked_cpu(double seconds, const std::function<void()>& wait,
                   const std::function<void()>& wake);

// ---- where the CPUs are ----

// Nanoseconds in which one cache line goes from one CPU to the other and back.
// Below kOneCore they are threads of one core: 29 to 47 were seen so, 75 and
// more between cores.
inline constexpr double kOneCore = 55;
double line_round_trip();

// One line: processor, CPUs, kernel, compiler, load.
std::string machine();

}  // namespace shoal::bench
