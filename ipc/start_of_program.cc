// Programs that shoal makes of this very program by exec go their own way
// before anything of it runs.
//
// The C runtime's start calls __libc_start_main, which runs the program's
// static initialisers and then main. This one stands before the C library's
// (the linker finds it first), looks whether the process is one of ours by its
// argv[0], and otherwise calls the real one.

#include <dlfcn.h>
#include <string.h>
#include <unistd.h>

#include "shoal/ipc/keeper.h"

extern "C" {

using Main = int (*)(int, char**, char**);
using Start = int (*)(Main, int, char**, void (*)(), void (*)(), void (*)(),
                      void*);

// NOLINTNEXTLINE(bugprone-reserved-identifier): glibc's name
[[gnu::visibility("default")]] int __libc_start_main(
    Main main, int argc, char** argv, void (*init)(), void (*fini)(),
    void (*rtld_fini)(), void* stack_end) {
  if (argc == 5 && strcmp(argv[0], shoal::keeper::kProgramName) == 0)
    shoal::keeper::serve(argv);
  const auto real =
      reinterpret_cast<Start>(dlsym(RTLD_NEXT, "__libc_start_main"));
  if (real == nullptr) _exit(127);
  return real(main, argc, argv, init, fini, rtld_fini, stack_end);
}

}  // extern "C"
