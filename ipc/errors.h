#pragma once
// The errors that shoal throws.
//
//   try { order = orders.get(1s); } catch (const shoal::Empty&) { ... }
//
// Conditions that a program meets in normal life derive from shoal::Error
// (a std::runtime_error). Misuse is std::logic_error or std::invalid_argument,
// and what the kernel refuses is std::system_error, with the call, the name of
// the object and the size in its text.

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace shoal {

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// A wait ended before what it waited for happened. Virtual, as BrokenBarrier's:
// a BarrierTimeout is both, and one Error. (Who derives from one of them names
// Error in its constructor, too.)
struct TimeoutError : virtual Error {
  explicit TimeoutError(const std::string& what) : Error(what) {}
  TimeoutError(const TimeoutError&) = default;
  TimeoutError& operator=(const TimeoutError&) = default;
};
struct Empty : Error {
  using Error::Error;
};
struct Full : Error {
  using Error::Error;
};

// The handle was closed in this process; ShutDown: the object, for everyone.
struct Closed : Error {
  using Error::Error;
};
struct ShutDown : Closed {
  using Closed::Closed;
};

struct EndOfFile : Error {
  using Error::Error;
};
struct PeerDied : EndOfFile {
  using EndOfFile::EndOfFile;
};
struct BrokenPipe : Error {
  using Error::Error;
};

// The destination is too small. message() is the whole of what had come.
class BufferTooShort : public Error {
 public:
  BufferTooShort(const std::string& what, std::vector<std::byte> message)
      : Error(what), message_(std::move(message)) {}
  const std::vector<std::byte>& message() const { return message_; }

 private:
  std::vector<std::byte> message_;
};

struct MessageTooLong : Error {
  using Error::Error;
};
// The bytes are of another type than the one asked for; the text prints both.
struct TypeMismatch : Error {
  using Error::Error;
};
struct OwnerDied : Error {
  using Error::Error;
};
struct BrokenBarrier : virtual Error {
  explicit BrokenBarrier(const std::string& what) : Error(what) {}
  BrokenBarrier(const BrokenBarrier&) = default;
  BrokenBarrier& operator=(const BrokenBarrier&) = default;
};
// Of Barrier::wait() whose own timeout has broken it. The others that wait get
// BrokenBarrier.
struct BarrierTimeout : BrokenBarrier, TimeoutError {
  explicit BarrierTimeout(const std::string& what)
      : Error(what), BrokenBarrier(what), TimeoutError(what) {}
  BarrierTimeout(const BarrierTimeout&) = default;
  BarrierTimeout& operator=(const BarrierTimeout&) = default;
};

// Memory, seats or records are used up. wanted() and available() are in the
// unit that the text names (bytes unless it says otherwise).
class NoSpace : public Error {
 public:
  NoSpace(const std::string& what, std::uint64_t wanted,
          std::uint64_t available)
      : Error(what), wanted_(wanted), available_(available) {}
  std::uint64_t wanted() const { return wanted_; }
  std::uint64_t available() const { return available_; }

 private:
  std::uint64_t wanted_;
  std::uint64_t available_;
};

// Shared memory or a message holds what no shoal program writes.
struct Corrupt : Error {
  using Error::Error;
};
struct Cancelled : Error {
  using Error::Error;
};

// The process that ran a task ended before the task did.
class WorkerDied : public Error {
 public:
  WorkerDied(const std::string& what, pid_t pid, int exitcode,
             std::uint64_t task)
      : Error(what), pid_(pid), exitcode_(exitcode), task_(task) {}
  pid_t pid() const { return pid_; }
  int exitcode() const { return exitcode_; }    // -N: ended by signal N
  std::uint64_t task() const { return task_; }  // as numbered by submission

 private:
  pid_t pid_;
  int exitcode_;
  std::uint64_t task_;
};

// The pool can run nothing any more; the text says since when and why.
struct BrokenPool : Error {
  using Error::Error;
};

// An exception in another process whose type does not travel.
class RemoteError : public Error {
 public:
  RemoteError(const std::string& type_name, const std::string& message,
              pid_t pid, const std::string& backtrace = {})
      : Error(type_name + " in process " + std::to_string(pid) + ": " +
              message +
              (backtrace.empty() ? "" : "\nthrown at:\n" + backtrace)),
        type_name_(type_name),
        message_(message),
        pid_(pid),
        backtrace_(backtrace) {}
  const std::string& type_name() const { return type_name_; }
  const std::string& message() const { return message_; }
  pid_t pid() const { return pid_; }
  // Where it was thrown, a frame a line; "" where that is not known.
  const std::string& backtrace() const { return backtrace_; }

 private:
  std::string type_name_;
  std::string message_;
  pid_t pid_;
  std::string backtrace_;
};

struct NotRunning : std::logic_error {
  using std::logic_error::logic_error;
};
struct NotReady : std::logic_error {
  using std::logic_error::logic_error;
};

// errno as std::system_error: "<call>(<name>, <size> bytes); <remedy>:
// <reason>", where there is a remedy.
[[noreturn]] void throw_system_error(int error, const char* call,
                                     const std::string& name = {},
                                     std::uint64_t size = 0);

}  // namespace shoal
