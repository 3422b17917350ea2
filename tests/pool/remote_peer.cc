// Another program, with a square of its own: reads tasks as remote_process_test
// writes them, and answers.

#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <span>
#include <string>
#include <vector>

#include "shoal/ipc/codec.h"
#include "shoal/ipc/function.h"
#include "shoal/pool/remote.h"
#include "tests/pool/remote_task.h"

namespace {

// In front of it, so that nothing lies where it does in the test.
int cube(int x) { return x * x * x; }
int negate(int x) noexcept { return -x; }
int square_here(int x) { return x * x; }
std::string join(const std::string& a, int b) { return a + std::to_string(b); }

}  // namespace

SHOAL_REMOTE("cube", cube);
SHOAL_REMOTE("square", square_here);
SHOAL_REMOTE("join", join);
SHOAL_REMOTE("negate", negate);

int main() {
  using namespace shoal;
  for (;;) {
    const auto task = support::read_message(STDIN_FILENO);
    if (task.empty()) return 0;
    std::vector<std::byte> answer;
    try {
      codec::Reader reader(task);
      FunctionRef thunk;
      std::memcpy(&thunk, reader.take(sizeof thunk), sizeof thunk);
      support::VectorReply reply;
      reinterpret_cast<call::Thunk>(
          const_cast<void*>(function::resolve(thunk)))(reader, reply);
      answer = std::move(reply.bytes);
    } catch (const std::exception& error) {
      answer = codec::to_bytes(std::string(error.what()));
    }
    support::write_message(STDOUT_FILENO, answer);
  }
}
