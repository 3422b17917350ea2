#include "shoal/ipc/takeover.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <unistd.h>

#include <memory>

#include "shoal/ipc/keeper_serve.h"
#include "shoal/ipc/pidfd.h"

// Runs before a sanitizer that is linked into the program has started.
#define SHOAL_EARLY \
  __attribute__((no_sanitize("address", "thread", "undefined")))

namespace shoal::takeover {
namespace {

using Main = int (*)(int, char**, char**);
using Function = void (*)();
using Start = int (*)(Main, int, char**, Function, Function, Function, void*);

// Of this process; written before it has a second thread.
struct State {
  bool wrapped = false;
  bool started_anew = false;
  bool at_main = false;
  int channel = -1;
  int starter = -1;
};
constinit State state;

[[noreturn]] SHOAL_EARLY void fail(const char* text) {
  std::size_t size = 0;
  while (text[size] != '\0') ++size;
  static_cast<void>(!write(STDERR_FILENO, text, size));
  _exit(127);
}

SHOAL_EARLY bool equal(const char* a, const char* b) {
  while (*a != '\0' && *a == *b) ++a, ++b;
  return *a == *b;
}

// A number and what must follow it.
SHOAL_EARLY int number(const char*& text, char end) {
  int value = 0;
  const char* at = text;
  while (*at >= '0' && *at <= '9' && value < 100'000'000)
    value = 10 * value + (*at++ - '0');
  if (at == text || *at != end) fail("shoal: SHOAL_STARTED_ANEW is not ours\n");
  text = at + 1;
  return value;
}

// The value of our variable, which it takes out; nullptr if there is none.
SHOAL_EARLY const char* take_variable(char** environment) {
  for (char** variable = environment; *variable != nullptr; ++variable) {
    const char* text = *variable;
    const char* name = kVariable;
    while (*name != '\0' && *text == *name) ++text, ++name;
    if (*name != '\0' || *text != '=') continue;
    for (; *variable != nullptr; ++variable) *variable = variable[1];
    return text + 1;
  }
  return nullptr;
}

SHOAL_EARLY void prepare(const char* marker) {
  state.channel = number(marker, ',');
  state.starter = number(marker, '\0');
  for (const int fd : {state.channel, state.starter})
    // Nor does a program that this one executes have them.
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0)
      // Without them main would run as if this were the program's first start.
      fail("shoal: a process that was started anew has lost its descriptors\n");
  state.started_anew = true;
  close(STDIN_FILENO);
  // Takes the lowest free number, that of stdin; or there is no input at all.
  static_cast<void>(open("/dev/null", O_RDONLY));
}

// In place of main.
int instead(int, char**, char**) {
  state.at_main = true;
  handover::enter(arrival());
  return 0;
}

}  // namespace

bool wrapped() { return state.wrapped; }
bool started_anew() { return state.started_anew; }
bool in_static_initialisers() { return state.started_anew && !state.at_main; }

handover::Arrival& arrival() {
  // Never destroyed: its last user ends by exit().
  static auto* const received = new handover::Arrival(
      handover::receive(Descriptor(state.channel),
                        std::make_shared<Pidfd>(Pidfd(state.starter))));
  return *received;
}

}  // namespace shoal::takeover

// NOLINTNEXTLINE(bugprone-reserved-identifier): the C library's
extern "C" SHOAL_EARLY __attribute__((visibility("default"))) int
__libc_start_main(shoal::takeover::Main main, int argc, char** argv,
                  shoal::takeover::Function init,
                  shoal::takeover::Function fini,
                  shoal::takeover::Function loader_fini, void* stack_end) {
  using namespace shoal::takeover;
  namespace keeper = shoal::keeper;
  const auto next =
      reinterpret_cast<Start>(dlsym(RTLD_NEXT, "__libc_start_main"));
  if (next == nullptr) fail("shoal: needs a C library that is a shared one\n");
  state.wrapped = true;
  if (argc == keeper::kArguments && equal(argv[0], keeper::kProgramName))
    keeper::serve(argv);
  // The environment lies behind the arguments.
  if (const char* marker = take_variable(argv + argc + 1)) {
    prepare(marker);
    main = instead;
  }
  return next(main, argc, argv, init, fini, loader_fini, stack_end);
}
