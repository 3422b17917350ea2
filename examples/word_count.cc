// Counts the identifiers in all C and C++ files below the directories given
// (default: the system's include directory), first in this process alone, then
// with a pool, and prints the twenty most frequent ones.
//
//   ./bazelw run -c opt //examples:word_count
//   ./bazelw run -c opt //examples:word_count -- --processes 4 ~/src /opt/src
//
// Exit status: 0 if both counts are the same, 1 if not, 2 if there is nothing
// to count. How it is done: word_count_job.cc (the pool), identifiers.cc (the
// counting).

#include <shoal/ipc/cpu_count.h>

#include <charconv>
#include <exception>
#include <iostream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "shoal/examples/identifiers.h"
#include "shoal/examples/word_count_job.h"

namespace {

constexpr std::string_view kUsage =
    "usage: word_count [--processes N] [DIRECTORY]...";

struct Usage : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Options {
  int processes = shoal::cpu_count();
  std::vector<std::string> directories;
  bool help = false;
};

int parse_processes(std::string_view text) {
  int number = 0;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || number < 1)
    throw Usage("--processes wants a number from 1 on, not '" +
                std::string(text) + "'");
  return number;
}

Options parse(const std::vector<std::string>& arguments) {
  constexpr std::string_view kProcesses = "--processes";
  Options options;
  bool only_directories = false;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string_view argument = arguments[i];
    if (only_directories || !argument.starts_with('-')) {
      options.directories.emplace_back(argument);
    } else if (argument == "--") {
      only_directories = true;
    } else if (argument == "--help" || argument == "-h") {
      options.help = true;
    } else if (argument == kProcesses) {
      if (++i == arguments.size()) throw Usage("--processes wants a number");
      options.processes = parse_processes(arguments[i]);
    } else if (argument.starts_with("--processes=")) {
      options.processes =
          parse_processes(argument.substr(kProcesses.size() + 1));
    } else {
      throw Usage("unknown option " + std::string(argument));
    }
  }
  return options;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const Options options = parse({argv + 1, argv + argc});
    if (options.help) {
      std::cout << kUsage << '\n';
      return 0;
    }
    const auto directories = word_count::directories(options.directories);
    const auto files = identifiers::find_files(directories);
    for (const std::string& directory : directories)
      std::cout << directory << '\n';
    return word_count::run(files, options.processes) ? 0 : 1;
  } catch (const identifiers::NoInput& error) {
    std::cerr << "word_count: " << error.what() << '\n';
    return 2;
  } catch (const Usage& error) {
    std::cerr << "word_count: " << error.what() << "; " << kUsage << '\n';
    return 2;
  } catch (const std::exception& error) {
    std::cerr << "word_count: " << error.what() << '\n';
    return 1;
  }
}
