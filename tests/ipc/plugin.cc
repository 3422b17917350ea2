// A library that only one of two processes has loaded.

#include <cstdlib>
#include <string>

extern "C" void leave_with_length(std::string text) {
  std::exit(static_cast<int>(text.size()));
}
