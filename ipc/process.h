#pragma once
// Process: a function that runs in a process of its own.
//
//   shoal::Process process(compress, "in.tar", 9);
//   process.start();
//   ...
//   process.join();
//   if (process.exitcode() != 0) ...
//
// It ends when the function returns (0), throws (1, the exception's text on
// stderr), calls exit(n) or is killed; exit handlers and static destructors run
// that were registered by it. stdin is /dev/null. By StartMethod the child is
//   fork        a fork: it has the parent's memory, descriptors, signal
//               handlers and the mask of the thread that called start(). Any
//               callable and arguments.
//   spawn       this program started anew (spawn.h)
//   forkserver  a fork of a process that was started anew (forkserver.h)
// and by the last two a function and arguments that travel: those that Pool
// takes. main is not entered; static initialisers run before, and are not to
// start a Process in such a child. start() returns when the child has taken
// over the arguments.
//
// Sharing:  any thread of the process that made it. In a child that inherits
//           one, name() works, all else is logic_error, and its destructor does
//           nothing. The function must not need locks that other threads of the
//           parent held at the fork.
// Ordering: what happened before start() is visible to the function; what the
//           function did to shared memory, to whoever saw join() return true.
// Death:    of the child: exitcode() is -N. Of the parent, by whatever means: a
//           daemon is killed, others live on. The destructor and the program's
//           exit terminate daemons (SIGTERM, after 1 s SIGKILL), join others.
// Cost:     start() is a fork and eight small system calls, or what spawn.h and
//           forkserver.h say; a child is reaped once, through a pidfd, whoever
//           asks and whoever else waits.

#include <sys/types.h>

#include <concepts>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <type_traits>
#include <typeinfo>
#include <utility>
#include <vector>

#include "shoal/ipc/call.h"
#include "shoal/ipc/codec.h"
#include "shoal/ipc/cpu_count.h"
#include "shoal/ipc/descriptor.h"
#include "shoal/ipc/function.h"
#include "shoal/ipc/passage.h"
#include "shoal/ipc/timeout.h"
#include "shoal/ipc/waitable.h"

namespace shoal {

class Pidfd;

enum class StartMethod { fork, forkserver, spawn };
// For every Process that has none of its own, from its start() on.
void set_start_method(StartMethod method);
StartMethod get_start_method();

struct ProcessOptions {
  std::string name = {};            // "Process-1", below it "Process-1:2", …
  std::optional<bool> daemon = {};  // else as the process that makes it
  std::optional<StartMethod> start_method = {};
};

namespace detail {

class Child;  // the process behind a Process

class Body;

// What current_process() and parent_process() say in the processes that the
// calling one, which has one thread, forks for its `owner`: `name`-1, -2, ...
struct Workers {
  std::string name;
  pid_t owner;
  std::string owner_name;
  std::string identity;  // as the owner's, under which children are named
  bool daemon;           // as the owner
  std::shared_ptr<const Pidfd> owner_pidfd;
};
void introduce_workers(Workers workers);
// Of the calling process; without a pidfd.
Workers workers_of_this_process(std::string name);
// In a worker.
void set_worker_number(unsigned number);

// A function and its arguments on the way to a process of the same program.
struct Packed {
  std::vector<std::byte>
      bytes;  // a FunctionRef to an Unpack, and what it reads
  std::unique_ptr<Outbox> handles = std::make_unique<Outbox>();  // in them
};
using Unpack = std::unique_ptr<Body> (*)(codec::Reader& reader);

class Body {
 public:
  virtual ~Body() = default;
  virtual void run() = 0;
  // Throws std::invalid_argument if it cannot travel.
  virtual Packed pack() const = 0;
};

// What pack() gave, where it has arrived with its descriptors. Throws Corrupt,
// TypeMismatch.
std::unique_ptr<Body> unpack_body(std::span<const std::byte> packed,
                                  std::span<Descriptor> handed_over);

// `what`: "the function" or "argument 2".
[[noreturn]] void throw_cannot_travel(const std::string& what,
                                      const std::type_info& type);

template <class F, class Arguments>
class BodyOf;
template <class F, class... As>
class BodyOf<F, std::tuple<As...>> final : public Body {
 public:
  template <class G, class... A>
  explicit BodyOf(G&& f, A&&... arguments)
      : f_(std::forward<G>(f)), arguments_(std::forward<A>(arguments)...) {}
  struct Whole {};
  BodyOf(Whole, F&& f, std::tuple<As...>&& arguments)
      : f_(std::move(f)), arguments_(std::move(arguments)) {}

  void run() override {
    std::apply(
        [this](auto&... arguments) {
          std::invoke(std::move(f_), std::move(arguments)...);
        },
        arguments_);
  }

