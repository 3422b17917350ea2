// SHOAL_REMOTE: tasks of one program that another one runs (remote_peer.cc).

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstddef>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "shoal/ipc/codec.h"
#include "shoal/ipc/function.h"
#include "shoal/pool/pool.h"
#include "shoal/pool/remote.h"
#include "tests/pool/remote_task.h"

namespace {

using namespace shoal;
using namespace shoal::support;

int square(int) { throw std::logic_error("not this program's"); }
std::string join(const std::string&, int) { return "not this program's"; }
int unknown_there(int x) { return x; }
int unnamed(int x) { return x; }
int other(int x) { return x; }

int negate(int) noexcept { return 0; }
SHOAL_REMOTE("square", square);
SHOAL_REMOTE("negate", negate);
SHOAL_REMOTE("join", join);
SHOAL_REMOTE("unknown there", unknown_there);
int twice(int x) { return 2 * x; }
SHOAL_REMOTE("twice", twice);

// The other program, for as long as this lives.
class Peer {
 public:
  Peer() {
    int to[2], from[2];
    if (pipe(to) != 0 || pipe(from) != 0) throw std::runtime_error("no pipes");
    const std::string path =
        std::string(getenv("TEST_SRCDIR")) + "/shoal/tests/pool/remote_peer";
    pid_ = fork();
    if (pid_ == 0) {
      dup2(to[0], STDIN_FILENO);
      dup2(from[1], STDOUT_FILENO);
      for (const int fd : {to[0], to[1], from[0], from[1]}) close(fd);
      execl(path.c_str(), path.c_str(), nullptr);
      _exit(127);
    }
    close(to[0]);
    close(from[1]);
    to_ = to[1];
    from_ = from[0];
  }
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;
  ~Peer() {
    close(to_);
    close(from_);
    waitpid(pid_, nullptr, 0);
  }

  // What Pool::apply would submit.
  template <class F, class... As>
  std::vector<std::byte> run(F f, const As&... args) {
    constexpr call::Thunk kThunk = &call::run_call<F, As...>;
    const FunctionRef thunk = call::thunk_reference<kThunk>();
    std::vector<std::byte> bytes(sizeof thunk + call::callable_size(f) +
                                 codec::size_of_all(args...));
    codec::Writer writer(bytes);
    writer.write(&thunk, sizeof thunk);
    call::encode_callable(writer, f);
    codec::encode_all(writer, args...);
    write_message(to_, bytes);
    return read_message(from_);
  }

 private:
  pid_t pid_;
  int to_, from_;
};

TEST(Remote, RunsWhatTheOtherProgramHasOfThatName) {
  Peer peer;
  EXPECT_EQ(codec::from_bytes<int>(peer.run(&square, 7)), 49);
  EXPECT_EQ(codec::from_bytes<int>(peer.run(&negate, 7)), -7);
  EXPECT_EQ(
      codec::from_bytes<std::string>(peer.run(&join, std::string("n"), 5)),
      "n5");
}

TEST(Remote, OthersAreRefusedThere) {
  Peer peer;
  const auto text = [&](const std::vector<std::byte>& answer) {
    return codec::from_bytes<std::string>(answer);
  };
  EXPECT_NE(text(peer.run(&unknown_there, 1)).find("SHOAL_REMOTE"),
            std::string::npos);
  EXPECT_NE(text(peer.run(&unnamed, 1)).find("build-id"), std::string::npos);
  EXPECT_EQ(codec::from_bytes<int>(peer.run(&square, 2)), 4);
}

// In one program nothing changes.
TEST(Remote, InAPool) {
  Pool pool(2);
  EXPECT_EQ(pool.apply(twice, 4), 8);
  EXPECT_EQ(pool.map(&twice, {1, 2}), (std::vector{2, 4}));
  EXPECT_EQ(pool.starmap(&twice, {std::tuple(1)}), std::vector{2});
  for (const int n : pool.imap(&twice, {3})) EXPECT_EQ(n, 6);
}

TEST(Remote, ANameIsOfOneFunction) {
  static function::Named entry{"square", reinterpret_cast<const void*>(&other)};
  EXPECT_THROW(function::add_named(entry), std::logic_error);
}

}  // namespace
