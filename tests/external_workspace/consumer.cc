// shoal, used from another Bazel workspace.

#include <shoal/ipc/timeout.h>
#include <shoal/shoal.h>

#include <iostream>

int main() {
  try {
    throw shoal::Empty("as expected");
  } catch (const shoal::Error& error) {
    std::cout << error.what() << ", "
              << (shoal::Timeout(shoal::forever).is_forever() ? "ok" : "wrong")
              << '\n';
  }
}