  Packed pack() const override {
    if constexpr (!call::kCallableTravels<F>) {
      throw_cannot_travel("the function", typeid(F));
    } else if constexpr (!(Message<As> && ...)) {
      refuse_first<As...>(1);
    } else {
      return std::apply(
          [this](const As&... arguments) {
            const FunctionRef code = call::reference_of<&BodyOf::unpack>();
            Packed packed;
            packed.bytes.resize(sizeof code + call::callable_size(f_) +
                                codec::size_of_all(arguments...));
            codec::Writer writer(packed.bytes, packed.handles.get());
            writer.write(&code, sizeof code);
            call::encode_callable(writer, f_);
            codec::encode_all(writer, arguments...);
            return packed;
          },
          arguments_);
    }
  }

 private:
  template <class T, class... Ts>
  [[noreturn]] static void refuse_first(int number) {
    if constexpr (!Message<T>)
      throw_cannot_travel("argument " + std::to_string(number), typeid(T));
    else
      refuse_first<Ts...>(number + 1);
  }

  static std::unique_ptr<Body> unpack(codec::Reader& reader) {
    F f = call::decode_callable<F>(reader);
    auto arguments = codec::decode_tuple<As...>(reader);
    reader.finish();
    return std::make_unique<BodyOf>(Whole(), std::move(f),
                                    std::move(arguments));
  }

  F f_;
  std::tuple<As...> arguments_;
};

// A string literal travels as std::string, unless only a pointer will do.
template <class A>
struct Carried {
  using type = std::decay_t<A>;
};
template <std::size_t n>
struct Carried<const char (&)[n]> {
  using type = std::string;
};
template <class F, class... A>
concept RunsCarried = std::invocable < std::decay_t<F>,
typename Carried<A>::type... > ;
template <class F, class... A>
concept Runs =
    RunsCarried<F, A...> || std::invocable<std::decay_t<F>, std::decay_t<A>...>;

template <class F, class... A>
std::unique_ptr<Body> make_body(F&& f, A&&... arguments) {
  using Arguments = std::conditional_t<RunsCarried<F, A...>,
                                       std::tuple<typename Carried<A>::type...>,
                                       std::tuple<std::decay_t<A>...>>;
  return std::make_unique<BodyOf<std::decay_t<F>, Arguments>>(
      std::forward<F>(f), std::forward<A>(arguments)...);
}

}  // namespace detail

struct ProcessInfo;
ProcessInfo current_process();
// Nothing in a process that was not started by Process::start().
std::optional<ProcessInfo> parent_process();
// Those that run; those that have ended are reaped.
std::vector<ProcessInfo> active_children();

// A process seen from a relative, or from itself.
struct ProcessInfo {
  pid_t pid = 0;
  std::string name;

  bool is_alive() const;
  bool join(Timeout timeout = forever) const;  // logic_error: of itself

 private:
  friend ProcessInfo current_process();
  friend std::optional<ProcessInfo> parent_process();
  friend std::vector<ProcessInfo> active_children();

  // One of the two. A child is reaped by whoever sees its end.
  std::shared_ptr<detail::Child> child_;
  std::shared_ptr<const Pidfd> pidfd_;
};

class Process {
 public:
  // std::invoke(f, arguments...) on copies, which are moved from.
  template <class F, class... A>
  requires detail::Runs<F, A...>
  // NOLINTNEXTLINE(google-explicit-constructor): as in api.md
  Process(F&& f, A&&... arguments)
      : Process(ProcessOptions(), std::forward<F>(f),
                std::forward<A>(arguments)...) {}

  template <class F, class... A>
  requires detail::Runs<F, A...> Process(ProcessOptions options, F&& f,
                                         A&&... arguments)
      : Process(std::move(options),
                detail::make_body(std::forward<F>(f),
                                  std::forward<A>(arguments)...)) {}

  Process(Process&&) noexcept = default;
  Process& operator=(Process&& other) noexcept;
  ~Process();

  // Once; moves f and its arguments out of this process. std::system_error if
  // the kernel refuses, and then it can be tried again.
  void start();

  // Whether the process has ended. Returns at its end even if children of its
  // own hold all of its descriptors.
  bool join(Timeout timeout = forever);
  bool is_alive();
  pid_t pid();  // 0 before start()
  // Nothing before start() and while it runs; 255 if somebody else waited for
  // it and the kernel does not remember (before Linux 6.15).
  std::optional<int> exitcode();

  void terminate();  // SIGTERM
  void kill();       // SIGKILL
  void interrupt();  // SIGINT

  // Gives the descriptor back. All but name() then throw logic_error, as does
  // close() of a process that runs.
  void close();
  WaitSource wait_source() {  // for shoal::wait()
    return {.descriptor = sentinel(), .operations = nullptr, .thing = nullptr};
  }
  int sentinel();  // a descriptor that is readable once the process has ended
  std::string name();
  bool daemon();

 private:
  Process(ProcessOptions options, std::unique_ptr<detail::Body> body);
  detail::Child& child() const;

  std::shared_ptr<detail::Child> child_;
};

}  // namespace shoal
