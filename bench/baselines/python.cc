#include "bench/baselines/python.h"

#include <stdio.h>
#include <stdlib.h>

#include <map>
#include <stdexcept>

namespace shoal::bench {
namespace {

// Nothing when it fails.
std::string run(const std::string& command) {
  FILE* const output = popen(command.c_str(), "r");
  if (output == nullptr) return {};
  std::string text;
  char part[256];
  while (const std::size_t n = fread(part, 1, sizeof part, output))
    text.append(part, n);
  return pclose(output) == 0 ? text : std::string();
}

}  // namespace

bool has_python(const std::string& module) {
  static std::map<std::string, bool> known;
  const auto found = known.find(module);
  if (found != known.end()) return found->second;
  return known[module] = !run("/usr/bin/python3 -c 'import " + module +
                              "; print(1)' 2>/dev/null")
                              .empty();
}

std::string run_python(const std::string& program,
                       const std::string& arguments) {
  std::string text = run("/usr/bin/python3 - " + arguments + " <<'PROGRAM'\n" +
                         program + "\nPROGRAM\n");
  if (text.empty()) throw std::runtime_error("python3 failed");
  return text;
}

double python_number(const std::string& program, const std::string& arguments) {
  return strtod(run_python(program, arguments).c_str(), nullptr);
}

}  // namespace shoal::bench
